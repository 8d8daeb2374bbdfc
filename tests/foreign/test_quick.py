"""A minimal conversation with each client that the tests have anyway: declare, confirm, get, an error's text, close."""

from __future__ import annotations

import asyncio
from typing import Any

import aio_pika
import amqp
import kombu as untyped_kombu
import pika
import pytest
from aio_pika.exceptions import ChannelNotFoundEntity

from txmsg.testing import BrokerProcess

kombu: Any = untyped_kombu


def test_pika(vhost_url: str) -> None:
    """R34: pika."""
    with pika.BlockingConnection(pika.URLParameters(vhost_url)) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("q")
        channel.basic_publish("", "q", b"one", pika.BasicProperties(headers={"n": 1}))
        method, properties, body = channel.basic_get("q", auto_ack=True)
        assert (method.routing_key, properties.headers, body) == ("q", {"n": 1}, b"one")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="NOT_FOUND - no queue 'none' in vhost"):
            channel.queue_declare("none", passive=True)


def test_py_amqp(shared_broker: BrokerProcess) -> None:
    """R34: py-amqp."""
    vhost = shared_broker.add_vhost()
    with amqp.Connection(f"127.0.0.1:{shared_broker.port}", virtual_host=vhost, confirm_publish=True) as connection:
        channel = connection.channel()
        channel.queue_declare("q", auto_delete=False)
        channel.basic_publish(amqp.Message("one", application_headers={"n": 1}), routing_key="q")
        message = channel.basic_get("q", no_ack=True)
        assert (message.body, message.headers) == ("one", {"n": 1})
        with pytest.raises(amqp.exceptions.NotFound, match="NOT_FOUND - no queue 'none' in vhost"):
            channel.queue_declare("none", passive=True)


def test_kombu(vhost_url: str) -> None:
    """R34: Kombu."""
    with kombu.Connection(vhost_url) as connection:
        queue = connection.SimpleQueue("q")
        queue.put({"one": [1, None]})
        message = queue.get(timeout=10)
        assert message.payload == {"one": [1, None]}
        message.ack()
        queue.close()


def test_aio_pika(vhost_url: str) -> None:
    """R34: aio-pika."""

    async def talk() -> None:
        async with await aio_pika.connect(vhost_url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q")
            await channel.default_exchange.publish(aio_pika.Message(b"one", headers={"n": 1}), "q")
            message = await queue.get(no_ack=True)
            assert (message.body, message.headers) == (b"one", {"n": 1})
            with pytest.raises(ChannelNotFoundEntity, match="NOT_FOUND - no queue 'none' in vhost"):
                await channel.declare_queue("none", passive=True)

    asyncio.run(talk())

"""aio-pika: robust connections, confirms, returns, iterators, dead letters, RPC by direct reply-to, transactions."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from typing import Any

import aio_pika
import pytest
from aio_pika.exceptions import ChannelPreconditionFailed, DeliveryError
from aio_pika.patterns import RPC

pytestmark = pytest.mark.long


def test_exchanges_and_settlement(vhost_url: str) -> None:
    """R34: all exchange types, e2e, an iterator with prefetch, nack with requeue."""

    async def talk() -> None:
        async with await aio_pika.connect_robust(vhost_url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=2)
            queue = await channel.declare_queue("q", durable=True)
            exchanges = {}
            for kind in aio_pika.ExchangeType.DIRECT, aio_pika.ExchangeType.FANOUT, aio_pika.ExchangeType.TOPIC:
                exchanges[kind] = await channel.declare_exchange(f"x.{kind.value}", kind)
                await queue.bind(exchanges[kind], "a.*")
            headers = await channel.declare_exchange("x.headers", aio_pika.ExchangeType.HEADERS)
            await queue.bind(headers, arguments={"x-match": "all", "a": 1})
            outer = await channel.declare_exchange("outer", aio_pika.ExchangeType.FANOUT)
            await exchanges[aio_pika.ExchangeType.TOPIC].bind(outer)
            await exchanges[aio_pika.ExchangeType.DIRECT].publish(aio_pika.Message(b"1"), "a.*")
            await exchanges[aio_pika.ExchangeType.FANOUT].publish(aio_pika.Message(b"2"), "")
            await exchanges[aio_pika.ExchangeType.TOPIC].publish(aio_pika.Message(b"3"), "a.b")
            await headers.publish(aio_pika.Message(b"4", headers={"a": 1}), "")
            await outer.publish(aio_pika.Message(b"5"), "nobody", mandatory=False)
            got = []
            async with queue.iterator(timeout=10) as messages:
                async for message in messages:
                    if message.body == b"2" and not message.redelivered:
                        await message.nack(requeue=True)
                        continue
                    await message.ack()
                    got.append(message.body)
                    if len(got) == 4:
                        break
            assert sorted(got) == [b"1", b"2", b"3", b"4"]

    asyncio.run(talk())


def test_returns_and_errors(vhost_url: str) -> None:
    """R34: a mandatory message that comes back fails its publish; 406 with its text; the connection goes on."""

    async def talk() -> None:
        async with await aio_pika.connect(vhost_url) as connection:
            channel = await connection.channel(on_return_raises=True)
            with pytest.raises(DeliveryError):
                await channel.default_exchange.publish(aio_pika.Message(b"lost"), "nobody", mandatory=True)
            await channel.declare_queue("q")
            with pytest.raises(ChannelPreconditionFailed, match="inequivalent arg 'durable' for queue 'q'"):
                await channel.declare_queue("q", durable=True)
            other = await connection.channel(publisher_confirms=False)
            async with other.transaction():
                await other.default_exchange.publish(aio_pika.Message(b"done"), "q")
            with pytest.raises(ValueError, match="undo"):
                async with other.transaction():
                    await other.default_exchange.publish(aio_pika.Message(b"undone"), "q")
                    raise ValueError("undo")
            queue = await other.declare_queue("q", passive=True)
            assert queue.declaration_result.message_count == 1

    asyncio.run(talk())


def test_dead_letters_priorities_and_values(vhost_url: str) -> None:
    """R34: x-death, priorities, all properties, a body of three frames."""

    async def talk() -> None:
        async with await aio_pika.connect(vhost_url) as connection:
            channel = await connection.channel()
            dead = await channel.declare_queue("dead")
            arguments: Any = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead", "x-max-priority": 5}
            queue = await channel.declare_queue("q", arguments=arguments)
            body = bytes(range(256)) * 1200
            headers: Any = {"n": 1, "f": 1.5, "s": "ä", "l": [1, {"x": None}], "t": True}
            when = datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC)
            message = aio_pika.Message(body, headers=headers, timestamp=when, message_id="m", expiration=60, priority=1)
            await channel.default_exchange.publish(message, "q")
            await channel.default_exchange.publish(aio_pika.Message(b"first", priority=4), "q")
            first, second = await queue.get(), await queue.get()
            assert (first.body, second.body, second.timestamp) == (b"first", body, when)
            assert second.headers == headers
            await first.reject()
            await second.ack()
            died = await dead.get(no_ack=True, timeout=10)
            deaths: Any = died.headers["x-death"]
            assert [(death["reason"], death["queue"], death["count"]) for death in deaths] == [("rejected", "q", 1)]

    asyncio.run(talk())


def test_rpc(vhost_url: str) -> None:
    """R34: calls with an answer, and one that fails."""

    async def double(*, number: int) -> int:
        return number * 2

    async def talk() -> None:
        async with await aio_pika.connect(vhost_url) as connection:
            server, client = await RPC.create(await connection.channel()), await RPC.create(await connection.channel())
            name = f"double-{uuid.uuid4()}"
            await server.register(name, double, auto_delete=True)
            assert await client.call(name, {"number": 21}) == 42
            with pytest.raises(TypeError):
                await client.call(name, {"wrong": 1})
            await client.close()
            await server.close()

    asyncio.run(talk())


def test_direct_reply_to(vhost_url: str) -> None:
    """R34: amq.rabbitmq.reply-to."""

    async def talk() -> None:
        async with await aio_pika.connect(vhost_url) as connection:
            channel = await connection.channel()
            requests = await channel.declare_queue("requests")
            answers: asyncio.Queue[bytes] = asyncio.Queue()

            async def answered(message: aio_pika.abc.AbstractIncomingMessage) -> None:
                await answers.put(message.body)

            direct = await channel.get_queue("amq.rabbitmq.reply-to", ensure=False)
            await direct.consume(answered, no_ack=True)
            await channel.default_exchange.publish(
                aio_pika.Message(b"ask", reply_to="amq.rabbitmq.reply-to"), "requests"
            )
            request = await requests.get(no_ack=True)
            assert request.reply_to is not None
            await channel.default_exchange.publish(aio_pika.Message(b"answer"), request.reply_to)
            assert await asyncio.wait_for(answers.get(), 10) == b"answer"

    asyncio.run(talk())

"""Read by mypy only: the types users see when they use txmsg.messaging, also by the names at the top of txmsg."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from twisted.internet.defer import Deferred

import txmsg
import txmsg.messaging
from txmsg import Connection, Consumer, Exchange, Message, Producer, Queue
from txmsg.messaging import SimpleQueue, maybe_declare


async def connections() -> None:
    """Lazy ones, and what they make."""
    connection = txmsg.Connection("memory://")
    assert_type(connection, txmsg.messaging.Connection)
    assert_type(connection.connect(), Deferred[Connection])
    assert_type(connection.as_uri(), str)
    assert_type(connection.connected, bool)
    assert_type(connection.Producer(), Producer)
    assert_type(connection.SimpleQueue("jobs"), SimpleQueue)
    Connection("memory://", vhost="jobs")  # type: ignore[call-arg]
    txmsg.Conection("memory://")  # type: ignore[attr-defined]


async def entities(connection: Connection) -> None:
    """Values, bound by copying."""
    exchange = Exchange("shop", "topic")
    queue = Queue("orders", exchange, routing_key="order.*")
    assert_type(queue(connection), Queue)
    assert_type(await queue(connection).get(), Message | None)
    assert_type(await maybe_declare(queue, connection), bool)
    Queue("orders", key="order.*")  # type: ignore[call-arg]


async def producing(connection: Connection) -> None:
    """Publishes."""
    producer = Producer(connection)
    producer.publish({"a": 1}, routing_key="orders", expiration=1.5)
    producer.publish({"a": 1}, routing_key=5)  # type: ignore[arg-type]


async def consuming(connection: Connection) -> None:
    """Callbacks, and iterating."""

    def handle(body: Any, message: Message) -> None:
        message.ack()

    consumer = Consumer(connection, [Queue("orders")], callbacks=[handle], accept=["json"])
    assert_type(await consumer.consume(), Consumer)
    async for message in consumer:
        assert_type(message, Message)
        assert_type(message.acknowledged, bool)


#: One of the names at the top.
make_id: Callable[[], str] = txmsg.uuid

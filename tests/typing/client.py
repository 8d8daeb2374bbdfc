"""Read by mypy only: the types users see when they use the client, and mistakes that must be seen as such.

Every ``type: ignore`` here marks a line that has to be an error: were it accepted, the ignore would be unused,
and that is an error in turn.
"""

from __future__ import annotations

from typing import Any, assert_type

from twisted.internet.defer import Deferred

from txmsg.amqp import (
    AMQPProtocol,
    BasicProperties,
    Channel,
    ClosableDeferredQueue,
    ConnectionParameters,
    Consumer,
    Delivery,
    ReturnedMessage,
    TLSOptions,
    connect,
)
from txmsg.errors import ChannelClosed, ConnectionClosed, NotFound, PublishFailed, PublishReturned, TxmsgError
from txmsg.wire.methods import basic, confirm, queue, tx
from txmsg.wire.methods import connection as connection_methods


async def connections(parameters: ConnectionParameters) -> None:
    """What connecting gives."""
    assert_type(connect(), Deferred[AMQPProtocol])
    connection = await connect(parameters)
    assert_type(connection, AMQPProtocol)
    assert_type(await connect("amqps://broker.example/"), AMQPProtocol)
    assert_type(connection.is_open, bool)
    assert_type(connection.parameters, ConnectionParameters)
    assert_type(await connection.update_secret("new", "expired"), connection_methods.UpdateSecretOk)
    assert_type(await connection.close(), BaseException)
    connect(5672)  # type: ignore[arg-type]
    ConnectionParameters(hots="localhost")  # type: ignore[call-arg]
    ConnectionParameters(tls=True)  # type: ignore[arg-type]
    ConnectionParameters(tls=TLSOptions())


async def channels(connection: AMQPProtocol) -> None:
    """What a channel's methods fire with."""
    channel = await connection.channel()
    assert_type(channel, Channel)
    assert_type(await channel.basic_qos(10), basic.QosOk)
    assert_type(await channel.confirm_select(), confirm.SelectOk | None)
    assert_type(await channel.tx_select(), tx.SelectOk)
    assert_type(await channel.basic_get("queue"), Delivery | None)
    assert_type(await channel.queue_declare("queue"), queue.DeclareOk)
    assert_type(await channel.queue_declare("queue", nowait=True), queue.DeclareOk | None)
    await channel.queue_declare(b"queue")  # type: ignore[call-overload]
    await channel.queue_declare("queue", False)  # type: ignore[call-overload]
    await channel.no_such_method()  # type: ignore[attr-defined]


async def publishing(channel: Channel) -> None:
    """Bodies are bytes or text, properties are values."""
    assert_type(await channel.basic_publish("", "queue", b"body", BasicProperties(priority=1)), int | None)
    await channel.basic_publish("", "queue", bytearray(b"body"), mandatory=True)
    await channel.basic_publish("", "queue", ["text"])  # type: ignore[arg-type]
    await channel.basic_publish("", "queue", b"body", {"priority": 1})  # type: ignore[arg-type]
    properties = BasicProperties(content_type="text/plain")
    assert_type(properties.content_type, str | None)
    properties.content_type = "other"  # type: ignore[misc]

    def returned(message: ReturnedMessage) -> None:
        assert_type(message.reply_code, int)
        assert_type(message.body, bytes)

    channel.add_return_callback(returned)


async def consuming(channel: Channel) -> None:
    """The three ways to consume."""
    consumer = await channel.basic_consume("queue")
    assert_type(consumer, Consumer)
    assert_type(consumer.queue, ClosableDeferredQueue[Delivery] | None)
    async for delivery in consumer:
        assert_type(delivery, Delivery)
        assert_type(delivery.body, bytes)
        assert_type(delivery.redelivered, bool)
        # Settling gives no Deferred: there is nothing to wait for.
        delivery.ack().addCallback(print)  # type: ignore[attr-defined, func-returns-value]

    async def coroutine_callback(delivery: Delivery) -> None:
        delivery.nack(requeue=False)

    def plain_callback(delivery: Delivery) -> Deferred[None]:
        delivery.reject()
        return channel.basic_cancel(delivery.consumer_tag)

    def wrong_callback(delivery: str) -> None:
        """Takes something else."""

    await channel.basic_consume("queue", coroutine_callback)
    await channel.basic_consume("queue", plain_callback, no_ack=True)
    await channel.basic_consume("queue", wrong_callback)  # type: ignore[arg-type]
    await consumer.cancel()


async def queues() -> None:
    """The queue is generic."""
    numbers: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    numbers.put("one")  # type: ignore[arg-type]
    assert_type(await numbers.get(), int)
    assert_type(numbers.close(), list[int])
    assert_type(numbers.closed, BaseException | None)


def errors(error: TxmsgError) -> Any:
    """Errors carry what a program decides by."""
    if isinstance(error, ConnectionClosed | ChannelClosed):
        assert_type(error.reply_code, int)
        assert_type(error.reply_text, str)
    base: type[ChannelClosed] = NotFound
    failed: type[PublishFailed] = PublishReturned
    return base, failed

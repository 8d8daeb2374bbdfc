"""Publishing: retries, declarations on the way, serializers, raw octets."""

from __future__ import annotations

import uuid

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from tests.conformance.messaging.base import MessagingCase, OverMemory, OverRabbitMQ
from txmsg.errors import ConnectionLost
from txmsg.messaging import Connection, Exchange, Queue, RetryIntervals, register_pickle, retry_over_time
from txmsg.messaging.serialization import serializers


def test_the_waits_of_a_retry_policy() -> None:
    """Example 8: the first at once, then 2 seconds more each, 30 at most, 30 times."""
    policy = {"interval_start": 0, "interval_step": 2, "interval_max": 30, "max_retries": 30}
    waits = [RetryIntervals(**policy).wait(number) for number in range(1, 31)]
    assert waits == [min(2.0 * number, 30.0) for number in range(30)]
    clock, tried = Clock(), list[float]()

    def attempt() -> Deferred[None]:
        tried.append(clock.seconds())
        return fail(ConnectionLost("gone")) if len(tried) < 4 else succeed(None)

    done = retry_over_time(attempt, ConnectionLost, interval_start=0, interval_step=2, interval_max=30, reactor=clock)
    clock.pump([0.0, 0.0, *[0.5] * 20])
    assert tried == [0.0, 0.0, 2.0, 6.0]
    assert done.called


class PublishingExamples(OverMemory, MessagingCase):
    """Over ``memory://``."""

    async def test_serializers(self) -> None:
        """Example 11: one for each message, or one for all of a producer."""
        register_pickle([uuid.UUID])
        self.addCleanup(serializers.unregister, "pickle")
        connection = self.connection()
        queue = Queue("q")(connection)
        await queue.declare()
        producer = connection.Producer(routing_key="q", serializer="msgpack")
        await producer.publish({"a": b"\xff"})
        await producer.publish({"a": 1}, serializer="yaml")
        await producer.publish({"a": uuid.UUID(int=1)}, serializer="pickle")
        got = [await queue.get(no_ack=True, accept=["msgpack", "yaml", "pickle"]) for _ in range(3)]
        self.assertEqual(
            [(message.content_type, message.payload["a"]) for message in got if message],
            [
                ("application/x-msgpack", b"\xff"),
                ("application/x-yaml", 1),
                ("application/x-python-serialize", uuid.UUID(int=1)),
            ],
        )

    async def test_a_picture(self) -> None:
        """Example 22: octets with a type of their own are sent as they are, and come back so."""
        picture, connection = b"\xff\xd8\xff\xe0 a cat", self.connection()
        queue = Queue("pictures")(connection)
        await queue.declare()
        await connection.Producer().publish(
            picture, content_type="image/jpeg", content_encoding="binary", routing_key="pictures"
        )
        message = await queue.get(no_ack=True, accept=["image/jpeg"])
        assert message is not None
        self.assertEqual((message.content_type, message.body), ("image/jpeg", picture))

    async def test_accept(self) -> None:
        """Example 38: what may be decoded, for a consumer and for one message."""
        connection = self.connection()
        queue = Queue("q")(connection)
        await queue.declare()
        producer = connection.Producer(routing_key="q", serializer="yaml")
        for _ in range(3):
            await producer.publish({"a": 1})
        refused = await queue.get()
        assert refused is not None
        self.assertRaises(connection.Consumer().ContentDisallowed, refused.decode)
        taken = await queue.get(accept=["json", "yaml"])
        assert taken is not None
        self.assertEqual(taken.payload, {"a": 1})
        bodies: list[object] = []
        async with connection.Consumer(
            Queue("q"),
            accept=["application/x-yaml"],
            no_ack=True,
            callbacks=[lambda body, message: bodies.append(body)],
        ):
            await self.until(lambda: bodies)
        self.assertEqual(bodies, [{"a": 1}])


class RabbitMQExamples(OverRabbitMQ, MessagingCase):
    """What needs RabbitMQ."""

    async def test_an_offline_worker(self) -> None:
        """Example 9: with `declare=`, a task waits for a worker that was never there."""
        name = self.name("tasks")
        exchange = Exchange(name, "direct")
        queue = Queue(name, exchange, routing_key="tasks")
        producer = self.connection().Producer()
        await producer.publish(
            {"task": 1},
            exchange=exchange,
            routing_key="tasks",
            declare=[exchange, queue],
            retry=True,
            retry_policy={"interval_start": 0, "interval_step": 2, "interval_max": 30, "max_retries": 30},
        )
        worker = self.connection()
        message = await queue(worker).get(no_ack=True)
        assert message is not None
        self.assertEqual(message.payload, {"task": 1})
        await queue(worker).delete()
        await exchange(worker).delete()

    async def test_autoretry_and_ensure(self) -> None:
        """Example 26: the operator ends the connection, and the calls go through."""
        name = self.name("q")
        connection: Connection = self.connection()
        producer = connection.Producer()
        seen: list[BaseException] = []
        publish = connection.ensure(
            producer, producer.publish, errback=lambda error, interval: seen.append(error), max_retries=30
        )
        await publish({"number": 1}, routing_key=name, declare=[Queue(name)])
        await self.in_thread(self.node.close_all_connections, "closed by the test")
        await publish({"number": 2}, routing_key=name)

        async def depth(channel: object) -> int:
            declared = await Queue(name)(channel).queue_declare(passive=True)
            return declared.message_count

        await self.in_thread(self.node.close_all_connections, "closed by the test")
        count, channel = await connection.autoretry(depth, max_retries=30)()
        self.assertEqual((count, channel.is_open), (2, True))
        await Queue(name)(channel).delete()

"""Publishing to a broker that is there, that is not, and that goes away: nothing is lost, and each outcome is typed."""

from __future__ import annotations

from typing import Any, ClassVar

from twisted.internet.defer import Deferred, gatherResults

from tests.conformance.messaging.base import MessagingCase, OverBroker, OverMemory, OverRabbitMQ
from txmsg.errors import NotFound, OperationalError, PublishNacked, PublishReturned
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.entities import Exchange, Queue
from txmsg.messaging.publishing.producer import Producer


class PublishingCase(MessagingCase):
    """What the cases need."""

    policy: ClassVar[dict[str, Any]] = {"interval_start": 0.02, "interval_step": 0.02, "interval_max": 0.2}

    async def bodies(self, queue: str) -> list[str]:
        """All that is in a queue, over another connection."""
        connection = self.connection()
        channel = await connection.channel()
        found = []
        while (delivery := await channel.get(queue, no_ack=True)) is not None:
            found.append(delivery.body.decode())
        await connection.close()
        return found

    async def delete(self, queue: str) -> None:
        """Delete a queue of the case."""
        connection = self.connection()
        await (await connection.channel()).queue_delete(queue)
        await connection.close()


class PublishingCases(PublishingCase):
    """The cases for every transport."""

    async def test_all_that_a_message_has(self) -> None:
        """kombu G8, G10, G11, G14, G15, G19 to G22: as it comes at the other end."""
        connection = self.connection()
        name = self.name("q")
        answers = Queue(self.name("answers"))
        producer = Producer(connection, routing_key=name)
        await producer.publish(
            {"a": "é"},
            declare=[Queue(name, auto_delete=False, expires=60)],
            delivery_mode="transient",
            priority=7,
            headers={"h": [1, "2", None]},
            compression="zlib",
            expiration=60.5,
            reply_to=answers,
            correlation_id="c",
            message_id="m",
            timestamp=1_700_000_000,
            type="t",
            app_id="a",
        )
        delivery = await connection.default_channel.get(name, no_ack=True)
        self.assertEqual((delivery.exchange, delivery.routing_key), ("", name))
        self.assertEqual(
            dict(delivery.properties),
            {
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "headers": {"h": [1, "2", None], "compression": "application/x-gzip"},
                "delivery_mode": 1,
                "priority": 7,
                "correlation_id": "c",
                "reply_to": answers.name,
                "expiration": "60500",
                "message_id": "m",
                "timestamp": 1_700_000_000,
                "type": "t",
                "app_id": "a",
            },
        )

    async def test_mandatory(self) -> None:
        """kombu G6, G23 and R5: each return finds its publish, and on_return is called too."""
        returned: list[tuple[str, str, bytes]] = []

        def on_return(error: PublishReturned, exchange: str, routing_key: str, message: Message) -> None:
            returned.append((exchange, routing_key, message.body))

        connection = self.connection()
        name = self.name("q")
        producer = Producer(connection, on_return=on_return)
        await producer.publish("there", name, declare=[Queue(name, exclusive=True)], mandatory=True)
        outcomes = [
            producer.publish("same", key, mandatory=True, retry=retry)
            for key in (name, "nowhere", name, "nowhere")
            for retry in (False, True)
        ]
        for outcome, key in zip(outcomes, [name, name, "nowhere", "nowhere"] * 2, strict=True):
            if key == name:
                await outcome
            else:
                error = await self.failure(outcome, PublishReturned)
                self.assertEqual((error.reply_code, error.routing_key), (312, "nowhere"))
        self.assertEqual(returned, [("", "nowhere", b"same")] * 4)

    async def test_no_such_exchange(self) -> None:
        """kombu B9, G16: NotFound, with a policy too; the next publish, made at once, goes over another channel.

        One that was under way beside it is sent again.
        """
        connection = self.connection()
        name = self.name("q")
        producer = Producer(connection)
        await producer.publish("0", name, declare=[Queue(name)])
        self.addCleanup(self.delete, name)
        for retry in (False, True):
            refused = producer.publish("x", name, exchange=self.name("nothing"), retry=retry)
            beside = producer.publish("1", name, retry=True, retry_policy=self.policy)
            await self.failure(refused, NotFound)
            await producer.publish("2", name)
            await beside
        # It is once more there only where the broker had taken it over before.
        self.assertEqual(sorted(await self.bodies(name)), ["0", "1", "1", "2", "2"])

    async def test_a_full_queue(self) -> None:
        """kombu G30, B10: nacked; with a policy it is there as soon as there is room."""
        connection = self.connection()
        name = self.name("q")
        arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
        producer = Producer(connection)
        await producer.publish("0", name, declare=[Queue(name, exclusive=True, queue_arguments=arguments)])
        await self.failure(producer.publish("1", name), PublishNacked)
        errors: list[BaseException] = []

        def errback(error: BaseException, interval: float) -> None:
            errors.append(error)
            if len(errors) == 2:
                connection.default_channel.queue_purge(name)

        await producer.publish("2", name, retry=True, retry_policy={**self.policy, "errback": errback})
        self.assertEqual([type(error) for error in errors], [PublishNacked] * len(errors))
        self.assertGreaterEqual(len(errors), 2)
        delivery = await connection.default_channel.get(name, no_ack=True)
        self.assertEqual(delivery.body, b"2")

    async def test_order_before_it_is_connected(self) -> None:
        """R4: publishes given without waiting, while the connection and the queue are made."""
        connection = self.connection()
        name = self.name("q")
        queue = Queue(name, Exchange(self.name("x"), durable=False), "key", exclusive=True)
        producer = Producer(connection, queue.exchange, "key")
        waiting = [
            producer.publish(str(number), retry=bool(number % 2), declare=[queue] if number < 3 else ())
            for number in range(50)
        ]
        await gatherResults(waiting)
        waiting = [producer.publish(str(number)) for number in range(50, 100)]
        await gatherResults(waiting)
        found = []
        while (delivery := await connection.default_channel.get(name, no_ack=True)) is not None:
            found.append(delivery.body.decode())
        self.assertEqual(found, [str(number) for number in range(100)])

    async def test_connections_are_cut(self) -> None:
        """kombu G18, B6, B22, B23 and R3, R4: nothing is lost, and in order but for repetitions."""
        connection = self.connection()
        name = self.name("q")
        queue = Queue(name, Exchange(self.name("x")), "key")
        self.addCleanup(self.delete, name)
        producer = Producer(connection, queue.exchange, "key", max_waiting=1000)
        waiting: list[Deferred[Any]] = []
        for number in range(300):
            waiting.append(producer.publish(str(number), retry=True, retry_policy=self.policy, declare=[queue]))
            if number in (100, 200):
                await waiting[-1]
                cutting = Deferred.fromCoroutine(self.cut())
                waiting.extend(
                    producer.publish(f"{number}+{more}", retry=True, retry_policy=self.policy) for more in range(20)
                )
                await cutting
        await gatherResults(waiting)
        found = await self.bodies(name)
        expected = []
        for number in range(300):
            expected.append(str(number))
            if number in (100, 200):
                expected.extend(f"{number}+{more}" for more in range(20))
        self.assertEqual(list(dict.fromkeys(reversed(found)))[::-1], expected)


class PublishingOverMemory(OverMemory, PublishingCases):
    """In this process."""


class PublishingOverBroker(OverBroker, PublishingCases):
    """Our own broker, on a socket."""


class PublishingOverRabbitMQ(OverRabbitMQ, PublishingCases):
    """RabbitMQ."""


class PublishingThroughARestart(OverBroker, PublishingCase):
    """Our own broker with its data on disk."""

    __test__ = True
    durable = True

    async def test_the_broker_restarts(self) -> None:
        """kombu G18, B22 and R1, R3: what was confirmed is there, and so is what was under way."""
        connection = self.connection()
        name = self.name("q")
        transient = Exchange(self.name("x"), durable=False)
        queue = Queue(name, transient, "key")
        producer = Producer(connection, transient, "key")
        declared: dict[str, Any] = {"declare": [queue], "retry": True, "retry_policy": self.policy}
        waiting = [producer.publish(str(number), **declared) for number in range(50)]
        await waiting[10]
        restarting = Deferred.fromCoroutine(self.restart())
        waiting += [producer.publish(str(number), **declared) for number in range(50, 100)]
        await restarting
        waiting += [producer.publish(str(number), **declared) for number in range(100, 120)]
        await gatherResults(waiting)
        found = await self.bodies(name)
        self.assertEqual(list(dict.fromkeys(reversed(found)))[::-1], [str(number) for number in range(120)])

    async def test_the_broker_is_gone(self) -> None:
        """kombu B8, B5: given up after so many retries, and nothing is left in the reactor."""
        connection = self.connection()
        producer = Producer(connection)
        await producer.publish("0", "nowhere")
        await self.embedded.stop()
        policy = {**self.policy, "max_retries": 2}
        error = await self.failure(producer.publish("1", "q", retry=True, retry_policy=policy), OperationalError)
        self.assertIsNotNone(error.__cause__)
        await connection.close()

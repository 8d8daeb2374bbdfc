"""Publisher over real brokers: restarts, losses, alarms, the guilty message (R1 to R8, F1, F37, F52)."""

from __future__ import annotations

import tempfile
from collections import Counter
from typing import Any

import pytest
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint

from tests.cases import RabbitMQTestCase, ReactorTestCase
from tests.conformance.base import OverBroker, OverRabbitMQ, outcomes, pause, reactor
from tests.conformance.recovery.case import RecoveryCase
from txmsg.amqp import Backoff, BasicProperties, Channel, ConnectionParameters, Publisher, ReconnectingConnection
from txmsg.errors import NotFound, Overloaded, PublishReturned, PublishUnconfirmed
from txmsg.testing import BrokerProcess


async def drained(channel: Channel, queue: str, count: int) -> list[tuple[str, bytes]]:
    """Ids and bodies of a queue's messages, until `count` different ones were there, and of what else is, in order."""
    found: list[tuple[str, bytes]] = []
    ids = set[str]()
    done: Deferred[None] = Deferred()

    def take(delivery: Any) -> None:
        found.append((delivery.properties.message_id, delivery.body))
        ids.add(delivery.properties.message_id)
        if len(ids) == count and not done.called:
            done.callback(None)

    consumer = await channel.basic_consume(queue, take, no_ack=True)
    await done
    await pause(0.1)
    await consumer.cancel()
    return found


class PublisherCases(RecoveryCase):
    async def publisher(self, *queues: str, **options: Any) -> tuple[Publisher, Channel]:
        """A publisher, and a plain channel on which the queues were declared; they are deleted at the end."""
        channel = await self.channel()
        for queue in queues:
            await channel.queue_declare(queue, durable=True)
            self.addCleanup(self._delete, queue)
        connection = await self.recovering()
        return connection.publisher(**{"timeout": 60, **options}), channel

    async def _delete(self, queue: str) -> None:
        await (await self.channel()).queue_delete(queue)

    def check_order(self, found: list[tuple[str, bytes]], bodies: list[bytes]) -> None:
        """R1, R3, R4, R7: all are there, in order, and copies have the id of the first."""
        once = dict(found)
        self.assertEqual(list(once.values()), bodies)
        for message_id, body in found:
            self.assertEqual(once[message_id], body)

    async def test_outcomes(self) -> None:
        """R1, R5: confirmed, or returned; each the right one, also with ids that repeat."""
        jobs = self.name("jobs")
        publisher, channel = await self.publisher(jobs)
        same = BasicProperties(message_id="same")
        published = []
        for number in range(300):
            key = jobs if number % 3 else self.name("none")
            published.append(publisher.publish("", key, b"%d" % number, same if number % 2 else None))
        seen = outcomes(published)
        await publisher.drain(10)
        for number, outcome in seen:
            self.assertEqual(isinstance(outcome, PublishReturned), number % 3 == 0, number)
        report = publisher.report()
        self.assertEqual((report.confirmed, report.returned, report.outstanding), (200, 100, 0))
        await self.until_depth(channel, jobs, 200)

    async def test_closed_by_an_operator_in_the_middle(self) -> None:
        """R3, R4, R7: `rabbitmqctl close_all_connections` while it publishes."""
        jobs = self.name("jobs")
        publisher, _ = await self.publisher(jobs)
        published: list[Deferred[str]] = []
        closing: Deferred[Any] | None = None
        while closing is None or publisher.connection.epoch < 2:
            for _ in range(50 if publisher.outstanding < 5000 else 0):
                published.append(publisher.publish("", jobs, b"%d" % len(published)))
            if len(published) == 1000:
                closing = self.in_thread(self.node.close_all_connections, "maintenance")
            await pause(0.005)
        await closing
        ids = await gatherResults(published)
        found = await drained(await self.channel(), jobs, len(ids))
        self.check_order(found, [b"%d" % number for number in range(len(ids))])
        self.assertEqual({message_id for message_id, _ in found}, set(ids))

    async def test_ten_thousand_in_flight(self) -> None:
        """F52: cut with 10,000 in flight: written again and confirmed; or all failed within 2 s, typed."""
        jobs = self.name("jobs")
        for on_loss in ("resend", "fail"):
            publisher, channel = await self.publisher(jobs, on_loss=on_loss)
            protocol = publisher.connection.protocol
            assert protocol is not None
            seen = outcomes([publisher.publish("", jobs, b"%d" % number) for number in range(10_000)])
            refused = outcomes([publisher.publish("", jobs, b"")])
            self.assertIsInstance(refused[0][1], Overloaded)
            await pause(0.01)
            protocol.abort()
            lost = self.now()
            await self.until(lambda seen=seen: len(seen) == 10_000, 30)
            kinds = Counter(type(outcome) for _, outcome in seen)
            if on_loss == "fail":
                self.assertLessEqual(kinds.keys(), {str, PublishUnconfirmed})
                self.assertLess(self.now() - lost, 2.0)
            else:
                self.assertEqual(kinds, {str: 10_000})
                found = await drained(channel, jobs, 10_000)
                self.check_order(found, [b"%d" % number for number in range(10_000)])
            await publisher.close()
            await channel.queue_purge(jobs)

    async def test_missing_exchange_among_thousands(self) -> None:
        """R2, R17: the guilty ones fail with the broker's words, all others are there, in order."""
        jobs = self.name("jobs")
        publisher, channel = await self.publisher(jobs)
        guilty = {700, 701, 2500}
        published = [
            publisher.publish(self.name("missing") if number in guilty else "", jobs, b"%d" % number)
            for number in range(3000)
        ]
        seen = outcomes(published)
        await self.until(lambda: len(seen) == 3000, 30)
        for number, outcome in seen:
            self.assertIsInstance(outcome, NotFound if number in guilty else str, number)
        found = await drained(channel, jobs, 2997)
        self.check_order(found, [b"%d" % number for number in range(3000) if number not in guilty])
        self.assertEqual(publisher.connection.epoch, 1)

    async def test_queue_deleted_in_the_middle(self) -> None:
        """R1: what was confirmed before is gone with the queue; what comes after is returned, not confirmed."""
        jobs = self.name("jobs")
        publisher, channel = await self.publisher(jobs)
        await gatherResults([publisher.publish("", jobs, b"x") for _ in range(10)])
        await channel.queue_delete(jobs)
        await self.failure(publisher.publish("", jobs, b"x"), PublishReturned)
        await channel.queue_declare(jobs, durable=True)
        await publisher.publish("", jobs, b"x")
        self.assertEqual(publisher.connection.epoch, 1)

    async def test_alarm(self) -> None:
        """F37, R6, R16: publishes wait while the broker is blocked, up to the bound, and a close is in time."""
        jobs = self.name("jobs")
        publisher, channel = await self.publisher(jobs, max_outstanding=50)
        alarm = self.node.alarm()
        await self.in_thread(alarm.__enter__)
        try:
            seen = outcomes([publisher.publish("", jobs, b"%d" % number) for number in range(60)])
            await self.until(lambda: publisher.connection.is_blocked, 10)
            self.assertEqual([type(outcome) for _, outcome in seen], [Overloaded] * 10)
            started = self.now()
            other = publisher.connection.publisher()
            late = outcomes([other.publish("", jobs, b"late")])
            report = await other.close(timeout=0.3)
            self.assertEqual((report.confirmed, report.outstanding, len(late)), (0, 0, 1))
            self.assertLess(self.now() - started, 2)
        finally:
            await self.in_thread(alarm.__exit__, None, None, None)
        await self.until(lambda: len(seen) == 60, 10)
        found = await drained(channel, jobs, 50)
        self.check_order(found, [b"%d" % number for number in range(50)])


class PublisherOverRabbitMQ(OverRabbitMQ, PublisherCases):
    pass


class PublisherOverBroker(OverBroker, PublisherCases):
    pass


class KilledCases(ReactorTestCase):
    """F1, R3, R9: kill -9 and restart in the middle; durable queue, persistent messages: lost 0, order kept."""

    __test__ = False

    def url(self) -> str:
        """Of the broker, which runs."""
        raise NotImplementedError

    def endpoint(self, parameters: ConnectionParameters) -> IStreamClientEndpoint:
        """Where it listens now."""
        return TCP4ClientEndpoint(reactor, parameters.host, parameters.port)

    def restart(self) -> None:
        """Kill it, and start it again."""
        raise NotImplementedError

    @pytest.mark.long
    async def test_killed_and_restarted(self) -> None:
        """With a publisher that goes on all the time."""
        connection = ReconnectingConnection(
            self.url(), reactor=reactor, backoff=Backoff(initial=0.05, maximum=1.0), endpoint=self.endpoint
        )
        self.addCleanup(lambda: connection.close())
        await connection.start()
        channel = await connection.channel()
        jobs = self.id()[-100:]
        await channel.queue_declare(jobs, durable=True)
        publisher = connection.publisher(timeout=90)
        published: list[Deferred[str]] = []
        restarting: Deferred[Any] | None = None
        while restarting is None or not restarting.called or not connection.is_ready:
            for _ in range(10 if publisher.outstanding < 5000 else 0):
                published.append(publisher.publish("", jobs, b"%d" % len(published)))
            if len(published) == 400:
                restarting = self.in_thread(self.restart)
                restarting.addCallback(lambda result: reactor.seconds())
            await pause(0.005)
        ids = await gatherResults(published)
        self.assertLess(reactor.seconds() - await restarting, 4.0)
        self.assertGreater(connection.epoch, 1)
        assert connection.protocol is not None
        found = await drained(await connection.protocol.channel(), jobs, len(ids))
        once = dict(found)
        self.assertEqual(list(once), ids)
        self.assertEqual(list(once.values()), [b"%d" % number for number in range(len(ids))])
        await channel.queue_delete(jobs)


class KilledRabbitMQ(RabbitMQTestCase, KilledCases):
    __test__ = True

    def url(self) -> str:
        return self.node.url

    def restart(self) -> None:
        self.node.kill()
        self.node.start()


class KilledBroker(KilledCases):
    __test__ = True

    def url(self) -> str:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.broker = BrokerProcess(data_dir=directory.name)
        self.broker.start()
        self.addCleanup(self.broker.close)
        return self.broker.url

    def endpoint(self, parameters: ConnectionParameters) -> IStreamClientEndpoint:
        """It has another port after each start."""
        return TCP4ClientEndpoint(reactor, parameters.host, self.broker.port)

    def restart(self) -> None:
        process = self.broker._process
        assert process is not None
        process.kill()
        process.wait()
        self.broker.start()

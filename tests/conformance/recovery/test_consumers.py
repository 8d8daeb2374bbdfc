"""Consumers over real brokers: losses, cancels, deleted queues, and a second fault at each step (R9, R22, R23, R25)."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol

from tests.conformance.base import OverBroker, OverRabbitMQ, pause, reactor
from tests.conformance.recovery.case import RecoveryCase
from txmsg.amqp import Delivery
from txmsg.amqp.recovery import Backoff, ReconnectingConnection
from txmsg.amqp.recovery.events import CONSUMER_CANCELLED, CONSUMER_FAILED, CONSUMER_RESUMED
from txmsg.errors import ConnectionClosed, ConsumerCancelled, NotFound, StaleDelivery


class RecoveredConsumerCases(RecoveryCase):
    async def test_goes_on_after_a_loss(self) -> None:
        """R22, R23: what was not settled comes again, on the same queue; the old delivery is stale."""
        connection = await self.recovering()
        channel = await connection.channel(confirm=True)
        jobs = self.name("jobs")
        await channel.queue_declare(jobs, auto_delete=False)
        self.addCleanup(self._delete, jobs)
        consumer = await channel.basic_consume(jobs)
        for body in (b"1", b"2", b"3"):
            await channel.basic_publish("", jobs, body)
        first = await consumer.get()
        await self.until(lambda: len(consumer.queue or ()) == 2)
        await self.lose(connection)
        with self.assertRaises(StaleDelivery):
            first.ack()
        bodies = []
        for _ in range(3):
            delivery = await consumer.get()
            bodies.append(delivery.body)
            delivery.ack()
        self.assertEqual(sorted(bodies), [b"1", b"2", b"3"])
        self.assertEqual(len(consumer.queue or ()), 0)

    async def _delete(self, queue: str) -> None:
        await (await self.channel()).queue_delete(queue)

    async def test_closed_by_an_operator(self) -> None:
        """R9: 320, as from a broker that shuts down; the callback goes on."""
        connection = await self.recovering()
        channel = await connection.channel(confirm=True)
        jobs = self.name("jobs")
        await channel.queue_declare(jobs, auto_delete=True)
        seen: list[Delivery] = []
        await channel.basic_consume(jobs, seen.append, no_ack=True)
        epoch = connection.epoch
        await self.in_thread(self.node.close_all_connections, "maintenance")
        await self.until(lambda: connection.epoch > epoch and connection.is_ready, 20)
        await channel.basic_publish("", jobs, b"x")
        await self.until(lambda: len(seen) == 1)

    async def test_queue_deleted_under_it(self) -> None:
        """R25: the broker cancels; the queue is declared and bound again, and consumed from."""
        connection = await self.recovering()
        channel = await connection.channel(confirm=True)
        jobs = self.name("jobs")
        await channel.queue_declare(jobs, auto_delete=True)
        await channel.queue_bind(jobs, "amq.topic", jobs)
        consumer = await channel.basic_consume(jobs)
        for _ in range(2):
            self.events.clear()
            await (await self.channel()).queue_delete(jobs)
            await self.until(lambda: CONSUMER_RESUMED in self.kinds(), 15)
            self.assertEqual(self.kinds(), [CONSUMER_CANCELLED, CONSUMER_RESUMED])
            await channel.basic_publish("amq.topic", jobs, b"x", mandatory=True)
            (await consumer.get()).ack()
        self.assertEqual(channel.epoch, 1)

    async def test_queue_of_somebody_else_deleted(self) -> None:
        """R25: it waits for it without harm to its channel, and goes on when it is there again."""
        other = await self.channel()
        theirs = self.name("theirs")
        await other.queue_declare(theirs)
        connection = await self.recovering()
        channel = await connection.channel()
        consumer = await channel.basic_consume(theirs)
        await other.queue_delete(theirs)
        await self.until(lambda: CONSUMER_FAILED in self.kinds(), 15)
        self.assertIsInstance(self.events[-1].error, NotFound)
        await other.queue_declare(theirs)
        self.addCleanup(self._delete, theirs)
        await self.until(lambda: consumer.is_subscribed, 15)
        self.assertEqual(channel.epoch, 1)
        await other.basic_publish("", theirs, b"x")
        (await consumer.get()).ack()

    async def test_queue_deleted_by_the_application(self) -> None:
        """R25: a typed end, whether the broker's cancel or its reply comes first."""
        connection = await self.recovering()
        channel = await connection.channel()
        jobs = self.name("jobs")
        await channel.queue_declare(jobs)
        consumer = await channel.basic_consume(jobs)
        await channel.queue_delete(jobs)
        await self.failure(consumer.get(), ConsumerCancelled)
        self.assertEqual((self.events, channel.consumers), ([], {}))

    async def test_refused_call_on_its_channel(self) -> None:
        """R25: the channel is opened again in its place; an auto-delete queue that went with it is back, too."""
        connection = await self.recovering()
        channel = await connection.channel(confirm=True)
        temp = self.name("temp")
        await channel.queue_declare(temp, auto_delete=True)
        await channel.queue_bind(temp, "amq.topic", temp)
        consumer = await channel.basic_consume(temp)
        guilty = channel.queue_declare(self.name("none"), passive=True)
        innocent = channel.queue_bind(temp, "amq.topic", temp + "2")
        await self.failure(guilty, NotFound)
        await innocent
        await self.until(lambda: consumer.is_subscribed and channel.epoch == 2)
        for key in (temp, temp + "2"):
            await channel.basic_publish("amq.topic", key, b"x", mandatory=True)
            (await consumer.get()).ack()
        self.assertEqual(connection.epoch, 1)

    async def test_two_connections_share_a_queue(self) -> None:
        """R22: each message is handled by one of them, also when they lose their connections in turn."""
        one, two = await self.recovering(), await self.recovering()
        jobs = self.name("jobs")
        publisher = await self.channel()
        await publisher.queue_declare(jobs)
        self.addCleanup(self._delete, jobs)
        handled: set[bytes] = set()

        def handle(delivery: Delivery) -> None:
            handled.add(delivery.body)
            delivery.ack()

        for connection in (one, two):
            channel = await connection.channel(prefetch_count=10)
            await channel.basic_consume(jobs, handle)
        for number in range(300):
            publisher.basic_publish("", jobs, b"%d" % number)
            if number in (100, 200):
                await self.lose(one if number == 100 else two)
        await self.until(lambda: len(handled) == 300, 15)

    async def sweep(self, first: int, step: int) -> None:
        """Cut the new connection when it has carried k frames of ours, for each k; it converges each time."""
        proxy = CuttingProxy(self.parameters().port)
        listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(proxy)
        self.addCleanup(listening.stopListening)
        port = listening.getHost().port
        connection = ReconnectingConnection(
            self.parameters(),
            reactor=reactor,
            backoff=Backoff(initial=0.01, maximum=0.05, slow=0.05),
            endpoint=lambda parameters: TCP4ClientEndpoint(reactor, "127.0.0.1", port),
        )
        self.addCleanup(self._close_recovering, connection)
        await connection.start()
        channel = await connection.channel(prefetch_count=3, confirm=True)
        source, jobs = self.name("source"), self.name("jobs")
        await channel.exchange_declare(source, "topic", auto_delete=True)
        await channel.queue_declare(jobs, exclusive=True)
        await channel.queue_bind(jobs, source, "k")
        named = (await channel.queue_declare("", exclusive=True)).queue
        await channel.queue_bind("", source, "k")
        consumers = [await channel.basic_consume(queue) for queue in (jobs, named)]
        for cut_after in range(first, 200, step):
            proxy.cut_after, proxy.cuts = cut_after, 0
            epoch = connection.epoch
            proxy.cut()
            await self.until(lambda epoch=epoch: connection.epoch > epoch and connection.is_ready, 20)
            await pause(0.05)  # the cut after the last frame of the recovery comes when that is done
            await self.until(lambda: connection.is_ready and all(each.is_subscribed for each in consumers), 20)
            cuts, proxy.cut_after = proxy.cuts, None
            await channel.basic_publish(source, "k", b"%d" % cut_after, mandatory=True)
            for consumer in consumers:
                delivery = await consumer.get()
                self.assertEqual(delivery.body, b"%d" % cut_after)
                delivery.ack()
            if not cuts:
                return
        self.fail("there is no end to it")

    async def test_second_fault_at_some_steps(self) -> None:
        """R9, F15: after every fifth frame."""
        await self.sweep(3, 5)

    test_second_fault_at_some_steps.timeout = 120  # type: ignore[attr-defined]

    @pytest.mark.long
    async def test_second_fault_at_each_step(self) -> None:
        """R9, F15: after each frame."""
        await self.sweep(1, 1)

    test_second_fault_at_each_step.timeout = 300  # type: ignore[attr-defined]


class _Ours(Protocol):
    """The proxy's end towards the client: counts its frames."""

    def __init__(self, proxy: CuttingProxy) -> None:
        self.proxy = proxy
        self.theirs: Any = None
        self.waiting: list[bytes] = []
        self.unread = b""
        self.frames = -1  # the protocol header is none

    def connectionMade(self) -> None:
        """Connect to the broker."""
        self.proxy.open.append(self)
        there = TCP4ClientEndpoint(reactor, "127.0.0.1", self.proxy.port)
        there.connect(Factory.forProtocol(_Theirs)).addCallbacks(self._connected, lambda failure: self.cut())

    def _connected(self, theirs: Any) -> None:
        self.theirs = theirs
        theirs.ours = self
        if self not in self.proxy.open:
            theirs.transport.abortConnection()
            return
        for data in self.waiting:
            theirs.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        """Pass whole frames on, up to the one after which it ends."""
        self.unread += data
        while True:
            size = 8 if self.frames < 0 else 8 + int.from_bytes(self.unread[3:7], "big")
            if len(self.unread) < max(8, size):
                return
            frame, self.unread = self.unread[:size], self.unread[size:]
            self.frames += 1
            if self.theirs is None:
                self.waiting.append(frame)
            else:
                self.theirs.transport.write(frame)
            limit = self.proxy.cut_after
            if limit is not None and self.frames >= limit and not self.proxy.cuts:
                self.proxy.cuts += 1
                reactor.callLater(0.02, self.cut)  # the broker gets to see it
                self.dataReceived = lambda data: None  # type: ignore[method-assign]
                return

    def cut(self) -> None:
        """End both sides."""
        if self in self.proxy.open:
            self.proxy.open.remove(self)
        self.__dict__.pop("dataReceived", None)
        self.transport.abortConnection()  # type: ignore[union-attr]
        if self.theirs is not None:
            self.theirs.transport.abortConnection()

    def connectionLost(self, reason: object = None) -> None:
        """The client is gone."""
        self.cut()


class _Theirs(Protocol):
    """The proxy's end towards the broker."""

    ours: _Ours | None = None

    def dataReceived(self, data: bytes) -> None:
        """Pass it on."""
        if self.ours is not None:
            self.ours.transport.write(data)  # type: ignore[union-attr]

    def connectionLost(self, reason: object = None) -> None:
        """The broker is gone."""
        if self.ours is not None:
            self.ours.cut()


class CuttingProxy(Factory):
    """A TCP proxy that ends one connection when it has passed on so many frames of the client."""

    noisy = False

    def __init__(self, port: int) -> None:
        self.port = port
        self.cut_after: int | None = None
        self.cuts = 0
        self.open: list[_Ours] = []

    def buildProtocol(self, addr: object) -> _Ours:
        """One connection."""
        return _Ours(self)

    def cut(self) -> None:
        """End what is open."""
        for ours in list(self.open):
            ours.cut()


class RecoveredConsumersOverRabbitMQ(OverRabbitMQ, RecoveredConsumerCases):
    """On RabbitMQ."""


class RecoveredConsumersOverBroker(OverBroker, RecoveredConsumerCases):
    """On the embedded broker."""

    async def test_broker_that_never_comes_back(self) -> None:
        """R28: closing ends everything that waits."""
        connection = await self.recovering()
        channel = await connection.channel()
        await channel.queue_declare("jobs")
        consumer = await channel.basic_consume("jobs")
        getting = consumer.get()
        await self.embedded.stop()
        waiting = channel.queue_declare("more")
        await connection.close()
        await self.failure(getting, ConnectionClosed)
        await self.failure(waiting, ConnectionClosed)

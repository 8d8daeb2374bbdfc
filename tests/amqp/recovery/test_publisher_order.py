"""Publisher: nothing overtakes, nothing sticks, nothing is kept: what a busy program meets (R2, R4, R6, R8, R16)."""

from __future__ import annotations

from threading import get_ident
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.recovery.publishing import Outcome, PublisherCase
from txmsg.amqp import Channel
from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.channel_keeper import ChannelKeeper
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.errors import (
    ConfigurationError,
    ConnectionLost,
    NotFound,
    Overloaded,
    PublishTimeout,
)


class OrderTests(PublisherCase):
    """R4: the order of first writes is the order of publish()."""

    def test_published_by_a_callback_when_the_broker_goes_on(self) -> None:
        """A publish made just when the socket takes more goes behind those that waited for that."""
        publisher = self.start()
        assert self.connection.protocol is not None
        plain = Outcome(self.connection.protocol.channel())
        self.advance(0.1)
        channel: Channel = plain.value
        with self.broker.faults.block():
            publisher.publish("", "jobs", b"0")
            self.advance(0.2)
            self.assertTrue(self.connection.protocol.is_blocked)
            # Held before the publisher is: written, and answered, first.
            first = channel.basic_publish("", "other", b"")
            outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in (1, 2)]
            first.addCallback(lambda result: outcomes.append(Outcome(publisher.publish("", "jobs", b"3"))))
            self.advance(0.2)
            self.assertEqual(len(outcomes), 2)
        self.advance(0.2)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"0", b"1", b"2", b"3"])
        self.assertTrue(all(outcome.value for outcome in outcomes))

    def test_not_past_those_that_wait_for_room(self) -> None:
        """R6: a small one does not overtake a large one that does not fit yet."""
        publisher = Publisher(self.connection, max_outstanding_bytes=20_000, when_full="wait").join()
        bodies = [bytes(10_000), bytes(12_000), b"small"]
        outcomes = [Outcome(publisher.publish("", "jobs", body)) for body in bodies]
        self.assertEqual(publisher.waiting_for_room(), 2)
        self.connection.start()
        self.advance(1)
        self.assertEqual(self.broker.queue("jobs").bodies, bodies)
        self.assertTrue(all(outcome.value for outcome in outcomes))

    def test_not_past_those_that_wait_for_room_when_they_may_not_wait(self) -> None:
        """R6: nor with as many in the line as there may be."""
        publisher = Publisher(self.connection, max_outstanding=1, when_full="wait").join()
        outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in range(102)]
        self.assertIsInstance(outcomes[-1].error, Overloaded)
        self.connection.start()
        self.advance(1)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"%d" % n for n in range(101)])

    def test_flow(self) -> None:
        """R16: the broker stops the channel's flow, and lets it go on: what waited leaves then, in order."""
        publisher = self.start()
        channel = publisher._channel
        assert channel is not None
        channel.set_flow(False)
        outcomes = [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in range(3)]
        self.advance(2)
        self.assertTrue(all(outcome.is_waiting for outcome in outcomes))
        self.assertEqual(self.broker.queue("jobs").depth, 0)
        channel.set_flow(True)
        self.advance(0.1)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"0", b"1", b"2"])

    def test_flow_that_stays_off(self) -> None:
        """R2: then the deadline holds, and a new connection helps."""
        publisher = self.start(timeout=3)
        assert publisher._channel is not None
        publisher._channel.set_flow(False)
        first = Outcome(publisher.publish("", "jobs", b"0"))
        self.advance(4.1)
        self.assertIn("takes no more", str(first.error))
        second = Outcome(publisher.publish("", "jobs", b"1"))
        self.lose()
        self.advance(2)
        self.assertIsNotNone(second.value)

    def test_published_by_an_errback(self) -> None:
        """R4, R17: what is published because another one was refused goes behind what waits to be written again."""
        publisher = self.start()
        outcomes = [Outcome(publisher.publish("", "jobs", b"0"))]
        guilty = publisher.publish("missing", "jobs", b"x")
        guilty.addErrback(lambda failure: outcomes.append(Outcome(publisher.publish("", "jobs", b"3"))))
        outcomes += [Outcome(publisher.publish("", "jobs", b"%d" % n)) for n in (1, 2)]
        self.advance(3)
        self.assertTrue(all(outcome.value for outcome in outcomes))
        bodies = list(dict.fromkeys(self.broker.queue("jobs").bodies))
        self.assertEqual(bodies, [b"0", b"1", b"2", b"3"])


class LookingTests(PublisherCase):
    """R2, R17: while the message that broke the channel is being looked for."""

    def test_one_that_is_never_answered(self) -> None:
        """It is waited for until its deadline; the others are not held up longer than that."""
        publisher = self.start(timeout=3)
        self.broker.faults.lose(routing_key="silent", times=None)
        self.broker.declare_queue("silent")
        silent = Outcome(publisher.publish("", "silent", b"s"))
        guilty = Outcome(publisher.publish("missing", "jobs", b"x", timeout=20))
        others = [Outcome(publisher.publish("", "jobs", b"%d" % n, timeout=20)) for n in range(5)]
        self.advance(6)
        self.assertIsInstance(silent.error, PublishTimeout)
        self.assertIsInstance(guilty.error, NotFound)
        self.assertEqual([outcome.error for outcome in others], [None] * 5)
        self.assertTrue(all(outcome.value for outcome in others))

    def test_one_that_is_cancelled(self) -> None:
        """Nor is one that nobody waits for any more."""
        publisher = self.start(timeout=30)
        self.broker.faults.lose(routing_key="silent", times=None)
        self.broker.declare_queue("silent")
        silent = Outcome(publisher.publish("", "silent", b"s"))
        guilty = Outcome(publisher.publish("missing", "jobs", b"x"))
        other = Outcome(publisher.publish("", "jobs", b"0"))
        self.advance(1)
        self.assertTrue(silent.is_waiting and other.is_waiting)
        silent.deferred.cancel()
        self.advance(1)
        self.assertIsInstance(silent.error, CancelledError)
        self.assertIsInstance(guilty.error, NotFound)
        self.assertIsNotNone(other.value)

    def test_a_connection_that_is_lost_meanwhile(self) -> None:
        """R9: the search goes on on the next one."""
        publisher = self.start(timeout=60)
        outcomes = []
        for n in range(30):
            outcomes.append(Outcome(publisher.publish("missing" if n == 20 else "", "jobs", b"%d" % n)))
        for _ in range(4):
            self.clock.advance(0.01)
            self.lose()
            self.advance(1)
        self.advance(10)
        self.assertIsInstance(outcomes[20].error, NotFound)
        self.assertEqual([n for n in range(30) if outcomes[n].error is not None], [20])
        bodies = list(dict.fromkeys(self.broker.queue("jobs").bodies))
        self.assertEqual(bodies, [b"%d" % n for n in range(30) if n != 20])


class BoundTests(PublisherCase):
    """R6, R8: what nobody waits for any more takes no room."""

    def test_cancelled_while_there_is_no_connection(self) -> None:
        """Bodies are let go at once, and so are the places of many."""
        publisher = Publisher(self.connection, timeout=500).join()
        kept = Outcome(publisher.publish("", "jobs", b"kept"))
        for _ in range(5000):
            Outcome(publisher.publish("", "jobs", bytes(1000))).deferred.cancel()
            held = sum(len(publication.content) for publication in publisher._waiting)
        self.assertEqual(held, 4)
        self.assertLess(len(publisher._waiting), 150)
        self.assertEqual(publisher.outstanding, 1)
        self.connection.start()
        self.advance(1)
        self.assertIsNotNone(kept.value)
        self.assertEqual(self.broker.queue("jobs").bodies, [b"kept"])

    def test_time_limits(self) -> None:
        """One that is none is refused at once."""
        publisher = self.start()
        limits: list[Any] = [float("nan"), -1, "5", 0]
        for limit in limits:
            self.assertIsInstance(Outcome(publisher.publish("", "jobs", b"", timeout=limit)).error, ConfigurationError)
        self.assertEqual(publisher.report().published, 0)


class _Connection:
    """What a ChannelKeeper needs of a connection."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.backoff = Backoff(jitter=False)


class _Protocol:
    """A connection whose channel opens when the test says so."""

    def __init__(self) -> None:
        self.thread_id = get_ident()
        self.opening: Deferred[Any] = Deferred()

    def channel(self) -> Deferred[Any]:
        """Wait for the test."""
        return self.opening


class _Channel:
    """As much of a channel as a ChannelKeeper needs."""

    def __init__(self) -> None:
        self.is_open = True
        self.closed: Deferred[BaseException] = Deferred()

    def confirm_select(self, *, watch_limits: bool) -> Deferred[None]:
        """Done."""
        assert not watch_limits
        return succeed(None)

    def when_closed(self) -> Deferred[BaseException]:
        """When the test says so."""
        return self.closed

    def close(self) -> None:
        """Note it."""
        self.is_open = False


class KeeperTests(SynchronousTestCase):
    """ChannelKeeper: the channel belongs to the connection that is there now."""

    def setUp(self) -> None:
        """A keeper that notes what it tells its owner."""
        self.told: list[Any] = []
        self.connection = _Connection()
        self.keeper = ChannelKeeper(self.connection, True, self.told.append, lambda: self.told.append("closed"))

    def recover(self) -> tuple[_Protocol, Deferred[None]]:
        """On a new connection."""
        protocol: Any = _Protocol()
        return protocol, self.keeper.recover(protocol)

    def test_opened_after_the_connection_was_lost(self) -> None:
        """R9: it is closed, not used."""
        first, _ = self.recover()
        self.keeper.lost()
        channel = _Channel()
        first.opening.callback(channel)
        self.assertEqual((self.told, channel.is_open), ([], False))

    def test_opened_after_the_next_connection_has_come(self) -> None:
        """R9: nor does it take the place of the next one's."""
        first, _ = self.recover()
        self.keeper.lost()
        second, recovered = self.recover()
        old, new = _Channel(), _Channel()
        second.opening.callback(new)
        self.successResultOf(recovered)
        first.opening.callback(old)
        self.assertEqual((self.told, old.is_open, new.is_open), ([new], False, True))
        old.closed.callback(ConnectionLost())
        self.assertEqual(self.told, [new])

    def test_closed_while_it_was_opening(self) -> None:
        """A channel that is gone already is not used."""
        first, _ = self.recover()
        channel = _Channel()
        channel.is_open = False
        first.opening.callback(channel)
        self.assertEqual(self.told, [])

    def test_cancelled(self) -> None:
        """R8: while it is lost."""
        _, recovering = self.recover()
        recovering.cancel()
        self.failureResultOf(recovering, CancelledError)
        self.assertEqual(self.connection.clock.getDelayedCalls(), [])

    def test_closed_by_the_broker(self) -> None:
        """R17: another one is opened at once, then with growing waits."""
        protocol, _ = self.recover()
        channel = _Channel()
        protocol.opening.callback(channel)
        protocol.opening = Deferred()
        channel.closed.callback(NotFound("no exchange", 404))
        self.assertEqual(self.told, [channel, "closed"])
        self.connection.clock.advance(0)
        failing = protocol.opening
        protocol.opening = Deferred()
        failing.errback(NotFound("again", 404))
        self.connection.clock.advance(0.4)
        self.assertEqual(len(self.connection.clock.getDelayedCalls()), 1)
        self.connection.clock.advance(0.2)
        again = _Channel()
        protocol.opening.callback(again)
        self.assertEqual(self.told, [channel, "closed", again])
        self.keeper.lost()

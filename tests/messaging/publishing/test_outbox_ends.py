"""How publishes end that wait or are tried again: limits, cancelling, closing; on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from tests.messaging.publishing.plain_transport import HOLD
from tests.messaging.retrying.retry_case import RetryCase
from txmsg.errors import (
    ChannelClosed,
    ConfigurationError,
    ConnectFailed,
    ConnectionClosed,
    NotSent,
    OperationalError,
    Overloaded,
    PublishTimeout,
    PublishUnconfirmed,
    TxmsgError,
)
from txmsg.messaging import Queue
from txmsg.messaging.publishing.producer import Producer


class EndTests(RetryCase):
    """R2, R6, R8, R28: limits, cancelling, closing."""

    def test_a_limit_while_it_waits(self) -> None:
        """kombu B4: NotSent."""
        self.refuse(99)
        published = self.publish(1, timeout=2.5)
        self.clock.pump([1, 1, 0.5])
        error = self.failureResultOf(published, NotSent).value
        self.assertIsInstance(error.cause, ConnectFailed)
        self.assertEqual(self.waits(), [1, 1, 0.5])
        self.assert_nothing_is_left()

    def test_the_channel_goes_while_something_is_declared(self) -> None:
        """R2, R8: NotSent, or it is tried again: on the channel that there is then."""
        for retry in (False, True):
            with self.subTest(retry=retry):
                held: Deferred[Any] = Deferred()
                self.transport.declares.append(held)
                published = self.publish(1, declare=[Queue(f"work-{retry}")], retry=retry)
                self.successResultOf(self.on.switch("scripted://b"))
                held.callback(None)
                if not retry:
                    self.failureResultOf(published, NotSent)
                else:
                    self.assertNoResult(published)
                    self.clock.advance(1)
                    self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), ["1"])
        self.assert_nothing_is_left()

    def test_a_limit_while_connecting(self) -> None:
        """Without a policy, too; the attempt is given up."""
        held: Deferred[Any] = Deferred()
        self.transport.connects.append(held)
        published = self.publish(1, retry=False, timeout=2)
        self.clock.advance(2)
        self.failureResultOf(published, NotSent)
        self.assertTrue(held.called)
        self.assert_nothing_is_left()

    def test_a_limit_for_the_confirm(self) -> None:
        """PublishTimeout: it may have arrived."""
        self.open()
        for retry in (False, True):
            self.transport.publishes.append(HOLD)
            published = self.publish(1, retry=retry, timeout=2)
            self.clock.advance(2)
            self.failureResultOf(published, PublishTimeout)
            self.assert_nothing_is_left()

    def test_a_limit_after_it_was_sent(self) -> None:
        """PublishTimeout: it may have arrived before."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish(1, timeout=2)
        self.lose()
        self.refuse(99)
        self.clock.advance(2)
        self.assertIsInstance(self.failureResultOf(published, PublishTimeout).value.cause, PublishUnconfirmed)
        self.assert_nothing_is_left()

    def test_the_limit_of_the_policy(self) -> None:
        """kombu B4, B5: as giving up, with the last error."""
        error = self.refuse(99)
        published = self.publish(1, retry_policy=self.policy(timeout=1.5))
        self.clock.pump([1, 0.5])
        self.assertIs(self.failureResultOf(published, OperationalError).value.cause, error)
        self.transport.connects.clear()
        self.transport.connects.append(HOLD)
        published = self.publish(1, retry_policy=self.policy(timeout=1.5))
        self.clock.advance(1.5)
        self.failureResultOf(published, OperationalError)
        self.assert_nothing_is_left()

    def test_in_time(self) -> None:
        """No limit stays behind."""
        self.open()
        self.successResultOf(self.publish(1, timeout=5))
        self.successResultOf(self.publish(1, retry=False, timeout=5))
        self.assert_nothing_is_left()
        self.failureResultOf(self.publish(1, timeout=-1), ConfigurationError)

    def test_cancelled_while_it_waits(self) -> None:
        """R8: it is not sent any more, and nothing is left."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish(1, timeout=9)
        self.lose()
        published.cancel()
        self.failureResultOf(published, CancelledError)
        self.assert_nothing_is_left()
        self.assertEqual((self.transport.bodies(), self.transport.attempts), (["1"], ["a"]))

    def test_cancelled_while_connecting(self) -> None:
        """R8."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish(1)
        self.lose()
        held: Deferred[Any] = Deferred()
        self.transport.connects.append(held)
        self.clock.advance(1)
        published.cancel()
        self.failureResultOf(published, CancelledError)
        self.assertTrue(held.called)
        self.assert_nothing_is_left()

    def test_cancelled_in_flight(self) -> None:
        """R8: not retried, and the next one goes."""
        self.open()
        for timeout in (None, 9):
            self.transport.publishes.append(HOLD)
            published = self.publish(1, timeout=timeout)
            published.cancel()
            self.failureResultOf(published, CancelledError)
            self.successResultOf(self.publish(2))
        self.assert_nothing_is_left()

    def test_what_is_in_flight_is_cancelled_with_it(self) -> None:
        """R8: the transport is told, by a cancel and by a limit."""
        for cancels in (False, True):
            sent: Deferred[Any] = Deferred()
            self.transport.publishes.append(sent)
            published = self.publish(1, timeout=2)
            if cancels:
                published.cancel()
            else:
                self.clock.advance(2)
            self.failureResultOf(published, CancelledError, PublishTimeout)
            self.assertTrue(sent.called)

    def test_after_all_were_cancelled(self) -> None:
        """A publish without a policy connects again: what failed before is forgotten."""
        self.refuse(1)
        published = self.publish(1)
        published.cancel()
        self.failureResultOf(published, CancelledError)
        self.successResultOf(self.publish(2, retry=False))

    def test_one_of_those_that_wait_is_cancelled(self) -> None:
        """R8: the first, for whom the wait began, too."""
        self.refuse(1)
        first, second, third = (self.publish(number) for number in range(3))
        first.cancel()
        self.failureResultOf(first, CancelledError)
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.clock.advance(1)
        self.successResultOf(third)
        self.assertEqual(self.transport.bodies(), ["2"])

    def test_the_connection_is_closed(self) -> None:
        """R2, R28: at once, as what it is."""
        self.open()
        self.transport.publishes.append(HOLD)
        sent = self.publish(1)
        self.lose()
        waiting = self.publish(2, timeout=9)
        self.successResultOf(self.on.close())
        self.failureResultOf(sent, PublishUnconfirmed)
        self.assertIsInstance(self.failureResultOf(waiting, NotSent).value.cause, ConnectionClosed)
        self.assert_nothing_is_left()
        self.failureResultOf(self.publish(3), TxmsgError)
        self.assertEqual(self.transport.attempts, ["a"])

    def test_the_channel_is_closed(self) -> None:
        """A publish does not open again what the application closed; `open` does."""
        channel = self.successResultOf(self.on.channel())
        self.producer.revive(channel)
        self.successResultOf(self.publish(1))
        self.successResultOf(channel.close())
        for retry in (False, True):
            self.failureResultOf(self.publish(2, retry=retry), ChannelClosed)
        self.successResultOf(channel.open())
        self.successResultOf(self.publish(3))
        self.assertEqual(self.transport.bodies(), ["1", "3"])

    def test_the_producer_is_closed(self) -> None:
        """R28."""
        self.refuse(1)
        waiting = self.publish(1)
        self.successResultOf(self.producer.close())
        self.failureResultOf(waiting, NotSent)
        self.assert_nothing_is_left()

    def test_it_is_bounded(self) -> None:
        """R6: Overloaded, in messages and in octets."""
        self.producer = Producer(self.on, max_waiting=2)
        self.refuse(1)
        waiting = [self.publish(number) for number in range(2)]
        self.failureResultOf(self.publish(2), Overloaded)
        self.clock.advance(1)
        for published in waiting:
            self.successResultOf(published)
        self.producer = Producer(self.connection("scripted://b"), max_waiting_bytes=5000)
        self.refuse(1)
        waiting = [self.publish("x" * 1000), self.publish("x" * 1000)]
        self.failureResultOf(self.publish("x" * 1000), Overloaded)
        self.clock.advance(1)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual((self.producer._outbox.waiting, self.producer._outbox._bytes), (0, 0))

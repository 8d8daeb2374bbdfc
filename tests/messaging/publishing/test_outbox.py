"""Publishing with retries: what is sent again, when, in which order; on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.publishing.plain_transport import HOLD
from tests.messaging.retrying.retry_case import RetryCase
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionLost,
    NotFound,
    NotSent,
    OperationalError,
    PreconditionFailed,
    PublishNacked,
    PublishUnconfirmed,
)
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.entities import Exchange, Queue
from txmsg.messaging.publishing.producer import Producer
from txmsg.messaging.retrying.retrying import RetryIntervals


class RetryTests(RetryCase):
    """kombu G18, B6 to B9, B22."""

    def test_a_lost_confirm(self) -> None:
        """kombu G18 and R7: the same octets and properties again, with the same message_id."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish({"a": 1}, correlation_id="c", compression="zlib")
        self.lose()
        self.assertNoResult(published)
        self.assertEqual(self.told, [("PublishUnconfirmed", 1.0)])
        self.clock.advance(1)
        self.successResultOf(published)
        first, second = self.transport.sent
        self.assertEqual(first, second)
        self.assertTrue(first[3]["message_id"])
        self.assert_nothing_is_left()

    def test_message_ids(self) -> None:
        """R7: one's own stays; those that are made differ, between producers, too."""
        self.open()
        other = Producer(self.on)
        for number in range(2):
            self.successResultOf(self.publish(number))
            self.successResultOf(other.publish(number, retry=True))
        self.assertEqual(len({properties["message_id"] for _, _, _, properties, _ in self.transport.sent}), 4)
        self.successResultOf(self.publish(1, message_id="mine"))
        self.assertEqual(self.transport.sent[-1][3]["message_id"], "mine")

    def test_the_first_connection(self) -> None:
        """kombu G18: also where there was none yet; exact waits."""
        self.refuse(4)
        published = self.publish(1, retry_policy=self.policy(interval_start=0.5, interval_step=1, interval_max=2))
        self.clock.pump([0.5, 1.5, 2, 2])
        self.successResultOf(published)
        self.assertEqual(self.waits(), [0.5, 1.5, 2, 2])
        self.assertEqual((len(self.transport.attempts), self.transport.bodies()), (5, ["1"]))
        self.assert_nothing_is_left()

    def test_n_retries(self) -> None:
        """kombu B8: then OperationalError with the last error."""
        for times in (0, 1, 3):
            self.transport.attempts.clear()
            error = self.refuse(times + 1)
            published = self.publish(1, retry_policy=RetryIntervals(times, 1, 0, 1))
            self.clock.pump([1] * times)
            given_up = self.failureResultOf(published, OperationalError).value
            self.assertIs(given_up.__cause__, error)
            self.assertEqual(len(self.transport.attempts), times + 1)
            self.assert_nothing_is_left()

    def test_given_up_says_whether_it_may_have_arrived(self) -> None:
        """R2: sent once and never confirmed is not "not sent"."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish(1, retry_policy=self.policy(max_retries=1))
        self.lose()
        self.refuse(1)
        self.clock.advance(1)
        cause = self.failureResultOf(published, OperationalError).value.cause
        self.assertIsInstance(cause, PublishUnconfirmed)

    def test_what_is_not_retried(self) -> None:
        """kombu B9: and the errback is not called."""
        self.open()
        for error in (NotFound("no exchange", 404), PreconditionFailed("no", 406)):
            self.transport.publishes.append(error)
            self.assertIs(self.failureResultOf(self.publish()).value, error)
        self.transport.declares.append(PreconditionFailed("no", 406))
        self.failureResultOf(self.publish(declare=[Queue("work")]), PreconditionFailed)
        self.assertEqual(self.told, [])
        self.assert_nothing_is_left()

    def test_a_refused_login_ends_all_that_wait(self) -> None:
        """kombu B9."""
        self.refuse(1)
        waiting = [self.publish(number) for number in range(3)]
        self.transport.connects.append(AuthenticationFailed("no", 403))
        self.clock.advance(1)
        for published in waiting:
            self.failureResultOf(published, AuthenticationFailed)
        self.assertEqual(len(self.transport.attempts), 2)
        self.assert_nothing_is_left()

    def test_a_nack(self) -> None:
        """kombu B10: on the same connection and channel."""
        self.open()
        self.transport.publishes.append(PublishNacked("full"))
        published = self.publish(1)
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual((self.told, self.transport.attempts), ([("PublishNacked", 1)], ["a"]))

    def test_a_lost_channel(self) -> None:
        """kombu B10: another one on the same connection."""
        self.open()
        self.transport.publishes.append(HOLD)
        published = self.publish(1)
        self.transport.made[0].channels[0].end(ConnectionLost())
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual((self.transport.attempts, len(self.transport.made[0].channels)), (["a"], 2))

    def test_declared_again(self) -> None:
        """kombu B22, G18: the exchange and `declare` after each loss, for a broker that has restarted."""
        self.producer = Producer(self.on, Exchange("mine"))
        self.successResultOf(self.publish("open"))
        self.transport.publishes.append(HOLD)
        published = self.publish("again", declare=[Queue("work")])
        self.lose()
        self.transport.log.clear()
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(self.transport.log, ["exchange mine", "queue work", "publish again"])

    def test_a_connection_that_is_lost_while_declaring(self) -> None:
        """kombu B21, B22: a retry like any other."""
        self.transport.declares.append(ConnectionLost())
        published = self.publish(1, declare=[Queue("work")])
        self.assertEqual(self.waits(), [1])
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(self.transport.log, ["queue work", "queue work", "publish 1"])

    def test_revived(self) -> None:
        """kombu B6: the producer, then on_revive, then it is sent."""
        self.open()
        log = self.transport.log
        revive = self.producer.revive

        def revived(channel: Any) -> None:
            log.append("revive")
            revive(channel)

        def on_revive(channel: Channel) -> None:
            self.assertTrue(channel.is_open)
            log.append("on_revive")

        self.producer.revive = revived  # type: ignore[method-assign]
        self.transport.publishes.append(HOLD)
        published = self.publish(1, retry_policy=self.policy(on_revive=on_revive))
        self.lose()
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(log, ["publish 1", "revive", "on_revive", "publish 1"])

    def test_the_next_host_at_once(self) -> None:
        """kombu B11, B14."""
        self.on = self.connection("scripted://a;scripted://b;scripted://c")
        self.producer = Producer(self.on)
        self.refuse(4)
        published = self.publish(1)
        self.clock.pump([0, 0, 1, 0])
        self.successResultOf(published)
        self.assertEqual(self.transport.attempts, ["a", "b", "c", "a", "b"])
        self.assertEqual(self.waits(), [0, 0, 1, 0])

    def test_bad_policies(self) -> None:
        """kombu G18."""
        self.failureResultOf(self.publish(retry_policy={"max_retry": 1}), ConfigurationError)
        self.failureResultOf(self.publish(retry_policy={"max_retries": -1}), ConfigurationError)
        self.assertEqual(self.transport.attempts, [])

    def test_the_policy_is_not_changed(self) -> None:
        """kombu G18."""
        policy = self.policy(max_retries=1)
        self.successResultOf(self.publish(retry_policy=policy))
        self.assertEqual(policy, self.policy(max_retries=1))

    def test_an_errback_that_fails(self) -> None:
        """kombu B2: what it raises is the outcome, of that message alone."""

        def errback(error: BaseException, interval: float) -> None:
            raise ZeroDivisionError

        self.refuse(1)
        bad, good = self.publish(1, retry_policy={"errback": errback}), self.publish(2)
        self.failureResultOf(bad, ZeroDivisionError)
        self.clock.advance(1)
        self.successResultOf(good)


class OrderTests(RetryCase):
    """R3, R4: nothing is lost, nothing overtakes."""

    def test_before_the_channel_is_open(self) -> None:
        """All kinds of publishes, given without waiting."""
        held: Deferred[Any] = Deferred()
        self.transport.connects.append(held)
        waiting = [self.publish(number, retry=bool(number % 2)) for number in range(6)]
        held.callback(None)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), [*"012345"])

    def test_unconfirmed_ones_come_before_new_ones(self) -> None:
        """What was in flight at the loss, what was published during it, and what comes after it."""
        self.open()
        self.transport.publishes.extend([HOLD] * 4)
        waiting = [self.publish(number) for number in range(3)]
        waiting.insert(0, self.producer.publish("no retry"))
        confirmed = self.transport.made[0].channels[0].unconfirmed[1]
        confirmed.callback(None)  # 1 has arrived
        self.lose()
        self.failureResultOf(waiting.pop(0), PublishUnconfirmed)
        waiting.append(self.publish(3))
        self.transport.sent.clear()
        self.clock.advance(1)
        waiting.append(self.publish(4))
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), ["0", "2", "3", "4"])

    def test_lost_again_while_sending_again(self) -> None:
        """A second loss: still in order, and each once more."""
        self.open()
        self.transport.publishes.extend([HOLD] * 6)
        waiting = [self.publish(number) for number in range(3)]
        self.lose()
        self.clock.advance(1)
        self.assertEqual(self.transport.bodies(), [*"012012"])
        self.lose()
        waiting.append(self.publish(3))
        self.clock.advance(1)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), [*"0120120123"])
        self.assert_nothing_is_left()

    def test_behind_one_that_was_nacked(self) -> None:
        """A new publish, with or without a policy, waits behind it."""
        self.open()
        self.transport.publishes.append(PublishNacked("full"))
        waiting = [self.publish(0), self.publish(1), self.publish(2, retry=False)]
        self.assertEqual(self.transport.bodies(), ["0"])
        self.clock.advance(1)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), [*"0012"])

    def test_without_a_policy_nobody_waits_for_the_connection(self) -> None:
        """R2: NotSent at once, while others wait for it to come back."""
        self.refuse(1)
        retried = self.publish(0)
        error = self.failureResultOf(self.publish(1, retry=False), NotSent).value
        self.assertIsInstance(error.cause, ConnectFailed)
        self.clock.advance(1)
        self.successResultOf(retried)

    def test_without_a_policy_the_next_publish_connects_again(self) -> None:
        """Nothing of a failure stays."""
        self.refuse(1)
        self.failureResultOf(self.publish(0, retry=False), ConnectFailed)
        self.successResultOf(self.publish(1, retry=False))

    def test_policies_of_different_patience(self) -> None:
        """One gives up, the other goes on; an attempt is for both."""
        self.refuse(2)
        short = self.publish(0, retry_policy=self.policy(max_retries=1))
        long = self.publish(1)
        self.clock.advance(1)
        self.failureResultOf(short, OperationalError)
        self.assertNoResult(long)
        self.clock.advance(1)
        self.successResultOf(long)
        self.assertEqual(len(self.transport.attempts), 3)

    def test_publishing_in_what_a_failure_calls(self) -> None:
        """No attempt out of turn when an errback publishes."""
        self.refuse(3)
        more: list[Deferred[None]] = []
        short = self.publish(0, retry_policy=RetryIntervals(0))
        short.addErrback(lambda _: more.append(self.publish("later")))
        long = self.publish(1)
        self.assertEqual(len(self.transport.attempts), 2)
        self.clock.pump([1, 1, 1])
        self.successResultOf(long)
        self.successResultOf(more[0])
        self.assertEqual(len(self.transport.attempts), 4)

    def test_a_thousand(self) -> None:
        """Neither lost nor twice, and no recursion."""
        held: Deferred[Any] = Deferred()
        self.transport.connects.append(held)
        waiting = [self.publish(number) for number in range(1000)]
        held.callback(None)
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.bodies(), [str(number) for number in range(1000)])


class RecoveringTests(RetryCase):
    """On a connection that comes back by itself: its channels live on, and an attempt is one `retry()`."""

    recovers = True

    def test_a_loss(self) -> None:
        """R3, R4."""
        self.open()
        self.transport.publishes.extend([HOLD] * 2)
        waiting = [self.publish(number) for number in range(2)]
        self.transport.made[0].lose()
        self.transport.retries.append(ConnectFailed("refused"))
        waiting.append(self.publish(2))
        self.failureResultOf(self.publish(3, retry=False), NotSent)
        self.clock.pump([1, 1])
        for published in waiting:
            self.successResultOf(published)
        self.assertEqual(self.transport.attempts, ["a", "retry", "retry"])
        self.assertEqual(self.transport.bodies(), [*"01012"])
        self.assertEqual(len(self.transport.made[0].channels), 1)
        self.assert_nothing_is_left()

    def test_published_while_it_is_away(self) -> None:
        """kombu G18: with a policy it waits; without one it is NotSent."""
        self.open()
        self.transport.made[0].lose()
        self.failureResultOf(self.publish(0, retry=False), NotSent)
        published = self.publish(1)
        self.assertEqual(self.told, [("NotSent", 1)])
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(self.transport.attempts, ["a", "retry"])

    def test_declared_again(self) -> None:
        """kombu B22."""
        self.open()
        self.successResultOf(self.publish(0, declare=[Queue("work")]))
        self.transport.made[0].lose()
        self.transport.log.clear()
        published = self.publish(1, declare=[Queue("work")])
        self.clock.advance(1)
        self.successResultOf(published)
        self.assertEqual(self.transport.log, ["queue work", "publish 1"])

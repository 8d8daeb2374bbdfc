"""ensure_connection, ensure, autoretry and insured, over a transport that does what the test says, on a clock."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from tests.messaging.publishing.plain_transport import HOLD, ScriptedCase
from txmsg.errors import (
    AccessRefused,
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    EncodeError,
    NotFound,
    OperationalError,
    OperationTimeout,
    PreconditionFailed,
    PublishNacked,
    PublishUnconfirmed,
)
from txmsg.messaging.connection.channel import Channel
from txmsg.messaging.connection.connection import Connection
from txmsg.messaging.retrying.ensuring import ensure_connection, insured, is_worth_retrying


class EnsuringCase(ScriptedCase):
    """Notes what errbacks are given."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[tuple[str, float]] = []

    def errback(self, error: BaseException, interval: float) -> None:
        """Notes it."""
        self.told.append((type(error).__name__, interval))

    def waits(self) -> list[float]:
        """The intervals so far."""
        return [interval for _, interval in self.told]


class WorthRetryingTests(EnsuringCase):
    """kombu B9: which errors another attempt can cure."""

    def test_lost_and_refused_are(self) -> None:
        for error in (ConnectionLost(), ConnectFailed("refused"), OperationTimeout("late"), PublishNacked("full")):
            self.assertTrue(is_worth_retrying(error), error)

    def test_what_has_to_be_changed_is_not(self) -> None:
        for error in (
            AuthenticationFailed("no", 403),
            AccessRefused("no", 403),
            NotFound("no", 404),
            PreconditionFailed("no", 406),
            EncodeError("no"),
            ValueError("no"),
        ):
            self.assertFalse(is_worth_retrying(error), error)

    def test_what_the_application_closed_is_not(self) -> None:
        closed = ConnectionClosed("closed", 200, initiator="client")
        self.assertFalse(is_worth_retrying(closed))
        self.assertFalse(is_worth_retrying(PublishUnconfirmed("lost", closed)))
        self.assertTrue(is_worth_retrying(ConnectionClosed("shutdown", 320, initiator="server")))


class EnsureConnectionTests(EnsuringCase):
    """kombu B1 to B9, B11, B14."""

    def test_connects(self) -> None:
        """kombu B1: fires with the connection; a second time nothing is done."""
        connection = self.connection()
        self.assertIs(self.successResultOf(connection.ensure_connection()), connection)
        self.assertIs(self.successResultOf(ensure_connection(connection)), connection)
        self.assertEqual(self.transport.attempts, ["a"])

    def test_the_default_waits(self) -> None:
        """kombu B1, B7: 2, 4, 6 ... 30, 30; for ever."""
        self.refuse(17)
        done = self.connection().ensure_connection(self.errback)
        expected = [*range(2, 31, 2), 30, 30]
        self.clock.pump(expected)
        self.successResultOf(done)
        self.assertEqual(self.waits(), expected)
        self.assertEqual(len(self.transport.attempts), 18)
        self.assert_nothing_is_left()

    def test_gives_up(self) -> None:
        """kombu B5, B8: N retries, then OperationalError with the transport's error."""
        error = self.refuse(99)
        done = self.connection().ensure_connection(self.errback, 2, 1, 1, 30)
        self.clock.pump([1, 2, 3, 4])
        given_up = self.failureResultOf(done, OperationalError).value
        self.assertIs(given_up.__cause__, error)
        self.assertIn("3 attempts", str(given_up))
        self.assertEqual((len(self.transport.attempts), self.waits()), (3, [1, 2]))
        self.assert_nothing_is_left()

    def test_gives_up_with_the_error_itself(self) -> None:
        """kombu B5."""
        error = self.refuse(1)
        done = self.connection().ensure_connection(max_retries=0, reraise_as_library_errors=False)
        self.assertIs(self.failureResultOf(done).value, error)

    def test_a_bad_password_is_not_retried(self) -> None:
        """kombu B9: on no host."""
        self.transport.connects.append(AuthenticationFailed("ACCESS_REFUSED", 403))
        done = self.connection("scripted://a;scripted://b").ensure_connection(self.errback)
        self.failureResultOf(done, AuthenticationFailed)
        self.assertEqual((self.transport.attempts, self.told), (["a"], []))
        self.assert_nothing_is_left()

    def test_the_next_host_at_once(self) -> None:
        """kombu B11, B14: a wait only when all of them had their turn, and the waits grow by the round."""
        self.refuse(6)
        connection = self.connection("scripted://a;scripted://b;scripted://c")
        done = connection.ensure_connection(self.errback)
        self.clock.advance(0)
        self.clock.advance(0)
        self.assertEqual(self.transport.attempts, ["a", "b", "c"])
        self.assertEqual(self.waits(), [0, 0, 2])
        self.clock.advance(2)
        self.clock.pump([0, 0])
        self.assertEqual(self.waits(), [0, 0, 2, 0, 0, 4])
        self.clock.advance(4)
        self.successResultOf(done)
        self.assertEqual(self.transport.attempts, ["a", "b", "c", "a", "b", "c", "a"])

    def test_a_limit_cuts_the_wait(self) -> None:
        """kombu B4."""
        error = self.refuse(99)
        done = self.connection().ensure_connection(self.errback, timeout=3)
        self.clock.pump([2, 1])
        self.assertIs(self.failureResultOf(done, OperationalError).value.cause, error)
        self.assertEqual(self.waits(), [2, 1])
        self.assert_nothing_is_left()

    def test_a_limit_cuts_an_attempt(self) -> None:
        """kombu B4."""
        self.transport.connects.append(HOLD)
        done = self.connection().ensure_connection(timeout=3)
        self.clock.advance(3)
        self.assertIsInstance(self.failureResultOf(done, OperationalError).value.cause, OperationTimeout)
        self.assert_nothing_is_left()

    def test_the_callback(self) -> None:
        """kombu B3."""
        self.refuse(1)
        ticks: list[float] = []
        done = self.connection().ensure_connection(callback=lambda: ticks.append(self.clock.seconds()))
        self.clock.pump([1, 1])
        self.successResultOf(done)
        self.assertEqual(ticks, [0, 1])

    def test_cancelled(self) -> None:
        """No delayed call is left, and nobody connects later."""
        self.refuse(1)
        done = self.connection().ensure_connection()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assert_nothing_is_left()

    def test_closed_meanwhile(self) -> None:
        """R28: closing the connection ends what waits for it, at once."""
        self.refuse(1)
        connection = self.connection()
        done = connection.ensure_connection()
        self.successResultOf(connection.close())
        self.failureResultOf(done, ConnectionClosed)
        self.assert_nothing_is_left()
        self.assertEqual(len(self.transport.attempts), 1)

    def test_bad_intervals(self) -> None:
        self.failureResultOf(self.connection().ensure_connection(max_retries=-1), ConfigurationError)

    def test_a_connection_that_comes_back_by_itself(self) -> None:
        """An attempt is one `retry()` of it."""
        self.transport.recovers = True
        connection = self.connection()
        self.successResultOf(connection.connect())
        self.transport.made[0].lose()
        self.transport.retries.extend([ConnectFailed("refused")] * 2)
        done = connection.ensure_connection(self.errback)
        self.clock.pump([2, 4])
        self.successResultOf(done)
        self.assertEqual(self.transport.attempts, ["a", "retry", "retry", "retry"])
        self.assertEqual(self.waits(), [2, 4])


class Thing:
    """Something that is revived."""

    def __init__(self, log: list[str], channel: Any = None) -> None:
        self.log = log
        self.channel = channel

    def revive(self, channel: Channel) -> None:
        """Notes it."""
        self.log.append("revive")
        self.channel = channel


class EnsureTests(EnsuringCase):
    """kombu B6, B10, B11."""

    def setUp(self) -> None:
        super().setUp()
        self.log: list[str] = []
        self.calls: list[Any] = []
        self.errors: list[BaseException] = []

    def fun(self, *args: Any, **kwargs: Any) -> Deferred[str]:
        """What is ensured."""
        self.calls.append((args, kwargs))
        self.log.append("call")
        return fail(self.errors.pop(0)) if self.errors else succeed("done")

    def test_success(self) -> None:
        """kombu B6: no connection is asked for."""
        ensured = self.connection().ensure(Thing(self.log), self.fun)
        self.assertEqual(self.successResultOf(ensured(1, a=2)), "done")
        self.assertEqual((self.calls, self.transport.attempts), ([((1,), {"a": 2})], []))
        self.assertEqual(ensured.__name__, "fun")

    def test_the_order_of_things(self) -> None:
        """kombu B6: cache cleared, connection, channel, revive, on_revive, the same call again."""
        connection = self.connection()
        self.successResultOf(connection.default_channel.open())
        thing = Thing(self.log)

        def on_revive(channel: Channel) -> None:
            self.assertIs(channel, connection.default_channel)
            self.assertTrue(channel.is_open)
            self.assertIsNot(channel.transport_channel, first)
            self.assertEqual(len(connection.declared_entities), 0)
            self.log.append("on_revive")

        first = connection.default_channel.transport_channel
        self.errors.append(ConnectionLost())
        done = connection.ensure(thing, self.fun, self.errback, on_revive=on_revive)(1, a=2)
        self.transport.made[0].lose()
        self.assertNoResult(done)
        self.clock.advance(1)
        self.assertEqual(self.successResultOf(done), "done")
        self.assertEqual(self.log, ["call", "revive", "on_revive", "call"])
        self.assertEqual(self.calls, [((1,), {"a": 2})] * 2)
        self.assertEqual(self.told, [("ConnectionLost", 1)])

    def test_a_revival_may_be_a_deferred(self) -> None:
        """kombu B6."""
        gate: Deferred[None] = Deferred()
        self.errors.append(ConnectionLost())
        done = self.connection().ensure(Thing(self.log), self.fun, on_revive=lambda channel: gate)()
        self.clock.advance(1)
        self.assertEqual(len(self.calls), 1)
        gate.callback(None)
        self.successResultOf(done)

    def test_n_retries(self) -> None:
        """kombu B8: N + 1 calls, and not N + 2."""
        error = ConnectionLost()
        self.errors = [error] * 9
        done = self.connection().ensure(Thing(self.log), self.fun, self.errback, max_retries=3)()
        self.clock.pump([1] * 9)
        self.assertIs(self.failureResultOf(done, OperationalError).value.__cause__, error)
        self.assertEqual((len(self.calls), self.waits()), (4, [1, 1, 1]))
        self.assert_nothing_is_left()

    def test_connecting_and_calling_are_counted_together(self) -> None:
        """kombu B8: a retry is one attempt, wherever it fails."""
        self.errors = [ConnectionLost()] * 9
        self.refuse(2)
        done = self.connection().ensure(Thing(self.log), self.fun, max_retries=3)()
        self.clock.pump([1] * 9)
        self.failureResultOf(done, OperationalError)
        self.assertEqual((len(self.calls), len(self.transport.attempts)), (2, 3))

    def test_no_retries(self) -> None:
        """kombu B8 and CN6."""
        self.errors = [ConnectionLost()]
        done = self.connection().ensure(Thing(self.log), self.fun, self.errback, max_retries=0)()
        self.failureResultOf(done, OperationalError)
        self.assertEqual(self.told, [])

    def test_other_errors(self) -> None:
        """kombu B9."""
        for error in (NotFound("no", 404), AccessRefused("no", 403), EncodeError("no"), ZeroDivisionError()):
            self.errors = [error]
            done = self.connection().ensure(Thing(self.log), self.fun)()
            self.assertIs(self.failureResultOf(done).value, error)

    def test_a_channel_error_keeps_the_connection(self) -> None:
        """kombu B10: and waits also where there are other hosts."""
        connection = self.connection("scripted://a;scripted://b")
        channel = self.successResultOf(connection.channel())
        thing = Thing(self.log, channel)
        self.errors = [OperationTimeout("late")]
        self.transport.made[0].channels[0].end(OperationTimeout("late"))
        done = connection.ensure(thing, self.fun, self.errback)()
        self.assertEqual(self.waits(), [1])
        self.clock.advance(1)
        self.successResultOf(done)
        self.assertEqual(self.transport.attempts, ["a"])
        self.assertIs(thing.channel, channel)
        self.assertEqual(len(self.transport.made[0].channels), 2)

    def test_a_lost_connection_goes_to_the_next_host_at_once(self) -> None:
        """kombu B11."""
        connection = self.connection("scripted://a;scripted://b")
        self.successResultOf(connection.connect())
        self.transport.made[0].lose()
        self.errors = [ConnectionLost()]
        done = connection.ensure(Thing(self.log), self.fun, self.errback)()
        self.assertEqual(self.waits(), [0])
        self.clock.advance(0)
        self.successResultOf(done)
        self.assertEqual(self.transport.attempts, ["a", "b"])

    def test_a_connection_that_comes_back_by_itself(self) -> None:
        """One attempt is one `retry()`."""
        self.transport.recovers = True
        connection = self.connection()
        self.successResultOf(connection.default_channel.open())
        self.transport.made[0].lose()
        self.transport.retries.append(ConnectFailed("refused"))
        self.errors = [ConnectionLost()]
        done = connection.ensure(Thing(self.log), self.fun, self.errback)()
        self.clock.pump([1, 1])
        self.successResultOf(done)
        self.assertEqual(self.transport.attempts, ["a", "retry", "retry"])
        self.assertEqual(self.log, ["call", "revive", "call"])

    def test_closed_meanwhile(self) -> None:
        """R28: and it is not opened again."""
        connection = self.connection()
        self.errors = [ConnectionLost()]
        done = connection.ensure(Thing(self.log), self.fun)()
        self.successResultOf(connection.close())
        self.failureResultOf(done, ConnectionClosed)
        self.assert_nothing_is_left()
        self.assertEqual(self.transport.attempts, [])

    def test_closed_by_what_is_called(self) -> None:
        """A call that closed the connection is not a reason to open it again."""
        connection = self.connection()
        self.errors = [ConnectionLost()]

        def fun() -> Deferred[str]:
            connection.close()
            return self.fun()

        done = connection.ensure(Thing(self.log), fun)()
        self.clock.advance(1)
        self.failureResultOf(done, ConnectionClosed)
        self.assertEqual(self.transport.attempts, [])

    def test_cancelled(self) -> None:
        """Everything ends at once."""
        held: Deferred[None] = Deferred()
        done = self.connection().ensure(Thing(self.log), lambda: held)()
        done.cancel()
        self.failureResultOf(done, CancelledError)
        self.assertTrue(held.called)
        self.assert_nothing_is_left()

    def test_bad_intervals(self) -> None:
        with pytest.raises(ConfigurationError, match="interval_step"):
            self.connection().ensure(None, self.fun, interval_step=-1)


class AutoretryTests(EnsuringCase):
    """kombu B17."""

    def test_the_pair(self) -> None:
        """kombu B17: what it returned, and the channel, which is open and the caller's."""
        connection = self.connection()
        retried = connection.autoretry(lambda text, channel: (text, channel))
        (text, channel), again = self.successResultOf(retried("x"))
        self.assertEqual(text, "x")
        self.assertIs(channel, again)
        self.assertTrue(channel.is_open)
        self.assertIsNot(channel, connection.default_channel)

    def test_with_a_channel(self) -> None:
        """kombu B17."""
        connection = self.connection()
        channel = self.successResultOf(connection.channel())
        result, last = self.successResultOf(connection.autoretry(lambda channel: channel, channel)())
        self.assertIs(result, channel)
        self.assertIs(last, channel)

    def test_a_callable_without_a_name(self) -> None:
        """kombu B17."""

        class Nameless:
            def __call__(self, channel: Channel) -> int:
                return 5

        self.assertEqual(self.successResultOf(self.connection().autoretry(Nameless())())[0], 5)

    def test_retries(self) -> None:
        """kombu B17: the connection, the channel and the call are one attempt."""
        self.refuse(1)
        self.transport.channels.append(ConnectionLost())
        errors: list[BaseException] = [ConnectionLost()]
        revived: list[Channel] = []

        async def fun(channel: Channel) -> str:
            if errors:
                raise errors.pop()
            return "done"

        retried = self.connection().autoretry(fun, errback=self.errback, on_revive=revived.append)
        done = retried()
        self.clock.pump([1, 1, 1])
        result, channel = self.successResultOf(done)
        self.assertEqual((result, self.waits()), ("done", [1, 1, 1]))
        self.assertIs(revived[-1], channel)

    def test_given_up(self) -> None:
        """kombu B17: the channel that was made for it is closed."""
        channels: list[Channel] = []

        def fun(channel: Channel) -> None:
            channels.append(channel)
            raise NotFound("no", 404)

        connection = self.connection()
        self.failureResultOf(connection.autoretry(fun)(), NotFound)
        self.assertFalse(channels[0].is_open)

    def test_unknown_options(self) -> None:
        with pytest.raises(ConfigurationError):
            self.connection().autoretry(print, max_retries="x")


class FakePool:
    """Lends one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.returned = 0
        connection.lender = self

    def acquire(self, block: bool = False, timeout: float | None = None) -> Deferred[Connection]:
        """The connection."""
        assert block
        return succeed(self.connection)

    def release(self, connection: Connection) -> Deferred[None]:
        """Counts."""
        assert connection is self.connection
        self.returned += 1
        return succeed(None)


class InsuredTests(EnsuringCase):
    """kombu B19, O10."""

    def test_insured(self) -> None:
        """kombu B19: a connection of the pool, connected; the function gets it and its channel; it is given back."""
        self.refuse(1)
        pool = FakePool(self.connection())
        got: list[Any] = []

        def fun(*args: Any, **kwargs: Any) -> str:
            got.append((args, kwargs))
            return "done"

        done = insured(pool, fun, (1,), {"a": 2}, self.errback)
        self.clock.advance(2)
        self.assertEqual(self.successResultOf(done), "done")
        channel = pool.connection.default_channel
        self.assertEqual(got, [((1,), {"a": 2, "connection": pool.connection, "channel": channel})])
        self.assertEqual((pool.returned, self.waits()), (1, [2]))

    def test_it_is_given_back_in_any_case(self) -> None:
        """kombu B19."""
        pool = FakePool(self.connection())

        def fun(**kwargs: Any) -> None:
            raise NotFound("no", 404)

        self.failureResultOf(insured(pool, fun), NotFound)
        self.assertEqual(pool.returned, 1)

    def test_failures_are_logged(self) -> None:
        """kombu B19: and the options are for connecting, too."""
        self.refuse(2)
        pool = FakePool(self.connection())
        done = insured(pool, lambda **kwargs: None, max_retries=1, interval_start=1)
        self.clock.advance(1)
        self.failureResultOf(done, OperationalError)
        self.assertEqual(pool.returned, 1)

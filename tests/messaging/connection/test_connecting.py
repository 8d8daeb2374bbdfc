"""Tests of how a Connection comes, goes and comes back: on a scripted transport and a clock."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.messaging.connection.scripted_transport import (
    ScriptedConnection,
    ScriptedConnectionCase,
    ScriptedRecovering,
)
from txmsg.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionLost,
    ConnectTimeout,
    OperationalError,
)
from txmsg.messaging import Connection


class ConnectTests(ScriptedConnectionCase):
    """Connecting."""

    def test_lazy(self) -> None:
        """kombu A1: neither the constructor nor the default channel opens anything; the first call does."""
        connection = self.connection()
        channel = connection.default_channel
        self.assertEqual((self.transport.attempts, connection.connected, channel.is_open), ([], False, False))
        self.successResultOf(channel.queue_declare("q"))
        self.assertEqual((len(self.transport.attempts), connection.connected, channel.is_open), (1, True, True))
        self.assertIs(connection.connection, self.transport.made[0])
        self.assertIs(self.transport.reactors[0], self.clock)

    def test_connect(self) -> None:
        """kombu A2, A3: it fires with the connection itself, twice is once, and after close() it opens another."""
        connection = self.connection()
        self.assertIs(self.successResultOf(connection.connect()), connection)
        self.assertIs(self.successResultOf(connection.connect()), connection)
        self.assertEqual(len(self.transport.made), 1)
        self.successResultOf(connection.close())
        self.assertFalse(connection.connected)
        self.assertFalse(self.transport.made[0].is_open)
        self.successResultOf(connection.connect())
        self.assertTrue(connection.connected)
        self.assertEqual(len(self.transport.made), 2)

    def test_one_attempt_for_all(self) -> None:
        """Several who connect at once share one attempt; one that gives up does not end it, the last one does."""
        cancelled: list[object] = []
        attempt: Deferred[Any] = Deferred(cancelled.append)
        connection = self.connection(attempt)
        first, second, third = connection.connect(), connection.connect(), connection.default_channel.open()
        first.cancel()
        self.failureResultOf(first)
        self.assertEqual(cancelled, [])
        made = ScriptedConnection()
        attempt.callback(made)
        self.assertIs(self.successResultOf(second), connection)
        self.assertTrue(self.successResultOf(third).is_open)
        self.assertEqual(len(self.transport.attempts), 1)
        other = self.connection(attempt := Deferred(cancelled.append))
        given_up = other.connect()
        given_up.cancel()
        self.failureResultOf(given_up)
        self.assertEqual(cancelled, [attempt])

    def test_timeout(self) -> None:
        """kombu A20: one that takes longer is cancelled, and fails with ConnectTimeout; 5 s if nothing is said."""
        cases: list[tuple[dict[str, Any], float]] = [({}, 5.0), ({"connect_timeout": 2}, 2.0)]
        for settings, limit in cases:
            cancelled: list[object] = []
            connection = self.connection(Deferred(cancelled.append), **settings)
            connecting = connection.connect()
            self.clock.advance(limit - 0.1)
            self.assertNoResult(connecting)
            self.clock.advance(0.2)
            self.failureResultOf(connecting, ConnectTimeout)
            self.assertEqual(len(cancelled), 1)
        unlimited = self.connection(Deferred(), connect_timeout=None).connect()
        self.clock.advance(10_000)
        self.assertNoResult(unlimited)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_timer_is_left(self) -> None:
        """The limit ends with the attempt."""
        self.successResultOf(self.connection().connect())
        self.failureResultOf(self.connection(ConnectFailed("no")).connect(), ConnectFailed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_hosts(self) -> None:
        """kombu B11: each URL is tried once, without waits, until one can be reached."""
        connection = self.connection(ConnectFailed("no"), ConnectFailed("no"), url=";".join(self.hosts("a", "b", "c")))
        connecting = connection.connect()
        self.clock.pump([0] * 3)
        self.successResultOf(connecting)
        self.assertEqual(self.tried(), ["a", "b", "c"])
        self.assertEqual(connection.hostname, "c")
        self.assertEqual(self.transport.attempts[0][1], self.hosts("b", "c"))
        self.assertEqual(self.transport.attempts[2][1], self.hosts("a", "b"))

    def test_all_hosts_fail(self) -> None:
        """kombu B11: the error of the last one; a refused login ends it at the first (kombu B9)."""
        last = ConnectFailed("last")
        connection = self.connection(ConnectFailed("no"), last, url=";".join(self.hosts("a", "b")))
        connecting = connection.connect()
        self.clock.pump([0] * 3)
        self.assertIs(self.failureResultOf(connecting).value, last)
        self.assertEqual(self.tried(), ["a", "b"])
        refused = self.connection(AuthenticationFailed("no"), url=";".join(self.hosts("a", "b")))
        self.failureResultOf(refused.connect(), AuthenticationFailed)
        self.assertEqual(self.tried(), ["a", "b", "a"])

    def test_retry_policy_of_the_transport_options(self) -> None:
        """kombu B20: max_retries and intervals there hold for connecting, and the transport never sees them."""
        connection = self.connection(
            *(ConnectFailed("no") for _ in range(5)),
            transport_options={"max_retries": 2, "interval_start": 1, "interval_step": 3, "interval_max": 9, "own": 1},
        )
        channel = connection.default_channel.open()
        self.assertEqual(len(self.transport.attempts), 1)
        self.clock.pump([0.9, 0.2])
        self.assertEqual(len(self.transport.attempts), 2)
        self.clock.pump([3.8, 0.3])
        self.failureResultOf(channel, OperationalError)
        self.assertEqual([options for _, _, options in self.transport.attempts], [{"own": 1}] * 3)


class CloseTests(ScriptedConnectionCase):
    """Closing."""

    def test_never_opened_and_twice(self) -> None:
        """kombu A4: closing what was never opened, and closing twice, is fine."""
        connection = self.connection()
        self.successResultOf(connection.close())
        self.successResultOf(connection.connect())
        self.successResultOf(connection.close())
        self.successResultOf(connection.close())
        self.successResultOf(connection.release())
        self.assertEqual(len(self.transport.made[0].closed), 1)

    def test_with_its_channels(self) -> None:
        """kombu A4, A7: all channels end, the default one too, and the next default channel is another."""
        connection = self.connection()
        default = self.successResultOf(connection.default_channel.open())
        other = self.successResultOf(connection.channel())
        self.successResultOf(connection.close())
        self.assertEqual((default.is_open, other.is_open), (False, False))
        self.assertIsNot(connection.default_channel, default)

    def test_waits_for_the_transport(self) -> None:
        """It fires when the transport is done; a second close, and a connect, wait for that as well."""
        made = ScriptedConnection()
        made.closes_at_once = False
        connection = self.connection(made)
        self.successResultOf(connection.connect())
        first, second = connection.close(), connection.close()
        again = connection.connect()
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.assertEqual(len(self.transport.attempts), 1)
        made.closed[0].callback(None)
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(again)
        self.assertEqual(len(self.transport.attempts), 2)

    def test_what_the_transport_says_against_it(self) -> None:
        """It is over in any case."""
        made = ScriptedConnection()
        made.closes_at_once = False
        connection = self.connection(made)
        self.successResultOf(connection.connect())
        closing = connection.close()
        made.closed[0].errback(Failure(ConnectionLost("meanwhile")))
        self.successResultOf(closing)

    def test_while_it_connects(self) -> None:
        """Who waits is told, the attempt is cancelled, and nothing connects later."""
        cancelled: list[object] = []
        connection = self.connection(Deferred(cancelled.append))
        connecting, opening = connection.connect(), connection.default_channel.open()
        self.successResultOf(connection.close())
        for waiting in (connecting, opening):
            self.assertEqual(self.failureResultOf(waiting, ConnectionClosed).value.initiator, "client")
        self.assertEqual(len(cancelled), 1)
        self.clock.advance(100)
        self.assertEqual(len(self.transport.attempts), 1)

    def test_nothing_connects_after_it(self) -> None:
        """A late call on a channel fails, until connect() is called."""
        connection = self.connection()
        channel = self.successResultOf(connection.channel())
        self.successResultOf(connection.close())
        self.failureResultOf(channel.publish("", "q", b""), ConnectionClosed)
        self.failureResultOf(connection.channel(), ConnectionClosed)
        self.failureResultOf(connection.default_channel.qos(1), ConnectionClosed)
        self.assertEqual(len(self.transport.attempts), 1)
        self.successResultOf(connection.connect())
        self.successResultOf(channel.publish("", "q", b""))

    def test_context_manager(self) -> None:
        """kombu A6: the block opens nothing; leaving it, by an error as well, closes."""

        async def use(error: Exception | None) -> Connection:
            async with self.connection() as connection:
                self.assertFalse(connection.connected)
                await connection.connect()
                if error is not None:
                    raise error
            return connection

        connection = self.successResultOf(Deferred.fromCoroutine(use(None)))
        self.assertTrue(connection.is_closed)
        self.failureResultOf(Deferred.fromCoroutine(use(KeyError())), KeyError)
        self.assertEqual([made.is_open for made in self.transport.made], [False, False])

    def test_context_manager_that_is_cancelled(self) -> None:
        """kombu A6: so does cancelling what runs in it."""

        async def use() -> None:
            async with self.connection() as connection:
                await connection.connect()
                await Deferred()

        running = Deferred.fromCoroutine(use())
        running.cancel()
        self.failureResultOf(running)
        self.assertFalse(self.transport.made[0].is_open)

    def test_release_to_a_pool(self) -> None:
        """kombu A5: one that a pool lends goes back to it; close() closes it all the same."""
        returned: list[object] = []

        class Pool:
            def release(self, resource: object) -> Deferred[None]:
                returned.append(resource)
                return Deferred()

        connection = self.connection()
        connection.lender = Pool()
        self.successResultOf(connection.connect())
        connection.release()
        self.assertEqual((returned, connection.connected), ([connection], True))
        self.successResultOf(connection.close())
        self.assertFalse(connection.connected)

    def test_collect(self) -> None:
        """kombu A44: everything is dropped at once, although the transport has not answered."""
        made = ScriptedConnection()
        made.closes_at_once = False
        connection = self.connection(made)
        channel = self.successResultOf(connection.channel())
        connection.collect(socket_timeout=1)
        self.assertEqual((connection.connected, channel.is_open), (False, False))

    def test_freed_without_the_collector(self) -> None:
        """kombu AD6: after close() nothing of it is in a cycle."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        connection = self.connection()
        channel = self.successResultOf(connection.channel())
        self.successResultOf(connection.default_channel.queue_declare("q"))
        self.successResultOf(connection.close())
        gone = [weakref.ref(each) for each in (connection, channel)]
        del connection, channel
        self.assertEqual([each() for each in gone], [None, None])


class LossTests(ScriptedConnectionCase):
    """Losing a connection of a plain transport."""

    def setUp(self) -> None:
        """Note what is told."""
        super().setUp()
        self.told: list[tuple[BaseException | None, float | None]] = []

    def note(self, reason: BaseException | None, delay: float | None) -> None:
        """For add_recovery_callback."""
        self.told.append((reason, delay))

    def test_loss(self) -> None:
        """kombu A3, A36: it is not connected, and what was declared is forgotten; the next call connects again."""
        connection = self.connection()
        connection.add_recovery_callback(self.note)
        channel = self.successResultOf(connection.channel())
        epoch, reason = connection.declared_entities.epoch, self.transport.lost()
        self.transport.made[0].lose(reason)
        self.assertFalse(connection.connected)
        self.assertGreater(connection.declared_entities.epoch, epoch)
        self.assertEqual(self.told, [(reason, None)])
        self.assertFalse(channel.is_open)
        self.clock.advance(1000)
        self.assertEqual(len(self.transport.attempts), 1, "nothing lives on it, so nobody needs it")
        self.successResultOf(channel.queue_declare("q"))
        self.assertEqual(self.told, [(reason, None), (None, None)])

    def test_callbacks(self) -> None:
        """One that fails is logged and the others are told; one that is removed is told no more."""
        connection = self.connection()

        def fails(reason: object, delay: object) -> None:
            raise KeyError("in a callback")

        for callback in (fails, self.note, self.told.append):
            connection.add_recovery_callback(callback)  # type: ignore[arg-type]
        connection.remove_recovery_callback(self.told.append)  # type: ignore[arg-type]
        connection.remove_recovery_callback(self.told.append)  # type: ignore[arg-type]
        self.successResultOf(connection.connect())
        self.transport.made[0].lose(self.transport.lost())
        self.assertEqual(len(self.told), 1)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_come_back(self) -> None:
        """kombu B1, B2: for a consumer it connects again by itself, with waits, and tells of each attempt."""
        connection = self.connection()
        connection.add_recovery_callback(self.note)
        self.successResultOf(connection.connect())
        error = ConnectFailed("not yet")
        self.transport.outcomes = [error, error]
        self.transport.made[0].lose(self.transport.lost())
        first, second = connection.come_back(), connection.come_back()
        self.clock.pump([1.9, 0.2, 3.8])
        self.assertNoResult(first)
        self.clock.advance(0.2)
        self.successResultOf(first)
        self.successResultOf(second)
        self.assertEqual(self.told[1:], [(error, 2.0), (error, 4.0), (None, None)])
        self.successResultOf(connection.come_back())

    def test_close_ends_coming_back(self) -> None:
        """No attempt follows."""
        connection = self.connection()
        self.successResultOf(connection.connect())
        self.transport.outcomes = [ConnectFailed("no")] * 3
        self.transport.made[0].lose(self.transport.lost())
        coming = connection.come_back()
        self.successResultOf(connection.close())
        self.failureResultOf(coming, ConnectionClosed)
        self.failureResultOf(connection.come_back(), ConnectionClosed)
        attempts = len(self.transport.attempts)
        self.clock.advance(1000)
        self.assertEqual(len(self.transport.attempts), attempts)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class RecoveringTests(ScriptedConnectionCase):
    """A transport whose connections come back by themselves."""

    def test_told(self) -> None:
        """What it tells is passed on, and what was declared is forgotten at each loss (kombu A36)."""
        made = ScriptedRecovering()
        connection = self.connection(made)
        told: list[object] = []
        connection.add_recovery_callback(lambda *what: told.append(what))
        self.successResultOf(connection.connect())
        self.assertEqual((connection.is_recovering, connection.get_heartbeat_interval()), (True, 7.0))
        epoch, reason = connection.declared_entities.epoch, self.transport.lost()
        made.away(reason, 1.5)
        self.assertFalse(connection.connected)
        self.assertGreater(connection.declared_entities.epoch, epoch)
        epoch = connection.declared_entities.epoch
        made.back()
        self.assertEqual(told, [(reason, 1.5), (None, None)])
        self.assertEqual((connection.connected, connection.declared_entities.epoch), (True, epoch))

    def test_connect_while_it_is_away(self) -> None:
        """It makes its next attempt now, and nothing else connects; other hosts are its own business (kombu B13)."""
        made = ScriptedRecovering()
        connection = self.connection(made, url=";".join(self.hosts("a", "b")))
        self.successResultOf(connection.connect())
        made.away(self.transport.lost(), None)
        connecting = connection.connect()
        connection.maybe_switch_next()
        self.assertEqual((len(made.retries), self.tried(), connection.hostname), (1, ["a"], "a"))
        made.back()
        made.retries[0].callback(None)
        self.successResultOf(connecting)
        made.away(self.transport.lost(), None)
        failing = connection.connect_once()
        made.retries[1].errback(Failure(ConnectFailed("still not")))
        self.failureResultOf(failing, ConnectFailed)
        self.assertIs(connection.connection, made)
        slow = connection.connect_once()
        self.clock.advance(9.9)
        self.assertNoResult(slow)
        self.clock.advance(0.2)
        self.failureResultOf(slow, ConnectTimeout)

    def test_back_at_another_host(self) -> None:
        """kombu A31: that host is the present one; back at the first, that is."""
        made: Any = ScriptedRecovering()
        connection = self.connection(made, url=";".join([*self.hosts("a", "u:secret@b"), "memory://c"]))
        connection.maybe_switch_next()
        self.successResultOf(connection.connect())
        self.assertEqual(self.tried(), ["u:secret@b"])
        told: list[object] = []
        connection.add_recovery_callback(lambda reason, delay: told.append((reason is None, connection.hostname)))
        for number, host, userid in ((1, "a", None), (0, "b", "u"), (7, "b", "u")):
            made.away(self.transport.lost(), None)
            made.url_index = number
            made.back()
            info = connection.info()
            self.assertEqual((info["hostname"], info["userid"], told[-1]), (host, userid, (True, host)))
        self.assertNotIn("secret", connection.as_uri())

    def test_channels_while_it_is_away(self) -> None:
        """They are handed to the transport, which knows when it is back: their channels are the same."""
        made = ScriptedRecovering()
        connection = self.connection(made)
        channel = self.successResultOf(connection.channel())
        made.away(self.transport.lost(), None)
        self.successResultOf(channel.queue_declare("q"))
        self.successResultOf(connection.channel())
        self.assertEqual((len(made.channels), len(self.transport.attempts)), (2, 1))

    def test_end_for_good(self) -> None:
        """Then it is as lost as any, and the next call makes another one."""
        made = ScriptedRecovering()
        connection = self.connection(made)
        channel = self.successResultOf(connection.channel())
        made.lose(self.transport.lost())
        self.assertEqual((connection.connection, connection.is_recovering), (None, False))
        self.successResultOf(channel.queue_declare("q"))
        self.assertEqual(len(self.transport.attempts), 2)

    def test_close(self) -> None:
        """What it still has to tell is not passed on."""
        made = ScriptedRecovering()
        connection = self.connection(made)
        told: list[object] = []
        connection.add_recovery_callback(lambda *what: told.append(what))
        self.successResultOf(connection.connect())
        self.successResultOf(connection.close())
        made.away(self.transport.lost(), None)
        self.assertEqual((told, made.callbacks), ([], []))

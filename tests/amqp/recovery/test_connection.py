"""ReconnectingConnection: connects, comes back, gives up, and shows what it does."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred

from tests.amqp.recovery.world import MUTE, REFUSES, SILENT, FakeMember, WorldTestCase
from txmsg.amqp import AMQPProtocol, Backoff, PlainCredentials, RecoveryEvent
from txmsg.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionForced,
    ConnectTimeout,
    HandshakeTimeout,
    PreconditionFailed,
    VirtualHostRefused,
)


class ConnectTests(WorldTestCase):
    """The first connect: the same rules as every later one (R11)."""

    def test_connects(self) -> None:
        """start() fires with the connection once it is ready; the steps are visible."""
        self.world.broker()
        connection = self.connection()
        started = connection.start()
        self.world.run(0.1)
        self.assertIs(self.successResultOf(started), connection)
        self.assertEqual(self.states(), ["connecting", "recovering", "ready"])
        self.assertEqual((connection.epoch, connection.attempts, connection.is_ready), (1, 1, True))
        assert connection.protocol is not None
        self.assertTrue(connection.protocol.is_open)
        self.assertIs(self.successResultOf(connection.when_ready()), connection)
        self.assertIs(self.successResultOf(connection.start()), connection)
        self.assertIn("ready a:5672, epoch 1", repr(connection))

    def test_first_connect_is_tried_again(self) -> None:
        """A broker that is not up yet is waited for."""
        connection = self.connection()
        started = connection.start()
        self.world.run(2)
        self.assertNoResult(started)
        self.assertEqual(connection.state.value, "lost")
        self.assertIsInstance(connection.last_error, ConnectFailed)
        self.assertEqual([time for time, _ in self.world.attempts], [0, 0.5, 1.5])
        self.world.broker()
        self.world.run(3)
        self.assertIs(self.successResultOf(started), connection)

    def test_cancelled_wait(self) -> None:
        """Cancelling a wait ends that wait only."""
        self.world.broker()
        connection = self.connection()
        started, other = connection.start(), connection.when_ready()
        started.cancel()
        self.failureResultOf(started)
        self.world.run(0.1)
        self.assertIs(self.successResultOf(other), connection)

    def test_when_ready_is_limited(self) -> None:
        """The wait ends with a typed error that names the last failure."""
        connection = self.connection()
        self.noErrors(connection.start())
        self.world.run(0.1)
        waiting, forever = connection.when_ready(2), connection.when_ready()
        self.world.run(2)
        self.assertRegex(str(self.failed(waiting)), r"within 2 s .*refused the connection")
        at_once = connection.when_ready(0)
        self.world.run(0)
        self.assertIsInstance(self.failed(at_once), ConnectTimeout)
        self.world.run(29)
        self.assertIsInstance(self.failed(forever), ConnectTimeout)

    def test_silent_host(self) -> None:
        """R11: a host that answers nothing, or accepts and stays mute, costs `attempt_timeout`, then the next."""
        for kind, error in ((SILENT, ConnectTimeout), (MUTE, HandshakeTimeout)):
            with self.subTest(kind=kind):
                self.world.attempts.clear()
                self.steps.clear()
                self.world.hosts["s"] = kind
                self.world.broker("b")
                began = self.clock.seconds()
                connection = self.connection(["amqp://s", "amqp://b"], attempt_timeout=3)
                started = connection.start()
                self.world.run(2.9)
                self.assertEqual([host for _, host in self.world.attempts], ["s"])
                self.world.run(0.3)
                self.assertIs(self.successResultOf(started), connection)
                lost = next(step for step in self.steps if step.new.value == "lost")
                self.assertIsInstance(lost.reason, error)
                self.assertLessEqual(lost.at - began, 3.051)
                self.assertEqual(lost.delay, 0)

    def test_failover_is_one_attempt(self) -> None:
        """After a loss the next host comes first: one attempt, if it lives."""
        broker = self.world.broker("a")
        self.world.broker("b")
        connection = self.started("amqp://a;amqp://b")
        self.assertEqual(connection.where, "a:5672")
        self.world.hosts["a"] = REFUSES
        self.world.attempts.clear()
        broker.stop()
        self.world.run(2)
        self.assertEqual([host for _, host in self.world.attempts], ["b"])
        self.assertEqual([step.delay for step in self.steps if step.new.value == "lost"], [0.5], "the herd spreads out")
        self.assertEqual((connection.state.value, connection.where, connection.epoch), ("ready", "b:5672", 2))

    def test_credentials_are_asked_anew(self) -> None:
        """C2.2: a callable is asked for each attempt."""
        broker = self.world.broker()
        broker.add_user("app", "second")
        passwords = iter(["first", "second", "second"])
        asked: list[float] = []

        def credentials() -> Deferred[PlainCredentials]:
            asked.append(self.clock.seconds())
            answer: Deferred[PlainCredentials] = Deferred()
            self.clock.callLater(0.2, answer.callback, PlainCredentials("app", next(passwords)))
            return answer

        connection = self.connection(credentials=credentials, backoff=Backoff(jitter=False, slow=5))
        started = connection.start()
        self.world.run(1)
        self.assertIsInstance(connection.last_error, AuthenticationFailed)
        self.world.run(6)
        self.assertIs(self.successResultOf(started), connection)
        connection.reconnect()
        self.world.run(2)
        self.assertEqual((connection.epoch, len(asked)), (2, 3))

    def test_refused_login_is_slow(self) -> None:
        """R12: a refused login or virtual host waits `slow`, also when other hosts fail fast."""
        for target, error in (("amqp://a", AuthenticationFailed), ("amqp://a/nowhere", VirtualHostRefused)):
            with self.subTest(target=target):
                self.world.broker()
                self.world.attempts.clear()
                wrong = PlainCredentials("guest", "no" if error is AuthenticationFailed else "guest")
                connection = self.connection([target, "amqp://nobody"], credentials=lambda wrong=wrong: wrong)
                self.noErrors(connection.start())
                self.world.run(29)
                self.assertEqual([host for _, host in self.world.attempts].count("a"), 1)
                self.assertEqual([host for _, host in self.world.attempts].count("nobody"), 6)
                self.assertIn(error, [type(getattr(event, "reason", None)) for event in connection.history])
                self.world.run(65)
                self.assertLessEqual([host for _, host in self.world.attempts].count("a"), 4)
                connection.close()

    def test_only_refusing_host(self) -> None:
        """R12: with nobody else to try, nothing is tried until the time has passed."""
        self.world.broker()
        connection = self.connection(credentials=lambda: PlainCredentials("guest", "wrong"))
        self.noErrors(connection.start())
        self.world.run(100)
        self.assertEqual([round(time) for time, _ in self.world.attempts], [0, 30, 60, 90])

    def test_silence_after_the_login(self) -> None:
        """R12: the socket closes after the login: the broker may have died, so once more; then it is a refusal."""
        broker = self.world.broker()
        connection = self.connection(backoff=Backoff(initial=0.1, maximum=0.1, jitter=False))
        self.noErrors(connection.start())
        for cuts, attempts in ((1, 2), (1, 2), (2, 2)):
            self.world.attempts.clear()
            broker.faults.cut(after_frames=1, times=cuts)
            connection.reconnect()
            self.world.run(20)
            self.assertIsInstance(connection.last_error, AuthenticationFailed)
            self.assertEqual((connection.is_ready, len(self.world.attempts)), (cuts == 1, attempts))
        self.world.run(40)
        self.assertTrue(connection.is_ready)

    def test_reconnect_in_the_callback_of_ready(self) -> None:
        """start() fires with a connection that is there, not with one that a callback has just dropped."""
        self.world.broker()
        connection = self.connection()
        connection.add_state_callback(
            lambda step: connection.reconnect() if step.new.value == "ready" and connection.epoch == 1 else None
        )
        seen: list[tuple[int, bool]] = []
        started = connection.start().addCallback(lambda ready: seen.append((ready.epoch, ready.is_ready)))
        self.world.run(2)
        self.successResultOf(started)
        self.assertEqual(seen, [(2, True)])


class RecoverTests(WorldTestCase):
    """R9, peers 4: a lost connection comes back."""

    def test_every_way_to_lose_it(self) -> None:
        """Closed by an operator, cut, asked for: a new connection, members told."""
        broker = self.world.broker()
        connection = self.started()
        calls: list[str] = []
        connection.add_member(FakeMember("m", calls))
        for number, lose in enumerate(
            (
                lambda: broker.faults.close_connection(),
                lambda: broker.faults.cut(),
                lambda: connection.reconnect("test"),
            )
        ):
            with self.subTest(number=number):
                calls.clear()
                old = connection.protocol
                lose()
                self.world.run(0.05)
                if connection.protocol is old and old is not None:
                    self.noErrors(old.channel())  # a word, for faults that wait for one
                self.world.run(8)
                self.assertEqual((connection.state.value, connection.epoch), ("ready", number + 2))
                self.assertEqual(calls, ["lost m", "recover m"])
                self.assertIsNot(connection.protocol, old)

    def test_ready_only_with_all_members(self) -> None:
        """Members come back by their order, then their age; only then it is ready."""
        self.world.broker()
        connection = self.connection()
        calls: list[str] = []
        held: Deferred[None] = Deferred()
        publisher, late = FakeMember("publisher", calls, 20), FakeMember("late", calls, 10)
        channel, topology = FakeMember("channel", calls, 10), FakeMember("topology", calls, 0)
        channel.next = [held]
        for member in (publisher, channel, topology):
            connection.add_member(member)
        started = connection.start()
        self.world.run(1)
        self.assertEqual(calls, ["recover topology", "recover channel"])
        self.assertEqual((connection.state.value, connection.protocol), ("recovering", None))
        connection.add_member(late)
        held.callback(None)
        self.world.run(0.1)
        self.assertEqual(calls[2:], ["recover late", "recover publisher"])
        self.assertIs(self.successResultOf(started), connection)

    def test_member_that_fails(self) -> None:
        """R10: it is reported and skipped; nobody else is hurt, and nothing is repeated."""
        self.world.broker()
        connection = self.connection()
        calls: list[str] = []
        events: list[RecoveryEvent] = []
        connection.add_event_callback(events.append)
        bad, good = FakeMember("bad", calls), FakeMember("good", calls)
        bad.next = [PreconditionFailed("inequivalent arg")]
        connection.add_member(bad)
        connection.add_member(good)
        self.noErrors(connection.start())
        self.world.run(5)
        self.assertEqual(calls, ["recover bad", "recover good"])
        self.assertEqual(connection.state.value, "ready")
        self.assertEqual([(event.kind, type(event.error)) for event in events], [("member failed", PreconditionFailed)])

    def test_members_come_back_together(self) -> None:
        """R9: equal ones do not wait for each other, so recovery does not take longer the more there are."""
        self.world.broker()
        connection = self.connection()
        calls: list[str] = []
        members = [FakeMember(str(n), calls) for n in range(120)]
        held: list[Deferred[None]] = [Deferred() for _ in members]
        for member, waiting in zip(members, held, strict=True):
            member.next = [waiting]
            connection.add_member(member)
        started = connection.start()
        self.world.run(1)
        self.assertEqual(calls, [f"recover {n}" for n in range(100)])
        held[50].errback(PreconditionFailed("inequivalent arg"))
        for number in (*range(50), *range(51, 100)):
            held[number].callback(None)
        self.assertEqual(calls[100:], [f"recover {n}" for n in range(100, 120)])
        self.assertNoResult(started)
        for waiting in held[100:]:
            waiting.callback(None)
        self.world.run(0)
        self.assertIs(self.successResultOf(started), connection)

    def test_second_fault_at_every_step(self) -> None:
        """R9, F15: the connection goes while member k recovers; the next one brings all back."""
        broker = self.world.broker()
        for k in range(3):
            for how in ("cut", "error"):
                with self.subTest(k=k, how=how):
                    connection = self.started()
                    calls: list[str] = []
                    members = [FakeMember(str(n), calls) for n in range(3)]
                    for member in members:
                        connection.add_member(member)
                    hanging: Deferred[None] = Deferred()
                    members[k].next = [hanging if how == "cut" else ConnectionForced("going down")]
                    connection.reconnect()
                    self.world.run(0.6)
                    if how == "cut":
                        members[k].protocols[-1].abort()
                        self.world.run(0.1)
                        self.assertTrue(hanging.called, "it is cancelled")
                    self.world.run(3)
                    self.assertEqual(connection.state.value, "ready")
                    half = [f"recover {n}" for n in range(3 if how == "cut" else k + 1)]
                    lost, whole = [f"lost {n}" for n in range(3)], [f"recover {n}" for n in range(3)]
                    self.assertEqual(calls, lost + half + lost + whole)
                    connection.close()
                    self.world.run(1)
                    self.assertEqual(broker.connections, [])

    def test_connection_that_ends_beneath_a_member(self) -> None:
        """R9: a member that does not notice that the connection has ended: recovery does, and begins again."""
        self.world.broker()
        connection = self.connection()
        calls: list[str] = []

        class Blind(FakeMember):
            def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
                if not self.protocols:
                    protocol.abort()
                return super().recover(protocol)

        connection.add_member(Blind("blind", calls))
        connection.add_member(FakeMember("other", calls))
        self.noErrors(connection.start())
        self.world.run(3)
        again = ["lost blind", "lost other", "recover blind", "recover other"]
        self.assertEqual((connection.state.value, calls), ("ready", ["recover blind", *again]))

    def test_recovery_is_limited(self) -> None:
        """A member that never ends costs `recovery_timeout`; then the connection is dropped and the next tried."""
        broker = self.world.broker()
        connection = self.connection(recovery_timeout=4)
        member = FakeMember("m", [])
        member.next = [Deferred()]
        connection.add_member(member)
        started = connection.start()
        self.world.run(3.9)
        self.assertNoResult(started)
        self.world.run(1)
        self.assertIs(self.successResultOf(started), connection)
        self.assertIsInstance(connection.last_error, HandshakeTimeout)
        self.assertEqual((len(broker.connections), len(self.world.attempts)), (1, 2))

    def test_member_added_or_removed(self) -> None:
        """One that was removed hears nothing more; one added twice is there once."""
        self.world.broker()
        connection = self.started()
        calls: list[str] = []
        stays, goes = FakeMember("stays", calls), FakeMember("goes", calls)
        for member in (stays, goes, stays):
            connection.add_member(member)
        connection.remove_member(goes)
        connection.remove_member(goes)
        connection.reconnect()
        self.world.run(2)
        self.assertEqual(calls, ["lost stays", "recover stays"])

    def test_backoff_starts_anew_after_a_stable_time(self) -> None:
        """R12: a connection that does not last does not reset the back-off; a stable one does."""
        self.world.broker()
        connection = self.started()

        def wait_of_next() -> float:
            self.steps.clear()
            connection.reconnect()
            self.world.run(0.01, 0.01)
            delay = next(step.delay for step in self.steps if step.new.value == "lost")
            assert delay is not None
            self.world.run(delay + 0.1)
            self.assertEqual(connection.state.value, "ready")
            return delay

        self.assertEqual([wait_of_next() for _ in range(5)], [0.5, 1, 2, 4, 8])
        self.world.run(29)
        self.assertEqual(wait_of_next(), 16)
        self.world.run(30)
        self.assertEqual([wait_of_next() for _ in range(2)], [0.5, 1])

    def test_restart_is_noticed_soon(self) -> None:
        """A broker that comes up again within half a minute is found within 1.5 s, with the default policy."""
        for seed in range(5):
            broker = self.world.broker()
            connection = self.started(backoff=Backoff(random=random.Random(seed).random))
            self.world.hosts["a"] = REFUSES
            broker.stop()
            self.world.run(12)
            self.world.broker()
            self.world.run(1.6)
            self.assertEqual(connection.state.value, "ready")

    def test_blocked(self) -> None:
        """R16: blocked is a state of its own; reconnect() and loss work in it."""
        broker = self.world.broker()
        connection = self.started()
        assert connection.protocol is not None
        broker.faults.block()
        channel = connection.protocol.channel()
        self.world.run(0.1)
        self.successResultOf(channel).basic_publish("", "q", b"")
        self.world.run(0.1)
        self.assertEqual((connection.state.value, connection.is_blocked, connection.is_ready), ("blocked", True, True))
        self.assertIn("memory", str(self.steps[-1].reason))
        broker.faults.unblock()
        self.world.run(0.1)
        self.assertEqual((connection.state.value, connection.is_blocked), ("ready", False))
        broker.faults.block()
        self.world.run(0.1)
        connection.reconnect()
        self.world.run(1)
        self.assertEqual(self.states()[-4:-1], ["lost", "connecting", "recovering"])
        broker.faults.unblock()

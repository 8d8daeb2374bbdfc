"""The limits of an outage, on changes of state that the test makes up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.service.logs import Logged
from txmsg import errors
from txmsg.amqp import RecoveryEvent, RecoveryState, StateChange
from txmsg.service.config import ConsumerConfig
from txmsg.service.watch import ConnectionWatch

REFUSED = errors.AuthenticationFailed("refused", 403, initiator="server")
LOST = errors.ConnectionLost()


class FakeConnection:
    """What a watch needs of a connection."""

    def __init__(self) -> None:
        self.is_ready = False
        self.hosts = ["a:5672", "b:5672"]
        self.last_error: BaseException | None = None
        self.change: Callable[[StateChange], object] = print
        self.happen: Callable[[RecoveryEvent], object] = print

    def add_state_callback(self, callback: Callable[[StateChange], object]) -> None:
        self.change = callback

    def add_event_callback(self, callback: Callable[[RecoveryEvent], object]) -> None:
        self.happen = callback


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.logged = Logged(self)
        self.clock = Clock()
        self.connection: Any = FakeConnection()
        self.given_up: list[BaseException] = []

    def make(self, *, has_started: bool = True, **config: Any) -> ConnectionWatch:
        watch = ConnectionWatch(
            self.connection,
            ConsumerConfig(queue="work", handler="a:b", **config),
            what="the connection",
            addresses={"a:5672": "amqp://bob:***@a:5672/v"},
            clock=self.clock,
            on_give_up=self.given_up.append,
        )
        watch.begin()
        if has_started:
            self.ready()
            watch.started()
        return watch

    def enter(self, new: RecoveryState, reason: Any = None, delay: float | None = None, host: str = "a:5672") -> None:
        old = RecoveryState.READY if self.connection.is_ready else RecoveryState.CONNECTING
        self.connection.is_ready = new is RecoveryState.READY
        if isinstance(reason, BaseException):
            self.connection.last_error = reason
        self.connection.change(StateChange(old, new, reason, 1, host, self.clock.seconds(), delay))

    def ready(self) -> None:
        self.enter(RecoveryState.READY)

    def lost(self, reason: BaseException = LOST, delay: float = 1.0) -> None:
        self.enter(RecoveryState.LOST, reason, delay)

    def test_a_refusal_must_last(self) -> None:
        """R12: what is no refusal in between begins the count anew."""
        self.make(refused_limit=100.0)
        self.lost()
        for reasons in ([REFUSED] * 3, [LOST], [REFUSED] * 3):
            for reason in reasons:
                self.clock.advance(30)
                self.lost(reason)
        self.assertEqual(self.given_up, [])
        for _ in range(2):
            self.clock.advance(30)
            self.lost(REFUSED)
        self.assertEqual(self.given_up, [REFUSED])

    def test_a_connection_ends_the_count(self) -> None:
        """Also one that is then ended by what counts as a refusal."""
        self.make(refused_limit=100.0)
        self.lost()
        self.lost(REFUSED)
        self.clock.advance(90)
        self.ready()
        self.lost(REFUSED)
        self.clock.advance(90)
        self.lost(REFUSED)
        self.assertEqual(self.given_up, [])
        self.clock.advance(20)
        self.lost(REFUSED)
        self.assertEqual(self.given_up, [REFUSED])

    def test_each_host_has_its_turn(self) -> None:
        """R11: without a wait the round goes on."""
        self.make(has_started=False, start_limit=0.0)
        self.lost(REFUSED, 0.0)
        self.assertEqual(self.given_up, [])
        self.lost(LOST, 1.0)
        self.assertEqual(self.given_up, [LOST])

    def test_it_gives_up_once(self) -> None:
        """And not after it was told to stop."""
        self.make(recovery_limit=10.0, refused_limit=0.0)
        self.lost()
        self.lost(REFUSED)
        self.clock.advance(20)
        self.lost(REFUSED)
        self.assertEqual(self.given_up, [REFUSED])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.given_up.clear()
        self.make(recovery_limit=10.0).stop_limiting()
        self.lost()
        self.clock.advance(20)
        self.assertEqual((self.given_up, self.clock.getDelayedCalls()), ([], []))

    def test_started_during_an_outage(self) -> None:
        """The outage that began in the start goes on under the other limit."""
        watch = self.make(has_started=False, start_limit=50.0, recovery_limit=100.0)
        self.lost()
        watch.started()
        self.clock.advance(99)
        self.assertEqual(self.given_up, [])
        self.clock.advance(1)
        self.assertEqual(self.given_up, [LOST])

    def test_connected_but_not_consuming(self) -> None:
        self.make(has_started=False, start_limit=50.0)
        self.ready()
        self.clock.advance(50)
        self.assertIn("not consuming within 50 s", str(self.given_up[0]))

    def test_the_lines(self) -> None:
        """One for each change of state; peers' texts are clipped; errors of events are in the log by the connection."""
        self.make()
        self.enter(RecoveryState.LOST, errors.ConnectionForced("by\nan \x1b[31m operator" + "x" * 1000), 2.0)
        self.enter(RecoveryState.READY, host="a:5672 (192.0.2.1)")
        self.enter(RecoveryState.READY, host="b:5672")
        self.connection.happen(RecoveryEvent("consumer resumed", "it"))
        self.connection.happen(RecoveryEvent("consumer failed", "it", LOST))
        first, lost, address, other, event = self.logged.lines
        self.assertEqual(first, "connected to amqp://bob:***@a:5672/v")
        self.assertRegex(lost, r"^the connection to a:5672 is lost: by.*; next attempt in 2\.0 s$")
        self.assertLess(len(lost), 500)
        self.assertNotIn("\x1b", lost)
        self.assertEqual(address, "connected to amqp://bob:***@a:5672/v (192.0.2.1)")
        self.assertEqual(other, "connected to b:5672")
        self.assertEqual(event, "consumer resumed: it")

"""A server as a service that ends: its limits, its codes, its drain; on a clock."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from tests.service.fakes import ClockReactor
from txmsg.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionLost,
    NotFound,
    OperationalError,
    PreconditionFailed,
)
from txmsg.service.config import ConsumerConfig
from txmsg.service.exit_codes import Outcome
from txmsg.service.servers import ServerPlan
from txmsg.service.serving import ServerService


class FakeConnection:
    """Is connected when a test says so."""

    def __init__(self) -> None:
        self.connected = False
        self.is_closed = False
        self.outcomes: list[Any] = []
        self.callbacks: list[Any] = []

    def connect(self) -> Any:
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Deferred):
            return outcome
        if isinstance(outcome, Exception):
            return fail(outcome)
        self.connected = True
        return succeed(self)

    def add_recovery_callback(self, callback: Any) -> None:
        self.callbacks.append(callback)

    def remove_recovery_callback(self, callback: Any) -> None:
        self.callbacks.remove(callback)

    def tell(self, reason: BaseException | None, delay: float | None = None) -> None:
        self.connected = reason is None
        for callback in list(self.callbacks):
            callback(reason, delay)

    def close(self) -> Deferred[None]:
        self.is_closed = True
        return succeed(None)


class FakeServer:
    """Starts and stops as a test says."""

    def __init__(self, connection: FakeConnection) -> None:
        self.connection: Any = connection
        self.drain_timeout = 10.0
        self.close_timeout = 5.0
        self.unfinished = 0
        self.is_consuming = False
        self.outcomes: list[Any] = []
        self.stopping: Deferred[None] = Deferred()
        self.stops = self.stops_now = self.starts = 0

    def start(self) -> Deferred[None]:
        self.starts += 1
        outcome = self.outcomes.pop(0) if self.outcomes else None
        if isinstance(outcome, Deferred):
            return outcome
        self.is_consuming = outcome is None
        return succeed(None) if outcome is None else fail(outcome)

    def stop(self) -> Deferred[None]:
        self.stops += 1
        return self.stopping

    def stop_now(self) -> None:
        self.stops_now += 1


class ServingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = ClockReactor()
        self.connection = FakeConnection()
        self.server = FakeServer(self.connection)
        self.ended: list[Outcome] = []

    def service(self, **settings: Any) -> ServerService:
        plan = ServerPlan(
            what="RPC server",
            name="shop:server",
            server=self.server,
            describes="total at queue 'prices'",
            connection=self.connection,  # type: ignore[arg-type]
        )
        service = ServerService(plan, ConsumerConfig(rpc=("shop:server",), **settings), reactor=self.clock)
        service.when_finished().addCallback(self.ended.append)
        return service

    def started(self, **settings: Any) -> ServerService:
        service = self.service(**settings)
        service.startService()
        return service

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds * 2)):
            self.clock.advance(0.5)

    def outcome(self) -> Outcome:
        self.server.stopping.callback(None)
        (outcome,) = self.ended
        self.assertNotIn("\n", outcome.line)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.connection.callbacks, [])
        return outcome

    def test_from_start_to_stop(self) -> None:
        """Issue 7, R30: it serves, drains for as long as the service says, and ends once, with 0."""
        service = self.started(drain=42.0)
        self.assertTrue(service.is_consuming)
        self.pass_time(5)
        self.assertEqual(self.ended, [])
        stopped = service.stopService()
        self.assertEqual((self.server.stops, self.server.drain_timeout, self.ended), (1, 42.0, []))
        self.assertFalse(service.is_consuming)
        self.assertEqual(self.outcome().exit_code, 0)
        self.assertEqual(self.successResultOf(stopped).exit_code, 0)
        self.assertTrue(self.connection.is_closed)
        self.assertEqual(self.successResultOf(service.when_finished()).exit_code, 0)
        self.successResultOf(service.stopService())
        self.assertEqual(self.server.stops, 1)

    def test_stopped_before_it_began(self) -> None:
        service = self.service()
        self.assertEqual(self.successResultOf(service.stopService()).exit_code, 0)

    def test_stopped_while_it_starts(self) -> None:
        """A signal does not wait for a broker."""
        for where in (self.connection, self.server):
            with self.subTest(type(where).__name__):
                self.setUp()
                owner: Any = self.connection if isinstance(where, FakeConnection) else self.server
                owner.outcomes.append(Deferred())
                service = self.started()
                service.stopService()
                self.assertEqual(self.outcome().exit_code, 0)

    def test_not_finished_in_time(self) -> None:
        """R22: the code says that something went back."""
        service = self.started()
        service.stopService()
        service.stop_now()
        self.assertEqual(self.server.stops_now, 1)
        self.server.unfinished = 3
        outcome = self.outcome()
        self.assertEqual((outcome.exit_code, outcome.unfinished), (75, 3))
        self.assertIn("3 of the RPC server shop:server did not finish in time", outcome.line)
        self.flushLoggedErrors()

    def test_stop_now_without_a_stop(self) -> None:
        self.started().stop_now()
        self.assertEqual(self.server.stops_now, 0)

    def test_the_broker_is_late(self) -> None:
        """It may be started before its broker."""
        self.connection.outcomes += [ConnectFailed("refused"), ConnectFailed("refused")]
        service = self.started()
        self.pass_time(4)
        self.assertTrue(service.is_consuming)

    def test_the_node_of_the_queue_is_late(self) -> None:
        self.server.outcomes.append(NotFound("home node 'a' of durable queue 'q' is down or inaccessible", 404))
        service = self.started()
        self.pass_time(2)
        self.assertTrue(service.is_consuming)

    def test_no_broker_within_the_limit(self) -> None:
        """start_limit; 0 is one attempt."""
        for limit, attempts in ((20.0, 3), (0.0, 1)):
            with self.subTest(limit=limit):
                self.setUp()
                self.connection.outcomes += [ConnectFailed("refused")] * 50
                self.started(start_limit=limit)
                self.pass_time(limit)
                self.assertEqual(self.server.stops, 1)
                self.assertGreaterEqual(50 - len(self.connection.outcomes), attempts)
                outcome = self.outcome()
                self.assertEqual(outcome.exit_code, 14)
                self.assertIn("cannot connect: refused; check the host and port", outcome.line)

    def test_an_answer_that_does_not_come(self) -> None:
        """A call never hangs, and neither does a start."""
        self.server.outcomes.append(Deferred())
        self.started(start_limit=20.0)
        self.pass_time(20)
        outcome = self.outcome()
        self.assertEqual(outcome.exit_code, 14)
        self.assertIn("not serving within 20 s", outcome.line)

    def test_what_another_attempt_cannot_cure(self) -> None:
        """R12, R33: each with its code, at once."""
        for owner, error, code, said in (
            ("connection", AuthenticationFailed("refused"), 17, "check the user name and password"),
            ("server", PreconditionFailed("inequivalent arg 'durable'", 406), 10, "give the server a Queue"),
            ("server", NotFound("no exchange 'x'", 404), 10, "see the broker's log"),
            ("server", OperationalError("gave up", ConnectFailed("refused")), 14, "cannot connect: refused"),
            ("server", ZeroDivisionError("oops"), 11, "ZeroDivisionError: oops; see the traceback in the log"),
        ):
            with self.subTest(error):
                self.setUp()
                getattr(self, owner).outcomes.append(error)
                # To give up after many attempts is the connection's word: it counts as one.
                self.started(start_limit=0.0 if isinstance(error, OperationalError) else 60.0)
                outcome = self.outcome()
                self.assertEqual(outcome.exit_code, code)
                self.assertIn("the RPC server shop:server cannot ", outcome.line)
                self.assertIn(said, outcome.line)

    def test_a_refusal_that_is_borne(self) -> None:
        """refused_limit, at the start."""
        self.connection.outcomes += [AuthenticationFailed("refused")] * 3
        service = self.started(refused_limit=30.0)
        self.pass_time(10)
        self.assertTrue(service.is_consuming)

    def test_an_outage(self) -> None:
        """recovery_limit: it is borne for so long, and counted anew each time."""
        service = self.started(recovery_limit=10.0)
        for _ in range(3):
            self.connection.tell(ConnectionLost("gone"))
            self.pass_time(8)
            self.assertFalse(service.is_consuming)
            self.connection.tell(None)
            self.pass_time(3)
            self.assertTrue(service.is_consuming)
        self.connection.tell(ConnectionLost("gone"))
        self.pass_time(12)
        outcome = self.outcome()
        self.assertEqual(outcome.exit_code, 14)
        self.assertIn("has ended: gone", outcome.line)

    def test_an_outage_without_a_limit(self) -> None:
        self.started()
        self.connection.tell(ConnectionLost("gone"))
        self.pass_time(4000)
        self.assertEqual(self.server.stops, 0)

    def test_refused_later(self) -> None:
        """refused_limit is 300 s later; not while other hosts of the round are left."""
        self.started()
        self.connection.tell(AuthenticationFailed("refused"), 1.0)
        self.pass_time(299)
        self.connection.tell(AuthenticationFailed("refused"), 1.0)
        self.pass_time(2)
        self.connection.tell(AuthenticationFailed("refused"), None)
        self.assertEqual(self.server.stops, 0)
        self.connection.tell(AuthenticationFailed("refused"), 1.0)
        self.assertEqual(self.outcome().exit_code, 17)

    def test_refused_and_let_in_again(self) -> None:
        """refused_limit is counted anew."""
        self.started(refused_limit=10.0)
        self.connection.tell(AuthenticationFailed("refused"), 1.0)
        self.connection.tell(None)
        self.pass_time(20)
        self.connection.tell(AuthenticationFailed("refused"), 1.0)
        self.assertEqual(self.server.stops, 0)

    def test_a_queue_that_is_gone(self) -> None:
        """R25: it never goes on without requests that can come; resubscribe_limit."""
        self.started(resubscribe_limit=10.0)
        self.server.is_consuming = False
        self.pass_time(8)
        self.server.is_consuming = True
        self.pass_time(2)
        self.server.is_consuming = False
        self.pass_time(9)
        self.assertEqual(self.server.stops, 0)
        self.pass_time(4)
        outcome = self.outcome()
        self.assertEqual(outcome.exit_code, 12)
        self.assertIn("could not consume again for 10 s", outcome.line)

    def test_a_connection_that_somebody_closed(self) -> None:
        self.started()
        self.connection.is_closed = True
        self.connection.connected = False
        self.pass_time(2)
        self.assertEqual(self.outcome().exit_code, 14)

    def test_a_stop_that_breaks(self) -> None:
        """R30: it ends nevertheless."""
        self.started().stopService()
        self.server.stopping.errback(RuntimeError("broken"))
        self.assertEqual(len(self.ended), 1)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_the_limit_of_a_stop(self) -> None:
        self.assertEqual(self.service(drain=42.0).stop_limit, 67.0)

"""The state made visible: events, history, iterator; and no secret in any of it."""

from __future__ import annotations

from typing import cast

from twisted.internet.defer import Deferred
from twisted.logger import ILogObserver, LogEvent, eventAsText, globalLogPublisher
from twisted.python.failure import Failure
from zope.interface import provider

from tests.amqp.recovery.world import WorldTestCase
from txmsg.amqp import RecoveryEvent
from txmsg.errors import (
    TxmsgError,
)


class EventTests(WorldTestCase):
    """What the application is told."""

    def test_iterator(self) -> None:
        """events() gives each event, and ends after the last."""
        self.world.broker()
        connection = self.connection()
        seen: list[str] = []

        async def read() -> None:
            async for event in connection.events():
                seen.append(event.new.value if not isinstance(event, RecoveryEvent) else event.kind)

        reading = Deferred.fromCoroutine(read())
        self.noErrors(connection.start())
        self.world.run(1)
        connection.report(RecoveryEvent("queue renamed", "q"))
        connection.close()
        self.world.run(1)
        self.successResultOf(reading)
        self.assertEqual(seen, ["connecting", "recovering", "ready", "queue renamed", "closing", "closed"])
        late = Deferred.fromCoroutine(read())
        self.successResultOf(late)

    def test_iterator_that_is_not_read(self) -> None:
        """The newest hundred events are kept; cancelling the wait for one does no harm."""
        connection = self.connection()
        events = connection.events()

        async def one() -> object:
            return await events.__anext__()

        waiting = Deferred.fromCoroutine(one())
        waiting.cancel()
        self.failureResultOf(waiting)
        for number in range(150):
            connection.report(RecoveryEvent("queue renamed", str(number)))
        first = self.successResultOf(Deferred.fromCoroutine(one()))
        assert isinstance(first, RecoveryEvent)
        self.assertEqual((first.subject, len(connection.history)), ("50", 100))

    def test_order_of_events(self) -> None:
        """A callback that makes something happen does not turn the order round for those after it."""
        self.world.broker()
        connection = self.connection()
        seen: list[str] = []
        connection.add_state_callback(lambda step: connection.close() if step.new.value == "ready" else None)
        connection.add_state_callback(lambda step: seen.append(step.new.value))
        self.noErrors(connection.start())
        self.world.run(1)
        self.assertEqual(seen, ["connecting", "recovering", "ready", "closing", "closed"])

    def test_callback_that_raises(self) -> None:
        """It is logged, and changes nothing."""
        self.world.broker()
        connection = self.connection()

        def bad(change: object) -> None:
            raise ZeroDivisionError

        connection.add_state_callback(bad)
        self.noErrors(connection.start())
        self.world.run(1)
        self.assertEqual(connection.state.value, "ready")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 3)
        connection.remove_state_callback(bad)

    def test_no_secret_anywhere(self) -> None:
        """C3.1: not in events, repr, errors, tracebacks, or in what ClientService logs; hosts are shown."""
        canary = "c4nary-s3cret"
        logged: list[str] = []

        @provider(ILogObserver)
        def observe(event: LogEvent) -> None:
            logged.append(eventAsText(event) + repr(event))

        observer = cast(ILogObserver, observe)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.world.broker()
        connection = self.connection(
            f"amqp://guest:{canary}@a;amqp://guest:{canary}@nobody", credentials=None, max_attempts=2, name="worker"
        )
        started = connection.start()
        self.world.run(200)
        failure: Failure = self.failureResultOf(started)
        shown = [repr(connection), repr(connection.history), repr(connection.hosts), str(failure.value), *logged]
        shown += [failure.getTraceback(detail="verbose"), repr(vars(connection))]
        self.assertNotIn(canary, "\n".join(shown))
        self.assertIn("Scheduling retry 1 to connect <AMQP a:5672> in", "\n".join(logged))
        self.assertIn("'worker' closed nobody:5672", repr(connection))

    def test_errors_keep_nothing_alive(self) -> None:
        """R31: neither the history nor `last_error` holds frames, and so protocols."""
        broker = self.world.broker()
        connection = self.started()
        broker.faults.refuse(2)
        connection.reconnect()
        self.world.run(5)
        errors = [connection.last_error, *(getattr(event, "reason", None) for event in connection.history)]
        found = [error for error in errors if isinstance(error, TxmsgError)]
        self.assertGreaterEqual(len(found), 3)
        for error in found:
            each: BaseException | None = error
            while each is not None:
                self.assertIsNone(each.__traceback__)
                each = each.__cause__ or each.__context__

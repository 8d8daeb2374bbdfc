"""ConsumerWatch, in a worker: losses, what comes back, and starting again."""

from __future__ import annotations

from typing import Any

from tests.messaging.connection.scripted_transport import ScriptedConnection, ScriptedRecovering
from tests.messaging.workers.workers import START, MixinCase, Worker
from txmsg.errors import AuthenticationFailed, ConnectionLost, OperationalError
from txmsg.messaging.limits import TokenBucket


class RestartTests(MixinCase):
    """kombu N2, N6, N12, N15, AD9."""

    def test_a_loss_where_nothing_comes_back(self) -> None:
        """kombu N2: all is made anew, not more often than restart_limit has it; failed attempts are told (N6)."""
        first, second = ScriptedConnection(), ScriptedConnection()
        worker = self.start(Worker(self.scripted(first, ConnectionLost("x"), ConnectionLost("y"), second)))
        self.assertEqual(worker.calls, START)
        first.lose(ConnectionLost("gone"))
        self.turn(0.5)
        self.assertEqual(worker.calls[3:], [("end", False)])
        self.turn(0.6)
        self.assertEqual(worker.calls[4:], [("ConnectionLost", 2.0)])
        self.turn(2.0)
        self.assertEqual(worker.calls[5:], [("ConnectionLost", 4.0)])
        self.turn(4.0)
        self.assertEqual(worker.calls[6:], START)
        self.assertEqual(len(self.script.made), 2)

    def test_a_loss_that_the_transport_recovers_from(self) -> None:
        """kombu N6, N7, N8: the consumers stay; each failed attempt, and the return, are told."""
        connection = ScriptedRecovering()
        worker = self.start(Worker(self.scripted(connection)))
        connection.away(ConnectionLost("gone"), 0.5)
        self.assertEqual(worker.calls, START)
        connection.away(ConnectionLost("still"), 1.5)
        connection.away(ConnectionLost("still"), 3.0)
        connection.back()
        self.turn(5)
        self.assertEqual(
            worker.calls[3:],
            [("ConnectionLost", 1.5), ("ConnectionLost", 3.0), "revived", ("ready", 1, {})],
        )
        connection.away(ConnectionLost("again"), 0.5)
        connection.back()
        self.turn(1)
        self.assertEqual(worker.calls[7:], ["revived", ("ready", 1, {})])
        self.assertEqual(len(self.script.made), 1)

    def test_what_a_hook_raises_after_a_loss(self) -> None:
        """It ends the worker, as it does before one."""

        class Broken(Worker):
            def on_consume_ready(self, *args: Any, **kwargs: Any) -> Any:
                super().on_consume_ready(*args, **kwargs)
                if self.calls.count("revived") == 2:
                    raise ZeroDivisionError

        connection = ScriptedRecovering()
        self.start(Broken(self.scripted(connection)))
        connection.away(ConnectionLost("gone"), 0.5)
        connection.back()
        self.turn(1)
        self.failureResultOf(self.running, ZeroDivisionError)
        self.worker.should_stop = True

    def test_a_recovering_connection_that_ends(self) -> None:
        """For good: it is made anew."""
        connection = ScriptedRecovering()
        worker = self.start(Worker(self.scripted(connection)))
        connection.lose(ConnectionLost("for good"))
        self.turn(1.1)
        self.assertEqual(worker.calls[3:], [("end", False), *START])

    def test_errors_of_channels(self) -> None:
        """kombu AD9: a queue that is another now; again and again, once a second, until it fits."""
        self.done(self.channel.queue_declare("work", auto_delete=True))
        worker = self.start()
        for _ in range(3):
            self.turn(1.001)
        self.assertEqual(worker.calls.count("get_consumers"), 4)
        self.assertEqual(worker.calls.count(("ready", 1, {})), 0)
        self.done(self.channel.queue_delete("work"))
        self.turn(1.001)
        self.assertEqual(worker.calls[-1], ("ready", 1, {}))

    def test_a_consumer_that_the_broker_ended(self) -> None:
        """kombu N2: its queue was deleted; it is declared and consumed again."""
        worker = self.start()
        self.done(self.channel.queue_delete("work"))
        self.turn(1.1)
        self.assertEqual(worker.calls[3:], [("end", True), *START])
        self.send("work", b"1")
        self.assertEqual(worker.bodies, [1])

    def test_a_consumer_that_the_worker_cancels(self) -> None:
        """Is no reason to start again."""

        class Once(Worker):
            async def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **kwargs: Any) -> None:
                self.calls.append("ready")
                await consumers[0].cancel()

        worker = self.start(Once(self.connection))
        self.turn(3)
        self.assertEqual(worker.calls.count("ready"), 1)

    def test_what_no_restart_can_cure(self) -> None:
        """A refused login ends it at once; kombu N12: and so does having tried often enough."""
        worker = self.start(Worker(self.scripted(AuthenticationFailed("no", 403))))
        self.failureResultOf(self.running, AuthenticationFailed)
        worker.should_stop = True
        worker = Worker(self.scripted(*[ConnectionLost("x")] * 9))
        worker.connect_max_retries = 2
        self.start(worker)
        self.turn(2)
        self.turn(4)
        self.failureResultOf(self.running, OperationalError)
        self.assertEqual(len(self.script.attempts), 3)
        self.assertIsInstance(self.successResultOf(worker.when_finished()), OperationalError)
        worker.should_stop = True

    def test_the_restart_limit(self) -> None:
        """kombu N15: a subclass may have its own; `_tokens` is what each start takes."""
        worker = Worker(self.connection)
        worker.restart_limit = TokenBucket(1, capacity=3, clock=self.clock)
        self.done(self.channel.queue_declare("work", auto_delete=True))
        self.start(worker)
        self.assertEqual(worker.calls.count("get_consumers"), 3)
        self.stop()
        other = Worker(self.connect())
        other.restart_limit = TokenBucket(1, capacity=3, clock=self.clock)
        self.start(other, _tokens=3)
        self.assertEqual(other.calls.count("get_consumers"), 1)
        self.done(self.channel.queue_delete("work"))

    def test_handlers_of_a_lost_connection(self) -> None:
        """R30: they go on, and a stop waits for them; what they settle then is stale, and harms nobody."""
        worker = Worker(self.connection)
        worker.is_slow = True
        self.start(worker)
        self.send("work", b"1")
        self.cut()
        self.turn(1.1)
        self.assertEqual(worker.bodies, [1, 1])
        worker.should_stop = True
        worker.results[1].callback(None)
        self.turn()
        self.assertNoResult(self.running)
        worker.results[0].callback(None)
        self.turn()
        self.successResultOf(self.running)
        self.flushLoggedErrors()
        self.connection = self.connect()
        self.channel = self.done(self.connection.channel())
        self.assertEqual(self.depth("work"), (0, 0))

"""ConsumerMixin and ConsumerProducerMixin: the hooks, the loop, its restarts and its end."""

from __future__ import annotations

import warnings
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any
from unittest import mock

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from zope.interface.verify import verifyObject

from tests.messaging.connection.scripted_transport import ScriptedRecovering
from tests.messaging.workers.workers import START, MixinCase, Worker
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectionLost,
    OperationTimeout,
)
from txmsg.messaging import Consumer, ConsumerMixin, ConsumerProducerMixin, Queue


class HookTests(MixinCase):
    """kombu N1 to N11."""

    def test_the_order_of_the_hooks(self) -> None:
        """kombu N1, N7, N8, N9: and the connection is a clone, which is closed at the end."""
        worker = self.start(colour="red")
        self.assertEqual(worker.calls, ["revived", "get_consumers", ("ready", 1, {"colour": "red"})])
        self.send("work", b"1", b"2")
        self.assertEqual((worker.bodies, self.depth("work")), ([1, 2], (0, 0)))
        self.assertTrue(self.connection.connected)
        self.stop()
        self.assertEqual(worker.calls[3:], [("end", True)])
        self.assertEqual(len([each for each in self.transport._connections if each.is_open]), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_hooks_that_take_their_time(self) -> None:
        """Each may return a Deferred or be a coroutine, and is waited for."""
        wait: dict[str, Deferred[Any]] = {}
        order: list[str] = []

        class Slow(Worker):
            def _slow(self, name: str, result: Any = None) -> Deferred[Any]:
                order.append(name)
                wait[name] = Deferred()
                return wait[name].addCallback(lambda _: result)

            async def on_connection_revived(self) -> None:
                await self._slow("revived")

            def get_consumers(self, Consumer: Any, channel: Any) -> Any:
                return self._slow("consumers", super().get_consumers(Consumer, channel))

            def extra_context(self, connection: Any, channel: Any) -> Any:
                return self._slow("context")

            async def on_consume_ready(self, connection: Any, channel: Any, consumers: Any, **kwargs: Any) -> None:
                await self._slow("ready")

            def on_iteration(self) -> Any:
                return self._slow("iteration")

            async def on_consume_end(self, connection: Any, channel: Any) -> None:
                await self._slow("end")

        self.start(Slow(self.connection))
        for count, name in enumerate(["revived", "consumers", "context", "ready", "iteration"], 1):
            self.assertEqual(order[-1:], [name])
            self.assertEqual(len(order), count)
            wait[name].callback(None)
            self.turn()
        self.worker.should_stop = True
        self.turn()
        self.assertNoResult(self.running)
        wait["end"].callback(None)
        self.turn()
        self.successResultOf(self.running)

    def test_extra_context(self) -> None:
        """kombu N5: of either kind; entered when the consumers are started, left before they are cancelled."""
        for make in (contextmanager, asynccontextmanager):
            events: list[Any] = []
            connection = self.connect()

            def synchronous(worker: Any, connection: Any, channel: Any, events: list[Any] = events) -> Any:
                events.append(list(worker.calls))
                yield
                events.append("left")

            async def asynchronous(worker: Any, connection: Any, channel: Any, events: list[Any] = events) -> Any:
                events.append(list(worker.calls))
                yield
                events.append("left")

            body: Any = synchronous if make is contextmanager else asynchronous
            worker = type("Extra", (Worker,), {"extra_context": make(body)})(connection)
            self.start(worker)
            self.assertEqual(events, [["revived", "get_consumers"]])
            self.stop()
            self.assertEqual(events[-1], "left")
            self.assertEqual(worker.calls[-1], ("end", True))

    def test_iterations(self) -> None:
        """kombu N10, AD7: once a second while nothing comes, and no more often."""
        worker = self.start()
        before = worker.iterations
        for _ in range(5):
            self.turn(1)
        self.assertEqual(worker.iterations, before + 5)
        self.assertLessEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_message_that_cannot_be_decoded(self) -> None:
        """kombu N11: logged, without its body, and acked; the next one flows."""
        self.start()
        self.send("work", b"c4n4ry{", content_type="application/json")
        self.send("work", b"1", content_type="application/x-python-serialize")
        self.send("work", b"7")
        self.assertEqual((self.worker.bodies, self.depth("work")), ([7], (0, 0)))

    def test_on_decode_error_of_a_subclass(self) -> None:
        """kombu N11: it is the subclass that settles then."""

        class Keeping(Worker):
            def on_decode_error(self, message: Any, exc: Exception) -> Any:
                self.calls.append(type(exc).__name__)
                message.requeue() if not message.redelivered else message.reject()

        worker = self.start(Keeping(self.connection))
        self.send("work", b"{", content_type="application/json")
        self.assertEqual(worker.calls[3:], ["DecodeError", "DecodeError"])
        self.assertEqual(self.depth("work"), (0, 0))

    def test_a_handler_that_fails(self) -> None:
        """kombu H9: is no decode error; it is logged, its message stays unsettled, and comes again after the stop."""

        class Failing(Worker):
            def handle(self, body: Any, message: Any) -> Any:
                raise ZeroDivisionError

        self.start(Failing(self.connection))
        self.send("work", b"1")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.depth("work"), (0, 1))
        self.stop()
        self.assertEqual(self.depth("work"), (1, 0))

    def test_several_channels(self) -> None:
        """kombu N1: get_consumers may make channels of its own."""

        class Two(Worker):
            async def get_consumers(self, Consumer: Any, channel: Any) -> Any:
                other = await channel.connection.channel()
                return [
                    Consumer(queues=[Queue("one")], callbacks=[self.handle]),
                    globals()["Consumer"](other, queues=[Queue("two")], callbacks=[self.handle], prefetch_count=1),
                ]

        worker = self.start(Two(self.connection))
        self.send("one", b"1")
        self.send("two", b"2")
        self.assertEqual(worker.bodies, [1, 2])
        self.assertEqual(worker.calls[-1], ("ready", 2, {}))

    def test_the_misspelt_hook(self) -> None:
        """CN20: defining it is a warning; the right one is none."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            type("Good", (ConsumerMixin,), {"on_consume_end": lambda self, connection, channel: None})
            self.assertEqual(caught, [])
            type("Bad", (ConsumerMixin,), {"on_consumer_end": lambda self, connection, channel: None})
        (warning,) = caught
        self.assertIs(warning.category, UserWarning)
        self.assertEqual(str(warning.message), "Bad.on_consumer_end is never called: the hook is on_consume_end")

    def test_what_is_missing(self) -> None:
        """CN21: no connection; no get_consumers: said by name."""
        failure = self.failureResultOf(Worker(None).run(), ConfigurationError)
        self.assertIn("Worker.connection is None", str(failure.value))
        bare = ConsumerMixin()
        bare.connection = self.connection
        running = bare.run()
        self.turn()
        self.failureResultOf(running, NotImplementedError)

    def test_tuples_of_errors(self) -> None:
        """kombu N16."""
        worker = Worker(self.connection)
        self.assertEqual(worker.connection_errors, self.connection.connection_errors)
        self.assertEqual(worker.channel_errors, self.connection.channel_errors)


class ConsumeTests(MixinCase):
    """kombu N3, N14: without the loop of `run`."""

    def collect(self, worker: Any, **limits: Any) -> Deferred[int]:
        async def collected() -> int:
            count = 0
            async with aclosing(worker.consume(**limits)) as turns:
                async for _ in turns:
                    count += 1
            return count

        return Deferred.fromCoroutine(collected())

    def test_the_limit(self) -> None:
        """kombu N3: counts messages."""
        worker = Worker(self.connection)
        counting = self.collect(worker, limit=3)
        self.turn()
        self.send("work", b"1", b"2")
        self.assertNoResult(counting)
        self.send("work", b"3")
        self.assertEqual(self.successResultOf(counting), 3)
        self.assertEqual(worker.calls[-1], ("end", True))

    def test_the_timeout(self) -> None:
        """kombu N3, AD8: seconds without a message, and not those with one; as long as was asked for."""
        worker = Worker(self.connection)
        counting = self.collect(worker, timeout=2.5)
        self.turn(2.4)
        self.send("work", b"1")
        self.turn(2.4)
        self.assertNoResult(counting)
        self.turn(0.11)
        self.failureResultOf(counting, OperationTimeout)
        self.assertEqual(worker.calls[-1], ("end", True))

    def test_the_safety_interval(self) -> None:
        """kombu N3, N10."""
        worker = Worker(self.connection)
        counting = self.collect(worker, limit=1, safety_interval=0.25)
        self.turn()
        before = worker.iterations
        for _ in range(4):
            self.turn(0.25)
        self.assertEqual(worker.iterations, before + 4)
        self.send("work", b"1")
        self.assertEqual(self.successResultOf(counting), 1)

    def test_the_contexts(self) -> None:
        """kombu N14: Consumer() starts the consumers; consumer_context() calls on_consume_ready, too."""
        worker = Worker(self.connection)

        async def used() -> None:
            async with worker.Consumer() as (connection, channel, consumers):
                assert consumers[0].is_consuming
                assert connection is not self.connection
                assert channel is connection.default_channel
                assert isinstance(consumers[0], Consumer)
            async with worker.consumer_context(a=1) as (connection, channel, consumers):
                assert worker.calls[-1] == ("ready", 1, {"a": 1})

        self.run_async(used())
        self.assertEqual(worker.calls[:3], ["revived", "get_consumers", ("end", True)])

    def test_establish_connection(self) -> None:
        """kombu N13: a clone, connected."""
        worker = Worker(self.connection)
        connection = self.done(worker.establish_connection())
        self.assertIsNot(connection, self.connection)
        self.assertTrue(connection.connected)
        self.assertFalse(worker.create_connection().connected)
        self.done(connection.close())


class StopTests(MixinCase):
    """kombu N4; R30."""

    def test_it_finishes_what_is_at_work(self) -> None:
        """Nothing more is taken; the connection is closed when the handlers have ended."""
        worker = Worker(self.connection)
        worker.is_slow = True
        self.start(worker)
        self.send("work", b"1", b"2")
        worker.should_stop = True
        self.turn()
        self.send("work", b"3")
        self.assertEqual((worker.bodies, self.depth("work")), ([1, 2], (1, 2)))
        self.assertNoResult(self.running)
        for result in worker.results:
            result.callback(None)
        self.turn()
        self.successResultOf(self.running)
        self.assertEqual(self.depth("work"), (1, 0))
        self.assertEqual(worker.calls[-1], ("end", True))

    def test_a_handler_that_does_not_end(self) -> None:
        """R30: within stop_timeout; its message goes back."""
        worker = Worker(self.connection)
        worker.is_slow, worker.stop_timeout = True, 5.0
        self.start(worker)
        self.send("work", b"1")
        worker.should_stop = True
        self.turn(4.9)
        self.assertNoResult(self.running)
        self.turn(0.2)
        self.successResultOf(self.running)
        self.assertEqual(self.depth("work"), (1, 0))

    def test_a_hook_that_does_not_end(self) -> None:
        """R30: stopService ends within stop_timeout and close_timeout, whatever hangs."""

        class Hanging(Worker):
            def on_consume_end(self, connection: Any, channel: Any) -> Any:
                return Deferred()

        worker = Hanging(self.connection)
        worker.stop_timeout, worker.close_timeout = 3.0, 2.0
        worker.startService()
        self.turn()
        stopping = worker.stopService()
        self.turn(4.9)
        self.assertNoResult(stopping)
        self.turn(0.2)
        self.successResultOf(stopping)
        self.assertEqual(len([each for each in self.transport._connections if each.is_open]), 1)

    def test_while_it_connects(self) -> None:
        """R29: at any time; nothing is left."""
        waiting: Deferred[Any] = Deferred()
        self.start(Worker(self.scripted(waiting)))
        self.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_it_waits_to_connect(self) -> None:
        """kombu N4."""
        self.start(Worker(self.scripted(*[ConnectionLost("x")] * 3)))
        self.turn(1)
        self.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_it_waits_for_a_restart(self) -> None:
        """kombu N4, N15."""
        self.done(self.channel.queue_declare("work", auto_delete=True))
        self.start()
        self.turn(0.2)
        self.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_while_it_begins_to_consume(self) -> None:
        """R30: nobody waits for a broker that does not answer."""
        worker = Worker(self.connection)
        with mock.patch.object(Consumer, "consume", lambda consumer: Deferred()):
            self.start(worker)
            self.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_during_an_outage(self) -> None:
        """R30: on a connection that would come back."""
        connection = ScriptedRecovering()
        self.start(Worker(self.scripted(connection)))
        connection.away(ConnectionLost("gone"), 0.5)
        self.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_cancelling_run(self) -> None:
        """Is a stop."""
        worker = self.start()
        self.running.cancel()
        self.turn()
        self.successResultOf(self.running)
        self.assertTrue(worker.should_stop)
        self.assertEqual(worker.calls[-1], ("end", True))

    def test_twice(self) -> None:
        """One worker runs once at a time, and again afterwards."""
        worker = self.start()
        self.failureResultOf(worker.run(), ConfigurationError)
        self.stop()
        worker.should_stop = False
        self.turn(1)
        self.start(worker)
        self.assertEqual(worker.calls[-3:], START)


class ServiceTests(MixinCase):
    """txmsg: a worker is an IService."""

    def test_below_a_parent(self) -> None:
        """startService runs it, stopService stops it, as often as one likes."""
        parent = MultiService()
        worker = Worker(self.connection)
        self.assertTrue(verifyObject(IService, worker))
        worker.setServiceParent(parent)
        for count in (1, 2):
            parent.startService()
            self.turn(1)
            self.assertEqual(worker.calls.count(("ready", 1, {})), count)
            finished = worker.when_finished()
            stopping = parent.stopService()
            self.turn()
            self.successResultOf(stopping)
            self.assertIsNone(self.successResultOf(finished))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped_and_started_at_once(self) -> None:
        """What ran ends, with its handlers, and then it runs again."""
        worker = Worker(self.connection)
        worker.is_slow = True
        worker.startService()
        self.turn()
        self.send("work", b"1")
        stopping = worker.stopService()
        worker.startService()
        self.turn(2)
        self.assertNoResult(stopping)
        worker.results[0].callback(None)
        self.turn(2)
        self.assertIsNone(self.successResultOf(stopping))
        self.send("work", b"2")
        self.assertEqual(worker.bodies, [1, 2])
        stopping = worker.stopService()
        worker.startService()
        worker.stopService()
        worker.results[1].callback(None)
        self.turn(2)
        self.assertIsNone(self.successResultOf(stopping))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_end_that_nobody_asked_for(self) -> None:
        """Is in the log, and when_finished has the reason."""
        worker = Worker(self.scripted(AuthenticationFailed("no", 403)))
        worker.startService()
        finished = worker.when_finished()
        self.turn()
        self.assertIsInstance(self.successResultOf(finished), AuthenticationFailed)
        self.assertEqual(len(self.flushLoggedErrors(AuthenticationFailed)), 1)
        self.assertIsNone(self.successResultOf(worker.stopService()))

    def test_stopped_before_it_ran(self) -> None:
        self.assertIsNone(self.successResultOf(Worker(self.connection).stopService()))


class ProducerTests(MixinCase):
    """kombu N17."""

    def test_answers(self) -> None:
        """On a connection of its own, which is made when it is needed and closed at the end."""

        class Answering(ConsumerProducerMixin, Worker):
            async def handle(self, body: Any, message: Any) -> None:
                await self.producer.publish({"twice": 2 * body}, routing_key="answers")
                message.ack()

        self.done(self.channel.queue_declare("answers"))
        worker = self.start(Answering(self.connection))
        self.assertIsNone(worker._producer_connection)
        self.send("work", b"21")
        self.turn()
        self.assertEqual((self.depth("answers"), self.depth("work")), ((1, 0), (0, 0)))
        producing = worker.producer_connection
        self.assertTrue(producing.connected)
        self.assertIs(worker.producer, worker.producer)
        self.stop()
        self.assertFalse(producing.connected)
        self.assertEqual(len([each for each in self.transport._connections if each.is_open]), 1)

    def test_an_override_that_forgets_it(self) -> None:
        """It is closed when run ends, all the same."""

        class Forgetful(ConsumerProducerMixin, Worker):
            def on_consume_end(self, connection: Any, channel: Any) -> Any:
                pass

        worker = self.start(Forgetful(self.connection))
        producing = worker.producer_connection
        self.done(producing.connect())
        self.stop()
        self.assertFalse(producing.connected)

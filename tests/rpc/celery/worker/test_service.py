"""CeleryWorker as a service: what it declares, bad messages, losses, and its end."""

from __future__ import annotations

import json
from typing import Any

from twisted.application.service import IService
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from zope.interface.verify import verifyObject

from tests.cases import ReactorTestCase
from tests.rpc.celery.worker.worker_case import START, WorkerCase
from txmsg.errors import ConfigurationError, PreconditionFailed
from txmsg.messaging import Consumer, Queue
from txmsg.rpc.celery.worker import CeleryWorker, Tasks
from txmsg.rpc.celery.worker.intake import Intake
from txmsg.rpc.celery.worker.outgoing import celery_queue

reactor: Any = installed_reactor

PLAIN: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}


class DeclaringTests(WorkerCase):
    """celery 4.1, and section 12, 13."""

    def test_the_queue_is_declared_as_celery_does_it(self) -> None:
        """Declaring it again just so is fine; it is durable, and bound to the direct exchange of its name."""
        self.work(queues=["celery", "images"])
        for name in ("celery", "images"):
            self.done(self.channel.queue_declare(name, durable=True))
            self.done(self.channel.exchange_declare(name, "direct", durable=True))
        self.tasks.task(name="t")(lambda: 1)
        self.done(self.channel.publish("images", "images", b"[[], {}, {}]", self.properties("t")))
        self.turn()
        self.assertEqual(self.states(), ["SUCCESS"])
        self.assertEqual(
            [queue for queue in self.transport.vhost(self.url).queues if queue == self.reply_to], [self.reply_to]
        )

    def properties(self, name: str) -> dict[str, Any]:
        """Of a small task."""
        return {**PLAIN, "headers": {"task": name, "id": "1"}, "reply_to": self.reply_to}

    def test_a_queue_of_another_kind(self) -> None:
        """Starting fails with what the broker says, and can be tried again."""
        self.done(self.channel.queue_declare("celery", durable=True, arguments={"x-max-priority": 5}))
        worker = CeleryWorker(self.connect(), self.tasks, wall_clock=self.wall)
        self.addCleanup(worker.stop)
        starting = worker.start()
        self.turn()
        self.failureResultOf(starting, PreconditionFailed)
        self.assertFalse(worker.is_consuming)
        self.done(self.channel.queue_delete("celery"))
        self.done(worker.start())
        self.assertTrue(worker.is_consuming)
        self.done(worker.stop())

    def test_a_queue_of_ones_own(self) -> None:
        """A Queue is taken as it is."""
        self.tasks.task(name="t")(lambda: 1)
        self.work(queues=Queue("mine", max_priority=5))
        self.call("t", queue="mine")
        self.assertEqual(self.states(), ["SUCCESS"])


class BadMessageTests(WorkerCase):
    """celery N-01 to N-16: nothing stops the worker, nothing comes again, and who can be told is told."""

    def setUp(self) -> None:
        super().setUp()
        self.tasks.task(name="t")(lambda *args, **kwargs: len(args))
        self.work()

    def bad(self, body: bytes, headers: dict[str, Any] | None = None, **properties: Any) -> list[str]:
        """Send a message; the states that were answered, when it is gone and the worker lives."""
        self.got.clear()
        given = {**PLAIN, "reply_to": self.reply_to, "correlation_id": "bad", **properties}
        given["headers"] = {"task": "t", "id": "bad"} if headers is None else headers
        self.send("celery", body, **{key: value for key, value in given.items() if value is not None})
        states = self.states()
        self.assertEqual(self.depth("celery"), (0, 0))
        self.assertEqual(self.states(self.call("t", task_id="good")), ["SUCCESS"])
        return states

    def test_bodies(self) -> None:
        """celery N-01 to N-10."""
        for body, properties, expected in (
            (b"[[], {}]", {}, ["FAILURE"]),
            (b"", {}, ["FAILURE"]),
            (b"[[1], {}, {}]", {"content_type": None}, ["SUCCESS"]),
            (b"opaque", {"content_type": None}, ["FAILURE"]),
            (b"[[1], {}, {}]", {"content_encoding": None}, ["SUCCESS"]),
            (b"{not json", {}, ["FAILURE"]),
            (b"\x80\x04", {"content_type": "application/x-python-serialize"}, ["FAILURE"]),
            (b'["args", {}, {}]', {}, ["FAILURE"]),
            (b"[[], [], {}]", {}, ["FAILURE"]),
            (b"[[], null, {}]", {}, ["FAILURE"]),
            (b"[[], {}, null]", {}, ["SUCCESS"]),
            (b"[[], {}, {}]", {}, ["SUCCESS"]),
        ):
            self.assertEqual(self.bad(body, **properties), expected, (body, properties))

    def test_headers(self) -> None:
        """celery N-04, N-11 to N-14."""
        body = b"[[], {}, {}]"
        for headers, expected in (
            ({"task": "t"}, []),
            ({"task": "t", "id": "bad", "eta": "soon"}, ["FAILURE"]),
            ({"task": None, "id": "bad"}, ["FAILURE"]),
            ({"id": "bad"}, []),
            ({"task": "t", "id": "bad", "compression": "application/x-odd"}, ["FAILURE"]),
            ({"task": "t", "id": "bad", "compression": "application/x-gzip"}, ["FAILURE"]),
            ({"task": "nobody", "id": "bad"}, ["FAILURE"]),
            ({"task": "t", "id": "bad", "ignore_result": True, "eta": "soon"}, []),
        ):
            self.assertEqual(self.bad(body, headers), expected, headers)

    def test_unknown_tasks(self) -> None:
        """celery J-09, and section 12, 12: NotRegistered, and no hot loop."""
        self.call("nobody", task_id="n")
        self.assertEqual(self.error("n"), ("NotRegistered", "celery.exceptions", ("nobody",)))
        self.assertIsNone(self.last("n").traceback)
        self.assertEqual((self.depth("celery"), self.worker.counts.unknown), ((0, 0), 1))

    def test_pickle_is_refused(self) -> None:
        """celery N-07, D-01: before it is looked at."""
        self.bad(b"cos\nsystem\n(S'true'\ntR.", content_type="application/x-python-serialize")
        self.send("celery", b"cos\nsystem\n(S'true'\ntR.", **self.pickled())
        self.assertEqual(self.error("bad")[:2], ("ContentDisallowed", "kombu.exceptions"))

    def pickled(self) -> dict[str, Any]:
        """Properties of a pickled task."""
        return {
            "content_type": "application/x-python-serialize",
            "content_encoding": "binary",
            "headers": {"task": "t", "id": "bad"},
            "reply_to": self.reply_to,
        }

    def test_protocol_1(self) -> None:
        """celery 5.1: Celery 3.1's form, down to its minimum."""
        body = {"task": "t", "id": "old", "args": [1, 2], "kwargs": {}}
        self.send("celery", json.dumps(body).encode(), **{**PLAIN, "reply_to": self.reply_to})
        self.assertEqual((self.states("old"), self.last("old").value), (["SUCCESS"], 2))

    def test_what_cannot_be_answered(self) -> None:
        """C6.1: odd reply queues: logged, counted, and gone."""
        self.bad(b"[[], {}]", reply_to="orders")
        self.assertEqual(self.worker.counts.unanswered, 1)


class LossTests(WorkerCase):
    """The connection is lost: nothing is run twice here, nothing is lost."""

    def test_what_waits_comes_again(self) -> None:
        """celery K-06: tasks that wait for their eta, or for a place, are not kept twice."""
        runs: list[int] = []
        block: list[Deferred[None]] = []

        def slow(number: int) -> Deferred[None]:
            runs.append(number)
            block.append(Deferred())
            return block[-1]

        self.tasks.task(name="slow")(slow)
        self.work(concurrency=1, prefetch_count=10)
        for number in range(3):
            self.call("slow", number)
        self.call("slow", 3, countdown=60)
        self.assertEqual((runs, len(self.worker.executions_held)), ([0], 1))
        self.cut()
        self.turn(1)
        self.turn(2)
        self.assertEqual((len(self.worker.executions_held), len(self.worker.executions_waiting)), (1, 2))
        for _ in range(5):
            for each in block:
                if not each.called:
                    each.callback(None)
            self.turn()
        self.turn(60)
        self.turn()
        for each in block:
            if not each.called:
                each.callback(None)
        self.turn()
        self.assertEqual((runs, self.depth("celery")), ([0, 1, 2, 3], (0, 0)))

    def test_a_lost_channel(self) -> None:
        """What waited for a place when its channel was closed is not run: it comes again."""
        runs: list[int] = []
        first: Deferred[None] = Deferred()
        self.tasks.task(name="slow")(lambda: first)
        self.tasks.task(name="t", acks_late=True)(runs.append)
        self.work(concurrency=1, prefetch_count=10)
        self.call("slow")
        self.call("t", 1)
        channel: Any = self.worker._intakes[0]._channel
        channel.transport_channel.end(PreconditionFailed("closed", 406, initiator="server"))
        first.callback(None)
        self.assertEqual(runs, [])
        self.turn(1)
        self.turn(1)
        self.assertEqual((runs, self.depth("celery"), self.worker.counts.stale), ([1], (0, 0), 1))

    def test_a_result_of_a_lost_message(self) -> None:
        """celery A-14: late acks: it is sent, though the message comes again."""
        wait: list[Deferred[Any]] = []

        def slow() -> Deferred[Any]:
            wait.append(Deferred())
            return wait[-1]

        self.tasks.task(name="t", acks_late=True)(slow)
        self.work()
        self.done(self.connection.connect())
        self.call("t", ignore_result=True)
        self.cut()
        self.turn(1)
        self.turn(2)
        self.assertEqual(len(wait), 2)
        for each in wait:
            each.callback(1)
        self.turn(1)
        self.assertEqual((self.depth("celery"), self.worker.counts.stale), ((0, 0), 1))


class StoppingTests(WorkerCase):
    """R30, celery 10, 10: a stop has an end, and loses nothing that it can give back."""

    def setUp(self) -> None:
        super().setUp()
        self.wait: list[Deferred[Any]] = []

        def slow() -> Deferred[Any]:
            self.wait.append(Deferred())
            return self.wait[-1]

        self.tasks.task(name="slow")(slow)
        self.tasks.task(name="late", acks_late=True)(slow)

    def test_it_waits_for_what_runs(self) -> None:
        """Its result is sent; what was not begun goes back."""
        self.work(concurrency=1, prefetch_count=10)
        for _ in range(3):
            self.call("slow")
        self.call("slow", countdown=60)
        stopping = self.worker.stop()
        self.turn(1)
        self.assertNoResult(stopping)
        self.assertEqual(self.depth("celery"), (3, 0))
        self.call("slow")
        self.wait[0].callback(7)
        self.turn()
        self.successResultOf(stopping)
        self.assertEqual((self.states(), self.last().value, self.depth("celery")), (["SUCCESS"], 7, (4, 0)))

    def test_it_does_not_wait_for_ever(self) -> None:
        """celery J-14: late: back to the queue; early: the client is told."""
        self.work(drain_timeout=5)
        early, late = self.call("slow"), self.call("late")
        stopping = self.worker.stop()
        self.turn(4)
        self.assertNoResult(stopping)
        self.turn(2)
        self.successResultOf(stopping)
        self.assertEqual((self.depth("celery"), self.states(late)), ((1, 0), []))
        self.assertEqual(self.error(early)[:2], ("WorkerLostError", "billiard.exceptions"))

    def test_again(self) -> None:
        """It can be started again, and stopped twice."""
        self.work()
        self.assertTrue(verifyObject(IService, self.worker))
        first, second = self.worker.stop(), self.worker.stop()
        self.turn(1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.done(self.worker.start())
        self.call("slow")
        self.wait[0].callback(1)
        self.turn()
        self.assertEqual(self.states(), ["SUCCESS"])

    def test_while_it_waits_to_consume_again(self) -> None:
        """R28: nothing is left of the wait."""
        self.work()
        self.done(self.channel.queue_delete("celery"))
        self.assertFalse(self.worker.is_consuming)
        stopping = self.worker.stop()
        self.turn()
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stop_while_it_begins_to_consume(self) -> None:
        """What was under way does not take messages after the stop."""
        came: list[Any] = []
        intake = Intake(
            self.connect(), celery_queue("other"), 10, lambda message, _: came.append(message), lambda *_: None
        )
        gate: Deferred[None] = Deferred()
        consume = Consumer.consume

        async def later(consumer: Consumer) -> None:
            await gate
            await consume(consumer)

        self.patch(Consumer, "consume", lambda consumer: Deferred.fromCoroutine(later(consumer)))
        starting = intake.start()
        self.done(intake.stop())
        gate.callback(None)
        self.done(starting)
        self.assertFalse(intake.is_consuming)
        self.call("slow", queue="other")
        self.assertEqual((came, self.depth("other")), ([], (1, 0)))
        self.done(intake.close())


class OutageTests(ReactorTestCase):
    """R30: a stop while there is no broker."""

    async def test_a_stop_while_it_connects(self) -> None:
        """It ends, and so does the start."""
        worker = CeleryWorker("amqp://127.0.0.1:1")
        starting = worker.start()
        ended: list[Any] = []
        starting.addBoth(ended.append)
        await deferLater(reactor, 0.05)
        self.assertEqual(ended, [])
        begin = reactor.seconds()
        await worker.stop()
        self.assertLess(reactor.seconds() - begin, 4)
        self.assertEqual(len(ended), 1)


class SettingTests(WorkerCase):
    """What is refused at once."""

    def test_workers(self) -> None:
        """ConfigurationError."""
        bad: list[dict[str, Any]] = [
            {"concurrency": 0},
            {"queues": []},
            {"reply_prefixes": [""]},
            {"retry_policy": {"odd": 1}},
            {"drain_timeout": -1},
            {"close_timeout": None},
        ]
        for options in bad:
            with self.assertRaises(ConfigurationError):
                CeleryWorker(self.connect(), **options)
        with self.assertRaises(ConfigurationError):
            CeleryWorker(self.connect(), [print])

    def test_tasks(self) -> None:
        """Names are unique, options are known and possible."""
        tasks = Tasks()
        tasks.task(name="t")(print)

        async def coroutine() -> None:
            pass

        bad: list[dict[str, Any]] = [
            {"name": "t"},
            {"name": "u", "odd": 1},
            {"name": "u", "max_retries": -1},
            {"name": "u", "time_limit": 1, "soft_time_limit": 2},
            {"name": "u", "throws": (1,)},
        ]
        for options in bad:
            with self.assertRaises(ConfigurationError):
                tasks.task(**options)(print)
        with self.assertRaises(ConfigurationError):
            tasks.task(name="u", thread=True)(coroutine)
        with self.assertRaises(ConfigurationError):
            tasks.task(lambda: 1)
        self.assertEqual(list(tasks), ["t"])

    def test_names(self) -> None:
        """As Celery: the module, and the function."""
        worker = CeleryWorker(self.connect())

        @worker.task
        def named() -> None:
            """A task."""

        self.assertEqual(list(worker.tasks), [f"{__name__}.named"])
        self.assertEqual(worker.now().tzinfo, START.tzinfo)

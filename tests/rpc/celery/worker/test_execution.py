"""Running tasks: results, failures, acks, results that nobody wants."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from tests.rpc.celery.worker.worker_case import WorkerCase
from txmsg.errors import PreconditionFailed, RemoteError
from txmsg.errors.rpc import TaskRevoked
from txmsg.rpc.celery.worker import Ignore, Reject


class Nested:
    """Holds a class whose qualified name has a dot."""

    class Inner(Exception):
        """Raised by a task."""


class ResultTests(WorkerCase):
    """celery A-03 to A-06, A-12, A-13, H-01 to H-08, J-01 to J-04, J-10, J-11, N-16."""

    def test_what_functions_return(self) -> None:
        """A value, a Deferred, a coroutine: the client gets the value."""
        self.tasks.task(name="value")(lambda x, y: x + y)
        self.tasks.task(name="deferred")(lambda x: succeed(x))

        @self.tasks.task(name="coroutine")
        async def coroutine(x: int, *, by: int) -> int:
            return x * by

        self.work()
        for name, args, kwargs, expected in (
            ("value", [1, 2], {}, 3),
            ("deferred", [[1]], {}, [1]),
            ("coroutine", [4], {"by": 5}, 20),
        ):
            task_id = self.call(name, *args, kwargs=kwargs)
            self.assertEqual((self.states(task_id), self.last(task_id).value), (["SUCCESS"], expected))
        self.assertEqual(self.depth("celery"), (0, 0))
        self.assertEqual(self.worker.counts.succeeded, 3)

    def test_the_message_of_a_result(self) -> None:
        """celery H-01 to H-08: to the default exchange, transient, with the request's correlation id."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        self.call("t", task_id="id-1", correlation_id="c-1", priority=7, group_id="g", parent_id="p")
        properties = self.raw[-1]
        self.assertEqual(
            {key: properties.get(key) for key in ("correlation_id", "content_type", "delivery_mode", "priority")},
            {"correlation_id": "c-1", "content_type": "application/json", "delivery_mode": 1, "priority": 0},
        )
        self.assertNotIn("reply_to", properties)
        self.assertIsNone(properties.get("message_id"))
        result = self.last()
        self.assertEqual((result.task_id, result.group_id, result.parent_id), ("id-1", "g", "p"))
        self.assertEqual((result.children, result.traceback, result.date_done), ((), None, self.at(0)))

    def test_extended(self) -> None:
        """celery H-09: only where it is asked for."""
        self.tasks.task(name="t")(lambda x, *, y: x)
        self.work(result_extended=True)
        self.call("t", 1, kwargs={"y": 2})
        expected = {
            "name": "t",
            "args": [1],
            "kwargs": {"y": 2},
            "worker": "txmsg@test",
            "retries": 0,
            "queue": "celery",
        }
        self.assertEqual(dict(self.last().extended), expected)

    def test_failures(self) -> None:
        """celery J-01 to J-04: type, module, arguments and the traceback of the function, as data."""

        @self.tasks.task(name="now")
        def now() -> None:
            raise Nested.Inner("text", 1)

        @self.tasks.task(name="later")
        async def later() -> None:
            await succeed(None)
            raise ValueError("later")

        self.tasks.task(name="deferred")(lambda: fail(KeyError("k")))

        @self.tasks.task(name="exit")
        def leave() -> None:
            raise SystemExit(3)

        self.work()
        self.call("now")
        self.assertEqual(self.error(), ("Nested.Inner", __name__, ("text", 1)))
        traceback = self.last().traceback
        assert traceback is not None
        self.assertIn("in now", traceback)
        self.assertIn("Inner: ('text', 1)", traceback.splitlines()[-1])
        self.call("later")
        self.assertEqual(self.error(), ("ValueError", "builtins", ("later",)))
        self.assertIn("in later", self.last().traceback or "")
        self.call("deferred")
        self.assertEqual(self.error()[0], "KeyError")
        self.call("exit")
        # Under its own name it would end the process of the client.
        self.assertEqual(
            self.error(), ("WorkerLostError", "billiard.exceptions", ("the task has raised SystemExit(3)",))
        )
        self.assertIn("in leave", self.last().traceback or "")
        self.assertEqual(self.depth("celery"), (0, 0))
        self.assertEqual(self.states(), ["FAILURE"] * 4)

    def test_what_cannot_be_sent(self) -> None:
        """celery J-10, J-11: a result that JSON does not know is a failure, and so are wrong arguments."""
        self.tasks.task(name="odd")(lambda: object())
        self.work()
        self.call("odd")
        self.assertEqual(self.error()[:2], ("EncodeError", "kombu.exceptions"))
        self.call("odd", 1)
        self.assertEqual(self.error()[0], "TypeError")
        self.assertEqual((self.worker.counts.succeeded, self.worker.counts.failed), (0, 2))

    def test_a_failure_of_another_call_is_passed_on(self) -> None:
        """What a task got from another service keeps its name."""
        self.tasks.task(name="t")(lambda: fail(RemoteError("Odd", "text", "far.away", ("text",))))
        self.work()
        self.call("t")
        self.assertEqual(self.error(), ("Odd", "far.away", ("text",)))

    def test_nobody_to_answer(self) -> None:
        """celery A-06, A-12, N-15: no reply_to, or one whose queue is gone; it is not declared."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        gone = "00000000-0000-4000-8000-000000000000"
        self.call("t", reply_to="")
        self.call("t", reply_to=gone)
        self.assertEqual((self.states(), self.worker.counts.succeeded), ([], 2))
        self.assertNotIn(gone, self.transport.vhost(self.url).queues)
        self.assertEqual(self.worker.counts.unanswered, 0)

    def test_results_go_to_reply_queues_only(self) -> None:
        """C6.1: a message does not make the worker write into any queue."""
        self.tasks.task(name="t")(lambda: 1)
        self.work(reply_prefixes=["replies."])
        for name in ("orders", "replies.1"):
            self.done(self.channel.queue_declare(name))
            self.call("t", reply_to=name)
        self.assertEqual((self.depth("orders"), self.depth("replies.1")), ((0, 0), (1, 0)))
        self.assertEqual(self.worker.counts.unanswered, 1)


class OddTests(WorkerCase):
    """celery J-03, J-08, J-11, N rows: whatever a task raises, its client hears of it, and its message is settled."""

    def fails_with(self, error: BaseException, **options: Any) -> tuple[str, str, tuple[Any, ...]]:
        """What the client gets of a task that raises it."""

        def task() -> None:
            raise error

        name = f"raises{len(self.tasks)}"
        self.tasks.task(name=name, **options)(task)
        task_id = self.call(name)
        self.assertEqual((self.states(task_id), self.depth("celery")), (["FAILURE"], (0, 0)))
        return self.error(task_id)

    def test_exceptions_of_odd_classes(self) -> None:
        """Whose texts cannot be had, whose arguments are none, whose module is no name."""

        class NoRepr(Exception):
            def __repr__(self) -> str:
                raise RuntimeError

        class NoText(Exception):
            def __str__(self) -> str:
                raise RuntimeError

        class NoArguments(Exception):
            args = None  # type: ignore[assignment]

        self.work()
        for late in (False, True):
            self.assertEqual(self.fails_with(NoRepr("x"), acks_late=late)[2], ("x",))
            self.assertEqual(self.fails_with(NoText("x"))[2], ("x",))
            self.assertEqual(self.fails_with(NoArguments("x"))[0].split(".")[-1], "NoArguments")
            self.assertEqual(self.fails_with(type("Odd", (Exception,), {"__module__": 7})("x"))[::2], ("Odd", ("x",)))
            self.assertEqual(self.fails_with(KeyboardInterrupt(), acks_late=late)[0], "WorkerLostError")
        self.assertEqual(self.worker.counts.failed, 10)

    def test_a_call_of_its_own_that_was_revoked(self) -> None:
        """Nobody has called off this task: it has failed."""
        self.work()
        error = TaskRevoked("TaskRevokedError", "terminated", "celery.exceptions", ("terminated",))
        self.assertEqual(self.fails_with(error)[0], "TaskRevokedError")
        self.assertEqual((self.worker.counts.failed, self.worker.counts.revoked), (1, 0))

    def test_rejected_with_odd_reasons(self) -> None:
        """celery J-13: also where it was to be requeued and cannot: nobody runs it again."""

        class Odd:
            def __str__(self) -> str:
                raise RuntimeError

            __repr__ = __str__

        self.work()
        self.assertEqual(self.fails_with(Reject(Odd())), ("Reject", "celery.exceptions", ("<Odd>", False)))
        self.assertEqual(self.fails_with(Reject("why", requeue=True)), ("Reject", "celery.exceptions", ("why", True)))

    def test_the_worker_itself_fails(self) -> None:
        """A mistake of ours, too, is told to the client, and the message does not come again."""
        self.tasks.task(name="t", acks_late=True)(lambda: 1)
        self.work()
        self.patch(self.worker.following, "succeeded", lambda request, result: 1 // 0)
        self.call("t")
        self.assertEqual((self.error()[0], self.depth("celery")), ("WorkerLostError", (0, 0)))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_result_that_the_broker_refuses(self) -> None:
        """celery J-11: too large for it, for instance; the client hears why, instead of nothing."""
        sent: list[int] = []
        self.tasks.task(name="t")(lambda: "x" * 1000)
        self.work()
        publish = self.worker.outgoing._publish

        def refuse(exchange: str, key: str, body: bytes, properties: Any, **options: Any) -> Deferred[None]:
            sent.append(len(body))
            if len(body) > 1000:
                return fail(PreconditionFailed("message size is too large", 406, method_name="basic.publish"))
            return publish(exchange, key, body, properties, **options)

        self.patch(self.worker.outgoing, "_publish", refuse)
        self.call("t")
        self.assertEqual((self.states(), self.error()[:2]), (["FAILURE"], ("EncodeError", "kombu.exceptions")))
        self.assertIn("too large", self.error()[2][0])
        self.assertEqual((len(sent), self.worker.counts.unanswered), (2, 0))

    def test_progress_that_is_late(self) -> None:
        """What a thread says when nobody waits for it any more is not sent, not even while the end is being told."""
        later: list[Any] = []
        sent: list[Any] = []
        requests: list[Any] = []

        def task(request: Any) -> Deferred[None]:
            requests.append(request)
            return Deferred()

        def send(reply_to: str, result: Any, instead: Any) -> Deferred[None]:
            sent.append(result.state)
            return Deferred()

        self.tasks.task(name="t", bind=True, time_limit=1)(task)
        self.work()
        self.clock.callFromThread = later.append  # type: ignore[attr-defined]
        self.patch(self.worker.outgoing, "send_result", send)
        self.call("t")
        requests[0]._execution.call_from_thread("PROGRESS", 1)
        self.turn(2)
        for call in later:
            call()
        self.assertEqual((len(later), sent), (1, ["FAILURE"]))


class IgnoredTests(WorkerCase):
    """celery L-01 to L-05."""

    def test_the_header_and_the_task(self) -> None:
        """celery L-01 to L-03: the header wins; without it the task's own setting."""
        self.tasks.task(name="quiet", ignore_result=True)(lambda: 1)
        self.tasks.task(name="loud")(lambda: 1)
        self.work()
        for name, header, expected in (
            ("quiet", None, []),
            ("quiet", True, []),
            ("quiet", False, ["SUCCESS"]),
            ("loud", None, ["SUCCESS"]),
            ("loud", True, []),
            ("loud", False, ["SUCCESS"]),
        ):
            task_id = self.call(name, ignore_result=header)
            self.assertEqual(self.states(task_id), expected, (name, header))

    def test_failures(self) -> None:
        """celery L-01, L-04: not even failures, unless the task says so."""

        def broken() -> None:
            raise ValueError

        self.tasks.task(name="quiet", ignore_result=True)(broken)
        self.tasks.task(name="errors", ignore_result=True, store_errors_even_if_ignored=True)(broken)
        self.work()
        self.assertEqual(self.states(self.call("quiet")), [])
        self.assertEqual(self.states(self.call("errors")), ["FAILURE"])


class SettlementTests(WorkerCase):
    """When the message is acked, and how (celery J-12, J-13)."""

    def test_acks_early_and_late(self) -> None:
        """Early: before it runs.  Late: after its result."""
        wait: list[Deferred[Any]] = []

        def slow() -> Deferred[Any]:
            wait.append(Deferred())
            return wait[-1]

        self.tasks.task(name="early")(slow)
        self.tasks.task(name="late", acks_late=True)(slow)
        self.work()
        self.call("early")
        self.assertEqual(self.depth("celery"), (0, 0))
        self.call("late")
        self.assertEqual(self.depth("celery"), (0, 1))
        for each in wait:
            each.callback(None)
        self.turn()
        self.assertEqual((self.depth("celery"), self.states()), ((0, 0), ["SUCCESS"] * 2))

    def test_a_failure_is_acked_too(self) -> None:
        """With late acks as well: it would fail again."""
        self.tasks.task(name="t", acks_late=True)(lambda: 1 / 0)
        self.work()
        self.call("t")
        self.assertEqual((self.depth("celery"), self.states()), ((0, 0), ["FAILURE"]))

    def test_ignore_and_reject(self) -> None:
        """celery J-12, J-13."""
        raises: list[BaseException] = []

        @self.tasks.task(name="t", acks_late=True)
        def task() -> None:
            raise raises.pop(0)

        self.work()
        raises.append(Ignore())
        self.call("t")
        self.assertEqual((self.depth("celery"), self.states()), ((0, 0), []))
        raises.append(Reject("no"))
        self.call("t")
        self.assertEqual(self.error(), ("Reject", "celery.exceptions", ("no", False)))
        raises += [Reject("again", requeue=True), Ignore()]
        task_id = self.call("t")
        self.assertEqual((self.depth("celery"), self.states(task_id)), ((0, 0), []))
        self.assertEqual((self.worker.counts.rejected, self.worker.counts.ignored), (2, 2))

    def test_concurrency(self) -> None:
        """Not more than so many run at a time; the next one begins when one has ended."""
        wait: list[Deferred[Any]] = []

        def slow() -> Deferred[Any]:
            wait.append(Deferred())
            return wait[-1]

        self.tasks.task(name="slow")(slow)
        self.work(concurrency=2)
        for _ in range(5):
            self.call("slow")
        self.assertEqual(len(wait), 2)
        wait[0].callback(None)
        self.turn()
        self.assertEqual((len(wait), len(self.worker.executions_running)), (3, 2))
        while len(self.got) < 5:
            for each in wait:
                if not each.called:
                    each.callback(None)
            self.turn()

    def test_many_that_end_at_once(self) -> None:
        """The stack does not grow with what waits."""
        first: Deferred[None] = Deferred()
        self.tasks.task(name="first")(lambda: first)
        self.tasks.task(name="t")(lambda: 1)
        self.work(concurrency=1, prefetch_count=0)
        self.call("first", ignore_result=True)
        for _ in range(400):
            self.call("t", ignore_result=True)
        first.callback(None)
        self.turn()
        self.assertEqual(self.worker.counts.succeeded, 401)


class StateTests(WorkerCase):
    """celery I-07 to I-10: STARTED and states of one's own."""

    def test_started(self) -> None:
        """celery I-07: only where it is asked for."""
        self.tasks.task(name="t", track_started=True)(lambda: 1)
        self.tasks.task(name="u")(lambda: 1)
        self.work()
        self.call("u")
        self.call("t")
        self.assertEqual(self.states(), ["SUCCESS", "STARTED", "SUCCESS"])
        self.assertEqual(self.got[1].value["hostname"], "txmsg@test")
        self.assertIsInstance(self.got[1].value["pid"], int)

    def test_progress(self) -> None:
        """celery I-08, I-10: in order, and then the final one; nothing after that."""
        kept: list[Any] = []

        @self.tasks.task(name="t", bind=True)
        async def task(request: Any, steps: int) -> str:
            kept.append(request)
            for step in range(steps):
                await request.update_state(meta={"step": step})
            request.update_state("HALFWAY", [1])
            return "done"

        self.work()
        self.call("t", 2)
        self.assertEqual(self.states(), ["PROGRESS", "PROGRESS", "HALFWAY", "SUCCESS"])
        self.assertEqual([each.value for each in self.got], [{"step": 0}, {"step": 1}, [1], "done"])
        kept[0].update_state("LATE")
        self.turn()
        self.assertEqual((len(self.got), kept[0].is_over), (4, True))

    def test_what_a_request_knows(self) -> None:
        """celery E-02 to E-19, K-13: of the message, and of its delivery."""

        @self.tasks.task(name="t", bind=True, time_limit=9)
        def task(request: Any) -> list[Any]:
            return [
                request.id,
                request.name,
                request.retries,
                request.root_id,
                request.headers,
                request.delivery_info["routing_key"],
                request.redelivered,
                request.time_limit,
                request.delivery_info["priority"],
            ]

        self.work()
        self.call("t", task_id="1", headers={"x-mine": 1}, priority=3)
        self.assertEqual(self.last().value, ["1", "t", 0, "1", {"x-mine": 1}, "celery", False, 9, 3])

    def test_final_states_are_not_a_tasks_own(self) -> None:
        """A second final state would be lost at the client."""

        @self.tasks.task(name="t", bind=True)
        def task(request: Any) -> None:
            request.update_state("SUCCESS")

        self.work()
        self.call("t")
        self.assertEqual(self.error()[0], "ConfigurationError")


class CancelledTests(WorkerCase):
    """What a task that cancels itself is."""

    def test_its_own_cancel_is_a_failure(self) -> None:
        """CancelledError from inside is what the function failed with."""
        self.tasks.task(name="t")(lambda: fail(CancelledError()))
        self.work()
        self.call("t")
        self.assertEqual(self.error()[0], "CancelledError")

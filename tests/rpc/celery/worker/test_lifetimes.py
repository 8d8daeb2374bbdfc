"""Tasks in time: retries, eta, expires, time limits, and what is called off."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred

from tests.rpc.celery.worker.worker_case import WorkerCase
from txmsg.errors import PreconditionFailed
from txmsg.messaging.pidbox import Mailbox
from txmsg.rpc.celery.worker import Retry, SoftTimeLimitExceeded


class RetryTests(WorkerCase):
    """celery K-01 to K-05, I-11, and section 12, 9."""

    def test_a_retry(self) -> None:
        """celery K-01, K-02: the same id, one more in `retries`; RETRY with the original exception, then SUCCESS."""
        seen: list[Any] = []

        @self.tasks.task(name="t", bind=True, default_retry_delay=5)
        def task(request: Any, text: str) -> str:
            seen.append((request.id, request.retries, request.parent_id, request.root_id, request.headers))
            if request.retries < 2:
                try:
                    raise ValueError("not yet")
                except ValueError as error:
                    request.retry(error)
            return text

        self.work()
        task_id = self.call("t", "x", correlation_id="c", headers={"mine": 1})
        self.assertEqual(self.states(), ["RETRY"])
        self.assertEqual(self.error(), ("ValueError", "builtins", ("not yet",)))
        self.assertEqual([child.task_id for child in self.last().children], [task_id])
        self.assertIn("Retry", self.last().traceback or "")
        self.turn(4.9)
        self.assertEqual(len(seen), 1)
        self.turn(0.2)
        self.turn(5)
        self.assertEqual(self.states(task_id), ["RETRY", "RETRY", "SUCCESS"])
        self.assertEqual({each["correlation_id"] for each in self.raw}, {"c"})
        self.assertEqual(
            seen,
            [
                (task_id, 0, None, task_id, {"mine": 1}),
                (task_id, 1, task_id, task_id, {"mine": 1}),
                (task_id, 2, task_id, task_id, {"mine": 1}),
            ],
        )
        self.assertEqual((self.last().value, self.last().parent_id, self.depth("celery")), ("x", task_id, (0, 0)))

    def test_no_retries_left(self) -> None:
        """celery K-03: the original exception, or MaxRetriesExceededError."""

        @self.tasks.task(name="why", bind=True, max_retries=1)
        def why(request: Any) -> None:
            request.retry(KeyError("k"), countdown=0)

        @self.tasks.task(name="none", bind=True, max_retries=0)
        async def none(request: Any) -> None:
            request.retry()

        self.work()
        task_id = self.call("why")
        self.turn()
        self.assertEqual((self.states(task_id), self.error()), (["RETRY", "FAILURE"], ("KeyError", "builtins", ("k",))))
        self.call("none")
        self.assertEqual(self.error()[:2], ("MaxRetriesExceededError", "celery.exceptions"))
        self.assertEqual(self.worker.counts.retried, 1)

    def test_what_a_retry_may_change(self) -> None:
        """Arguments, the queue, and some options; what follows the task stays."""

        @self.tasks.task(name="t", bind=True)
        def task(request: Any, number: int) -> None:
            request.retry(args=[number + 1], kwargs={"a": 1}, queue="other", priority=4, countdown=60)

        self.done(self.channel.queue_declare("other"))
        self.work()
        self.call("t", 1, expires=self.at(90))
        delivery = self.done(self.channel.get("other", no_ack=True))
        self.assertEqual(delivery.properties["headers"]["expires"], self.at(90).isoformat())
        self.assertNotIn("expiration", delivery.properties)
        args, kwargs, _ = json.loads(delivery.body)
        self.assertEqual((args, kwargs, delivery.properties["priority"]), ([2], {"a": 1}, 4))
        self.assertEqual(delivery.properties["headers"]["eta"], self.at(60).isoformat())
        self.assertEqual((delivery.properties["reply_to"], delivery.properties["delivery_mode"]), (self.reply_to, 2))

    def test_late_acks(self) -> None:
        """celery K-04: the old message is acked when the new one is confirmed."""

        @self.tasks.task(name="t", bind=True, acks_late=True)
        def task(request: Any) -> None:
            request.retry(countdown=60)

        worker = self.work()
        send_task, waiting = worker.outgoing.send_task, Deferred[None]()

        def held_up(*args: Any) -> Deferred[None]:
            return send_task(*args).addCallback(lambda _: waiting)

        worker.outgoing.send_task = held_up  # type: ignore[assignment]
        self.call("t")
        self.assertEqual(self.depth("celery"), (0, 2))
        waiting.callback(None)
        self.turn()
        self.assertEqual(self.depth("celery"), (0, 1))

    def test_late_acks_and_the_result(self) -> None:
        """celery K-04: nor before its RETRY was confirmed."""

        @self.tasks.task(name="t", bind=True, acks_late=True)
        def task(request: Any) -> None:
            request.retry(countdown=60)

        worker = self.work()
        send_result, waiting = worker.outgoing.send_result, Deferred[None]()
        worker.outgoing.send_result = lambda *args: send_result(*args).addCallback(  # type: ignore[method-assign]
            lambda _: waiting
        )
        self.call("t")
        self.assertEqual(self.depth("celery"), (0, 2))
        waiting.callback(None)
        self.turn()
        self.assertEqual(self.depth("celery"), (0, 1))

    def test_retry_of_what_cannot_be_sent(self) -> None:
        """celery K-05: the failure is the client's, and the message does not come again."""

        @self.tasks.task(name="t", bind=True, acks_late=True)
        def task(request: Any) -> None:
            request.retry(args=[object()])

        self.work()
        self.call("t")
        self.assertEqual((self.error()[:2], self.depth("celery")), (("EncodeError", "kombu.exceptions"), (0, 0)))

    def test_a_retry_that_expires(self) -> None:
        """celery K-09, K-10: a worker says so; the broker, which would not, is not asked to drop it."""

        @self.tasks.task(name="t", bind=True)
        def task(request: Any) -> None:
            request.retry(countdown=60)

        self.work()
        self.call("t", expires=self.at(30))
        self.turn(61)
        self.assertEqual((self.states(), self.error()[2]), (["RETRY", "REVOKED"], ("expired",)))

    def test_odd_reasons(self) -> None:
        """celery K-02: a class, an exception that is false, one without a text; what is no exception is a mistake."""

        class Odd(Exception):
            def __bool__(self) -> bool:
                return False

            def __str__(self) -> str:
                raise RuntimeError

        reasons: list[Any] = [ValueError, Odd("x"), "text"]
        self.tasks.task(name="t", bind=True)(lambda request: request.retry(reasons.pop(0)))
        self.work()
        for state, name in (("RETRY", "ValueError"), ("RETRY", "Odd"), ("FAILURE", "ConfigurationError")):
            task_id = self.call("t")
            self.assertEqual((self.states(task_id), self.error(task_id)[0].split(".")[-1]), ([state], name))

    def test_an_own_retry_is_not_wrapped(self) -> None:
        """retry() while a Retry is handled is that one."""

        @self.tasks.task(name="t", bind=True)
        def task(request: Any) -> None:
            try:
                request.retry(ValueError("first"), countdown=7)
            except Retry:
                request.retry()

        self.work()
        self.call("t")
        self.assertEqual(self.error()[0], "ValueError")


class EtaTests(WorkerCase):
    """celery E-05, E-06, K-06 to K-11."""

    def test_eta(self) -> None:
        """celery K-06: held, unsettled, until then; a past one runs at once."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        self.call("t", eta=self.at(-5))
        self.assertEqual(self.states(), ["SUCCESS"])
        self.call("t", countdown=7200)
        self.assertEqual(self.depth("celery"), (0, 1))
        self.turn(7199)
        self.assertEqual(self.states(), ["SUCCESS"])
        self.turn(2)
        self.assertEqual((self.states(), self.depth("celery")), (["SUCCESS"] * 2, (0, 0)))

    def test_what_is_held_blocks_nothing(self) -> None:
        """celery 5.2: one more may come for each that waits; and no more than that when they have gone."""
        self.tasks.task(name="t")(lambda: 1)
        worker = self.work(concurrency=2)
        for _ in range(20):
            self.call("t", countdown=60)
        task_id = self.call("t")
        self.assertEqual(self.states(), ["SUCCESS"])
        self.assertEqual((self.last().task_id, len(worker.executions_held)), (task_id, 20))
        window = worker._intakes[0].window
        self.assertTrue(22 <= window <= 42, window)
        self.turn(60)
        self.turn()
        self.assertEqual(len(self.states()), 21)
        self.assertEqual(worker._intakes[0].window, 2)

    def test_what_comes_again_is_held_once(self) -> None:
        """The broker closes a channel whose deliveries are unsettled for too long (consumer_timeout)."""
        runs: list[int] = []
        self.tasks.task(name="t")(runs.append)
        worker = self.work()
        self.call("t", 1, countdown=7200)
        for _ in range(3):
            self.turn(1800)
            channel: Any = worker._intakes[0]._channel
            channel.transport_channel.end(PreconditionFailed("consumer_timeout", 406, initiator="server"))
            self.turn(1)
            self.turn(1)
            self.assertEqual(len(worker.executions_held), 1)
        self.turn(1800)
        self.assertEqual((runs, self.depth("celery"), worker.counts.stale), ([1], (0, 0), 3))

    def test_expires(self) -> None:
        """celery K-08, K-09: on receipt, and again just before it runs."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        message = self.call("t", expires=self.at(-1), now=self.at(-10))
        self.assertEqual(self.states(message), ["REVOKED"])
        self.assertEqual(self.error(), ("TaskRevokedError", "celery.exceptions", ("expired",)))
        self.assertIsNone(self.last().traceback)
        self.call("t", countdown=60, expires=self.at(30))
        self.turn(61)
        self.assertEqual((self.states(), self.depth("celery")), (["REVOKED"] * 2, (0, 0)))
        self.assertEqual(self.worker.counts.expired, 2)

    def test_at_the_very_moment(self) -> None:
        """celery K-09: `now > expires`."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        self.call("t", countdown=60, expires=self.at(60))
        self.turn(60)
        self.assertEqual(self.states(), ["SUCCESS"])


class LimitTests(WorkerCase):
    """celery E-10, J-15."""

    def test_the_hard_limit(self) -> None:
        """The Deferred is cancelled, and FAILURE says so once; a task that takes no notice is not waited for."""
        cancelled: list[Any] = []

        @self.tasks.task(name="stubborn", acks_late=True)
        def stubborn() -> Deferred[Any]:
            deferred: Deferred[Any] = Deferred(lambda _: cancelled.append(1))
            return deferred

        self.work()
        self.call("stubborn", time_limit=3)
        self.turn(2.9)
        self.assertEqual(self.states(), [])
        self.turn(0.2)
        self.assertEqual(
            (self.states(), self.error()), (["FAILURE"], ("TimeLimitExceeded", "billiard.exceptions", (3,)))
        )
        self.assertEqual((cancelled, self.depth("celery"), self.worker.executions_running), ([1], (0, 0), {}))

    def test_the_soft_limit_of_a_coroutine(self) -> None:
        """It sees an exception, and may end in order."""

        @self.tasks.task(name="t", soft_time_limit=2, time_limit=5)
        async def task(tidy: bool) -> str:
            try:
                await Deferred[None]()
            except SoftTimeLimitExceeded:
                if not tidy:
                    raise
            return "tidy"

        self.work()
        self.call("t", True)
        self.call("t", False)
        self.turn(2)
        self.assertEqual((self.states(), self.got[0].value), (["SUCCESS", "FAILURE"], "tidy"))
        self.assertEqual(self.error(), ("SoftTimeLimitExceeded", "billiard.exceptions", ()))
        self.assertIn("in task", self.last().traceback or "")

    def test_the_soft_limit_of_a_deferred(self) -> None:
        """It is cancelled; or a callback is called instead."""
        told: list[int] = []
        self.tasks.task(name="plain", soft_time_limit=2)(lambda: Deferred())

        @self.tasks.task(name="told", bind=True, soft_time_limit=2)
        def task(request: Any) -> Deferred[Any]:
            deferred: Deferred[Any] = Deferred()

            def early() -> None:
                told.append(1)
                deferred.callback("early")

            request.on_soft_time_limit(early)
            return deferred

        self.work()
        self.call("plain")
        self.turn(2)
        self.assertEqual(self.error()[0], "SoftTimeLimitExceeded")
        self.call("told")
        self.turn(2)
        self.assertEqual((told, self.last().value), ([1], "early"))

    def test_the_messages_limit_wins(self) -> None:
        """celery E-10: hard first, soft second."""
        seen: list[Any] = []

        @self.tasks.task(name="t", bind=True, time_limit=100)
        def task(request: Any) -> None:
            seen.append((request.time_limit, request.soft_time_limit))

        self.work()
        self.call("t", time_limit=9, soft_time_limit=8)
        self.call("t")
        self.assertEqual(seen, [(9, 8), (100, None)])


class RevokeTests(WorkerCase):
    """celery K-12: by `celery.pidbox`, as Celery's clients ask."""

    def ask(self, method: str, **arguments: Any) -> None:
        """Broadcast a request, as Celery does."""
        if not hasattr(self, "mailbox"):
            self.mailbox = Mailbox("celery", "fanout", self.connect())
        self.done(self.mailbox.abcast(method, arguments))
        self.turn()

    def test_before_it_comes(self) -> None:
        """REVOKED("revoked") when it does; its chain is told, too."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        self.ask("revoke", task_id="1", terminate=False, signal="SIGTERM")
        self.call("t", task_id="1")
        self.call("t", task_id="2")
        self.assertEqual((self.states("1"), self.states("2")), (["REVOKED"], ["SUCCESS"]))
        self.assertEqual(self.error("1"), ("TaskRevokedError", "celery.exceptions", ("revoked",)))
        self.assertEqual((self.depth("celery"), self.worker.counts.revoked), ((0, 0), 1))

    def test_what_waits_for_its_eta(self) -> None:
        """Answered at once."""
        self.tasks.task(name="t")(lambda: 1)
        self.work()
        task_id = self.call("t", countdown=60)
        self.ask("revoke", task_id=[task_id])
        self.assertEqual((self.states(), self.depth("celery")), (["REVOKED"], (0, 0)))

    def test_what_waits_for_a_place(self) -> None:
        """It is answered now, and not when what runs has ended."""
        self.tasks.task(name="stuck")(Deferred)
        self.work(concurrency=1, prefetch_count=10)
        self.call("stuck")
        ids = [self.call("stuck") for _ in range(3)]
        self.worker.control.revoke(task_id=ids[:2])
        self.turn()
        self.assertEqual([(each.task_id, each.state) for each in self.got], [(each, "REVOKED") for each in ids[:2]])
        self.assertEqual((len(self.worker.executions_waiting), self.depth("celery")), (1, (0, 1)))

    def test_ids_that_no_task_has(self) -> None:
        """They take no memory."""
        self.work()
        self.worker.control.revoke(task_id=["x" * 256, "y" * 255])
        self.assertEqual(list(self.worker.control.revoked), ["y" * 255])

    def test_terminate(self) -> None:
        """The function is cancelled, and the client told; without it the task goes on."""
        cancelled: list[int] = []
        self.tasks.task(name="t", acks_late=True)(lambda: Deferred(lambda _: cancelled.append(1)))
        self.work()
        task_id = self.call("t")
        self.ask("revoke", task_id=task_id)
        self.assertEqual((self.states(), cancelled), ([], []))
        self.ask("revoke", task_id=task_id, terminate=True, signal="SIGKILL")
        self.assertEqual((self.states(), cancelled, self.depth("celery")), (["REVOKED"], [1], (0, 0)))
        self.assertEqual(self.error()[2], ("terminated",))

    def test_other_requests(self) -> None:
        """ping, and what `inspect` shows; nonsense is answered."""
        self.tasks.task(name="t")(lambda: Deferred())
        worker = self.work(drain_timeout=1)
        self.call("t", argsrepr="(...)")
        self.call("t", countdown=60)
        control = worker.control
        self.assertEqual(control.ping(), {"ok": "pong"})
        self.assertEqual(control.registered(), ["t"])
        self.assertEqual([each["args"] for each in control.active()], ["(...)"])
        self.assertEqual([each["eta"] for each in control.scheduled()], [self.at(60).isoformat()])
        self.assertEqual(control.active_queues(), [{"name": "celery", "routing_key": "celery"}])
        self.assertIn("error", control.revoke(task_id={"a": 1}))
        self.assertIn("error", control.revoke(task_id=[1]))
        self.ask("revoke", task_id=7)
        self.ask("shutdown")
        self.flushLoggedErrors(LookupError)
        self.assertTrue(control.is_listening)

    def test_what_is_kept(self) -> None:
        """Ids are kept for a bounded time, and a bounded number of them."""
        self.tasks.task(name="t")(lambda: 1)
        worker = self.work()
        worker.control.revoked._maximum = 3
        self.ask("revoke", task_id=["1", "2"])
        self.ask("revoke", task_id=["3", "4"])
        self.assertEqual(len(worker.control.revoked), 3)
        self.clock.advance(10_801)
        self.assertEqual(worker.control.list_revoked(), [])

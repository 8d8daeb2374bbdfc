"""CeleryApp and an unmodified worker of Celery 5: what the worker does is what the client asked for, and it is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from twisted.internet.defer import CancelledError, Deferred

from tests.celery.base import CeleryCase, OverBrokerProcess, OverRabbitMQNode
from tests.celery.tasks import Outer
from txmsg.errors import NoResponder, RemoteError, RPCTimeout, TaskRevoked
from txmsg.errors.celery import NotSupportedByBackend
from txmsg.messaging import register_pickle, serializers
from txmsg.rpc.celery.app import CeleryApp
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.results import AsyncResult
from txmsg.testing.disruption import DisruptionProxy


class ClientCases(CeleryCase):
    """celery D-01 to D-06, E-01 to E-03: each task here is a message that a real worker understands."""

    async def test_success(self) -> None:
        """celery A-01, I-02, H-01 to H-04, H-06: the value, and the states before it."""
        app = self.app()
        result = await app.send_task("add", [1], {"y": 2})
        self.assertEqual(await result.get(), 3)
        self.assertEqual((result.state, result.result, result.traceback), ("SUCCESS", 3, None))
        self.assertTrue(result.successful())
        assert result.date_done is not None
        self.assertLess(abs(datetime.now(UTC) - result.date_done), timedelta(minutes=5))
        self.assertEqual(await result.get(), 3)
        self.assertEqual(await app.call_task("add", ["a", "b"]), "ab")

    async def test_what_the_worker_is_told(self) -> None:
        """celery D-03, D-04, D-06, E-07 to E-12, E-15, E-19: headers and properties, as the worker has them."""
        app = self.app()
        seen = await app.call_task(
            "echo",
            [1, None],
            {"k": [2]},
            task_id="the-id",
            headers={"x-mine": 1},
            retries=2,
            time_limit=60,
            soft_time_limit=30,
            group_id="g",
            group_index=4,
            root_id="root",
            parent_id="mother",
            priority=3,
        )
        self.assertEqual((seen["args"], seen["kwargs"]), ([1, None], {"k": [2]}))
        expected: dict[str, Any] = {
            "id": "the-id",
            "correlation_id": "the-id",
            "reply_to": app.backend.reply_to,
            "retries": 2,
            "timelimit": [60, 30],
            "group": "g",
            "group_index": 4,
            "root_id": "root",
            "parent_id": "mother",
            "priority": 3,
            "routing_key": "celery",
            "mine": 1,
            "ignore_result": None,
        }
        self.assertEqual({name: seen[name] for name in expected}, expected)

    async def test_protocol_1(self) -> None:
        """celery P-01: the protocol of Celery 3.1 has the same result."""
        result = await self.app(protocol=1).send_task("echo", [1], {"a": 2}, retries=1, headers={"x-mine": 3})
        seen = await result.get()
        self.assertEqual((seen["args"], seen["kwargs"], seen["retries"], seen["id"]), ([1], {"a": 2}, 1, result.id))

    async def test_types_and_compression(self) -> None:
        """celery F-01 to F-08, E-18: what JSON has no words for goes there and back; and compressed."""
        app = self.app()
        values: list[Any] = [
            datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
            Decimal("1.10"),
            UUID(int=7),
            b"\xff\x00",
            "ä\u2603",
        ]
        for compression in (None, "gzip", "bzip2"):
            seen = await app.call_task("echo", [*values, (1, 2)], compression=compression)
            self.assertEqual(seen["args"], [*values, [1, 2]])

    async def test_failure(self) -> None:
        """celery J-01 to J-04, I-05; R27: an exception is data, with the worker's traceback."""
        app = self.app()
        result = await app.send_task("fail", ["no"])
        error = await self.failure(result.get(), RemoteError)
        self.assertEqual((error.exc_type, error.exc_module, error.exc_args), ("ValueError", "builtins", ("no", 7)))
        self.assertIn("in fail\n", error.remote_traceback)
        self.assertEqual((result.state, result.traceback), ("FAILURE", error.remote_traceback))
        self.assertTrue(result.failed())
        self.assertEqual(await result.get(propagate=False), result.result)
        error = await self.failure(app.call_task("fail_oddly"), RemoteError)
        self.assertEqual((error.exc_type, error.exc_module, error.exc_args[1]), ("Outer.Odd", Outer.__module__, "text"))
        self.assertIn("object at", error.exc_args[0])

    async def test_classes_of_our_own(self) -> None:
        """celery J-05: only what is listed, and no other class of the same name."""
        app = self.app(exceptions=[ValueError, Outer.Odd])
        error = await self.failure(app.call_task("fail", ["no"]), ValueError)
        self.assertEqual(error.args, ("no", 7))
        self.assertIsInstance(error.__cause__, RemoteError)
        await self.failure(app.call_task("fail_oddly"), Outer.Odd)
        await self.failure(app.call_task("add", [1, "a"]), RemoteError)

    async def test_what_cannot_be_run(self) -> None:
        """celery J-09 to J-11: no such task, wrong arguments, a value that cannot be sent: each fails."""
        app = self.app()
        for name, args, exc_type in (
            ("nothing", [], "NotRegistered"),
            ("add", [1], "TypeError"),
            ("unsendable", [], "EncodeError"),
        ):
            error = await self.failure(app.call_task(name, args), RemoteError)
            self.assertEqual(error.exc_type, exc_type)

    async def test_retry(self) -> None:
        """celery K-01 to K-03, O-11: RETRY is told with its exception, and ends nothing."""
        app = self.app()
        seen: list[TaskResult] = []
        result = await app.send_task("again", [2], on_state_change=seen.append)
        self.assertEqual(await result.get(), 2)
        self.assertEqual([each.state for each in seen], ["STARTED", "RETRY", "STARTED", "RETRY", "STARTED", "SUCCESS"])
        error = seen[1].error
        assert error is not None
        self.assertEqual((error.exc_type, error.exc_args), ("KeyError", ("not yet",)))
        error = await self.failure(app.call_task("again", [9]), RemoteError)
        self.assertEqual(error.exc_type, "KeyError")

    async def test_states(self) -> None:
        """celery I-07, I-08, O-12: STARTED and custom states come in order, then the end."""
        app = self.app()
        seen: list[tuple[str, Any]] = []
        result = await app.send_task(
            "progress", [2], on_state_change=lambda each: seen.append((each.state, each.value))
        )
        self.assertEqual(await result.get(), "done")
        self.assertEqual([state for state, _ in seen], ["STARTED", "PROGRESS", "PROGRESS", "SUCCESS"])
        self.assertIn("pid", seen[0][1])
        self.assertEqual(seen[2][1], {"step": 1})

    async def test_eta(self) -> None:
        """celery E-05, K-06: not before its time; a time that is past is now."""
        app = self.app()
        sent = datetime.now(UTC)
        later = await app.send_task("echo", countdown=0.6)
        past = await app.send_task("echo", eta=sent - timedelta(hours=1))
        self.assertTrue(await past.get())
        seen = await later.get()
        self.assertGreaterEqual(seen["at"], sent.timestamp() + 0.6)
        self.assertGreater(datetime.fromisoformat(seen["eta"]), sent)

    async def test_expires(self) -> None:
        """celery E-06, K-08 to K-11, D-07: too late at the worker is REVOKED; dropped by the broker is a timeout."""
        app = self.app()
        late = await app.send_task("add", [1, 2], countdown=0.4, expires=0.1)
        error = await self.failure(late.get(), TaskRevoked)
        self.assertEqual((late.state, error.exc_args), ("REVOKED", ("expired",)))
        self.assertEqual(await app.call_task("add", [1, 2], expires=60), 3)
        channel = await self.connection().channel()
        queue = self.name("nobody")
        dropped = await app.send_task("add", [1, 2], queue=queue, expires=0.05)
        await self.failure(dropped.get(0.3), RPCTimeout)
        self.assertEqual((await channel.queue_delete(queue)), 0)

    async def test_revoke(self) -> None:
        """celery K-12: a task that waits for its time is not run; cancelling a wait can do that, too."""
        app = self.app()
        result = await app.send_task("add", [1, 2], countdown=0.8)
        other = await app.send_task("add", [1, 2], countdown=0.8)
        await result.revoke()
        waiting = other.get(revoke_on_cancel=True)
        waiting.cancel()
        await self.failure(waiting, CancelledError)
        error = await self.failure(result.get(), TaskRevoked)
        self.assertEqual((result.state, error.exc_args), ("REVOKED", ("revoked",)))
        await self.failure(other.get(), TaskRevoked)
        self.assertEqual(list((await app.control.ask("ping", limit=1, timeout=30)).values()), [{"ok": "pong"}])

    async def test_ignored(self) -> None:
        """celery L-01 to L-03, L-06, J-12: nothing is sent, and nobody waits; False wants it all the same."""
        app = self.app(timeout=0.3)
        result = await app.send_task("add", [1, 2], ignore_result=True)
        self.assertIsNone(await result.get())
        self.assertEqual(result.state, "PENDING")
        await self.failure(app.call_task("quiet"), RPCTimeout)
        await self.failure(app.call_task("ignored"), RPCTimeout)
        self.assertEqual(await app.call_task("quiet", ignore_result=False, timeout=30), "heard")
        self.assertEqual(app.backend.table.counts.out_of_band, 0)

    async def test_group(self) -> None:
        """celery M-01 to M-03, A-27: in order, as completed, and the first failure; the others are absorbed."""
        app = self.app()
        group = await app.send_group([app.signature("add", [n, n]) for n in range(5)])
        self.assertEqual(await group.join(), [0, 2, 4, 6, 8])
        self.assertEqual((group.completed_count, group.successful(), await group.join()), (5, True, [0, 2, 4, 6, 8]))
        seen = await (await app.send_group([app.signature("echo"), app.signature("echo")], group_id="G")).join()
        self.assertEqual([(each["group"], each["group_index"]) for each in seen], [("G", 0), ("G", 1)])
        bad = await app.send_group(
            [
                app.signature("nap", [0.3]),
                app.signature("add", [1, 2]),
                app.signature("fail", ["b"]),
                app.signature("fail", ["c"]),
            ]
        )
        error = await self.failure(bad.join(), RemoteError)
        self.assertEqual(error.exc_args[0], "b")
        values = await bad.join(propagate=False)
        self.assertEqual((values[:2], values[3].exc_args[0], bad.failed()), (["slept", 3], "c", True))
        arriving = [task_id async for task_id, _ in bad.as_completed()]
        self.assertEqual(set(arriving), {each.id for each in bad})

    async def test_chain(self) -> None:
        """celery M-04, M-05, A-29: each gets the value before it; a failure reaches the last; a chord is refused."""
        app = self.app()
        last = await app.send_chain(
            [app.signature("add", [1, 1]), app.signature("add", [10]), app.signature("add", [5, 6], immutable=True)]
        )
        self.assertEqual(await last.get(), 11)
        middle = last.parent
        assert isinstance(middle, AsyncResult)
        assert isinstance(middle.parent, AsyncResult)
        self.assertEqual((await middle.get(), await middle.parent.get()), (12, 2))
        last = await app.send_chain([app.signature("add", [1, 1]), app.signature("fail"), app.signature("add", [10])])
        error = await self.failure(last.get(), RemoteError)
        self.assertEqual(error.exc_type, "ValueError")
        await self.failure(app.send_chord([app.signature("add")], app.signature("add")), NotSupportedByBackend)

    async def test_link(self) -> None:
        """celery M-06, H-05, O-15: what is linked has its result here, and is a child of the task."""
        app = self.app()
        result = await app.send_task("add", [1, 2], link=app.signature("add", [10]))
        self.assertEqual(await result.get(), 3)
        (child,) = result.children or []
        assert isinstance(child, AsyncResult)
        self.assertEqual(await child.get(), 13)
        failed = await app.send_task("fail", ["no"], link_error=app.signature("add", [1, 1], immutable=True))
        await self.failure(failed.get(), RemoteError)

    async def test_children(self) -> None:
        """celery A-18: the result of a task that the worker has sent is there when somebody asks for it."""
        app = self.app()
        result = await app.send_task("parent")
        self.assertEqual(await result.get(), "sent")
        await self.until(lambda: app.backend.table.counts.out_of_band)
        self.assertEqual(await app.result(f"{result.id}-child").get(), 2)

    async def test_no_queue(self) -> None:
        """R27: what goes to no queue is known at once; Celery would never say so."""
        app = self.app(create_missing_queues=False)
        error = await self.failure(app.send_task("add", [1, 2], queue="nothing-here"), NoResponder)
        self.assertEqual(error.routing_key, "nothing-here")

    async def test_pickle_is_refused(self) -> None:
        """celery D-01, C-12, N-07: neither side opens it: the worker drops the task, and the wait ends by its limit."""
        register_pickle()
        self.addCleanup(serializers.unregister, "pickle")
        app = self.app()
        await self.failure(app.call_task("add", [1, 2], serializer="pickle", timeout=0.5), RPCTimeout)
        self.assertEqual(await app.call_task("add", [1, 2]), 3)

    async def test_poison_results(self) -> None:
        """celery O-02 to O-09, 12.8: forged, broken and foreign results end nothing, and are counted."""
        app = self.app()
        result = await app.send_task("nap", [0.4])
        waiting = result.get()
        channel = await self.connection().channel()
        where = app.backend.reply_to
        for body, properties in (
            (b"{", {"content_type": "application/json", "correlation_id": result.id}),
            (b"\x80", {"content_type": "application/x-python-serialize", "correlation_id": result.id}),
            (b'{"status": "SUCCESS", "result": 1}', {"content_type": "application/json"}),
            (b'{"status": "SUCCESS", "task_id": "' + result.id.encode() + b'"}', {"content_type": "application/json"}),
            (b'{"status": "success", "result": 1, "task_id": "' + result.id.encode() + b'"}', {}),
        ):
            await channel.publish("", where, body, properties)
        await channel.publish("", where, b'{"status": "SUCCESS", "result": 1, "task_id": "other"}', {})
        self.assertEqual(await waiting, "slept")
        counts = app.backend.table.counts
        self.assertEqual((counts.undecodable, counts.out_of_band), (4, 1))
        body = b'{"status": "SUCCESS", "result": 1, "task_id": "' + result.id.encode() + b'"}'
        await channel.publish("", where, body, {"content_type": "application/json"})
        await self.until(lambda: counts.duplicate)
        self.assertEqual(await result.get(), "slept")

    async def test_worker_killed(self) -> None:
        """celery K-13: a task that is acked late is run by another worker, and its result comes."""
        app = self.app()
        queue = f"doomed-{uuid4()}"
        doomed = await self.worker(self.broker_url, queue)
        started: Deferred[None] = Deferred()
        result = await app.send_task(
            "nap_late",
            [0.5],
            queue=queue,
            on_state_change=lambda each: started.callback(None) if not started.called else None,
        )
        await started
        await self.in_thread(doomed.kill)
        self.assertEqual(result.state, "STARTED")
        await app.control.cast("add_consumer", {"queue": queue, "routing_key": queue})
        self.assertEqual(await result.get(), "slept")
        await app.control.cast("cancel_consumer", {"queue": queue})

    async def test_lost_connection(self) -> None:
        """celery A-08, A-24, 12.14: what is under way when the connection is lost has its result, too."""
        host, port = urlsplit(self.broker_url).hostname or "", urlsplit(self.broker_url).port or 5672
        proxy = DisruptionProxy(host, port)
        await proxy.start()
        self.addCleanup(proxy.stop)
        app = CeleryApp(self.broker_url.replace(f":{port}", f":{proxy.port}"), timeout=30.0)
        self.addCleanup(app.close)
        result = await app.send_task("nap", [0.3])
        waiting = result.get()
        lost: list[BaseException | None] = []
        app.connection.add_recovery_callback(lambda reason, delay: lost.append(reason))
        proxy.reset_all()
        await self.until(lambda: lost)
        follower = app.call_task("add", [1, 2])
        self.assertEqual(await waiting, "slept")
        self.assertEqual(await follower, 3)


class ClientOverBroker(OverBrokerProcess, ClientCases):
    """Over the embedded broker."""

    @pytest.mark.long
    async def test_processes_that_end(self) -> None:
        """celery J-14, J-15, 12.8: a process that was killed; time limits, the first failure of which counts."""
        queue = f"processes-{uuid4()}"
        await self.worker(self.broker_url, queue, "prefork")
        app = self.app(default_queue=queue, timeout=30.0)
        killed = await app.send_task("die")
        error = await self.failure(killed.get(), RemoteError)
        self.assertEqual((error.exc_type, error.exc_module), ("WorkerLostError", "billiard.exceptions"))
        self.assertIsNone(killed.traceback)
        error = await self.failure(app.call_task("nap", [30], soft_time_limit=0.5), RemoteError)
        self.assertEqual((error.exc_type, error.exc_args), ("SoftTimeLimitExceeded", ()))
        error = await self.failure(app.call_task("nap", [30], time_limit=0.5), RemoteError)
        self.assertEqual((error.exc_type, error.exc_args), ("TimeLimitExceeded", (0.5,)))
        self.assertEqual(await app.call_task("add", [1, 2]), 3)


class ClientOverRabbitMQ(OverRabbitMQNode, ClientCases):
    """Over RabbitMQ."""

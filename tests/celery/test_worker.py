"""The real Celery's client and our worker, over the embedded broker and RabbitMQ.

The client is a process of its own (tests.celery.client_process); the worker is in the reactor of the test.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar
from uuid import uuid4

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from tests.celery.client_process import ClientError, ClientProcess
from tests.conformance.messaging.base import MessagingCase, OverRabbitMQ, reactor
from txmsg.messaging import Connection
from txmsg.rpc.celery import build_task
from txmsg.rpc.celery.worker import CeleryWorker, Ignore, Tasks
from txmsg.testing.disruption import DisruptionProxy
from txmsg.testing.process import BrokerProcess

__all__: list[str] = []


class _Shared:
    """The one client of this module."""

    client: ClassVar[ClientProcess | None] = None


def tearDownModule() -> None:
    """End the client."""
    client, _Shared.client = _Shared.client, None
    if client is not None:
        client.close()


class WorkerCase(MessagingCase):
    """`self.worker` runs `self.tasks`; `await self.client(code)` is what the client makes of it."""

    __test__ = False
    worker: CeleryWorker

    def port(self) -> int:
        """Where the broker listens."""
        raise NotImplementedError

    async def work(self, port: int | None = None, **options: Any) -> CeleryWorker:
        """Start a worker with the tasks that the client knows the names of.

        port -- of a proxy in between.
        """
        self.queue = self.name("q")
        self.tasks = Tasks()
        self.notes: list[Any] = []
        self.tasks.task(name="add")(lambda x, y: x + y)
        self.tasks.task(name="echo")(lambda value: value)
        self.tasks.task(name="note")(self.notes.append)
        self.tasks.task(name="slow")(lambda seconds: deferLater(reactor, seconds, lambda: "slow"))

        @self.tasks.task(name="fail")
        def fail(text: str = "no") -> None:
            raise ValueError(text, 7)

        @self.tasks.task(name="again", bind=True, max_retries=2)
        async def again(request: Any, until: int) -> int:
            if request.retries < until:
                request.retry(KeyError("again"), countdown=0.05)
            return int(request.retries)

        @self.tasks.task(name="progress", bind=True, track_started=True)
        async def progress(request: Any) -> str:
            for step in range(3):
                await request.update_state(meta={"step": step})
            return "done"

        connection = Connection(self.url() if port is None else self.url().replace(f":{self.port()}", f":{port}"))
        self.addCleanup(connection.close)
        self.worker = CeleryWorker(connection, self.tasks, [self.queue], drain_timeout=0.5, **options)
        self.addCleanup(self.worker.stop)
        await self.worker.start()
        return self.worker

    def client(self, code: str) -> Deferred[Any]:
        """What the code returns in the client."""
        if _Shared.client is None:
            _Shared.client = ClientProcess()
        return self.in_thread(_Shared.client.run, self.url(), self.queue, code)

    async def fails(self, code: str) -> ClientError:
        """What the code raises in the client."""
        return await self.failure(self.client(code), ClientError)


class WorkerCases(WorkerCase):
    """One test for each thing that a client may do."""

    __test__ = False

    async def test_results(self) -> None:
        """celery A-01 to A-13, D-01 to D-06, E-02 to E-19, H-01 to H-10, F-01 to F-08: delay, apply_async, get."""
        await self.work()
        self.assertEqual(await self.client("return tasks['add'].delay(1, 2).get(timeout=10)"), 3)
        self.assertEqual(
            await self.client(
                """
                result = tasks['echo'].apply_async([{'a': [1, None, 'ä']}], headers={'x-mine': 1}, priority=5)
                value = result.get(timeout=10)
                return [value, result.status, result.children, result.traceback, result.date_done is not None]
                """
            ),
            [{"a": [1, None, "ä"]}, "SUCCESS", [], None, True],
        )
        self.assertEqual(
            await self.client(
                """
                import datetime, decimal, uuid
                values = [datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc), decimal.Decimal('1.10'),
                          uuid.UUID(int=7), b'text', b'\\xff', datetime.date(2026, 1, 2)]
                return app.send_task('echo', [values]).get(timeout=10) == values
                """
            ),
            True,
        )

    async def test_a_failure(self) -> None:
        """celery J-01 to J-05: the client raises the same class, with the traceback of our function."""
        await self.work()
        error = await self.fails("tasks['fail'].delay('text').get(timeout=10)")
        self.assertEqual((error.kind, error.arguments), ("builtins.ValueError", ["text", 7]))
        self.assertEqual(
            await self.client(
                """
                result = tasks['fail'].delay()
                result.get(timeout=10, propagate=False)
                return [result.state, result.failed(), 'in fail' in result.traceback]
                """
            ),
            ["FAILURE", True, True],
        )

    async def test_unknown_tasks_and_wrong_arguments(self) -> None:
        """celery J-09 to J-11."""
        await self.work()
        error = await self.fails("app.send_task('nobody').get(timeout=10)")
        self.assertEqual((error.kind, error.arguments), ("celery.exceptions.NotRegistered", ["nobody"]))
        self.assertEqual((await self.fails("tasks['add'].delay(1).get(timeout=10)")).kind, "builtins.TypeError")
        self.tasks.task(name="odd")(object)
        error = await self.fails("app.send_task('odd').get(timeout=10)")
        self.assertEqual(error.kind, "kombu.exceptions.EncodeError")

    async def test_retries(self) -> None:
        """celery K-01 to K-03: the client sees RETRY, and then the result; or the original exception."""
        await self.work()
        got = await self.client(
            """
            seen = []
            result = tasks['again'].delay(2)
            value = result.get(timeout=10, on_message=lambda body: seen.append([body['status'], body['task_id']]))
            return [value, [state for state, _ in seen], {id for _, id in seen} == {result.id}]
            """
        )
        self.assertEqual(got, [2, ["RETRY", "RETRY", "SUCCESS"], True])
        error = await self.fails("tasks['again'].delay(9).get(timeout=10)")
        self.assertEqual((error.kind, error.arguments), ("builtins.KeyError", ["again"]))

    async def test_states(self) -> None:
        """celery I-07, I-08, I-10: STARTED, and what a task says of itself, in order."""
        await self.work()
        got = await self.client(
            """
            seen = []
            result = tasks['progress'].delay()
            value = result.get(timeout=10, on_message=lambda body: seen.append([body['status'], body['result']]))
            return [value, seen]
            """
        )
        value, seen = got
        self.assertEqual((value, seen[0][0], seen[-1]), ("done", "STARTED", ["SUCCESS", "done"]))
        self.assertEqual(seen[1:-1], [["PROGRESS", {"step": step}] for step in range(3)])

    async def test_eta(self) -> None:
        """celery E-05, K-06: not before its time, and in nobody's way."""
        await self.work(concurrency=1, prefetch_count=1)
        got = await self.client(
            """
            import time
            begin = time.monotonic()
            later = [tasks['add'].apply_async([n, 1], countdown=0.7) for n in range(3)]
            soon = tasks['add'].delay(1, 1)
            first = soon.get(timeout=10)
            after_first = time.monotonic() - begin
            values = [each.get(timeout=10) for each in later]
            return [first, after_first < 0.6, values, time.monotonic() - begin >= 0.69]
            """
        )
        self.assertEqual(got, [2, True, [1, 2, 3], True])

    async def test_expires(self) -> None:
        """celery E-06, K-08: TaskRevokedError("expired")."""
        await self.work()
        # Without the broker's own limit, which would drop it before the worker sees it.
        error = await self.fails(
            """
            import datetime
            past = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=5)
            with app.producer_or_acquire() as producer:
                publish = producer.publish
                def without_expiration(*args, **kwargs):
                    kwargs.pop('expiration', None)
                    return publish(*args, **kwargs)
                producer.publish = without_expiration
                try:
                    result = tasks['add'].apply_async([1, 1], expires=past, producer=producer)
                finally:
                    del producer.publish
            result.get(timeout=10)
            """
        )
        self.assertEqual((error.kind, error.arguments), ("celery.exceptions.TaskRevokedError", ["expired"]))
        self.assertEqual(self.worker.counts.expired, 1)

    async def test_revoke(self) -> None:
        """celery K-12: before it runs, and while it runs."""
        await self.work()
        error = await self.fails(
            """
            result = tasks['add'].apply_async([1, 1], countdown=60)
            result.revoke()
            result.get(timeout=10)
            """
        )
        self.assertEqual((error.kind, error.arguments), ("celery.exceptions.TaskRevokedError", ["revoked"]))
        error = await self.fails(
            """
            import time
            result = tasks['slow'].delay(60)
            time.sleep(1.0)
            result.revoke(terminate=True)
            result.get(timeout=10)
            """
        )
        self.assertEqual((error.kind, error.arguments), ("celery.exceptions.TaskRevokedError", ["terminated"]))
        self.assertEqual(len(self.worker.executions_running), 0)

    async def test_ping_and_inspect(self) -> None:
        """celery K-12: `celery inspect` sees it."""
        worker = await self.work()
        got = await self.client(f"return app.control.ping(destination=[{worker.hostname!r}], timeout=1, limit=1)")
        self.assertEqual(got, [{worker.hostname: {"ok": "pong"}}])
        got = await self.client(f"return app.control.inspect([{worker.hostname!r}], timeout=2, limit=1).registered()")
        self.assertIn("add", got[worker.hostname])

    async def test_limits(self) -> None:
        """celery E-10, J-15: in the order in which Celery has them."""
        await self.work()

        @self.tasks.task(name="tidy")
        async def tidy() -> str:
            try:
                await deferLater(reactor, 60)
            except Exception as error:
                return type(error).__name__
            return "late"

        error = await self.fails("tasks['slow'].apply_async([60], time_limit=0.3).get(timeout=10)")
        self.assertEqual((error.kind, error.arguments), ("billiard.exceptions.TimeLimitExceeded", [0.3]))
        got = await self.client("return app.send_task('tidy', time_limit=9, soft_time_limit=0.2).get(timeout=10)")
        self.assertEqual(got, "SoftTimeLimitExceeded")

    async def test_groups(self) -> None:
        """celery M-01 to M-03: in the order in which they were sent; a failure is raised."""
        await self.work()
        got = await self.client(
            """
            group = celery.group(tasks['add'].s(n, n) for n in range(20))
            return group.apply_async().get(timeout=10)
            """
        )
        self.assertEqual(got, [2 * n for n in range(20)])
        error = await self.fails(
            "celery.group([tasks['add'].s(1, 1), tasks['fail'].s()]).apply_async().get(timeout=10)"
        )
        self.assertEqual(error.kind, "builtins.ValueError")

    async def test_chains(self) -> None:
        """celery M-04, M-05: the parent's results too; a failing one fails the last."""
        await self.work()
        got = await self.client(
            """
            chain = tasks['add'].s(1, 2) | tasks['add'].s(10) | tasks['add'].si(5, 5) | tasks['add'].s(100)
            result = chain.apply_async()
            return [result.get(timeout=10), result.parent.get(timeout=10), result.parent.parent.get(timeout=10)]
            """
        )
        self.assertEqual(got, [110, 10, 13])
        error = await self.fails(
            "(tasks['add'].s(1, 2) | tasks['fail'].si('middle') | tasks['add'].s(1)).apply_async().get(timeout=10)"
        )
        self.assertEqual((error.kind, error.arguments), ("builtins.ValueError", ["middle", 7]))

    async def test_ignored_results(self) -> None:
        """celery L-01 to L-06, J-12: nothing is sent, or all the same."""
        await self.work()
        self.tasks.task(name="quiet", ignore_result=True)(lambda: self.notes.append("quiet"))

        @self.tasks.task(name="ignore")
        def ignore() -> None:
            raise Ignore

        got = await self.client(
            """
            first = tasks['note'].apply_async(['x'], ignore_result=True)
            quiet = app.send_task('quiet', ignore_result=False).get(timeout=10)
            app.send_task('ignore')
            return [first.get(timeout=1), quiet, tasks['add'].delay(1, 1).get(timeout=10), first.state]
            """
        )
        self.assertEqual((got, self.notes), ([None, None, 2, "PENDING"], ["x", "quiet"]))
        self.assertEqual(self.worker.counts.ignored, 1)

    async def test_links(self) -> None:
        """celery M-06, M-07, H-05: callbacks with the result, errbacks with the id; children at the client."""
        await self.work()
        got = await self.client(
            """
            result = tasks['add'].apply_async([1, 2], link=tasks['note'].s())
            value = result.get(timeout=10)
            failed = tasks['fail'].apply_async(link_error=tasks['note'].s())
            failed.get(timeout=10, propagate=False)
            return [value, len(result.children), failed.id]
            """
        )
        self.assertEqual(got[:2], [3, 1])
        await self.until(lambda: len(self.notes) == 2)
        self.assertEqual(self.notes, [3, got[2]])

    async def test_pickle_is_refused(self) -> None:
        """celery N-07, D-01: not decoded, and the client is told."""
        await self.work()
        error = await self.fails("tasks['add'].apply_async([1, 1], serializer='pickle').get(timeout=10)")
        self.assertEqual(error.kind, "kombu.exceptions.ContentDisallowed")

    async def test_compression_and_protocol_1(self) -> None:
        """celery E-18, 5.1: zlib under the name of gzip; 3.1's form."""
        await self.work()
        got = await self.client("return tasks['echo'].apply_async(['x' * 5000], compression='gzip').get(timeout=10)")
        self.assertEqual(got, "x" * 5000)
        got = await self.client(
            """
            app.conf.task_protocol = 1
            app.__dict__.pop('amqp', None)
            try:
                return tasks['add'].delay(20, 1).get(timeout=10)
            finally:
                app.conf.task_protocol = 2
                app.__dict__.pop('amqp', None)
            """
        )
        self.assertEqual(got, 21)

    async def test_a_lost_connection(self) -> None:
        """celery A-14: the worker's connections are lost while tasks run: each client gets its result, and a task
        with late acks is run once more.
        """
        proxy = DisruptionProxy("127.0.0.1", self.port())
        await proxy.start()
        self.addCleanup(proxy.stop)
        worker = await self.work(port=proxy.port)
        runs: list[int] = []

        @self.tasks.task(name="late", acks_late=True)
        def late() -> Deferred[int]:
            runs.append(1)
            return deferLater(reactor, 0.5 if len(runs) == 1 else 0, len, runs)

        waiting = self.client(
            """
            results = [app.send_task('late'), tasks['slow'].delay(0.5), tasks['add'].apply_async([1, 2], countdown=1)]
            return [each.get(timeout=15) for each in results]
            """
        )
        await self.until(lambda: len(worker.executions_running) == 2 and len(worker.executions_held) == 1)
        self.assertGreaterEqual(proxy.reset_all(), 2)
        number, slow, added = await waiting
        self.assertIn(number, (1, 2))
        self.assertEqual((slow, added), ("slow", 3))
        await self.until(lambda: not worker.executions_running)
        self.assertEqual((len(runs), worker.counts.unanswered), (2, 0))

    async def test_what_cannot_be_answered(self) -> None:
        """celery N-01 to N-04: an id that fits into no property; messages that crash Celery's own worker."""
        worker = await self.work()
        channel = await self.connection().channel()
        plain = {"content_type": "application/json", "content_encoding": "utf-8", "reply_to": str(uuid4())}
        for body, headers in (
            (b"[[], {}, {}]", {"task": "fail", "id": "x" * 3000}),
            (b"[[], {}]", {"task": "add", "id": "1"}),
            (b"", {"task": "add", "id": "1"}),
            (b"[[], {}, {}]", {"task": "add"}),
        ):
            await channel.publish("", self.queue, body, {**plain, "headers": headers})
        self.assertEqual(await self.client("return tasks['add'].delay(1, 1).get(timeout=10)"), 2)
        await self.until(lambda: not worker.executions_running)
        self.assertEqual((worker.counts.bad, worker.counts.unanswered), (4, 0))
        await self.until_depth(self.queue, 0)

    async def test_direct_replies_that_are_made_up(self) -> None:
        """C6.1: RabbitMQ 3.10 closes the connection for some of them; the results of others are not lost with it."""
        worker = await self.work()
        channel = await self.connection().channel()
        tokens = f"{'A' * 22}.{'A' * 22}"  # the embedded broker's: these RabbitMQ cannot decode, either
        for rest in ("..", "garbage", "AAAA.BBBB", tokens):
            message = build_task("add", [1, 1], reply_to=f"amq.rabbitmq.reply-to.{rest}")
            await channel.publish("", self.queue, message.body, message.properties)
        got = await self.client(
            "return [each.get(timeout=10) for each in [tasks['add'].delay(1, 1) for _ in range(9)]]"
        )
        self.assertEqual(got, [2] * 9)
        await self.until(lambda: worker.counts.succeeded == 13 and not worker.executions_running)
        self.assertIn(worker.counts.unanswered, (3, 4))

    async def test_a_blocking_task(self) -> None:
        """In a thread, with progress from there."""
        await self.work()

        @self.tasks.task(name="block", thread=True, bind=True)
        def block(request: Any) -> int:
            request.update_state(meta=1)
            return asyncio.run(asyncio.sleep(0.05, 5))

        got = await self.client(
            """
            seen = []
            result = app.send_task('block')
            result.get(timeout=10, on_message=lambda body: seen.append([body['status'], body['result']]))
            return seen
            """
        )
        self.assertEqual(got, [["PROGRESS", 1], ["SUCCESS", 5]])

    async def test_the_queue(self) -> None:
        """celery 4.1, and section 12, 13: Celery declares it, before and after us, without a 406."""
        await self.work()
        await self.client(
            """
            with app.connection() as connection:
                queue = app.amqp.queues[app.conf.task_default_queue]
                queue(connection.default_channel).declare()
            """
        )
        self.assertEqual(await self.client("return tasks['add'].delay(1, 1).get(timeout=10)"), 2)


class WorkerOverBroker(WorkerCases):
    """The embedded broker, in a process of its own for the class."""

    __test__ = True
    broker: ClassVar[BrokerProcess]

    @classmethod
    def setUpClass(cls) -> None:
        """Start the broker."""
        cls.broker = BrokerProcess().start()

    @classmethod
    def tearDownClass(cls) -> None:
        """End it, without waiting for the client to hang up."""
        tearDownModule()
        cls.broker.close()

    def url(self) -> str:
        """For guest."""
        return self.broker.url

    def port(self) -> int:
        """Where it listens."""
        return self.broker.port


class WorkerOverRabbitMQ(OverRabbitMQ, WorkerCases):
    """A real one."""

    def port(self) -> int:
        """Where it listens."""
        return self.node.port

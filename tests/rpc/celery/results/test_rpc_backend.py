"""RPCBackend: what is sent, to whom, and what becomes of what comes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.rpc.celery.results.case import ResultCase
from txmsg.errors import (
    BacklogLimitExceeded,
    ConfigurationError,
    ConnectionClosed,
    EncodeError,
    NotSupportedByBackend,
    PreconditionFailed,
    RemoteError,
    RPCTimeout,
    TaskRevoked,
    TxmsgError,
)
from txmsg.messaging import Connection, Queue, RetryIntervals
from txmsg.rpc.celery.failures import ExceptionClasses
from txmsg.rpc.celery.result_message import Child, TaskResult
from txmsg.rpc.celery.results import RESULT_RETRY_POLICY, ResultBackend, RPCBackend


class StoringTests(ResultCase):
    """celery A-03 to A-06, A-12 to A-14: the worker's side."""

    def reply(self, **more: Any) -> Any:
        """What a task says of where its result goes."""
        return SimpleNamespace(reply_to=self.backend.reply_to, correlation_id="c", **more)

    def raw(self) -> Any:
        """The next message in the client's queue, which nobody consumes."""
        return self.done(self.channel.get(self.backend.reply_to))

    def test_what_is_sent(self) -> None:
        """celery A-03 to A-05, H-01 to H-08, D-08: the body and properties of 5.4, to the default exchange."""
        self.done(self.backend.reply_queue(self.channel).declare())
        request = self.reply(group_id="g", parent_id="p", children=[Child("kid")])
        self.assertEqual(self.done(self.worker.store_result("t", 3, "SUCCESS", request=request)), "SUCCESS")
        got = self.raw()
        self.assertEqual((got.exchange, got.routing_key), ("", self.backend.reply_to))
        properties = {name: value for name, value in got.properties.items() if name != "headers"}
        self.assertEqual(
            properties,
            {
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "delivery_mode": 1,
                "priority": 0,
                "correlation_id": "c",
            },
        )
        body = json.loads(got.body)
        self.assertTrue(body.pop("date_done").endswith("+00:00"))
        self.assertEqual(
            body,
            {
                "task_id": "t",
                "status": "SUCCESS",
                "result": 3,
                "traceback": None,
                "children": [[["kid", None], None]],
                "group_id": "g",
                "parent_id": "p",
            },
        )

    def test_persistent(self) -> None:
        """celery A-04: delivery_mode 2 where it is asked for."""
        self.done(self.backend.reply_queue(self.channel).declare())
        durable = RPCBackend(self.connection, persistent=True)
        self.done(durable.store_result("t", 3, "SUCCESS", request=self.reply()))
        self.assertEqual(self.raw().properties["delivery_mode"], 2)
        self.done(durable.close())

    def test_to_whom(self) -> None:
        """celery A-05, A-06, A-12, N-15; C6.1: nowhere, a queue that is gone, or one that is none for replies."""
        worker = self.worker
        self.assertEqual(worker.destination_for("t", SimpleNamespace(reply_to="q", correlation_id="c")), ("q", "c"))
        self.assertEqual(worker.destination_for("t", SimpleNamespace(reply_to=None)), ("", "t"))
        self.assertRaises(RuntimeError, worker.destination_for, "t", None)
        self.failureResultOf(worker.store_result("t", 1, "SUCCESS"), RuntimeError)
        for reply_to, sent in (
            (None, None),
            ("", None),
            (self.backend.oid, "SUCCESS"),  # there is no such queue yet
            ("0" * 32, "SUCCESS"),
            ("amq.gen-xyz", "SUCCESS"),
            (f"amq.rabbitmq.reply-to.{'a' * 22}.{'b' * 22}", "SUCCESS"),
            (
                "amq.rabbitmq.reply-to.g1.x",
                None,
            ),  # no broker makes such a name
            ("orders", None),
            ("celery", None),
            (f"orders-{self.backend.oid}", None),
        ):
            request = SimpleNamespace(reply_to=reply_to, correlation_id="c")
            self.assertEqual(self.done(worker.store_result("t", 1, "SUCCESS", request=request)), sent, reply_to)
        self.assertEqual(worker.unsendable, 4)
        self.assertNotIn(self.backend.oid, self.transport.vhost(self.url).queues)
        more = RPCBackend(self.connection, reply_prefixes=["orders."])
        request = SimpleNamespace(reply_to="orders.replies", correlation_id="c")
        self.assertEqual(self.done(more.store_result("t", 1, "SUCCESS", request=request)), "SUCCESS")
        self.done(more.close())
        self.assertRaises(ConfigurationError, RPCBackend, self.connection, reply_prefixes=[""])

    def test_failures(self) -> None:
        """celery J-01, J-04, J-08, J-11: an exception, a Failure, the data of one; what cannot be sent is a FAILURE."""
        record = self.table.record("t")
        self.done(self.backend.ready())
        try:
            raise ValueError("no")
        except ValueError:
            failure = Failure()
        self.assertEqual(self.store("t", failure, "RETRY"), "RETRY")
        assert record.message is not None
        self.assertIn("ValueError: no", record.message.traceback or "")
        data = {"exc_type": "Odd", "exc_message": ["x"], "exc_module": "m"}
        self.store("t", data, "RETRY")
        self.assertEqual(str(record.message.error), "Odd: x")
        self.assertEqual(self.store("t", object()), "FAILURE")
        assert record.message.error is not None
        self.assertEqual((record.state, record.message.error.exc_type), ("FAILURE", "EncodeError"))
        for result, state in ((None, "FAILURE"), ("text", "REVOKED"), (1, "PENDING")):
            stored = self.worker.store_result("u", result, state, request=self.request())
            self.failureResultOf(stored, ConfigurationError)
        self.failureResultOf(self.worker.store_result("u", object(), "MINE", request=self.request()), EncodeError)

    def test_retries(self) -> None:
        """celery A-14, B-16: at once, then about a second each, 20 in all; then it is logged, and nothing fails."""
        self.assertEqual(
            RESULT_RETRY_POLICY, RetryIntervals(max_retries=20, interval_start=0, interval_step=1, interval_max=1)
        )
        self.assertEqual(sum(RESULT_RETRY_POLICY.wait(number) for number in range(1, 21)), 19)
        self.assertEqual(RPCBackend(self.connection, retry_policy={"max_retries": 2}).retry_policy.max_retries, 2)
        lost = RPCBackend(Connection("amqp://127.0.0.1:1", reactor=self.clock))
        stored = lost.store_result("t", 1, "SUCCESS", request=self.request())
        self.done(lost.connection.close())
        self.assertIsNone(self.done(stored))
        self.assertEqual(lost.unsendable, 1)

    def test_retried(self) -> None:
        """celery A-14: a result that is sent when the connection is lost is sent again."""
        self.done(self.backend.ready())
        self.store("warm", 1)
        self.cut()
        stored = self.worker.store_result("t", 2, "SUCCESS", request=self.request())
        self.turn(1.0)
        self.turn(1.0)
        self.assertEqual(self.done(stored), "SUCCESS")
        self.assertEqual(self.table.record("t").state, "SUCCESS")


class ReadingTests(ResultCase):
    """celery A-18 to A-22, A-25, A-35, O-01 to O-15: the client's side."""

    def test_waiting(self) -> None:
        """celery A-07, A-20, B-09, B-13: the final state; at once where it is there."""
        record = self.done(self.backend.on_task_call("t"))
        self.assertEqual((record.task_id, self.backend.is_ready), ("t", True))
        waiting = self.backend.wait_for("t")
        self.store("t", state="STARTED", result={})
        self.assertNoResult(waiting)
        self.store("t", 3)
        self.assertEqual(self.done(waiting).value, 3)
        self.assertEqual(self.successResultOf(self.backend.wait_for("t")).value, 3)

    def test_errors(self) -> None:
        """celery B-14, I-05, J-05: FAILURE and REVOKED fail the wait, if they are to; RETRY does not."""
        waiting = self.backend.wait_for("t")
        self.turn()
        self.store("t", ValueError("no"), "RETRY")
        self.assertNoResult(waiting)
        self.store("t", ValueError("no"), "FAILURE")
        self.assertEqual(self.failureResultOf(waiting, RemoteError).value.exc_args, ("no",))
        self.assertEqual(self.done(self.backend.wait_for("t", propagate=False)).state, "FAILURE")
        self.store("r", {"exc_type": "TaskRevokedError", "exc_message": ["expired"], "exc_module": "x"}, "REVOKED")
        self.failureResultOf(self.backend.wait_for("r"), TaskRevoked)
        self.store("o", {"exc_type": "system", "exc_message": ["id"], "exc_module": "os"}, "FAILURE")
        self.assertIs(type(self.failureResultOf(self.backend.wait_for("o")).value), RemoteError)

    def test_listener(self) -> None:
        """celery I-08: each state, while somebody waits; then no more."""
        seen: list[str] = []

        def listen(each: TaskResult) -> None:
            seen.append(each.state)

        waiting = self.backend.wait_for("t", 5, on_state_change=listen)
        self.turn()
        self.store("t", 1, "MINE")
        self.turn(5)
        self.failureResultOf(waiting, RPCTimeout)
        self.store("t", 1, "OTHER")
        self.assertEqual((seen, self.table.record("t").listeners), (["MINE"], []))

    def test_polling(self) -> None:
        """celery A-15, A-17, A-19: the newest that has come; PENDING is nothing, of a task that never was, too."""
        self.assertIsNone(self.done(self.backend.poll("t")))
        self.store("t", 1, "ONE")
        self.store("t", 2, "TWO")
        newest = self.done(self.backend.get_task_meta("t"))
        assert newest is not None
        self.assertEqual((newest.state, newest.value), ("TWO", 2))

    def test_what_is_no_result(self) -> None:
        """celery O-02 to O-09, J-05; C5.1: counted, and whoever waits goes on waiting."""
        waiting = self.backend.wait_for("t")
        self.turn()
        json_type = {"content_type": "application/json"}
        self.publish(b"{", correlation_id="t", **json_type)
        self.publish(b"[]", correlation_id="t", **json_type)
        self.publish(b"\x80\x04N.", correlation_id="t", content_type="application/x-python-serialize")
        self.publish(b'{"status": "SUCCESS", "result": 1}', **json_type)
        self.publish(b'{"result": 1, "task_id": "t"}', **json_type)
        self.publish(b'{"status": "SUCCESS", "task_id": "t"}', **json_type)
        self.assertNoResult(waiting)
        self.assertEqual(self.table.counts.undecodable, 6)
        self.publish(b'{"status": "SUCCESS", "result": 1, "task_id": "t"}')
        self.assertEqual(self.done(waiting).value, 1)
        self.assertEqual(self.depth(self.backend.reply_to), (0, 0))

    def test_timeouts(self) -> None:
        """R27: the backend's where nothing is said; none that is not a number."""
        waiting = self.backend.wait_for("t")
        self.turn(9.9)
        self.assertNoResult(waiting)
        self.turn(0.2)
        self.failureResultOf(waiting, RPCTimeout)
        self.failureResultOf(self.backend.wait_for("t", timeout=-1), ConfigurationError)
        for wrong in (0, -1, None, "5"):
            self.assertRaises(ConfigurationError, RPCBackend, self.connection, timeout=wrong)
            self.assertRaises(ConfigurationError, RPCBackend, self.connection, expires=wrong)

    def test_no_connection(self) -> None:
        """A wait fails with why nothing can come."""
        self.done(self.connection.close())
        self.failureResultOf(self.backend.wait_for("t"), ConnectionClosed)
        self.assertEqual((self.table.waiting, self.clock.getDelayedCalls()), (0, []))

    def test_limits_of_messages(self) -> None:
        """celery A-28: what a store of results would have is refused, and not ignored."""
        backend = self.backend
        for refused in (
            backend.save_group("g", None),
            backend.restore_group("g"),
            backend.delete_group("g"),
            backend.reload_task_result("t"),
            backend.reload_group_result("g"),
        ):
            self.failureResultOf(refused, NotSupportedByBackend)
        self.assertTrue(issubclass(NotSupportedByBackend, NotImplementedError))
        self.assertIn("more than 3 messages", str(BacklogLimitExceeded("t", 3)))

    def test_flags(self) -> None:
        """celery A-02, A-26, A-27, A-30, A-31: what is said of it."""
        backend = self.backend
        self.assertEqual(backend.as_uri(), "rpc://")
        self.assertTrue(backend.supports_autoexpire and backend.supports_native_join)
        self.assertEqual(backend.reply_queue, Queue(backend.oid, durable=True, expires=86400.0))
        self.assertEqual(RPCBackend(self.connection, oid="me").reply_to, "me")
        self.assertNotEqual(RPCBackend(self.connection).oid, RPCBackend(self.connection).oid)
        kinds = ExceptionClasses([ValueError])
        self.assertIs(RPCBackend(self.connection, exceptions=kinds).exceptions, kinds)
        self.assertNotIn("guest", repr(backend))
        plain = ResultBackend(self.connection)
        self.assertEqual(plain.reply_to, "")
        for unmade in (lambda: plain.destination_for("t", None), plain.ready, lambda: plain.get_task_meta("t")):
            self.assertRaises(NotImplementedError, unmade)

    def test_closing(self) -> None:
        """Whoever waits fails, the queue goes, and nothing begins any more."""
        waiting = self.backend.wait_for("t")
        self.turn()
        self.assertIn(self.backend.oid, self.transport.vhost(self.url).queues)
        closing: Deferred[None] = self.backend.close()
        self.done(closing)
        self.failureResultOf(waiting, TxmsgError)
        self.assertNotIn(self.backend.oid, self.transport.vhost(self.url).queues)
        self.failureResultOf(self.backend.wait_for("t"), TxmsgError)


class LosingTests(ResultCase):
    """R27: when no result can come any more, whoever waits is told so."""

    def test_the_connection_is_closed(self) -> None:
        """At once, with the connection's own error; and the same again for the next one."""
        waiting = self.backend.wait_for("a", 300)
        self.turn()
        self.done(self.connection.close())
        self.turn(1)
        self.failureResultOf(waiting, ConnectionClosed)
        self.failureResultOf(self.backend.wait_for("a", 300), ConnectionClosed)

    def test_it_is_refused(self) -> None:
        """The queue was deleted, and somebody has declared its name otherwise."""
        waiting = self.backend.wait_for("a", 300)
        self.turn()
        sender = self.done(self.connect().channel())
        deleting = sender.queue_delete(self.backend.reply_to)
        declaring = sender.queue_declare(self.backend.reply_to)
        self.done(deleting)
        self.done(declaring)
        self.turn()
        self.failureResultOf(waiting, PreconditionFailed)

    def test_closed(self) -> None:
        """A backend that was closed makes no queue any more."""
        self.done(self.backend.ready())
        self.done(self.backend.close())
        self.failureResultOf(self.backend.ready(), TxmsgError)
        self.failureResultOf(self.backend.get_task_meta("a"), TxmsgError)
        self.assertNotIn(self.backend.reply_to, self.transport.vhost(self.url).queues)

    def test_wrong_ids(self) -> None:
        """Typed, and at once."""
        self.failureResultOf(self.backend.wait_for(5), ConfigurationError)  # type: ignore[arg-type]
        self.assertRaises(ConfigurationError, self.backend.get_many, [5])

    def test_frames_are_not_kept(self) -> None:
        """What is raised is made anew: the frames of whoever waits do not stay with what is kept."""
        self.done(self.backend.ready())
        self.backend.table.record("a")
        self.store("a", ValueError("v"), "FAILURE")
        first = self.failureResultOf(self.backend.wait_for("a"), RemoteError).value
        second = self.failureResultOf(self.backend.wait_for("a"), RemoteError).value
        self.assertIsNot(first, second)
        self.assertEqual((first.args, str(first)), (second.args, str(second)))
        kept = self.backend.table.record("a").message
        assert kept is not None
        assert kept.error is not None
        self.assertIsNone(kept.error.__traceback__)

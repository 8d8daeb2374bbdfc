"""CeleryApp: what is sent, when, and what becomes of it; the worker is the test."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from twisted.internet.defer import Deferred

from tests.rpc.celery.app_case import AppCase
from txmsg.errors import (
    ConfigurationError,
    ConnectionClosed,
    DecodeError,
    EncodeError,
    NoResponder,
    NotSent,
    NotSupportedByBackend,
    OperationTimeout,
    PreconditionFailed,
    RemoteError,
    RPCTimeout,
    SerializerNotInstalled,
    TxmsgError,
)
from txmsg.messaging import Connection, Exchange, Queue, RetryIntervals
from txmsg.rpc.celery import Child, Signature, TaskRequest, parse_task
from txmsg.rpc.celery.app import CeleryApp
from txmsg.rpc.celery.results import AMQPBackend, AsyncResult, GroupResult, RPCBackend


class SendingTests(AppCase):
    """celery 4.1 to 4.4, 11.1, 11.2."""

    def test_one_task(self) -> None:
        """celery D-01 to D-08, A-07, 12.1: the raw message; the queue for results is consumed before it is there."""
        result = self.sent("add", [1, 2], {"k": 3})
        vhost = self.transport.vhost(self.url)
        self.assertIn(self.app.backend.reply_to, vhost.queues)
        got = self.raw()
        self.assertEqual((got.exchange, got.routing_key, json.loads(got.body)[:2]), ("", "celery", [[1, 2], {"k": 3}]))
        properties = {name: value for name, value in got.properties.items() if name != "headers"}
        self.assertEqual(
            properties,
            {
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "correlation_id": result.id,
                "reply_to": self.app.backend.reply_to,
                "delivery_mode": 2,
                "priority": 0,
            },
        )
        self.assertEqual(
            (got.properties["headers"]["id"], got.properties["headers"]["root_id"]), (result.id, result.id)
        )
        self.assertEqual(repr(result), f"<AsyncResult add {result.id}: PENDING>")

    def test_options(self) -> None:
        """celery D-06, D-07, E-04 to E-19: each argument has its place."""
        self.sent(
            "add",
            countdown=5,
            expires=60,
            priority=4,
            headers={"x": 1},
            retries=2,
            time_limit=9,
            soft_time_limit=8,
            ignore_result=False,
            group_id="g",
            group_index=1,
            root_id="r",
            parent_id="p",
            shadow="s",
            argsrepr="***",
            kwargsrepr="***",
            delivery_mode=1,
            compression="gzip",
            task_id="T",
        )
        got = self.raw()
        request = parse_task(got.body, got.properties)
        assert isinstance(request, TaskRequest)
        self.assertEqual((got.properties["expiration"], got.properties["delivery_mode"]), ("60000", 1))
        self.assertEqual(got.properties["headers"]["compression"], "application/x-gzip")
        expected: dict[str, Any] = {
            "task_id": "T",
            "eta": datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC),
            "expires": datetime(2026, 11, 21, 12, 1, tzinfo=UTC),
            "priority": 4,
            "own_headers": {"x": 1},
            "retries": 2,
            "time_limit": 9,
            "soft_time_limit": 8,
            "ignore_result": False,
            "group_id": "g",
            "group_index": 1,
            "root_id": "r",
            "parent_id": "p",
            "shadow": "s",
            "argsrepr": "***",
            "kwargsrepr": "***",
        }
        self.assertEqual({name: getattr(request, name) for name in expected}, expected)

    def test_settings(self) -> None:
        """What the app says holds where the task says nothing."""
        self.app = self.make(serializer="msgpack", compression="gzip", priority=7, protocol=1, default_queue="main")
        self.sent("add", [1])
        got = self.raw("main")
        self.assertEqual((got.properties["content_type"], got.properties["priority"]), ("application/x-msgpack", 7))
        self.assertEqual(got.properties["headers"], {"compression": "application/x-gzip"})
        self.sent("add", [1], serializer="json", priority=0, protocol=2)
        self.assertEqual(self.task("main").priority, 0)

    def test_where_to(self) -> None:
        """celery 4.1: another queue is declared as Celery does; an exchange of one's own; a route."""
        self.app = self.make(routes={"slow": "slow"})
        self.sent("slow")
        self.assertEqual(self.task("slow").name, "slow")
        queue = Queue("q", Exchange("x", "topic"), "k.#")
        self.sent("add", queue=queue)
        self.sent("add", exchange=Exchange("x", "topic"), routing_key="k.1")
        self.sent("add", exchange="x", routing_key="k.2")
        self.assertEqual([self.raw("q").routing_key for _ in range(3)], ["k.#", "k.1", "k.2"])
        self.failureResultOf(self.app.send_task("add", routing_key="k"), ConfigurationError)
        self.failureResultOf(self.app.send_task("add", exchange="x"), ConfigurationError)

    def test_no_queue(self) -> None:
        """11.2: known at once, if that is wanted; nothing is waited for then."""
        self.app = self.make(create_missing_queues=False)
        sending = self.app.send_task("add", queue="nowhere", task_id="t")
        self.turn()
        error = self.failureResultOf(sending, NoResponder).value
        self.assertEqual((error.exchange, error.routing_key), ("", "nowhere"))
        self.assertEqual(len(self.app.backend.table), 0)
        self.sent("add", queue="nowhere", mandatory=False)

    def test_declared_otherwise(self) -> None:
        """12.13: 406, and the next task can go."""
        self.done(self.channel.queue_declare("celery", durable=False))
        sending = self.app.send_task("add")
        self.turn()
        self.failureResultOf(sending, PreconditionFailed)
        self.sent("add", queue="other")

    def test_what_is_not_sent(self) -> None:
        """celery K-07, 8.1: what a worker could not read; all of them fail the Deferred, and nothing is left."""
        for args, options, error in (
            (["add", "text"], {}, ConfigurationError),
            (["add", None, [1]], {}, ConfigurationError),
            ([""], {}, ConfigurationError),
            (["add", [object()]], {}, EncodeError),
            (["add"], {"eta": "tomorrow"}, ConfigurationError),
            (["add"], {"expires": "never"}, ConfigurationError),
            (["add"], {"priority": 1000}, ConfigurationError),
            (["add"], {"task_id": ""}, ConfigurationError),
            (["add"], {"serializer": "nothing"}, SerializerNotInstalled),
            (["add"], {"protocol": 3}, ConfigurationError),
            (["add"], {"link": Signature("celery.chord", (), {})}, NotSupportedByBackend),
        ):
            self.failureResultOf(self.app.send_task(*args, **options), error)
        self.assertEqual(len(self.app.backend.table), 0)

    def test_reply_to_somebody_else(self) -> None:
        """The result is theirs: there is nothing to wait for here."""
        result = self.sent("add", reply_to="theirs")
        self.assertEqual((self.task().reply_to, result.is_ignored), ("theirs", True))
        self.assertIsNone(self.done(result.get()))

    def test_ignored(self) -> None:
        """celery L-05: reply_to all the same, but no queue for results is made."""
        result = self.sent("add", ignore_result=True)
        request = self.task()
        self.assertEqual((request.ignore_result, request.reply_to), (True, self.app.backend.reply_to))
        self.assertNotIn(self.app.backend.reply_to, self.transport.vhost(self.url).queues)
        self.assertIsNone(self.done(result.get()))


class ResultTests(AppCase):
    """celery 11.3 to 11.7."""

    def test_value(self) -> None:
        """The states are told, the value is the result."""
        states: list[str] = []
        result = self.sent("add", [1, 2], on_state_change=lambda each: states.append(each.state))
        request = self.task()
        self.answer(request, {"done": 1}, "MINE")
        self.answer(request, 3)
        self.assertEqual((self.done(result.get()), states), (3, ["MINE", "SUCCESS"]))
        self.assertEqual(self.app.result(result.id).result, 3)

    def test_call_task(self) -> None:
        """Send and wait in one; the limit is for the result."""
        calling = self.app.call_task("add", [1], timeout=3)
        self.turn()
        self.answer(self.task(), 5)
        self.assertEqual(self.done(calling), 5)
        calling = self.app.call_task("add", [1], timeout=3)
        self.turn(3)
        self.failureResultOf(calling, RPCTimeout)

    def test_exceptions(self) -> None:
        """celery J-05: what is listed is built, and nothing else."""
        self.app = self.make(exceptions=[KeyError])
        for error, expected in ((KeyError("k"), KeyError), (ValueError("v"), RemoteError)):
            calling = self.app.call_task("add")
            self.turn()
            self.answer(self.task(), error, "FAILURE")
            self.failureResultOf(calling, expected)

    def test_group(self) -> None:
        """celery M-01: one group id, places, ids of their own; what was sent is forgotten where one cannot be."""
        signature = self.app.signature
        group = self.done(self.app.send_group([signature("a", [n]) for n in range(3)], group_id="G"))
        self.assertEqual((group.id, len(group)), ("G", 3))
        requests = [self.task() for _ in range(3)]
        self.assertEqual([(each.group_id, each.group_index) for each in requests], [("G", 0), ("G", 1), ("G", 2)])
        joined = group.join()
        for request in reversed(requests):
            self.answer(request, request.args[0])
        self.assertEqual(self.done(joined), [0, 1, 2])
        known = len(self.app.backend.table)
        sending = self.app.send_group([signature("a"), signature("b", [object()])])
        self.turn()
        self.failureResultOf(sending, EncodeError)
        self.assertEqual(len(self.app.backend.table), known)
        self.failureResultOf(self.app.send_group([]), ConfigurationError)
        again = self.app.group_result("G", group_ids := [each.id for each in group])
        self.assertEqual((again.successful(), [each.id for each in again]), (True, group_ids))

    def test_chain(self) -> None:
        """celery M-04, 12.10: in reverse order, each with its id and our queue; results of all of them come."""
        signature = self.app.signature
        last = self.done(self.app.send_chain([signature("a", [1]), signature("b"), signature("c", immutable=True)]))
        request = self.task()
        self.assertEqual([each.task for each in request.embed.chain], ["c", "b"])
        self.assertEqual({each.reply_to for each in request.embed.chain}, {self.app.backend.reply_to})
        self.assertEqual([each.task_id for each in request.embed.chain], [last.id, last.parent.id])  # type: ignore[union-attr]
        first = last.parent.parent  # type: ignore[union-attr]
        assert isinstance(first, AsyncResult)
        self.assertEqual((first.id, request.root_id), (request.task_id, request.task_id))
        self.answer(request, 5)
        self.assertEqual(self.done(first.get()), 5)
        self.failureResultOf(self.app.send_chain([]), ConfigurationError)
        sending = self.app.send_chain([signature("a", [object()]), signature("b")])
        self.turn()
        self.failureResultOf(sending, EncodeError)
        self.assertEqual(len(self.app.backend.table), 3)

    def test_signatures(self) -> None:
        """A task, or a chain in one; a group is another thing."""
        app = self.app
        result = self.done(app.send_signature(app.signature("a", [1])))
        self.assertEqual(self.task().task_id, result.id)
        tasks = [app.signature("a").as_data(), app.signature("b").as_data()]
        chain = Signature("celery.chain", (), {"tasks": tasks}, subtask_type="chain")
        self.done(app.send_signature(chain))
        self.assertEqual([each.task for each in self.task().embed.chain], ["b"])
        self.failureResultOf(app.send_signature(Signature("celery.chain", subtask_type="chain")), DecodeError)
        self.failureResultOf(app.send_signature(Signature("celery.group", subtask_type="group")), ConfigurationError)

    def test_chords(self) -> None:
        """celery A-29, M-08, M-09: refused at once, and nothing was sent."""
        group = Signature("celery.group", (), {"tasks": []}, subtask_type="group")
        chord = Signature("celery.chord", subtask_type="chord")
        signature = self.app.signature
        for refused in (
            self.app.send_chord([signature("a")], signature("b")),
            self.app.send_chain([group, signature("b")]),
            self.app.send_chain([chord]),
            self.app.send_group([chord]),
            self.app.send_signature(chord),
            self.app.send_task("a", link_error=[group]),
        ):
            self.failureResultOf(refused, NotSupportedByBackend)

    def test_links(self) -> None:
        """celery M-06, M-07: with ids, and with our queue for their results."""
        link = self.app.signature("b", [1])
        self.sent("a", link=link, link_error=[self.app.signature("c")])
        embed = self.task().embed
        self.assertEqual([each.task for each in (*embed.callbacks, *embed.errbacks)], ["b", "c"])
        self.assertEqual(embed.callbacks[0].reply_to, self.app.backend.reply_to)
        self.assertTrue(embed.callbacks[0].task_id)
        self.assertEqual(link.options, {})

    def test_kept_handles(self) -> None:
        """celery A-28: a handle again from what stands for it."""
        child = Child("g", Child("p"), (Child("a", Child("x")), Child("b")))
        group = self.app.result_from(child)
        assert isinstance(group, GroupResult)
        self.assertEqual(group.as_child(), child)


class LifeTests(AppCase):
    """Beginning, losing the connection, and the end."""

    def test_as_a_context(self) -> None:
        """Ready for results inside, and all closed after it; whoever waits fails."""
        app = self.make()
        got: list[Deferred[Any]] = []

        async def keep() -> None:
            async with app:
                got.append((await app.send_task("add")).get())
                self.assertIn(app.backend.reply_to, self.transport.vhost(self.url).queues)

        self.run_async(keep())
        self.failureResultOf(got[0], TxmsgError)
        self.assertNotIn(app.backend.reply_to, self.transport.vhost(self.url).queues)
        self.assertFalse(app.connection.connected)
        self.failureResultOf(app.send_task("add"), TxmsgError)
        self.assertIn("CeleryApp", repr(app))

    def test_connections_of_others(self) -> None:
        """A connection, or a backend, that was given stays open."""
        backend = RPCBackend(self.connection)
        app = CeleryApp(self.connection, backend=backend)
        self.done(app.send_task("add"))
        self.done(app.close())
        self.assertTrue(self.connection.connected)
        self.assertIn(backend.reply_to, self.transport.vhost(self.url).queues)
        self.done(backend.close())
        self.done(self.connection.close())

    def test_after_a_loss(self) -> None:
        """celery A-08, 12.14: the queue for results is there, and consumed, for the first task after it."""
        result = self.sent("add", [1])
        request = self.task()
        self.cut()
        self.done(self.worker.connection.connect())
        sending = self.app.send_task("add", [2])
        self.turn(1)
        self.turn(1)
        second = self.done(sending)
        self.channel = self.done(self.connection.channel())
        self.answer(request, 10)
        self.answer(self.task(), 20)
        self.assertEqual((self.done(result.get()), self.done(second.get())), (10, 20))

    def test_no_broker(self) -> None:
        """It fails with why, after its retries; without retries at once."""
        app = CeleryApp("memory://", reactor=self.clock)
        self.done(app.connection.close())
        self.failureResultOf(app.send_task("add"), ConnectionClosed)
        self.failureResultOf(app.send_task("add", ignore_result=True, retry=False), ConnectionClosed, NotSent)
        self.done(app.close())

    def test_no_answer(self) -> None:
        """R27: a queue for results that does not get ready, or a command that does not leave, has an end."""
        self.patch(RPCBackend, "ready", lambda backend: Deferred())
        sendings = [self.app.send_task("add"), self.app.send_chain([self.app.signature("add")])]
        self.turn(29)
        for sending in sendings:
            self.assertNoResult(sending)
        self.turn(1)
        for sending in sendings:
            self.failureResultOf(sending, OperationTimeout)
        self.patch(self.app.control.mailbox, "abcast", lambda command, arguments: Deferred())
        revoking = self.app.control.revoke("t")
        self.turn(30)
        self.failureResultOf(revoking, OperationTimeout)

    def test_the_amqp_backend(self) -> None:
        """celery B-01, B-06: no reply_to, a queue for each task."""
        self.app = self.make(backend="amqp")
        result = self.sent("add")
        request = self.task()
        self.assertIsNone(request.reply_to)
        worker = AMQPBackend(self.worker.connection)
        self.done(worker.store_result(request.task_id, 4, "SUCCESS", request=request))
        self.assertEqual(self.done(result.get()), 4)

    def test_settings(self) -> None:
        """ConfigurationError for what cannot be used, with nothing opened."""
        for wrong in (
            {"backend": "redis"},
            {"timeout": 0},
            {"publish_timeout": 0},
            {"max_in_flight": 0},
            {"retry_policy": {"tries": 3}},
        ):
            with self.assertRaises((ConfigurationError, TypeError), msg=str(wrong)):
                self.make(**wrong).start()
        app = CeleryApp(Connection("memory://x"), retry_policy=RetryIntervals(max_retries=1), backend="rpc://")
        self.assertFalse(app.connection.connected)

"""What goes on after a task: chains, links, errbacks, groups."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet.defer import Deferred, fail

from tests.rpc.celery.worker.worker_case import WorkerCase
from txmsg.errors import OperationalError
from txmsg.rpc.celery import Embed, Signature, chain


class FollowingCase(WorkerCase):
    """With some tasks."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.tasks.task(name="add")(lambda x, y: x + y)
        self.tasks.task(name="fail")(lambda *args: 1 // 0)
        self.tasks.task(name="note")(self.calls.append)
        self.tasks.task(name="none")(lambda: 0)

    def call_chain(self, *signatures: Signature) -> tuple[str, ...]:
        """Send a chain, as a client does; the ids."""
        made = chain(signatures, reply_to=self.reply_to)
        first = made.first
        self.call(first.task, *first.args, task_id=first.task_id, embed=Embed(chain=made.rest))
        return made.task_ids

    def raw_chain(self, queue: str) -> Any:
        """The next message of a queue: its body, headers and reply_to."""
        delivery = self.done(self.channel.get(queue, no_ack=True))
        return json.loads(delivery.body), delivery.properties["headers"], delivery.properties["reply_to"]


class ChainTests(FollowingCase):
    """celery M-04, M-05, and section 12, 10."""

    def test_a_chain(self) -> None:
        """celery M-04: each with the result of the one before it, under the client's ids."""
        self.work()
        ids = self.call_chain(Signature("add", (1, 2)), Signature("add", (10,)), Signature("add", (100,)))
        self.assertEqual([(each.task_id, each.value) for each in self.got], list(zip(ids, (3, 13, 113), strict=True)))
        self.assertEqual([child.task_id for child in self.got[0].children], [ids[1]])
        self.assertEqual([each.parent_id for each in self.got], [None, ids[0], ids[1]])

    def test_the_message_of_the_next(self) -> None:
        """celery M-04: immutable gets no result; root, parent, and what is left of the chain go on."""
        self.done(self.channel.queue_declare("other"))
        self.work()
        ids = self.call_chain(
            Signature("add", (1, 2)),
            Signature("add", (1,)),
            Signature("none", options={"queue": "other", "priority": 5}, immutable=True),
            Signature("add", (1,)),
        )
        (args, kwargs, embed), headers, reply_to = self.raw_chain("other")
        self.assertEqual((args, kwargs, reply_to), ([], {}, self.reply_to))
        self.assertEqual((headers["id"], headers["root_id"], headers["parent_id"]), (ids[2], ids[0], ids[1]))
        self.assertEqual([each["options"]["task_id"] for each in embed["chain"]], [ids[3]])

    def test_a_failing_element(self) -> None:
        """celery M-05: those that do not run fail with the same exception."""
        self.work()
        ids = self.call_chain(Signature("fail"), Signature("add", (1,)), Signature("add", (1,)))
        self.assertEqual({each.task_id for each in self.got}, set(ids))
        self.assertEqual({self.error(each)[0] for each in ids}, {"ZeroDivisionError"})
        self.assertEqual({"in <lambda>" in (self.last(each).traceback or "") for each in ids}, {True})

    def test_an_unknown_element(self) -> None:
        """celery J-09, M-05: NotRegistered for it and for the rest."""
        self.work()
        ids = self.call_chain(Signature("add", (1, 1)), Signature("nobody"), Signature("add", (1,)))
        self.assertEqual([self.states(each) for each in ids], [["SUCCESS"], ["FAILURE"], ["FAILURE"]])
        self.assertEqual(self.error(ids[2]), ("NotRegistered", "celery.exceptions", ("nobody",)))

    def test_a_chain_that_was_called_off(self) -> None:
        """The client of a chain does not wait for what will not run."""
        self.work()
        ids = self.call_chain(Signature("add", (1, 1)), Signature("add", (1,)))
        self.got.clear()
        self.worker.control.revoke(task_id="x")
        made = chain([Signature("add", (1, 1)), Signature("add", (1,))], reply_to=self.reply_to)
        self.call("add", 1, 1, task_id="x", embed=Embed(chain=made.rest))
        self.assertEqual(self.states(), ["REVOKED", "REVOKED"])
        self.assertNotIn(ids[0], [each.task_id for each in self.got])

    def test_a_queue_that_is_not_there(self) -> None:
        """It is declared as Celery does it, and the task waits in it."""
        self.work()
        self.call_chain(Signature("add", (1, 2)), Signature("add", (3,), options={"queue": "later"}))
        self.assertEqual(self.depth("later"), (1, 0))
        self.assertIn("later", self.transport.vhost(self.url).exchanges)

    def test_a_group_at_its_end(self) -> None:
        """Each member gets the result; their results have the group's id."""
        self.work()
        members = [
            Signature("add", (n,), options={"task_id": f"m{n}", "reply_to": self.reply_to}).as_data() for n in (1, 2)
        ]
        group = Signature("celery.group", (), {"tasks": members}, {"task_id": "g"}, "group")
        self.call("add", 1, 1, embed=Embed(chain=(group,)))
        members_got = {each.task_id: (each.value, each.group_id) for each in self.got if each.task_id[0] == "m"}
        self.assertEqual(members_got, {"m1": (3, "g"), "m2": (4, "g")})
        children = [child for each in self.got for child in each.children]
        self.assertEqual([each.task_id for each in children], ["g"])
        self.assertEqual([member.task_id for member in children[0].members or ()], ["m1", "m2"])

    def test_a_chord_is_refused(self) -> None:
        """celery M-08, M-09: what would need a chord is a failure with a clear text."""
        self.work()
        chord = Signature("celery.chord", (), {}, {"task_id": "c", "reply_to": self.reply_to}, "chord")
        self.call("add", 1, 1, embed=Embed(chain=(chord,)))
        self.assertEqual(self.error("c")[0], "ConfigurationError")
        self.assertIn("chords", self.error("c")[2][0])

    def test_a_result_that_cannot_go_on(self) -> None:
        """celery J-11, M-05: no next task runs with it."""
        self.tasks.task(name="odd")(lambda: object())
        self.work()
        ids = self.call_chain(Signature("odd"), Signature("note"))
        self.assertEqual([self.error(each)[0] for each in ids], ["EncodeError", "EncodeError"])
        self.assertEqual(self.calls, [])

    def test_without_a_broker_for_what_follows(self) -> None:
        """celery K-05: with late acks the task is run again; with early ones its client, and the rest's, are told."""
        runs: list[str] = []
        self.tasks.task(name="early")(lambda: runs.append("early"))
        self.tasks.task(name="late", acks_late=True)(lambda: runs.append("late"))
        self.work()
        worker, send_task = self.worker, self.worker.outgoing.send_task
        failures = [1, 1]

        def away(*args: Any) -> Deferred[None]:
            if failures:
                failures.pop()
                return fail(OperationalError("no broker"))
            return send_task(*args)

        worker.outgoing.send_task = away  # type: ignore[assignment]
        ids = self.call_chain(Signature("early"), Signature("none"))
        self.assertEqual([self.error(each)[0] for each in ids], ["OperationalError"] * 2)
        ids = self.call_chain(Signature("late"), Signature("none", immutable=True))
        self.assertEqual((runs, self.depth("celery")), (["early", "late", "late"], (0, 0)))
        self.assertEqual([self.states(each) for each in ids], [["SUCCESS"], ["SUCCESS"]])

    def test_the_header_of_a_chord(self) -> None:
        """celery M-08: the task itself is answered; the body is not run."""
        self.work()
        self.call("add", 1, 1, embed=Embed(chord=Signature("note")))
        self.assertEqual((self.last().value, self.calls), (2, []))


class LinkTests(FollowingCase):
    """celery M-06, M-07."""

    def test_links(self) -> None:
        """celery M-06: each is sent with the result; a chain can be one."""
        self.work()
        steps = [Signature("add", (10,)).as_data(), Signature("note").as_data()]
        links = (Signature("note"), Signature("celery.chain", (), {"tasks": steps}, {}, "chain"))
        self.call("add", 1, 2, embed=Embed(callbacks=links))
        self.assertEqual((self.calls, self.states()), ([3, 13], ["SUCCESS"]))
        self.assertEqual(len(self.last().children), 2)

    def test_no_links_after_a_failure(self) -> None:
        """Callbacks are for results."""
        self.work()
        self.call("fail", embed=Embed(callbacks=(Signature("note"),)))
        self.assertEqual(self.calls, [])

    def test_errbacks(self) -> None:
        """celery M-07: with one parameter it is sent, with the failed id; with more it is called here."""
        rich: list[Any] = []

        @self.tasks.task(name="rich")
        def richer(request: Any, error: BaseException, traceback: str) -> None:
            rich.append((request.id, type(error), "ZeroDivisionError" in traceback))

        @self.tasks.task(name="one")
        def one(task_id: str) -> None:
            self.calls.append(task_id)

        self.work()
        task_id = self.call("fail", embed=Embed(errbacks=(Signature("one"), Signature("rich"))))
        self.assertEqual((self.calls, rich), ([task_id], [(task_id, ZeroDivisionError, True)]))
        self.assertEqual(self.states(), ["FAILURE"])

    def test_an_errback_that_never_ends(self) -> None:
        """The client does not wait for it."""
        self.tasks.task(name="report")(lambda request, error, traceback: Deferred())
        self.work()
        self.call("fail", embed=Embed(errbacks=(Signature("report"),)))
        self.assertEqual(self.states(), ["FAILURE"])

    def test_an_errback_that_fails(self) -> None:
        """It is logged; the task's own failure is sent all the same."""

        @self.tasks.task(name="broken")
        def broken(request: Any, error: Any, traceback: Any) -> None:
            raise KeyError("errback")

        self.work()
        self.call("fail", embed=Embed(errbacks=(Signature("broken"),)))
        self.assertEqual(self.error()[0], "ZeroDivisionError")
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

"""CeleryApp: what it is asked for is what it does, or is refused; and what it keeps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred

from tests.rpc.celery.app_case import AppCase
from txmsg.errors import ConfigurationError, NoResponder, TxmsgError
from txmsg.rpc.celery import Signature
from txmsg.rpc.celery.app import CeleryApp
from txmsg.rpc.celery.results import RPCBackend


class ArgumentTests(AppCase):
    """R27: typed errors, and nothing is sent."""

    def test_a_chain_in_a_signature(self) -> None:
        """It is sent as it was asked for: with this listener, and no other way than a chain."""
        app = self.app
        tasks = [app.signature("a").as_data(), app.signature("b").as_data()]
        chain = Signature("celery.chain", (), {"tasks": tasks}, subtask_type="chain")
        seen: list[Any] = []
        last = self.done(app.send_signature(chain, on_state_change=seen.append))
        request = self.task()
        self.answer(replace(request, task_id=last.id), 1)
        self.assertEqual([each.task_id for each in seen], [last.id])
        nowhere = app.signature("a", queue="nowhere").as_data()
        self.app.queues.create_missing = False
        chain = Signature("celery.chain", (), {"tasks": [nowhere, tasks[1]]}, subtask_type="chain")
        self.failureResultOf(self.wait(app.send_signature(chain)), NoResponder)
        self.done(app.send_signature(chain, mandatory=False))
        self.failureResultOf(self.wait(app.send_signature(chain, protocol=1)), ConfigurationError)

    def test_wrong_arguments(self) -> None:
        """ConfigurationError from the Deferred, and nothing was sent."""
        app: Any = self.app
        for refused in (
            app.send_task(5),
            app.send_task("a", link="b"),
            app.send_task("a", link=5),
            app.send_task("a", link=[{"task": "b"}]),
            app.send_task("a", delivery_mode=3),
            app.send_task("a", retry_policy=5),
            app.send_group(5),
            app.send_group([5]),
            app.send_chain([{"task": "b"}]),
            app.send_signature(5),
        ):
            self.failureResultOf(self.wait(refused), ConfigurationError)
        self.assertRaises(ConfigurationError, app.signature, "a", prioritty=3)
        self.assertRaises(ConfigurationError, app.result_from, 5)
        self.assertIsNone(self.done(self.channel.get("celery")) if "celery" in self.queues() else None)

    def test_links_of_signatures(self) -> None:
        """celery M-06: a link of a task in a group comes here, too."""
        linked = self.app.signature("a", link=self.app.signature("b"))
        self.done(self.app.send_group([linked]))
        (following,) = self.task().embed.callbacks
        self.assertEqual((following.task, following.reply_to), ("b", self.app.backend.reply_to))

    def test_ignored_ones_take_no_place(self) -> None:
        """celery L-06: tasks that nobody answers push out none that is waited for later."""
        result = self.sent("add")
        for _ in range(3):
            ignored = self.sent("add", ignore_result=True)
        self.assertEqual(len(self.app.backend.table), 1)
        self.assertTrue(ignored.is_ignored)
        self.assertIsNone(self.done(ignored.get()))
        self.answer(self.task(), 1)
        self.assertEqual(self.done(result.get()), 1)

    def test_a_handle_that_was_dropped(self) -> None:
        """celery A-18: its result is found all the same."""
        self.app = self.make(backend=RPCBackend(self.connection, max_kept=1))
        result, other = self.sent("add"), self.sent("add")
        self.assertIsNone(self.app.backend.table.peek(result.id))
        self.answer(self.task(), 1)
        self.assertEqual((result.state, other.state), ("SUCCESS", "PENDING"))
        self.assertEqual(self.done(result.get()), 1)

    def test_after_the_end(self) -> None:
        """A task that waits for the queue for results when the app is closed is not sent; it is not started again."""
        ready: Deferred[None] = Deferred()
        backend = RPCBackend(self.connection)
        app = CeleryApp(self.connection, backend=backend)
        self.patch(backend, "ready", lambda: ready)
        sending = app.send_task("add")
        self.done(app.close())
        ready.callback(None)
        self.turn()
        self.failureResultOf(sending, TxmsgError)
        self.assertNotIn("celery", self.queues())
        self.failureResultOf(app.start(), TxmsgError)
        self.done(self.connection.close())

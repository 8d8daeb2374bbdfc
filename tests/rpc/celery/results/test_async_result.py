"""AsyncResult: what is known of a task, and waiting for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed

from tests.rpc.celery.results.case import ResultCase
from txmsg.errors import ConfigurationError, RemoteError, RPCTimeout, TxmsgError
from txmsg.rpc.celery.result_message import Child
from txmsg.rpc.celery.results import AsyncResult, GroupResult


class AsyncResultTests(ResultCase):
    """celery 11.3 to 11.7."""

    def setUp(self) -> None:
        """The queue is there."""
        super().setUp()
        self.done(self.backend.ready())
        self.revoked: list[Any] = []

    def result(self, task_id: str = "t", **more: Any) -> AsyncResult:
        """A handle with a control that notes what it is told."""

        def revoke(ids: Any, **how: Any) -> Deferred[None]:
            self.revoked.append((ids, how))
            return succeed(None)

        control: Any = SimpleNamespace(revoke=revoke)
        return AsyncResult(task_id, self.backend, **{"control": control, **more})

    def test_what_is_known(self) -> None:
        """celery I-01 to I-05, A-19: PENDING, a custom state, an exception that ends nothing, the end."""
        result = self.result(task_name="add")
        self.assertEqual((result.state, result.status, result.result, result.info), ("PENDING", "PENDING", None, None))
        self.assertEqual((result.traceback, result.date_done, result.children), (None, None, None))
        self.assertFalse(result.ready() or result.successful() or result.failed())
        self.store("t", {"done": 1}, "MINE")
        self.assertEqual((result.state, result.info, result.ready()), ("MINE", {"done": 1}, False))
        self.store("t", ValueError("v"), "RETRY")
        self.assertIsInstance(result.result, RemoteError)
        self.assertFalse(result.ready())
        self.store("t", ValueError("v"), "FAILURE")
        self.assertTrue(result.ready() and result.failed())
        self.assertIsNotNone(result.date_done)
        self.assertEqual(repr(result), "<AsyncResult add t: FAILURE>")
        self.assertRaises(ConfigurationError, self.result, "")

    def test_get(self) -> None:
        """celery B-09, B-14: the value, as often as one likes; an error is raised, or is the value."""
        result = self.result()
        first, second = result.get(), result.get(propagate=False)
        self.store("t", [1])
        self.assertEqual((self.done(first), self.done(second), self.done(result.get(0))), ([1], [1], [1]))
        bad = self.result("bad")
        self.store("bad", KeyError("k"), "FAILURE")
        error = self.failureResultOf(bad.get(), RemoteError).value
        self.assertEqual(str(error), "KeyError: k")
        self.assertEqual(str(self.done(bad.get(propagate=False))), "KeyError: k")
        self.assertEqual(self.done(bad.wait_for()).state, "FAILURE")
        waiting = self.result("other").get(1)
        self.turn(1)
        self.failureResultOf(waiting, RPCTimeout)

    def test_states(self) -> None:
        """celery I-08, O-12: listeners hear each state, the last one included, and no other task's."""
        heard: list[str] = []
        while_waiting: list[str] = []

        def removed(each: object) -> None:
            raise AssertionError("it was taken away")

        result = self.result(on_state_change=lambda each: heard.append(each.state))
        result.on_state_change(removed)
        result.remove_state_listener(removed)
        result.remove_state_listener(removed)
        self.store("t", 1, "ONE")
        waiting = result.get(on_state_change=lambda each: while_waiting.append(each.state))
        self.store("other", 1, "STRANGE")
        self.store("t", 1, "TWO")
        self.store("t", 1)
        self.store("t", 1)
        self.assertEqual((heard, while_waiting), (["ONE", "TWO", "SUCCESS"], ["TWO", "SUCCESS"]))
        self.assertEqual(self.done(waiting), 1)
        result.on_state_change(removed)
        self.store("t", 1)

    def test_poll(self) -> None:
        """celery B-15: the state by now."""
        result = self.result()
        self.assertEqual(self.done(result.poll()), "PENDING")
        self.store("t", 1, "MINE")
        self.assertEqual(self.done(result.poll()), "MINE")

    def test_ignored(self) -> None:
        """celery L-06: None, at once; a result that comes all the same is the result."""
        result = self.result()
        result.ignore()
        self.assertTrue(result.is_ignored)
        self.assertIsNone(self.done(result.get()))
        self.store("t", 5)
        self.assertEqual(self.done(result.get()), 5)

    def test_cancelling(self) -> None:
        """Ends that one wait; and revokes the task, if that is wanted."""
        result = self.result()
        kept, plain, strong = result.get(), result.get(), result.get(revoke_on_cancel=True)
        for waiting in (plain, strong):
            waiting.cancel()
            self.failureResultOf(waiting, CancelledError)
        self.assertEqual(self.revoked, [(["t"], {"terminate": False, "signal": "SIGTERM"})])
        self.store("t", 1)
        self.assertEqual(self.done(kept), 1)

    def test_revoking(self) -> None:
        """celery K-12: as the control does it; what fails when a wait is cancelled is logged."""
        self.done(self.result().revoke(terminate=True, signal="SIGKILL"))
        self.assertEqual(self.revoked, [(["t"], {"terminate": True, "signal": "SIGKILL"})])
        self.failureResultOf(AsyncResult("t", self.backend).revoke(), ConfigurationError)
        broken: Any = SimpleNamespace(revoke=lambda ids, **how: fail(TxmsgError("no")))
        waiting = self.result(control=broken).get(revoke_on_cancel=True)
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)

    def test_forgetting(self) -> None:
        """celery A-33: whoever waits is cancelled, and what comes is dropped."""
        result = self.result()
        waiting = result.get()
        result.forget()
        self.failureResultOf(waiting, CancelledError)
        self.store("t", 1)
        self.assertEqual((result.state, self.table.counts.late), ("PENDING", 1))

    def test_two_handles(self) -> None:
        """celery A-18: of one task; also where the table has forgotten it in between."""
        first = self.result()
        self.table._kept.clear()
        second = self.result()
        self.store("t", 1)
        self.assertEqual((first.state, second.state, first, {first}), ("SUCCESS", "SUCCESS", second, {second}))
        self.assertNotEqual(first, self.result("other"))

    def test_children(self) -> None:
        """celery H-05, O-15: tasks and groups, with their parents; what `as_child` gives is Celery's form."""
        result = self.result(parent=self.result("mother"))
        kids = [Child("kid", Child("t")), Child("g", None, (Child("a"), Child("b")))]
        self.store("t", 1, children=kids)
        kid, group = result.children or []
        assert isinstance(kid, AsyncResult)
        assert isinstance(kid.parent, AsyncResult)
        assert isinstance(group, GroupResult)
        self.assertEqual((kid.id, kid.parent.id, [each.id for each in group]), ("kid", "t", ["a", "b"]))
        self.assertEqual(result.as_child().as_data(), [["t", [["mother", None], None]], None])
        self.assertEqual(group.as_child(), kids[1])

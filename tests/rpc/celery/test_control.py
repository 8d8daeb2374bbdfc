"""Control: what workers are told."""

from __future__ import annotations

import gc
from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, NotSent, OperationTimeout
from txmsg.messaging.pidbox import Mailbox
from txmsg.rpc.celery.control import Control


class ControlTests(MemoryCase):
    """celery K-12."""

    def setUp(self) -> None:
        """Two workers of ours, which listen as Celery's do."""
        super().setUp()
        self.told: list[tuple[str, dict[str, Any]]] = []
        connection = self.connect()
        self.addCleanup(self.turn)
        self.addCleanup(connection.close)
        self.addCleanup(self.connection.close)
        mailbox = Mailbox("celery", type="fanout", connection=connection)
        for name in ("one@host", "two@host"):

            def revoke(state: Any, name: str = name, **arguments: Any) -> None:
                self.told.append((name, arguments))

            def ping(state: Any) -> Any:
                return {"ok": "pong"}

            node = mailbox.Node(name, handlers={"revoke": revoke, "ping": ping})
            self.done(node.listen())
        self.control = Control(self.connection)

    def test_revoke(self) -> None:
        """To all, with the arguments that Celery's workers read; or to some."""
        self.done(self.control.revoke("t"))
        self.turn()
        expected = {"task_id": "t", "terminate": False, "signal": None}
        self.assertEqual(self.told, [("one@host", expected), ("two@host", expected)])
        self.told.clear()
        self.done(self.control.revoke(["a", "b"], terminate=True, signal="SIGKILL", destination=["two@host"]))
        self.turn()
        self.assertEqual(self.told, [("two@host", {"task_id": ["a", "b"], "terminate": True, "signal": "SIGKILL"})])
        for wrong in ("", [], [""], [1]):
            self.failureResultOf(self.control.revoke(wrong), ConfigurationError)  # type: ignore[arg-type]

    def test_ping(self) -> None:
        """The answers by name: all that come in time, those of the named, or so many."""
        pong = {"ok": "pong"}
        asked = self.control.ping(2)
        self.turn(2)
        self.assertEqual(self.done(asked), {"one@host": pong, "two@host": pong})
        self.assertEqual(self.done(self.control.ping(destination=["one@host"])), {"one@host": pong})
        self.assertEqual(len(self.done(self.control.ask("ping", limit=1))), 1)
        self.done(self.control.close())

    def test_one_name(self) -> None:
        """A str is the name of one worker, not of one for each of its letters; what is no name is said to be."""
        self.done(self.control.revoke("t", destination="two@host"))
        self.turn()
        self.assertEqual([name for name, _ in self.told], ["two@host"])
        self.assertEqual(self.done(self.control.ping(destination="one@host")), {"one@host": {"ok": "pong"}})
        self.failureResultOf(self.control.revoke(5), ConfigurationError)  # type: ignore[arg-type]
        for wrong in ([""], [5]):
            self.failureResultOf(self.control.cast("x", destination=wrong), ConfigurationError)  # type: ignore[arg-type]
            self.failureResultOf(self.control.ask("x", destination=wrong), ConfigurationError)  # type: ignore[arg-type]

    def test_no_answer_and_no_connection(self) -> None:
        """R27: asking has an end also while nothing can be sent."""
        self.patch(self.control.mailbox, "multi_call", lambda *args, **kwargs: Deferred())
        asked = self.control.ask("ping", timeout=2)
        self.turn(31)
        self.assertNoResult(asked)
        self.turn(1)
        self.failureResultOf(asked, OperationTimeout)

    def test_closed_while_a_question_leaves(self) -> None:
        """R28: it fails once, and nothing is left that nobody reads."""
        leaving: list[Deferred[None]] = [Deferred()]
        self.patch(self.control.mailbox, "_publish", lambda *args: leaving[0])
        asked = self.control.ask("ping")
        self.turn()
        self.done(self.control.close())
        leaving[0].errback(NotSent("closed"))
        self.failureResultOf(asked, NotSent)
        del asked, leaving[:]
        gc.collect()
        self.assertEqual(self.flushLoggedErrors(), [])

"""ReplyQueue: there before anything is sent, and again after a loss."""

from __future__ import annotations

from typing import Any

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import PreconditionFailed
from txmsg.messaging import Queue
from txmsg.rpc.celery.results.reply_queue import ReplyQueue


class ReplyQueueTests(MemoryCase):
    """celery A-08 to A-11, A-21, A-22, A-24, G-04, P-06, 12.14."""

    def setUp(self) -> None:
        """One that notes what comes."""
        super().setUp()
        self.seen: list[bytes] = []
        self.replies = ReplyQueue(
            self.connection, Queue("r", durable=True, expires=60), lambda each: self.seen.append(each.body)
        )
        self.addCleanup(self.turn)
        self.addCleanup(self.connection.close)

    def sender(self) -> Any:
        """A channel of another process."""
        return self.done(self.connect().channel())

    def test_ready(self) -> None:
        """Declared, consumed, acked; once only."""
        self.assertFalse(self.replies.is_ready)
        first, second = self.replies.ready(), self.replies.ready()
        self.done(first)
        self.done(second)
        self.done(self.replies.ready())
        self.assertTrue(self.replies.is_ready)
        self.send("r", b"1", b"2")
        self.assertEqual((self.seen, self.depth("r")), ([b"1", b"2"], (0, 0)))
        queue = self.transport.vhost(self.url).queues["r"]
        self.assertEqual((queue.durable, queue.exclusive, queue.auto_delete), (True, False, False))

    def test_what_comes_while_it_is_away(self) -> None:
        """celery A-24: it waits in the queue, and comes after the loss."""
        self.done(self.replies.ready())
        self.cut()
        self.assertFalse(self.replies.is_ready)
        self.done(self.sender().publish("", "r", b"meanwhile"))
        self.turn(2)
        self.assertTrue(self.replies.is_ready)
        self.assertEqual(self.seen, [b"meanwhile"])

    def test_deleted(self) -> None:
        """Somebody deletes it: it is made anew."""
        self.done(self.replies.ready())
        self.done(self.sender().queue_delete("r"))
        self.turn()
        self.assertTrue(self.replies.is_ready)
        self.send("r", b"1")
        self.assertEqual(self.seen, [b"1"])

    def test_declared_otherwise(self) -> None:
        """celery G-01 to G-04: 406 where somebody has declared the name otherwise; it can be tried again."""
        self.done(self.channel.queue_declare("r"))
        self.turn()
        self.failureResultOf(self.replies.ready(), PreconditionFailed)
        self.done(self.sender().queue_delete("r"))
        self.done(self.replies.ready())
        self.assertTrue(self.replies.is_ready)

    def test_deleted_and_declared_otherwise(self) -> None:
        """It is said in the log, and tried again with the next task."""
        self.done(self.replies.ready())
        sender = self.sender()
        deleting = sender.queue_delete("r")
        declaring = sender.queue_declare("r")
        self.done(deleting)
        self.done(declaring)
        self.assertFalse(self.replies.is_ready)
        self.failureResultOf(self.replies.ready(), PreconditionFailed)

    def test_a_broken_handler(self) -> None:
        """What it raises is logged; the message is acked, and the next one comes."""
        replies = ReplyQueue(self.connection, Queue("r"), lambda each: 1 / len(each.body[1:]))
        self.done(replies.ready())
        self.send("r", b"1", b"12")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.depth("r"), (0, 0))

    def test_closing(self) -> None:
        """The queue goes, with what is in it; before it was ready there is nothing to close; twice is fine."""
        self.done(self.replies.close())
        self.done(self.replies.ready())
        self.done(self.replies.close())
        self.assertNotIn("r", self.transport.vhost(self.url).queues)
        self.done(self.replies.close())
        self.assertIn("not ready", repr(self.replies))
        self.done(self.replies.ready())
        self.done(self.connection.close())
        self.done(self.replies.close())

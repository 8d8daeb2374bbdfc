"""ReplySender: where replies may go, and what becomes of them while there is no channel."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.messaging.over_memory import MemoryCase
from txmsg.errors import ConfigurationError, ConnectionLost
from txmsg.messaging.serialization import Encoded
from txmsg.rpc import ServerCounts, replies
from txmsg.rpc.replies import ReplySender

REPLY = Encoded("application/json", "utf-8", b"{}")


class ReplySenderTests(MemoryCase):
    """On a connection that comes when the test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.counts = ServerCounts()
        self.ready: Deferred[Any] = Deferred()
        self.sender_connection = self.connect()
        original = self.sender_connection.transport_connection
        self.patch(self.sender_connection, "transport_connection", lambda: self.ready.addCallback(lambda _: original()))
        self.sender = ReplySender(self.sender_connection)
        self.done(self.channel.queue_declare("replies"))

    def reply(self, count: int = 1) -> None:
        for _ in range(count):
            self.sender.send("replies", "1", REPLY, self.counts)

    def test_where(self) -> None:
        """C6.1: names that brokers make, and prefixes that were configured."""
        for name in (f"amq.rabbitmq.reply-to.{'a' * 22}.{'b' * 22}", "amq.gen-x"):
            self.assertTrue(self.sender.may_reply_to(name))
        for name in (
            "",
            "orders",
            "amq.rabbitmq.reply-to",
            "amq.rabbitmq.reply-to.x",
            "amq.gen",
            " amq.gen-x",
            "AMQ.gen-x",
        ):
            self.assertFalse(self.sender.may_reply_to(name))
        self.assertTrue(ReplySender(self.connection, "r.").may_reply_to("r.1"))
        for wrong in ([""], [None], [b"x"]):
            self.assertRaises(ConfigurationError, ReplySender, self.connection, wrong)

    def test_they_wait(self) -> None:
        """Until there is a channel, in order and within a bound; the others are counted."""
        self.patch(replies, "_WAITING_MOST", 3)
        self.reply(5)
        self.assertEqual(self.counts.unsent, 2)
        self.ready.callback(None)
        self.turn()
        self.assertEqual(self.depth("replies"), (3, 0))
        self.reply()
        self.assertEqual(self.depth("replies"), (4, 0))

    def test_no_connection(self) -> None:
        """It cannot be made: they are dropped and counted, and the next one tries again."""
        self.reply(2)
        self.ready.errback(ConnectionLost("no"))
        self.turn()
        self.assertEqual(self.counts.unsent, 2)
        self.ready = Deferred()
        self.reply()
        self.ready.callback(None)
        self.turn()
        self.assertEqual(self.depth("replies"), (1, 0))

    def test_close(self) -> None:
        """Nothing is sent, and nothing stays open, also where it was just being opened."""
        self.reply()
        self.done(self.sender.close())
        self.assertEqual(self.counts.unsent, 1)
        self.reply()
        self.assertEqual(self.counts.unsent, 2)
        self.ready.callback(None)
        self.turn()
        self.assertEqual(self.depth("replies"), (0, 0))
        self.assertIsNone(self.sender._channel)
        self.done(self.sender.close())

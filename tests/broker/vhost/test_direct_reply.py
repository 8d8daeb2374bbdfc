"""txmsg.broker.vhost.direct_reply, and what the virtual host does with its names."""

from __future__ import annotations

import unittest

from tests.broker.model import make_vhost, publish, taken_by
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import ROUTED, UNROUTED
from txmsg.broker.vhost.direct_reply import REPLY_TO, DirectReply, is_reply_name


class Asker:
    """A channel that consumes its replies."""

    def __init__(self) -> None:
        self.replies: list[Message] = []

    def reply_received(self, message: Message) -> None:
        self.replies.append(message)


class NameTests(unittest.TestCase):
    """The names."""

    def test_form(self) -> None:
        """C7.5: RabbitMQ's prefix, and what nobody can guess; never the same twice."""
        replies, asker = DirectReply(), Asker()
        names = {replies.register(asker) for _ in range(100)}
        self.assertEqual(len(names), 100)
        for name in names:
            self.assertRegex(name, r"\Aamq\.rabbitmq\.reply-to\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{22}\Z")
            self.assertTrue(is_reply_name(name))

    def test_is_reply_name(self) -> None:
        """Queues of nearly that name are queues."""
        self.assertTrue(is_reply_name(REPLY_TO))
        self.assertTrue(is_reply_name(REPLY_TO + ".bad"))
        for name in ("", "amq.rabbitmq.reply", REPLY_TO + "x", "q"):
            self.assertFalse(is_reply_name(name), name)

    def test_exists(self) -> None:
        """R34: queue.declare finds the general name, and that of a channel while it consumes."""
        replies = DirectReply()
        name = replies.register(Asker())
        self.assertTrue(replies.exists(REPLY_TO))
        self.assertTrue(replies.exists(name))
        self.assertFalse(replies.exists(REPLY_TO + ".bad"))
        replies.unregister(name)
        replies.unregister(name)
        self.assertFalse(replies.exists(name))
        self.assertEqual(len(replies), 0)


class PublishTests(unittest.TestCase):
    """Replies."""

    def setUp(self) -> None:
        self.vhost = make_vhost()
        self.asker = Asker()
        self.name = self.vhost.direct_reply.register(self.asker)

    def test_reply(self) -> None:
        """R34: it arrives as it was published, and counts as not routed, so a mandatory one is returned too."""
        self.assertEqual(publish(self.vhost, "", self.name, b"reply", correlation_id="c"), UNROUTED)
        (reply,) = self.asker.replies
        self.assertEqual((reply.exchange, reply.routing_key, reply.body), ("", self.name, b"reply"))
        self.assertEqual(reply.decoded_properties.correlation_id, "c")

    def test_every_reply_arrives(self) -> None:
        """No route of a name is remembered."""
        for _ in range(3):
            publish(self.vhost, "", self.name)
        self.assertEqual(len(self.asker.replies), 3)
        self.assertEqual(self.vhost.routes.known, {})

    def test_nobody(self) -> None:
        """R34: what goes to a channel that is gone, to a bad name or to the general one is dropped."""
        self.vhost.direct_reply.unregister(self.name)
        for name in (self.name, REPLY_TO + ".bad", REPLY_TO):
            self.assertEqual(publish(self.vhost, "", name), UNROUTED)
        self.assertEqual(self.asker.replies, [])

    def test_other_exchange(self) -> None:
        """R34: only the default exchange knows the names."""
        self.assertEqual(publish(self.vhost, "amq.direct", self.name), UNROUTED)
        self.assertEqual(self.asker.replies, [])

    def test_copies(self) -> None:
        """R34: the name works in CC and BCC; queues get theirs too, and the reply has no BCC."""
        self.vhost.declare_queue("q")
        self.assertEqual(publish(self.vhost, "", "q", headers={"CC": [self.name]}), ROUTED)
        self.assertEqual(publish(self.vhost, "", self.name, headers={"BCC": ["q"]}), ROUTED)
        self.assertEqual(taken_by(self.vhost), {"q*2"})
        self.assertEqual([reply.decoded_properties.headers for reply in self.asker.replies], [{"CC": [self.name]}, {}])

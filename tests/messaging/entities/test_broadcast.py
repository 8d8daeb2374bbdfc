"""Broadcast: names, and the same queue after copying."""

from __future__ import annotations

import copy
import pickle

from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.entities.recording import RecordingChannel
from txmsg.messaging.entities import Broadcast, Exchange


class BroadcastTests(SynchronousTestCase):
    """A queue of one's own at a fanout exchange."""

    def test_names(self) -> None:
        """kombu O1: a fanout exchange of the name; "bcast." and a UUID, or the name given; unique puts one behind."""
        plain, other = Broadcast("news"), Broadcast("news")
        self.assertEqual(plain.exchange, Exchange("news", "fanout"))
        self.assertRegex(plain.name, r"^bcast\.[0-9a-f-]{36}$")
        self.assertNotEqual(plain.name, other.name)
        self.assertTrue(plain.auto_delete)
        self.assertEqual(plain.alias, "news")
        self.assertEqual(Broadcast("news", "mine").name, "mine")
        self.assertRegex(Broadcast("news", "mine", unique=True).name, r"^mine\.[0-9a-f-]{36}$")
        self.assertRegex(Broadcast("news", unique=True).name, r"^bcast\.[0-9a-f-]{36}$")

    def test_options(self) -> None:
        """kombu O1: another exchange, an alias, and whatever a queue can be given."""
        made = Broadcast("news", auto_delete=False, exchange=Exchange("x", "topic"), alias="a", routing_key="b.#")
        self.assertEqual((made.exchange, made.alias, made.routing_key), (Exchange("x", "topic"), "a", "b.#"))
        self.assertFalse(made.auto_delete)

    def test_copies(self) -> None:
        """kombu E4: bound copies, copies and pickles are the same queue."""
        made = Broadcast("news", unique=True)
        for each in (made(RecordingChannel()), copy.copy(made), pickle.loads(pickle.dumps(made))):
            self.assertEqual(each.name, made.name)
            self.assertEqual(each, made)
            self.assertIs(type(each), Broadcast)

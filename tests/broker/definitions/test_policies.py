"""Policies: https://www.rabbitmq.com/docs/parameters#policies"""

from __future__ import annotations

from typing import Any

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.definitions.policies import SETTING, Policies, Policy, policies_of, restore_policies
from txmsg.broker.interfaces import NoJournal
from txmsg.broker.message import Message
from txmsg.broker.queues.arguments import QueueArguments
from txmsg.broker.queues.queue import Queue
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import ConfigurationError
from txmsg.wire.properties import NO_PROPERTIES


def policy(
    name: str, definition: dict[str, Any], pattern: str = "^q", priority: int = 0, apply_to: str = "all"
) -> Policy:
    return Policy.checked("/", name, pattern, definition, priority, apply_to)


class Keeping(NoJournal):
    """A journal of settings."""

    def __init__(self) -> None:
        self.settings: dict[str, dict[str, Any]] = {}

    def put_setting(self, kind: str, name: str, value: Any) -> None:
        assert kind == SETTING
        self.settings[name] = dict(value)

    def delete_setting(self, kind: str, name: str) -> None:
        assert kind == SETTING
        del self.settings[name]


class PolicyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.journal = Keeping()
        self.vhost = VirtualHost(clock=self.clock, journal=self.journal)
        self.policies = policies_of(self.vhost)

    def put(self, queue: Queue, *bodies: bytes) -> None:
        for body in bodies:
            self.vhost.publish("", queue.name, Message.published("", queue.name, NO_PROPERTIES, body), NO_PROPERTIES)

    def bodies(self, queue: Queue) -> list[bytes]:
        return [entry.message.body for entry in queue.ready_entries()]

    def test_a_new_queue_obeys(self) -> None:
        self.policies.put(policy("p", {"max-length": 2}))
        queue = self.vhost.declare_queue("q")
        self.put(queue, b"1", b"2", b"3")
        self.assertEqual(self.bodies(queue), [b"2", b"3"])
        other = self.vhost.declare_queue("other")
        self.put(other, b"1", b"2", b"3")
        self.assertEqual(other.message_count, 3)

    def test_a_queue_that_is_there_obeys(self) -> None:
        """And no longer when the policy goes."""
        queue = self.vhost.declare_queue("q")
        self.put(queue, b"1", b"2", b"3")
        self.policies.put(policy("p", {"max-length": 1}))
        self.assertEqual(self.bodies(queue), [b"3"])
        self.assertTrue(self.policies.delete("p"))
        self.put(queue, b"4")
        self.assertEqual(self.bodies(queue), [b"3", b"4"])
        self.assertFalse(self.policies.delete("p"))

    def test_ttl_expires_and_dead_letters(self) -> None:
        dead = self.vhost.declare_queue("dead")
        queue = self.vhost.declare_queue("q")
        definition = {
            "message-ttl": 1000,
            "expires": 5000,
            "dead-letter-exchange": "",
            "dead-letter-routing-key": "dead",
        }
        self.policies.put(policy("p", definition))
        self.put(queue, b"1")
        self.clock.advance(1.5)
        self.clock.advance(0)
        self.assertEqual((queue.message_count, self.bodies(dead)), (0, [b"1"]))
        self.clock.advance(4)
        self.assertNotIn("q", self.vhost.queues)

    def test_a_policy_that_goes_takes_expires_with_it(self) -> None:
        self.vhost.declare_queue("q")
        self.policies.put(policy("p", {"expires": 5000}))
        self.clock.advance(4)
        self.policies.delete("p")
        self.clock.advance(60)
        self.assertIn("q", self.vhost.queues)

    def test_the_highest_priority(self) -> None:
        """One policy at most applies; they are not put together."""
        queue = self.vhost.declare_queue("q")
        self.policies.put(policy("low", {"max-length": 1, "message-ttl": 5}))
        self.policies.put(policy("high", {"max-length": 2}, priority=1))
        self.assertEqual((queue.settings.max_length, queue.settings.message_ttl), (2, None))
        found = self.policies.of_queue(queue)
        assert found is not None
        self.assertEqual(found.name, "high")
        self.policies.delete("high")
        self.assertEqual((queue.settings.max_length, queue.settings.message_ttl), (1, 5))

    def test_apply_to(self) -> None:
        queue = self.vhost.declare_queue("q")
        quorum = self.vhost.declare_queue("qq", durable=True, arguments={"x-queue-type": "quorum"})
        for apply_to, expected in (
            ("all", (1, 1)),
            ("queues", (1, 1)),
            ("classic_queues", (1, None)),
            ("quorum_queues", (None, 1)),
            ("exchanges", (None, None)),
        ):
            with self.subTest(apply_to=apply_to):
                self.policies.put(policy("p", {"max-length": 1}, apply_to=apply_to))
                self.assertEqual((queue.settings.max_length, quorum.settings.max_length), expected)

    def test_beside_arguments(self) -> None:
        """Of two numbers the smaller counts, of two words the queue's own."""
        own = QueueArguments(max_length=5, message_ttl=100, overflow="reject-publish", dead_letter_exchange="a")
        given = policy(
            "p",
            {"max-length": 9, "message-ttl": 50, "overflow": "reject-publish-dlx", "dead-letter-exchange": "b"},
        )
        found = given.settings(own)
        self.assertEqual(
            (found.max_length, found.message_ttl, found.overflow, found.dead_letter_exchange),
            (5, 50, "reject-publish", "a"),
        )
        self.assertIs(policy("p", {"ha-mode": "all"}).settings(own), own)

    def test_alternate_exchange(self) -> None:
        """Also for messages whose route was remembered without it."""
        exchange = self.vhost.declare_exchange("x", "direct")
        queue = self.vhost.declare_queue("q")
        self.vhost.bind_queue("q", "amq.fanout", "")
        message = Message.published("x", "k", NO_PROPERTIES, b"1")
        self.vhost.publish("x", "k", message, NO_PROPERTIES)
        self.policies.put(policy("p", {"alternate-exchange": "amq.fanout"}, pattern="^x"))
        self.assertEqual(exchange.alternate, "amq.fanout")
        self.vhost.publish("x", "k", message, NO_PROPERTIES)
        self.assertEqual(queue.message_count, 1)
        later = self.vhost.declare_exchange("x2", "direct")
        own = self.vhost.declare_exchange("x3", "direct", arguments={"alternate-exchange": "amq.topic"})
        self.assertEqual((later.alternate, own.alternate), ("amq.fanout", "amq.topic"))
        self.policies.delete("p")
        self.assertEqual((exchange.alternate, later.alternate, own.alternate), (None, None, "amq.topic"))
        self.assertEqual(self.vhost.exchanges[""].alternate, None)

    def test_they_are_kept(self) -> None:
        """R35: what a policy does must survive the broker's end."""
        self.policies.put(policy("p1", {"max-length": 2}, priority=3, apply_to="queues"))
        self.policies.put(policy("p2", {"message-ttl": 5}))
        self.policies.delete("p2")
        other = VirtualHost(clock=self.clock)
        queue = other.declare_queue("q")
        self.assertEqual(list(restore_policies({"/": other}, self.journal.settings)), [])
        self.assertEqual(list(policies_of(other)), list(self.policies))
        self.assertEqual(queue.settings.max_length, 2)
        self.policies.forget()
        self.assertEqual(self.journal.settings, {})

    def test_what_cannot_be_restored_is_said(self) -> None:
        good = {"vhost": "/", "name": "p", "pattern": "", "definition": {"max-length": 1}, "priority": 0}
        wrong: list[dict[str, Any]] = [{"vhost": "gone"}, {"definition": {}}, {"pattern": "("}]
        for changes in wrong:
            value = good | {"apply_to": "all"} | changes
            (line,) = restore_policies({"/": self.vhost}, {"/\0p": value})
            self.assertIn("cannot be restored", line)
        (line,) = restore_policies({"/": self.vhost}, {"/\0p": good})
        self.assertIn("apply_to", line)
        self.assertEqual(len(self.policies), 0)

    def test_there_is_one_set_for_a_virtual_host(self) -> None:
        self.assertIs(policies_of(self.vhost), self.policies)
        self.assertIsInstance(self.vhost.policies, Policies)


@pytest.mark.parametrize(
    ("pattern", "definition", "priority", "apply_to", "said"),
    [
        (5, {"max-length": 1}, 0, "all", "the pattern must be a string"),
        ("(", {"max-length": 1}, 0, "all", "not a regular expression"),
        ("", {}, 0, "all", "not empty"),
        ("", [], 0, "all", "not empty"),
        ("", {"nope": 1}, 0, "all", "'nope' is not a recognised policy setting"),
        ("", {"max-length": -1}, 0, "all", "-1 is not a valid max-length"),
        ("", {"max-length": "1"}, 0, "all", "'1' is not a valid max-length"),
        ("", {"overflow": "burn"}, 0, "all", "'burn' is not a valid overflow"),
        ("", {"expires": 0}, 0, "all", "0 is not a valid expires"),
        ("", {"dead-letter-exchange": 5}, 0, "all", "dead-letter-exchange must be a string"),
        ("", {"dead-letter-routing-key": 5}, 0, "all", "5 is not a valid dead-letter-routing-key"),
        ("", {"delivery-limit": -1}, 0, "all", "delivery-limit must be an integer"),
        ("", {"alternate-exchange": 1}, 0, "all", "alternate-exchange must be a string"),
        ("", {"max-length": 1}, "1", "all", "the priority must be an integer"),
        ("", {"max-length": 1}, True, "all", "the priority must be an integer"),
        ("", {"max-length": 1}, 0, "streams", "apply-to must be one of"),
    ],
)
def test_refused(pattern: object, definition: object, priority: object, apply_to: object, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Policy.checked("/", "p", pattern, definition, priority, apply_to)
    assert said in str(caught.value)

"""TaskQueues: where a task goes."""

from __future__ import annotations

import unittest

import pytest

from txmsg.errors import ConfigurationError
from txmsg.messaging import Exchange, Queue
from txmsg.rpc.celery.routing import TaskQueues


class TaskQueuesTests(unittest.TestCase):
    """celery 4.1, 12.13."""

    def test_the_default_queue(self) -> None:
        """Exchange, queue and binding are Celery's, to the flag; it is published past the exchange."""
        queues = TaskQueues()
        destination = queues.destination("add")
        self.assertEqual(destination[:2], ("", "celery"))
        (queue,) = destination.declare
        self.assertEqual(queue, Queue("celery", Exchange("celery", "direct", durable=True), "celery", durable=True))
        self.assertEqual((queue.exclusive, queue.auto_delete, queue.queue_arguments), (False, False, None))
        self.assertIs(queues.queue("celery"), queue)

    def test_others(self) -> None:
        """By name, by route, as a Queue; one that is not direct is published through its exchange."""
        events = Queue("events", Exchange("events", "topic"), "event.#")
        queues = TaskQueues([events], default="main", routes={"add": "slow"})
        self.assertEqual(queues.destination("other")[:2], ("", "main"))
        self.assertEqual(queues.destination("add")[:2], ("", "slow"))
        self.assertEqual(queues.destination("add", "fast")[:2], ("", "fast"))
        self.assertEqual(queues.destination("add", "events"), ("events", "event.#", (events,)))
        self.assertEqual(queues.destination("add", events, routing_key="event.x")[1], "event.x")
        plain = Queue("plain")
        self.assertEqual(queues.destination("add", plain), ("", "plain", (plain,)))

    def test_exchange_and_key(self) -> None:
        """In place of a queue; an Exchange is declared, a name is not."""
        queues, exchange = TaskQueues(), Exchange("x", "topic")
        self.assertEqual(queues.destination("add", None, "x", "k"), ("x", "k", ()))
        self.assertEqual(queues.destination("add", None, exchange, "k"), (exchange, "k", (exchange,)))
        self.assertEqual(queues.destination("add", "q", "x", "k")[:2], ("x", "k"))
        for half in ((None, "x", None), (None, None, "k"), ("", None, None)):
            if half[0] == "":
                self.assertRaises(ConfigurationError, queues.queue, "")
            else:
                self.assertRaises(ConfigurationError, queues.destination, "add", *half)

    def test_only_known_ones(self) -> None:
        """create_missing=False: others have to be there; the default one is made all the same."""
        queues = TaskQueues(create_missing=False)
        self.assertTrue(queues.queue("other").no_declare)
        self.assertFalse(queues.queue("celery").no_declare)


def test_wrong_settings() -> None:
    """ConfigurationError at once."""
    with pytest.raises(ConfigurationError):
        TaskQueues(["a"])  # type: ignore[list-item]
    with pytest.raises(ConfigurationError):
        TaskQueues(routes=["a"])  # type: ignore[arg-type]


def test_a_fanout_exchange() -> None:
    """Its routing key is "", which is one."""
    exchange = Exchange("all", "fanout")
    assert TaskQueues().destination("t", exchange=exchange, routing_key="") == (exchange, "", (exchange,))

"""Kombu: Producer, Consumer, SimpleQueue, Broadcast, pidbox, priorities, heartbeats."""

from __future__ import annotations

from typing import Any

import kombu as untyped_kombu
import pytest
from kombu.common import Broadcast
from kombu.pidbox import Mailbox

pytestmark = pytest.mark.long

kombu: Any = untyped_kombu


def test_producer_and_consumer(vhost_url: str) -> None:
    """R34: a topic exchange; ack, requeue and reject; compression; more than one frame."""
    exchange = kombu.Exchange("tasks", "topic", durable=True)
    queue = kombu.Queue("tasks", exchange, routing_key="task.#", queue_arguments={"x-max-priority": 5})
    got: list[Any] = []

    def received(body: Any, message: Any) -> None:
        got.append((body, message.delivery_info["redelivered"]))
        if body == "again" and not message.delivery_info["redelivered"]:
            message.requeue()
        elif body == "never":
            message.reject()
        else:
            message.ack()

    with kombu.Connection(vhost_url, heartbeat=10) as connection:
        producer = connection.Producer(serializer="json")
        large = {"large": "x" * 400_000}
        for body in ("again", "never", large):
            producer.publish(body, exchange=exchange, routing_key="task.one", declare=[queue], compression="zlib")
        with connection.Consumer([queue], callbacks=[received], prefetch_count=1):
            while len(got) < 4:
                connection.drain_events(timeout=10)
        connection.heartbeat_check()
        expected = [("again", False), ("again", True), ("never", False), (large, False)]
        assert sorted(got, key=str) == sorted(expected, key=str)
        assert queue(connection.default_channel).get() is None


def test_simple_queue(vhost_url: str) -> None:
    """R34: put, get, how many, clear, and the time limit of an empty one."""
    with kombu.Connection(vhost_url) as connection, connection.SimpleQueue("simple") as queue:
        for number in range(3):
            queue.put(number)
        message = queue.get(timeout=10)
        message.ack()
        assert message.payload == 0
        queue.consumer.cancel()
        queue.consumer.recover(requeue=True)
        assert queue.qsize() == 2
        assert queue.clear() == 2
        with pytest.raises(queue.Empty):
            queue.get(block=False)


def test_broadcast(vhost_url: str) -> None:
    """R34: everybody gets it."""
    with kombu.Connection(vhost_url) as connection:
        got: list[Any] = []
        exchange = kombu.Exchange("all", "fanout")
        queues = [Broadcast("all", exchange=exchange) for _ in range(2)]
        with connection.Consumer(queues, callbacks=[lambda body, message: got.append(body)], no_ack=True):
            connection.Producer().publish("hear", exchange=exchange)
            while len(got) < 2:
                connection.drain_events(timeout=10)
        assert got == ["hear", "hear"]


def test_pidbox(vhost_url: str) -> None:
    """R34: the remote control of Celery's workers: a call to all, with an answer."""
    mailbox = Mailbox("control", type="fanout")
    with kombu.Connection(vhost_url) as worker, kombu.Connection(vhost_url) as caller:
        channel = worker.channel()
        node = mailbox(worker).Node("one", state={}, channel=channel)
        node.handlers["ping"] = lambda state, **_: "pong"
        node.listen(callback=node.handle_message)
        ticket = "3d4f4d8c-0f8e-4b83-8e64-9e29a5a0a1b2"
        bound = mailbox(caller)
        reply_queue = bound.get_reply_queue()
        reply_queue(caller.default_channel).declare()
        bound._publish("ping", {}, reply_ticket=ticket)
        worker.drain_events(timeout=10)
        assert bound._collect(ticket, limit=1, timeout=10) == [{"one": "pong"}]

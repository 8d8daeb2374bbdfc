"""Mailboxes and nodes over memory://, on a clock that the test turns."""

from __future__ import annotations

from typing import Any

from tests.messaging.over_memory import MemoryCase
from txmsg.messaging import Consumer, Message, Producer, Queue
from txmsg.messaging.pidbox import Mailbox, Node


class PidboxCase(MemoryCase):
    """A mailbox bound to a connection; nodes have connections of their own."""

    def setUp(self) -> None:
        super().setUp()
        self.mailbox = Mailbox("app")(self.connection)

    def node(self, hostname: str, **settings: Any) -> Node:
        """A node that listens, with some commands."""
        mailbox = Mailbox("app", **settings)(self.connect())
        node = mailbox.Node(hostname, state={"calls": []})

        @node.handler
        def ping(state: Any, **arguments: Any) -> Any:
            state["calls"].append(arguments)
            return {"pong": arguments}

        @node.handler
        def fail(state: Any) -> Any:
            raise RuntimeError("it broke")

        @node.handler
        def odd(state: Any) -> Any:
            return object()

        self.done(node.listen())
        return node

    def timers(self) -> list[Any]:
        """Those of requests; the broker has its own."""
        return [call for call in self.clock.getDelayedCalls() if "Request" in repr(call)]

    def watch(self, queue: Queue) -> list[Message]:
        """What comes to a queue."""
        seen: list[Message] = []
        consumer = Consumer(self.connect(), [queue], no_ack=True, on_message=seen.append)
        self.done(consumer.consume())
        return seen

    def to_all(self, body: Any, headers: dict[str, Any] | None = None, **options: Any) -> None:
        """Something to all nodes, as anybody could send it."""
        producer = Producer(self.connection)
        self.done(producer.publish(body, exchange=self.mailbox.exchange, headers=headers, **options))

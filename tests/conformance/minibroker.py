"""A small AMQP 0-9-1 broker for tests, written on pamqp: it shares no code with what it judges.

It does what the conformance cases need of RabbitMQ (queues, the default, direct, fanout and topic exchanges,
prefetch, settlement with RabbitMQ's 406, confirms with `multiple`, returns, transactions, server cancel) and
can be made to misbehave: `on["Queue.Declare"] = f` calls f(session, channel_number, method) instead of the
normal handling; f returns True when it has dealt with the method, False to go on as usual.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from pamqp import commands
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from tests.conformance.peer_frames import Interceptor, Session, finish, ignore, instead, stay_silent

__all__ = [
    "SERVER_PROPERTIES",
    "Consumer",
    "Exchange",
    "Message",
    "MiniBroker",
    "Queue",
    "Refused",
    "ServerChannel",
    "Session",
    "finish",
    "ignore",
    "instead",
    "stay_silent",
]

SERVER_PROPERTIES: dict[str, Any] = {
    "product": "minibroker",
    "version": "1.0",
    "capabilities": {
        "authentication_failure_close": True,
        "basic.nack": True,
        "connection.blocked": True,
        "consumer_cancel_notify": True,
        "exchange_exchange_bindings": True,
        "publisher_confirms": True,
    },
}


class Refused(Exception):
    """The method ends in channel.close (or connection.close for a hard error) with this code and text."""

    def __init__(self, code: int, text: str, hard: bool = False) -> None:
        super().__init__(code, text)
        self.code, self.text, self.hard = code, text, hard


@dataclass(eq=False)
class Message:
    exchange: str
    routing_key: str
    properties: bytes  # as on the wire: a broker passes them on unread
    body: bytes
    redelivered: bool = False
    position: int = 0


@dataclass(eq=False)
class Consumer:
    session: Session
    channel: ServerChannel
    tag: str
    queue: Queue
    no_ack: bool


@dataclass(eq=False)
class Queue:
    name: str
    durable: bool
    auto_delete: bool
    owner: Session | None
    arguments: dict[str, Any]
    messages: deque[Message] = field(default_factory=deque)
    consumers: deque[Consumer] = field(default_factory=deque)
    last_position: int = 0


@dataclass(eq=False)
class Exchange:
    name: str
    type: str
    durable: bool
    #: ("queue" | "exchange", destination, binding key)
    bindings: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(eq=False)
class ServerChannel:
    number: int
    last_tag: int = 0
    #: delivery tag -> (message, queue, consumer tag or "" for basic.get), ascending
    unacked: dict[int, tuple[Message, Queue, str]] = field(default_factory=dict)
    prefetch: int = 0
    confirming: bool = False
    published: int = 0
    to_confirm: list[int] = field(default_factory=list)
    transaction: list[Callable[[], None]] | None = None
    last_queue: str = ""
    consumers: dict[str, Consumer] = field(default_factory=dict)
    closing: bool = False
    content: list[Any] | None = None


def topic_matches(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(topic_matches(pattern[1:], words[n:]) for n in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and topic_matches(pattern[1:], words[1:])


class MiniBroker(Factory):
    """The virtual host "/" and everything in it.

    on: what to do instead of the normal handling, by pamqp's method name.
    tune: (channel_max, frame_max, heartbeat) to propose.
    users: name -> password.
    """

    noisy = False

    def __init__(self) -> None:
        self.on: dict[str, Interceptor] = {}
        self.tune = (2047, 131072, 60)
        self.mechanisms = "PLAIN AMQPLAIN"
        self.users = {"guest": "guest"}
        self.server_properties: dict[str, Any] = dict(SERVER_PROPERTIES)
        self.exchanges = {
            name: Exchange(name, kind, True)
            for name, kind in [
                ("", "direct"),
                ("amq.direct", "direct"),
                ("amq.fanout", "fanout"),
                ("amq.topic", "topic"),
            ]
        }
        self.queues: dict[str, Queue] = {}
        self.sessions: list[Session] = []
        #: What went wrong on this side, mostly a client that broke the protocol; the test fails on it.
        self.errors: list[Failure] = []
        #: How many bytes of a connection are written before `cut` is called with its session; None for no cut.
        self.cut_after: int | None = None
        self.cut: Callable[[Session], object] = Session.hang_up
        self._names = 0

    def buildProtocol(self, addr: object) -> Session:
        from tests.conformance.minisession import ServerSession

        session = ServerSession(self)
        session.factory = self
        return session

    def generated_name(self, prefix: str) -> str:
        self._names += 1
        return f"{prefix}{self._names}"

    def route(self, message: Message) -> list[Queue]:
        """The queues `message` goes to."""
        names: dict[str, None] = {}
        seen: set[str] = set()

        def through(exchange: Exchange) -> None:
            if exchange.name in seen:
                return
            seen.add(exchange.name)
            for kind, destination, key in exchange.bindings:
                if (
                    exchange.type == "fanout"
                    or (exchange.type == "direct" and key == message.routing_key)
                    or (exchange.type == "topic" and topic_matches(key.split("."), message.routing_key.split(".")))
                ):
                    if kind == "queue":
                        names[destination] = None
                    elif destination in self.exchanges:
                        through(self.exchanges[destination])

        if message.exchange == "":
            names[message.routing_key] = None
        else:
            through(self.exchanges[message.exchange])
        return [self.queues[name] for name in names if name in self.queues]

    def enqueue(self, queue: Queue, message: Message) -> None:
        queue.last_position += 1
        queue.messages.append(replace(message, position=queue.last_position))
        self.push(queue)

    def requeue(self, queue: Queue, messages: list[Message]) -> None:
        """Back to where they were."""
        if self.queues.get(queue.name) is not queue:
            return
        for message in messages:
            message.redelivered = True
        queue.messages = deque(sorted([*messages, *queue.messages], key=lambda message: message.position))
        self.push(queue)

    def push(self, queue: Queue) -> None:
        """Deliver what the consumers may have, in turn."""
        idle = 0
        while queue.messages and queue.consumers and idle < len(queue.consumers):
            consumer = queue.consumers[0]
            queue.consumers.rotate(-1)
            channel = consumer.channel
            held = sum(1 for _, _, tag in channel.unacked.values() if tag == consumer.tag)
            if not consumer.no_ack and channel.prefetch and held >= channel.prefetch:
                idle += 1
                continue
            idle = 0
            message = queue.messages.popleft()
            channel.last_tag += 1
            if not consumer.no_ack:
                channel.unacked[channel.last_tag] = (message, queue, consumer.tag)
            consumer.session.send_content(
                channel.number,
                commands.Basic.Deliver(
                    consumer.tag, channel.last_tag, message.redelivered, message.exchange, message.routing_key
                ),
                message.properties,
                message.body,
            )

    def delete_queue(self, queue: Queue) -> int:
        """Remove it and tell its consumers."""
        del self.queues[queue.name]
        for exchange in self.exchanges.values():
            exchange.bindings = [b for b in exchange.bindings if b[:2] != ("queue", queue.name)]
        for consumer in queue.consumers:
            consumer.channel.consumers.pop(consumer.tag, None)
            consumer.session.send(consumer.channel.number, commands.Basic.Cancel(consumer.tag, nowait=True))
        queue.consumers.clear()
        return len(queue.messages)

    def consumer_left(self, queue: Queue) -> None:
        if queue.auto_delete and not queue.consumers and queue.name in self.queues:
            self.delete_queue(queue)

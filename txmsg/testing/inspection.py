"""What is in an embedded broker, for a test to look at.

Views are live: each attribute is read from the broker when it is asked for.  Looking changes nothing: no message is
taken, no queue is kept alive by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from txmsg.broker.message import Entry, Message
from txmsg.errors import TxmsgError, clip

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["BindingView", "ConnectionView", "ConsumerView", "ExchangeView", "MessageView", "NoSuchEntity", "QueueView"]


class NoSuchEntity(TxmsgError, LookupError):
    """The broker has no queue, exchange or virtual host of that name; the text says which there are."""


@dataclass(frozen=True, slots=True)
class MessageView:
    """A message as it is in a queue, or as it was published.

    body: bytes.   properties: dict -- those that are present, by AMQP's names; `headers` is one of them.
    exchange, routing_key: str -- with which it was published.
    redelivered: bool -- whether the next delivery says so.
    routed: bool -- False in `published` for a message that no queue took.
    """

    body: bytes
    properties: Mapping[str, Any] = field(default_factory=dict)
    exchange: str = ""
    routing_key: str = ""
    redelivered: bool = False
    routed: bool = True

    @property
    def headers(self) -> Mapping[str, Any]:
        """The property `headers`, empty if there are none."""
        headers: Mapping[str, Any] = self.properties.get("headers") or {}
        return headers

    @classmethod
    def of(cls, message: Message, *, redelivered: bool = False, routed: bool = True) -> MessageView:
        """The view of a message of the broker."""
        return cls(
            message.body,
            message.decoded_properties.as_dict(),
            message.exchange,
            message.routing_key,
            redelivered,
            routed,
        )


def _view(entry: Entry) -> MessageView:
    return MessageView.of(entry.message, redelivered=entry.redelivered)


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """A consumer of a queue: its tag, and how it was started."""

    tag: str
    no_ack: bool
    exclusive: bool
    priority: int


class QueueView:
    """A queue.  `broker.queue("jobs").depth` and so on; `exists` works for one that is not there, too."""

    def __init__(self, vhost: VirtualHost, name: str) -> None:
        self._vhost = vhost
        self.name = name

    @property
    def exists(self) -> bool:
        """Whether there is such a queue now."""
        return self.name in self._vhost.queues

    @property
    def raw(self) -> Queue:
        """The broker's own object.  NoSuchEntity."""
        found = self._vhost.queues.get(self.name)
        if found is None:
            raise NoSuchEntity(_missing("queue", self.name, self._vhost, list(self._vhost.queues)))
        return found

    @property
    def messages(self) -> list[MessageView]:
        """What is ready, in the order in which it will be delivered."""
        return [_view(entry) for entry in self.raw.ready_entries()]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of :attr:`messages`."""
        return [entry.message.body for entry in self.raw.ready_entries()]

    @property
    def depth(self) -> int:
        """How many messages are ready."""
        return self.raw.message_count

    @property
    def unacked(self) -> int:
        """How many messages are with consumers, or were got, and are not settled."""
        return self.raw.unacked_count

    @property
    def consumers(self) -> list[ConsumerView]:
        """Its consumers, in the order of their subscriptions."""
        return [
            ConsumerView(consumer.tag, consumer.no_ack, consumer.exclusive, consumer.priority)
            for consumer in self.raw.consumers
        ]

    @property
    def durable(self) -> bool:
        """As declared; an exclusive queue is never durable."""
        return self.raw.durable

    @property
    def exclusive(self) -> bool:
        """Whether it belongs to one connection."""
        return self.raw.exclusive

    @property
    def auto_delete(self) -> bool:
        """Whether it goes with its last consumer."""
        return self.raw.auto_delete

    @property
    def arguments(self) -> dict[str, Any]:
        """As declared; a copy."""
        return dict(self.raw.arguments)

    def __repr__(self) -> str:
        if not self.exists:
            return f"<QueueView {clip(self.name)!r}: not there>"
        return f"<QueueView {clip(self.name)!r}: {self.depth} ready, {self.unacked} unacked>"


@dataclass(frozen=True, slots=True)
class BindingView:
    """A binding: from an exchange to a queue or (`destination_type` "exchange") to another exchange."""

    source: str
    destination: str
    destination_type: str
    routing_key: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExchangeView:
    """An exchange, as it was when it was looked at."""

    name: str
    type: str
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Mapping[str, Any]
    bindings: list[BindingView]

    @classmethod
    def of(cls, vhost: VirtualHost, name: str) -> ExchangeView:
        """The view of the exchange of that name.  NoSuchEntity."""
        found = vhost.exchanges.get(name)
        if found is None:
            raise NoSuchEntity(_missing("exchange", name, vhost, list(vhost.exchanges)))
        bindings = [
            BindingView(
                binding.source,
                binding.destination,
                binding.destination_type,
                binding.routing_key,
                dict(binding.arguments),
            )
            for binding in found.bindings
        ]
        return cls(name, found.type, found.durable, found.auto_delete, found.internal, dict(found.arguments), bindings)


class ConnectionView:
    """A client's connection, seen from the broker.

    raw: BrokerConnection -- the broker's own object.
    """

    def __init__(self, connection: BrokerConnection) -> None:
        self.raw = connection

    @property
    def name(self) -> str:
        """Both ends: "127.0.0.1:50123 -> 127.0.0.1:5672"."""
        return self.raw.name

    @property
    def connection_name(self) -> str:
        """What the client calls itself (`client_properties["connection_name"]`); "" if it does not."""
        return str(self.raw.client_properties.get("connection_name", ""))

    @property
    def user(self) -> str:
        """Who is logged in; "" before the login."""
        return "" if self.raw.user is None else self.raw.user.name

    @property
    def vhost(self) -> str:
        """The virtual host; "" before it is open."""
        return "" if self.raw.vhost is None else self.raw.vhost.name

    @property
    def state(self) -> str:
        """One of RabbitMQ's words: starting, tuning, opening, running, blocked, closing."""
        return self.raw.state

    @property
    def channels(self) -> list[int]:
        """The numbers of its channels."""
        return sorted(self.raw.channels)

    def __repr__(self) -> str:
        return f"<ConnectionView {self.name}: {self.state}, {len(self.channels)} channels>"


def _missing(kind: str, name: str, vhost: VirtualHost, there: list[str]) -> str:
    names = ", ".join(repr(clip(each, 40)) for each in sorted(there)[:10]) or "none"
    return f"there is no {kind} {clip(name)!r} in virtual host {clip(vhost.name)!r}; there are: {names}"

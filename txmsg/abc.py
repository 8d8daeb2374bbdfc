"""The contracts between the parts of txmsg.

A *messaging transport* is what the scheme of a URL selects (``amqp://``, ``memory://``).  The messaging layer knows
these contracts and no transport; a transport knows no messaging.  They are :class:`typing.Protocol` classes: a
transport of your own needs the right methods, not a base class.

What every transport promises:

- Methods that ask for something return a Deferred, which fails with a :class:`~txmsg.errors.TxmsgError` and never
  raises.  Settling (`ack`, `nack`, `reject`) returns None and raises, because there is nothing to wait for.
- The same mistake is the same error on each transport: NotFound, PreconditionFailed, ResourceLocked, AccessRefused,
  DuplicateConsumerTag, AlreadySettled ...  An error that the broker gives closes the channel, as AMQP does it: make
  another one, and go on.
- Deliveries are settled as objects: a number would mean another message after a reconnect.
- A connection may come back by itself when it is lost.  Then it is a :class:`RecoveringMessagingConnection`, and its
  channels are never lost: what a broker closes is open again, with its consumers, a moment later.
- Properties are mappings of AMQP's 14 names (:data:`PROPERTY_NAMES`); those that are absent are not in the mapping.
- What a transport cannot do, it refuses (:class:`~txmsg.errors.NotImplementedByPeer`) and does not emulate.
  :class:`Guarantees` says what may be relied on.

Only types are imported here, from Twisted too.  A Deferred is invariant, so those of a transport's own classes are
Deferred[Any] here: a transport says what it really gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = [
    "PROPERTY_NAMES",
    "DeclaredQueue",
    "Guarantees",
    "MessagingChannel",
    "MessagingConnection",
    "MessagingDelivery",
    "MessagingTransport",
    "OffersPlainChannels",
    "Properties",
    "RecoveringMessagingConnection",
    "RecoveryCallback",
    "ReturnCallback",
]

#: The properties a message can have, as AMQP 0-9-1 section 1.8 names them.
PROPERTY_NAMES: Final = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)

#: Some of :data:`PROPERTY_NAMES`, with their values: str, but `headers` a mapping, `delivery_mode` (1 or 2),
#: `priority` and `timestamp` (seconds since 1970) int, and `expiration` milliseconds as a str.
Properties = Mapping[str, Any]


#: Called with the reason of a loss, or of an attempt to come back that failed, and the seconds until the next attempt
#: (None: not known); called with (None, None) when the connection is back.
RecoveryCallback = Callable[[BaseException | None, float | None], object]

#: Called with a PublishReturned and the properties of the message that came back.
ReturnCallback = Callable[[Any, Properties], object]


class DeclaredQueue(NamedTuple):
    """What a queue is when it has been declared.

    name: str -- the one given, or the one that was made up for it.
    message_count: int -- messages that are ready.   consumer_count: int.
    """

    name: str
    message_count: int
    consumer_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Guarantees:
    """What may be relied on, in the same words for each transport.

    delivery: "at-least-once" or "at-most-once" -- of a message that was confirmed and is consumed with acks.
    is_ordered: bool -- one publisher's messages reach the one consumer of a queue in the order of the publishes.
    survives_restart: bool -- persistent messages in durable queues outlive the broker.
    redelivery_timeout: float | None -- seconds after which an unsettled message is given to somebody else although
        its consumer lives; None: it stays with the consumer.
    has_heartbeats: bool -- a peer that has died is found out although nothing is said.
    """

    delivery: str
    is_ordered: bool
    survives_restart: bool
    redelivery_timeout: float | None
    has_heartbeats: bool = False


@runtime_checkable
class MessagingDelivery(Protocol):
    """One message that a consumer or a `get` was given."""

    @property
    def body(self) -> bytes:
        """The content."""

    @property
    def properties(self) -> Properties:
        """The properties that are present; the headers are yours to change."""

    @property
    def properties_error(self) -> BaseException | None:
        """Why the sender's properties cannot be read, and `properties` are empty; None where they can."""

    @property
    def exchange(self) -> str:
        """Where it was published to."""

    @property
    def routing_key(self) -> str:
        """With which key."""

    @property
    def redelivered(self) -> bool:
        """False: nobody has seen it before.  True: somebody may have."""

    @property
    def consumer_tag(self) -> str:
        """Of the consumer it was given to; "" from `get`."""

    @property
    def delivery_tag(self) -> int:
        """Its number on the channel, counting from 1."""

    def ack(self, multiple: bool = False) -> None:
        """It is done with; `multiple`: and so are all earlier ones.  StaleDelivery, AlreadySettled."""

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """Give it back: to the queue, or (requeue False) to the dead-letter exchange or nowhere.  Raises as `ack`."""

    def reject(self, requeue: bool = False) -> None:
        """Give this one back.  Raises as `ack`."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to settle."""


@runtime_checkable
class MessagingChannel(Protocol):
    """One conversation with a broker: consumers, unsettled deliveries, and one thing that fails at a time."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used now.  On a recovering connection False means "not at the moment"."""

    def close(self) -> Deferred[None]:
        """Give back what is unsettled and end it; closing twice is fine."""

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended, for good."""

    # -- topology

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[None]:
        """Create an exchange, or check that it is there (`passive`).  NotFound, PreconditionFailed."""

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        """Delete an exchange; one that is not there is fine."""

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Let messages flow from one exchange to another."""

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Take such a binding away; one that is not there is fine."""

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Deferred[DeclaredQueue]:
        """Create a queue, or check that it is there (`passive`); "" lets the broker choose the name.

        NotFound, PreconditionFailed, ResourceLocked.
        """

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        """Delete a queue; fires with how many messages went with it.  One that is not there is fine: 0."""

    def queue_purge(self, queue: str) -> Deferred[int]:
        """Drop the messages that are ready; fires with how many."""

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Let messages flow from an exchange to a queue."""

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> Deferred[None]:
        """Take such a binding away; one that is not there is fine."""

    # -- messages

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[Any]:
        """Publish one message; fires when the broker has taken it over (the confirm), whatever with.

        mandatory: fail with PublishReturned when it was routed to no queue; else such a message is dropped.
        PublishNacked: the broker refused it.  EncodeError: a property that AMQP cannot carry.
        NotSent: there was no way to the broker.  PublishUnconfirmed: the way was lost before the confirm.
        ConnectionClosed, ChannelClosed: the broker ended it before the confirm, for the reason that they say.
        """

    def qos(self, prefetch_count: int) -> Deferred[None]:
        """How many deliveries each consumer started from now on may have unsettled; 0: any number."""

    def consume(
        self,
        queue: str,
        callback: Callable[[Any], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: Mapping[str, Any] | None = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback(delivery)`; fires with the consumer tag.

        What the callback returns is ignored but for an awaitable, which is run; what it raises is logged, and the
        delivery stays unsettled.
        no_ack: deliveries are settled when they are handed over.   exclusive: nobody else may consume.
        arguments: for instance x-priority.   on_cancel: called with the reason when the broker ended the consumer,
        because its queue was deleted.
        """

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer: no delivery comes after that.  Its unsettled ones stay to be settled.  Unknown: fine."""

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[Any]:
        """Take one message; fires with a :class:`MessagingDelivery`, or None if the queue is empty."""

    def recover(self) -> Deferred[None]:
        """Give all unsettled deliveries back to their queues, to be delivered again."""


@runtime_checkable
class MessagingConnection(Protocol):
    """A way to a broker."""

    @property
    def is_open(self) -> bool:
        """Whether it can be used."""

    def channel(self) -> Deferred[Any]:
        """A new channel: fires with a :class:`MessagingChannel`."""

    def close(self) -> Deferred[None]:
        """Close its channels and end it; closing twice is fine."""

    def when_closed(self) -> Deferred[BaseException]:
        """Fires with the reason when it has ended."""


@runtime_checkable
class RecoveringMessagingConnection(MessagingConnection, Protocol):
    """A connection that comes back by itself, with the consumers, the prefetch counts and the declarations of its
    channels.

    `is_open` is False while it is away, `when_closed` fires only at its end for good.  The channels live as long.

    One that comes back at its alternates, too, may have an attribute `url_index`, an int: at which it is; 0 is the URL
    of `connect`, the alternates follow.
    """

    def add_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Tell `callback` when the connection is lost, could not come back, is back; see :data:`RecoveryCallback`.

        The end for good is told by `when_closed` only.  What a callback raises is logged.
        """

    def remove_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Undo `add_recovery_callback`; one that was not added is fine."""

    def retry(self) -> Deferred[None]:
        """Fires when the connection can be used: at once if it is there.  Else it tries now, and not only after the
        wait it has begun: each of its hosts once, until one can be reached; and fails with the error of the last.
        After the end it fails with the reason.
        """


@runtime_checkable
class OffersPlainChannels(Protocol):
    """What a connection may have beside its channels, where confirms cost something or where it comes back by itself.

    Where it has none, a channel of :meth:`MessagingConnection.channel` serves for the same.
    """

    def plain_channel(self, on_return: ReturnCallback | None = None) -> Deferred[Any]:
        """A new :class:`MessagingChannel` for requests and replies, on the connection of now.

        Nothing is confirmed on it: `publish` fires when the message is on its way and more can be sent.
        on_return: told of the mandatory messages that could not be routed; None: they are dropped.
        When the connection is lost it ends, `when_closed` fires with the reason, and it does not come back.
        """


@runtime_checkable
class MessagingTransport(Protocol):
    """What the scheme of a URL selects.

    schemes: the schemes it serves.
    default_ports: the port of each scheme that has one.
    exchange_types: the types of exchange it has; each works as RabbitMQ's does.
    guarantees: see there.

    Two attributes may be there, too.  `url_options`, a frozenset of str: the keys that the query of a URL may have, so
    that a misspelt one is found before anything is opened.  `url_defaults`, a mapping: what a URL means that does not
    name its "hostname", "userid" or "virtual_host".
    """

    @property
    def schemes(self) -> tuple[str, ...]:
        """For instance ("amqp", "amqps")."""

    @property
    def default_ports(self) -> Mapping[str, int]:
        """For instance {"amqp": 5672, "amqps": 5671}; empty where there are no ports."""

    @property
    def exchange_types(self) -> frozenset[str]:
        """For instance direct, fanout, topic, headers."""

    @property
    def guarantees(self) -> Guarantees:
        """What may be relied on."""

    def connect(
        self,
        url: str,
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[Any]:
        """Make one attempt to connect to the broker that a URL names; fires with a :class:`MessagingConnection`.

        reactor: None takes the installed one.
        alternates: other URLs, of the same transport; a connection that comes back by itself tries them too then.
        options: settings of the transport that are in no URL; each transport documents its own.

        ConfigurationError for a URL that cannot be used, and for an option that it does not have, with the nearest
        that it has; ConnectFailed, AuthenticationFailed ... as the broker has it.  Nothing is left of a failed attempt.
        """

"""Exchange: where messages are published to.

The default exchange ("") and those whose names begin with "amq." belong to the broker (AMQP 0-9-1 section 3.1.3): they
are never declared, and the default one is neither bound nor deleted either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from twisted.internet.defer import Deferred, fail

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.entities.entity import MaybeChannelBound
from txmsg.messaging.entities.fields import flag, frozen, name, table

if TYPE_CHECKING:
    from txmsg.messaging.entities.binding import binding

__all__ = [
    "DELIVERY_MODES",
    "PERSISTENT_DELIVERY_MODE",
    "TRANSIENT_DELIVERY_MODE",
    "Exchange",
    "OutgoingMessage",
    "delivery_mode_of",
    "exchange_name",
]

#: The broker may keep the message in memory only.
TRANSIENT_DELIVERY_MODE: Final = 1
#: The broker keeps the message on disk, where its queue is durable.
PERSISTENT_DELIVERY_MODE: Final = 2
#: The names of the delivery modes.
DELIVERY_MODES: Final[Mapping[str, int]] = {
    "transient": TRANSIENT_DELIVERY_MODE,
    "persistent": PERSISTENT_DELIVERY_MODE,
}


def delivery_mode_of(value: int | str | None) -> int | None:
    """The number that is sent for 1, 2, "transient" or "persistent"; None stays None.  ConfigurationError."""
    if value is None or (type(value) is int and 1 <= value <= 2):
        return value
    mode = DELIVERY_MODES.get(value) if isinstance(value, str) else None
    if mode is None:
        shown = clip(repr(value))
        raise ConfigurationError(f"delivery_mode is {shown}: give 1 or 'transient', 2 or 'persistent', or None")
    return mode


def exchange_name(value: Any) -> str:
    """The name of an exchange that is given as an Exchange or by its name.  ConfigurationError."""
    return value.name if isinstance(value, Exchange) else name("exchange", value)


@dataclass(slots=True)
class OutgoingMessage:
    """What :meth:`Exchange.publish` sends as it is: octets, and the properties (:data:`txmsg.abc.PROPERTY_NAMES`)."""

    body: bytes
    properties: dict[str, Any] = field(default_factory=dict)


class Exchange(MaybeChannelBound):
    """An exchange: a description, or with a channel, something that can be declared and published to.

    name: str -- "" is the default exchange, which routes to the queue that the routing key names.
    type: str -- "direct" (the default), "topic", "fanout", "headers", or one that the broker has a plug-in for.
    channel -- a channel or a connection to bind this very object to; None: unbound.
    durable: bool = True -- it survives a restart of the broker.
    auto_delete: bool = False -- it goes when the last binding from it goes.
    delivery_mode: int | str | None -- of messages that are published to it and have none: 1 or "transient", 2 or
        "persistent"; None (the default) leaves it to the publish, which takes 2.
    arguments: dict | None -- more for the broker, for instance alternate-exchange.
    passive: bool = False -- it is there already: declaring checks that, and fails with NotFound.
    no_declare: bool = False -- declaring does nothing.

    None stands for the default of each.  ConfigurationError: a value that cannot be used.
    """

    TRANSIENT_DELIVERY_MODE: ClassVar[int] = TRANSIENT_DELIVERY_MODE
    PERSISTENT_DELIVERY_MODE: ClassVar[int] = PERSISTENT_DELIVERY_MODE

    # What a subclass can change.
    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    passive: bool = False
    no_declare: bool = False
    delivery_mode: int | None = None
    arguments: dict[str, Any] | None = None

    def __init__(
        self,
        name: str | None = "",
        type: str | None = "",
        channel: Any = None,
        *,
        durable: bool | None = None,
        auto_delete: bool | None = None,
        delivery_mode: int | str | None = None,
        arguments: Mapping[str, Any] | None = None,
        passive: bool | None = None,
        no_declare: bool | None = None,
    ) -> None:
        super().__init__()
        self.name = _name("name", name or self.name)
        self.type = _name("type", type or self.type)
        self.durable = flag("durable", self.durable if durable is None else durable)
        self.auto_delete = flag("auto_delete", self.auto_delete if auto_delete is None else auto_delete)
        self.passive = flag("passive", self.passive if passive is None else passive)
        self.no_declare = flag("no_declare", self.no_declare if no_declare is None else no_declare)
        self.delivery_mode = delivery_mode_of(self.delivery_mode if delivery_mode is None else delivery_mode)
        self.arguments = table("arguments", self.arguments if arguments is None else arguments)
        self.maybe_bind(channel)

    # -- the broker's

    @property
    def is_declarable(self) -> bool:
        """Whether declaring tells the broker anything: not with `no_declare`, and not for the broker's own ones."""
        return not self.no_declare and bool(self.name) and not self.name.startswith("amq.")

    def declare(self, nowait: bool = False, passive: bool | None = None, channel: Any = None) -> Deferred[None]:
        """Create it, or with `passive` only check that it is there; fires when that is done.

        passive: None takes the exchange's own.   nowait: do not wait; that it failed is logged.
        channel: to use in place of the one it is bound to.

        Does nothing where :attr:`is_declarable` is False.  NotBoundError, NotFound (passive), PreconditionFailed (it
        is there and is another).
        """
        return self._do(self._declare(passive, channel), nowait, None)

    async def _declare(self, passive: bool | None, channel: Any) -> None:
        if self.is_declarable:
            await self._on(channel).exchange_declare(
                self.name,
                self.type,
                passive=self.passive if passive is None else passive,
                durable=self.durable,
                auto_delete=self.auto_delete,
                arguments=self.arguments,
            )

    def bind_to(
        self,
        exchange: Exchange | str = "",
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
        channel: Any = None,
    ) -> Deferred[None]:
        """Let what is published to `exchange` flow into this one.

        That is RabbitMQ's exchange.bind (https://www.rabbitmq.com/docs/e2e).  NotFound; ConfigurationError for the
        default exchange on either side.
        """
        return self._do(self._bind(True, exchange, routing_key, arguments, channel), nowait, None)

    def unbind_from(
        self,
        source: Exchange | str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: Mapping[str, Any] | None = None,
        channel: Any = None,
    ) -> Deferred[None]:
        """Take such a binding away; one that is not there is fine."""
        return self._do(self._bind(False, source, routing_key, arguments, channel), nowait, None)

    async def _bind(
        self, is_wanted: bool, source: Exchange | str, routing_key: str, arguments: Any, channel: Any
    ) -> None:
        found = exchange_name(source)
        if not self.name or not found:
            raise ConfigurationError("the default exchange cannot be bound to another one: name both exchanges")
        on = self._on(channel)
        call = on.exchange_bind if is_wanted else on.exchange_unbind
        await call(self.name, found, name("routing_key", routing_key), table("arguments", arguments))

    def delete(self, if_unused: bool = False, nowait: bool = False) -> Deferred[None]:
        """Delete it; one that is not there is fine.  if_unused: PreconditionFailed while anything is bound to it."""
        return self._do(self._delete(if_unused), nowait, None)

    async def _delete(self, if_unused: bool) -> None:
        channel = self._on(None)
        if self.name:
            await channel.exchange_delete(self.name, if_unused=if_unused)

    # -- messages, as they are

    def Message(
        self,
        body: bytes | str,
        delivery_mode: int | str | None = None,
        properties: Mapping[str, Any] | None = None,
        *,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> OutgoingMessage:
        """A message for :meth:`publish`: octets as they are, or a str, which is sent as UTF-8.

        delivery_mode: None takes that of the properties, then the exchange's, then 2.   properties: is not changed.
        The others are put into the properties.
        """
        made = {key: value for key, value in (properties or {}).items() if value is not None}
        given = {
            "priority": priority,
            "content_type": content_type,
            "content_encoding": content_encoding,
            "headers": None if headers is None else dict(headers),
        }
        made.update({key: value for key, value in given.items() if value is not None})
        mode = made.get("delivery_mode") if delivery_mode is None else delivery_mode
        made["delivery_mode"] = delivery_mode_of(mode) or self.delivery_mode or PERSISTENT_DELIVERY_MODE
        if isinstance(body, str):
            made.setdefault("content_encoding", "utf-8")
            try:
                body = body.encode(made["content_encoding"])
            except (LookupError, UnicodeError, TypeError) as error:
                shown = clip(repr(made["content_encoding"]))
                raise ConfigurationError(f"a body that {shown} cannot carry: {type(error).__name__}") from None
        if not isinstance(body, bytes | bytearray | memoryview):
            raise ConfigurationError(
                f"a body that is a {type(body).__name__}: give bytes or a str, or use a Producer, which serializes"
            )
        return OutgoingMessage(bytes(body), made)

    def publish(
        self,
        message: OutgoingMessage | bytes | str,
        routing_key: str | None = None,
        mandatory: bool = False,
        immediate: bool = False,
        exchange: Exchange | str | None = None,
    ) -> Deferred[None]:
        """Send a message as it is: nothing is serialized, compressed or declared (that is a Producer's).

        Fires at the broker's confirm.  PublishReturned (mandatory, and it was routed nowhere), PublishNacked ...

        exchange: another one than this.   immediate: RabbitMQ has not had it since 3.0: ConfigurationError.
        """
        if immediate:
            why = "immediate is not supported by RabbitMQ, which would close the connection: leave it out"
            return fail(ConfigurationError(why))
        return self._do(self._publish(message, routing_key, mandatory, exchange), False, None)

    async def _publish(
        self,
        message: OutgoingMessage | bytes | str,
        routing_key: str | None,
        mandatory: bool,
        exchange: Exchange | str | None,
    ) -> None:
        if not isinstance(message, OutgoingMessage):
            message = self.Message(message)
        await self._on(None).publish(
            self.name if exchange is None else exchange_name(exchange),
            name("routing_key", "" if routing_key is None else routing_key),
            message.body,
            message.properties,
            mandatory=mandatory,
        )

    # -- values

    def binding(
        self,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        unbind_arguments: Mapping[str, Any] | None = None,
    ) -> binding:
        """A binding from this exchange, for the `bindings` of a queue."""
        from txmsg.messaging.entities.binding import binding

        return binding(self, routing_key, arguments, unbind_arguments)

    @property
    def can_cache_declaration(self) -> bool:
        """Not if it is deleted with its last binding."""
        return not self.auto_delete

    def definition(self) -> tuple[Any, ...]:
        """All that the broker is told of it, as something that can be hashed and holds no channel."""
        return (
            "exchange",
            self.name,
            self.type,
            self.durable,
            self.auto_delete,
            self.passive,
            self.no_declare,
            frozen(self.arguments),
        )

    def _identity(self) -> tuple[Any, ...]:
        return (*self.definition(), self.delivery_mode)

    def as_dict(self, recurse: bool = False) -> dict[str, Any]:
        """Its fields, by the names of the constructor's arguments; ready for JSON where its arguments are."""
        return {
            "name": self.name,
            "type": self.type,
            "arguments": None if self.arguments is None else dict(self.arguments),
            "durable": self.durable,
            "passive": self.passive,
            "auto_delete": self.auto_delete,
            "delivery_mode": self.delivery_mode,
            "no_declare": self.no_declare,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The exchange that :meth:`as_dict` gave.  ConfigurationError: a name that is none of its fields."""
        unknown = sorted(set(fields) - set(cls().as_dict()))
        if unknown:
            raise ConfigurationError(f"an exchange has no {clip(', '.join(map(str, unknown)))}: leave it out")
        return cls(**fields)

    def __hash__(self) -> int:
        return hash(("exchange", self.name))

    def __str__(self) -> str:
        return f"Exchange {clip(self.name)!r}({clip(self.type)})"

    def __repr__(self) -> str:
        return self._shown(f"Exchange {clip(self.name)!r} ({clip(self.type)})")


# `name` is a parameter of the constructor, too.
_name = name

"""Queue: where messages wait, and what makes them come there.

A queue without a name is given one by the broker when it is declared.  That name is put into the object, and into the
one it is a bound copy of, so that later bindings and consumers mean that queue (kombu F17).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Self

from twisted.internet.defer import Deferred, fail

from txmsg.abc import DeclaredQueue
from txmsg.errors import ConfigurationError, NotFound, ResourceLocked, clip
from txmsg.messaging.consuming.message import Message, received
from txmsg.messaging.consuming.trust import Trust
from txmsg.messaging.entities.binding import binding
from txmsg.messaging.entities.declaring import cache_of
from txmsg.messaging.entities.entity import EntityChannel, MaybeChannelBound, channel_of
from txmsg.messaging.entities.exchange import Exchange, exchange_name
from txmsg.messaging.entities.fields import count, flag, frozen, milliseconds, name, seconds, table
from txmsg.messaging.entities.sources import sources
from txmsg.messaging.serialization import Accept

if TYPE_CHECKING:
    pass

__all__ = ["Queue"]

#: RabbitMQ refuses more priorities (https://www.rabbitmq.com/docs/priority).
_MOST_PRIORITIES = 255


class Queue(MaybeChannelBound):
    """A queue and its bindings: a description, or with a channel, something that can be declared and consumed from.

    name: str -- "": the broker makes one up.
    exchange: Exchange | str | list of bindings | None -- where its messages come from; None: the default exchange,
        which routes to it by its name.
    routing_key: str -- the binding key.
    channel -- a channel or a connection to bind this very object to; None: unbound.
    bindings: bindings, in place of `exchange` and `routing_key`, where it is to have several.
    on_declared: callable(name, message_count, consumer_count) -- called after each time it was declared.
    durable: bool = True -- it survives a restart of the broker.
    exclusive: bool = False -- only for this connection, with which it goes; implies `auto_delete`.
    auto_delete: bool = False -- it goes when its last consumer goes; not before it has had one.
    no_ack: bool = False -- what its consumers are given is settled by that, unless they say otherwise.
    alias: for the application; nothing is done with it.
    no_declare: bool = False -- declaring does nothing, for its exchange neither.
    expires: float | None -- seconds after which it is deleted when nobody used it (no consumer, get or declare).
    message_ttl: float | None -- seconds a message stays; 0: it is delivered at once or not at all.
    max_length, max_length_bytes: int | None -- with more in it, the oldest are dropped, or dead-lettered.
    max_priority: int | None -- the highest priority, up to 255; None: priorities of messages are ignored.
    queue_arguments, binding_arguments, consumer_arguments: dict | None -- more for declare, bind and consume; of the
        first, those that have a name above give way to that.

    The arguments from `expires` on are extensions of RabbitMQ, which ``memory://`` has, too.  None stands for the
    default of each.  ConfigurationError: a value that cannot be used.
    """

    _local: ClassVar[tuple[str, ...]] = (*MaybeChannelBound._local, "_named_in", "on_declared")

    # What a subclass can change.
    routing_key: str = ""
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    no_ack: bool = False
    no_declare: bool = False
    alias: Any = None
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    max_priority: int | None = None
    queue_arguments: dict[str, Any] | None = None
    binding_arguments: dict[str, Any] | None = None
    consumer_arguments: dict[str, Any] | None = None

    def __init__(
        self,
        name: str | None = "",
        exchange: Exchange | str | Iterable[binding] | None = None,
        routing_key: str | None = "",
        channel: Any = None,
        bindings: Iterable[binding] | None = None,
        on_declared: Callable[[str, int, int], object] | None = None,
        *,
        durable: bool | None = None,
        exclusive: bool | None = None,
        auto_delete: bool | None = None,
        no_ack: bool | None = None,
        alias: Any = None,
        no_declare: bool | None = None,
        expires: float | None = None,
        message_ttl: float | None = None,
        max_length: int | None = None,
        max_length_bytes: int | None = None,
        max_priority: int | None = None,
        queue_arguments: Mapping[str, Any] | None = None,
        binding_arguments: Mapping[str, Any] | None = None,
        consumer_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._name = self._given_name = _name("name", name or "")
        #: In which epoch of the connection the broker named it.
        self._named_in: int | None = None
        #: Where its messages come from; None where it has `bindings`.
        self.exchange, self.bindings = sources(exchange, bindings)
        self.routing_key = _name("routing_key", routing_key or self.routing_key)
        if on_declared is not None and not callable(on_declared):
            raise ConfigurationError(f"on_declared is {clip(repr(on_declared))}: give something that can be called")
        self.on_declared = on_declared
        self.durable = flag("durable", self.durable if durable is None else durable)
        self.exclusive = flag("exclusive", self.exclusive if exclusive is None else exclusive)
        self.auto_delete = flag("auto_delete", self.auto_delete if auto_delete is None else auto_delete)
        self.auto_delete = self.auto_delete or self.exclusive
        self.no_ack = flag("no_ack", self.no_ack if no_ack is None else no_ack)
        self.alias = self.alias if alias is None else alias
        self.no_declare = flag("no_declare", self.no_declare if no_declare is None else no_declare)
        self.expires = seconds("expires", self.expires if expires is None else expires)
        self.message_ttl = seconds("message_ttl", self.message_ttl if message_ttl is None else message_ttl)
        self.max_length = count("max_length", self.max_length if max_length is None else max_length)
        self.max_length_bytes = count(
            "max_length_bytes", self.max_length_bytes if max_length_bytes is None else max_length_bytes
        )
        self.max_priority = count(
            "max_priority", self.max_priority if max_priority is None else max_priority, _MOST_PRIORITIES
        )
        self.queue_arguments = table(
            "queue_arguments", self.queue_arguments if queue_arguments is None else queue_arguments
        )
        self.binding_arguments = table(
            "binding_arguments", self.binding_arguments if binding_arguments is None else binding_arguments
        )
        self.consumer_arguments = table(
            "consumer_arguments", self.consumer_arguments if consumer_arguments is None else consumer_arguments
        )
        self.maybe_bind(channel)

    # -- its name

    @property
    def name(self) -> str:
        """Its name; "" until the broker has made one up."""
        return self._name

    @name.setter
    def name(self, value: str) -> None:
        self._name = self._given_name = _name("name", value)

    @property
    def is_server_named(self) -> bool:
        """Whether its name was made up by the broker."""
        return bool(self._name) and not self._given_name

    def _was_named(self, given: str, channel: EntityChannel) -> None:
        cache = cache_of(channel)
        epoch = None if cache is None else cache.epoch
        named: Queue | None = self
        while named is not None and not named._given_name:
            named._name = given
            named._named_in = epoch
            named = named._origin

    def revive(self, channel: Any) -> None:
        """Take another channel in place of the present one.

        An exclusive queue went with the connection that was lost: so does the name that the broker had made up.
        """
        if self.is_bound and self.exclusive and self.is_server_named:
            cache = cache_of(channel_of(channel))
            if cache is None or cache.epoch != self._named_in:
                self._name = ""
        super().revive(channel)

    def when_bound(self) -> None:
        """The exchange is bound with it."""
        if self.exchange is not None:
            self.exchange = self.exchange.bind(self.channel)

    # -- declaring

    @property
    def is_declarable(self) -> bool:
        """Whether declaring tells the broker anything: not with `no_declare`."""
        return not self.no_declare

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments it is declared with: `queue_arguments`, and what has a name of its own in RabbitMQ's words."""
        arguments = dict(self.queue_arguments or {})
        if self.expires is not None:
            arguments["x-expires"] = milliseconds(self.expires)
        if self.message_ttl is not None:
            arguments["x-message-ttl"] = milliseconds(self.message_ttl)
        if self.max_length is not None:
            arguments["x-max-length"] = self.max_length
        if self.max_length_bytes is not None:
            arguments["x-max-length-bytes"] = self.max_length_bytes
        if self.max_priority is not None:
            arguments["x-max-priority"] = self.max_priority
        return arguments

    def declare(self, nowait: bool = False, channel: Any = None) -> Deferred[str]:
        """Declare the exchange, then the queue, then bind it; fires with the queue's name.

        channel: to use in place of the one it is bound to.   nowait: do not wait; that it failed is logged.

        With `no_declare` nothing is done.  NotBoundError, PreconditionFailed (it is there and is another),
        ResourceLocked (it is another connection's), AccessRefused ...
        """
        if nowait and not self._name and not self.no_declare:
            return fail(
                ConfigurationError("a queue without a name cannot be declared with nowait: the name comes later")
            )
        return self._do(self._declare(channel), nowait, self._name)

    async def _declare(self, channel: Any) -> str:
        if self.no_declare:
            return self._name
        on = self._on(channel)
        if self.exchange is not None:
            await self.exchange.declare(channel=on)
        await self._queue_declare(False, on)
        if self.exchange is not None:
            await self._bind(True, self.exchange, self.routing_key, self.binding_arguments, on)
        for each in self.bindings:
            await each.declare(on)
            await each.bind(self, channel=on)
        return self._name

    def queue_declare(
        self, nowait: bool = False, passive: bool = False, channel: Any = None
    ) -> Deferred[DeclaredQueue]:
        """Declare the queue alone; fires with its name and how many messages and consumers it has.

        passive: only check that it is there (NotFound).
        """
        return self._do(self._queue_declare(passive, channel), nowait, DeclaredQueue(self._name, 0, 0))

    async def _queue_declare(self, passive: bool, channel: Any) -> DeclaredQueue:
        on = self._on(channel)
        declared = None
        if self.is_server_named and not passive:
            # A broker refuses to create what has a name of its own making; so see whether it is still there.
            try:
                declared = await self._ask(on, True)
            except (NotFound, ResourceLocked):
                self._name = ""
        if declared is None:
            declared = await self._ask(on, passive)
        if not self._name:
            self._was_named(declared.name, on)
        if self.on_declared is not None:
            self.on_declared(declared.name, declared.message_count, declared.consumer_count)
        return declared

    def _ask(self, channel: EntityChannel, passive: bool) -> Deferred[DeclaredQueue]:
        return channel.queue_declare(
            self._name,
            passive=passive,
            durable=self.durable,
            exclusive=self.exclusive,
            auto_delete=self.auto_delete,
            arguments=self.arguments or None,
        )

    # -- binding

    def queue_bind(self, nowait: bool = False, channel: Any = None) -> Deferred[None]:
        """Bind it to its exchange with its routing key."""
        return self._do(
            self._bind(True, self.exchange, self.routing_key, self.binding_arguments, channel), nowait, None
        )

    def queue_unbind(
        self, arguments: Mapping[str, Any] | None = None, nowait: bool = False, channel: Any = None
    ) -> Deferred[None]:
        """Take that binding away.  arguments: None takes `binding_arguments`."""
        given = self.binding_arguments if arguments is None else arguments
        return self._do(self._bind(False, self.exchange, self.routing_key, given, channel), nowait, None)

    def bind_to(
        self,
        exchange: Exchange | str = "",
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
        channel: Any = None,
    ) -> Deferred[None]:
        """Bind it to an exchange.  To the default exchange every queue is bound already: nothing is done.  NotFound."""
        return self._do(self._bind(True, exchange, routing_key, arguments, channel), nowait, None)

    def unbind_from(
        self,
        exchange: Exchange | str = "",
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        nowait: bool = False,
        channel: Any = None,
    ) -> Deferred[None]:
        """Take a binding away; one that is not there is fine."""
        return self._do(self._bind(False, exchange, routing_key, arguments, channel), nowait, None)

    async def _bind(
        self, is_wanted: bool, exchange: Exchange | str | None, routing_key: str, arguments: Any, channel: Any
    ) -> None:
        on = self._on(channel)
        source = "" if exchange is None else exchange_name(exchange)
        if source:
            call = on.queue_bind if is_wanted else on.queue_unbind
            await call(self._name, source, name("routing_key", routing_key), table("arguments", arguments))

    # -- its messages

    def purge(self, nowait: bool = False) -> Deferred[int]:
        """Drop the messages that are ready; fires with how many."""
        return self._do(self._purge(), nowait, 0)

    async def _purge(self) -> int:
        return await self._on(None).queue_purge(self._name)

    def delete(self, if_unused: bool = False, if_empty: bool = False, nowait: bool = False) -> Deferred[int]:
        """Delete it; fires with how many messages went with it.  One that is not there is fine: 0.

        if_unused, if_empty: PreconditionFailed while it has consumers, or messages.
        """
        return self._do(self._delete(if_unused, if_empty), nowait, 0)

    async def _delete(self, if_unused: bool, if_empty: bool) -> int:
        return await self._on(None).queue_delete(self._name, if_unused=if_unused, if_empty=if_empty)

    def get(self, no_ack: bool | None = None, accept: Accept = None) -> Deferred[Message | None]:
        """Take one message; fires with it, or with None if the queue is empty.

        no_ack: None takes the queue's own; otherwise the message is to be settled.
        accept: content types that are decoded, as for a Consumer; None: JSON, text and raw octets.

        SerializerNotInstalled: a name in `accept` that is not known.  Whether the body may be decoded, and can be, is
        seen when `payload` is asked for.
        """
        return self._do(self._get(no_ack, accept), False, None)

    async def _get(self, no_ack: bool | None, accept: Accept) -> Message | None:
        trust = Trust.of(accept)
        channel: Any = self._on(None)
        no_ack = self.no_ack if no_ack is None else no_ack
        delivery = await channel.get(self._name, no_ack=no_ack)
        return None if delivery is None else received(delivery, channel, trust, no_ack=no_ack)

    def consume(
        self,
        consumer_tag: str = "",
        callback: Callable[[Any], object] | None = None,
        no_ack: bool | None = None,
        nowait: bool = False,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each delivery (:class:`txmsg.abc.MessagingDelivery`) to `callback`; fires with the consumer tag.

        no_ack: None takes the queue's own.   on_cancel: called with the reason when the broker ended the consumer.
        `consumer_arguments` go with it.   nowait: needs a tag.  Most want a `Consumer`, which decodes.
        """
        if callback is None or not callable(callback):
            return fail(ConfigurationError("consume needs a callback, which is called with each delivery"))
        if nowait and not consumer_tag:
            return fail(ConfigurationError("consume with nowait needs a consumer_tag: the broker's comes later"))
        return self._do(self._consume(consumer_tag, callback, no_ack, on_cancel), nowait, consumer_tag)

    async def _consume(self, consumer_tag: str, callback: Any, no_ack: bool | None, on_cancel: Any) -> str:
        return await self._on(None).consume(
            self._name,
            callback,
            no_ack=self.no_ack if no_ack is None else no_ack,
            consumer_tag=name("consumer_tag", consumer_tag),
            arguments=self.consumer_arguments,
            on_cancel=on_cancel,
        )

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer; an unknown tag is fine."""
        return self._do(self._cancel(consumer_tag), False, None)

    async def _cancel(self, consumer_tag: str) -> None:
        await self._on(None).cancel(consumer_tag)

    # -- values

    @property
    def can_cache_declaration(self) -> bool:
        """Not if it is deleted by itself: with its last consumer, or when nobody used it for a time."""
        return not self.auto_delete and self.expires is None and "x-expires" not in (self.queue_arguments or ())

    def definition(self) -> tuple[Any, ...]:
        """All that the broker is told of it, as something that can be hashed and holds no channel."""
        return (
            "queue",
            self._name,
            self.durable,
            self.exclusive,
            self.auto_delete,
            self.no_declare,
            frozen(self.arguments),
            None if self.exchange is None else self.exchange.definition(),
            self.routing_key,
            frozen(self.binding_arguments),
            tuple(each.definition() for each in self.bindings),
        )

    def _identity(self) -> tuple[Any, ...]:
        return (*self.definition(), self.no_ack, frozen(self.consumer_arguments), self.is_server_named)

    def as_dict(self, recurse: bool = False) -> dict[str, Any]:
        """Its fields, by the names of the constructor's arguments, but for the channel and `on_declared`.

        recurse: exchange and bindings as their fields, too, so that JSON can carry it.
        """
        fields: dict[str, Any] = {
            each: getattr(self, each) for each in ("name", "exchange", "routing_key", *_ARGUMENTS, *_PLAIN, "bindings")
        }
        for each in _ARGUMENTS:
            fields[each] = None if fields[each] is None else dict(fields[each])
        if recurse:
            fields["exchange"] = None if self.exchange is None else self.exchange.as_dict(recurse=True)
        fields["bindings"] = [each.as_dict(recurse=True) if recurse else each for each in self.bindings]
        return fields

    @classmethod
    def from_dict(cls, queue: str = "", /, **options: Any) -> Self:
        """A queue of the flat options a settings file has.

        `name` (the first argument as well), `exchange` (its name), `exchange_type`, `binding_key` or `routing_key`,
        `durable` and `auto_delete` for both, or with `queue_` or `exchange_` in front for one; `delivery_mode` and
        `exchange_arguments` for the exchange; and the other arguments of :class:`Queue` by their names.  What
        :meth:`as_dict` gave is understood, too.  ConfigurationError: an option that is none of these.
        """
        from txmsg.messaging.entities.options import queue_options

        return cls._of_options(**queue_options(queue, options))

    @classmethod
    def _of_options(cls, **options: Any) -> Self:
        return cls(**options)

    def __hash__(self) -> int:
        return hash(("queue", self._given_name))

    def __repr__(self) -> str:
        if self.exchange is None:
            sources = ", ".join(map(str, self.bindings))
        else:
            sources = f"{clip(self.exchange.name)!r} -> {clip(self.routing_key)!r}"
        return self._shown(f"{type(self).__name__} {clip(self._name)!r} <- {sources}")


_PLAIN = (
    "durable",
    "exclusive",
    "auto_delete",
    "no_ack",
    "alias",
    "no_declare",
    "expires",
    "message_ttl",
    "max_length",
    "max_length_bytes",
    "max_priority",
)
_ARGUMENTS = ("queue_arguments", "binding_arguments", "consumer_arguments")

# `name` is a parameter of the constructor, and a property.
_name = name

"""MaybeChannelBound: what exchanges and queues have in common.

An entity is a description until it is bound to a channel; binding makes a copy, and the description stays as it was
(kombu E1).  Nothing here does I/O but the methods that return a Deferred, and those never raise: they fail.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ClassVar, Protocol, Self, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from txmsg.abc import DeclaredQueue, Properties
from txmsg.errors import ConfigurationError, NotBoundError, clip

__all__ = ["EntityChannel", "MaybeChannelBound", "channel_of"]

_T = TypeVar("_T")
_Arguments = Mapping[str, Any] | None


class EntityChannel(Protocol):
    """What an entity needs of a channel: the topology, and the messages, of :class:`txmsg.abc.MessagingChannel`.

    A `txmsg.messaging.Channel` has it, and so has the channel of a transport.
    """

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        arguments: _Arguments = None,
    ) -> Deferred[None]:
        """Create an exchange, or check that it is there."""

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        """Delete an exchange."""

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: _Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from one exchange to another."""

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: _Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: _Arguments = None,
    ) -> Deferred[DeclaredQueue]:
        """Create a queue, or check that it is there."""

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        """Delete a queue."""

    def queue_purge(self, queue: str) -> Deferred[int]:
        """Drop the messages that are ready."""

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: _Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from an exchange to a queue."""

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: _Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away."""

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Properties | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[None]:
        """Publish one message."""

    def consume(
        self,
        queue: str,
        callback: Callable[[Any], object],
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        consumer_tag: str = "",
        arguments: _Arguments = None,
        on_cancel: Callable[[BaseException], object] | None = None,
    ) -> Deferred[str]:
        """Give each message of the queue to `callback`."""

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        """End a consumer."""

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[Any]:
        """Take one message."""


def channel_of(channel: Any) -> EntityChannel:
    """A channel, or the default channel of a connection.  ConfigurationError: it is neither."""
    if hasattr(type(channel), "default_channel"):  # looked up on the class: asking the object would make one
        channel = channel.default_channel
    if not callable(getattr(channel, "queue_declare", None)):
        raise ConfigurationError(f"a {type(channel).__name__} cannot be bound to: give a channel or a connection")
    found: EntityChannel = channel
    return found


class MaybeChannelBound:
    """An exchange or a queue, bound to a channel or to none.

    Call it with a channel or a connection, or use :meth:`bind`, for a copy that is bound; a connection stands for its
    default channel.  Pickles and copies (`copy.copy`) are not bound, whatever the original was.
    """

    _log: ClassVar[Logger] = Logger()
    #: Fields that belong to this process, and are not in a pickle.
    _local: ClassVar[tuple[str, ...]] = ("_channel", "_origin")

    def __init__(self) -> None:
        self._channel: EntityChannel | None = None
        #: What this is a bound copy of.
        self._origin: Self | None = None

    # -- binding

    def __call__(self, channel: Any) -> Self:
        """The same as :meth:`bind`."""
        return self.bind(channel)

    def bind(self, channel: Any) -> Self:
        """A copy that is bound to a channel, or to the default channel of a connection; this one stays as it is."""
        bound = copy.copy(self)
        bound._origin = self
        return bound.maybe_bind(channel)

    def maybe_bind(self, channel: Any) -> Self:
        """Bind this very object, unless it is bound or `channel` is None.  Returns it."""
        if channel is not None and self._channel is None:
            self._channel = channel_of(channel)
            self.when_bound()
        return self

    def revive(self, channel: Any) -> None:
        """Take another channel in place of the present one, after the connection came back; unbound: nothing."""
        if self._channel is not None:
            self._channel = channel_of(channel)
            self.when_bound()

    def when_bound(self) -> None:
        """Called when this object was bound, or bound anew; for subclasses."""

    @property
    def is_bound(self) -> bool:
        """Whether it has a channel."""
        return self._channel is not None

    @property
    def channel(self) -> EntityChannel:
        """The channel it is bound to; raises NotBoundError if there is none."""
        return self._on(None)

    def _on(self, channel: Any) -> EntityChannel:
        """`channel` if there is one, or else the one this is bound to."""
        if channel is not None:
            return channel_of(channel)
        if self._channel is None:
            what = f"{type(self).__name__} {clip(getattr(self, 'name', ''))!r}"
            raise NotBoundError(f"{what} is bound to no channel: call it with one, or with a connection")
        return self._channel

    # -- declaring

    def declare(self) -> Deferred[Any]:
        """Create it at the broker, and fire when it is there."""
        raise NotImplementedError

    @property
    def is_declarable(self) -> bool:
        """Whether declaring tells the broker anything."""
        return True

    @property
    def can_cache_declaration(self) -> bool:
        """Whether :func:`~txmsg.messaging.entities.declaring.maybe_declare` may leave out what it declared.

        That is what does not go away by itself.
        """
        return False

    def definition(self) -> tuple[Any, ...]:
        """All that the broker is told of it, as something that can be hashed and holds no channel."""
        raise NotImplementedError

    def _identity(self) -> tuple[Any, ...]:
        """What makes two of them equal."""
        return self.definition()

    def _do(self, work: Coroutine[Any, Any, _T], nowait: bool, meanwhile: _T) -> Deferred[_T]:
        """Run `work`.  nowait: fire with `meanwhile` at once; that it failed is then logged."""
        doing = Deferred.fromCoroutine(work)
        if not nowait:
            return doing
        doing.addErrback(lambda failure: self._log.failure("{entity!r}: nobody waited for it", failure, entity=self))
        return succeed(meanwhile)

    # -- values

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaybeChannelBound):
            return NotImplemented
        return self._identity() == other._identity()

    def __hash__(self) -> int:
        raise NotImplementedError

    def __copy__(self) -> Self:
        """An unbound copy: what belongs to this process, but for the channel, comes along."""
        made = object.__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._channel = made._origin = None
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {key: None if key in self._local else value for key, value in self.__dict__.items()}

    def _shown(self, what: str) -> str:
        """For `__repr__`."""
        if self._channel is None:
            return f"<{what}, unbound>"
        number = getattr(self._channel, "number", None)
        return f"<{what}, bound to channel{'' if number is None else f' {number}'}>"

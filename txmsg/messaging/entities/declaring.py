"""maybe_declare: an entity is declared once for a connection, and again when that connection was lost.

Invariants (kombu O2 to O4): what is remembered is the whole definition, not the name, and holds neither channel nor
entity; what deletes itself (auto_delete, x-expires) is not remembered, nor is a declaration that failed, nor one that
was under way when the connection was lost; those who ask at the same time wait for one declaration.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred, succeed

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.connection.sharing import SharedAttempt
from txmsg.messaging.entities.entity import MaybeChannelBound

__all__ = ["DeclarationCache", "cache_of", "maybe_declare"]

_T = TypeVar("_T")

#: How many definitions a connection remembers; with more, the oldest is declared again when it is next asked for.
DEFAULT_LIMIT: Final = 10_000


class DeclarationCache:
    """The definitions that were declared over one connection.

    limit: int -- how many are remembered; the oldest make room.
    epoch: int -- how often it was cleared: the connection is another one each time.
    """

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self.epoch = 0
        self._known: dict[tuple[Any, ...], None] = {}
        self._under_way: dict[Any, SharedAttempt[Any]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, entity: object) -> bool:
        """Whether this very definition was declared and is remembered."""
        return isinstance(entity, MaybeChannelBound) and entity.definition() in self._known

    def clear(self) -> None:
        """Forget all: the connection was lost, closed, or leads to another broker."""
        self.epoch += 1
        self._known.clear()
        self._under_way = {}

    def forget(self, kind: str, name: str) -> None:
        """Forget the "queue" or "exchange" of a name, which was deleted, and what was bound to it."""
        for known in [known for known in self._known if _mentions(known, (kind, name))]:
            del self._known[known]

    def declare(self, entity: MaybeChannelBound, asked: MaybeChannelBound | None = None) -> Deferred[bool]:
        """Declare an entity, which is bound, unless that is done; fires with whether this call did it.

        asked: what `entity` is a bound copy of.
        """
        definition = entity.definition()
        if definition in self._known:
            return succeed(False)
        # Two queues without a name are two queues; one that is asked for twice is one.
        key: Any = id(entity if asked is None else asked) if definition[1] == "" else definition
        under_way = self._under_way
        if key in under_way:
            return under_way[key].join().addCallback(lambda _: False)

        def start() -> Deferred[Any]:
            return entity.declare().addCallback(done).addBoth(over)

        def done(outcome: _T) -> _T:
            if under_way is self._under_way and entity.can_cache_declaration:
                self._remember(entity.definition())  # anew: by now a queue has the name that the broker gave it
            return outcome

        def over(outcome: _T) -> _T:
            under_way.pop(key, None)
            return outcome

        attempt = under_way[key] = SharedAttempt(start)
        return attempt.join().addCallback(lambda _: True)

    def _remember(self, definition: tuple[Any, ...]) -> None:
        self._known[definition] = None
        if len(self._known) > self._limit:
            del self._known[next(iter(self._known))]

    def __repr__(self) -> str:
        return f"<DeclarationCache: {len(self._known)} declared, {len(self._under_way)} under way>"


def _mentions(definition: tuple[Any, ...], wanted: tuple[str, str]) -> bool:
    return definition[:2] == wanted or any(isinstance(part, tuple) and _mentions(part, wanted) for part in definition)


def cache_of(channel: Any) -> DeclarationCache | None:
    """The cache of a channel's connection; None: it has none."""
    found = getattr(getattr(channel, "connection", None), "declared_entities", None)
    return found if isinstance(found, DeclarationCache) else None


def maybe_declare(
    entity: MaybeChannelBound, channel: Any = None, retry: bool = False, **retry_policy: Any
) -> Deferred[bool]:
    """Declare an exchange or a queue unless this connection has done so; fires with True if it was declared now.

    channel: a channel or a connection to declare it on; None: the one that the entity is bound to.  An entity that is
        not bound stays so: a copy is declared.  A name that the broker gives reaches the entity, though.
    retry: bool -- try again on errors that can pass, as `Connection.ensure` does; `retry_policy` are its arguments.

    What is not to be declared (`no_declare`, the broker's own exchanges) is not, and gives False.  NotBoundError,
    NotFound, PreconditionFailed ...; with `retry` OperationalError.
    """
    if not isinstance(entity, MaybeChannelBound):
        why = f"a {type(entity).__name__} cannot be declared: give an Exchange or a Queue"
        return Deferred.fromCoroutine(_refuse(ConfigurationError(clip(why))))
    if not entity.is_declarable:
        return succeed(False)
    if entity.is_bound and channel is None:
        known = cache_of(entity.channel)
        if known is not None and entity in known:
            return succeed(False)
    return Deferred.fromCoroutine(_maybe_declare(entity, channel, retry, retry_policy))


async def _refuse(error: Exception) -> bool:
    raise error


async def _maybe_declare(entity: MaybeChannelBound, channel: Any, retry: bool, retry_policy: dict[str, Any]) -> bool:
    bound = entity if channel is None else entity.bind(channel)
    connection = getattr(bound.channel, "connection", None)
    if not retry or connection is None:
        return await _declare(bound, entity)
    declared: bool = await connection.ensure(bound, lambda: _declare(bound, entity), **retry_policy)()
    return declared


def _declare(bound: MaybeChannelBound, asked: MaybeChannelBound) -> Deferred[bool]:
    cache = cache_of(bound.channel)  # which it may have another of than at the attempt before
    if cache is None:
        return bound.declare().addCallback(lambda _: True)
    return cache.declare(bound, asked)

"""Groups of pools: one pool for all connections that are made alike.

::

    from txmsg.messaging import Connection, pools

    connection = Connection("amqp://")
    async with pools.producers[connection].acquire(block=True) as producer:
        await producer.publish({"hello": "world"}, exchange="news", routing_key="all")

`connections` and `producers` are the groups of the whole process, and follow one limit (:func:`set_limit`).  The
producers of `producers` are on the connections of `connections`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred, gatherResults

from txmsg.messaging.pools.connections import ConnectionPool
from txmsg.messaging.pools.producers import ProducerPool
from txmsg.messaging.pools.resource import checked_limit

if TYPE_CHECKING:
    from txmsg.messaging.connection.connection import Connection

__all__ = [
    "DEFAULT_LIMIT",
    "Connections",
    "PoolGroup",
    "Producers",
    "connections",
    "get_limit",
    "producers",
    "register_group",
    "reset",
    "set_limit",
    "use_global_limit",
]

#: The global limit of a process that sets none.
DEFAULT_LIMIT: Final = 10


class _Pool(Protocol):
    """What the groups need of a pool."""

    @property
    def is_closed(self) -> bool: ...

    def check_resize(self, limit: int | None, force: bool = False) -> None: ...

    def resize(
        self, limit: int | None, force: bool = False, ignore_errors: bool = False, reset: bool = False
    ) -> Deferred[None]: ...

    def force_close_all(self) -> Deferred[None]: ...


PoolT = TypeVar("PoolT", bound=_Pool)


class _UseGlobalLimit:
    """The type of :data:`use_global_limit`."""

    def __repr__(self) -> str:
        return "use_global_limit"


#: The limit of a group that follows the global one, whatever it is set to.
use_global_limit: Final = _UseGlobalLimit()

Limit = int | None | _UseGlobalLimit


class PoolGroup(Mapping[Any, PoolT]):
    """Pools by connection: `group[connection]` is the pool of all connections like it, made when first asked for.

    limit: int | None | use_global_limit -- of each of its pools; the default is none.

    Connections are alike when all they were made with is the same: the hosts, the user and password, the virtual host,
    TLS, the transport and its options (`Connection.eqhash()`).  Iterating gives the keys that it keeps them under,
    which have the passwords in them and hide them from `repr`.  Subclass it and say in :meth:`create` what it has.
    """

    def __init__(self, limit: Limit = None) -> None:
        self._limit = limit if isinstance(limit, _UseGlobalLimit) else checked_limit(limit)
        self._pools: dict[Hashable, PoolT] = {}

    def create(self, resource: Any, limit: int | None) -> PoolT:
        """A new pool for connections like `resource`."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its pools are")

    @property
    def limit(self) -> int | None:
        """The limit of its pools."""
        return get_limit() if isinstance(self._limit, _UseGlobalLimit) else self._limit

    @property
    def follows_global_limit(self) -> bool:
        """Whether its limit is the global one."""
        return isinstance(self._limit, _UseGlobalLimit)

    def reset(self) -> Deferred[None]:
        """Close all its pools, also what is in use, and forget them; fires when all is closed."""
        pools, self._pools = list(self._pools.values()), {}
        return gatherResults([pool.force_close_all() for pool in pools]).addCallback(lambda _: None)

    def __getitem__(self, resource: Any) -> PoolT:
        key = _key(resource)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = self.create(resource, self.limit)
        return pool

    def __contains__(self, resource: object) -> bool:
        return _key(resource) in self._pools

    def get(self, resource: Any, default: Any = None) -> Any:
        """The pool of connections like `resource` if there is one; none is made."""
        return self._pools.get(_key(resource), default)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._pools)

    def __len__(self) -> int:
        return len(self._pools)

    def values(self) -> Any:
        """The pools."""
        return self._pools.values()

    def items(self) -> Any:
        """What they are kept under, and the pools."""
        return self._pools.items()

    def __eq__(self, other: object) -> bool:
        return self is other

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self._pools)} pools, limit {self._limit!r}>"


class Connections(PoolGroup[ConnectionPool]):
    """Pools of connections."""

    def create(self, resource: Connection, limit: int | None) -> ConnectionPool:
        """A pool of connections like `resource`."""
        return ConnectionPool(resource, limit)


class Producers(PoolGroup[ProducerPool]):
    """Pools of producers.

    connections: Connections | None -- the group whose connections they are on, and whose limit is theirs; None: the
        one of the process if the limit is the global one, otherwise a group of its own.
    """

    def __init__(self, limit: Limit = None, connections: Connections | None = None) -> None:
        super().__init__(limit)
        self._owns_connections = connections is None and not self.follows_global_limit
        self._connections = Connections(limit) if self._owns_connections else connections

    @property
    def connections(self) -> Connections:
        """The group whose connections they are on."""
        return connections if self._connections is None else self._connections

    @property
    def limit(self) -> int | None:
        """That of the connections."""
        return self.connections.limit

    def create(self, resource: Connection, limit: int | None) -> ProducerPool:
        """A pool of producers on connections like `resource`."""
        return ProducerPool(self.connections[resource])

    def __getitem__(self, resource: Any) -> ProducerPool:
        pool = super().__getitem__(resource)
        if pool.connections.is_closed:
            # The group of connections was reset alone.
            pool.force_close_all()
            pool = self._pools[_key(resource)] = self.create(resource, self.limit)
        return pool

    def reset(self) -> Deferred[None]:
        """Close all its pools, also what is in use, and forget them, and its connections where no other group has
        them; fires when all is closed."""
        closing = [super().reset()]
        if self._owns_connections:
            closing.append(self.connections.reset())
        return gatherResults(closing).addCallback(lambda _: None)


GroupT = TypeVar("GroupT", bound=PoolGroup[Any])

_groups: list[PoolGroup[Any]] = []
_limit: list[int | None] = [DEFAULT_LIMIT]


def register_group(group: GroupT) -> GroupT:
    """Let a group take part in :func:`reset`, and in :func:`set_limit` if it follows the global limit; returns it."""
    if not any(group is other for other in _groups):
        _groups.append(group)
    return group


#: Pools of connections, for the whole process.
connections: Final = register_group(Connections(limit=use_global_limit))

#: Pools of producers, for the whole process, on the connections of `connections`.
producers: Final = register_group(Producers(limit=use_global_limit))


def get_limit() -> int | None:
    """The global limit: how many connections like one another may be in use; 10 unless it was set."""
    return _limit[0]


def set_limit(
    limit: int | None, force: bool = False, reset_after: bool = False, ignore_errors: bool = False
) -> int | None:
    """Set the global limit, for the pools there are and those to come; returns it.  None or 0: no limit, no pooling.

    force, ignore_errors: bool -- lower it also while resources are in use; what is too much is closed when it is
        released.  Without one of them PoolError is raised if any pool has something in use, and nothing changes.
    reset_after: bool -- close everything, also what is in use, and start again.
    """
    checked_limit(limit)
    followers = [pool for group in _groups if group.follows_global_limit for pool in group.values()]
    # Producers have the limit of their connections.
    pools = [pool for pool in followers if not isinstance(pool, ProducerPool) and not pool.is_closed]
    for pool in pools:
        pool.check_resize(limit, force or ignore_errors or reset_after)
    _limit[0] = limit
    for pool in pools:
        pool.resize(limit, force=True, reset=reset_after)
    return limit


def reset() -> Deferred[None]:
    """Close all pools of all registered groups, also what is in use, and forget them; fires when all is closed.

    The groups can be used at once: they make new pools.
    """
    return gatherResults([group.reset() for group in _groups]).addCallback(lambda _: None)


def _key(resource: Any) -> Hashable:
    eqhash = getattr(resource, "eqhash", None)
    return cast("Hashable", resource if eqhash is None else eqhash())

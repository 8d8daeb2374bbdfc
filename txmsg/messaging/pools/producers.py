"""ProducerPool: producers, each with a connection of its own out of a pool of connections.

Invariant: a producer that is lent holds exactly one connection of the pool of connections, and one that is not lent
holds none.  So there is one limit and one line for both, and nobody can have the one and wait for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import PoolClosed
from txmsg.messaging.pools.acquiring import Acquiring, Loan
from txmsg.messaging.pools.connections import ConnectionPool

if TYPE_CHECKING:
    from txmsg.messaging.connection.connection import Connection
    from txmsg.messaging.publishing.producer import Producer as _Producer

__all__ = ["ProducerPool"]


class ProducerPool:
    """Producers on the connections of another pool.

    connections: ConnectionPool -- where each producer's connection comes from and goes back to.
    Producer -- what makes one: called with a Connection, `args` and `kwargs`; None: :class:`txmsg.messaging.Producer`.

    The limit is that of the pool of connections: a producer cannot be had without a connection, and whoever waits for
    the one or the other waits in the same line.  A producer stays with its connection, so what it has declared it does
    not declare again.
    """

    _log = Logger()

    #: What `acquire` fails with when nothing is free.
    LimitExceeded = ConnectionPool.LimitExceeded

    def __init__(
        self,
        connections: ConnectionPool,
        *args: Any,
        Producer: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.connections = connections
        self._factory = Producer
        self._arguments = args
        self._keywords = kwargs
        self._borrowing: dict[Acquiring[_Producer], Acquiring[Connection]] = {}
        self._lent: dict[int, tuple[Loan[_Producer], Loan[Connection]]] = {}
        self._idle: dict[int, tuple[Connection, _Producer]] = {}
        self._closed = False

    def create(self, connection: Connection) -> _Producer:
        """A new producer on a connection; for subclasses."""
        factory = self._factory
        if factory is None:
            from txmsg.messaging.publishing.producer import Producer

            factory = Producer
        made: _Producer = factory(connection, *self._arguments, **self._keywords)
        return made

    @property
    def limit(self) -> int | None:
        """That of the connections.  Setting it is `resize(limit)`."""
        return self.connections.limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self.connections.resize(limit)

    def resize(
        self, limit: int | None, force: bool = False, ignore_errors: bool = False, reset: bool = False
    ) -> Deferred[None]:
        """Change the limit of the connections; see :meth:`txmsg.messaging.pools.Resource.resize`."""
        return self.connections.resize(limit, force=force, ignore_errors=ignore_errors, reset=reset)

    def check_resize(self, limit: int | None, force: bool = False) -> None:
        """Raise what :meth:`resize` would raise."""
        self.connections.check_resize(limit, force)

    @property
    def in_use(self) -> int:
        """How many producers are lent."""
        return len(self._lent)

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._borrowing)

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`force_close_all` has ended it."""
        return self._closed

    def acquire(self, block: bool = False, timeout: float | None = None) -> Acquiring[_Producer]:
        """Borrow a producer; arguments and errors as :meth:`txmsg.messaging.pools.Resource.acquire`."""
        acquiring: Acquiring[_Producer] = Acquiring(self)
        if self._closed:
            acquiring.errback(PoolClosed("the pool of producers is closed"))
            return acquiring
        borrowing = self._borrowing[acquiring] = self.connections.acquire(block, timeout)
        borrowing.addCallbacks(self._got, self._failed, (acquiring, borrowing), errbackArgs=(acquiring,))
        return acquiring

    def release(self, resource: _Producer) -> Deferred[None]:
        """Take a producer back, and give its connection back; fires when that is done.  Never fails.

        Of no effect for one that is not lent: it was released already, or is none of this pool's.
        """
        lent = self._lent.get(id(resource))
        return succeed(None) if lent is None else self._return(lent[0])

    def replace(self, resource: _Producer) -> Deferred[None]:
        """Throw away a producer that is lent, and its connection: others are made when they are needed."""
        lent = self._lent.pop(id(resource), None)
        if lent is None:
            return succeed(None)
        closing = self._close(resource)
        return gatherResults([closing, self.connections.replace(lent[1].resource)]).addCallback(lambda _: None)

    def force_close_all(self) -> Deferred[None]:
        """Close all producers, the connections of those that are in use, and the pool for good.

        Who waits, and who asks later, fails with PoolClosed.  The pool of connections lives on.
        """
        self._closed = True
        for acquiring, borrowing in list(self._borrowing.items()):
            if self._borrowing.pop(acquiring, None) is None:
                continue
            borrowing.cancel()
            acquiring.errback(PoolClosed("the pool of producers was closed"))
        lent, self._lent = list(self._lent.values()), {}
        idle, self._idle = list(self._idle.values()), {}
        closing = [self._close(producer) for _, producer in idle]
        for loan, connection in lent:
            closing += [self._close(loan.resource), self.connections.replace(connection.resource)]
        return gatherResults(closing).addCallback(lambda _: None)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.in_use} in use"
        return f"<{type(self).__name__} {state}, of {self.connections!r}>"

    # -- inside

    def _got(self, connection: Connection, acquiring: Acquiring[_Producer], borrowing: Acquiring[Connection]) -> None:
        self._borrowing.pop(acquiring, None)
        loan = borrowing.loan
        if loan is None:
            raise AssertionError("what was acquired was not lent")
        try:
            producer = self._producer_on(connection)
        except Exception:
            failure = Failure()
            self.connections._return(loan)
            acquiring.errback(failure)
            return
        acquiring.loan = Loan(producer)
        self._lent[id(producer)] = (acquiring.loan, loan)
        acquiring.callback(producer)

    def _failed(self, failure: Failure, acquiring: Acquiring[_Producer]) -> None:
        if self._borrowing.pop(acquiring, None) is not None and not acquiring.called:
            acquiring.errback(failure)

    def _producer_on(self, connection: Connection) -> _Producer:
        found = self._idle.pop(id(connection), None)
        if found is not None and not getattr(found[1], "is_closed", False):
            return found[1]
        # What the pool of connections has thrown away is no use to its producer either.
        for key, (other, producer) in list(self._idle.items()):
            if other.lender is not self.connections:
                del self._idle[key]
                self._close(producer)
        producer = self.create(connection)
        if hasattr(producer, "lender"):
            producer.lender = self
        return producer

    def _give_up(self, acquiring: Acquiring[_Producer]) -> None:
        borrowing = self._borrowing.pop(acquiring, None)
        if borrowing is not None:
            borrowing.cancel()

    def _return(self, loan: Loan[_Producer]) -> Deferred[None]:
        producer = loan.resource
        lent = self._lent.get(id(producer))
        if lent is None or lent[0] is not loan:
            return succeed(None)
        del self._lent[id(producer)]
        connection = lent[1].resource
        if self.connections.limit and connection.lender is self.connections and not self.connections.is_closed:
            self._idle[id(connection)] = (connection, producer)
            return self.connections._return(lent[1])
        # The connection goes with its release, so the producer has no use any more.
        closing = [self._close(producer), self.connections._return(lent[1])]
        return gatherResults(closing).addCallback(lambda _: None)

    def _close(self, producer: _Producer) -> Deferred[None]:
        if getattr(producer, "lender", None) is self:
            producer.lender = None

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) is None:
                self._log.warn("a producer could not be closed: {error}", error=failure.getErrorMessage())

        return Deferred.fromCoroutine(_closed(producer)).addErrback(failed)


async def _closed(producer: Any) -> None:
    closing = producer.close()
    if isinstance(closing, Deferred):
        await closing

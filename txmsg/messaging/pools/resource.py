"""Resource: a pool of anything, with a limit and a line of those who wait.

The rules, each with a test:

- at most `limit` resources are in use, those that are still being made among them;
- the last one released is the next one lent, so that light use keeps few of them busy;
- who waits is served in order of arrival, and nobody overtakes: while somebody waits, a non-blocking `acquire` fails;
- a place is given back when making or preparing a resource fails, or when who asked for it has given up meanwhile;
- releasing twice, or releasing what is not ours, changes nothing;
- a closed pool has no waiters and lends nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from typing import Any, ClassVar, Generic, TypeVar, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, LimitExceeded, OperationTimeout, PoolClosed, PoolError
from txmsg.messaging.pools.acquiring import Acquiring, Loan

__all__ = ["Resource", "checked_limit"]

T = TypeVar("T")


class _Start(Generic[T]):
    """A resource on its way to who asked for it; it holds a place of the pool until the way has ended."""

    __slots__ = ("abandoned", "acquiring", "work")

    def __init__(self, acquiring: Acquiring[T]) -> None:
        self.acquiring = acquiring
        self.work: Deferred[T] | None = None
        self.abandoned = False


class Resource(Generic[T]):
    """A pool.  Subclass it and say in :meth:`create` what it is a pool of.

    limit: int | None -- how many may be in use at a time, those still being made included; None (the default) or 0 is
        no limit, and no pooling either: each `acquire` makes one, each `release` closes it.
    reactor -- the clock of the timeouts; None takes the installed reactor when the first one is needed.

    Nothing is made before it is asked for.  What is lent and has an attribute `lender` has it set to the pool, see
    :mod:`txmsg.messaging.lending`: its own `release()` brings it back here.
    """

    _log: ClassVar = Logger()

    #: What `acquire` fails with when nothing is free.
    LimitExceeded: ClassVar[type[LimitExceeded]] = LimitExceeded
    #: What it is a pool of, for texts.
    kind: ClassVar[str] = "resources"

    def __init__(self, limit: int | None = None, *, reactor: Any = None) -> None:
        self._limit = checked_limit(limit)
        self._reactor = reactor
        self._idle: list[T] = []
        self._lent: dict[int, Loan[T]] = {}
        self._starting: set[_Start[T]] = set()
        self._waiters: deque[Acquiring[T]] = deque()
        self._closed = False
        self._is_serving = False
        self.setup()

    # -- what a subclass says

    def setup(self) -> None:
        """Called when the pool is made, and after a `resize` with `reset`; does nothing by default."""

    def create(self) -> T | Deferred[T] | Coroutine[Any, Any, T]:
        """A new resource, now or later."""
        raise NotImplementedError(f"{type(self).__name__} does not say what it is a pool of")

    def is_usable(self, resource: T) -> bool:
        """Whether an idle resource can be lent again; True by default.  One that is not is thrown away."""
        return True

    def prepare(self, resource: T) -> T | Deferred[T] | Coroutine[Any, Any, T]:
        """Called with a resource each time before it is lent; what it returns is lent, by default the same."""
        return resource

    def release_resource(self, resource: T) -> None:
        """Called with a resource each time it is released; if it raises, the resource is thrown away."""

    def close_resource(self, resource: T) -> Deferred[None] | None:
        """End a resource that is not kept; by default its `close()` where it has one."""
        close = getattr(resource, "close", None)
        return close() if close is not None else None

    def collect_resource(self, resource: T) -> Deferred[None] | None:
        """End a resource that is defective; by default as :meth:`close_resource`."""
        return self.close_resource(resource)

    # -- what it is

    @property
    def limit(self) -> int | None:
        """How many may be in use; None or 0: any number.  Setting it is `resize(limit)`."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self.resize(limit)

    @property
    def in_use(self) -> int:
        """How many places are taken: what is lent, and what is being made or prepared for somebody."""
        return len(self._lent) + len(self._starting)

    @property
    def idle(self) -> int:
        """How many resources are kept for the next one who asks."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiters)

    @property
    def is_closed(self) -> bool:
        """Whether :meth:`force_close_all` has ended it."""
        return self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.in_use} of {self._limit or 'any number'} in use"
        return f"<{type(self).__name__} {state}, {self.idle} idle, {self.waiting} waiting>"

    # -- lending

    def acquire(self, block: bool = False, timeout: float | None = None) -> Acquiring[T]:
        """Borrow a resource; fires with it.  `async with pool.acquire(block=True) as resource` gives it back by itself.

        block: bool -- whether to wait in line when all are in use; otherwise it fails at once.
        timeout: float | None -- for how many seconds at most, for a place and for the resource; None: for ever.

        Errors: :attr:`LimitExceeded` (all are in use, and were until the timeout); OperationTimeout (it could not be
        made ready by the timeout); PoolClosed, a RuntimeError; whatever making or preparing one fails with.
        """
        acquiring: Acquiring[T] = Acquiring(self)
        if self._closed:
            acquiring.errback(PoolClosed(f"the pool of {self.kind} is closed"))
        elif self._has_room() and not self._waiters:
            self._start(acquiring)
        elif not block or (timeout is not None and timeout <= 0):
            acquiring.errback(self._exceeded())
        else:
            self._waiters.append(acquiring)
        if timeout is not None and not acquiring.called:
            acquiring.timer = self._clock().callLater(max(timeout, 0), self._timed_out, acquiring)
        return acquiring

    def release(self, resource: T) -> Deferred[None]:
        """Take back what was lent; fires when it is back, or closed where it is not kept.  Never fails.

        Of no effect for what is not lent: it was released already, or is none of this pool's.
        """
        loan = self._loan_of(resource)
        return succeed(None) if loan is None else self._return(loan)

    def replace(self, resource: T) -> Deferred[None]:
        """Throw away a defective resource, lent or idle: another is made when one is needed.  Fires when it is closed.

        Of no effect for what is none of this pool's.
        """
        loan = self._loan_of(resource)
        if loan is not None:
            del self._lent[id(resource)]
        else:
            position = next((i for i, idle in enumerate(self._idle) if idle is resource), None)
            if position is None:
                return succeed(None)
            del self._idle[position]
        closing = self._discard(resource)
        self._serve()
        return closing

    # -- changing it

    def resize(
        self, limit: int | None, force: bool = False, ignore_errors: bool = False, reset: bool = False
    ) -> Deferred[None]:
        """Change the limit; fires when what was closed for it is closed.

        force, ignore_errors: bool -- lower it also while resources are in use: what is too much is closed when it is
            released.  Without one of them that raises PoolError and nothing changes.  Raising the limit, and taking it
            away (None or 0), is always fine.
        reset: bool -- close everything, also what is in use, and start again; who waits goes on waiting.
        """
        self.check_resize(limit, force or ignore_errors or reset)
        self._limit = limit
        closing = []
        if reset:
            # Nobody is given anything in the middle of it.
            was_serving, self._is_serving = self._is_serving, True
            try:
                closing.append(self._close_all(PoolClosed(f"the pool of {self.kind} was reset")))
                self.setup()
            finally:
                self._is_serving = was_serving
        while self._idle and self.in_use + len(self._idle) > (limit or 0):
            closing.append(self._close(self._idle.pop(0)))
        self._serve()
        return _all(closing)

    def check_resize(self, limit: int | None, force: bool = False) -> None:
        """Raise what :meth:`resize` would raise: PoolError when the limit shrinks while resources are in use."""
        limit = checked_limit(limit)
        if self._closed:
            raise PoolClosed(f"the pool of {self.kind} is closed")
        shrinks = bool(limit) and (not self._limit or cast("int", limit) < self._limit)
        if shrinks and self.in_use and not force:
            raise PoolError(
                f"the pool of {self.kind} cannot shrink from {self._limit or 'any number'} to {limit} "
                f"while {self.in_use} are in use"
            )

    def force_close_all(self) -> Deferred[None]:
        """Close all resources, also those in use, and the pool for good; fires when they are closed.

        Who waits, and who asks later, fails with PoolClosed.
        """
        self._closed = True
        reason = PoolClosed(f"the pool of {self.kind} was closed")
        while self._waiters:
            acquiring = self._waiters.popleft()
            acquiring.stop_timer()
            acquiring.errback(Failure(reason))
        return self._close_all(reason)

    # -- inside

    def _clock(self) -> IReactorTime:
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        return cast("IReactorTime", self._reactor)

    def _has_room(self) -> bool:
        return not self._limit or self.in_use < self._limit

    def _exceeded(self) -> PoolError:
        return self.LimitExceeded(f"all {self._limit} {self.kind} of the pool are in use")

    def _loan_of(self, resource: T) -> Loan[T] | None:
        # No other object can have the same id: the loan keeps its own alive.
        return self._lent.get(id(resource))

    def _start(self, acquiring: Acquiring[T]) -> None:
        """Take a place, and get a resource ready."""
        start = _Start(acquiring)
        self._starting.add(start)
        start.work = Deferred.fromCoroutine(self._ready())
        start.work.addBoth(self._started, start)

    async def _ready(self) -> T:
        resource = self._take_idle()
        if resource is None:
            resource = await _value(self.create())
            if hasattr(resource, "lender"):
                resource.lender = self
        try:
            return await _value(self.prepare(resource))
        except BaseException:
            self._discard(resource)
            raise

    def _take_idle(self) -> T | None:
        while self._idle:
            resource = self._idle.pop()
            try:
                if self.is_usable(resource):
                    return resource
            except Exception:
                self._log.failure("{pool!r} throws away a resource that cannot be looked at", pool=self)
            self._discard(resource)
        return None

    def _started(self, outcome: T | Failure, start: _Start[T]) -> None:
        self._starting.discard(start)
        acquiring = start.acquiring
        if isinstance(outcome, Failure):
            if not start.abandoned:
                acquiring.stop_timer()
                acquiring.errback(outcome)
        elif start.abandoned:
            # It was ready in spite of being cancelled.
            self._keep(outcome)
        else:
            acquiring.stop_timer()
            acquiring.loan = self._lent[id(outcome)] = Loan(outcome)
            acquiring.callback(outcome)
        self._serve()

    def _give_up(self, acquiring: Acquiring[T]) -> None:
        if acquiring in self._waiters:
            self._waiters.remove(acquiring)
            return
        for start in [start for start in self._starting if start.acquiring is acquiring]:
            self._abandon(start)

    def _abandon(self, start: _Start[T]) -> None:
        start.abandoned = True
        if start.work is not None:
            start.work.cancel()

    def _timed_out(self, acquiring: Acquiring[T]) -> None:
        was_waiting = acquiring in self._waiters
        self._give_up(acquiring)
        error = self._exceeded() if was_waiting else OperationTimeout(f"none of the {self.kind} was ready in time")
        acquiring.errback(error)

    def _return(self, loan: Loan[T]) -> Deferred[None]:
        resource = loan.resource
        if self._lent.get(id(resource)) is not loan:
            return succeed(None)
        del self._lent[id(resource)]
        try:
            self.release_resource(resource)
        except Exception:
            self._log.failure("{pool!r} throws away a resource that could not be released", pool=self)
            back = self._discard(resource)
        else:
            back = self._keep(resource)
        self._serve()
        return back

    def _keep(self, resource: T) -> Deferred[None]:
        """Make a resource idle, or close it where there is no room for it."""
        if self._closed or not self._limit or self.in_use + len(self._idle) >= self._limit:
            return self._close(resource)
        self._idle.append(resource)
        return succeed(None)

    def _serve(self) -> None:
        """Give the places that are free to those who have waited longest."""
        # Not nested: a thousand who release at once what they were given would be a thousand levels deep.
        if self._is_serving:
            return
        self._is_serving = True
        try:
            while self._waiters and self._has_room():
                self._start(self._waiters.popleft())
        finally:
            self._is_serving = False

    def _discard(self, resource: T) -> Deferred[None]:
        return self._end(resource, self.collect_resource)

    def _close(self, resource: T) -> Deferred[None]:
        return self._end(resource, self.close_resource)

    def _end(self, resource: T, how: Any) -> Deferred[None]:
        # First, so that a `release()` in what closes it is its own and not ours.
        if getattr(resource, "lender", None) is self:
            cast("Any", resource).lender = None
        ended = Deferred.fromCoroutine(_called(how, resource))

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) is None:
                self._log.warn(
                    "{pool!r}: a resource could not be closed: {error}", pool=self, error=failure.getErrorMessage()
                )

        ended.addErrback(failed)
        return ended

    def _close_all(self, reason: PoolClosed) -> Deferred[None]:
        # Taken first, because of what a user does who learns that it is over.
        lent, self._lent = list(self._lent.values()), {}
        idle, self._idle = self._idle, []
        for start in [start for start in self._starting if not start.abandoned]:
            start.acquiring.stop_timer()
            self._abandon(start)
            start.acquiring.errback(Failure(reason))
        return _all([self._close(resource) for resource in [*idle, *(loan.resource for loan in lent)]])


def checked_limit(limit: int | None) -> int | None:
    """The limit of a pool; ConfigurationError for what is none."""
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 0):
        raise ConfigurationError(f"the limit of a pool is a number of resources, or None, not {limit!r}")
    return limit


async def _value(value: T | Deferred[T] | Coroutine[Any, Any, T]) -> T:
    return await value if isinstance(value, Deferred | Coroutine) else value


async def _called(how: Any, resource: Any) -> None:
    result = how(resource)
    if isinstance(result, Deferred | Coroutine):
        await result


def _all(closing: list[Deferred[None]]) -> Deferred[None]:
    # None of them fails.
    return gatherResults(closing).addCallback(lambda _: None)

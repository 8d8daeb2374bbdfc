"""What `acquire()` returns: a Deferred of the resource that can also be entered with `async with`.

Invariant: the block gives back what *it* was given, and that once: where the resource was released inside of the
block, and has been lent to somebody else since, leaving the block takes it from nobody.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["Acquiring", "Loan"]

T = TypeVar("T")


class _Source(Protocol[T]):
    """Where an Acquiring comes from."""

    def _give_up(self, acquiring: Acquiring[T]) -> None:
        """It was cancelled."""

    def _return(self, loan: Loan[T]) -> Deferred[None]:
        """Its block was left."""


class Loan(Generic[T]):
    """One lending of one resource; another lending of the same resource is another Loan."""

    __slots__ = ("resource",)

    def __init__(self, resource: T) -> None:
        self.resource = resource


class Acquiring(Deferred[T]):
    """Fires with the resource, or fails.

    ::

        async with pool.acquire(block=True) as resource:
            ...                       # it goes back however the block ends

        resource = await pool.acquire(block=True)
        try:
            ...
        finally:
            pool.release(resource)

    Cancelling it before it has fired gives back what it has, be that a place in the line or a half-made connection.
    After that it is of no effect, as with any Deferred.
    """

    def __init__(self, source: _Source[T]) -> None:
        super().__init__(self._cancelled)
        self._source = source
        #: What was lent, once it was.
        self.loan: Loan[T] | None = None
        #: What ends the wait.
        self.timer: IDelayedCall | None = None

    @staticmethod
    def _cancelled(acquiring: Deferred[Any]) -> None:
        assert isinstance(acquiring, Acquiring)
        acquiring.stop_timer()
        acquiring._source._give_up(acquiring)

    def stop_timer(self) -> None:
        """Nothing is waited for any more."""
        timer, self.timer = self.timer, None
        if timer is not None and timer.active():
            timer.cancel()

    async def __aenter__(self) -> T:
        return await self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.loan is not None:
            await self._source._return(self.loan)

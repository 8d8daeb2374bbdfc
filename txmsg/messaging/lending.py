"""What lends and what is lent: the contract between a pool and the things in it.

A connection, a channel or a producer can be used with a pool and without one.  It must not know pools, so it knows
this much: who lends it.  The invariant: `lender` is set as long as the thing belongs to a pool, lent or not; so
releasing it twice asks the pool twice, which knows better than to take it from the next user, and never closes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

__all__ = ["Lendable", "Lender"]

_T = TypeVar("_T", contravariant=True)


class Lender(Protocol[_T]):
    """A pool, for what is in it."""

    def release(self, resource: _T) -> Deferred[None]:
        """Take back what was lent; fires when it is back (or closed, where it is not kept), and never fails.

        Of no effect for what is not lent: it was released already, or is none of this pool's.
        """


class Lendable(Protocol):
    """A thing with a `release()` of its own, which goes back to its lender where it has one.

    lender: Lender | None -- the pool it belongs to.
    """

    lender: Lender[Any] | None

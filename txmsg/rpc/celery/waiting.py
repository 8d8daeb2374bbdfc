"""A limit for what would otherwise wait until the connection is back, however long that takes (R27)."""

from __future__ import annotations

from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txmsg.errors import OperationTimeout

__all__ = ["within"]

_T = TypeVar("_T")


def within(seconds: float, deferred: Deferred[_T], clock: Any, what: str) -> Deferred[_T]:
    """The same Deferred, which is cancelled after `seconds`: it fails with OperationTimeout then.

    clock: IReactorTime.   what: str -- for the text of the error.
    """
    if deferred.called:
        return deferred

    def late(outcome: Any, limit: float) -> Any:
        if isinstance(outcome, Failure) and outcome.check(CancelledError):
            raise OperationTimeout(f"{what} within {limit:g} s")
        return outcome

    return deferred.addTimeout(seconds, clock, onTimeoutCancel=late)

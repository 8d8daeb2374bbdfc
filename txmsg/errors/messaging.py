"""The errors of the messaging layer: retrying, binding, settling, pools.

They have the names that Kombu's users know (kombu.exceptions), under the one root of txmsg.
"""

from __future__ import annotations

from typing import Any

from txmsg.errors.base import TxmsgError, clip
from txmsg.errors.calls import AlreadySettled

__all__ = [
    "ChannelLimitExceeded",
    "ConnectionLimitExceeded",
    "InconsistencyError",
    "LimitExceeded",
    "MessageStateError",
    "NotBoundError",
    "OperationalError",
    "PoolClosed",
    "PoolError",
    "QueueEmpty",
]


class OperationalError(TxmsgError):
    """What was retried did not succeed within the retries, or the time, that it had.

    `cause` (and `__cause__`) is the error of the last attempt; None where there was none.
    """

    recoverable = True

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.cause = cause
        super().__init__(message, cause)
        self.__cause__ = cause

    def __str__(self) -> str:
        text = str(self.args[0])
        return text if self.cause is None else f"{text}: {type(self.cause).__name__}: {clip(str(self.cause))}"

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.cause
        if cause is not None and not isinstance(cause, TxmsgError):
            cause = TxmsgError(f"{type(cause).__name__}: {cause}")
        return (type(self), (self.args[0], cause))


class NotBoundError(TxmsgError):
    """An exchange or queue was asked to do something and is bound to no channel: call it with one, or `bind()` it."""


class MessageStateError(AlreadySettled):
    """The message is acked, rejected or requeued already.  Nothing was sent."""


class InconsistencyError(TxmsgError):
    """The broker's data and ours do not fit: what should be there is gone."""


# -- pools ----------------------------------------------------------------------------------------


class PoolError(TxmsgError):
    """A pool cannot give what it was asked for."""


class LimitExceeded(PoolError):
    """As many resources as the pool may have are in use, and the caller did not want to wait (any longer)."""

    recoverable = True


class ConnectionLimitExceeded(LimitExceeded):
    """All connections of a pool are in use."""


class ChannelLimitExceeded(LimitExceeded):
    """All channels of a pool are in use."""


class PoolClosed(PoolError, RuntimeError):
    """The pool was closed, so it gives nothing any more."""


class QueueEmpty(TxmsgError):
    """There is no message in the queue (now, or within the time that was given)."""

    recoverable = True

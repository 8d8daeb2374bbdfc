"""ignore_errors: for cleaning up, where a connection that is gone already is no trouble (kombu O11)."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, overload

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

__all__ = ["IgnoredErrors", "ignore_errors"]

_log = Logger(namespace="txmsg.messaging")


@overload
def ignore_errors(connection: Any) -> IgnoredErrors: ...


@overload
def ignore_errors(connection: Any, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]: ...


def ignore_errors(
    connection: Any, function: Callable[..., Any] | None = None, *args: Any, **kwargs: Any
) -> IgnoredErrors | Deferred[Any]:
    """Swallow the connection's `connection_errors` and `channel_errors`, and nothing else.

    With a function: call it, and fire with what it, or its Deferred, gives; None where such an error came.
    Without: ``async with ignore_errors(connection): ...``, or ``with`` where nothing is awaited.
    """
    if function is None:
        return IgnoredErrors(connection)
    return maybeDeferred(function, *args, **kwargs).addErrback(IgnoredErrors(connection).ignored)


class IgnoredErrors:
    """The block that :func:`ignore_errors` makes."""

    def __init__(self, connection: Any) -> None:
        self._errors: tuple[type[BaseException], ...] = (*connection.connection_errors, *connection.channel_errors)

    def ignored(self, failure: Failure) -> None:
        """For an errback: swallow what is to be ignored."""
        failure.trap(*self._errors)
        _log.debug("ignored: {error}", error=failure.value)

    def _swallows(self, error: BaseException | None) -> bool:
        if not isinstance(error, self._errors):
            return False
        _log.debug("ignored: {error}", error=error)
        return True

    def __enter__(self) -> None:
        """Nothing is to be done."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._swallows(error)

    async def __aenter__(self) -> None:
        """Nothing is to be done."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        return self._swallows(error)

"""Seeing what the messaging layer does: switches in the environment, calls written down, a log on the terminal.

Everything logs to twisted.logger, in namespaces: `txmsg.messaging.connection` (connecting, losing, closing; at level
debug, losses at warn), `txmsg.messaging.channel` and so on.  Who has observers of his own filters by these.  For a look
from outside there is the environment, read when a connection or a channel is opened:

    TXMSG_LOG_CONNECTION=1    what connections do, at level info
    TXMSG_LOG_CHANNEL=1       every call on a channel, at level info
    TXMSG_LOG_DEBUG=1         both, and all of txmsg's log on standard error

Invariant: what is written down holds no body of a message, and no password.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    InvalidLogLevelError,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    eventAsText,
    globalLogPublisher,
)

from txmsg.errors import ConfigurationError, clip

__all__ = ["LoggedCalls", "get_loglevel", "is_on", "log_if_wanted", "setup_logging"]

#: The numbers of Python's `logging`.
_NUMBERS = {
    10: LogLevel.debug,
    20: LogLevel.info,
    30: LogLevel.warn,
    40: LogLevel.error,
    50: LogLevel.critical,
}


def is_on(switch: str) -> bool:
    """Whether TXMSG_LOG_CONNECTION or TXMSG_LOG_CHANNEL, by its last word, is set in the environment; 0 is not."""
    return any(os.environ.get(f"TXMSG_LOG_{name}", "0") not in ("", "0") for name in (switch, "DEBUG"))


def get_loglevel(level: str | int | LogLevel) -> Any:
    """The level of twisted.logger for its name, or for a number of Python's `logging`.  ConfigurationError."""
    if isinstance(level, int):
        found = _NUMBERS.get(level)
        if found is not None:
            return found
    elif isinstance(level, str):
        name = level.lower()
        try:
            return LogLevel.levelWithName({"warning": "warn", "fatal": "critical"}.get(name, name))
        except InvalidLogLevelError:
            pass
    elif level in LogLevel.iterconstants():
        return level
    raise ConfigurationError(f"there is no log level {clip(repr(level), 40)}")


def setup_logging(
    loglevel: str | int = "debug",
    logfile: TextIO | None = None,
    loggers: Iterable[str] = ("txmsg",),
    tracebacks: bool = True,
) -> Callable[[], None]:
    """Write what some namespaces log, from a level on, to a file; returns what ends it.

    logfile: None is standard error.   loggers: each with all below it.   tracebacks: False leaves them out.
    """
    wanted = tuple(loggers)
    predicate = LogLevelFilterPredicate(defaultLogLevel=get_loglevel(loglevel))

    def text(event: LogEvent) -> str:
        return eventAsText(event, includeTraceback=tracebacks) + "\n"

    everything: ILogObserver = FilteringLogObserver(FileLogObserver(logfile or sys.stderr, text), [predicate])

    def observer(event: LogEvent) -> None:
        name = event.get("log_namespace") or ""
        if any(name == each or name.startswith(f"{each}.") for each in wanted):
            everything(event)

    globalLogPublisher.addObserver(observer)  # type: ignore[arg-type]
    return functools.partial(globalLogPublisher.removeObserver, observer)  # type: ignore[arg-type]


#: Ends the log that TXMSG_LOG_DEBUG has begun.
_begun: list[Callable[[], None]] = []


def log_if_wanted() -> None:
    """Begin to log on standard error, once, if TXMSG_LOG_DEBUG is set."""
    if not _begun and os.environ.get("TXMSG_LOG_DEBUG", "0") not in ("", "0"):
        _begun.append(setup_logging())


class LoggedCalls:
    """An object whose calls are logged, with their arguments, at level info; all else is as on the object itself.

    instance: the object.   ident: what stands before each call.   log: Logger.
    """

    def __init__(self, instance: Any, ident: str = "", log: Logger | None = None) -> None:
        self._instance = instance
        self._ident = ident
        self._log = Logger(namespace="txmsg.messaging.channel") if log is None else log

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._instance, name)
        if not callable(found):
            return found

        @functools.wraps(found)
        def call(*args: Any, **kwargs: Any) -> Any:
            shown = [_shown(each) for each in args] + [f"{key}={_shown(each)}" for key, each in kwargs.items()]
            self._log.info("{ident}{call}", ident=self._ident, call=f"{name}({', '.join(shown)})")
            return found(*args, **kwargs)

        return call

    def __repr__(self) -> str:
        return repr(self._instance)


def _shown(value: object) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    if callable(value):
        return f"<{getattr(value, '__name__', type(value).__name__)}>"
    return clip(repr(value), 80)

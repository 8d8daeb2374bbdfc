"""The state of a reconnecting connection, made visible: events, a short history, an async iterator.

Invariants: an event holds no secret (hosts are names and ports, errors are ours and cleaned) and keeps no connection
alive: the errors in it have no traceback.  Whatever a callback raises is logged and goes no further.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmsg.amqp.recovery.events import RecoveryEvent

__all__ = ["RecoveryState", "StateChange", "StateLog", "without_traceback"]

#: How many events are kept in `history`, and in an iterator that is not read.
HISTORY = 100


class RecoveryState(Enum):
    """Where a reconnecting connection is.

    IDLE: not started.  CONNECTING: one host is being tried, up to connection.open-ok.  RECOVERING: the members come
    back on the new connection.  READY.  BLOCKED: ready, but the broker takes no publishes (an alarm).  LOST: no
    connection; the next attempt comes after the back-off.  CLOSING.  CLOSED: for good.
    """

    IDLE = "idle"
    CONNECTING = "connecting"
    RECOVERING = "recovering"
    READY = "ready"
    BLOCKED = "blocked"
    LOST = "lost"
    CLOSING = "closing"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class StateChange:
    """One step from state to state.

    old, new: RecoveryState.   reason: the error that led to it, or the broker's words of a block; None for a good step.
    attempt: int -- attempts so far in this outage.   host: str -- "name:port", with the address tried if known.
    at: float -- seconds of the reactor's clock.   delay: float | None -- to LOST: seconds until the next attempt.
    """

    old: RecoveryState
    new: RecoveryState
    reason: BaseException | str | None
    attempt: int
    host: str
    at: float
    delay: float | None = None


def without_traceback(error: BaseException) -> BaseException:
    """Take the tracebacks off an error and off what caused it: their frames hold protocols and transports (R31)."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            each.__traceback__ = None
            waiting += [each.__cause__, each.__context__, getattr(each, "cause", None)]
    return error


class StateLog:
    """Tells events to callbacks and readers, and remembers the last hundred.

    history: deque[StateChange | RecoveryEvent] -- the newest last.
    """

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(self) -> None:
        self.history: deque[StateChange | RecoveryEvent] = deque(maxlen=HISTORY)
        self._state_callbacks: list[Callable[[StateChange], object]] = []
        self._event_callbacks: list[Callable[[RecoveryEvent], object]] = []
        self._readers: list[_Reader] = []

    def add_state_callback(self, callback: Callable[[StateChange], object]) -> None:
        """Call `callback(StateChange)` after each change."""
        self._state_callbacks.append(callback)

    def remove_state_callback(self, callback: Callable[[StateChange], object]) -> None:
        """Undo `add_state_callback`; ValueError if it was not added."""
        self._state_callbacks.remove(callback)

    def add_event_callback(self, callback: Callable[[RecoveryEvent], object]) -> None:
        """Call `callback(RecoveryEvent)` for each event."""
        self._event_callbacks.append(callback)

    def remove_event_callback(self, callback: Callable[[RecoveryEvent], object]) -> None:
        """Undo `add_event_callback`; ValueError if it was not added."""
        self._event_callbacks.remove(callback)

    def tell(self, event: StateChange | RecoveryEvent) -> None:
        """Remember an event and tell it to everybody."""
        self.history.append(event)
        for reader in list(self._readers):
            reader.put(event)
        if isinstance(event, StateChange):
            for state_callback in list(self._state_callbacks):
                self.guarded(state_callback, event)
        else:
            for event_callback in list(self._event_callbacks):
                self.guarded(event_callback, event)

    def guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Call an application's callback; what it raises is logged."""
        try:
            callback(*args)
        except Exception:
            self._log.failure("a notification callback failed")

    def events(self) -> AsyncIterator[StateChange | RecoveryEvent]:
        """Return an iterator over the events from now on; it ends after the step to CLOSED."""
        reader = _Reader(self._readers.remove)
        self._readers.append(reader)
        return reader


class _Reader:
    """One iterator: a bounded queue; the oldest events of one that is not read are dropped."""

    def __init__(self, forget: Callable[[_Reader], object]) -> None:
        self._events: deque[StateChange | RecoveryEvent] = deque(maxlen=HISTORY)
        self._waiting: Deferred[None] | None = None
        self._forget = forget
        self._is_over = False

    def put(self, event: StateChange | RecoveryEvent) -> None:
        self._events.append(event)
        if isinstance(event, StateChange) and event.new is RecoveryState.CLOSED:
            self._is_over = True
            self._forget(self)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> AsyncIterator[StateChange | RecoveryEvent]:
        return self

    async def __anext__(self) -> StateChange | RecoveryEvent:
        while not self._events:
            if self._is_over:
                raise StopAsyncIteration
            if self._waiting is None:
                self._waiting = Deferred(self._cancelled)
            await self._waiting
        return self._events.popleft()

    def _cancelled(self, deferred: Deferred[None]) -> None:
        self._waiting = None

"""The state of a reconnecting connection, made visible: events, a short history, an async iterator.

Invariants: an event holds no secret (hosts are names and ports, errors are ours and cleaned) and keeps no connection
alive: the errors in it have no traceback.  Whatever a callback raises is logged and goes no further.  Every callback
gets the events in the order in which they happened, also when another callback has made one happen.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from enum import Enum

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmsg.amqp.recovery.events import RecoveryEvent

__all__ = ["ObservableState", "RecoveryState", "StateChange", "without_traceback"]

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


class ObservableState:
    """The part of a ReconnectingConnection that shows what happens: its state, callbacks, history, an iterator.

    logs_retries: bool -- whether each attempt to come is a line in the log, at info level; default True.  To be set
        before the start, by who logs the changes of state in its own words.
    """

    logs_retries = True
    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(self) -> None:
        self._state = RecoveryState.IDLE
        self._history: deque[StateChange | RecoveryEvent] = deque(maxlen=HISTORY)
        self._state_callbacks: list[Callable[[StateChange], object]] = []
        self._event_callbacks: list[Callable[[RecoveryEvent], object]] = []
        #: Events that the callbacks have not been told of, and whether they are being told.
        self._untold: deque[StateChange | RecoveryEvent] = deque()
        self._is_telling = False
        #: Held weakly: an iterator that nobody reads any more goes.
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()

    @property
    def state(self) -> RecoveryState:
        """Where it is."""
        return self._state

    @property
    def history(self) -> list[StateChange | RecoveryEvent]:
        """The last hundred events, the newest last."""
        return list(self._history)

    def add_state_callback(self, callback: Callable[[StateChange], object]) -> None:
        """Call `callback(StateChange)` after each change of state.  What it raises is logged."""
        self._state_callbacks.append(callback)

    def remove_state_callback(self, callback: Callable[[StateChange], object]) -> None:
        """Undo `add_state_callback`; ValueError if it was not added."""
        self._state_callbacks.remove(callback)

    def add_event_callback(self, callback: Callable[[RecoveryEvent], object]) -> None:
        """Call `callback(RecoveryEvent)` for what happens to single things while the connection goes on."""
        self._event_callbacks.append(callback)

    def remove_event_callback(self, callback: Callable[[RecoveryEvent], object]) -> None:
        """Undo `add_event_callback`; ValueError if it was not added."""
        self._event_callbacks.remove(callback)

    def events(self) -> AsyncIterator[StateChange | RecoveryEvent]:
        """Return an async iterator over all events from now on, up to CLOSED; a hundred that are not read are kept."""
        reader = _Reader()
        if self._state is RecoveryState.CLOSED:
            reader.end()
        else:
            self._readers.add(reader)
        return reader

    def report(self, event: RecoveryEvent) -> None:
        """For members: tell the application of an event."""
        if event.error is not None:
            without_traceback(event.error)
            self._log.warn("{event}", event=str(event))
        self._tell(event)

    def guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Call an application's callback; what it raises is logged and goes no further."""
        try:
            callback(*args)
        except Exception:
            self._log.failure("a notification callback failed")

    def _tell(self, event: StateChange | RecoveryEvent) -> None:
        self._history.append(event)
        for reader in list(self._readers):
            reader.put(event)
            if self._state is RecoveryState.CLOSED:
                self._readers.discard(reader)
                reader.end()
        self._untold.append(event)
        if self._is_telling:
            return  # by a callback: it is told after what is being told
        self._is_telling = True
        try:
            while self._untold:
                self._tell_callbacks(self._untold.popleft())
        finally:
            self._is_telling = False

    def _tell_callbacks(self, event: StateChange | RecoveryEvent) -> None:
        if isinstance(event, StateChange):
            for state_callback in list(self._state_callbacks):
                self.guarded(state_callback, event)
        else:
            for event_callback in list(self._event_callbacks):
                self.guarded(event_callback, event)


class _Reader:
    """One iterator: a bounded queue; the oldest events of one that is not read are dropped."""

    def __init__(self) -> None:
        self._events: deque[StateChange | RecoveryEvent] = deque(maxlen=HISTORY)
        self._waiting: Deferred[None] | None = None
        self._is_over = False

    def put(self, event: StateChange | RecoveryEvent) -> None:
        self._events.append(event)
        self._wake()

    def end(self) -> None:
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.callback(None)

    def __aiter__(self) -> AsyncIterator[StateChange | RecoveryEvent]:
        return self

    async def __anext__(self) -> StateChange | RecoveryEvent:
        while not self._events:
            if self._is_over:
                raise StopAsyncIteration
            waiting: Deferred[None] = Deferred(self._cancelled)
            self._waiting = waiting
            await waiting
        return self._events.popleft()

    def _cancelled(self, deferred: Deferred[None]) -> None:
        self._waiting = None

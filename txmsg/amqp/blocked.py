"""BlockedState: connection.blocked and connection.unblocked.

A broker that runs out of memory or disk tells publishing connections so, once when it begins and once
when all alarms are over; in between it reads nothing from them, so no call is answered either.
Source: https://www.rabbitmq.com/docs/connection-blocked
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txmsg.errors import ConnectionBlockedTimeout, clip

__all__ = ["BlockedState"]


class BlockedState:
    """Whether the broker takes publishes on one connection.

    clock: IReactorTime; timeout: float | None -- seconds until a connection that stays blocked is given
    up with ConnectionBlockedTimeout, None for never.
    changed() -- called after each change.   give_up(error) -- called when the time is over.
    notify(callback, *args) -- calls an application's callback and keeps its errors away from us.

    reason: str | None -- the broker's words while it is blocked ("low on memory").
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float | None,
        changed: Callable[[], object],
        give_up: Callable[[BaseException], object],
        notify: Callable[..., object],
    ) -> None:
        self.reason: str | None = None
        self._clock = clock
        self._timeout = timeout
        self._changed = changed
        self._give_up = give_up
        self._notify = notify
        self._timer: IDelayedCall | None = None
        self._blocked_callbacks: list[Callable[[str], object]] = []
        self._unblocked_callbacks: list[Callable[[], object]] = []

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has stopped reading from this connection."""
        return self.reason is not None

    def add_blocked_callback(self, callback: Callable[[str], object]) -> None:
        """Call `callback(reason)` whenever the broker blocks the connection."""
        self._blocked_callbacks.append(callback)

    def add_unblocked_callback(self, callback: Callable[[], object]) -> None:
        """Call `callback()` whenever the broker takes publishes again."""
        self._unblocked_callbacks.append(callback)

    def block(self, reason: str) -> None:
        """connection.blocked has come; a second one does not start the time anew."""
        self.reason = reason = clip(reason)
        if self._timeout is not None and self._timer is None:
            error = ConnectionBlockedTimeout(f"blocked by the broker for more than {self._timeout:g} s: {reason}")
            self._timer = self._clock.callLater(self._timeout, self._give_up, error)
        self._changed()
        for callback in list(self._blocked_callbacks):
            self._notify(callback, reason)

    def unblock(self) -> None:
        """connection.unblocked has come."""
        self.stop()
        self.reason = None
        self._changed()
        for callback in list(self._unblocked_callbacks):
            self._notify(callback)

    def stop(self) -> None:
        """Stop the time; the state stays as it is."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def __repr__(self) -> str:
        return f"<BlockedState {self.reason!r}>" if self.is_blocked else "<BlockedState not blocked>"

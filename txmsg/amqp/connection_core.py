"""ConnectionCore: the life of one connection, and who waits for what in it.

opening -> open -> closing -> closed.  It ends once, for one reason, which everything that waits then
fails with; `closed` fires with it when the socket is gone.  The client's part of the protocol
(:class:`txmsg.amqp.AMQPProtocol`) stands on this.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txmsg.amqp.blocked import BlockedState
from txmsg.amqp.channel import Channel
from txmsg.amqp.handshake import Negotiated
from txmsg.amqp.outbox import Outbox
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.pending import PendingReplies
from txmsg.amqp.protocol import WireProtocol
from txmsg.errors import ConnectionClosed, ConnectionWrongState
from txmsg.wire.connection import Limits, Role

__all__ = ["ConnectionCore", "State"]

#: Seconds that a peer gets to close the socket after the last word has been said.
LINGER = 1.0


class State(Enum):
    """Where a connection is in its life."""

    OPENING = "opening"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"


class ConnectionCore(WireProtocol):
    """State, end and outbox of a client connection; see :class:`txmsg.amqp.AMQPProtocol`."""

    #: Open and opening channels, by channel number.
    channels: dict[int, Channel]

    def __init__(self, parameters: ConnectionParameters | None = None, *, reactor: Any = None) -> None:
        self.parameters = parameters = ConnectionParameters() if parameters is None else parameters
        super().__init__(
            Role.CLIENT,
            Limits(frame_max=parameters.frame_max, max_message_size=parameters.max_message_size),
            reactor,
        )
        self.ready: Deferred[Any] = Deferred(self._ready_cancelled)
        self.closed: Deferred[BaseException] = Deferred()
        self.negotiated: Negotiated | None = None
        self.outbox = Outbox(
            self.clock,
            parameters.outbox_max_messages,
            parameters.outbox_max_bytes,
            lambda: self.can_publish,
            self._why_held,
        )
        self.blocked = BlockedState(
            self.clock, parameters.blocked_connection_timeout, self._blocked_changed, self.drop, self.guarded
        )
        self._state = State.OPENING
        self._was_open = False
        self._reason: BaseException | None = None
        #: The reason of our own connection.close, from close() to close-ok.
        self._closing: ConnectionClosed | None = None
        #: The one time limit that runs: of a stage of the opening, of close(), of the last moments.
        self._timer: IDelayedCall | None = None
        self._ready_waiters: list[Deferred[Any]] = []
        self._closed_waiters: list[Deferred[BaseException]] = []
        self._pending = PendingReplies(
            self.clock, parameters.operation_timeout, lambda: self.is_blocked, self.why_no_reply
        )

    # -- state -------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """True from connection.open-ok until the end begins."""
        return self._state is State.OPEN

    @property
    def is_closing(self) -> bool:
        """True from the beginning of the end until the socket is gone."""
        return self._state is State.CLOSING

    @property
    def is_closed(self) -> bool:
        """True once the socket is gone."""
        return self._state is State.CLOSED

    @property
    def is_blocked(self) -> bool:
        """Whether the broker has stopped taking publishes (a memory or disk alarm)."""
        return self.blocked.is_blocked

    @property
    def close_reason(self) -> BaseException | None:
        """Why the connection ended or is ending, None while it lives."""
        return self._reason

    def when_ready(self) -> Deferred[Any]:
        """A new Deferred like `ready`; works at any time, also after the fact."""
        if self._state is State.OPEN and self.ready.called:
            return succeed(self)
        if self._reason is not None or self._state not in (State.OPENING, State.OPEN):
            return fail(self._wrong_state())
        waiter: Deferred[Any] = Deferred(self._ready_waiters.remove)
        self._ready_waiters.append(waiter)
        return waiter

    def when_closed(self) -> Deferred[BaseException]:
        """A new Deferred that fires with the reason once the socket is gone; works at any time."""
        if self._state is State.CLOSED:
            assert self._reason is not None
            return succeed(self._reason)
        waiter: Deferred[BaseException] = Deferred(self._closed_waiters.remove)
        self._closed_waiters.append(waiter)
        return waiter

    def _wrong_state(self) -> BaseException:
        if self._reason is not None:
            # Many fail with it, and each that raises it makes its traceback longer.
            return self._reason.with_traceback(None)
        return ConnectionWrongState(f"the connection is {self._state.value}", initiator="client")

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    # -- blocked -----------------------------------------------------------------------------------

    def _blocked_changed(self) -> None:
        self._update_gate()
        if self.can_publish:
            self.outbox.drain()

    def _update_gate(self) -> None:
        self.can_publish = self._is_writable and not self.blocked.is_blocked

    def writable_again(self) -> None:
        """The socket takes more: write what was held."""
        self.outbox.drain()

    def _why_held(self) -> str:
        if self.blocked.is_blocked:
            return f"the broker blocks the connection ({self.blocked.reason})"
        return "the broker reads too slowly, or has stopped the channel's flow"

    def why_no_reply(self) -> str:
        """For the text of a timeout: what on our side keeps replies from being seen."""
        if self.is_reading_paused:
            return "; reading is paused, because a consumer without a prefetch limit has too much waiting"
        return ""

    def guarded(self, callback: Callable[..., object], *args: object) -> None:
        """Call an application's notification callback; what it raises is logged and goes no further."""
        try:
            callback(*args)
        except Exception:
            self._log.failure("a notification callback failed")

    # -- the end -----------------------------------------------------------------------------------

    def _ready_cancelled(self, deferred: Deferred[Any]) -> None:
        self.drop(ConnectionClosed("the attempt to connect was cancelled", initiator="client"))

    def drop(self, reason: BaseException) -> None:
        """End now because of `reason`: fail whoever waits, abort the socket."""
        self._end(reason)
        if self.transport is None:
            self._gone()
        else:
            self.abort_transport()

    def _linger(self) -> None:
        """Let the last bytes leave, but not for ever."""
        if self._is_connected:
            self.finish_transport()
            self._timer = self.clock.callLater(LINGER, self.abort_transport)

    def _end(self, reason: BaseException) -> None:
        """The one place where a connection learns why it ends; the first reason stays."""
        if self._reason is not None:
            return
        self._reason = reason
        self._state = State.CLOSING
        self._stop_timer()
        self.blocked.stop()
        self.release_timers()
        self.opening_ended()
        channels = list(self.channels.values())
        self.channels.clear()
        for channel in [channel for channel in channels if channel.learn_end(reason)]:
            channel.tell_end(reason)
        self.outbox.close()
        self._pending.fail_all(reason)
        ready_waiters, self._ready_waiters = self._ready_waiters, []
        if not self.ready.called:
            self.ready.errback(Failure(reason))
        for waiter in ready_waiters:
            waiter.errback(Failure(reason.with_traceback(None)))

    def _gone(self) -> None:
        if self._state is State.CLOSED:
            return
        self._stop_timer()
        self._state = State.CLOSED
        assert self._reason is not None
        waiters, self._closed_waiters = self._closed_waiters, []
        if self._was_open:
            self.closed.callback(self._reason)
        for waiter in waiters:
            waiter.callback(self._reason)
        self.transport = None  # what is left of us, which tasks and callbacks may keep, holds no socket (R31)

    def opening_ended(self) -> None:
        """The connection is over: for the subclass to drop what a half-done opening left behind."""

"""MessageStream: messages that came and wait to be fetched; and who wants to know that something came.

Invariants: messages leave in the order in which they came; a waiter that is cancelled takes none along; one whose
channel was lost meanwhile is dropped, because the broker delivers it again; and what came with `no_ack` is settled when
it leaves, so that a prefetch count bounds what waits, and what nobody fetched is not lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.python.failure import Failure

from txmsg.errors import OperationTimeout, SettlementError
from txmsg.messaging.consuming.message import NO_ACK, RECEIVED, Message

__all__ = ["UNFETCHED", "MessageStream", "hand_out", "unwatch", "watch", "watchers"]

#: The state of a message that came for a consumer with `no_ack`, before somebody has it.
UNFETCHED: Final = "unfetched"

#: Connection -> what is called when a consumer of it was given a message.  Empty but while an event loop runs.
watchers: Final[dict[Any, list[Callable[[], object]]]] = {}


def watch(connection: Any, callback: Callable[[], object]) -> None:
    """Call `callback` after each message that a consumer of this connection has handed over."""
    watchers.setdefault(connection, []).append(callback)


def unwatch(connection: Any, callback: Callable[[], object]) -> None:
    """Undo :func:`watch`; one that is not there is fine."""
    callbacks = watchers.get(connection, [])
    if callback in callbacks:
        callbacks.remove(callback)
    if not callbacks:
        watchers.pop(connection, None)


class MessageStream:
    """What a consumer without callbacks puts its messages into.

    reason: BaseException | None -- why nothing more comes; None: more may come.
    """

    def __init__(self) -> None:
        self.reason: BaseException | None = None
        self._messages: deque[Message] = deque()
        self._waiters: deque[Deferred[Message]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    def put(self, message: Message) -> None:
        """Hand it to who waits longest, or keep it."""
        if self._waiters:
            if hand_out(message):
                self._waiters.popleft().callback(message)
            return
        messages = self._messages
        while messages and _is_stale(messages[0]):
            messages.popleft()  # nobody fetches, and connections come and go: it would grow without a bound
        messages.append(message)

    def pop(self) -> Message | None:
        """The next one that is there, or None."""
        while self._messages:
            message = self._messages.popleft()
            if not _is_stale(message) and hand_out(message):
                return message
        return None

    def get(self, timeout: float | None = None, clock: Any = None) -> Deferred[Message]:
        """The next one; may be cancelled.

        timeout: float | None -- seconds to wait, measured on `clock`; OperationTimeout after that.  None: for ever.
        Fails with `reason` when all that came was fetched and nothing more comes.
        """
        message = self.pop()
        if message is not None:
            return succeed(message)
        if self.reason is not None:
            return fail(self.reason.with_traceback(None))
        waiter: Deferred[Message] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        if timeout is not None:
            call = clock.callLater(max(timeout, 0.0), self._time_out, waiter, timeout)
            waiter.addBoth(_stop, call)
        return waiter

    def _time_out(self, waiter: Deferred[Message], timeout: float) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
            waiter.errback(Failure(OperationTimeout(f"no message came within {timeout:g} seconds")))

    def close(self, reason: BaseException) -> None:
        """Nothing more comes: who waits is told why.  What is there can still be fetched."""
        self.reason = reason
        waiters, self._waiters = self._waiters, deque()
        for waiter in waiters:
            waiter.errback(Failure(reason.with_traceback(None)))

    def reopen(self) -> None:
        """More may come."""
        self.reason = None

    def give_back(self) -> None:
        """Requeue what nobody has fetched; what the broker has forgotten (a direct reply) stays."""
        kept: deque[Message] = deque()
        # The last one first: each goes to the head of its queue.
        while self._messages:
            message = self._messages.pop()
            if message.state is NO_ACK:
                kept.appendleft(message)
                continue
            message.state = RECEIVED
            with suppress(SettlementError):  # its channel is gone: that gave it back
                message.requeue()
        self._messages = kept


def _is_stale(message: Message) -> bool:
    """Whether its channel is gone, or a later one's `multiple` has settled it."""
    return message.state is not NO_ACK and message.delivery.is_settled


def hand_out(message: Message) -> bool:
    """Settle it where that is to be done when somebody gets it; whether he can have it."""
    if message.state is UNFETCHED:
        try:
            message.delivery.ack()
        except SettlementError:
            return False  # its channel is gone, and it comes again
        message.state = NO_ACK
    return True


def _stop(result: Any, call: Any) -> Any:
    if call.active():
        call.cancel()
    return result

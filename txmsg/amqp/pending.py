"""The replies a channel (or the connection itself) is waiting for.

Methods are written in the order of the calls, without waiting for the reply of the call before, and a
reply goes to the oldest call that can have it: by class, and for consumers by consumer tag.  The class
matters because RabbitMQ does not always answer in order: the queue process, not the channel, sends
consume-ok and cancel-ok, and tx.commit-ok waits for the disk.

A call whose Deferred was cancelled or timed out keeps its place, so that its late reply is swallowed
instead of going to the next call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmsg.errors import OperationTimeout
from txmsg.wire.methods import Method

__all__ = ["Call", "PendingReplies"]

#: on_reply(reply, abandoned) -> what the caller's Deferred fires with.  `abandoned` means that nobody
#: waits any more: undo what the late reply stands for.
OnReply = Callable[[Any, bool], Any]


class Call:
    """One synchronous method on its way, and the Deferred of whoever waits for its reply."""

    __slots__ = ("abandoned", "deferred", "method", "on_reply", "timer", "written")

    def __init__(self, method: Method, on_reply: OnReply | None) -> None:
        self.method = method
        self.on_reply = on_reply
        self.abandoned = False
        self.written = False
        self.timer: IDelayedCall | None = None
        self.deferred: Deferred[Any] = Deferred(self._cancelled)

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        self._abandon()

    def _abandon(self) -> None:
        self.abandoned = True
        self.stop_timer()

    def timed_out(self, seconds: float, blocked: bool, why: str = "") -> None:
        """Give up waiting; the Deferred fails with OperationTimeout."""
        self.timer = None
        self._abandon()
        name = self.method.NAME
        self.deferred.errback(Failure(OperationTimeout(f"no reply to {name} within {seconds:g} s{why}", blocked)))

    def stop_timer(self) -> None:
        """Stop the time limit, if it still runs."""
        if self.timer is not None:
            timer, self.timer = self.timer, None
            timer.cancel()

    def succeed(self, reply: Any) -> None:
        """Fire the Deferred with the reply, or undo the reply if nobody waits."""
        self.stop_timer()
        abandoned = self.abandoned
        result = reply if self.on_reply is None else self.on_reply(reply, abandoned)
        if not abandoned:
            self.deferred.callback(result)

    def fail(self, reason: BaseException) -> None:
        """Fail the Deferred, unless it has ended already."""
        self.stop_timer()
        if not self.abandoned:
            self.abandoned = True
            self.deferred.errback(Failure(reason))

    def answers(self, reply_class: type[Method], consumer_tag: str | None) -> bool:
        """Whether a reply of this class (and tag, where the reply has one) is for this call."""
        if not self.written or reply_class not in self.method.REPLIES:
            return False
        return consumer_tag is None or getattr(self.method, "consumer_tag", None) == consumer_tag


class PendingReplies:
    """The calls of one channel, oldest first.

    clock: IReactorTime -- for the time limit of each call.
    timeout: float | None -- seconds until a call fails with OperationTimeout; None for no limit.
    is_blocked: callable -- asked when a call times out, for the error.
    why: callable -- asked as well: what else the error should say, with the punctuation before it.
    """

    __slots__ = ("_calls", "_clock", "_is_blocked", "_timeout", "_why")

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float | None,
        is_blocked: Callable[[], bool],
        why: Callable[[], str] = str,
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._is_blocked = is_blocked
        self._why = why
        self._calls: deque[Call] = deque()

    def __len__(self) -> int:
        return len(self._calls)

    def __repr__(self) -> str:
        return f"<PendingReplies {[call.method.NAME for call in self._calls]}>"

    def add(self, method: Method, on_reply: OnReply | None = None, *, limited: bool = True) -> Call:
        """Register a call before its method is written.  `limited` False leaves the time limit to the caller."""
        call = Call(method, on_reply)
        self._calls.append(call)
        if limited and self._timeout is not None:
            timeout = self._timeout
            call.timer = self._clock.callLater(
                timeout, lambda: call.timed_out(timeout, self._is_blocked(), self._why())
            )
        return call

    def forget(self, call: Call) -> None:
        """Take a call out that was never written."""
        call.stop_timer()
        self._calls.remove(call)

    def resolve(self, reply_class: type[Method], reply: Any, consumer_tag: str | None = None) -> bool:
        """Give a reply to the oldest call that it answers; False if there is none."""
        calls = self._calls
        for index, call in enumerate(calls):
            if call.answers(reply_class, consumer_tag):
                del calls[index]
                call.succeed(reply)
                return True
        return False

    def fail_all(self, reason: BaseException) -> None:
        """Fail every waiting call, oldest first.  The list is detached first: callbacks may make new calls."""
        calls, self._calls = self._calls, deque()
        for call in calls:
            # Without the traceback that it has from where the call before has raised it: that would grow.
            call.fail(reason.with_traceback(None))

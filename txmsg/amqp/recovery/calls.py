"""Calls on a recovering channel: they wait for the channel to be there, and go out again if it is lost under way.

A call ends once (R2): with the reply, with what the broker refused it for, or with OperationTimeout at its deadline,
which is counted from the call and not from when it was written.  Which calls go out again is the caller's word: those
where doing it twice is the same as doing it once.

A publish is a call of which only the waiting is seen to here: it has its place among the other calls, goes out once,
and fails with NotSent when it had to wait too long.  Once it is out, the channel's limits for publishes hold.

When the broker closes a channel, it names the method that it refused (AMQP 0-9-1 section 1.5.2.5); the oldest waiting
call of that method is the one.  The other calls that were under way are innocent and go out again, once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.protocol import check_thread
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    EncodeError,
    NotSent,
    OperationTimeout,
    RemoteProtocolError,
)

__all__ = ["RecoveringCall", "RecoveringCalls"]

#: How often a call may be under way while the broker closes its channel.
_CLOSES_SURVIVED = 1


class RecoveringCall:
    """One call, over any number of channels; `deferred` is the user's."""

    __slots__ = (
        "closes",
        "deadline",
        "deferred",
        "is_publish",
        "make",
        "name",
        "on_reply",
        "outlives",
        "repeats",
        "running",
        "timer",
    )

    def __init__(
        self,
        name: str,
        make: Callable[[Channel], Deferred[Any]],
        on_reply: Callable[[Any], Any] | None,
        repeats: bool,
        deadline: float | None,
        cancelled: Callable[[RecoveringCall], None],
    ) -> None:
        self.name = name
        self.make = make
        self.on_reply = on_reply
        self.repeats = repeats
        self.deadline = deadline
        self.closes = 0
        self.is_publish = False
        #: Whether it goes on waiting when the connection is lost.
        self.outlives = True
        self.running: Deferred[Any] | None = None
        self.timer: IDelayedCall | None = None
        self.deferred: Deferred[Any] = Deferred(lambda deferred: cancelled(self))

    def stop(self) -> None:
        """Let go of what still runs for it."""
        if self.timer is not None:
            timer, self.timer = self.timer, None
            if timer.active():
                timer.cancel()
        if self.running is not None:
            running, self.running = self.running, None
            running.cancel()


class RecoveringCalls:
    """The calls of one recovering channel that wait, and those that are under way.

    clock: IReactorTime.   timeout: seconds that a call may take in all; None: no limit.
    why: says what is amiss, for the text of a timeout.
    succeeded: called when a reply has come.
    """

    def __init__(
        self,
        clock: IReactorTime,
        timeout: float | None,
        why: Callable[[], str],
        succeeded: Callable[[], object],
    ) -> None:
        self._clock = clock
        self._timeout = timeout
        self._why = why
        self._succeeded = succeeded
        self._channel: Channel | None = None
        self._reason: BaseException | None = None
        #: The calls that wait, in their order.  While there are some, everything else goes behind them.
        self.waiting: deque[RecoveringCall] = deque()
        self._blamed: BaseException | None = None
        #: The reactor's thread, as soon as it is known.
        self._thread_id: int | None = None

    def __len__(self) -> int:
        return len(self.waiting)

    def perform(
        self,
        name: str,
        make: Callable[[Channel], Deferred[Any]],
        on_reply: Callable[[Any], Any] | None = None,
        *,
        repeats: bool = True,
    ) -> Deferred[Any]:
        """Make the call `name` ("queue.declare"), now or when there is a channel.

        make(channel) -- makes it; called anew for each channel if it `repeats`.
        on_reply(reply) -- gives what the Deferred fires with.

        Raises WrongThread, also while there is no channel.
        """
        call = self._call(name, make, on_reply, repeats)
        if self._reason is not None:
            return fail(self._reason.with_traceback(None))
        return self._begin(call)

    def publish(self, make: Callable[[Channel], Deferred[Any]], outlives: bool) -> Deferred[Any]:
        """Make a publish, when it is its turn and there is a channel.

        outlives: whether it waits on when the connection is lost; else it fails with NotSent then.
        Raises WrongThread.
        """
        call = self._call("basic.publish", make, None, False)
        call.is_publish = True
        call.outlives = outlives
        return self._begin(call)

    def _call(
        self,
        name: str,
        make: Callable[[Channel], Deferred[Any]],
        on_reply: Callable[[Any], Any] | None,
        repeats: bool,
    ) -> RecoveringCall:
        if self._thread_id is not None:
            check_thread(self._thread_id)
        deadline = None if self._timeout is None else self._clock.seconds() + self._timeout
        return RecoveringCall(name, make, on_reply, repeats, deadline, self._cancelled)

    def _begin(self, call: RecoveringCall) -> Deferred[Any]:
        channel = self._channel
        if channel is None or not channel.is_open or self.waiting:
            self._wait(call)
        else:
            self._start(call, channel)
        return call.deferred

    # -- the channel comes and goes ------------------------------------------------------------------

    def use(self, channel: Channel) -> None:
        """There is a channel: new calls go out on it, behind those that wait."""
        # An error that is kept keeps its traceback, and that the connection of then (R31).
        self._channel = channel
        self._thread_id = channel.connection.thread_id
        self._blamed = None

    def resume(self) -> None:
        """Let the calls that wait go out, in their order."""
        channel = self._channel
        while self.waiting and channel is not None and channel.is_open:
            self._start(self.waiting.popleft(), channel)

    def pause(self) -> None:
        """The channel is gone."""
        self._channel = None

    def connection_lost(self, reason: BaseException) -> None:
        """So is the connection: publishes that were to wait for the channel only have waited in vain."""
        for call in [call for call in self.waiting if not call.outlives]:
            if call in self.waiting:  # else the application has cancelled it, told of another one
                self.waiting.remove(call)
                call.stop()
                call.deferred.errback(Failure(NotSent("the connection was lost before the channel was open", reason)))

    def close(self, reason: BaseException) -> None:
        """There will be no channel again: whoever waits fails with the reason."""
        self._reason = reason
        self._channel = None
        waiting, self.waiting = self.waiting, deque()
        for call in waiting:
            call.stop()
            error = NotSent("the channel is closed", reason) if call.is_publish else reason.with_traceback(None)
            call.deferred.errback(Failure(error))

    # -- one call ------------------------------------------------------------------------------------

    def _wait(self, call: RecoveringCall) -> None:
        if call.timer is None and call.deadline is not None:
            left = max(0.0, call.deadline - self._clock.seconds())
            call.timer = self._clock.callLater(left, self._timed_out, call)
        self.waiting.append(call)

    def _start(self, call: RecoveringCall, channel: Channel) -> None:
        if call.is_publish:
            call.stop()  # from here on it has the limit of a publish
        try:
            running = call.make(channel)
        except (TypeError, AttributeError):  # it may have waited: nobody else must suffer from it
            running = fail(EncodeError(f"an argument of {call.name} has the wrong type"))
        call.running = running
        running.addCallbacks(
            self._replied, self._failed, callbackArgs=(call, running), errbackArgs=(call, running, channel)
        )

    def _replied(self, reply: Any, call: RecoveringCall, running: Deferred[Any]) -> None:
        call.running = None
        if call.deferred.called:
            return
        call.stop()
        self._succeeded()
        try:
            result = reply if call.on_reply is None else call.on_reply(reply)
        except Exception:
            call.deferred.errback(Failure())
        else:
            call.deferred.callback(result)

    def _failed(self, failure: Failure, call: RecoveringCall, running: Deferred[Any], channel: Channel) -> None:
        call.running = None
        if call.deferred.called:
            return  # cancelled or timed out, and the failure is what came of that
        error = failure.value
        if self._reason is None and call.repeats and not channel.is_open and self._is_innocent(call, error):
            self._wait(call)
            return
        call.stop()
        call.deferred.errback(failure)

    def _is_innocent(self, call: RecoveringCall, error: BaseException | None) -> bool:
        """Whether a call failed because of what happened to the channel or connection, and may be tried again."""
        if isinstance(error, ConnectionClosed | RemoteProtocolError):
            return True  # also a frame that was none: it says nothing about this call
        if not isinstance(error, ChannelClosed):
            return False
        if error.initiator == "server":
            if error.method_name == call.name and error is not self._blamed:
                self._blamed = error
                return False
            call.closes += 1
        return call.closes <= _CLOSES_SURVIVED

    def _timed_out(self, call: RecoveringCall) -> None:
        call.timer = None
        if call in self.waiting:
            self.waiting.remove(call)
        error: BaseException
        if call.is_publish:
            error = NotSent(f"the publish had to wait for more than {self._timeout:g} s{self._why()}")
        else:
            error = OperationTimeout(f"{call.name} had no reply within {self._timeout:g} s{self._why()}")
        running, call.running = call.running, None
        call.deferred.errback(Failure(error))
        if running is not None:
            running.cancel()

    def _cancelled(self, call: RecoveringCall) -> None:
        if call in self.waiting:
            self.waiting.remove(call)
        call.stop()

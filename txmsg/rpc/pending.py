"""The calls that have no answer yet, by correlation id.

Invariants: each call ends once; one that ends for any reason leaves nothing behind but its id, among the last few
thousand; a reply is given to the call with its id or to nobody (R27, C6.3).  Ids are 128 random bits
each: whoever has seen one cannot guess another.

Time limits cost no timer of their own: calls with the same limit end in the order in which they began, so one timer
stands for them all.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, Overloaded, RPCTimeout, clip

__all__ = ["PendingCall", "PendingCalls", "ReplyCounts", "correlation_ids", "time_limit"]

#: Ids made from one read of the system's random numbers.
_IDS_AT_ONCE: Final = 64
#: Ids of ended calls that are known, at least; twice as many at most.
_REMEMBERED: Final = 4096
#: Time limits that keep their timer while no call has them.
_LANES_KEPT: Final = 16


def correlation_ids() -> Iterator[str]:
    """Ids without end: 128 random bits in 32 hexadecimal digits."""
    while True:
        digits = os.urandom(16 * _IDS_AT_ONCE).hex()
        for start in range(0, len(digits), 32):
            yield digits[start : start + 32]


@dataclass(slots=True)
class ReplyCounts:
    """Replies that were dropped, so far.

    late: int -- the call had timed out, was cancelled, or had lost its connection.
    duplicate: int -- the call had its answer.
    unknown: int -- the id is no call's of ours, or of one that ended long ago: forged, or very late.
    undecodable: int -- for a call that waits, but not to be read; the call goes on waiting.
    """

    late: int = 0
    duplicate: int = 0
    unknown: int = 0
    undecodable: int = 0


class PendingCall:
    """One call.

    correlation_id: str.   timeout: float -- seconds it has in all.   deadline: float -- on the clock of its table.
    deferred: Deferred -- what the caller waits for; may be cancelled.
    on_progress -- called with each value that is sent before the result; None: they are dropped.
    request: what is to be sent, for whoever sends it.   sent: the Deferred of a publish that waits for its turn.
    problem: the error of the last reply that could not be read.
    """

    __slots__ = (
        "_table",
        "correlation_id",
        "deadline",
        "deferred",
        "on_progress",
        "problem",
        "request",
        "sent",
        "timeout",
    )

    def __init__(
        self,
        table: PendingCalls,
        correlation_id: str,
        timeout: float,
        deadline: float,
        on_progress: Callable[[Any], object] | None,
    ) -> None:
        self._table = table
        self.correlation_id = correlation_id
        self.timeout = timeout
        self.deadline = deadline
        self.on_progress = on_progress
        self.deferred: Deferred[Any] = Deferred(self._cancelled)
        self.request: Any = None
        self.sent: Deferred[Any] | None = None
        self.problem: BaseException | None = None

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        self._table.forget(self)
        deferred.errback(Failure(CancelledError()))

    def __repr__(self) -> str:
        return f"<PendingCall {self.correlation_id}>"


class PendingCalls:
    """The table of one client.

    clock: IReactorTime.   limit: int -- calls at a time.   counts: ReplyCounts.
    """

    _log = Logger(namespace="txmsg.rpc.pending")

    def __init__(self, clock: IReactorTime, limit: int = 10_000) -> None:
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigurationError(f"the limit of calls at a time is an int from 1, not {limit!r}")
        self.clock = clock
        self.limit = limit
        self.counts = ReplyCounts()
        self._calls: dict[str, PendingCall] = {}
        #: By their time limit, in the order in which they began.
        self._lanes: dict[float, dict[str, PendingCall]] = {}
        self._timers: dict[float, IDelayedCall] = {}
        self._ids = correlation_ids()
        #: Ids of ended calls, and whether they were answered: two generations.
        self._ended: dict[str, bool] = {}
        self._ended_before: dict[str, bool] = {}
        self._closed: BaseException | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[PendingCall]:
        return iter(list(self._calls.values()))

    # -- beginning -----------------------------------------------------------------------------------

    def add(
        self,
        timeout: float,
        on_progress: Callable[[Any], object] | None = None,
        correlation_id: str | None = None,
    ) -> PendingCall:
        """Begin a call; after `timeout` seconds it fails with RPCTimeout.

        correlation_id: one that the caller has chosen; None: a random one.
        Overloaded: there are `limit` calls.  ConfigurationError: the id is in use, or no number of seconds.
        After :meth:`close`: its reason.
        """
        calls = self._calls
        if self._closed is not None:
            raise self._closed.with_traceback(None)
        if len(calls) >= self.limit:
            raise Overloaded(f"{len(calls)} calls wait for their answers, which is the limit")
        if correlation_id is None:
            correlation_id = next(self._ids)
        elif correlation_id in calls:
            raise ConfigurationError(f"the correlation id {clip(correlation_id)!r} is in use")
        if timeout.__class__ is not float:
            timeout = time_limit(timeout)
        lane = self._lanes.get(timeout)
        if lane is None:
            lane = self._begin_lane(timeout)
        call = PendingCall(self, correlation_id, timeout, self.clock.seconds() + timeout, on_progress)
        calls[correlation_id] = lane[correlation_id] = call
        return call

    def _begin_lane(self, timeout: float) -> dict[str, PendingCall]:
        time_limit(timeout)
        lane = self._lanes[timeout] = {}
        self._timers[timeout] = self.clock.callLater(timeout, self._expire, timeout)
        return lane

    # -- what comes ----------------------------------------------------------------------------------

    def find(self, correlation_id: str | None) -> PendingCall | None:
        """The call that a reply belongs to; None: it is to be dropped, and was counted."""
        call = self._calls.get(correlation_id)  # type: ignore[arg-type]  # None is no key, and so found nowhere
        if call is None:
            self._count(correlation_id)
        return call

    def _count(self, correlation_id: str | None) -> None:
        was_answered = None
        if correlation_id is not None:
            was_answered = self._ended.get(correlation_id)
            if was_answered is None:
                was_answered = self._ended_before.get(correlation_id)
        if was_answered is None:
            self.counts.unknown += 1
        elif was_answered:
            self.counts.duplicate += 1
        else:
            self.counts.late += 1

    def undecodable(self, call: PendingCall, error: BaseException) -> None:
        """A reply that cannot be read: anybody may have sent it, so the call goes on waiting for a better one."""
        self.counts.undecodable += 1
        call.problem = error

    def progress(self, call: PendingCall, value: Any) -> None:
        """A value before the result; what the caller's function raises is logged."""
        if call.on_progress is None:
            return
        try:
            call.on_progress(value)
        except Exception:
            self._log.failure("on_progress of a call failed")

    # -- ending --------------------------------------------------------------------------------------

    def succeed(self, call: PendingCall, value: Any) -> None:
        """The result."""
        if self._remove(call, True):
            call.deferred.callback(value)

    def fail(self, call: PendingCall, error: BaseException, *, is_answer: bool = False) -> None:
        """It ends with an error; is_answer: which the other side has sent."""
        if self._remove(call, is_answer):
            call.deferred.errback(Failure(error))

    def forget(self, call: PendingCall) -> None:
        """Nobody waits any more."""
        self._remove(call, False)

    def fail_all(self, reason: BaseException, calls: list[PendingCall] | None = None) -> None:
        """All, or those, end with one error; calls that this leads to are new ones, and stay."""
        for call in list(self._calls.values()) if calls is None else calls:
            self.fail(call, reason.with_traceback(None))

    def close(self, reason: BaseException) -> None:
        """:meth:`fail_all`, and nothing begins any more: `add` raises the reason."""
        if self._closed is None:
            self._closed = reason
        self.fail_all(reason)
        timers, self._timers = self._timers, {}
        for timer in timers.values():
            timer.cancel()
        self._lanes = {}

    def _remove(self, call: PendingCall, is_answered: bool) -> bool:
        correlation_id = call.correlation_id
        if self._calls.get(correlation_id) is not call:
            return False
        del self._calls[correlation_id]
        lane = self._lanes[call.timeout]
        del lane[correlation_id]
        if not lane and len(self._lanes) > _LANES_KEPT:
            # Time limits that are all different, like what is left until some moment: their timers would stay.
            del self._lanes[call.timeout]
            self._timers.pop(call.timeout).cancel()
        ended = self._ended
        ended[correlation_id] = is_answered
        if len(ended) >= _REMEMBERED:
            self._ended_before, self._ended = ended, {}
        sent = call.sent
        if sent is not None:
            call.sent = None
            sent.cancel()  # what has not left need not leave
        return True

    def _expire(self, timeout: float) -> None:
        """The time of the oldest of a lane may be up."""
        lane = self._lanes[timeout]
        now = self.clock.seconds()
        due: list[PendingCall] = []
        wait = timeout
        for call in lane.values():
            if call.deadline > now:
                wait = call.deadline - now
                break
            due.append(call)
        if not lane:
            del self._lanes[timeout], self._timers[timeout]
            return
        self._timers[timeout] = self.clock.callLater(wait, self._expire, timeout)
        for call in due:
            self.fail(call, _timed_out(call))


def _timed_out(call: PendingCall) -> RPCTimeout:
    text = f"no result within {call.timeout:g} s"
    if call.problem is not None:
        text += f"; a reply could not be read: {clip(str(call.problem))}"
    return RPCTimeout(text, call.timeout)


def time_limit(timeout: object) -> float:
    """Check the seconds that a call has: above 0, and at most 2**31.  ConfigurationError."""
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout <= 2**31:
        raise ConfigurationError(f"the timeout of a call is a number of seconds above 0, not {_shown(timeout)}")
    return float(timeout)


def _shown(value: object) -> str:
    """Not every int has a text (`sys.set_int_max_str_digits`)."""
    return f"{value.bit_length()} bits of it" if isinstance(value, int) and value > 2**64 else clip(repr(value))

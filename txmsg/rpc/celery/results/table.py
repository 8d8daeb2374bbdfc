"""What is known of tasks, and who waits for them, by task id.

A result belongs to the id in its body, and only where that is not known to its correlation id.  The
invariants: the first final state of a task stays, whatever comes after it; a wait ends once, and never later than its
time limit; each thing that a stranger can make grow has a bound.

Four kinds of tasks are kept: those that somebody waits for, those from here that have not ended, those that have, and
those that nobody here has ever heard of (out of band: a handle may be made for them later).  Each has its own limit, so
that none can push out the others.  A handle has its record, whatever is dropped here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, Overloaded, RPCTimeout, clip
from txmsg.rpc.celery.result_message import TaskResult
from txmsg.rpc.celery.states import PENDING

__all__ = ["ResultCounts", "ResultTable", "StateListener", "TaskRecord", "check_limits"]

#: Called with each state of a task, the final one included.
StateListener = Callable[[TaskResult], object]

#: Octets of results that nobody asked for.
_STRANGERS_SIZE: Final = 16 * 2**20
#: Octets of results of tasks from here, beyond the newest one.
_ENDED_SIZE: Final = 64 * 2**20
#: Ids that were forgotten on purpose, at most.
_FORGOTTEN: Final = 1_000


@dataclass(slots=True)
class ResultCounts:
    """Results that led to nothing, so far.

    duplicate: int -- states of a task that had ended.
    late: int -- of a task that was forgotten here.
    out_of_band: int -- of tasks that are not known here; they are kept for a while.
    dropped: int -- of what was kept, because there was too much of it, or for too long.
    undecodable: int -- no result at all, of a content type that is not accepted, or without an id.
    """

    duplicate: int = 0
    late: int = 0
    out_of_band: int = 0
    dropped: int = 0
    undecodable: int = 0


def check_limits(**limits: int) -> dict[str, int]:
    """The limits of a table, as they are; ConfigurationError."""
    for what, limit in limits.items():
        if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
            raise ConfigurationError(f"{what} is an int from 1, not {limit!r}")
    return limits


class TaskRecord:
    """What is known of one task.

    task_id: str.   message: TaskResult | None -- the newest state that has come; None: none.
    is_ignored: bool -- nobody sends a result for it.   problem: why the last thing that came for it was dropped.
    """

    __slots__ = ("is_ignored", "kept_since", "listeners", "message", "problem", "size", "task_id", "waiters")

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        self.message: TaskResult | None = None
        self.is_ignored = False
        self.problem: BaseException | None = None
        self.waiters: dict[Deferred[TaskResult], IDelayedCall] = {}
        self.listeners: list[StateListener] = []
        self.kept_since = 0.0
        self.size = 0

    @property
    def state(self) -> str:
        """PENDING as long as nothing has come."""
        return PENDING if self.message is None else self.message.state

    @property
    def is_final(self) -> bool:
        """Whether it has ended: nothing that comes counts any more."""
        return self.message is not None and self.message.is_ready

    def __repr__(self) -> str:
        return f"<TaskRecord {clip(self.task_id, 60)}: {clip(self.state, 40)}>"


class ResultTable:
    """The tasks of one client.

    clock: IReactorTime.
    max_waiting: int -- tasks that somebody waits for; more are Overloaded.
    max_kept: int -- tasks from here that nobody waits for now: so many that have not ended, and so many that have, of
        64 MiB in all; the oldest are forgotten then.
    max_out_of_band: int -- of tasks that are not known here.
    expires: float -- seconds after which what nobody asked for is forgotten, at the latest when something else comes.
    """

    _log = Logger(namespace="txmsg.rpc.celery.results")

    def __init__(
        self,
        clock: IReactorTime,
        *,
        max_waiting: int = 10_000,
        max_kept: int = 10_000,
        max_out_of_band: int = 1_000,
        expires: float = 86_400.0,
    ) -> None:
        check_limits(max_waiting=max_waiting, max_kept=max_kept, max_out_of_band=max_out_of_band)
        self.clock = clock
        self.counts = ResultCounts()
        self._max_waiting = max_waiting
        self._max_kept = max_kept
        self._max_strangers = max_out_of_band
        self._expires = expires
        self._waited: dict[str, TaskRecord] = {}
        self._kept: dict[str, TaskRecord] = {}
        self._ended: dict[str, TaskRecord] = {}
        self._ended_size = 0
        self._strangers: dict[str, TaskRecord] = {}
        self._strangers_size = 0
        self._forgotten: dict[str, None] = {}

    def __len__(self) -> int:
        """Tasks from here."""
        return len(self._waited) + len(self._kept) + len(self._ended)

    @property
    def waiting(self) -> int:
        """Tasks that somebody waits for."""
        return len(self._waited)

    # -- tasks ---------------------------------------------------------------------------------------

    def record(self, task_id: str) -> TaskRecord:
        """What is known of a task; from now on it is one of ours.  ConfigurationError: that is no id."""
        if not isinstance(task_id, str) or not task_id:
            raise ConfigurationError("the id of a task is a str that is not empty")
        found = self.peek(task_id)
        if found is None:
            self._expire()
            found = self._take_stranger(task_id) or TaskRecord(task_id)
            self._forgotten.pop(task_id, None)
            self._keep(found)
        return found

    def peek(self, task_id: str) -> TaskRecord | None:
        """What is known of a task of ours; None: nothing."""
        return self._waited.get(task_id) or self._kept.get(task_id) or self._ended.get(task_id)

    def find(self, task_id: str) -> TaskRecord | None:
        """What is known of a task, also of one that was dropped from ours and of which something came after that."""
        return self.peek(task_id) or self._strangers.get(task_id)

    def _take(self, task_id: str) -> TaskRecord | None:
        """Out of ours."""
        found = self._ended.pop(task_id, None)
        if found is not None:
            self._ended_size -= found.size
            return found
        return self._waited.pop(task_id, None) or self._kept.pop(task_id, None)

    def _take_stranger(self, task_id: str) -> TaskRecord | None:
        found = self._strangers.pop(task_id, None)
        if found is not None:
            self._strangers_size -= found.size
        return found

    def _keep(self, record: TaskRecord) -> None:
        record.kept_since = self.clock.seconds()
        kept = self._ended if record.is_final else self._kept
        kept[record.task_id] = record
        if record.is_final:
            self._ended_size += record.size
        while len(kept) > self._max_kept or (self._ended_size > _ENDED_SIZE and len(self._ended) > 1):
            self.counts.dropped += 1
            self._take(next(iter(kept)))

    def _expire(self) -> None:
        """Each kind is in the order in which they came."""
        oldest = self.clock.seconds() - self._expires
        for kept, take in (
            (self._kept, self._take),
            (self._ended, self._take),
            (self._strangers, self._take_stranger),
        ):
            while kept and (record := next(iter(kept.values()))).kept_since <= oldest:
                take(record.task_id)
                self.counts.dropped += 1

    def forget(self, task_id: str) -> None:
        """Nobody wants to know any more: those who wait are cancelled, and what still comes is dropped."""
        self._take_stranger(task_id)
        record = self._take(task_id)
        self._forgotten[task_id] = None
        if len(self._forgotten) > _FORGOTTEN:
            del self._forgotten[next(iter(self._forgotten))]
        if record is not None:
            record.listeners.clear()
            self._end(record, Failure(CancelledError("the result was forgotten")))

    # -- waiting -------------------------------------------------------------------------------------

    def wait(self, record: TaskRecord, timeout: float) -> Deferred[TaskResult]:
        """Fires with the final state; may be cancelled.

        timeout: float -- seconds; RPCTimeout after that.  Overloaded: too many tasks are waited for.
        ConfigurationError: the timeout is no number of seconds.
        """
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 <= timeout <= 2**31:
            return fail(ConfigurationError(f"a timeout is a number of seconds from 0, not {timeout!r}"))
        if record.is_final:
            assert record.message is not None
            return succeed(record.message)
        task_id = record.task_id
        if not record.waiters:
            if len(self._waited) >= self._max_waiting:
                return fail(Overloaded(f"{len(self._waited)} tasks are waited for, which is the limit"))
            if self._waited.get(task_id, record) is not record:
                return fail(ConfigurationError(f"the task {clip(task_id)!r} is waited for by another handle"))
            self._take_stranger(task_id)
            self._take(task_id)
            self._forgotten.pop(task_id, None)
            self._waited[task_id] = record
        waiter: Deferred[TaskResult] = Deferred(lambda waiter: self._leave(record, waiter, None))
        record.waiters[waiter] = self.clock.callLater(timeout, self._leave, record, waiter, timeout)
        return waiter

    def _leave(self, record: TaskRecord, waiter: Deferred[TaskResult], timeout: float | None) -> None:
        """Its time is up, or it is cancelled (None)."""
        timer = record.waiters.pop(waiter, None)
        if timer is None:  # the end is being told, and this is cancelled by one who was told before it
            waiter.errback(Failure(CancelledError()))
            return
        if not record.waiters and self._waited.get(record.task_id) is record:
            del self._waited[record.task_id]
            self._keep(record)
        if timeout is None:
            timer.cancel()
            waiter.errback(Failure(CancelledError()))
            return
        text = f"no result of task {clip(record.task_id, 60)} within {timeout:g} s; it is {clip(record.state, 40)}"
        if record.problem is not None:
            text += f"; what came could not be read: {clip(str(record.problem))}"
        waiter.errback(Failure(RPCTimeout(text, timeout)))

    def _end(self, record: TaskRecord, outcome: Any) -> None:
        waiters, record.waiters = record.waiters, {}
        for timer in waiters.values():
            timer.cancel()
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(outcome)

    def fail(self, task_id: str, reason: BaseException) -> None:
        """Whoever waits for this task fails with `reason`: its result cannot come any more."""
        record = self._waited.pop(task_id, None)
        if record is not None:
            self._keep(record)
            self._end(record, Failure(reason.with_traceback(None)))

    def fail_all(self, reason: BaseException) -> None:
        """Whoever waits fails with `reason`: no result can come any more."""
        for task_id in list(self._waited):
            self.fail(task_id, reason)

    def close(self, reason: BaseException) -> None:
        """:meth:`fail_all`, and nothing is kept."""
        self.fail_all(reason)
        self._kept.clear()
        self._ended.clear()
        self._ended_size = 0
        self._strangers.clear()
        self._strangers_size = 0

    # -- what comes ----------------------------------------------------------------------------------

    def received(self, message: TaskResult, size: int) -> None:
        """One state of a task.   size: int -- octets it came in."""
        task_id = message.task_id
        record = self._ours(task_id) or self._ours(message.correlation_id)
        if record is not None:
            self._update(record, message, size)
        elif task_id in self._forgotten or message.correlation_id in self._forgotten:
            self.counts.late += 1
        else:
            self._stranger(task_id, message, size)

    def _ours(self, task_id: str | None) -> TaskRecord | None:
        return None if task_id is None else self.peek(task_id)

    def unreadable(self, correlation_id: str | None, error: BaseException) -> None:
        """Something came that is no result: anybody may have sent it, so whoever waits goes on waiting."""
        self.counts.undecodable += 1
        record = self._ours(correlation_id)
        if record is not None:
            record.problem = error
        self._log.debug("what is no result was dropped: {error}", error=clip(str(error)))

    def _update(self, record: TaskRecord, message: TaskResult, size: int) -> None:
        if record.is_final:
            self.counts.duplicate += 1
            return
        record.message = message
        record.size = size
        for listener in list(record.listeners):
            try:
                listener(message)
            except Exception:
                self._log.failure("on_state_change of a task failed")
        if record.is_final:
            # A listener may have done anything meanwhile.
            if self._waited.get(record.task_id) is record or self._kept.get(record.task_id) is record:
                del (self._waited if record.task_id in self._waited else self._kept)[record.task_id]
                self._keep(record)
            record.listeners.clear()
            self._end(record, message)

    def _stranger(self, task_id: str, message: TaskResult, size: int) -> None:
        self.counts.out_of_band += 1
        strangers = self._strangers
        known = strangers.get(task_id)
        if known is not None and known.is_final:
            self.counts.duplicate += 1
            return
        self._take_stranger(task_id)
        self._expire()
        record = known or TaskRecord(task_id)
        record.message = message
        record.size = size
        record.kept_since = self.clock.seconds()
        strangers[task_id] = record
        self._strangers_size += size
        while len(strangers) > self._max_strangers or self._strangers_size > _STRANGERS_SIZE:
            self._take_stranger(next(iter(strangers)))
            self.counts.dropped += 1

    def __repr__(self) -> str:
        return f"<ResultTable: {len(self)} tasks, {self.waiting} waited for, {len(self._strangers)} out of band>"

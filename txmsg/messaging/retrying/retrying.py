"""Trying again: how often, how long to wait before each retry, and the loop that does it.

The arithmetic (kombu B7, B8): the wait before retry k, counted from 1, is ``min(start + (k - 1) * step, max)``, so
the first wait is `start` and none is longer than `max`.  `max_retries` N is N retries after the first attempt, 0 is one
attempt, None is for ever.  `timeout` is a limit for everything together: it cuts a wait, and an attempt, short.

Invariants: there is never more than one attempt under way; when the Deferred has fired or was cancelled, nothing is
left behind: no delayed call, and the attempt that was under way is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, OperationTimeout

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Catch", "RetryIntervals", "Retrying", "fxrange", "fxrangemax", "retry_over_time"]

#: Which errors are tried again: a class, some classes, or a function that says so of an error.
Catch = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]

#: Seconds between two calls of a `callback` while waiting.
_TICK: Final = 1.0


def fxrange(
    start: float = 1.0, stop: float | None = None, step: float = 1.0, repeatlast: bool = False
) -> Iterator[float]:
    """Numbers from `start` in steps of `step` up to and with `stop`, as floats; without end where `stop` is None.

    repeatlast: the last number again and again, in place of an end.
    Each number is reckoned from `start`, so that errors of rounding do not add up.
    """
    number, last = 0, float(start)
    while True:
        current = start + number * step
        if stop is not None and current > stop:
            break
        last = float(current)
        yield last
        number += 1
    while repeatlast:
        yield last


def fxrangemax(start: float = 1.0, stop: float | None = None, step: float = 1.0, max: float = 100.0) -> Iterator[float]:
    """As :func:`fxrange`, but no number is larger than `max`, and `stop` ends their sum: None is without end."""
    total, number = 0.0, 0
    while stop is None or total < stop:
        current = float(min(start + number * step, max))
        yield current
        total += current
        number += 1


@dataclass(frozen=True, slots=True)
class RetryIntervals:
    """How often something is tried again, and how long to wait before.

    max_retries: int | None -- attempts after the first one; 0: none; None: any number.
    interval_start: float -- seconds before the first retry.
    interval_step: float -- by how much each wait is longer than the one before.
    interval_max: float -- no wait is longer.
    timeout: float | None -- seconds for everything, the attempts and the waits; None: no limit.

    ConfigurationError for what is negative or no number.
    """

    max_retries: int | None = None
    interval_start: float = 2.0
    interval_step: float = 2.0
    interval_max: float = 30.0
    timeout: float | None = None

    def __post_init__(self) -> None:
        retries: object = self.max_retries
        if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
            raise ConfigurationError(f"max_retries is a number of retries, or None: {retries!r}")
        for name in ("interval_start", "interval_step", "interval_max", "timeout"):
            value = getattr(self, name)
            if value is None and name == "timeout":
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
                raise ConfigurationError(f"{name} is a number of seconds: {value!r}")

    def wait(self, k: int) -> float:
        """Seconds to wait before retry `k`, counted from 1."""
        if k < 1:
            raise ValueError(f"retries are counted from 1, not {k}")
        return float(min(self.interval_start + (k - 1) * self.interval_step, self.interval_max))

    def allows(self, k: int) -> bool:
        """Whether there may be a retry `k`, counted from 1."""
        return self.max_retries is None or k <= self.max_retries

    def changed(self, policy: RetryIntervals | Mapping[str, Any] | None) -> RetryIntervals:
        """These with what a `retry_policy` says: nothing, some fields as a mapping, or all of them.

        ConfigurationError for a key that is not the name of a field.
        """
        if policy is None:
            return self
        if isinstance(policy, RetryIntervals):
            return policy
        unknown = set(policy) - _FIELDS
        if unknown:
            raise ConfigurationError(
                f"a retry policy has no {', '.join(sorted(map(str, unknown)))}: there are {', '.join(sorted(_FIELDS))}"
            )
        return replace(self, **policy)


_FIELDS: Final = frozenset(field.name for field in fields(RetryIntervals))


class Retrying:
    """One thing that is tried until it succeeds or its intervals are used up.

    attempt -- called for each try; what it returns, or what that Deferred or coroutine gives, is the result.
    intervals: RetryIntervals.
    clock -- IReactorTime.
    is_retried -- whether this error is tried again.
    errback(exc, interval) -- called before each wait with the seconds that follow; not when it is given up.
    callback() -- called after each failed attempt and about once a second while waiting.
    waits(exc, retries) -- whether to wait after this failure (`retries`: how many there were before it), None: always.
        A retry without a wait is made at once, and does not lengthen the waits that follow.

    What `errback` and `callback` raise ends it with that error.   attempts: int -- how often it was tried so far.
    """

    def __init__(
        self,
        attempt: Callable[[], object],
        intervals: RetryIntervals,
        clock: IReactorTime,
        is_retried: Callable[[BaseException], bool],
        *,
        errback: Callable[[BaseException, float], object] | None = None,
        callback: Callable[[], object] | None = None,
        waits: Callable[[BaseException, int], bool] | None = None,
    ) -> None:
        self._attempt = attempt
        self._intervals = intervals
        self._clock = clock
        self._is_retried = is_retried
        self._errback = errback
        self._callback = callback
        self._waits = waits
        self.attempts = 0
        self._retries = 0
        self._rounds = 0
        self._deadline: float | None = None
        self._last: Failure | None = None
        self._call: IDelayedCall | None = None
        self._limit: IDelayedCall | None = None
        self._under_way: Deferred[Any] | None = None
        self._result: Deferred[Any] | None = None

    def start(self) -> Deferred[Any]:
        """Make the first attempt now; once only.

        Fires with the result.  Fails with the last error when it is given up, and with the error at once where it is
        not one to retry; with OperationTimeout where the time was up before the first attempt came to an end.
        """
        result: Deferred[Any] = Deferred(lambda _: self._stop())
        self._result = result
        timeout = self._intervals.timeout
        if timeout is not None:
            self._deadline = self._clock.seconds() + timeout
            self._limit = self._clock.callLater(timeout, self._time_is_up)
        self._try()
        return result

    def abandon(self, reason: BaseException) -> None:
        """Stop, and fail with `reason`; without effect when it has come to an end."""
        self._fail(Failure(reason))

    def _try(self) -> None:
        self._call = None
        self.attempts += 1
        under_way = maybeDeferred(self._attempt)
        if self._result is None:  # the attempt itself had it cancelled
            _drop(under_way)
            return
        self._under_way = under_way
        under_way.addCallbacks(self._succeeded, self._failed, callbackArgs=(under_way,), errbackArgs=(under_way,))

    def _succeeded(self, value: Any, attempt: Deferred[Any]) -> None:
        if self._under_way is attempt:
            result = self._result
            self._under_way = None
            self._stop()
            if result is not None:
                result.callback(value)

    def _failed(self, failure: Failure, attempt: Deferred[Any]) -> None:
        if self._under_way is not attempt:
            return
        self._under_way = None
        self._last = failure
        error = failure.value
        assert error is not None
        try:
            if not self._is_retried(error) or not self._intervals.allows(self._retries + 1):
                self._fail(failure)
                return
            wait = self._next_wait(error)
            now = self._clock.seconds()
            # A wait that would be too long ends with the limit, and not with an attempt.
            is_cut = self._deadline is not None and wait > 0 and now + wait >= self._deadline
            if self._deadline is not None and is_cut:
                wait = max(0.0, self._deadline - now)
            if self._result is not None and self._callback is not None:
                self._callback()
            if self._result is not None and self._errback is not None:
                self._errback(error, wait)
        except Exception:
            self._fail(Failure())
            return
        if self._result is not None:
            self._retries += 1
            self._wait_until(None if is_cut else now + wait)

    def _next_wait(self, error: BaseException) -> float:
        if self._waits is not None and not self._waits(error, self._retries):
            return 0.0
        self._rounds += 1
        return self._intervals.wait(self._rounds)

    def _wait_until(self, end: float | None) -> None:
        """Wait, and try again at `end`; None: only the limit ends it."""
        left = None if end is None else max(0.0, end - self._clock.seconds())
        if self._callback is not None and (left is None or left > _TICK):
            self._call = self._clock.callLater(_TICK, self._tick, end)
        elif left is not None:
            self._call = self._clock.callLater(left, self._try)

    def _tick(self, end: float | None) -> None:
        self._call = None
        try:
            if self._callback is not None:
                self._callback()
        except Exception:
            self._fail(Failure())
            return
        if self._result is not None:
            self._wait_until(end)

    def _time_is_up(self) -> None:
        self._limit = None
        timeout = self._intervals.timeout
        self._fail(self._last or Failure(OperationTimeout(f"not done within {timeout} s")))

    def _fail(self, failure: Failure) -> None:
        result = self._result
        self._stop()
        if result is not None:
            result.errback(failure)

    def _stop(self) -> None:
        self._result = None
        calls = (self._call, self._limit)
        self._call = self._limit = None
        for call in calls:
            if call is not None and call.active():
                call.cancel()
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.cancel()


def _drop(deferred: Deferred[Any]) -> None:
    """Cancel it and let its error, which nobody waits for, be none."""
    deferred.addErrback(lambda _: None)
    deferred.cancel()


def retry_over_time(
    fun: Callable[..., object],
    catch: Catch,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    errback: Callable[[BaseException, float], object] | None = None,
    max_retries: int | None = None,
    interval_start: float = 2.0,
    interval_step: float = 2.0,
    interval_max: float = 30.0,
    callback: Callable[[], object] | None = None,
    timeout: float | None = None,
    *,
    reactor: IReactorTime | None = None,
) -> Deferred[Any]:
    """Call `fun(*args, **kwargs)` until it succeeds; fires with its result.

    fun -- may return a Deferred or a coroutine.
    catch -- the errors after which it is called again.
    errback(exc, interval) -- called before each wait with the seconds that follow.
    callback() -- called after each failure and about once a second while waiting; raise in it to give up.
    max_retries to timeout -- see :class:`RetryIntervals`.
    reactor -- whose clock; None takes the installed one.

    Fails with the last error of `fun` when it is given up, with any other error at once, and with OperationTimeout
    where `timeout` came before the end of the first call.
    """
    intervals = RetryIntervals(max_retries, interval_start, interval_step, interval_max, timeout)
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = cast("IReactorTime", installed)
    is_retried = catch if not isinstance(catch, (type, tuple)) else (lambda error: isinstance(error, catch))
    call = Retrying(
        lambda: fun(*args, **(kwargs or {})),
        intervals,
        reactor,
        is_retried,
        errback=errback,
        callback=callback,
    )
    return call.start()

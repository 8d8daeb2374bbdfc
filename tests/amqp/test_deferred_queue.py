"""ClosableDeferredQueue: order, limits, closing, cancelling, iteration, re-entrancy."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, QueueOverflow, QueueUnderflow
from twisted.python.failure import Failure

from txmsg.amqp.deferred_queue import ClosableDeferredQueue
from txmsg.errors import ConsumerCancelled, NotFound, QueueClosed


def outcome(deferred: Deferred[Any]) -> Any:
    """What `deferred` has fired with: a value, an exception instance, or None while it waits."""
    results: list[Any] = []
    deferred.addBoth(lambda result: results.append(result.value if isinstance(result, Failure) else result))
    return results[0] if results else None


def started(coroutine: Coroutine[Deferred[Any], Any, Any]) -> Deferred[Any]:
    return Deferred.fromCoroutine(coroutine)


REASON = NotFound("no queue 'q'")


def test_items_come_out_in_the_order_they_went_in() -> None:
    """L-02, L-03: without a waiter put() stores; get() gives the oldest item."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    assert [queue.put(n) for n in range(3)] == [True, True, True]
    assert len(queue) == 3
    assert queue.pending == [0, 1, 2]
    assert [outcome(queue.get()) for _ in range(3)] == [0, 1, 2]
    assert len(queue) == 0


def test_the_oldest_waiter_is_served_first() -> None:
    """L-02, L-03: put() serves the get() that has waited longest and stores nothing."""
    queue: ClosableDeferredQueue[str] = ClosableDeferredQueue()
    waiters = [queue.get() for _ in range(3)]
    served: list[tuple[int, str]] = []
    for number, waiter in enumerate(waiters):

        def record(item: str, number: int = number) -> None:
            served.append((number, item))

        waiter.addCallback(record)
    for item in "abc":
        queue.put(item)
    assert served == [(0, "a"), (1, "b"), (2, "c")]
    assert len(queue) == 0


def test_falsy_items_are_items() -> None:
    """L-02: None, 0 and b"" are stored and given like anything else."""
    queue: ClosableDeferredQueue[Any] = ClosableDeferredQueue()
    items = [None, 0, b"", False]
    for item in items:
        queue.put(item)
    assert [queue.get().result for _ in items] == items


def test_size_bounds_what_is_stored() -> None:
    """L-01, L-12: put() beyond `size` raises, loses nothing that is stored, and a waiter needs no room."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue(size=1)
    queue.put(1)
    with pytest.raises(QueueOverflow):
        queue.put(2)
    assert outcome(queue.get()) == 1
    waiter = queue.get()
    queue.put(3)
    queue.put(4)
    assert outcome(waiter) == 3
    assert queue.pending == [4]
    empty: ClosableDeferredQueue[int] = ClosableDeferredQueue(size=0)
    handed_over = empty.get()
    empty.put(5)
    assert outcome(handed_over) == 5
    with pytest.raises(QueueOverflow):
        empty.put(6)


def test_backlog_bounds_who_waits() -> None:
    """L-01: get() beyond `backlog` fails its Deferred; the earlier ones still wait."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue(backlog=1)
    first = queue.get()
    assert isinstance(outcome(queue.get()), QueueUnderflow)
    queue.put(1)
    assert outcome(first) == 1


def test_close_fails_waiters_oldest_first() -> None:
    """L-04, L-07: every waiting get() fails with the reason, the oldest first."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    failed: list[tuple[str, BaseException | None]] = []
    for name in "abc":

        def record(failure: Failure, name: str = name) -> None:
            failed.append((name, failure.value))

        queue.get().addErrback(record)
    assert queue.close(REASON) == []
    assert failed == [("a", REASON), ("b", REASON), ("c", REASON)]
    assert queue.closed is REASON


def test_get_after_close_fails_with_the_reason() -> None:
    """L-05: also the hundredth time, each time with a Failure of its own."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.close(REASON)
    failures: list[Failure] = []
    for _ in range(100):
        queue.get().addErrback(failures.append)
    assert all(failure.value is REASON for failure in failures)
    assert len({id(failure) for failure in failures}) == 100


def test_put_after_close_refuses_the_item_and_leaves_no_failure() -> None:
    """L-05: put() returns False; no failed Deferred is left behind to be logged as unhandled."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.close(REASON)
    assert queue.put(1) is False
    assert len(queue) == 0
    gc.collect()  # an unhandled failed Deferred would be logged here, and the suite fails on that


def test_close_returns_what_it_drops() -> None:
    """L-06: by default the stored items can no longer be read; close() gives them to its caller."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.put(1)
    queue.put(2)
    assert queue.close(REASON) == [1, 2]
    assert queue.pending == []
    assert outcome(queue.get()) is REASON


def test_close_with_drain_keeps_items_readable() -> None:
    """L-06, K-20: an orderly end: what has arrived is still read, then get() fails."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.put(1)
    queue.put(2)
    assert queue.close(REASON, drain=True) == []
    assert queue.closed is REASON
    assert queue.put(3) is False
    assert [outcome(queue.get()) for _ in range(2)] == [1, 2]
    assert outcome(queue.get()) is REASON


def test_the_first_reason_wins() -> None:
    """L-08: a second close changes nothing, and drops nothing that was kept."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.put(1)
    queue.close(REASON, drain=True)
    assert queue.close(NotFound("another")) == []
    assert queue.closed is REASON
    assert outcome(queue.get()) == 1
    assert outcome(queue.get()) is REASON


def test_closed_is_none_or_the_reason_even_when_it_is_falsy() -> None:
    """L-09: a reason whose truth value is False still closes."""

    class Falsy(Exception):
        def __bool__(self) -> bool:
            return False

    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    assert queue.closed is None
    waiter = queue.get()
    reason = Falsy()
    queue.close(reason)
    assert queue.closed is reason
    assert isinstance(outcome(waiter), Falsy)
    assert queue.put(1) is False


def test_close_without_a_reason() -> None:
    """L-04: the reason is then a QueueClosed."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    waiter = queue.get()
    queue.close()
    assert isinstance(queue.closed, QueueClosed)
    assert outcome(waiter) is queue.closed


def test_a_reason_must_be_an_exception() -> None:
    """L-04: anything else is refused at once and the queue stays open."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    with pytest.raises(TypeError, match="not str"):
        queue.close("because")  # type: ignore[arg-type]
    assert queue.closed is None


def test_a_cancelled_get_loses_no_item() -> None:
    """L-10: the next item goes to the next waiter."""
    queue: ClosableDeferredQueue[str] = ClosableDeferredQueue()
    first, second = queue.get(), queue.get()
    first.cancel()
    assert isinstance(outcome(first), CancelledError)
    queue.put("a")
    assert outcome(second) == "a"
    third = queue.get()
    third.cancel()
    assert isinstance(outcome(third), CancelledError)
    queue.put("b")
    assert queue.pending == ["b"]


def test_cancelling_a_get_that_has_its_item_does_nothing() -> None:
    """L-10: cancel() after the fact neither raises nor takes the item back."""
    queue: ClosableDeferredQueue[str] = ClosableDeferredQueue()
    waiting = queue.get()
    queue.put("a")
    waiting.cancel()
    assert outcome(waiting) == "a"


def test_an_errback_may_cancel_another_waiter_during_close() -> None:
    """L-04, K-11: each waiter fails exactly once, whatever the callbacks do."""
    queue: ClosableDeferredQueue[str] = ClosableDeferredQueue()
    first, second, third = queue.get(), queue.get(), queue.get()
    seen: list[Any] = []

    def cancel_third(failure: Failure) -> None:
        seen.append(failure.value)
        third.cancel()

    first.addErrback(cancel_third)
    second.addErrback(lambda failure: seen.append(failure.value))
    third.addErrback(lambda failure: seen.append(failure.type))
    queue.close(REASON)
    assert seen == [REASON, CancelledError, REASON]


def test_callbacks_may_get_put_and_close() -> None:
    """K-11: a callback that gets again, puts, or closes the queue sees a consistent queue."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    seen: list[Any] = []

    def again(item: int) -> None:
        seen.append(item)
        if item < 3:
            queue.get().addCallback(again)
            queue.put(item + 1)
        else:
            queue.close(REASON)

    queue.get().addCallback(again)
    last = queue.get()
    queue.put(0)
    assert seen == [0]
    assert outcome(last) == 1
    queue.put(7)
    assert seen == [0, 7]
    assert queue.closed is REASON
    assert outcome(queue.get()) is REASON


def test_a_get_inside_an_errback_fails_too() -> None:
    """L-05: no get() can start to wait while the queue closes."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    inner: list[Any] = []
    queue.get().addErrback(lambda _: inner.append(outcome(queue.get())))
    queue.close(REASON)
    assert inner == [REASON]


def test_hooks_account_for_every_stored_item() -> None:
    """I-11: stored and removed balance out, through get, iteration and close; hand-overs are not stored."""
    balance: list[int] = []
    removed: list[int] = []
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue(on_stored=balance.append, on_removed=removed.append)
    waiter = queue.get()
    queue.put(0)
    assert outcome(waiter) == 0
    for n in range(1, 6):
        queue.put(n)
    outcome(queue.get())
    outcome(started(queue.__anext__()))
    assert removed == [1, 2]
    queue.close(drain=True)
    outcome(queue.get())
    assert removed == [1, 2, 3]
    assert balance == [1, 2, 3, 4, 5]

    other: ClosableDeferredQueue[int] = ClosableDeferredQueue(on_stored=balance.append, on_removed=removed.append)
    other.put(6)
    assert other.close() == [6]
    assert removed == [1, 2, 3, 6]


def test_a_removal_hook_may_put() -> None:
    """I-11: the hook resumes reading, which may deliver at once."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.on_removed = lambda item: queue.put(item + 1)
    queue.put(1)
    assert [outcome(queue.get()) for _ in range(3)] == [1, 2, 3]


async def read_all(queue: ClosableDeferredQueue[int], seen: list[int]) -> str:
    async for item in queue:
        seen.append(item)
    return "ended"


@pytest.mark.parametrize("reason", [None, QueueClosed("done"), ConsumerCancelled("ct", "client", "q")])
def test_iteration_ends_normally_after_an_orderly_close(reason: BaseException | None) -> None:
    """L-11: buffered items first, then live ones, then the loop ends."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    queue.put(1)
    seen: list[int] = []
    loop = started(read_all(queue, seen))
    assert outcome(loop) is None
    queue.put(2)
    assert seen == [1, 2]
    ended: list[str] = []
    loop.addCallback(lambda _: ended.append("ended"))
    queue.close(reason)
    assert ended == ["ended"]


@pytest.mark.parametrize("reason", [REASON, ConsumerCancelled("ct", "server", "q"), ValueError("x")])
def test_iteration_raises_any_other_reason(reason: BaseException) -> None:
    """L-11: a server's cancel, a closed channel and a lost connection come out of the loop."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    seen: list[int] = []
    loop = started(read_all(queue, seen))
    queue.close(reason)
    assert outcome(loop) is reason


def test_iteration_reads_the_rest_of_a_drained_queue() -> None:
    """L-06, L-11: close(drain=True) lets the loop finish what has arrived."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    for n in range(3):
        queue.put(n)
    queue.close(ConsumerCancelled("ct", "client", "q"), drain=True)
    seen: list[int] = []
    assert outcome(started(read_all(queue, seen))) == "ended"
    assert seen == [0, 1, 2]


def test_ten_thousand_buffered_items_need_no_recursion() -> None:
    """W-20: iterating a long queue, and serving a long chain of waiters, stays flat."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    for n in range(10_000):
        queue.put(n)
    queue.close(drain=True)
    seen: list[int] = []
    assert outcome(started(read_all(queue, seen))) == "ended"
    assert len(seen) == 10_000
    live: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    later: list[int] = []
    loop = started(read_all(live, later))
    for n in range(10_000):
        live.put(n)
    assert len(later) == 10_000
    live.close()
    assert outcome(loop) == "ended"


def test_the_traceback_of_the_shared_reason_does_not_grow() -> None:
    """L-04: one exception object serves all; raising it a thousand times keeps its traceback short."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    reason = NotFound("no queue")
    queue.close(reason)

    async def ask() -> None:
        with pytest.raises(NotFound):
            await queue.get()

    for _ in range(1000):
        started(ask())
    assert len(traceback.extract_tb(reason.__traceback__)) < 10


def test_truth_and_repr() -> None:
    """L-09: an empty queue is true; the repr tells the state."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    assert queue
    assert repr(queue) == "<ClosableDeferredQueue 0 items, 0 waiting, open>"
    queue.put(1)
    queue.close(REASON)
    assert queue
    assert "closed: NotFound" in repr(queue)


@given(st.lists(st.sampled_from(["put", "get", "cancel", "close", "drain"]), max_size=60))
def test_no_item_is_lost_or_given_twice(actions: list[str]) -> None:
    """L-02 to L-10: over any sequence of calls each accepted item is read once, in order, or returned."""
    queue: ClosableDeferredQueue[int] = ClosableDeferredQueue()
    accepted: list[int] = []
    read: list[int] = []
    failed: list[BaseException] = []
    waiters: list[Deferred[None]] = []
    dropped: list[int] = []
    gets = 0
    for number, action in enumerate(actions):
        if action == "put":
            if queue.put(number):
                accepted.append(number)
        elif action == "get":
            gets += 1
            waiters.append(queue.get().addCallbacks(read.append, lambda failure: failed.append(failure.value)))
        elif action == "cancel" and waiters:
            waiters.pop(0).cancel()
        else:
            dropped += queue.close(REASON, drain=action == "drain")
    assert read + dropped + queue.pending == accepted
    if queue.closed is not None:
        assert len(read) + len(failed) == gets

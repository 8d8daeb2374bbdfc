"""A pool under random use, against a model that only counts: no place is ever lost, and nobody is forgotten."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from txmsg.errors import LimitExceeded, OperationTimeout, PoolClosed
from txmsg.messaging.pools import Acquiring, Resource


class Part:
    """What is lent: closed at most once, lent to at most one."""

    def __init__(self) -> None:
        self.is_closed = False
        self.is_lent = False
        self.is_dead = False

    def close(self) -> None:
        """For good."""
        assert not self.is_closed, "closed twice"
        self.is_closed = True


class Parts(Resource[Part]):
    """Making and preparing wait until the machine says how they end."""

    steps: list[tuple[Deferred[Any], Part | None]]
    made: list[Part]

    def setup(self) -> None:
        self.steps = getattr(self, "steps", [])
        self.made = getattr(self, "made", [])

    def create(self) -> Deferred[Part]:
        step: Deferred[Any] = Deferred()
        self.steps.append((step, None))
        return step

    def prepare(self, resource: Part) -> Deferred[Part]:
        assert not resource.is_lent
        assert not resource.is_closed
        step: Deferred[Any] = Deferred()
        self.steps.append((step, resource))
        return step

    def is_usable(self, resource: Part) -> bool:
        return not resource.is_dead


class PoolMachine(RuleBasedStateMachine):
    """Acquires, releases, cancellations, failures, timeouts, deaths and new limits, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pool = Parts(2, reactor=self.clock)
        self.asked: list[Acquiring[Part]] = []
        self.lent: list[tuple[Acquiring[Part], Part]] = []
        self.old: list[Part] = []
        self.wrongs: list[str] = []

    # -- what users do

    def ask(self, block: bool, timeout: float | None) -> None:
        """Acquire, and write down what becomes of it."""
        acquiring = self.pool.acquire(block=block, timeout=timeout)
        if not acquiring.called:
            self.asked.append(acquiring)
        acquiring.addCallbacks(self.got, self.failed, (acquiring,), errbackArgs=(acquiring,))

    def got(self, part: Part, acquiring: Acquiring[Part]) -> None:
        """Somebody was served."""
        if part.is_lent or part.is_closed:
            self.wrongs.append("lent twice, or lent and closed")
        part.is_lent = True
        self.lent.append((acquiring, part))
        if acquiring in self.asked:
            self.asked.remove(acquiring)

    def failed(self, failure: Any, acquiring: Acquiring[Part]) -> None:
        """Somebody was not."""
        if failure.check(LimitExceeded, OperationTimeout, CancelledError, ConnectionError, PoolClosed) is None:
            self.wrongs.append(failure.getErrorMessage())
        if acquiring in self.asked:
            self.asked.remove(acquiring)

    @rule(block=st.booleans(), timeout=st.sampled_from([None, 0.0, 1.0, 3.0]))
    def acquire(self, block: bool, timeout: float | None) -> None:
        """Somebody wants one."""
        was_full = self.pool.limit and self.pool.in_use >= self.pool.limit
        before = (len(self.pool.steps), self.pool.waiting)
        self.ask(block, timeout)
        if was_full:
            waits = block and timeout != 0
            assert (len(self.pool.steps), self.pool.waiting) == (before[0], before[1] + waits)

    @precondition(lambda self: self.lent)
    @rule(data=st.data(), again=st.booleans(), is_dead=st.booleans())
    def release(self, data: Any, again: bool, is_dead: bool) -> None:
        """Somebody is done, and says so once or twice; what was lent may have died."""
        _, part = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        part.is_lent, part.is_dead = False, is_dead
        self.pool.release(part)
        self.old.append(part)
        if again and not part.is_lent:
            self.pool.release(part)

    @precondition(lambda self: self.lent)
    @rule(data=st.data())
    def replace(self, data: Any) -> None:
        """Somebody got a defective one."""
        _, part = self.lent.pop(data.draw(st.integers(0, len(self.lent) - 1)))
        part.is_lent = False
        self.pool.replace(part)
        assert part.is_closed

    @rule()
    def release_stranger(self) -> None:
        """Somebody is wrong."""
        before = repr(self.pool)
        self.pool.release(Part())
        for part in self.old:
            if not part.is_lent:
                self.pool.release(part)
        assert repr(self.pool) == before

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        """Somebody gives up."""
        self.asked[data.draw(st.integers(0, len(self.asked) - 1))].cancel()

    # -- what happens to them

    @precondition(lambda self: self.pool.steps)
    @rule(data=st.data(), fails=st.booleans())
    def step(self, data: Any, fails: bool) -> None:
        """A making or a preparing ends, one way or the other."""
        step, part = self.pool.steps.pop(data.draw(st.integers(0, len(self.pool.steps) - 1)))
        if fails:
            step.errback(ConnectionResetError("gone"))
        elif part is not None:
            step.callback(part)
        elif not step.called:
            self.pool.made.append(Part())
            step.callback(self.pool.made[-1])
        else:
            step.callback(None)  # cancelled: nothing was made

    @rule(seconds=st.sampled_from([0.5, 1.0, 5.0]))
    def time_passes(self, seconds: float) -> None:
        """So that timeouts end."""
        self.clock.advance(seconds)

    @rule(limit=st.integers(1, 4), reset=st.booleans())
    def resize(self, limit: int, reset: bool) -> None:
        """Another limit, by force; sometimes all that is lent is pulled from under its users."""
        lent = [part for _, part in self.lent]
        if reset:
            for part in lent:
                part.is_lent = False
            self.lent.clear()
        try:
            self.pool.resize(limit, force=True, reset=reset)
        except RuntimeError:
            raise AssertionError("the pool is open") from None
        if reset:
            assert all(part.is_closed for part in lent)

    # -- what is always true

    @invariant()
    def nothing_went_wrong(self) -> None:
        """What callbacks found, in which nobody would see an error."""
        assert self.wrongs == []

    @invariant()
    def places(self) -> None:
        """In use is what is lent and what is on its way; nothing else holds a place."""
        pending = [step for step, _ in self.pool.steps if not step.called]
        assert self.pool.in_use == len(self.lent) + len(pending)
        assert len(self.asked) == len(pending) + self.pool.waiting

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        """A free place and a waiter are never there together."""
        assert not self.pool.waiting or self.pool.in_use >= (self.pool.limit or 0)

    @invariant()
    def all_that_was_made_is_somewhere(self) -> None:
        """Lent, idle, being prepared, or closed: no resource is leaked."""
        preparing = [part for step, part in self.pool.steps if part is not None and not step.called]
        alive = [part for part in self.pool.made if not part.is_closed]
        assert len(alive) == len(self.lent) + self.pool.idle + len(preparing)

    @invariant()
    def timers(self) -> None:
        """There is a timer for each that waits with a timeout, and none else."""
        assert len(self.clock.getDelayedCalls()) == sum(1 for one in self.asked if one.timer is not None)

    def teardown(self) -> None:
        """At the end nothing and nobody is left."""
        self.pool.resize(self.pool.limit, force=True)
        for acquiring in list(self.asked):
            acquiring.cancel()
        for _, part in self.lent:
            part.is_lent = False
            self.pool.release(part)
        assert (self.pool.in_use, self.pool.waiting, self.clock.getDelayedCalls()) == (0, 0, [])
        assert self.pool.idle <= (self.pool.limit or 0)
        self.pool.force_close_all()
        assert all(part.is_closed for part in self.pool.made)


def test_random_use() -> None:
    """No place and no resource is ever lost (kombu L3, L9, L13, L15)."""
    run_state_machine_as_test(PoolMachine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None))

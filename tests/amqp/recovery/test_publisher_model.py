"""Z6: the Publisher against a reference model, in a simulation in which anything may go wrong at any moment.

The model knows of each publish how it may end.  After each step: the counts agree, nobody waits longer than the
deadline and a second, the bound is kept.  At the end: each has one outcome, what was confirmed is in the queue, what
was said not to have left is not, and the queue is in the order of the publishes (R1 to R6, R8).
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from txmsg.amqp import Backoff, ReconnectingConnection
from txmsg.errors import (
    NotFound,
    NotSent,
    Overloaded,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
    TxmsgError,
)
from txmsg.testing.disruption import Simulation

BOUND = 12

#: How a publish may end that goes to: the queue, no queue, no exchange.
ENDS: dict[str, tuple[type[BaseException], ...]] = {
    "jobs": (),
    "nowhere": (PublishReturned,),
    "missing": (NotFound,),
}
#: However it goes: too late, cancelled.
ALWAYS = (PublishTimeout, NotSent, CancelledError)


@dataclass(eq=False)
class Publish:
    """One publish of the model.   ends: how it ended, in order; a str is the message id."""

    number: int
    to: str
    deadline: float
    deferred: Deferred[str]
    ends: list[Any]


def longest_ascending(numbers: list[int]) -> int:
    """The length of the longest ascending subsequence."""
    ends: list[int] = []
    for number in numbers:
        at = bisect.bisect_left(ends, number)
        ends[at : at + 1] = [number]
    return len(ends)


class PublisherMachine(RuleBasedStateMachine):
    """One publisher, one durable queue."""

    on_loss: Any = "resend"

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation("Z6", set_up=lambda broker: broker.declare_queue("jobs", durable=True)).start()
        self.clock = self.simulation.clock
        self.connection = ReconnectingConnection(
            self.simulation.parameters(heartbeat=4),
            reactor=self.clock,
            endpoint=lambda parameters: self.simulation.endpoint(),
            backoff=Backoff(initial=0.1, random=self.simulation.random.random),
        )
        self.publisher = self.connection.publisher(on_loss=self.on_loss, max_outstanding=BOUND)
        self.publishes: list[Publish] = []
        self.is_started = False
        self.nacks = 0
        self.is_blocked = False

    # -- the application ---------------------------------------------------------------------------

    @precondition(lambda self: not self.is_started)
    @rule()
    def start(self) -> None:
        """Connect at last."""
        self.is_started = True
        self.simulation.watch(self.connection.start(), "start")

    @rule(
        to=st.sampled_from(["jobs", "jobs", "jobs", "jobs", "nowhere", "missing"]),
        timeout=st.sampled_from([1.0, 5.0, 30.0, 30.0]),
        count=st.integers(1, 4),
    )
    def publish(self, to: str, timeout: float, count: int) -> None:
        """Some messages."""
        for _ in range(count):
            number = len(self.publishes)
            is_full = self.publisher.outstanding >= BOUND
            exchange, key = ("missing", "jobs") if to == "missing" else ("", to)
            deferred = self.publisher.publish(exchange, key, b"%d" % number, timeout=timeout)
            made = Publish(number, to, self.clock.seconds() + timeout, deferred, [])
            deferred.addBoth(self.ended, made)
            assert is_full == (len(made.ends) == 1 and isinstance(made.ends[0], Overloaded))
            self.publishes.append(made)

    def ended(self, result: Any, made: Publish) -> None:
        """Note an outcome."""
        made.ends.append(result.value if isinstance(result, Failure) else result)

    @precondition(lambda self: self.publishes)
    @rule(back=st.integers(0, 8))
    def cancel(self, back: int) -> None:
        """One of the last."""
        self.publishes[max(-1 - back, -len(self.publishes))].deferred.cancel()

    @rule(seconds=st.sampled_from([0.0, 0.0005, 0.002, 0.01, 0.3, 2.0]))
    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.simulation.advance(seconds)

    # -- what goes wrong ---------------------------------------------------------------------------

    @precondition(lambda self: self.is_started)
    @rule(
        how=st.sampled_from(["rst", "fin", "blackhole"]),
        direction=st.sampled_from(["to_broker", "to_client"]),
        after=st.integers(1, 1200),
    )
    def cut_later(self, how: Any, direction: Any, after: int) -> None:
        """The next connection, somewhere in the handshake or in the messages."""
        self.simulation.cut(how, direction, after_bytes=after)

    @precondition(lambda self: self.simulation.open_links())
    @rule(how=st.sampled_from(["reset", "close", "swallow"]))
    def cut(self, how: str) -> None:
        """The connection that is there."""
        link = self.simulation.open_links()[-1]
        if how == "swallow":
            link.swallow()
        else:
            getattr(link, how)()

    @precondition(lambda self: self.simulation.broker.is_up)
    @rule(after=st.sampled_from([0.05, 1.0]), keep=st.sampled_from(["synced", "written"]))
    def restart(self, after: float, keep: Any) -> None:
        """The broker crashes."""
        self.simulation.broker.restart(after, keep=keep)
        self.is_blocked = False

    @precondition(lambda self: self.simulation.broker.is_up)
    @rule()
    def nack(self) -> None:
        """The broker refuses the next message for the queue."""
        self.simulation.broker.embedded.faults.nack(queue="jobs")
        self.nacks += 1

    @precondition(lambda self: self.simulation.broker.is_up and not self.is_blocked)
    @rule()
    def block(self) -> None:
        """An alarm."""
        self.simulation.broker.embedded.faults.block()
        self.is_blocked = True

    @precondition(lambda self: self.is_blocked and self.simulation.broker.is_up)
    @rule()
    def unblock(self) -> None:
        """It is over."""
        self.simulation.broker.embedded.faults.unblock()
        self.is_blocked = False

    # -- what must be ------------------------------------------------------------------------------

    @invariant()
    def counts_agree(self) -> None:
        """R2, R3: sent = ended + outstanding, at every moment."""
        taken = [made for made in self.publishes if not isinstance((made.ends or [None])[0], Overloaded)]
        report = self.publisher.report()
        assert report.published == len(taken)
        assert report.outstanding == sum(not made.ends for made in taken) <= BOUND
        sums = [getattr(report, name) for name in report.__slots__ if name not in ("published", "resent")]
        assert sum(sums) == report.published
        assert all(len(made.ends) <= 1 for made in self.publishes)

    @invariant()
    def nobody_waits_too_long(self) -> None:
        """R2: at most a second longer than the deadline."""
        now = self.clock.seconds()
        assert all(made.ends or now <= made.deadline + 1.001 for made in self.publishes)

    def teardown(self) -> None:
        """Let it come to rest, and look at everything."""
        simulation = self.simulation
        simulation.broker.start_unless_up()
        simulation.advance(0.1)
        simulation.broker.embedded.faults.clear()
        simulation.broker.embedded.faults.unblock()
        if not self.is_started:
            self.start()
        simulation.run_until(self.publisher.drain(), 60)
        simulation.run_until(self.publisher.close(), 60)
        self.counts_agree()
        found = [int(body) for body in simulation.broker.embedded.queue("jobs").bodies]
        once = list(dict.fromkeys(found))
        # What was nacked when the nack was lost with the connection is written again behind what was taken.
        assert len(once) - longest_ascending(once) <= self.nacks, "R4"
        nacked = 0
        for made in self.publishes:
            (end,) = made.ends
            nacked += isinstance(end, PublishNacked)
            if isinstance(end, str):
                assert made.to == "jobs", made
                assert made.number in found, f"lost: {made}"
            elif isinstance(end, (NotSent, Overloaded, PublishReturned, PublishNacked)):
                assert made.number not in found, made
            expected = (*ENDS[made.to], *ALWAYS, str, Overloaded, PublishNacked)
            if isinstance(end, PublishUnconfirmed) and isinstance(end.cause, PublishNacked):
                expected = (*expected, PublishUnconfirmed)
            if self.on_loss == "fail":
                expected = (*expected, PublishUnconfirmed, TxmsgError)
            assert isinstance(end, expected), made
        assert nacked <= self.nacks
        simulation.run_until(self.connection.close(), 60)
        simulation.check()


class FailingMachine(PublisherMachine):
    """The same with on_loss="fail"."""

    on_loss = "fail"


TestPublisher = PublisherMachine.TestCase
TestPublisher.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestFailingPublisher = FailingMachine.TestCase
TestFailingPublisher.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)

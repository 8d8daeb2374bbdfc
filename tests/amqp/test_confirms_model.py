"""Z6: ConfirmLedger against a reference model, in random order and with callbacks that meddle.

The model knows for each publish what its one outcome has to be.  After each step the outcomes must be the model's:
the same kind, fired once, in ascending order within one frame of the broker, and none left at the end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from txmsg.amqp.confirms import ConfirmLedger, MandatoryPublish
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.errors import ConnectionLost, PublishNacked, PublishReturned, PublishTimeout
from txmsg.wire.properties import BasicProperties

LIMIT = 30.0


@dataclass(eq=False)
class Entry:
    """One publish of the model.

    :ivar outcome: how it has to end, as far as the model knows; "" while it is pending.
    :ivar is_answered: the broker has answered it; the answer to a cancelled or late publish is swallowed.
    :ivar then: what its callback does: "", "publish", "cancel the next" or "close".
    """

    made: float
    message_id: str | None
    body: bytes
    then: str
    outcome: str = ""
    is_answered: bool = False
    is_returned: bool = False


class Model:
    """The reference: a list of publishes, counted from 1."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.is_closed = False

    def end(self, entry: Entry, outcome: str) -> None:
        """A publish gets its outcome, unless it has one; then its callback runs."""
        if entry.outcome:
            return
        entry.outcome = outcome
        if entry.then == "publish" and not self.is_closed:
            self.entries.append(Entry(entry.made, None, b"", ""))
        elif entry.then == "cancel the next":
            for later in self.entries[self.entries.index(entry) + 1 :]:
                if not later.outcome:
                    later.outcome = "cancelled"
                    break
        elif entry.then == "close":
            self.close()

    def answer(self, tag: int, multiple: bool, nack: bool) -> None:
        """The broker answers."""
        last = tag or len(self.entries)
        for entry in self.entries[:last] if multiple else [self.entries[tag - 1]]:
            if not entry.is_answered and not self.is_closed:
                entry.is_answered = True
                self.end(entry, "nacked" if nack else "returned" if entry.is_returned else "acked")

    def return_(self, entry: Entry) -> bool:
        """The broker returns a message: of those that look like it the oldest is charged with it."""
        for like in self.entries:
            alike = (like.message_id, like.body) == (entry.message_id, entry.body) or like is entry
            if alike and like.message_id is not None and not like.is_answered and not like.is_returned:
                like.is_returned = True
                return True
        return False

    def close(self) -> None:
        """The channel ends."""
        if not self.is_closed:
            self.is_closed = True
            for entry in list(self.entries):
                if not entry.is_answered:
                    self.end(entry, "returned" if entry.is_returned else "lost")


KINDS: dict[type[BaseException], str] = {
    PublishReturned: "returned",
    PublishNacked: "nacked",
    PublishTimeout: "timed out",
    ConnectionLost: "lost",
    CancelledError: "cancelled",
}
THEN = st.sampled_from(["", "", "", "publish", "cancel the next", "close"])


class ConfirmMachine(RuleBasedStateMachine):
    """Both of them, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.epochs: list[tuple[Model, list[list[str]]]] = []
        self.open_channel()

    def open_channel(self) -> None:
        self.ledger = ConfirmLedger(self.clock, LIMIT)
        self.model = Model()
        self.deferreds: list[Deferred[Any]] = []
        self.results: list[list[str]] = []
        self.order: list[int] = []
        self.epochs.append((self.model, self.results))

    # -- the real one ------------------------------------------------------------------------------

    def make(self, message: MandatoryPublish | None, then: str) -> None:
        deferred: Deferred[int | None] = Deferred()
        tag = len(self.deferreds) + 1
        results: list[str] = []
        self.deferreds.append(deferred)
        self.results.append(results)
        if message is None:
            self.ledger.published(deferred)
        else:
            self.ledger.published_mandatory(deferred, message)
        assert self.ledger.last_tag == tag
        deferred.addBoth(self.ended, tag, then, self.ledger)

    def ended(self, result: Any, tag: int, then: str, ledger: ConfirmLedger) -> None:
        if isinstance(result, Failure):
            kind = KINDS[type(result.value)]  # type: ignore[index]
        else:
            assert result == tag, f"publish {tag} was told that it is {result}"
            kind = "acked"
        self.results[tag - 1].append(kind)
        self.order.append(tag)
        if kind in ("timed out", "cancelled") or ledger is not self.ledger:
            return
        if then == "publish" and not self.is_closed:
            self.make(None, "")
        elif then == "cancel the next":
            for later in range(tag, len(self.deferreds)):
                if not self.results[later]:
                    self.deferreds[later].cancel()
                    break
        elif then == "close":
            self.close_ledger()

    is_closed = False

    def close_ledger(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.ledger.close(lambda tag: ConnectionLost(str(tag)))

    # -- steps -------------------------------------------------------------------------------------

    @rule(then=THEN)
    @precondition(lambda self: not self.is_closed)
    def publish(self, then: str) -> None:
        self.model.entries.append(Entry(self.clock.seconds(), None, b"", then))
        self.make(None, then)

    @rule(message_id=st.sampled_from(["", "a", "b", None]), body=st.sampled_from([b"1", b"2"]), then=THEN)
    @precondition(lambda self: not self.is_closed)
    def publish_mandatory(self, message_id: str | None, body: bytes, then: str) -> None:
        if message_id is None:
            message_id = self.ledger.next_message_id()
            message = MandatoryPublish(message_id, "x", "k", None)
        else:
            message = MandatoryPublish(message_id, "x", "k", body)
        self.model.entries.append(Entry(self.clock.seconds(), message_id, body, then))
        self.make(message, then)

    @rule(data=st.data(), multiple=st.booleans(), nack=st.sampled_from([False, False, True]))
    @precondition(lambda self: not self.is_closed and self.deferreds)
    def answer(self, data: st.DataObject, multiple: bool, nack: bool) -> None:
        tag = data.draw(st.integers(0 if multiple else 1, len(self.deferreds)), label="tag")
        del self.order[:]
        last_before = len(self.deferreds)
        self.model.answer(tag, multiple, nack)
        (self.ledger.nacked if nack else self.ledger.acked)(tag, multiple)
        answered = [t for t in self.order if t <= last_before and self.results[t - 1] != ["cancelled"]]
        # A callback that closes the channel ends the others before the rest of the frame is looked at.
        assert self.is_closed or answered == sorted(answered), f"out of order: {answered}"

    @rule(data=st.data())
    @precondition(lambda self: not self.is_closed)
    def give_back(self, data: st.DataObject) -> None:
        candidates = [e for e in self.model.entries if e.message_id is not None and not e.is_answered]
        if candidates:
            entry = data.draw(st.sampled_from(candidates), label="returned")
            properties = BasicProperties(message_id=entry.message_id)
            message = ReturnedMessage(312, "NO_ROUTE", "x", "k", properties, entry.body)
            assert self.ledger.returned(message) == self.model.return_(entry)

    @rule(data=st.data())
    @precondition(lambda self: self.deferreds)
    def cancel(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.deferreds) - 1), label="index")
        entry = self.model.entries[index]
        entry.outcome = entry.outcome or "cancelled"
        self.deferreds[index].cancel()

    @rule(ticks=st.sampled_from([1, 1, 3, 32]))
    def wait(self, ticks: int) -> None:
        for _ in range(ticks):
            self.clock.advance(1)
            for entry, results in zip(self.model.entries, self.results, strict=True):
                age = self.clock.seconds() - entry.made
                # Between the limit and a second later either is right.
                is_late = age > LIMIT + 1 or (age >= LIMIT and results == ["timed out"])
                if is_late and not entry.outcome:
                    entry.outcome = "timed out"

    @rule()
    @precondition(lambda self: not self.is_closed)
    def close(self) -> None:
        self.model.close()
        self.close_ledger()

    @rule()
    @precondition(lambda self: self.is_closed)
    def reopen(self) -> None:
        self.is_closed = False
        self.open_channel()

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def outcomes_are_the_models(self) -> None:
        """R1, R2, R5, R8: each publish has the outcome that is due, once, or none yet."""
        for tag, (entry, results) in enumerate(zip(self.model.entries, self.results, strict=True), 1):
            expected = [entry.outcome] if entry.outcome else []
            assert results == expected, f"publish {tag}: {results}, expected {expected}"
        assert self.is_closed == self.model.is_closed

    @invariant()
    def the_count_is_right(self) -> None:
        """R31: what is kept is what the broker still has to answer."""
        pending = [] if self.is_closed else [t for t, e in enumerate(self.model.entries, 1) if not e.is_answered]
        assert list(self.ledger.pending) == pending

    def teardown(self) -> None:
        """R2, R28: at the end nothing is unfired and no timer is left."""
        self.model.close()
        self.close_ledger()
        for model, all_results in self.epochs:
            for entry, results in zip(model.entries, all_results, strict=True):
                assert results == [entry.outcome]
                assert entry.outcome
        assert not self.clock.getDelayedCalls()


TestConfirms = ConfirmMachine.TestCase
TestConfirms.settings = settings(max_examples=max(150, settings().max_examples), stateful_step_count=40)

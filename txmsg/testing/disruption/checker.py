"""The queue checker: what publishers were told against what consumers got (the checker of Jepsen's queue tests).

    checker = QueueChecker("F1 crash", seed=7)
    message_id = checker.attempt("publisher-1")
    checker.publishing(message_id, channel.basic_publish("", "jobs", message_id.encode()))
    ...
    checker.handled(delivery.body.decode())
    checker.report().check()

With P publishers and C consumers, on any transport and with any client: messages are known by their ids only.
Invariants: a confirmed message is handled or drained in the end (R1); what is handled was sent, and nobody was told
that it was not (R2); the first handlings of one publisher's messages are in the order of its publishes (R4).

RabbitMQ keeps order from one channel through one exchange and queue to one consumer
(https://www.rabbitmq.com/docs/semantics); with several consumers of a queue each consumer's own order is looked at,
and redelivered messages are left out of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.errors import (
    ConfigurationError,
    EncodeError,
    NotSent,
    Overloaded,
    PublishNacked,
    PublishReturned,
    TxmsgError,
    WrongThread,
    clip,
)
from txmsg.testing.disruption.report import Report, Timing

__all__ = ["DRAINED", "Ending", "QueueChecker", "ending_of"]

_T = TypeVar("_T")

#: How a publish ends, as the publisher is told.
Ending = Literal["confirmed", "returned", "nacked", "unconfirmed", "not_sent", "untyped"]

#: The consumer that :meth:`QueueChecker.drained` stands for.
DRAINED: Final = "drained"

_EXAMPLES: Final = 20

#: After these no octet has left.
_NOTHING_SENT: Final = (NotSent, Overloaded, ConfigurationError, EncodeError, WrongThread)


def ending_of(error: BaseException) -> Ending:
    """What an error says about the publish it ended (R2): each class stands for one fact.

    A closed channel or connection, a deadline and whatever else leave open whether the broker has the message.
    """
    if isinstance(error, PublishReturned):
        return "returned"
    if isinstance(error, PublishNacked):
        return "nacked"
    if isinstance(error, _NOTHING_SENT):
        return "not_sent"
    return "unconfirmed" if isinstance(error, TxmsgError) else "untyped"


class QueueChecker:
    """Counts for one run.

    fault: str; seed; client: str -- for the report.
    """

    def __init__(self, fault: str, *, seed: int | str | None = None, client: str = "txmsg") -> None:
        self._fault = fault
        self._seed = seed
        self._client = client
        #: id -> (publisher, number).
        self._attempts: dict[str, tuple[str, int]] = {}
        self._numbers: dict[str, int] = {}
        self._endings: dict[str, Ending] = {}
        #: In the order of the handlings: (id, consumer, queue, redelivered).
        self._handled: list[tuple[str, str, str, bool]] = []
        self._detections: list[float] = []
        self._recoveries: list[float] = []
        self._unfired = 0
        self._errors: list[str] = []
        self._secrets: list[str] = []
        self._measures: dict[str, Any] = {}
        self._extra: dict[str, Any] = {}

    # -- publishers --------------------------------------------------------------------------------

    def attempt(self, publisher: str = "publisher") -> str:
        """A message is about to be published; its id: "publisher-17", unique in this run."""
        number = self._numbers[publisher] = self._numbers.get(publisher, 0) + 1
        message_id = f"{publisher}-{number}"
        if message_id in self._attempts:
            raise ConfigurationError(f"two publishers make the id {clip(message_id)!r}")
        self._attempts[message_id] = (publisher, number)
        return message_id

    def ended(self, message_id: str, ending: Ending) -> None:
        """The publish has ended so.  ConfigurationError for a second ending, or an id that was never attempted."""
        if message_id not in self._attempts:
            raise ConfigurationError(f"{clip(message_id)!r} was never attempted")
        known = self._endings.setdefault(message_id, ending)
        if known != ending:
            raise ConfigurationError(f"the publish of {clip(message_id)!r} ended twice: {known}, {ending}")

    def publishing(self, message_id: str, deferred: Deferred[_T]) -> Deferred[bool]:
        """Note how `deferred`, of its publish, ends; fires with whether it was confirmed, and never fails."""

        def succeeded(_: _T) -> bool:
            self.ended(message_id, "confirmed")
            return True

        def failed(failure: Failure) -> bool:
            error = failure.value
            assert error is not None
            self.ended(message_id, ending_of(error))
            return False

        return deferred.addCallbacks(succeeded, failed)

    # -- consumers ---------------------------------------------------------------------------------

    def handled(
        self, message_id: str, *, consumer: str = "consumer", queue: str = "", redelivered: bool = False
    ) -> None:
        """A handler was given the message."""
        self._handled.append((message_id, consumer, queue, redelivered))

    def drained(self, message_ids: Iterable[str], *, queue: str = "") -> None:
        """These were still in the queue at the end, in this order."""
        self._handled += [(message_id, DRAINED, queue, False) for message_id in message_ids]

    # -- what else was seen ------------------------------------------------------------------------

    def detected(self, seconds: float) -> None:
        """A fault was noticed after so long."""
        self._detections.append(seconds)

    def recovered(self, seconds: float) -> None:
        """Everything worked again after so long."""
        self._recoveries.append(seconds)

    def unfired(self, count: int) -> None:
        """So many other Deferreds have not fired."""
        self._unfired += count

    def unhandled_error(self, text: str) -> None:
        """An error was in the log that nobody handled."""
        self._errors.append(clip(text))

    def secret_seen(self, where: str) -> None:
        """A secret was in the log, or wherever else it must not be; say where, not what."""
        self._secrets.append(clip(where))

    def measured(self, *, peak_rss: int | None = None, longest_stall: float | None = None, **extra: Any) -> None:
        """Figures of the process: octets, seconds, and whatever JSON can carry."""
        given = {"peak_rss": peak_rss, "longest_stall": longest_stall}
        self._measures.update({name: value for name, value in given.items() if value is not None})
        self._extra.update(extra)

    # -- the verdict -------------------------------------------------------------------------------

    def report(self) -> Report:
        """The counts as they are now."""
        endings = self._endings
        confirmed = {message_id for message_id, ending in endings.items() if ending == "confirmed"}
        handled = {message_id for message_id, *_ in self._handled}
        denied = {message_id for message_id, ending in endings.items() if ending in ("not_sent", "returned")}
        pending = [message_id for message_id in self._attempts if message_id not in endings]
        found = {
            "lost": self._sorted(confirmed - handled),
            "unexpected": sorted(handled - self._attempts.keys()),
            "contradicted": self._sorted(handled & denied),
            "order_violations": self._order_violations(),
            "unfired": pending,
            "untyped": [message_id for message_id, ending in endings.items() if ending == "untyped"],
            "unhandled_errors": self._errors,
            "secrets": self._secrets,
        }
        counts = {name: len(ids) for name, ids in found.items()}
        counts["unfired"] += self._unfired
        for ending in ("confirmed", "returned", "nacked", "unconfirmed", "not_sent"):
            counts[ending] = sum(each == ending for each in endings.values())
        return Report(
            fault=self._fault,
            seed=self._seed,
            client=self._client,
            sent=len(self._attempts),
            handled=len(handled),
            deliveries=len(self._handled),
            duplicates=len(self._handled) - len(handled),
            recovered=len((handled & self._attempts.keys()) - confirmed),
            detection=Timing.of(self._detections),
            recovery=Timing.of(self._recoveries),
            examples={name: [clip(each) for each in ids[:_EXAMPLES]] for name, ids in found.items() if ids},
            extra=dict(self._extra),
            **self._measures,
            **counts,
        )

    def _sorted(self, message_ids: Iterable[str]) -> list[str]:
        return sorted(message_ids, key=lambda each: self._attempts[each])

    def _order_violations(self) -> list[str]:
        """The messages that were first handled behind a later one of the same publisher."""
        consumers: dict[str, set[str]] = {}
        for _, consumer, queue, _ in self._handled:
            if consumer != DRAINED:
                consumers.setdefault(queue, set()).add(consumer)
        highest: dict[tuple[str, str, str], int] = {}
        seen: set[tuple[str, str]] = set()
        found = []
        for message_id, consumer, queue, redelivered in self._handled:
            known = self._attempts.get(message_id)
            if known is None or (queue, message_id) in seen:
                continue
            seen.add((queue, message_id))
            publisher, number = known
            are_several = len(consumers.get(queue, ())) > 1
            if are_several and redelivered:
                continue
            stream = (publisher, queue, consumer if are_several else "")
            if number < highest.get(stream, 0):
                found.append(message_id)
            else:
                highest[stream] = number
        return found

    def __repr__(self) -> str:
        return f"<QueueChecker of {clip(self._fault)}: {len(self._attempts)} sent, {len(self._handled)} deliveries>"

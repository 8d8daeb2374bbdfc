"""The report of a run under a fault: what was sent and what became of it, as one JSON line and one table row.

reliability: `lost`, `unexpected`, `contradicted`, `order_violations`, `unfired`, `untyped`, `unhandled_errors` and
`secrets` must be 0 whatever went wrong; duplicates and recovered messages are what at-least-once allows, and counted.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any, Final

__all__ = ["MUST_BE_ZERO", "Report", "Timing", "table"]

#: What no run may have, in the order of the line.
MUST_BE_ZERO: Final = (
    "lost",
    "unexpected",
    "contradicted",
    "order_violations",
    "unfired",
    "untyped",
    "unhandled_errors",
    "secrets",
)

_SHOWN: Final = 5


@dataclass(frozen=True)
class Timing:
    """How long something took, each time it happened.

    count: int.   p50, max: float | None -- in seconds; None if it did not happen.
    """

    count: int = 0
    p50: float | None = None
    max: float | None = None

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Timing:
        """Of these durations."""
        if not seconds:
            return cls()
        return cls(len(seconds), round(median(seconds), 6), round(max(seconds), 6))

    def __str__(self) -> str:
        return "-" if self.p50 is None or self.max is None else f"{self.p50:.3g}/{self.max:.3g}"


@dataclass(frozen=True)
class Report:
    """One run.

    fault: str -- what went wrong: "F4 rst to_broker 311".   seed: int | str | None -- that makes it again.
    client: str -- which client ran: "txmsg", "pika" ...
    sent: int -- publishes that were attempted.
    confirmed, returned, nacked, unconfirmed, not_sent: int -- how they ended, as the publisher was told.
    unfired: int -- publishes (and other Deferreds) that did not end.
    untyped: int -- those that ended with an error that is none of txmsg's.
    handled: int -- different messages that were handled or drained.
    deliveries: int -- all of them, duplicates too.
    lost: int -- confirmed, and never handled.
    unexpected: int -- handled, and never sent.
    contradicted: int -- handled, although the publisher was told that it was not sent, or returned.
    duplicates: int -- handled again.
    recovered: int -- handled, although not confirmed.
    order_violations: int -- handled for the first time behind a later message of the same publisher.
    unhandled_errors, secrets: int -- in the log.
    detection, recovery: Timing -- until a fault was noticed, until everything worked again.
    peak_rss: int | None -- octets.   longest_stall: float | None -- seconds in which the reactor did nothing else.
    examples: dict -- a few ids for each of the counts that must be 0.
    extra: dict -- whatever else was measured.
    """

    fault: str
    seed: int | str | None = None
    client: str = "txmsg"
    sent: int = 0
    confirmed: int = 0
    returned: int = 0
    nacked: int = 0
    unconfirmed: int = 0
    not_sent: int = 0
    unfired: int = 0
    untyped: int = 0
    handled: int = 0
    deliveries: int = 0
    lost: int = 0
    unexpected: int = 0
    contradicted: int = 0
    duplicates: int = 0
    recovered: int = 0
    order_violations: int = 0
    unhandled_errors: int = 0
    secrets: int = 0
    detection: Timing = field(default_factory=Timing)
    recovery: Timing = field(default_factory=Timing)
    peak_rss: int | None = None
    longest_stall: float | None = None
    examples: dict[str, list[str]] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """Whether everything that must be 0 is."""
        return not any(getattr(self, name) for name in MUST_BE_ZERO)

    def problems(self) -> list[str]:
        """What must be 0 and is not, with a few examples each."""
        found = []
        for name in MUST_BE_ZERO:
            count = getattr(self, name)
            if count:
                some = self.examples.get(name, [])[:_SHOWN]
                found.append(f"{name} = {count}" + (f": {', '.join(some)}" if some else ""))
        return found

    def check(self) -> None:
        """AssertionError with all problems, the fault and the seed; nothing if the run is good."""
        problems = self.problems()
        if problems:
            raise AssertionError(f"{self.fault} (seed {self.seed!r}): " + "; ".join(problems))

    def as_json(self) -> str:
        """One line: an object with all fields, in their order, `is_good` last."""
        return json.dumps(asdict(self) | {"is_good": self.is_good}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Report:
        """The report in a line that :meth:`as_json` made; what it does not know is left out."""
        found: dict[str, Any] = json.loads(line)
        known = {each.name: found[each.name] for each in fields(cls) if each.name in found}
        for name in ("detection", "recovery"):
            if name in known:
                known[name] = Timing(**known[name])
        return cls(**known)

    def row(self) -> str:
        """A row of :func:`table`."""
        return "| " + " | ".join(shown(self) for _, shown in _COLUMNS) + " |"


def _shown(name: str) -> Any:
    return lambda report: str(getattr(report, name))


_COLUMNS: Final[tuple[tuple[str, Any], ...]] = (
    ("fault", lambda report: report.fault.replace("|", "/")),
    ("client", _shown("client")),
    *(
        (name.replace("_", " "), _shown(name))
        for name in ("sent", "confirmed", "returned", "nacked", "unconfirmed", "not_sent", "handled", "lost")
    ),
    ("unexpected", lambda report: str(report.unexpected + report.contradicted)),
    *((name.replace("_", " "), _shown(name)) for name in ("duplicates", "order_violations", "unfired")),
    ("detection p50/max s", lambda report: str(report.detection)),
    ("recovery p50/max s", lambda report: str(report.recovery)),
    ("peak RSS MiB", lambda report: "-" if report.peak_rss is None else f"{report.peak_rss / 2**20:.0f}"),
    ("longest stall ms", lambda report: "-" if report.longest_stall is None else f"{report.longest_stall * 1000:.0f}"),
    ("seed", lambda report: "-" if report.seed is None else str(report.seed)),
)


def table(reports: Sequence[Report]) -> str:
    """The reports as a Markdown table."""
    head = "| " + " | ".join(name for name, _ in _COLUMNS) + " |"
    rule = "|" + " --- |" * len(_COLUMNS)
    return "\n".join([head, rule, *(report.row() for report in reports)]) + "\n"

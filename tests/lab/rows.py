"""The rows of the lab: which fault, on which harness, how it is run and what it must reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace

from txmsg.testing.disruption import Report, Timing

__all__ = ["ROWS", "Harness", "Row", "Tally", "chosen", "order_of", "row"]

#: SIM: the simulator.  PROXY: the proxy before RabbitMQ.  REAL: one RabbitMQ node.  CLUSTER: three.
Harness = str

#: From (is_long, client) to what happened.
Run = Callable[[bool, str], Report]


@dataclass(frozen=True)
class Row:
    """One row.

    fault: str -- "F1".   harness: Harness.   title: str.
    promise: str -- the figures that the row asserts besides what must always be 0; they are in the page.
    run(is_long, client) -- runs it; AssertionError when a promise is not kept.
    is_quick: bool -- part of `make lab` without LONG=1.   clients -- which run it.   limit: seconds it may take.
    """

    fault: str
    harness: Harness
    title: str
    promise: str
    run: Run
    is_quick: bool = True
    clients: tuple[str, ...] = ("txmsg",)
    limit: float = 300.0

    @property
    def name(self) -> str:
        """How it is chosen: "F1:SIM"."""
        return f"{self.fault}:{self.harness}"


#: All of them, by name.
ROWS: dict[str, Row] = {}


def row(
    fault: str,
    harness: Harness,
    title: str,
    promise: str = "",
    *,
    is_quick: bool = True,
    clients: tuple[str, ...] = ("txmsg",),
    limit: float = 300.0,
) -> Callable[[Run], Run]:
    """Make a row of a function."""

    def made(run: Run) -> Run:
        each = Row(fault, harness, title, promise, run, is_quick, clients, limit)
        assert each.name not in ROWS, f"two rows are called {each.name}"
        ROWS[each.name] = each
        return run

    return made


def order_of(name: str) -> tuple[str, int, str, int]:
    """For sorting: by the letter and the number of the fault, then by the harness."""
    fault, _, harness = name.partition(":")
    number = re.search(r"\d+", fault)
    harnesses = ["SIM", "PROXY", "REAL", "CLUSTER"]
    found = harnesses.index(harness) if harness in harnesses else len(harnesses)
    return fault[:1], int(number.group()) if number else 0, fault, found


def chosen(names: Iterable[str], is_long: bool) -> list[Row]:
    """The rows of these names or faults; none named: the quick ones, or all.  KeyError for an unknown one."""
    wanted = list(names)
    if not wanted:
        found = [each for each in ROWS.values() if each.is_quick or is_long]
    else:
        found = [each for each in ROWS.values() if each.name in wanted or each.fault in wanted]
        unknown = [name for name in wanted if not any(name in (each.name, each.fault) for each in found)]
        if unknown:
            raise KeyError(f"there is no row {', '.join(unknown)}")
    return sorted(found, key=lambda each: order_of(each.name))


class Tally:
    """The sum of many runs with one fault.

    cases: int.   detections, recoveries: list of float -- all of them.
    """

    _SUMS = tuple(
        each.name for each in fields(Report) if each.type == "int" and each.name not in ("peak_rss", "longest_stall")
    )

    def __init__(self) -> None:
        self.cases = 0
        self.detections: list[float] = []
        self.recoveries: list[float] = []
        self._sum: Report | None = None
        self._examples: dict[str, list[str]] = {}

    def add(self, report: Report) -> None:
        """One run more; AssertionError, with its seed, if something is not 0 that must be."""
        report.check()
        self.cases += 1
        if self._sum is None:
            self._sum = report
        else:
            sums = {name: getattr(self._sum, name) + getattr(report, name) for name in self._SUMS}
            self._sum = replace(self._sum, **sums)

    def report(self, seed: int | str | None = None, **extra: object) -> Report:
        """The sum."""
        assert self._sum is not None, "no case was run"
        return replace(
            self._sum,
            seed=seed,
            detection=Timing.of(self.detections),
            recovery=Timing.of(self.recoveries),
            extra={"cases": self.cases} | extra,
        )

"""From measured runs to rows, ratios and the verdict on each target."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from benchmarks.plan import OPERATIONS, SIZES

__all__ = ["Row", "Target", "load_rows", "rows_of", "save_rows", "spread_of", "targets_of"]

OURS = "txmsg"
PIKA = "pika-twisted"
C_CLIENT = "rabbitmq-c"


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement, or the medians over all rounds of one (client, operation, size).

    :ivar size: bytes of a message's body.
    :ivar rate_per_s: messages per second of wall time.
    :ivar cpu_us_per_message: user and system time of the client's process, in microseconds.
    """

    client: str
    operation: str
    size: int
    rate_per_s: float
    cpu_us_per_message: float


@dataclass(frozen=True, slots=True)
class Target:
    """One thing to reach: `value` is to be at most, or at least, `bound`."""

    text: str
    value: float
    bound: float
    at_most: bool

    @property
    def is_met(self) -> bool:
        """Whether it was reached, without any tolerance."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    @property
    def verdict(self) -> str:
        """The value beside the bound, in words."""
        relation = "<=" if self.at_most else ">="
        return f"{self.value:.2f} (wanted {relation} {self.bound:.2f})"


def rows_of(runs: Iterable[Row]) -> list[Row]:
    """The medians, in the order in which (operation, size, client) first appeared."""
    groups: dict[tuple[str, int, str], list[Row]] = {}
    for run in runs:
        groups.setdefault((run.operation, run.size, run.client), []).append(run)
    return [
        Row(
            client,
            operation,
            size,
            round(median(run.rate_per_s for run in group), 1),
            round(median(run.cpu_us_per_message for run in group), 3),
        )
        for (operation, size, client), group in groups.items()
    ]


def spread_of(runs: Iterable[Row], row: Row) -> float:
    """How far apart the rounds of a row were: (highest - lowest) / median of the rate."""
    key = (row.client, row.operation, row.size)
    rates = [run.rate_per_s for run in runs if (run.client, run.operation, run.size) == key]
    return (max(rates) - min(rates)) / row.rate_per_s


def save_rows(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list, one row a line."""
    lines = ",\n".join("  " + json.dumps(asdict(row)) for row in rows)
    path.write_text(f"[\n{lines}\n]\n")


def load_rows(path: Path) -> list[Row]:
    """Read what `save_rows` wrote."""
    return [Row(**values) for values in json.loads(path.read_text())]


class _Table:
    """Rows by (client, operation, size)."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = {(row.client, row.operation, row.size): row for row in rows}

    def both(self, other: str, operation: str, size: int) -> tuple[Row, Row] | None:
        ours, theirs = self.rows.get((OURS, operation, size)), self.rows.get((other, operation, size))
        return (ours, theirs) if ours and theirs else None

    def best_peer(self, operation: str, size: int) -> Row | None:
        peers = [
            row
            for (client, name, bytes_), row in self.rows.items()
            if client not in (OURS, C_CLIENT) and (name, bytes_) == (operation, size)
        ]
        return max(peers, key=lambda row: row.rate_per_s, default=None)


def targets_of(rows: Sequence[Row]) -> list[Target]:
    """The targets of the project that these rows can judge, in the order of the tables."""
    table = _Table(rows)
    small, large = SIZES
    targets: list[Target] = []

    def cpu(operation: str, size: int, parts: int) -> None:
        if pair := table.both(PIKA, operation, size):
            ratio = pair[0].cpu_us_per_message / pair[1].cpu_us_per_message
            text = f"{operation}, {size} B: CPU per message, of {PIKA}'s"
            targets.append(Target(text, ratio, 1 / parts, at_most=True))

    def rate(operation: str, size: int, other: str, bound: float) -> None:
        if pair := table.both(other, operation, size):
            ratio = pair[0].rate_per_s / pair[1].rate_per_s
            targets.append(Target(f"{operation}, {size} B: rate, of {other}'s", ratio, bound, at_most=False))

    cpu("publish", small, 6)
    cpu("publish-confirmed", small, 4)
    for operation in ("consume-ack", "consume-no-ack"):
        cpu(operation, small, 3)
    for operation in OPERATIONS:
        if operation != "consume-ack-1000":
            cpu(operation, large, 3)
    rate("consume-ack", small, PIKA, 1.5)
    for operation in OPERATIONS:
        for size in SIZES:
            peer = table.best_peer(operation, size)
            ours = table.rows.get((OURS, operation, size))
            if peer and ours:
                text = f"{operation}, {size} B: rate, of the fastest Python peer's ({peer.client})"
                targets.append(Target(text, ours.rate_per_s / peer.rate_per_s, 1.0, at_most=False))
    for size in SIZES:
        rate("publish", size, C_CLIENT, 0.9)
        rate("publish-confirmed", size, C_CLIENT, 0.9)
        rate("consume-ack", size, C_CLIENT, 1.1)
        rate("consume-ack-1000", size, C_CLIENT, 1.1)
    return targets

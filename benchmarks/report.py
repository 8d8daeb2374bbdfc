"""The tables: for the terminal and for docs/benchmarks.md (the same text, which is Markdown)."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.plan import CLIENTS, OPERATIONS
from benchmarks.results import OURS, Row, Target, spread_of

__all__ = ["DOCS", "environment_lines", "replace_block", "result_tables", "target_table"]

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs" / "benchmarks.md"


def replace_block(path: Path, name: str, text: str) -> None:
    """Replace what stands between the two comments that mark the generated block `name`.

    :raises ValueError: if the page has no such block.
    """
    begin, end = f"<!-- begin {name}: generated -->", f"<!-- end {name} -->"
    page = path.read_text()
    if begin not in page or end not in page:
        raise ValueError(f"{path} has no block {name!r}")
    before, rest = page.split(begin, 1)
    after = rest.split(end, 1)[1]
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def environment_lines(broker: str, c_version: str | None, rounds: int) -> str:
    """What the numbers were measured with, as a Markdown list."""
    versions = [f"{name} {_version(name)}" for name in _distributions()]
    if c_version is not None:
        versions.append(f"rabbitmq-c {c_version}")
    python = f"{platform.python_implementation()} {platform.python_version()}"
    lines = [
        f"broker: {broker}, on the same machine over loopback",
        f"clients: {', '.join(versions)}",
        f"{python}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores ({_processor()})",
        f"{rounds} rounds; every number is the median of the rounds",
    ]
    return "\n".join(f"- {line}" for line in lines)


def result_tables(rows: Sequence[Row], runs: Sequence[Row]) -> str:
    """One table per operation and size, each client beside txmsg."""
    tables = []
    for operation, size in dict.fromkeys((row.operation, row.size) for row in rows):
        chosen = [row for row in rows if (row.operation, row.size) == (operation, size)]
        ours = next((row for row in chosen if row.client == OURS), None)
        body = [
            (
                row.client,
                f"{row.rate_per_s:,.0f}",
                _ratio(row.rate_per_s, ours.rate_per_s if ours else None),
                f"{row.cpu_us_per_message:.2f}",
                _ratio(row.cpu_us_per_message, ours.cpu_us_per_message if ours else None),
                f"{100 * spread_of(runs, row):.0f} %",
            )
            for row in chosen
        ]
        head = ("client", "messages/s", "x txmsg", "CPU us/message", "x txmsg", "spread")
        tables.append(f"### {OPERATIONS[operation].title}, {_bytes(size)}\n\n{_table(head, body)}")
    return "\n\n".join(tables)


def target_table(targets: Sequence[Target]) -> str:
    """Each target with its value and whether it was met."""
    body = [(target.text, target.verdict, "met" if target.is_met else "**not met**") for target in targets]
    met = sum(target.is_met for target in targets)
    return f"{_table(('target', 'value', ''), body, numbers=False)}\n\n{met} of {len(targets)} met."


def _ratio(value: float, ours: float | None) -> str:
    return f"{value / ours:.2f}" if ours else "-"


def _bytes(size: int) -> str:
    return f"{size // 1024} KiB" if size % 1024 == 0 else f"{size} B"


def _table(head: Sequence[str], body: Iterable[Sequence[str]], *, numbers: bool = True) -> str:
    """A Markdown table whose columns are aligned in the source too."""
    lines = [list(head), *(list(row) for row in body)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

    def text(line: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if numbers and column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return f"| {' | '.join(cells)} |"

    rule = ["-" * (width - 1) + ":" if numbers and column else "-" * width for column, width in enumerate(widths)]
    return "\n".join([text(lines[0]), text(rule), *(text(line) for line in lines[1:])])


def _distributions() -> list[str]:
    names = [client.distribution for client in CLIENTS.values() if client.module and client.is_installed]
    return list(dict.fromkeys([*names[:1], "Twisted", *names[1:]]))


def _version(distribution: str) -> str:
    if distribution == "txmsg":
        import txmsg

        return txmsg.__version__
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "?"


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    found: Mapping[str, str] = {}
    if cpuinfo.exists():
        found = dict(
            [part.strip() for part in line.split(":", 1)] for line in cpuinfo.read_text().splitlines() if ":" in line
        )
    return found.get("model name", platform.processor() or sys.platform)

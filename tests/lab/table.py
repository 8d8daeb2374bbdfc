"""The table of docs/reliability.md, made of the lines in docs/reliability.jsonl, which the lab writes.

python -m tests.lab.table           make the table anew
python -m tests.lab.table --check   exit status 1 if the page is not what the lines say
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.lab.catalogue import ROWS
from tests.lab.rows import order_of
from txmsg.testing.disruption import Report

__all__ = ["LINES", "PAGE", "main", "merged", "page_with", "read_lines", "table_of", "write"]

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reliability.md"
LINES = ROOT / "docs" / "reliability.jsonl"

BEGIN = "<!-- the lab's table begins: made by `make lab`, do not edit -->"
END = "<!-- the lab's table ends -->"

_COUNTS = ("sent", "confirmed", "returned", "nacked", "unconfirmed", "not_sent", "handled", "lost", "duplicates")


def read_lines(path: Path = LINES) -> list[Report]:
    """The reports of the file; none if there is no file."""
    if not path.exists():
        return []
    return [Report.from_json(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _key(report: Report) -> tuple[str, str]:
    return f"{report.fault}:{report.extra.get('harness', '')}", report.client


def merged(old: Iterable[Report], new: Iterable[Report]) -> list[Report]:
    """The old reports with the new ones in their places, sorted by fault, harness and client."""
    found = {_key(report): report for report in (*old, *new)}
    return [found[key] for key in sorted(found, key=lambda key: (order_of(key[0]), key[1] != "txmsg", key[1]))]


def _timing(report: Report, name: str) -> str:
    timing = getattr(report, name)
    return "-" if timing.p50 is None else f"{timing.p50:.2f} / {timing.max:.2f}"


def _figures(report: Report) -> str:
    shown = {name: value for name, value in report.extra.items() if name not in ("harness", "cases", "row")}
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in shown.items())


def _cells(report: Report) -> list[str]:
    row = ROWS.get(f"{report.fault}:{report.extra.get('harness')}")
    is_txmsg = report.client == "txmsg"
    peak = "-" if report.peak_rss is None else f"{report.peak_rss / 2**20:.0f}"
    stall = "-" if report.longest_stall is None else f"{report.longest_stall * 1000:.0f}"
    return [
        f"**{report.fault}** {row.title if row is not None and is_txmsg else ''}".strip(),
        str(report.extra.get("harness", "-")),
        report.client,
        str(report.extra.get("cases", 1)),
        *(str(getattr(report, name)) for name in _COUNTS),
        str(report.order_violations),
        _timing(report, "detection"),
        _timing(report, "recovery"),
        peak,
        stall,
        "-" if report.seed is None else str(report.seed),
        _figures(report),
    ]


def table_of(reports: Sequence[Report]) -> str:
    """The table in Markdown."""
    head = [
        "fault", "harness", "client", "runs", *(name.replace("_", " ") for name in _COUNTS), "order violations",
        "detection p50 / max s", "recovery p50 / max s", "peak RSS MiB", "longest stall ms", "seeds", "figures",
    ]  # fmt: skip
    lines = [head, ["---"] * len(head), *(_cells(report) for report in reports)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def promises() -> str:
    """What each row asserts, besides what must be 0, in Markdown."""
    lines = ["| row | fault | asserted | quick |", "| --- | --- | --- | --- |"]
    for name in sorted(ROWS, key=order_of):
        row = ROWS[name]
        lines.append(f"| `{name}` | {row.title} | {row.promise or 'nothing more'} | {'yes' if row.is_quick else ''} |")
    return "\n".join(lines)


def page_with(page: str, reports: Sequence[Report]) -> str:
    """The page with the tables in it."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    middle = f"\n\n{table_of(reports)}\n\n## What each row asserts\n\n{promises()}\n\n"
    return f"{before}{BEGIN}{middle}{END}{after}"


def write(new: Iterable[Report]) -> None:
    """Put new lines in the places of old ones, and make the table anew."""
    reports = merged(read_lines(), new)
    LINES.write_text("".join(report.as_json() + "\n" for report in reports), encoding="utf-8")
    PAGE.write_text(page_with(PAGE.read_text(encoding="utf-8"), reports), encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Make the table, or check it."""
    if "--check" in arguments:
        page = PAGE.read_text(encoding="utf-8")
        return int(page != page_with(page, read_lines()))
    write([])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The page of the lab: its table is what the lines say."""

from __future__ import annotations

from tests.lab.table import LINES, PAGE, merged, page_with, read_lines, table_of
from txmsg.testing.disruption import Report
from txmsg.testing.disruption.report import Timing


def test_the_page_is_made_of_the_lines() -> None:
    """`python -m tests.lab.table` makes it anew."""
    assert PAGE.read_text(encoding="utf-8") == page_with(PAGE.read_text(encoding="utf-8"), read_lines(LINES))


def test_each_line_of_ours_is_good() -> None:
    """R1 to R4: nothing is on the page that breaks a promise."""
    for report in read_lines():
        if report.client == "txmsg":
            report.check()


def test_merged() -> None:
    def made(fault: str, harness: str, client: str = "txmsg", sent: int = 1) -> Report:
        return Report(fault, client=client, sent=sent, extra={"harness": harness})

    old = [made("F10", "SIM"), made("F2", "REAL"), made("F2", "REAL", "pika")]
    found = merged(old, [made("F2", "SIM"), made("F10", "SIM", sent=2)])
    assert [(each.fault, each.extra["harness"], each.client, each.sent) for each in found] == [
        ("F2", "SIM", "txmsg", 1),
        ("F2", "REAL", "txmsg", 1),
        ("F2", "REAL", "pika", 1),
        ("F10", "SIM", "txmsg", 2),
    ]


def test_a_row_of_the_table() -> None:
    report = Report(
        "F1", seed=3, sent=5, detection=Timing(1, 0.5, 0.5), peak_rss=2**20, extra={"harness": "SIM", "a_b": 1}
    )
    last = table_of([report]).splitlines()[-1]
    assert "| SIM | txmsg | 1 | 5 |" in last
    assert "0.50 / 0.50" in last
    assert last.endswith("| 1 | - | 3 | a b 1 |")

"""No example is forgotten."""

from __future__ import annotations

import re

from tests.source import ROOT

#: Redis, Redis Sentinel, SQS, what only polling transports have, and the semaphore of Kombu's own event loop.
NOT_HERE = {32, 34, 35, 44, 45, 46, 49}


def test_each_is_a_test() -> None:
    """Each of the 51 is named by a test, but for those that need what is not here."""
    found = set[int]()
    for path in (ROOT / "tests").rglob("test_*.py"):
        found |= {int(number) for number in re.findall(r'""".*\b[Ee]xample (\d+)\b', path.read_text(encoding="utf-8"))}
    assert found == set(range(1, 52)) - NOT_HERE

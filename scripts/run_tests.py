"""Run the whole test suite: on the default reactor with branch coverage, then what uses the reactor on others.

The last line sums up all runs.  The exit status is 0 if every run and the coverage limit were met.
Arguments are handed to every pytest run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent

#: The tests that are run again on the other reactors: those where the reactor makes a difference.
REACTOR_TESTS = ["tests/amqp", "tests/conformance", "tests/test_scripted.py"]
OTHER_REACTORS = ["asyncio", "poll", "select"]


def run_pytest(command: list[str], arguments: list[str], reactor: str) -> tuple[int, Counter[str]]:
    """One pytest run; its exit status and how many tests ended how."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        print(f"\n--- {reactor} reactor", flush=True)
        done = subprocess.run(
            [*command, *arguments, f"--junit-xml={report}"],
            cwd=ROOT,
            env=os.environ | {"TXMSG_TEST_REACTOR": reactor},
            check=False,
        )
        counts: Counter[str] = Counter()
        if report.exists():
            for suite in ElementTree.parse(report).getroot().iter("testsuite"):
                total, failures, errors, skipped = (
                    int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
                )
                counts += Counter(passed=total - failures - errors - skipped, failed=failures + errors, skipped=skipped)
    return done.returncode, counts


def main(arguments: list[str]) -> int:
    """Run everything."""
    started = time.monotonic()
    python = sys.executable
    problems: list[str] = []

    subprocess.run([python, "-m", "coverage", "erase"], cwd=ROOT, check=True)
    measured = [python, "-m", "coverage", "run", "-m", "pytest"]
    status, counts = run_pytest(measured, arguments, "default")
    if status:
        problems.append(f"tests on the default reactor (pytest exit status {status})")
    subprocess.run([python, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
    if subprocess.run([python, "-m", "coverage", "report"], cwd=ROOT, check=False).returncode:
        problems.append("coverage")

    existing = [path for path in REACTOR_TESTS if (ROOT / path).exists()]
    for reactor in OTHER_REACTORS:
        status, more = run_pytest([python, "-m", "pytest", "--quiet", *existing], arguments, reactor)
        counts += more
        if status:
            problems.append(f"tests on the {reactor} reactor (pytest exit status {status})")

    for problem in problems:
        print(f"FAILED: {problem}")
    print(
        f"==== {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        f" in {time.monotonic() - started:.0f}s ===="
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

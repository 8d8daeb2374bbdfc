"""Run the whole test suite: on the default reactor with branch coverage, then what uses the reactor on others.

Two lanes run beside each other, because a test run mostly waits for clocks, processes and brokers: the default
reactor in one, the other reactors one after the other in the second.  What a run of the second lane printed is shown
when it is done.  The last line sums up all runs.  The exit status is 0 if every run and the coverage limit were met.
Arguments are handed to every pytest run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent

#: The tests that are run again on the other reactors: those where the reactor makes a difference.
REACTOR_TESTS = ["tests/amqp", "tests/conformance", "tests/test_scripted.py"]
#: The other reactors, and what of these tests they are spared: what compares brokers with each other; and what kills
#: and restarts brokers, which takes minutes, on those that differ from the default one in how they wait only.
OTHER_REACTORS = {
    "asyncio": ["tests/conformance/differential"],
    "poll": ["tests/conformance/differential", "tests/conformance/recovery"],
    "select": ["tests/conformance/differential", "tests/conformance/recovery"],
}


@dataclass(frozen=True)
class Run:
    """How one pytest run went: its exit status, how many tests ended how, and what it printed if that was kept."""

    reactor: str
    status: int
    counts: Counter[str]
    output: str = ""


def run_pytest(command: list[str], reactor: str, *, is_shown: bool) -> Run:
    """One pytest run; what it prints is shown as it comes, or kept."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [*command, f"--junit-xml={report}", "-p", "no:cacheprovider"],
            cwd=ROOT,
            env=os.environ | {"TXMSG_TEST_REACTOR": reactor},
            check=False,
            stdout=None if is_shown else subprocess.PIPE,
            stderr=None if is_shown else subprocess.STDOUT,
            text=True,
        )
        counts: Counter[str] = Counter()
        if report.exists():
            for suite in ElementTree.parse(report).getroot().iter("testsuite"):
                total, failures, errors, skipped = (
                    int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
                )
                counts += Counter(passed=total - failures - errors - skipped, failed=failures + errors, skipped=skipped)
    return Run(reactor, done.returncode, counts, done.stdout or "")


def run_other_reactors(arguments: list[str]) -> list[Run]:
    """The second lane."""
    existing = [path for path in REACTOR_TESTS if (ROOT / path).exists()]
    command = [sys.executable, "-m", "pytest", "--quiet", *existing, *arguments]
    return [
        run_pytest([*command, *(f"--ignore={path}" for path in spared)], reactor, is_shown=False)
        for reactor, spared in OTHER_REACTORS.items()
    ]


def main(arguments: list[str]) -> int:
    """Run everything."""
    started = time.monotonic()
    python = sys.executable
    problems: list[str] = []

    subprocess.run([python, "-m", "coverage", "erase"], cwd=ROOT, check=True)
    with ThreadPoolExecutor(max_workers=1) as second_lane:
        others = second_lane.submit(run_other_reactors, arguments)
        print("\n--- default reactor", flush=True)
        measured = [python, "-m", "coverage", "run", "-m", "pytest", "--durations=20", *arguments]
        runs = [run_pytest(measured, "default", is_shown=True)]
        subprocess.run([python, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
        if subprocess.run([python, "-m", "coverage", "report"], cwd=ROOT, check=False).returncode:
            problems.append("coverage")
        for run in others.result():
            print(f"\n--- {run.reactor} reactor\n{run.output}", flush=True)
            runs.append(run)

    problems += [f"tests on the {run.reactor} reactor (pytest exit status {run.status})" for run in runs if run.status]
    counts = sum((run.counts for run in runs), Counter[str]())
    for problem in problems:
        print(f"FAILED: {problem}")
    print(
        f"==== {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        f" in {time.monotonic() - started:.0f}s ===="
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

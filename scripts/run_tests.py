"""Run the whole test suite: on the default reactor with branch coverage, then what uses the reactor on others.

The suite is cut into parts, each a pytest run of its own.  Two lanes work on them side by side, because a test run
mostly waits for clocks, processes and brokers: whichever is free takes the next part, the longest first, so that both
end at about the same time.  What a part printed is shown when it is done.  Then follow the coverage of all parts, how
long each took, and what failed; the last line sums up.  The exit status is 0 if every part and the coverage limit were
met.

Arguments are options for every pytest run ("-k channel"); a part in which they leave nothing to run is no failure.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent

#: How many parts run side by side.  Tests with real clocks were made for a machine that is not busier than this.
LANES = 2
#: pytest's exit status when it found no test to run.
NO_TESTS = 5

RECOVERY = "tests/conformance/recovery"
DIFFERENTIAL = "tests/conformance/differential"
MESSAGING = "tests/conformance/messaging"


@dataclass(frozen=True)
class Part:
    """One pytest run: on which reactor, what it runs, and what of that it is spared."""

    reactor: str
    paths: tuple[str, ...]
    spared: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What it is called on the screen."""
        paths = " ".join(path.removeprefix("tests/") for path in self.paths)
        return f"{self.reactor} reactor: {paths}"


#: What each part of the default reactor's runs; each file is in one part.  What stands nowhere here is in the last.
DEFAULT_PARTS = (
    Part("default", (RECOVERY, "tests/lab", "tests/foreign")),
    Part("default", ("tests/conformance",), (RECOVERY, MESSAGING)),
    Part("default", ("tests/amqp",)),
    Part("default", (MESSAGING, "tests/messaging", "tests/transports")),
    Part("default", ("tests/service", "tests/compat")),
    Part("default", ("tests/broker", "tests/wire")),
    Part("default", ("tests/testing",)),
)
#: The tests that are run again on the other reactors are those where the reactor makes a difference.  They are spared
#: what compares brokers with each other; and what kills and restarts brokers, which takes minutes, and the messaging
#: layer, which knows no sockets, on those that differ from the default one in how they wait only.
REACTOR_TESTS = ("tests/amqp", "tests/conformance", "tests/test_scripted.py")
OTHER_REACTORS = (
    Part("asyncio", REACTOR_TESTS, (DIFFERENTIAL,)),
    Part("poll", REACTOR_TESTS, (DIFFERENTIAL, RECOVERY, MESSAGING)),
    Part("select", REACTOR_TESTS, (DIFFERENTIAL, RECOVERY, MESSAGING)),
)


@dataclass(frozen=True)
class Run:
    """How a part went: pytest's exit status, how many tests ended how, what was printed, and the seconds it took."""

    part: Part
    status: int
    counts: Counter[str]
    output: str = ""
    seconds: float = 0.0


def parts() -> list[Part]:
    """All parts, those first that take longest; small ones come last, to fill the lanes up."""
    named = tuple(path for part in DEFAULT_PARTS for path in part.paths)
    rest = Part("default", ("tests",), named)
    return [*OTHER_REACTORS[:1], *DEFAULT_PARTS[:5], *OTHER_REACTORS[1:], *DEFAULT_PARTS[5:], rest]


def command(part: Part, arguments: list[str]) -> list[str]:
    """How a part is run: with coverage on the default reactor."""
    measured = ["-m", "coverage", "run"] if part.reactor == "default" else []
    return [
        *(sys.executable, *measured, "-m", "pytest", "--quiet", "--durations=10", "-p", "no:cacheprovider"),
        *part.paths,
        *(f"--ignore={path}" for path in part.spared),
        *arguments,
    ]


def run_part(part: Part, arguments: list[str]) -> Run:
    """One pytest run; what it prints is kept."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        done = subprocess.run(
            [*command(part, arguments), f"--junit-xml={report}"],
            cwd=ROOT,
            env=os.environ | {"TXMSG_TEST_REACTOR": part.reactor},
            check=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        counts = counts_in(report) if report.exists() else Counter[str]()
    return Run(part, done.returncode, counts, done.stdout, time.monotonic() - started)


def counts_in(report: Path) -> Counter[str]:
    """How many tests of a run passed, failed and were skipped."""
    counts: Counter[str] = Counter()
    for suite in ElementTree.parse(report).getroot().iter("testsuite"):
        total, failures, errors, skipped = (
            int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
        )
        counts += Counter(passed=total - failures - errors - skipped, failed=failures + errors, skipped=skipped)
    return counts


def run_parts(todo: list[Part], run: Callable[[Part], Run]) -> list[Run]:
    """Run all parts, in as many lanes as there are; show each when it is done."""
    screen = threading.Lock()

    def show(part: Part) -> Run:
        with screen:
            print(f"--- started: {part.name}", flush=True)
        done = run(part)
        with screen:
            print(f"\n--- {part.name}\n{done.output}", flush=True)
        return done

    with ThreadPoolExecutor(max_workers=LANES) as lanes:
        return list(lanes.map(show, todo))


def problems(runs: list[Run], *, is_narrowed: bool) -> Iterator[str]:
    """What is wrong; where arguments chose the tests, a part may be without any, but not all parts."""
    for run in runs:
        if run.status and not (run.status == NO_TESTS and is_narrowed):
            yield f"tests on the {run.part.name} (pytest exit status {run.status})"
    if not any(run.counts.total() for run in runs):
        yield "no test has run"


def main(arguments: list[str]) -> int:
    """Run everything."""
    started = time.monotonic()
    python = sys.executable

    subprocess.run([python, "-m", "coverage", "erase"], cwd=ROOT, check=True)
    runs = run_parts(parts(), lambda part: run_part(part, arguments))
    wrong = list(problems(runs, is_narrowed=bool(arguments)))
    print("--- coverage", flush=True)
    subprocess.run([python, "-m", "coverage", "combine", "--quiet"], cwd=ROOT, check=False)
    if subprocess.run([python, "-m", "coverage", "report"], cwd=ROOT, check=False).returncode:
        wrong.append("coverage")

    print()
    for run in runs:
        print(f"{run.seconds:5.0f}s {run.counts.total():6d} tests  {run.part.name}")
    for problem in wrong:
        print(f"FAILED: {problem}")
    counts = sum((run.counts for run in runs), Counter[str]())
    print(
        f"==== {counts['passed']} passed, {counts['failed']} failed, {counts['skipped']} skipped"
        f" in {time.monotonic() - started:.0f}s ===="
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""scripts/run_tests.py runs every test, and tells whether one failed."""

from __future__ import annotations

import importlib.util
import io
import sys
import threading
import unittest
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from tests.source import ROOT


def load_script() -> ModuleType:
    """scripts/run_tests.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("run_tests_script", ROOT / "scripts" / "run_tests.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


script = load_script()


def is_below(path: Path, folders: tuple[str, ...]) -> bool:
    """Whether a file is one of these, or in one of these."""
    return any(path.is_relative_to(ROOT / folder) for folder in folders)


def ended(status: int, part: Any = script.DEFAULT_PARTS[0], **counts: int) -> Any:
    """A part that has run."""
    return script.Run(part, status, Counter(counts), "what it printed", 1.0)


class PartsTests(unittest.TestCase):
    """What the parts are."""

    def test_each_file_once(self) -> None:
        """On the default reactor every test file is run, and in one part only."""
        default = [part for part in script.parts() if part.reactor == "default"]
        for file in sorted((ROOT / "tests").rglob("test_*.py")):
            found = [part.name for part in default if is_below(file, part.paths) and not is_below(file, part.spared)]
            self.assertEqual(len(found), 1, f"{file}: {found}")

    def test_paths_exist(self) -> None:
        """A folder that was renamed is noticed: what is spared by an old name would be run twice."""
        for part in script.parts():
            for path in (*part.paths, *part.spared):
                self.assertTrue((ROOT / path).exists(), path)

    def test_reactors(self) -> None:
        """Every reactor has its part, and only the default one's are measured."""
        self.assertEqual({part.reactor for part in script.parts()}, {"default", "asyncio", "poll", "select"})
        for part in script.parts():
            self.assertEqual("coverage" in script.command(part, []), part.reactor == "default")

    def test_command(self) -> None:
        """Arguments come last; what is spared is left out."""
        command = script.command(script.Part("poll", ("tests/a", "tests/b"), ("tests/a/c",)), ["-k", "x"])
        self.assertEqual(command[-5:], ["tests/a", "tests/b", "--ignore=tests/a/c", "-k", "x"])


class RunTests(unittest.TestCase):
    """How they are run."""

    def test_lanes(self) -> None:
        """Two at a time; a lane that is free takes the next; the results come in order."""
        together = threading.Barrier(script.LANES, timeout=10)

        def run(part: Any) -> Any:
            together.wait()
            return ended(0, part, passed=1)

        todo = [script.Part("default", (f"tests/{number}",)) for number in range(2 * script.LANES)]
        with redirect_stdout(io.StringIO()) as screen:
            runs = script.run_parts(todo, run)
        self.assertEqual([run.part for run in runs], todo)
        self.assertEqual(screen.getvalue().count("what it printed"), len(todo))

    def test_problems(self) -> None:
        """A part that failed, or ended in any other way; none without tests, unless arguments chose them."""
        runs = [ended(0, passed=3), ended(1, failed=1), ended(5), ended(-9)]
        self.assertEqual([line[-3:-1] for line in script.problems(runs, is_narrowed=False)], [" 1", " 5", "-9"])
        self.assertEqual([line[-3:-1] for line in script.problems(runs, is_narrowed=True)], [" 1", "-9"])
        self.assertEqual(list(script.problems([ended(5)], is_narrowed=True)), ["no test has run"])

    def test_counts(self) -> None:
        """What pytest's report says."""
        with TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            report.write_text('<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>')
            self.assertEqual(script.counts_in(report), Counter(passed=3, failed=3, skipped=3))

    def test_a_run(self) -> None:
        """One small part, for real; its status is pytest's."""
        part = script.Part("poll", ("tests/test_scripted.py",))
        run = script.run_part(part, ["-k", "nothing_is_called_like_this"])
        self.assertEqual((run.status, run.counts.total()), (script.NO_TESTS, 0), run.output)
        self.assertIn("deselected", run.output)

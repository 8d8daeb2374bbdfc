"""Fill in the last column of the tables in docs/supported.md: which tests cover which row.

    python scripts/supported.py          write the page
    python scripts/supported.py --check  say what is out of date, and exit with 1 if anything is

Tests name the rows they cover in their docstrings: "B-05", "R13", "C1.2", "peers 18", "C-01 to C-27",
"kombu J3, J5, K1", "celery E-02, E-05 to E-07".  Nothing is
imported or run for this: the tests are read.  The rows themselves, their titles and remarks (in italics) are written
by hand; a row without a remark must have a test.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "supported.md"

#: So many tests are named for a row, the most particular ones; for the rest: search for the row's name in tests/.
SHOWN = 2

_ROW = re.compile(
    r"^\| ([A-X]-\d\d|C\d\.\d|[RFZ]\d{1,2}|peers \d+|kombu [A-Z]{1,2}\d+|celery [A-Z]-\d\d) \| (.*?) \|(.*)\|$"
)
# One row.  Not behind a letter, digit, dot or hyphen ("UTF-16", "CVE-2023"), nor before more of a word.
_ID = re.compile(r"(?<![\w.\-/])(?:[A-X]-\d\d|C\d\.\d|[RFZ]\d{1,2})(?![\w-]|\.\d)")
_RANGE = re.compile(r"(?<![\w.\-/])([A-X]-|C\d\.|[RFZ])(\d{1,2}) to \1(\d{1,2})(?![\w-]|\.\d)")
_PEERS = re.compile(r"\b[Pp]eers (\d+)(?: to (\d+))?((?:, (?:peers )?\d+(?![\w.:-]*\w))*)")
# What Kombu's users rely on; the letters of its rows are others' too, so each list of them begins with the name.
_KOMBU_ROW = r"[A-Z]{1,2}\d{1,2}(?: to [A-Z]{1,2}\d{1,2})?"
_KOMBU = re.compile(rf"\b[Kk]ombu ({_KOMBU_ROW}(?:, (?:kombu )?{_KOMBU_ROW})*)(?![\w.-]*\w)")
_KOMBU_ROWS = re.compile(r"([A-Z]{1,2})(\d{1,2})(?: to \1(\d{1,2}))?")
# And Celery's, likewise.
_CELERY_ROW = r"[A-Z]-\d\d(?: to [A-Z]-\d\d)?"
_CELERY = re.compile(rf"\b[Cc]elery ({_CELERY_ROW}(?:, (?:celery )?{_CELERY_ROW})*)(?![\w-]|\.\d)")
_CELERY_ROWS = re.compile(r"([A-Z])-(\d\d)(?: to \1-(\d\d))?")

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, order=True)
class Test:
    """One test, as pytest names it; `rows` is how many rows it names: the fewer, the more particular it is."""

    rows: int
    name: str


def rows_in(text: str) -> set[str]:
    """The rows that a docstring names."""
    found = set[str]()
    for rows in _KOMBU.findall(text):
        for area, first, last in _KOMBU_ROWS.findall(rows):
            found |= {f"kombu {area}{number}" for number in range(int(first), int(last or first) + 1)}
    for rows in _CELERY.findall(text):
        for area, first, last in _CELERY_ROWS.findall(rows):
            found |= {f"celery {area}-{number:02d}" for number in range(int(first), int(last or first) + 1)}
    text = _CELERY.sub("", _KOMBU.sub("", text))
    found |= set(_ID.findall(text))
    for prefix, first, last in _RANGE.findall(text):
        found |= {f"{prefix}{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)}
    for first, last, others in _PEERS.findall(text):
        numbers = {*range(int(first), int(last or first) + 1), *map(int, re.findall(r"\d+", others))}
        found |= {f"peers {number}" for number in numbers}
    return found


def _documented(node: ast.Module | ast.ClassDef | _Function) -> set[str]:
    return rows_in(ast.get_docstring(node) or "")


def _class_names(node: ast.ClassDef, classes: list[ast.ClassDef]) -> str:
    """What a class is collected as: the cases of one that is not collected itself run in its first subclass."""
    if not node.name.endswith("Cases"):
        return node.name
    for other in classes:
        if any(isinstance(base, ast.Name) and base.id == node.name for base in other.bases):
            return _class_names(other, classes)
    return node.name


def tests_in(path: Path, name: str) -> Iterator[tuple[set[str], str]]:
    """The rows and the name of each test in a file; a class or a state machine can name rows, too."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    classes = [node for node in module.body if isinstance(node, ast.ClassDef)]
    for node in module.body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() if node.name.startswith("test"):
                yield _documented(node), f"{name}::{node.name}"
            case ast.ClassDef():
                prefix = f"{name}::{_class_names(node, classes)}"
                tests = [n for n in node.body if isinstance(n, _Function) and n.name.startswith("test")]
                # The tests of a contract are txmsg.testing's; who says what they run over names the rows.
                inherits = any(isinstance(base, ast.Name) and base.id.endswith("Contract") for base in node.bases)
                if tests or inherits:
                    yield _documented(node), prefix
                for test in tests:
                    yield _documented(test), f"{prefix}::{test.name}"
            case ast.Assign(targets=[ast.Name(id=target)], value=ast.Attribute(value=ast.Name(), attr="TestCase")) if (
                target.startswith("Test")
            ):
                # Hypothesis makes a test of a state machine; the module's docstring describes it.
                yield _documented(module), f"{name}::{target}"


def scan(folder: Path = ROOT / "tests") -> dict[str, list[Test]]:
    """The tests of each row, the most particular first."""
    found: dict[str, list[Test]] = defaultdict(list)
    for path in sorted(folder.rglob("test_*.py")):
        for rows, name in tests_in(path, path.relative_to(folder.parent).as_posix()):
            for row in rows:
                found[row].append(Test(len(rows), name))
    return {row: sorted(tests) for row, tests in found.items()}


def cell(tests: list[Test]) -> str:
    """The last column of a row."""
    names = [f"`{test.name}`" for test in tests[:SHOWN]]
    return "<br>".join(names) + (" and more" if len(tests) > SHOWN else "")


def rows_of(page: str) -> dict[str, str]:
    """The rows of the page and what stands beside them."""
    return {match[1]: match[2] for line in page.splitlines() if (match := _ROW.match(line))}


def render(page: str, found: dict[str, list[Test]]) -> str:
    """The page with its last columns filled in."""
    lines = page.splitlines()
    for number, line in enumerate(lines):
        if match := _ROW.match(line):
            tests = cell(found.get(match[1], []))
            lines[number] = f"| {match[1]} | {match[2]} | {tests} |" if tests else f"| {match[1]} | {match[2]} | |"
    return "\n".join(lines) + "\n"


def problems(page: str, found: dict[str, list[Test]]) -> list[str]:
    """What is wrong with the page, a line each."""
    names = [match[1] for line in page.splitlines() if (match := _ROW.match(line))]
    wrong = [f"{row} is there twice" for row in sorted({row for row in names if names.count(row) > 1})]
    wrong += [
        f"{row} has no test, and no remark that says why: {what}"
        for row, what in rows_of(page).items()
        if row not in found and not what.endswith("*")
    ]
    if render(page, found) != page:
        wrong.append("the columns of tests are out of date: run scripts/supported.py")
    return wrong


def main(arguments: list[str]) -> int:
    """Write or check the page."""
    found = scan()
    page = PAGE.read_text(encoding="utf-8")
    if arguments != ["--check"]:
        page = render(page, found)
        PAGE.write_text(page, encoding="utf-8")
    wrong = problems(page, found)
    for line in wrong:
        print(f"docs/supported.md: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

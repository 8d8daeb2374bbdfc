"""docs/supported.md tells the truth: its tests exist, its rows have tests, and it is what the docstrings say.

And what is promised of the project's own files: a security policy, few dependencies.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import tomllib
import unittest
from types import ModuleType

from tests.source import ROOT

PAGE = (ROOT / "docs" / "supported.md").read_text(encoding="utf-8")


def load_script() -> ModuleType:
    """scripts/supported.py, which is no module of a package."""
    spec = importlib.util.spec_from_file_location("supported_script", ROOT / "scripts" / "supported.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


supported = load_script()


def exists(name: str) -> bool:
    """Whether there is such a test: path::function, path::Class, or path::Class::function, inherited or not."""
    path, *parts = name.split("::")
    file = ROOT / path
    if not file.is_file():
        return False
    module = ast.parse(file.read_text(encoding="utf-8"))
    classes = {node.name: node for node in module.body if isinstance(node, ast.ClassDef)}
    if len(parts) == 1:
        functions = {n.name for n in module.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
        assigned = {
            t.id for n in module.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)
        }
        return parts[0] in functions | assigned | set(classes)
    todo, methods = [parts[0]], set[str]()
    while todo:
        if node := classes.get(todo.pop()):
            methods |= {n.name for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)}
            todo += [base.id for base in node.bases if isinstance(base, ast.Name)]
    return len(parts) == 2 and parts[1] in methods


class PageTests(unittest.TestCase):
    """The page and the tests."""

    def test_every_named_test_exists(self) -> None:
        """A test that was renamed or removed is noticed."""
        names = set(re.findall(r"`(tests/[\w/]+\.py::[\w:]+)`", PAGE))
        self.assertGreater(len(names), 300)
        self.assertEqual([name for name in sorted(names) if not exists(name)], [])

    def test_nothing_is_wrong(self) -> None:
        """Each row is there once, has a test or a remark why not, and the columns follow from the docstrings."""
        self.assertEqual(supported.problems(PAGE, supported.scan()), [])

    def test_all_rows_are_there(self) -> None:
        """No promise, fault, property or pain disappears from the page."""
        rows = set(supported.rows_of(PAGE))
        expected = {f"R{n}" for n in range(1, 39)} | {f"F{n}" for n in range(30, 46)} | {f"Z{n}" for n in range(1, 9)}
        expected |= {f"C1.{n}" for n in range(1, 9)} | {f"peers {n}" for n in range(1, 29)}
        self.assertEqual(expected - rows, set())
        self.assertGreater(len(rows - expected), 500)

    def test_it_is_ours(self) -> None:
        """The page names no path of anybody's machine, and no file outside the project."""
        self.assertEqual(re.findall(r"(?<![\w`.])/(?:home|tmp|work|root|Users)\b", PAGE), [])


class ScriptTests(unittest.TestCase):
    """The script would notice."""

    def test_rows_in(self) -> None:
        """Every way in which docstrings name rows is read, and nothing else is taken for one."""
        for text, rows in (
            ("B-05, R13: x", {"B-05", "R13"}),
            ("C-01 to C-03: x", {"C-01", "C-02", "C-03"}),
            ("C1.2 is not C-12", {"C1.2", "C-12"}),
            ("C1.1 to C1.3", {"C1.1", "C1.2", "C1.3"}),
            ("R28 to R30", {"R28", "R29", "R30"}),
            ("W-28, J-18: x", {"W-28", "J-18"}),
            ("peers 3, 48, R8: x", {"peers 3", "peers 48", "R8"}),
            ("peers 12, peers 13: x", {"peers 12", "peers 13"}),
            ("Peers 5 to 7: two of 8 peers", {"peers 5", "peers 6", "peers 7"}),
            (
                "kombu J1, J3 to J5, kombu CN2, C5.1, R5: x",
                {*map("kombu {}".format, ("J1", "J3", "J4", "J5", "CN2")), "C5.1", "R5"},
            ),
            ("Kombu R1, peers 3: with Kombu 5.7", {"kombu R1", "peers 3"}),
            (
                "celery A-05, E-10 to E-12, R27: x, B-02",
                {*map("celery {}".format, ("A-05", "E-10", "E-11", "E-12")), "R27", "B-02"},
            ),
            ("UTF-16, CVE-2026-63335, X509, 24.9, R100, C2", set()),
            ("R-05 is a method, R5 a promise", {"R-05", "R5"}),
        ):
            with self.subTest(text=text):
                self.assertEqual(supported.rows_in(text), rows)

    def test_problems(self) -> None:
        """A row without test or remark, a row twice, and an old column."""
        test = supported.Test(1, "tests/test_x.py::test_x")
        page = "| A-01 | one | |\n| A-02 | two. *Later.* | |\n"
        self.assertEqual(supported.problems(page, {}), ["A-01 has no test, and no remark that says why: one"])
        self.assertTrue(supported.problems(page, {"A-01": [test]})[0].endswith("run scripts/supported.py"))
        page = supported.render(page, {"A-01": [test]})
        self.assertEqual(page.splitlines()[0], "| A-01 | one | `tests/test_x.py::test_x` |")
        self.assertEqual(supported.problems(page, {"A-01": [test]}), [])
        self.assertIn("A-01 is there twice", supported.problems(page * 2, {"A-01": [test]}))

    def test_many_tests(self) -> None:
        """The most particular ones are named."""
        tests = sorted(supported.Test(n, f"tests/test_x.py::test_{n}") for n in (5, 1, 3))
        self.assertEqual(supported.cell(tests), "`tests/test_x.py::test_1`<br>`tests/test_x.py::test_3` and more")

    def test_exists(self) -> None:
        """`exists` says no."""
        here = "tests/test_supported.py"
        self.assertTrue(exists(f"{here}::ScriptTests::test_exists"))
        self.assertTrue(exists(f"{here}::ScriptTests"))
        for name in (f"{here}::ScriptTests::test_nothing", f"{here}::NoTests", "tests/test_none.py::test_x"):
            self.assertFalse(exists(name), name)


class ProjectTests(unittest.TestCase):
    """Promises about the project's own files."""

    def test_security_policy(self) -> None:
        """C8.3: how to report in private, and what is not promised."""
        text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
        for words in ("privately", "does not promise", "Revocation", "Traffic analysis", "Exactly once"):
            self.assertIn(words, text)

    def test_dependencies(self) -> None:
        """C8.2, C1.6: three packages, each with its lowest version; below 24.1 service-identity checks nothing."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        required = dict(re.split(r">=", line) for line in project["dependencies"])
        self.assertEqual(set(required), {"Twisted[tls]", "service-identity", "pyOpenSSL"})
        self.assertGreaterEqual(tuple(map(int, required["service-identity"].split("."))), (24, 1))

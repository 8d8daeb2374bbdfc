"""The public names: what `__all__` says is there, is complete, and is documented.

A package's or module's public API is its ``__all__``.  A name without an underscore that a public module
defines must be in it, so that nothing becomes public, or stays hidden, by accident.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.source import modules


def public_modules() -> dict[str, Path]:
    """The modules whose dotted name has no part that begins with an underscore."""
    return {name: path for name, path in modules().items() if not any(p.startswith("_") for p in name.split("."))}


def defined_in(path: Path) -> set[str]:
    """The public classes and functions a file defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        match node:
            case ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                names.add(node.name)
    return {name for name in names if not name.startswith("_")}


def is_documented(value: Any, name: str) -> bool:
    """Whether a class or function has a docstring of its own; other values are documented where they are assigned."""
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        return True
    documentation = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    # A dataclass without a docstring is given its signature as one.
    return bool(documentation) and not str(documentation).startswith(f"{name}(")


def undocumented_members(value: type) -> list[str]:
    """The public methods and properties a class defines itself and that no docstring explains.

    An override need not repeat what the base class, Twisted's included, says already.
    """
    found = []
    for name, member in vars(value).items():
        wanted = inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod)
        if name.startswith("_") or not wanted:
            continue
        if not inspect.getdoc(getattr(value, name)) and not inspect.getdoc(member):
            found.append(name)
    return found


class ExportTests(unittest.TestCase):
    """Every public module's ``__all__``."""

    def each(self) -> list[tuple[str, Path, ModuleType]]:
        """Name, file and module object of every public module."""
        return [(name, path, importlib.import_module(name)) for name, path in public_modules().items()]

    def test_all_exists(self) -> None:
        """Every public module has an ``__all__``, without duplicates, of names that are there."""
        for name, _, module in self.each():
            with self.subTest(module=name):
                names = getattr(module, "__all__", None)
                self.assertIsNotNone(names, "no __all__")
                assert names is not None
                self.assertEqual(len(names), len(set(names)), "a name stands in __all__ twice")
                self.assertEqual([n for n in names if not hasattr(module, n)], [], "in __all__, but not there")

    def test_all_is_complete(self) -> None:
        """What a public module defines without an underscore is in its ``__all__``."""
        for name, path, module in self.each():
            with self.subTest(module=name):
                self.assertEqual(sorted(defined_in(path) - set(module.__all__)), [])

    def test_modules_are_documented(self) -> None:
        """Every module says what it is for."""
        for name, _, module in self.each():
            with self.subTest(module=name):
                self.assertTrue(module.__doc__, "no module docstring")

    def test_exports_are_documented(self) -> None:
        """Every exported class and function, and the public members of the classes, have docstrings."""
        for name, _, module in self.each():
            for export in module.__all__:
                value = getattr(module, export)
                with self.subTest(module=name, export=export):
                    self.assertTrue(is_documented(value, export), "no docstring")
                    if inspect.isclass(value) and value.__module__.startswith("txmsg"):
                        self.assertEqual(undocumented_members(value), [], "members without docstring")

    def test_types_are_shipped(self) -> None:
        """The package tells type checkers that it is typed (PEP 561)."""
        self.assertTrue((modules()["txmsg"].parent / "py.typed").exists())

"""What the tests about the source know of it: the modules of txmsg and what each of them imports."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "txmsg"


@dataclass(frozen=True, slots=True)
class Import:
    """One imported module.

    :ivar name: its absolute dotted name.
    :ivar symbol: what is taken from it; empty for the module itself.
    :ivar is_run: whether importing the importer imports it: not in a function, not under TYPE_CHECKING.
    """

    name: str
    line: int
    is_run: bool
    symbol: str = ""


def module_name(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules() -> dict[str, Path]:
    """All modules of the package, by dotted name."""
    return {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@functools.cache
def imports(path: Path) -> tuple[Import, ...]:
    """Everything a file imports, anywhere in it."""
    module = module_name(path)
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return tuple(_imports(ast.parse(path.read_text(encoding="utf-8")), package, is_run=True))


def _imports(node: ast.AST, package: str, *, is_run: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import():
                yield from (Import(alias.name, child.lineno, is_run) for alias in child.names)
            case ast.ImportFrom():
                base = child.module or ""
                if child.level:
                    parent = package.split(".")
                    base = ".".join([*parent[: len(parent) - child.level + 1], *([base] if base else [])])
                for alias in child.names:
                    full = f"{base}.{alias.name}"
                    if full in modules():
                        yield Import(full, child.lineno, is_run)
                    else:
                        yield Import(base, child.lineno, is_run, alias.name)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from _imports(child, package, is_run=False)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                for statement in child.body:
                    yield from _imports(ast.Module([statement], []), package, is_run=False)
                for statement in child.orelse:
                    yield from _imports(ast.Module([statement], []), package, is_run=is_run)
            case _:
                yield from _imports(child, package, is_run=is_run)

"""Finding the uses of an old library in source, with `ast`; nothing is imported and nothing is run.

A file is meant when it imports the library, or our drop-in for it.  In such a file are reported: what is imported and
used of the library under any alias, methods of its channels by name, on whatever they are called and as callbacks, what
its subclasses override, and strings that name its modules (`mock.patch("txamqp.protocol.AMQClient")`).
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

from txmsg.migrate.table import LIBRARIES, Library, Row

__all__ = ["Use", "find_uses"]


@dataclass(frozen=True, slots=True, order=True)
class Use:
    """One use of an old library.   line: int -- from 1.   row: Row.   library: Library."""

    line: int
    library: Library
    row: Row


def _is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


class _File:
    """The imports of one file, and its uses of one library."""

    def __init__(self, tree: ast.Module, library: Library) -> None:
        self._tree = tree
        self._library = library
        self._aliases: dict[str, str] = {}
        self._names = {row.old: row for row in library.rows if row.kind == "name"}
        self._other = {(row.kind, row.old): row for row in library.rows if row.kind != "name"}
        self._found: dict[tuple[int, str], Use] = {}
        #: Names that are variables somewhere in the file: `from txamqp import content`, and then `content = ...`.
        self._variables = {
            node.arg if isinstance(node, ast.arg) else node.id
            for node in ast.walk(tree)
            if isinstance(node, ast.arg) or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
        }

    def uses(self, is_meant: bool) -> Iterator[Use]:
        """All uses, by line; none if the library is not imported, unless `is_meant` says to look all the same."""
        imported = [name for node in ast.walk(self._tree) for name in self._imported(node)]
        chains = (self._dotted(node) for node in ast.walk(self._tree) if isinstance(node, ast.Attribute))
        if not is_meant and not any(_is_within(name, self._library.module) for name in (*imported, *chains)):
            return
        self._look(self._tree)
        yield from sorted(self._found.values(), key=lambda use: (use.line, use.row.shown))

    # -- names -------------------------------------------------------------------------------------

    def _actual(self, name: str) -> str:
        """A dotted name with the library's own in the place of our drop-in's."""
        drop_in = self._library.drop_in
        return self._library.module + name[len(drop_in) :] if _is_within(name, drop_in) else name

    def _imported(self, node: ast.AST) -> list[str]:
        """The dotted names that a statement imports; notes under which names the file knows them."""
        names: list[str] = []
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = self._actual(alias.name)
                names.append(name)
                if alias.asname:
                    self._aliases[alias.asname] = name
                else:
                    first = alias.name.partition(".")[0]
                    self._aliases[first] = first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                name = self._actual(f"{node.module}.{alias.name}")
                names.append(name)
                if alias.name == "*":
                    self._import_all(name[: -len(".*")])
                else:
                    self._aliases[alias.asname or alias.name] = name
        return names

    def _import_all(self, module: str) -> None:
        """`from module import *`: the names of ours that are in it."""
        for name in self._names:
            if name.rpartition(".")[0] == module:
                self._aliases.setdefault(name.rpartition(".")[2], name)

    def _dotted(self, node: ast.expr) -> str:
        """The dotted name of an expression, aliases resolved; "" for anything else."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self._aliases:
            return ""
        name = self._actual(".".join([self._aliases[node.id], *reversed(parts)]))
        # Of what may be a variable only that is ours which has a row: content.Content, and not content.body.
        is_certain = node.id not in self._variables or self._row_of(name) not in (
            None,
            self._names[self._library.module],
        )
        return name if is_certain else ""

    def _row_of(self, name: str) -> Row | None:
        """The row of a dotted name; for one that has none, that of what it is an attribute of, or of the module."""
        while name and name not in self._names:
            name = name.rpartition(".")[0]
        return self._names.get(name)

    # -- looking -----------------------------------------------------------------------------------

    def _note(self, node: ast.AST, row: Row | None) -> bool:
        if row is not None:
            line = getattr(node, "lineno", 1)
            self._found.setdefault((line, row.shown), Use(line, self._library, row))
        return row is not None

    def _look(self, tree: ast.AST) -> None:
        # With a stack of its own: generated source can be deeper than Python's.
        waiting: list[ast.AST] = [tree]
        while waiting:
            node = waiting.pop()
            if not self._looked_at(node):
                waiting.extend(ast.iter_child_nodes(node))

    def _looked_at(self, node: ast.AST) -> bool:
        """Note a use; True if nothing below it is to be looked at."""
        if isinstance(node, ast.Import | ast.ImportFrom):
            for name in self._imported(node):
                self._note(node, self._row_of(name))
            return True
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            # The line of the name, which in a chain of calls is not that of the expression.
            self._method(node.func)
        elif isinstance(node, ast.Attribute):
            return self._attribute(node)
        elif isinstance(node, ast.Name):
            return self._note(node, self._row_of(self._aliases.get(node.id, "")) if self._is_bare(node) else None)
        elif isinstance(node, ast.ClassDef):
            for each in node.body:
                if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
                    self._note(each, self._other.get(("override", each.name)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            self._note(node, self._row_of_text(node.value))
        return False

    def _is_bare(self, node: ast.Name) -> bool:
        """Whether a name is a thing of the library: a package that is only on the way to one is not."""
        return isinstance(node.ctx, ast.Load) and self._aliases.get(node.id, "") in self._names

    def _row_of_text(self, text: str) -> Row | None:
        name = self._actual(text)
        is_dotted = "." in name and all(part.isidentifier() for part in name.split("."))
        return self._row_of(name) if is_dotted and _is_within(name, self._library.module) else None

    def _attribute(self, node: ast.Attribute) -> bool:
        if self._note(node, self._row_of(self._dotted(node))):
            return True  # an attribute of a thing of the library is a use of the thing
        if isinstance(node.ctx, ast.Load):
            self._note(node, self._other.get(("attribute", node.attr)))
            if "_" in node.attr:  # d.addCallback(channel.basic_ack); other words mean too much where nothing is called
                self._method(node)
        return False

    def _method(self, node: ast.Attribute) -> None:
        row = self._other.get(("method", node.attr))
        name = self._dotted(node)
        # Of what is imported from elsewhere, `app.channel.basic_ack` is a channel's, and `signals.flow` is not.
        is_other = bool(name) and "_" not in node.attr
        if row is not None and not is_other and not _is_within(name, self._library.module):
            # The line of the name, which in a chain of calls is not that of the expression.
            self._note_at(node.end_lineno or node.lineno, row)

    def _note_at(self, line: int, row: Row) -> None:
        self._found.setdefault((line, row.shown), Use(line, self._library, row))


def find_uses(source: str | bytes, name: str = "<source>", *, is_meant: bool = False) -> list[Use]:
    """The uses of all old libraries in one file's source, by line.

    is_meant: look for channel methods also where no library is imported: a file may be handed its channels.

    Raises SyntaxError or ValueError for what is not source of this Python.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of "\d" and the like, which nobody has asked about
        tree = ast.parse(source, name)
    imported: list[Use] = []
    for library in LIBRARIES:
        imported += _File(tree, library).uses(is_meant=False)
    if not imported and is_meant:
        known: set[tuple[int, str]] = set()
        for library in LIBRARIES:
            for use in _File(tree, library).uses(is_meant=True):
                # Whose channel it is, is not to be known: what both have is told once.
                if use.row.kind == "method" and "_" in use.row.old and (use.line, use.row.old) not in known:
                    known.add((use.line, use.row.old))
                    imported.append(use)
    return sorted(imported, key=lambda use: (use.line, use.library.name, use.row.shown))

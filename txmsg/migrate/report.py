"""Walking over files and printing what is found, a line for each use, as linters do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TextIO

from txmsg.migrate.finder import find_uses

__all__ = ["ERROR", "FOUND", "NOTHING", "python_files", "run"]

#: Exit codes: nothing is left to move; something is; a file could not be read.
NOTHING, FOUND, ERROR = 0, 1, 2


def python_files(path: Path) -> Iterator[Path]:
    """The file itself, or all Python files below a folder, in order; not in hidden folders and virtual environments."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, files in os.walk(path):
        if "pyvenv.cfg" in files:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        yield from (Path(folder, name) for name in sorted(files) if name.endswith((".py", ".pyw", ".tac")))


def run(paths: Iterable[str], out: TextIO, err: TextIO, *, all_files: bool = False) -> int:
    """Look at files and folders; one line `path:line: uses X -> native form; see page` for each use.

    all_files: look for channel methods also in files that import no old library.

    Returns the exit code: 0 for nothing found, 1 for something, 2 if a file could not be read.
    """
    looked_at = used_in = uses = 0
    is_error = False
    for given in paths:
        for path in python_files(Path(given)):
            try:
                found = find_uses(path.read_bytes(), str(path), is_meant=all_files)
            except OSError as error:
                err.write(f"{path}: {error.strerror or error}\n")
                is_error = True
                continue
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                line = getattr(error, "lineno", None) or 1
                err.write(f"{path}:{line}: not source of this Python ({getattr(error, 'msg', None) or error})\n")
                is_error = True
                continue
            looked_at += 1
            used_in += bool(found)
            uses += len(found)
            for use in found:
                out.write(f"{path}:{use.line}: uses {use.row.shown} -> {use.row.native}; see {use.library.page}\n")
    err.write(f"{uses} uses in {used_in} of {looked_at} files\n")
    return ERROR if is_error else FOUND if uses else NOTHING

"""Walking over files and printing what is found, a line for each use, as linters do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TextIO

from txmsg.migrate.finder import find_uses

__all__ = ["ERROR", "FOUND", "NOTHING", "python_files", "run"]

#: Exit codes: nothing is left to move; something is; a file or folder could not be read.
NOTHING, FOUND, ERROR = 0, 1, 2


def python_files(path: Path, failed: Callable[[OSError], object]) -> Iterator[Path]:
    """The file itself, or all Python files below a folder, in order; not in hidden folders and virtual environments.

    Below a folder only regular files count: a pipe would be waited for, and editors' locks are links to nowhere.

    failed -- called with the error of a folder that cannot be listed.
    """
    if not os.path.isdir(path):  # Path.is_dir raises where a folder above may not be entered
        yield path
        return
    for folder, folders, files in os.walk(path, onerror=failed):
        if "pyvenv.cfg" in files or "conda-meta" in folders:
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__pycache__")
        found = (Path(folder, name) for name in sorted(files) if name.endswith((".py", ".pyw", ".tac")))
        yield from (each for each in found if os.path.isfile(each))


def _printable(text: str, out: TextIO) -> str:
    """What `out` can take: names of files may hold what no encoding has."""
    encoding = getattr(out, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def run(paths: Iterable[str], out: TextIO, err: TextIO, *, all_files: bool = False) -> int:
    """Look at files and folders; one line `path:line: uses X -> native form; see page` for each use.

    all_files: look for channel methods also in files that import no old library.

    Returns the exit code: 0 for nothing found, 1 for something, 2 if a file or folder could not be read.
    """
    looked_at = used_in = uses = 0
    is_error = False

    def failed(error: OSError) -> None:
        nonlocal is_error
        is_error = True
        err.write(_printable(f"{error.filename}: {error.strerror or error}\n", err))

    for given in paths:
        for path in python_files(Path(given), failed):
            try:
                found = find_uses(path.read_bytes(), str(path), is_meant=all_files)
            except OSError as error:
                error.filename = path
                failed(error)
                continue
            except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
                line = getattr(error, "lineno", None) or 1
                why = getattr(error, "msg", None) or str(error) or type(error).__name__
                err.write(_printable(f"{path}:{line}: not source of this Python ({why})\n", err))
                is_error = True
                continue
            looked_at += 1
            used_in += bool(found)
            uses += len(found)
            for use in found:
                text = f"{path}:{use.line}: uses {use.row.shown} -> {use.row.native}; see {use.library.page}\n"
                out.write(_printable(text, out))
    err.write(f"{uses} {'use' if uses == 1 else 'uses'} in {used_in} of {looked_at} files\n")
    return ERROR if is_error else FOUND if uses else NOTHING

"""`txmsg migrate`: which lines of a code base use the old adapters, and what the native form is.

`table` is the one list of old and new, for the command and for the pages docs/moving-from-*.md; `finder` reads source
with `ast` and runs nothing of it; `report` walks over files and prints.
"""

from __future__ import annotations

from txmsg.migrate.finder import Use, find_uses
from txmsg.migrate.report import run
from txmsg.migrate.table import LIBRARIES, Library, Row

__all__ = ["LIBRARIES", "Library", "Row", "Use", "find_uses", "run"]

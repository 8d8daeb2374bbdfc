"""Write the tables of old and new into docs/moving-from-*.md, between their marks.

    python scripts/migration_tables.py            write
    python scripts/migration_tables.py --check    exit with 1 if a page is not what would be written

The rows are those of `txmsg.migrate.table`, which `txmsg migrate` prints.
"""

from __future__ import annotations

import sys
from pathlib import Path

from txmsg.migrate.table import LIBRARIES, Kind, Library

ROOT = Path(__file__).resolve().parent.parent

BEGIN, END = "<!-- migrate: {} (scripts/migration_tables.py) -->", "<!-- end of migrate -->"

_HEADINGS: dict[Kind, str] = {
    "name": "imported",
    "override": "defined in a subclass",
    "attribute": "attribute",
    "method": "called",
}


def table(library: Library) -> str:
    """The section between the marks."""
    parts: list[str] = []
    for kind, heading in _HEADINGS.items():
        rows = [row for row in library.rows if row.kind == kind]
        if rows:
            parts.append("\n".join([f"| {heading} | with txmsg |", "| --- | --- |"]))
            parts[-1] += "".join(f"\n| `{row.shown}` | {row.native} |" for row in rows)
    return "\n\n".join(parts)


def with_table(text: str, library: Library) -> str:
    """The page with its section made anew; ValueError where the marks are missing."""
    begin = BEGIN.format(library.name)
    before, mark, rest = text.partition(begin)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{library.page} has no line {begin!r} with {END!r} behind it")
    return f"{before}{begin}\n\n{table(library)}\n\n{END}{after}"


def main() -> int:
    """Write, or check."""
    is_check = sys.argv[1:] == ["--check"]
    old_pages = []
    for library in LIBRARIES:
        page = ROOT / library.page
        text = page.read_text(encoding="utf-8")
        made = with_table(text, library)
        if made != text:
            old_pages.append(library.page)
            if not is_check:
                page.write_text(made, encoding="utf-8")
    for name in old_pages:
        sys.stderr.write(f"{name}: the table is {'old' if is_check else 'new'}\n")
    return 1 if is_check and old_pages else 0


if __name__ == "__main__":
    sys.exit(main())

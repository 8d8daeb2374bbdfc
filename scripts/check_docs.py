"""Check the documentation: every relative link leads somewhere, every Python example at least parses.

Read are all Markdown files of the project; web addresses are not visited.  A problem is one line on standard
error, and the exit status is then 1.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
_INLINE_CODE = re.compile(r"`[^`\n]*`")
_HEADING = re.compile(r"^#+ +(.*?)\s*$", re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors that headings get on the usual Markdown hosts."""
    found: set[str] = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number = 1
        unique = slug
        while unique in found:
            unique = f"{slug}-{number}"
            number += 1
        found.add(unique)
    return found


def problems_in(path: Path) -> Iterator[str]:
    """What is wrong with one file."""
    text = path.read_text(encoding="utf-8")
    for indent, language, code in _FENCE.findall(text):
        if language in ("python", "py"):
            try:
                # What awaits at the top level is the inside of a coroutine.
                compile(textwrap.dedent(code), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            except SyntaxError as error:
                yield f"a Python example does not parse: {error.msg}: {(error.text or indent).strip()}"
    for link in _LINK.findall(_INLINE_CODE.sub("", _FENCE.sub("", text))):
        if re.match(r"[a-z][a-z0-9+.-]*:", link):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target).resolve() if target else path
        if not file.exists():
            yield f"link to {link}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text(encoding="utf-8")):
            yield f"link to {link}: no such heading"


def main() -> int:
    """Check all files."""
    files = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
    problems = [f"{path.relative_to(ROOT)}: {problem}" for path in files for problem in problems_in(path)]
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

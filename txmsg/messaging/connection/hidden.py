"""HiddenText: a password, or a URL that holds one, as a str that does not show itself.

Invariant: nothing of it is in `repr()`, so in no repr of what holds it, and in no verbose traceback, which prints the
`repr()` of local variables.  It is a str in all else: who formats it on purpose sees it.
"""

from __future__ import annotations

from typing import Any

__all__ = ["MASK", "HiddenText"]

#: What is shown in place of it.
MASK = "**"


class HiddenText(str):
    """A text that must not be seen in passing.  Pickled, it is a plain str again."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"'{MASK}'"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (str, (str.__str__(self),))

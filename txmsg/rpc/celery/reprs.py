"""Texts of values for logs and errors, of bounded size and work (celery E-13).

A value from a message can be deep, and with YAML's aliases contain itself or billions of elements: what is not shown is
not looked at.  Pure.
"""

from __future__ import annotations

import reprlib
from typing import Any, Final

__all__ = ["REPR_LIMIT", "bounded_repr"]

#: Characters, unless another limit is given: what Celery cuts at.
REPR_LIMIT: Final = 1024


class _Repr(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 16
        self.maxstring = self.maxother = self.maxlong = 256


_repr: Final = _Repr()


def bounded_repr(value: Any, limit: int = REPR_LIMIT) -> str:
    """Python's repr, with "..." for what is too much; text that can be sent.  Never fails."""
    try:
        text = _repr.repr(value)
    except Exception:  # of somebody's __repr__
        text = f"<{type(value).__name__}>"
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    return text.encode("utf-8", "backslashreplace").decode()

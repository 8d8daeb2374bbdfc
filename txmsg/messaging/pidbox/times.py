"""The logical clock that a message carries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["clock_in"]

#: A clock beyond this is not believed: one above the largest integer of AMQP could not be sent any more.
_LARGEST: Final = 2**62


def clock_in(headers: Mapping[str, Any]) -> int:
    """The sender's clock; 0 where there is none, or nothing that could be one."""
    clock = headers.get("clock")
    if isinstance(clock, bool) or not isinstance(clock, int) or not 0 <= clock < _LARGEST:
        return 0
    return clock

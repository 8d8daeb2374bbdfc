"""Alarms: what the broker is low on.  Publishers wait meanwhile; see `txmsg.broker.connection.blocking`.

https://www.rabbitmq.com/docs/alarms
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

__all__ = ["DISK", "MEMORY", "Alarms", "blocked_text"]

MEMORY: Final = "memory"
DISK: Final = "disk"


def blocked_text(sources: Iterable[str]) -> str:
    """The reason in connection.blocked, in RabbitMQ's words: "low on memory", "low on disk & memory"."""
    return f"low on {' & '.join(sorted(sources))}"


class Alarms:
    """The alarms that are on.

    changed -- called without arguments after every change.
    """

    __slots__ = ("_changed", "_sources")

    def __init__(self, changed: Callable[[], object]) -> None:
        self._changed = changed
        self._sources: set[str] = set()

    @property
    def are_on(self) -> bool:
        """Whether publishers have to wait."""
        return bool(self._sources)

    @property
    def sources(self) -> frozenset[str]:
        """What the broker is low on."""
        return frozenset(self._sources)

    def set(self, source: str) -> None:
        """The broker is low on `source`: :data:`MEMORY`, :data:`DISK`, or another word."""
        if source not in self._sources:
            self._sources.add(source)
            self._changed()

    def clear(self, source: str) -> None:
        """It is no longer."""
        if source in self._sources:
            self._sources.discard(source)
            self._changed()

    def __repr__(self) -> str:
        return f"<Alarms: {', '.join(sorted(self._sources)) or 'none'}>"

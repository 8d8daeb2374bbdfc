"""How many bytes the broker holds, for the alarm that blocks publishers (reliability promise R36).

RabbitMQ measures the memory of its process (https://www.rabbitmq.com/docs/memory); this counts what clients have
put into queues instead, which is what they can take away again.  A message counts once, however many queues hold
it, and each further place it has counts with what a place costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

__all__ = ["Usage"]

#: The alarm is over when the bytes are below this part of the limit: without the gap publishers would be blocked
#: and unblocked with every message.
_LOW_MARK: Final = 0.9
#: Beyond this many times the limit nothing is taken any more, whoever publishes.
_HARD_LIMIT: Final = 1.25


class Usage:
    """The bytes of all queues of a broker; one instance is shared by its virtual hosts.

    limit: int | None -- bytes beyond which `is_high` is true; None for no limit.

    `on_high()` is called when the limit is passed and `on_low()` when a tenth of it is free again; both are None
    until somebody sets them.  Neither may raise, nor publish.
    """

    __slots__ = ("_low_mark", "_mark", "bytes", "hard_limit", "is_high", "limit", "on_high", "on_low")

    def __init__(self, limit: int | None = None) -> None:
        self.bytes = 0
        self.is_high = False
        self.on_high: Callable[[], object] | None = None
        self.on_low: Callable[[], object] | None = None
        self.set_limit(limit)

    def set_limit(self, limit: int | None) -> None:
        """Another limit, in bytes; the alarm follows at once."""
        self.limit = limit
        #: Above `limit`, where messages are refused even from those who cannot be blocked.
        self.hard_limit: float = float("inf") if limit is None else limit * _HARD_LIMIT
        self._mark: float = float("inf") if limit is None else limit
        self._low_mark: float = float("inf") if limit is None else limit * _LOW_MARK
        if self.bytes > self._mark:
            self._rise()
        elif self.is_high and self.bytes <= self._low_mark:
            self._fall()

    @property
    def is_full(self) -> bool:
        """Whether queues take nothing any more."""
        return self.bytes > self.hard_limit

    def add(self, cost: int) -> None:
        """`cost` more bytes are held."""
        self.bytes += cost
        if self.bytes > self._mark and not self.is_high:
            self._rise()

    def remove(self, cost: int) -> None:
        """`cost` bytes are held no longer."""
        self.bytes -= cost
        if self.is_high and self.bytes <= self._low_mark:
            self._fall()

    def _rise(self) -> None:
        if not self.is_high:
            self.is_high = True
            if self.on_high is not None:
                self.on_high()

    def _fall(self) -> None:
        self.is_high = False
        if self.on_low is not None:
            self.on_low()

    def __repr__(self) -> str:
        limit = "no limit" if self.limit is None else f"limit {self.limit}"
        return f"<Usage: {self.bytes} bytes, {limit}{', high' if self.is_high else ''}>"

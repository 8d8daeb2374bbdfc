"""Blocking: one connection's part in the alarms (see `txmsg.broker.alarms`).

https://www.rabbitmq.com/docs/connection-blocked: the client is told once when the first alarm meets it and once when
the last is over, if it has the capability; in between nothing is read from it, so its acks and its close wait too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from txmsg.broker.alarms import Alarms, blocked_text

if TYPE_CHECKING:
    from txmsg.broker.connection import BrokerConnection

__all__ = ["Blocking"]


class Blocking:
    """Whether a connection is blocked.

    tell(reason) -- writes connection.blocked, or connection.unblocked for None.
    """

    __slots__ = ("_alarms", "_connection", "_tell", "has_published", "is_blocked")

    def __init__(self, connection: BrokerConnection, alarms: Alarms, tell: Callable[[str | None], object]) -> None:
        self._connection = connection
        self._alarms = alarms
        self._tell = tell
        #: Whether it has ever published, or begun to.
        self.has_published = False
        self.is_blocked = False

    def publishing_started(self) -> None:
        """The first publish has come."""
        if not self.has_published:
            self.has_published = True
            self.alarms_changed()

    def alarms_changed(self) -> None:
        """An alarm went on or off."""
        should_block = self.has_published and self._alarms.are_on
        if should_block == self.is_blocked:
            return
        self.is_blocked = should_block
        if should_block:
            self._tell(blocked_text(self._alarms.sources))
            self._connection.pause_reading(self)
        else:
            self._tell(None)
            self._connection.resume_reading(self)

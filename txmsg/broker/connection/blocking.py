"""Blocking: one connection's part in the alarms (see `txmsg.broker.alarms`).

https://www.rabbitmq.com/docs/connection-blocked, and measured on RabbitMQ 3.10: an alarm meets a connection at the next
publish it sends, whatever it did before.  It is told so, once and if it has the capability, and from that publish on
nothing of it is done until the last alarm is over, which it is told too: its acks and its close wait as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from txmsg.broker.alarms import Alarms, blocked_text

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection

__all__ = ["Blocking"]


class Blocking:
    """Whether a connection is blocked.

    tell(reason) -- writes connection.blocked, or connection.unblocked for None.
    """

    __slots__ = ("_alarms", "_connection", "_tell", "is_blocked")

    def __init__(self, connection: BrokerConnection, alarms: Alarms, tell: Callable[[str | None], object]) -> None:
        self._connection = connection
        self._alarms = alarms
        self._tell = tell
        self.is_blocked = False

    def publishing(self) -> None:
        """There is a publish."""
        if self._alarms.are_on and not self.is_blocked:
            self.is_blocked = True
            self._tell(blocked_text(self._alarms.sources))
            self._connection.pause_reading(self)

    def alarms_changed(self) -> None:
        """An alarm went on or off."""
        if self.is_blocked and not self._alarms.are_on:
            self.is_blocked = False
            self._tell(None)
            self._connection.resume_reading(self)

"""Patience: how long a delivery may stay without an ack.

https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout: a channel whose oldest delivery was made longer ago is
closed (406), and its deliveries go back to their queues, so that a consumer that hangs does not keep them for ever.

Invariant: it costs nothing per delivery.  Now and then the tag given last is noted; whatever has a tag up to that is at
least as old as the note.  So a delivery is judged between the time limit and two notes later.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from txmsg.broker.faults import acknowledgement_timeout

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.broker.interfaces import Timer

__all__ = ["Patience"]

#: Seconds between two notes at most; RabbitMQ's channel_tick_interval.
_INTERVAL: Final = 60.0


class Patience:
    """The time limit on the unsettled deliveries of one channel.

    limit: float -- seconds; 0 for none.
    """

    __slots__ = ("_channel", "_interval", "_limit", "_notes", "_timer")

    def __init__(self, channel: ServerChannel, limit: float) -> None:
        self._channel = channel
        self._limit = limit
        self._interval = min(_INTERVAL, limit / 2)
        #: When, and the tag given last by then; oldest first.
        self._notes: deque[tuple[float, int]] = deque()
        self._timer: Timer | None = None

    def start(self) -> None:
        """There may be unsettled deliveries from now on."""
        if self._timer is None and self._limit:
            self._set_timer()

    def stop(self) -> None:
        """The channel is over; no timer is left."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def _set_timer(self) -> None:
        self._timer = self._channel.vhost.clock.callLater(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        channel, settling = self._channel, self._channel.settling
        now = channel.vhost.clock.seconds()
        notes = self._notes
        notes.append((now, settling.last_tag))
        too_old = 0
        while notes[0][0] <= now - self._limit:
            too_old = notes.popleft()[1]
        oldest = next(iter(settling.unacked), None)
        if oldest is not None and oldest <= too_old:
            channel.refuse(acknowledgement_timeout(channel.number, self._limit), None)
        elif oldest is not None or channel.consuming.consumers:
            self._set_timer()
        else:
            notes.clear()

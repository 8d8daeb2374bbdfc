"""A client that does not read what it is sent: how much is kept for it, and for how long (4.4, write buffer).

Deliveries stop by themselves when the transport's buffer is full (`WireProtocol.can_publish`).  What is left are the
answers to what the client asks for, so:

- above half of the limit nothing more is read from it, until it has taken everything;
- above the limit it is dropped; and so it is when nothing at all has left for STALL_TIMEOUT seconds, which is
  RabbitMQ's `send_timeout`.

The write that fills the buffer does not count: a message may be larger than the limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall

from txmsg.broker.interfaces import Clock

__all__ = ["STALL_TIMEOUT", "SlowReader", "unsent"]

#: Seconds in which at least one octet has to leave.
STALL_TIMEOUT: Final = 15.0


def unsent(transport: Any) -> int | None:
    """Octets in the buffer of a transport of Twisted's, None for one whose buffer cannot be seen."""
    below = getattr(transport, "transport", None)  # of TLS
    if below is not None:
        transport = below
    try:
        return len(transport.dataBuffer) - int(transport.offset) + int(transport._tempDataLen)
    except (AttributeError, TypeError):
        return None


class SlowReader:
    """The watch over one connection's output.

    limit: int -- octets.  pause, resume -- stop reading, and go on.  too_slow -- called once, with the reason.
    left -- the octets that wait now, None where nobody knows.
    """

    __slots__ = ("_call", "_clock", "_is_pausing", "_last", "_left", "_limit", "_pause", "_resume", "_too_slow")

    def __init__(
        self,
        clock: Clock,
        limit: int,
        *,
        left: Callable[[], int | None],
        pause: Callable[[], object],
        resume: Callable[[], object],
        too_slow: Callable[[str], object],
    ) -> None:
        self._clock = clock
        self._limit = limit
        self._left = left
        self._pause = pause
        self._resume = resume
        self._too_slow = too_slow
        self._is_pausing = False
        self._call: IDelayedCall | None = None
        self._last: int | None = None

    def waiting(self, octets: int) -> None:
        """The transport's buffer is full, and since then `octets` were written."""
        if self._call is None:
            self._last = self._left()
            self._call = self._clock.callLater(STALL_TIMEOUT, self._look)
        if octets > self._limit:
            self.stop()
            self._too_slow(f"it does not read: {octets} bytes wait for it")
        elif octets * 2 > self._limit and not self._is_pausing:
            self._is_pausing = True
            self._pause()

    def emptied(self) -> None:
        """Everything has left."""
        self.stop()
        if self._is_pausing:
            self._is_pausing = False
            self._resume()

    def stop(self) -> None:
        """No timer is left."""
        call, self._call = self._call, None
        if call is not None and call.active():
            call.cancel()

    def _look(self) -> None:
        self._call = None
        left = self._left()
        if left is not None and self._last is not None and left < self._last:
            self._last = left
            self._call = self._clock.callLater(STALL_TIMEOUT, self._look)
        else:
            self._too_slow(f"it has read nothing for {STALL_TIMEOUT:g} s")

"""A client that does not read what it is sent: how much is kept for it, and for how long (4.4, write buffer).

Deliveries stop by themselves when the transport's buffer is full (`WireProtocol.can_publish`).  What is left are the
answers to what the client asks for, so:

- when more than half of the limit waits, nothing more is read from it until it has taken everything;
- when more than the limit is written even then, it is dropped; and so it is when nothing at all has left for
  STALL_TIMEOUT seconds, which is RabbitMQ's `send_timeout`.

The largest write does not count: one message may be larger than the limit, and whoever reads it gets it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall

from txmsg.broker.interfaces import Clock

__all__ = ["STALL_TIMEOUT", "SlowReader", "forget_unsent", "unsent"]

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


def forget_unsent(transport: Any) -> None:
    """Empty the buffer of a socket that is closed.

    Transport and protocol refer to each other, so that it would be kept until the next collection of cycles.
    """
    below = getattr(transport, "transport", None) or transport  # of TLS
    if isinstance(below, FileDescriptor):
        below.dataBuffer = b""
        below.offset = 0
        below._tempDataBuffer = []
        below._tempDataLen = 0


class SlowReader:
    """The watch over one connection's output.

    limit: int -- octets.  pause, resume -- stop reading, and go on.  too_slow -- called once, with the reason.
    left -- the octets that wait now, None where nobody knows.
    """

    __slots__ = (
        "_call",
        "_clock",
        "_is_closed",
        "_is_pausing",
        "_largest",
        "_last",
        "_left",
        "_limit",
        "_pause",
        "_resume",
        "_too_slow",
        "_waiting",
    )

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
        self._is_closed = False
        #: Octets written since the buffer was full, or since reading was paused; and the largest write of them.
        self._waiting = 0
        self._largest = 0
        self._call: IDelayedCall | None = None
        self._last: int | None = None

    def wrote(self, octets: int) -> None:
        """`octets` were written, and the transport's buffer is full now."""
        if self._is_closed:
            return
        if self._call is None:
            self._last = self._left()
            self._call = self._clock.callLater(STALL_TIMEOUT, self._look)
        self._waiting += octets
        if self._is_pausing:
            if self._waiting > self._limit:
                self.close()
                self._too_slow("it does not read what it is sent")
            return
        self._largest = max(self._largest, octets)
        if (self._waiting - self._largest) * 2 > self._limit:
            self._is_pausing = True
            self._waiting = 0
            self._pause()

    def emptied(self) -> None:
        """Everything has left."""
        self._stop_timer()
        self._waiting = self._largest = 0
        if self._is_pausing:
            self._is_pausing = False
            self._resume()

    def close(self) -> None:
        """The connection ends: watch no more."""
        self._is_closed = True
        self._stop_timer()

    def _stop_timer(self) -> None:
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
            self.close()
            self._too_slow(f"it has read nothing for {STALL_TIMEOUT:g} s")

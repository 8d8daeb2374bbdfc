"""HeartbeatMonitor: heartbeats out, and notice of a peer that has gone silent.

AMQP 0-9-1 section 4.2.7 and https://www.rabbitmq.com/docs/heartbeats: after `interval` T was
negotiated, each side sends something at least every T, and a peer that was silent for two intervals
is dead.  Any byte counts as a sign of life, not only heartbeat frames.  The invariants:

- the peer is judged dead between 2T and 2T + 1 s after its last byte, never before 2T;
- it is judged only after the reactor had a turn to read what had arrived meanwhile, so an application
  that blocks the reactor does not make us drop a live connection;
- something is sent within T/2 + 1 s of the last write; nothing is sent when that was recent;
- nothing here is called per frame or per chunk: the owner stamps two attributes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["HeartbeatMonitor"]

_GRACE = 0.5  # seconds between the deadline and the judgement; with the deadline's own lateness less than 1 s
_TOLERANCE = 0.001  # a timer that fires this much early is on time: sums of floats are not exact


class HeartbeatMonitor:
    """Watch one connection, client's or server's; start it when tuning is done, stop it at close.

    interval: float -- the negotiated heartbeat T in seconds; 0 switches everything off.
    clock -- an `IReactorTime` provider for the timers.
    send -- called without arguments when a heartbeat frame is due.
    dead -- called once, without arguments, when the peer is dead; the monitor has stopped by then.
    now -- the clock to measure with, in seconds.  The default is the clock's own `seconds`, except for
        a reactor that reads the wall clock (Twisted's do), where it is `time.monotonic`: the wall clock
        may be set while the connection lives.

    The owner writes `monitor.last_received = monitor.now()` for each chunk of bytes received.  It may write
    `monitor.last_sent = monitor.now()` for each write, which spares a heartbeat; one that does not sends
    them also while it is busy, which is allowed.
    """

    __slots__ = (
        "_check_call",
        "_clock",
        "_dead",
        "_reading_paused",
        "_send",
        "_send_call",
        "interval",
        "last_received",
        "last_sent",
        "now",
    )

    def __init__(
        self,
        interval: float,
        clock: IReactorTime,
        send: Callable[[], object],
        dead: Callable[[], object],
        *,
        now: Callable[[], float] | None = None,
    ) -> None:
        if not (math.isfinite(interval) and interval >= 0):
            raise ValueError(f"a heartbeat interval is a number of seconds from 0 up, not {interval!r}")
        self.interval = interval
        self._clock = clock
        self._send = send
        self._dead = dead
        if now is None:
            now = time.monotonic if clock.seconds is time.time else clock.seconds
        self.now: Callable[[], float] = now
        self.last_received = self.last_sent = now()
        self._reading_paused = False
        self._send_call: IDelayedCall | None = None
        self._check_call: IDelayedCall | None = None

    @property
    def is_running(self) -> bool:
        """Whether heartbeats are sent and the peer is watched."""
        return self._check_call is not None

    @property
    def reading_paused(self) -> bool:
        """Set this to True while the owner itself does not read, and to False when it reads again.

        Meanwhile the peer is not judged: its bytes wait in the kernel.  After that it has its two
        intervals again.
        """
        return self._reading_paused

    @reading_paused.setter
    def reading_paused(self, paused: bool) -> None:
        if self._reading_paused and not paused:
            self.last_received = self.now()
        self._reading_paused = paused

    def start(self) -> None:
        """Begin; both windows start now.  Does nothing with an interval of 0, or when running."""
        if not self.interval or self.is_running:
            return
        self.last_received = self.last_sent = self.now()
        self._send_call = self._clock.callLater(self.interval / 2, self._maybe_send)
        self._check_call = self._clock.callLater(self.interval * 2, self._check)

    def stop(self) -> None:
        """End; no timer is left.  May be called at any time and more than once."""
        send_call, self._send_call = self._send_call, None
        check_call, self._check_call = self._check_call, None
        for call in (send_call, check_call):
            if call is not None and call.active():
                call.cancel()

    def _maybe_send(self) -> None:
        wait = self.last_sent + self.interval / 2 - self.now()
        if wait <= _TOLERANCE:
            # Before the call, because the owner stamps its write itself, or closes and stops us.
            self.last_sent = self.now()
            self._send()
            if not self.is_running:
                return
            wait = self.interval / 2
        self._send_call = self._clock.callLater(wait, self._maybe_send)

    def _check(self) -> None:
        """The deadline, as it was when the timer was set: has it moved, or is it time to judge?"""
        if self._reading_paused:
            self._check_call = self._clock.callLater(self.interval * 2, self._check)
            return
        wait = self.last_received + self.interval * 2 - self.now()
        if wait > _TOLERANCE:
            self._check_call = self._clock.callLater(wait, self._check)
            return
        # This timer may run late because the reactor was blocked.  Timers run before sockets are read,
        # so what the peer sent meanwhile is read between here and `_judge`.
        self._check_call = self._clock.callLater(min(_GRACE, self.interval), self._judge)

    def _judge(self) -> None:
        if self._reading_paused or self.last_received + self.interval * 2 - self.now() > _TOLERANCE:
            self._check()
            return
        self.stop()
        self._dead()

    def __repr__(self) -> str:
        state = "running" if self.is_running else "stopped"
        paused = ", reading paused" if self._reading_paused else ""
        return f"<HeartbeatMonitor {self.interval} s, {state}{paused}>"

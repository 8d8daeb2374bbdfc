"""Outage: what has been tried since the connection was lost, and what that makes of the next wait.

An outage goes from a loss to the next connection that is ready; the first connect is one too.  In it the hosts are
tried in rounds (:mod:`txmsg.amqp.recovery.hosts`), and the back-off grows with each (R12).  It does not begin anew
where the connection before was not stable: one that is lost a second after it is ready has not ended anything.

Invariants: `next_delay` calls nothing of the application's.  The limit's timer runs in an outage only.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.failures import Verdict, classify
from txmsg.amqp.recovery.hosts import Host, HostList

__all__ = ["Outage"]


class Outage:
    """The present outage of a connection, or the last one while it is ready.

    clock: IReactorTime.   backoff: Backoff.   hosts: HostList -- told of what they did.
    limit: float | None -- seconds, then `too_long()` is called.

    attempts: int -- single attempts in it.   rounds: int -- rounds over all hosts that have ended in it.
    """

    def __init__(
        self,
        clock: Any,
        backoff: Backoff,
        hosts: HostList,
        limit: float | None,
        too_long: Callable[[], object],
    ) -> None:
        self.attempts = 0
        self.rounds = 0
        self._clock = clock
        self._backoff = backoff
        self._hosts = hosts
        self._limit = limit
        self._too_long = too_long
        self._timer: IDelayedCall | None = None
        #: Waits since a connection was last stable, when that was, and when this one became ready.
        self._step = 0
        self._unstable_since = 0.0
        self._ready_at: float | None = None

    def first(self) -> None:
        """The first connect begins."""
        self._unstable_since = self._clock.seconds()
        self.begin()

    def begin(self) -> None:
        """It begins, if it has not: the limit counts from now on."""
        if self._limit is not None and self._timer is None:
            self._timer = self._clock.callLater(self._limit, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        self._too_long()

    def ready(self, host: Host | None) -> None:
        """There is a connection, to `host`."""
        self._ready_at = self._clock.seconds()
        if host is not None:
            self._hosts.worked(host)
        self.end()

    def end(self) -> None:
        """It is over."""
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def next_delay(self, host: Host | None, error: BaseException, is_seen_to: bool) -> float:
        """Note that an attempt at `host` failed with `error`, or that the connection to it was lost; return the wait.

        is_seen_to: what was to blame is left out next time, so there is no reason to wait.
        """
        now = self._clock.seconds()
        dead = None
        if self._ready_at is not None:
            if now - self._ready_at >= self._backoff.reset_after:
                self._step = 0
                self._unstable_since = now
            self._ready_at = None
            self.rounds = self.attempts = 0
            dead = host
        if host is not None:
            verdict = Verdict.FAST if is_seen_to else classify(error)
            is_again = self._hosts.failed(host, verdict)
            if verdict in (Verdict.SLOW, Verdict.FATAL) or (verdict is Verdict.UNSURE and is_again):
                self._hosts.hold(host, self._backoff.slow_delay())
        if dead is None and self._hosts.has_more:
            return 0.0
        if dead is None:
            self.rounds += 1
        self._hosts.begin_round(dead)
        self._step += 1
        delay = self._backoff.delay(self._step, now - self._unstable_since)
        return max(delay, self._hosts.wait())

"""What happens to the service's connections, in the log, and how long an outage is borne.

One line for each change of state: connecting for the first time, connected, blocked, no longer blocked, and one for
each attempt that failed, with the time of the next.  Hosts are names and ports, reasons are the library's own errors:
no secret is in a line (R31).

Three limits end the service (R33: it says why, and with which code).  All of them count from the beginning of an
outage; the start is one:

- `start_limit`, until it has consumed for the first time;
- `recovery_limit`, for each later outage;
- `refused_limit`: so long every answer was a refusal of what we are (login, virtual host, certificate).  At the start
  nothing says that it was ever right, so that one round over the hosts is enough.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from txmsg.amqp import ReconnectingConnection, RecoveryEvent, RecoveryState, StateChange
from txmsg.amqp.recovery.failures import Verdict, classify
from txmsg.errors import ConnectTimeout, clip
from txmsg.service.config import ConsumerConfig

__all__ = ["REFUSED_LATER", "ConnectionWatch"]

#: Default of `refused_limit` once the service has consumed.
REFUSED_LATER = 300.0

_UP = (RecoveryState.READY, RecoveryState.BLOCKED)


class ConnectionWatch:
    """Watches one connection.

    what: how the lines call it.  addresses: by "host:port", the URL to show for it.  clock: an IReactorTime.
    on_give_up: called once with the last error when a limit has passed.
    """

    _log = Logger()

    def __init__(
        self,
        connection: ReconnectingConnection,
        config: ConsumerConfig,
        *,
        what: str,
        addresses: dict[str, str],
        clock: Any,
        on_give_up: Callable[[BaseException], object],
    ) -> None:
        self._connection = connection
        self._config = config
        self._what = what
        self._addresses = addresses
        self._clock = clock
        self._on_give_up = on_give_up
        self._has_started = False
        self._is_limiting = True
        self._began = 0.0
        self._refused_since: float | None = None
        self._limit: IDelayedCall | None = None
        connection.logs_retries = False  # it is in the line for the loss
        connection.add_state_callback(self._changed)
        connection.add_event_callback(self._happened)

    def begin(self) -> None:
        """The start begins."""
        self._outage(self._config.start_limit)

    def started(self) -> None:
        """The start is over: from now on `recovery_limit` holds."""
        self._has_started = True
        self._stop_limit()
        if not self._connection.is_ready and self._is_limiting:
            self._outage(self._config.recovery_limit)

    def stop_limiting(self) -> None:
        """The service ends anyway: give up no more."""
        self._is_limiting = False
        self._stop_limit()

    @property
    def start_is_over(self) -> bool:
        """Whether `start_limit` has passed."""
        limit = self._config.start_limit
        return limit is not None and self._clock.seconds() - self._began >= limit

    def _outage(self, limit: float | None) -> None:
        self._began = self._clock.seconds()
        if limit:
            self._limit = self._clock.callLater(limit, self._too_long)

    def _stop_limit(self) -> None:
        limit, self._limit = self._limit, None
        if limit is not None and limit.active():
            limit.cancel()

    def _too_long(self) -> None:
        self._limit = None
        error = self._connection.last_error
        if error is None or self._connection.is_ready:
            error = ConnectTimeout(f"not consuming within {self._clock.seconds() - self._began:g} s")
        self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._is_limiting:
            self.stop_limiting()
            self._on_give_up(error)

    # -- states ------------------------------------------------------------------------------------

    def _changed(self, change: StateChange) -> None:
        if change.new is RecoveryState.CONNECTING and change.old is RecoveryState.IDLE:
            self._log.info(
                "connecting to {hosts}{for_what}", hosts=", ".join(self._connection.hosts), for_what=self._for_what
            )
        elif change.new is RecoveryState.READY and change.old is RecoveryState.BLOCKED:
            self._log.info("{what} is no longer blocked", what=self._what)
        elif change.new is RecoveryState.READY:
            self._ready(change)
        elif change.new is RecoveryState.BLOCKED:
            self._log.warn(
                "{what} is blocked, the broker takes no publishes: {reason}",
                what=self._what,
                reason=clip(str(change.reason or "no reason given")),
            )
        elif change.new is RecoveryState.LOST:
            self._lost(change)

    @property
    def _for_what(self) -> str:
        name = self._what.removeprefix("the ").removesuffix("connection").strip()
        return f" ({name})" if name else ""

    def _ready(self, change: StateChange) -> None:
        self._refused_since = None
        if self._has_started:
            self._stop_limit()
        name, _, address = change.host.partition(" ")
        self._log.info(
            "connected to {address}{resolved}{for_what}",
            for_what=self._for_what,
            address=self._addresses.get(name, name),
            resolved=f" {address}" if address else "",
        )

    def _lost(self, change: StateChange) -> None:
        reason = change.reason
        now = self._clock.seconds()
        if change.old in _UP and self._has_started and self._is_limiting:
            self._outage(self._config.recovery_limit)
        self._log.warn(
            "{what} {fate}: {reason}; next attempt {soon}",
            what=self._what,
            fate=f"to {change.host} is lost" if change.old in _UP else f"to {change.host} cannot be made",
            reason=clip(" ".join(str(reason).split()), 300) or type(reason).__name__,
            soon=f"in {change.delay:.1f} s" if change.delay else "at once",
        )
        assert isinstance(reason, BaseException)
        if classify(reason) in (Verdict.SLOW, Verdict.FATAL):
            if self._refused_since is None:
                self._refused_since = now
        else:
            self._refused_since = None
        # Without a delay there are hosts left in this round.
        if change.old in _UP or not change.delay:
            return
        is_refused = self._refused_since is not None and now - self._refused_since >= self._refused_limit
        if is_refused or (not self._has_started and self.start_is_over):
            self._give_up(reason)

    @property
    def _refused_limit(self) -> float:
        limit = self._config.refused_limit
        if limit is None:
            return REFUSED_LATER if self._has_started else 0.0
        return limit

    def _happened(self, event: RecoveryEvent) -> None:
        if event.error is None:  # the others are in the log already, by the connection
            self._log.info("{event}", event=str(event))

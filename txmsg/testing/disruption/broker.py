"""A broker of a simulation: the embedded broker, which can crash and be started again, with its data or without.

Invariant: a broker that has crashed does nothing any more: no octet leaves, nothing reaches its disk, no timer stays.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Literal

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IAddress, IProtocol
from twisted.internet.protocol import Protocol

from txmsg.broker.limits import BrokerLimits
from txmsg.errors import ConfigurationError
from txmsg.testing.broker import EmbeddedBroker
from txmsg.testing.disruption.clock import SimulatedClock
from txmsg.testing.disruption.disk import Disk, SimulatedStore
from txmsg.testing.disruption.links import Link

__all__ = ["Kept", "SimulatedBroker"]

#: What a crash leaves: what was synced; also what was told to the store and not yet synced; nothing at all.
Kept = Literal["synced", "written", "nothing"]


class SimulatedBroker:
    """One broker in a simulation; use `simulation.broker`, or `simulation.brokers["name"]`.

    name: str.
    embedded: EmbeddedBroker -- the one that runs, or ran last: for `queue()`, `publish()`, `faults` and the rest.
        Each start makes another.
    disk: Disk -- what is safe.
    crashes, starts: int -- how often.
    is_silent: bool -- accept connections and say nothing on them, while True.
    is_unreachable: bool -- do not even answer who connects, while True.
    """

    def __init__(
        self,
        name: str,
        clock: SimulatedClock,
        random: Random,
        note: Callable[[str, str], object],
        links: Callable[[SimulatedBroker], list[Link]],
        *,
        is_durable: bool,
        sync_delay: tuple[float, float],
        limits: BrokerLimits | None,
        set_up: Callable[[EmbeddedBroker], object] | None,
    ) -> None:
        self.name = name
        self.disk = Disk()
        self.crashes = self.starts = 0
        self.is_silent = self.is_unreachable = False
        self._clock = clock
        self._random = random
        self._note = note
        self._links = links
        self._is_durable = is_durable
        self._sync_delay = sync_delay
        self._limits = limits
        self._set_up = set_up
        self._store: SimulatedStore | None = None
        self._is_up = self._is_starting = False
        self.embedded = self._make()

    @property
    def is_up(self) -> bool:
        """Whether it takes connections."""
        return self._is_up

    def _make(self) -> EmbeddedBroker:
        self._store = None
        if self._is_durable:
            low, high = self._sync_delay
            self._store = SimulatedStore(
                self.disk, self._clock, lambda: low + (high - low) * self._random.random() if high else 0.0
            )
        return EmbeddedBroker(reactor=self._clock, limits=self._limits, store=self._store)

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Deferred[EmbeddedBroker]:
        """Start with what is on the disk; fires with the embedded broker once it takes connections.

        It is a ConfigurationError while it is up.
        """
        if self._is_up or self._is_starting:
            raise ConfigurationError(f"the broker {self.name} is up")
        if self.starts:
            self.embedded = self._make()
        self.starts += 1
        self._is_starting = True
        starting = self.embedded
        return starting.start().addCallback(self._started)

    def _started(self, embedded: EmbeddedBroker) -> EmbeddedBroker:
        if embedded is self.embedded and self._is_starting:
            self._is_up, self._is_starting = True, False
            self._note(self.name, "is up")
            if self._set_up is not None:
                self._set_up(embedded)
        return embedded

    def stop(self) -> Deferred[None]:
        """Stop in order: connections are closed with 320, what was told is synced.  Fires when it is down."""
        if not (self._is_up or self._is_starting):
            return succeed(None)
        self._is_up = self._is_starting = False
        self._note(self.name, "stops")
        return self.embedded.stop()

    def crash(self, keep: Kept = "synced", *, silent: bool = False) -> None:
        """It is gone at once, as with kill -9.

        keep: what the disk holds afterwards: what was "synced" (in a durable simulation that is at least everything
            confirmed); what was "written", too, of which no client has been told; or "nothing".
        silent: whether clients do not notice, as with a host that loses its power; else their connections are reset.
        """
        if keep not in ("synced", "written", "nothing"):
            raise ConfigurationError('a crash keeps what was "synced", what was "written", or "nothing"')
        if not (self._is_up or self._is_starting):
            return
        self._is_up = self._is_starting = False
        self.crashes += 1
        self._note(self.name, f"crashes, its disk keeps {'' if keep == 'nothing' else 'what was '}{keep}")
        for link in self._links(self):
            if silent:
                link.swallow()
            else:
                link.reset()
        if self._store is not None:
            if keep == "written":
                self._store.sync()
            self._store.lose()
        if keep == "nothing":
            self.disk = Disk()
        dead = self.embedded
        for connection in list(dead.broker.connections):
            connection.abort_transport()
        dead.stop()

    def restart(self, after: float = 0.5, *, keep: Kept = "synced") -> None:
        """Crash now, and start again `after` seconds."""
        self.crash(keep)
        self._clock.callLater(after, self.start_unless_up)

    def start_unless_up(self) -> None:
        """Start it, if it is down."""
        if not (self._is_up or self._is_starting):
            self.start()

    # -- connections -------------------------------------------------------------------------------

    def accept(self, address: IAddress) -> IProtocol | None:
        """The protocol for a client that connects; None while it is down."""
        if not self._is_up:
            return None
        if self.is_silent:
            return Protocol()
        made: Any = self.embedded.broker.factory.buildProtocol(address)
        found: IProtocol | None = made
        return found

    def __repr__(self) -> str:
        return f"<SimulatedBroker {self.name}: {'up' if self._is_up else 'down'}, {self.crashes} crashes>"

"""Disasters at random, as the seed of a simulation has them: what and when and to whom."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Final, Literal

from twisted.internet.interfaces import IDelayedCall

from txmsg.errors import ConfigurationError
from txmsg.testing.scripted import ScriptedFault

if TYPE_CHECKING:
    from txmsg.testing.disruption.broker import SimulatedBroker
    from txmsg.testing.disruption.simulator import Simulation

__all__ = ["Chaos", "Disaster"]

Disaster = Literal["fin", "rst", "stall", "blackhole", "crash", "stop"]

_TO_LINKS: Final = ("fin", "rst", "stall", "blackhole")
_TO_BROKERS: Final = ("crash", "stop")


class Chaos(ScriptedFault):
    """One disaster after the other, until `times` of them have happened or it is stopped.

    A broker that is down then comes up all the same.

    history: list of (seconds, disaster, whose).
    """

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        simulation: Simulation,
        disasters: tuple[Disaster, ...],
        every: tuple[float, float],
        lasting: tuple[float, float],
        random: Random,
    ) -> None:
        super().__init__(ended, times)
        unknown = set(disasters) - {*_TO_LINKS, *_TO_BROKERS}
        if unknown or not disasters:
            raise ConfigurationError(f"disasters are some of {', '.join((*_TO_LINKS, *_TO_BROKERS))}")
        if not 0 < every[0] <= every[1] or not 0 < lasting[0] <= lasting[1]:
            raise ConfigurationError("every and lasting are a least and a most number of seconds, above 0")
        self.history: list[tuple[float, Disaster, str]] = []
        self._simulation = simulation
        self._disasters = disasters
        self._every = every
        self._lasting = lasting
        self._random = random
        #: Stalls that last, and how each ends.
        self._held: dict[IDelayedCall, Callable[[], None]] = {}
        self._next = simulation.clock.callLater(random.uniform(*every), self._strike)

    def _strike(self) -> None:
        self._next = self._simulation.clock.callLater(self._random.uniform(*self._every), self._strike)
        disaster = self._random.choice(self._disasters)
        if disaster in _TO_LINKS:
            self._strike_link(disaster)
        else:
            self._strike_broker(disaster)

    def _strike_link(self, disaster: Disaster) -> None:
        links = self._simulation.open_links()
        if not links:
            return
        link = self._random.choice(links)
        self._note(disaster, link.name)
        if disaster == "fin":
            link.close()
        elif disaster == "rst":
            link.reset()
        elif disaster == "blackhole":
            link.swallow()
        else:
            self._hold(link.hold())
        self._happened()

    def _hold(self, release: Callable[[], None]) -> None:
        def over() -> None:
            del self._held[call]
            release()

        call = self._simulation.clock.callLater(self._random.uniform(*self._lasting), over)
        self._held[call] = release

    def _strike_broker(self, disaster: Disaster) -> None:
        brokers = [broker for broker in self._simulation.brokers.values() if broker.is_up]
        if not brokers:
            return
        broker = self._random.choice(brokers)
        self._note(disaster, broker.name)
        after = self._random.uniform(*self._lasting)
        if disaster == "crash":
            broker.crash(self._random.choice(("synced", "written")))
            self._later(after, broker)
        else:
            broker.stop().addCallback(lambda _: self._later(after, broker))
        self._happened()

    def _later(self, seconds: float, broker: SimulatedBroker) -> None:
        """Start it again."""
        if self.is_active:
            self._simulation.clock.callLater(seconds, broker.start_unless_up)
        else:
            broker.start_unless_up()

    def _note(self, disaster: Disaster, whose: str) -> None:
        self.history.append((self._simulation.clock.seconds(), disaster, whose))
        self._simulation.note("chaos", f"{disaster} of {whose}")

    def _release(self) -> None:
        if self._next.active():
            self._next.cancel()
        held, self._held = self._held, {}
        for call, release in held.items():
            call.cancel()
            release()

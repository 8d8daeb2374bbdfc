"""What the proxy does to the octets that pass, for as long as it is switched on: slow, slice, hold, swallow.

The names are those of toxiproxy's toxics where there is one (https://github.com/Shopify/toxiproxy#toxics); here each is
for one direction or both, may be switched on and off while connections are open, and several add up.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from txmsg.errors import ConfigurationError
from txmsg.testing.disruption.frames import Direction, Directions, directions_of
from txmsg.testing.scripted import ScriptedFault

__all__ = ["Bandwidth", "BlackHole", "Hold", "Latency", "Slicer", "SlowClose", "Toxic"]


class Toxic(ScriptedFault):
    """Something that lasts until `stop()`; `count` is how many chunks it has met."""

    def __init__(self, ended: Callable[[ScriptedFault], object], directions: Directions) -> None:
        super().__init__(ended, None)
        self._directions = directions_of(directions)

    def is_for(self, direction: Direction) -> bool:
        """Whether it is for what goes that way."""
        return direction in self._directions

    def met(self) -> None:
        """For the proxy: it has changed how a chunk passes."""
        self.count += 1


class Latency(Toxic):
    """Everything takes `seconds` longer, plus or minus up to `jitter`; order is kept."""

    def __init__(
        self, ended: Callable[[ScriptedFault], object], directions: Directions, seconds: float, jitter: float
    ) -> None:
        if seconds < 0 or jitter < 0:
            raise ConfigurationError("latency and jitter are numbers of seconds from 0 up")
        super().__init__(ended, directions)
        self._seconds = seconds
        self._jitter = jitter

    def delay(self, luck: float) -> float:
        """Seconds; `luck` is between -1 and 1."""
        return max(0.0, self._seconds + self._jitter * luck)


class Bandwidth(Toxic):
    """At most so many octets per second pass on each connection; 0: none."""

    def __init__(
        self, ended: Callable[[ScriptedFault], object], directions: Directions, octets_per_second: float
    ) -> None:
        if octets_per_second < 0:
            raise ConfigurationError("a bandwidth is a number of octets per second, from 0 up")
        super().__init__(ended, directions)
        self.octets_per_second = octets_per_second


class Slicer(Toxic):
    """Octets pass in slices of `size`, more or less by up to `variation`, `delay` seconds apart."""

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        directions: Directions,
        size: int,
        variation: int,
        delay: float,
    ) -> None:
        if size < 1 or variation < 0 or delay < 0:
            raise ConfigurationError("a slice has 1 octet or more; variation and delay are from 0 up")
        super().__init__(ended, directions)
        self._size = size
        self._variation = variation
        self.delay = delay

    def slice(self, random: Random) -> int:
        """Octets of the next slice."""
        if not self._variation:
            return self._size
        return max(1, self._size + random.randint(-self._variation, self._variation))


class BlackHole(Toxic):
    """What passes is lost, and nobody is told; not even of an end, while it lasts."""


class Hold(Toxic):
    """Nothing passes, and it all goes on when this is stopped; the sender's socket fills up meanwhile."""


class SlowClose(Toxic):
    """The end of a stream passes so many seconds late."""

    def __init__(self, ended: Callable[[ScriptedFault], object], directions: Directions, seconds: float) -> None:
        if seconds < 0:
            raise ConfigurationError("a delay is a number of seconds from 0 up")
        super().__init__(ended, directions)
        self.seconds = seconds

"""Faults of the network that happen at an octet or a frame: FIN, RST, black hole, stall, or what you like.

A position is counted in what has arrived in one direction of one connection, from its beginning; 0 is before anything
has.  So a sweep over all positions meets a session in each of its states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Literal, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime

from txmsg.errors import ConfigurationError, clip
from txmsg.testing.disruption.frames import Direction, Directions, directions_of
from txmsg.testing.scripted import Meter, ScriptedFault

__all__ = ["Cut", "Cuttable", "How"]

#: What happens at the position.
How = Literal["fin", "rst", "blackhole", "stall"]

_HOW: Final = ("fin", "rst", "blackhole", "stall")


class Cuttable(Protocol):
    """A connection that passes by: a link of a simulation, or a connection through the proxy."""

    @property
    def client(self) -> str:
        """Whose it is, where that is known."""

    @property
    def number(self) -> int:
        """Which one of this client, from 1."""

    def watch(self, direction: Direction, meter: Meter, reached: Callable[[Any], object]) -> None:
        """Call `reached` with this when what has arrived that way reaches the meter's limit."""

    def close(self) -> None:
        """Both ends read the end of the stream."""

    def reset(self) -> None:
        """Both ends lose it."""

    def swallow(self, directions: tuple[Direction, ...]) -> None:
        """Nothing arrives any more."""

    def hold(self, directions: tuple[Direction, ...]) -> Callable[[], None]:
        """Nothing arrives until what is returned is called."""


_C = TypeVar("_C", bound=Cuttable)


class Cut(ScriptedFault, Generic[_C]):
    """One of these faults, set by `simulation.cut()` or `proxy.cut()`; counts how often it has happened."""

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        clock: IReactorTime,
        how: How | Callable[[_C], object],
        direction: Direction,
        *,
        after_bytes: int | None,
        after_frames: int | None,
        client: str | None,
        connection: int | None,
        stops: Directions,
        seconds: float | None,
    ) -> None:
        super().__init__(ended, times)
        if not callable(how) and how not in _HOW:
            raise ConfigurationError(f"{clip(repr(how), 40)} is none of {', '.join(_HOW)}, nor a function")
        if (after_bytes is None) is (after_frames is None):
            raise ConfigurationError("give one of after_bytes and after_frames")
        limit = after_bytes if after_bytes is not None else after_frames
        assert limit is not None
        if limit < 0:
            raise ConfigurationError("a position is a number from 0 up")
        self._clock = clock
        self._how = how
        [self._direction] = directions_of(direction)
        self._limit = limit
        self._in_frames = after_frames is not None
        self._client = client
        self._connection = connection
        self._stops = directions_of(stops)
        self._seconds = seconds
        self._held: list[Callable[[], None]] = []

    def connected(self, link: _C) -> None:
        """A connection was made."""
        if not self.is_active or self._client not in (None, link.client) or self._connection not in (None, link.number):
            return
        if self._limit:
            link.watch(self._direction, Meter(self._limit, in_frames=self._in_frames), self._reached)
        else:
            self._reached(link)

    def _reached(self, link: _C) -> None:
        if not self.is_active:
            return
        how = self._how
        if callable(how):
            how(link)
        elif how == "fin":
            link.close()
        elif how == "rst":
            link.reset()
        elif how == "blackhole":
            link.swallow(self._stops)
        else:
            self._stall(link)
        self._happened()

    def _stall(self, link: _C) -> None:
        release = link.hold(self._stops)
        if self._seconds is not None:
            self._clock.callLater(self._seconds, release)
        else:
            self._held.append(release)

    def _happened(self) -> None:
        # A stall lasts until somebody stops it, so it is not over when it has happened as often as it may.
        self.count += 1
        if self.times is not None and self.count >= self.times and not self._held:
            self.stop()

    def _release(self) -> None:
        held, self._held = self._held, []
        for release in held:
            release()

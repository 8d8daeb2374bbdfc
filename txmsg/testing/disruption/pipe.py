"""One direction of one connection through the proxy.

Invariants: octets leave in the order they came, but for those that a fault changes or takes; what is held is bounded,
since above `HELD` the source is not read; a position fault happens when exactly so many octets have been handed to the
other side's socket.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from zope.interface import implementer

from txmsg.testing.disruption.frames import Direction
from txmsg.testing.disruption.toxics import Bandwidth, BlackHole, Hold, Latency, Slicer, SlowClose
from txmsg.testing.scripted import Meter

if TYPE_CHECKING:
    from txmsg.testing.disruption.proxied import ProxiedConnection

__all__ = ["HELD", "Pipe"]

#: Octets that a pipe holds before it stops reading.
HELD: Final = 256 * 1024
#: A limited bandwidth passes in so many pieces a second.
_TICKS: Final = 50


@implementer(IPushProducer)
class Pipe:
    """From one side of a connection to the other.

    connection: ProxiedConnection.   direction: "to_broker" or "to_client".
    """

    def __init__(self, connection: ProxiedConnection, direction: Direction, random: Random) -> None:
        self.direction: Direction = direction
        self.editor = connection.proxy.frames.editor(direction)
        self._connection = connection
        self._proxy = connection.proxy
        self._clock = connection.proxy.reactor
        self._random = random
        self._source: Any = None
        self._sink: Any = None
        #: (when it came, luck, octets)
        self._queue: deque[tuple[float, float, bytes]] = deque()
        self._size = 0
        self._meters: list[tuple[Meter, Callable[[ProxiedConnection], object]]] = []
        self._holds = 0
        self._is_swallowing = False
        self._is_sink_full = False
        self._is_source_paused = False
        self._timer: IDelayedCall | None = None
        #: Nothing leaves before: bandwidth and slices.
        self._free_at = 0.0
        #: When the source's stream ended.
        self._ended_at: float | None = None
        self.is_finished = False
        self._is_stopped = False

    # -- both ends ---------------------------------------------------------------------------------

    def reads(self, source: Any) -> None:
        """This is where octets come from."""
        self._source = source

    def writes(self, sink: Any) -> None:
        """This is where they go to; what has come so far may leave."""
        self._sink = sink
        sink.registerProducer(self, True)
        self.wake()

    def received(self, data: bytes) -> None:
        """Some octets came."""
        counters = self._proxy.counters
        counters.octets[self.direction] += len(data)
        before = self.editor.cutter.frames
        data = self.editor.feed(data)
        counters.frames[self.direction] += self.editor.cutter.frames - before
        if not data:
            return
        if self._is_lost():
            counters.swallowed[self.direction] += len(data)
            return
        self._queue.append((self._clock.seconds(), self._random.uniform(-1, 1), data))
        self._size += len(data)
        if self._size > HELD and not self._is_source_paused:
            self._is_source_paused = True
            self._source.pauseProducing()
        self._pump()

    def source_ended(self) -> None:
        """The source will send nothing more; the other side is told behind what is held."""
        if self._ended_at is None:
            self._ended_at = self._clock.seconds()
            self._pump()

    def stop(self) -> None:
        """The connection is gone."""
        self._is_stopped = True
        self._queue.clear()
        self._size = 0
        self._cancel_timer()

    # -- faults ------------------------------------------------------------------------------------

    def watch(self, meter: Meter, reached: Callable[[ProxiedConnection], object]) -> None:
        """Call `reached(connection)` when what has left reaches the meter's limit."""
        self._meters.append((meter, reached))

    def hold(self) -> None:
        """Let nothing leave, until as many :meth:`release` calls."""
        self._holds += 1

    def release(self) -> None:
        """Go on."""
        self._holds -= 1
        self.wake()

    def swallow(self) -> None:
        """Let nothing leave any more, ever."""
        self._is_swallowing = True
        self._queue.clear()
        self._size = 0

    def wake(self) -> None:
        """Something was switched on or off."""
        self._cancel_timer()
        self._free_at = 0.0
        self._pump()

    @property
    def is_held(self) -> bool:
        """Whether nothing passes now."""
        return bool(self._holds or self._is_lost() or self._toxics(Hold))

    def _is_lost(self) -> bool:
        return self._is_swallowing or bool(self._toxics(BlackHole))

    def _toxics(self, kind: type[Any]) -> list[Any]:
        return [each for each in self._proxy.toxics if type(each) is kind and each.is_for(self.direction)]

    # -- IPushProducer, for the sink's transport ---------------------------------------------------

    def pauseProducing(self) -> None:
        """Twisted: the other side's socket is full."""
        self._is_sink_full = True

    def resumeProducing(self) -> None:
        """Twisted: there is room again."""
        self._is_sink_full = False
        self._pump()

    def stopProducing(self) -> None:
        """Twisted: the other side is gone."""

    # -- inside ------------------------------------------------------------------------------------

    def _cancel_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _timed_out(self) -> None:
        self._timer = None
        self._pump()

    def _pump(self) -> None:
        """Let out what is due."""
        if self._sink is None or self._timer is not None or self._is_stopped:
            return
        while self._queue and not self._is_sink_full:
            if self.is_held:
                return
            came, luck, data = self._queue[0]
            wait = max(came + self._latency(luck), self._free_at) - self._clock.seconds()
            size = self._room()
            if wait > 0:
                self._timer = self._clock.callLater(wait, self._timed_out)
                return
            if not size:  # a bandwidth of 0: until it is switched off
                return
            self._leave(data, size)
            if self._is_stopped:
                return
        if not self._queue:
            self._drained()

    def _latency(self, luck: float) -> float:
        seconds = 0.0
        for toxic in self._toxics(Latency):
            seconds += toxic.delay(luck)
        return seconds

    def _room(self) -> int:
        """How many octets may leave at once."""
        room = HELD
        for toxic in self._toxics(Slicer):
            room = min(room, toxic.slice(self._random))
        for toxic in self._toxics(Bandwidth):
            rate = toxic.octets_per_second
            room = min(room, max(1, int(rate / _TICKS)) if rate else 0)
        return room

    def _leave(self, data: bytes, size: int) -> None:
        """Hand on the beginning of `data`, which is at the head of the queue."""
        out = data[:size]
        reached = []
        for watched in list(self._meters):
            end = watched[0].feed(out)
            if end is not None:
                out = out[:end]
                self._meters.remove(watched)
                reached.append(watched[1])
        came, luck, _ = self._queue.popleft()
        if len(out) < len(data):
            self._queue.appendleft((came, luck, data[len(out) :]))
        self._size -= len(out)
        self._proxy.counters.passed[self.direction] += len(out)
        self._pace(len(out))
        self._sink.write(out)
        if self._is_source_paused and self._size <= HELD // 2:
            self._is_source_paused = False
            self._source.resumeProducing()
        for call in reached:
            call(self._connection)

    def _pace(self, size: int) -> None:
        wait = 0.0
        for toxic in (*self._toxics(Slicer), *self._toxics(Bandwidth), *self._toxics(Latency)):
            toxic.met()
            if type(toxic) is Slicer:
                wait = max(wait, toxic.delay or 1e-6)
            elif type(toxic) is Bandwidth and toxic.octets_per_second:
                wait = max(wait, size / toxic.octets_per_second)
        self._free_at = self._clock.seconds() + wait if wait else 0.0

    def _drained(self) -> None:
        if self._ended_at is None or self.is_finished or self.is_held:
            return
        late = sum(toxic.seconds for toxic in self._toxics(SlowClose))
        wait = self._ended_at + late + self._latency(0.0) - self._clock.seconds()
        if wait > 0:
            self._timer = self._clock.callLater(wait, self._timed_out)
            return
        self.is_finished = True
        self._connection.finished(self)

    def __repr__(self) -> str:
        return f"<Pipe {self.direction}: {self._size} octets held>"

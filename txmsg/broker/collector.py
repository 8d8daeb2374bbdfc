"""Keeps Python's cyclic garbage collector away from the messages that wait.

The collector looks at every object that may be part of a cycle, again and again; a million waiting messages make that
half a second in which nobody is served (R32).  Messages are in no cycle, so what waits is moved to the collector's
permanent generation (`gc.freeze`), where it is not looked at; what is released there is freed as ever.  Once the
queues are nearly empty everything is given back (`gc.unfreeze`).

Connections and channels are in cycles: of those that lived when something was set aside nothing would be freed while
messages wait.  So after every THAW times everything is looked at once.

This concerns the whole process, so only the process that is a broker (`txmsg.broker.service`) does it.
"""

from __future__ import annotations

import gc
from typing import Final, Protocol

from txmsg.broker.interfaces import Clock, Timer
from txmsg.broker.vhost.usage import Usage

__all__ = ["INTERVAL", "STEP", "THAW", "Collector", "CollectorWatch"]

#: Seconds between two looks.
INTERVAL: Final = 0.05
#: Bytes by which the queues have grown when what is new is set aside: about 10,000 small messages.
STEP: Final = 4 * 1024 * 1024
#: So often things are set aside before everything is looked at again: after a million small messages at least.
THAW: Final = 100


class Collector(Protocol):
    """What is needed of the module `gc`."""

    def collect(self, generation: int = 2) -> int:
        """Collect the younger objects."""

    def freeze(self) -> None:
        """Set everything aside."""

    def unfreeze(self) -> None:
        """Take everything back."""


class CollectorWatch:
    """Looks at `usage` while it runs, and sets aside what the queues have taken in.

    usage: Usage -- of the broker.  clock -- for the timer.
    """

    def __init__(self, usage: Usage, clock: Clock, collector: Collector = gc) -> None:
        self._usage = usage
        self._clock = clock
        self._collector = collector
        self._call: Timer | None = None
        #: Bytes in the queues when things were set aside last.
        self._set_aside = 0
        #: How often that was since everything was looked at.
        self._times = 0

    def start(self) -> None:
        """Begin; what the process has now is set aside, too."""
        if self._call is None:
            self._collector.collect()
            self._collector.freeze()
            self._call = self._clock.callLater(INTERVAL, self._look)

    def stop(self) -> None:
        """End: the collector looks at everything again, and no timer is left."""
        call, self._call = self._call, None
        if call is not None:
            self._collector.unfreeze()
            if call.active():
                call.cancel()

    def _look(self) -> None:
        held = self._usage.bytes
        if held - self._set_aside >= STEP:
            self._times += 1
            if self._times < THAW:
                self._collector.collect(1)  # so that no young cycle is set aside
            else:
                self._times = 0
                self._collector.unfreeze()
                self._collector.collect()
            self._collector.freeze()
            self._set_aside = held
        elif self._set_aside and held < STEP:
            self._collector.unfreeze()
            self._set_aside = self._times = 0
        elif self._set_aside:
            # What has left since then makes room for new messages, which have not been set aside.
            self._set_aside = min(self._set_aside, held)
        self._call = self._clock.callLater(INTERVAL, self._look)

    def __repr__(self) -> str:
        return f"<CollectorWatch: {'running' if self._call is not None else 'stopped'}, {self._set_aside} bytes>"

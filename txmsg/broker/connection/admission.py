"""Admission: how many connections there may be, from where, and how many that have not logged in (4.4, C7.3).

Beyond the limits on all connections, and on those from one address, a socket is closed when it is accepted.  Beyond the
limit on connections that have not logged in, one has to wait: nothing of it is read until another is done, and its
time for the handshake runs.  One address has half of these places at most, or else whoever opens sockets and says
nothing would keep all others out.  So a crowd of honest clients gets in one after the other, and what strangers cost
us is bounded (R36).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from txmsg.broker.limits import BrokerLimits

__all__ = ["Admission"]


class Admission:
    """Who is in, and who waits."""

    __slots__ = ("_addresses", "_limits", "_strangers", "_unauthenticated", "_waiting", "connections")

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        #: All connections there are.
        self.connections = 0
        self._addresses: Counter[str] = Counter()
        #: Those that have not logged in and are read, with their addresses; and how many of each address.
        self._unauthenticated: dict[object, str] = {}
        self._strangers: Counter[str] = Counter()
        self._waiting: dict[object, tuple[str, Callable[[], object]]] = {}

    @property
    def unauthenticated(self) -> int:
        """How many are in without having logged in."""
        return len(self._unauthenticated)

    @property
    def waiting(self) -> int:
        """How many wait to be read."""
        return len(self._waiting)

    def has_room(self, address: str) -> bool:
        """Whether one more connection, from `address`, may be accepted."""
        limits = self._limits
        return self.connections < limits.connections and self._addresses[address] < limits.connections_per_address

    def enter(self, who: object, address: str, go_on: Callable[[], object]) -> bool:
        """`who` was accepted: True if it may go on now; else `go_on()` is called when it may."""
        self.connections += 1
        self._addresses[address] += 1
        if self._has_place(address):
            self._take_place(who, address)
            return True
        self._waiting[who] = (address, go_on)
        return False

    def _has_place(self, address: str) -> bool:
        """Whether one more from `address` may be in without having logged in: half of the places are for others."""
        places = self._limits.unauthenticated
        return len(self._unauthenticated) < places and self._strangers[address] < (places + 1) // 2

    def _take_place(self, who: object, address: str) -> None:
        self._unauthenticated[who] = address
        self._strangers[address] += 1

    def judged(self, who: object) -> None:
        """`who` has logged in, or been refused: another may go on."""
        address = self._unauthenticated.pop(who, None)
        if address is None:
            return
        self._strangers[address] -= 1
        if self._strangers[address] <= 0:
            del self._strangers[address]
        for following, (its_address, go_on) in self._waiting.items():
            if self._has_place(its_address):
                del self._waiting[following]
                self._take_place(following, its_address)
                go_on()
                return

    def leave(self, who: object, address: str) -> None:
        """`who` is gone."""
        self.connections -= 1
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]
        self._waiting.pop(who, None)
        self.judged(who)

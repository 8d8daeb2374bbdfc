"""Admission: how many connections there may be, from where, and how many that have not logged in (4.4, C7.3).

Beyond the limits on all connections, and on those from one address, a socket is closed when it is accepted.  Beyond the
limit on connections that have not logged in, one has to wait: nothing of it is read until another is done, and its
time for the handshake runs.  So a crowd of honest clients gets in one after the other, and what strangers cost us is
bounded (R36).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from txmsg.broker.limits import BrokerLimits

__all__ = ["Admission"]


class Admission:
    """Who is in, and who waits."""

    __slots__ = ("_addresses", "_limits", "_unauthenticated", "_waiting", "connections")

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        #: All connections there are.
        self.connections = 0
        self._addresses: Counter[str] = Counter()
        self._unauthenticated: set[object] = set()
        self._waiting: dict[object, Callable[[], object]] = {}

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
        if len(self._unauthenticated) < self._limits.unauthenticated:
            self._unauthenticated.add(who)
            return True
        self._waiting[who] = go_on
        return False

    def judged(self, who: object) -> None:
        """`who` has logged in, or been refused: another may go on."""
        if who in self._unauthenticated:
            self._unauthenticated.discard(who)
            if self._waiting:
                following = next(iter(self._waiting))
                go_on = self._waiting.pop(following)
                self._unauthenticated.add(following)
                go_on()

    def leave(self, who: object, address: str) -> None:
        """`who` is gone."""
        self.connections -= 1
        self._addresses[address] -= 1
        if self._addresses[address] <= 0:
            del self._addresses[address]
        self._waiting.pop(who, None)
        self.judged(who)

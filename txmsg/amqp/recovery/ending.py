"""Ending: how a connection that comes back ends for good.

First the members finish what they have begun, then the loop stops and the connection is closed.  What is not done when
the time is up is aborted.

Invariants: it ends once, and within its limit (R29, R30); after `ended` no delayed call of ours is left (R28).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from txmsg.amqp.client import AMQPProtocol
    from txmsg.amqp.recovery.loop import ConnectionLoop
    from txmsg.amqp.recovery.members import Members

__all__ = ["Ending"]


class Ending:
    """The end of one ReconnectingConnection.

    clock: IReactorTime.   loop: ConnectionLoop -- is stopped.   members: Members -- finish first.
    protocol: returns the connection of now; None where there is none.
    ended(reason): called when nothing is left.
    """

    def __init__(
        self,
        clock: Any,
        loop: ConnectionLoop,
        members: Members,
        protocol: Callable[[], AMQPProtocol | None],
        ended: Callable[[BaseException], object],
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._members = members
        self._protocol = protocol
        self._ended = ended
        self._timer: IDelayedCall | None = None
        self._stopping: Deferred[None] | None = None
        self._members_stopping: Deferred[None] | None = None

    def begin(self, reason: BaseException, timeout: float) -> None:
        """End it in good order, within `timeout` seconds for everything; with 0, now."""
        if not timeout:
            self.stop(reason)
            return
        # Half of the time at most is for the members' work, so that enough is left for a proper end.
        self._timer = self._clock.callLater(timeout, self._too_slow, reason)
        stopping = Deferred.fromCoroutine(self._members.stop(self._clock.seconds() + timeout / 2))
        self._members_stopping = stopping
        stopping.addBoth(self._members_stopped, reason)

    def _members_stopped(self, outcome: object, reason: BaseException) -> None:
        self._members_stopping = None
        self.stop(reason, in_good_order=True)

    def _too_slow(self, reason: BaseException) -> None:
        self._timer = None
        self.stop(reason)

    def stop(self, reason: BaseException, in_good_order: bool = False) -> None:
        """Wait for no member any more: stop the loop, and close the connection, or abort it."""
        members, self._members_stopping = self._members_stopping, None
        if members is not None:
            members.cancel()
        if self._stopping is None:
            self._stopping = self._loop.stop()
            self._stopping.addCallback(self._stopped, reason)
        protocol = self._protocol()
        if protocol is None:
            return
        if in_good_order:
            protocol.close()
        else:
            protocol.abort(reason)

    def _stopped(self, result: None, reason: BaseException) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        self._ended(reason)

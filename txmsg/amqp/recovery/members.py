"""Members: brings the members of a reconnecting connection back, one after the other, and tells them of its end.

Invariants: one recovery at a time (R9); a member's own failure is reported and hurts nobody else (R10); whatever a
member raises where it should not is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.recovery.events import MEMBER_FAILED
from txmsg.amqp.recovery.member import Member
from txmsg.errors import ConnectionClosed

__all__ = ["Members"]


class Members:
    """The members, and who of them has been brought back.

    clock: IReactorTime.   report(kind, subject, error) -- tells the application.
    """

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(self, clock: Any, report: Callable[[str, str, BaseException | None], object]) -> None:
        self._clock = clock
        self._report = report
        #: By age; the oldest first.
        self._members: list[Member] = []

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member) -> None:
        """Take one more; a recovery that is going on brings it back too."""
        if not any(each is member for each in self._members):
            self._members.append(member)

    def remove(self, member: Member) -> None:
        """Forget one; nothing happens if it is not there."""
        self._members = [each for each in self._members if each is not member]

    async def recover(self, protocol: AMQPProtocol) -> None:
        """Bring all back, lowest `order` first.  Raises what says that this connection is over."""
        done: list[Member] = []
        while True:
            left = [member for member in self._members if not any(member is each for each in done)]
            if not left:
                return
            member = min(left, key=lambda each: each.order)  # of equal ones the first, the oldest
            done.append(member)
            try:
                await maybeDeferred(member.recover, protocol)
            except (ConnectionClosed, CancelledError):
                raise
            except Exception as error:
                if not protocol.is_open:
                    raise
                self._report(MEMBER_FAILED, repr(member), error)
            if not protocol.is_open:
                raise protocol.close_reason or ConnectionClosed("the connection ended while it was recovering")

    def lost(self, reason: BaseException) -> None:
        """Tell them that the connection is gone."""
        for member in list(self._members):
            self._guarded(member.lost, reason)

    def closed(self, reason: BaseException) -> None:
        """Tell them that it is over for good, and forget them."""
        members, self._members = self._members, []
        for member in members:
            self._guarded(member.closed, reason)

    async def stop(self, deadline: float) -> None:
        """Stop them in good order: what consumes, then what publishes; what is not done by `deadline` is cancelled."""
        for order in sorted({member.order for member in self._members}):
            stopping: list[Deferred[None]] = []
            for member in [each for each in self._members if each.order == order]:
                stop = maybeDeferred(member.stop)
                stop.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
                stop.addErrback(self._stop_failed, member)
                stopping.append(stop)
            await DeferredList(stopping)

    def _stop_failed(self, failure: Failure, member: Member) -> None:
        self._report(MEMBER_FAILED, repr(member), failure.value)

    def _guarded(self, call: Callable[[BaseException], None], reason: BaseException) -> None:
        try:
            call(reason)
        except Exception:
            self._log.failure("a member of the connection failed when it was told of the end")

"""Members: brings the members of a reconnecting connection back, and tells them of its end.

Those of one `order` come back together, begun by age: a thousand channels cost a few round trips, not some thousand.

Invariants: one recovery at a time (R9); a member's own failure is reported and hurts nobody else (R10); whatever a
member raises where it should not is logged and goes no further.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredList,
    FirstError,
    gatherResults,
    maybeDeferred,
)
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.recovery.events import MEMBER_FAILED
from txmsg.amqp.recovery.member import Member
from txmsg.errors import ConnectionClosed, OperationTimeout

__all__ = ["Members"]

#: How many are being brought back at a time.
_TOGETHER = 100


class Members:
    """The members, and who of them has been brought back.

    clock: IReactorTime.   report(kind, subject, error) -- tells the application.
    """

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(self, clock: Any, report: Callable[[str, str, BaseException | None], object]) -> None:
        self._clock = clock
        self._report = report
        #: By age, the oldest first; the keys are their ids, as they need not be hashable.
        self._members: dict[int, Member] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, member: Member) -> None:
        """Take one more; a recovery that is going on brings it back too."""
        self._members.setdefault(id(member), member)

    def remove(self, member: Member) -> None:
        """Forget one; nothing happens if it is not there."""
        self._members.pop(id(member), None)

    async def recover(self, protocol: AMQPProtocol) -> None:
        """Bring all back, lowest `order` first.  Raises what says that this connection is over."""
        done: dict[int, Member] = {}
        while left := [member for key, member in self._members.items() if key not in done]:
            order = min(member.order for member in left)
            together = [member for member in left if member.order == order][:_TOGETHER]
            done.update((id(member), member) for member in together)
            await self._recover_together(together, protocol)

    async def _recover_together(self, members: list[Member], protocol: AMQPProtocol) -> None:
        recovering: list[Deferred[None]] = []
        for member in members:
            if id(member) in self._members:  # an earlier one may have removed it
                one = Deferred.fromCoroutine(self._recover_one(member, protocol))
                recovering.append(one)
                if one.called and isinstance(one.result, Failure):
                    break  # no other need begin
        try:
            await gatherResults(recovering, consumeErrors=True)
        except FirstError as error:
            for one in recovering:
                one.cancel()
            assert error.subFailure.value is not None
            raise error.subFailure.value from None

    async def _recover_one(self, member: Member, protocol: AMQPProtocol) -> None:
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
        for member in list(self._members.values()):
            self._guarded(member.lost, reason)

    def closed(self, reason: BaseException) -> None:
        """Tell them that it is over for good, and forget them."""
        members, self._members = self._members, {}
        for member in members.values():
            self._guarded(member.closed, reason)

    async def stop(self, deadline: float) -> None:
        """Stop them in good order: what consumes, then what publishes; what is not done by `deadline` is cancelled."""
        for order in sorted({member.order for member in self._members.values()}):
            stopping: list[Deferred[None]] = []
            for member in [each for each in self._members.values() if each.order == order]:
                stop = maybeDeferred(member.stop)
                stop.addTimeout(max(0.0, deadline - self._clock.seconds()), self._clock)
                stop.addErrback(self._stop_failed, member)
                stopping.append(stop)
            await DeferredList(stopping)

    def _stop_failed(self, failure: Failure, member: Member) -> None:
        error = failure.value
        if failure.check(TookTooLong):
            error = OperationTimeout("it had not come to an end when the time for that was over")
        self._report(MEMBER_FAILED, repr(member), error)

    def _guarded(self, call: Callable[[BaseException], None], reason: BaseException) -> None:
        try:
            call(reason)
        except Exception:
            self._log.failure("a member of the connection failed when it was told of the end")

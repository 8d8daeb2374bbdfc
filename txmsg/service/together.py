"""Several services in one process: handlers, RPC servers and Celery workers.

Invariant: it ends once, when all have ended, with the outcome of the first that did not end well; and when one ends by
itself, the others are stopped in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from txmsg.service.exit_codes import ExitCode, Outcome

__all__ = ["ServiceGroup"]


class _Member(Protocol):
    """A ConsumerService or ServerService."""

    @property
    def is_consuming(self) -> bool: ...

    @property
    def stop_limit(self) -> float: ...

    def when_finished(self) -> Deferred[Outcome]: ...

    def stop_now(self) -> None: ...

    def stopService(self) -> Deferred[Outcome]: ...

    def setServiceParent(self, parent: Any, /) -> object: ...


class ServiceGroup(MultiService):
    """Runs services that end as one.   members: ConsumerServices and ServerServices; at least one."""

    def __init__(self, members: Sequence[_Member]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.members = list(members)
        self._outcomes: list[Outcome] = []
        self._waiting: list[Deferred[Outcome]] = []
        for member in self.members:
            member.setServiceParent(self)
            member.when_finished().addCallback(self._ended)

    @property
    def is_consuming(self) -> bool:
        """Whether all of them are."""
        return all(member.is_consuming for member in self.members)

    @property
    def stop_limit(self) -> float:
        """The seconds within which a stop ends: they stop at the same time."""
        return max(member.stop_limit for member in self.members)

    def when_finished(self) -> Deferred[Outcome]:
        """A fresh Deferred that fires with the outcome once all have ended; it never fails."""
        waiter: Deferred[Outcome] = Deferred()
        self._waiting.append(waiter)
        self._tell()
        return waiter

    def stop_now(self) -> None:
        """Cut the drain of all of them short."""
        for member in self.members:
            member.stop_now()

    def _ended(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        if len(self._outcomes) == 1:
            for member in self.members:
                member.stopService()  # of one that has ended, or is about to, it changes nothing
        self._tell()

    def _tell(self) -> None:
        if len(self._outcomes) < len(self.members):
            return
        bad = [outcome for outcome in self._outcomes if outcome.exit_code != ExitCode.OK]
        first = (bad or self._outcomes)[0]
        outcome = Outcome(first.exit_code, first.line, sum(each.unfinished for each in self._outcomes))
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(outcome)

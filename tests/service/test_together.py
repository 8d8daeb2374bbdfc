"""Several services that end as one."""

from __future__ import annotations

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmsg.service.exit_codes import Outcome
from txmsg.service.together import ServiceGroup


class Member(Service):
    """Ends when a test says so."""

    def __init__(self, stop_limit: float = 1.0) -> None:
        self.stop_limit = stop_limit
        self.is_consuming = True
        self.stops = self.stops_now = 0
        self.finished: Deferred[Outcome] = Deferred()

    def when_finished(self) -> Deferred[Outcome]:
        return self.finished

    def stopService(self) -> Deferred[Outcome]:
        super().stopService()
        self.stops += 1
        return Deferred()

    def stop_now(self) -> None:
        self.stops_now += 1


class TogetherTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.members = [Member(1.0), Member(5.0)]
        self.group = ServiceGroup(self.members)
        self.finished = self.group.when_finished()
        self.group.startService()

    def test_they_run_and_stop_together(self) -> None:
        """R30: it ends when all have."""
        self.assertEqual([bool(member.running) for member in self.members], [True, True])
        self.assertEqual(self.group.stop_limit, 5.0)
        self.group.stopService()
        self.group.stop_now()
        self.assertEqual([(each.stops, each.stops_now) for each in self.members], [(1, 1), (1, 1)])
        self.members[0].finished.callback(Outcome(0, "stopped"))
        self.assertNoResult(self.finished)
        self.members[1].finished.callback(Outcome(75, "1 handler did not finish", 1))
        outcome = Outcome(75, "1 handler did not finish", 1)
        self.assertEqual(self.successResultOf(self.finished), outcome)
        self.assertEqual(self.successResultOf(self.group.when_finished()), outcome)

    def test_one_ends_by_itself(self) -> None:
        """R33: the others are stopped; its code is that of the process, and what they cut short is counted."""
        self.members[1].finished.callback(Outcome(14, "gave up"))
        self.assertEqual(self.members[0].stops, 1)
        self.assertNoResult(self.finished)
        self.members[0].finished.callback(Outcome(75, "2 did not finish", 2))
        self.assertEqual(self.successResultOf(self.finished), Outcome(14, "gave up", 2))

    def test_health(self) -> None:
        self.assertTrue(self.group.is_consuming)
        self.members[1].is_consuming = False
        self.assertFalse(self.group.is_consuming)

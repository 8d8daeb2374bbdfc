"""The tests of txmsg.messaging.consuming.qos."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmsg.errors import ConfigurationError
from txmsg.messaging.consuming.qos import QoS


class QoSTests(SynchronousTestCase):
    """Prefetch counts that change later (kombu O13)."""

    def setUp(self) -> None:
        self.sent: list[int] = []

    def send(self, prefetch_count: int) -> None:
        """What the callback is called with."""
        self.sent.append(prefetch_count)

    def test_eventually(self) -> None:
        """Changes are added up and sent by `update`, once (kombu O13)."""
        qos = QoS(self.send, 10)
        self.assertEqual((qos.value, qos.prev), (10, None))
        self.assertEqual((qos.increment_eventually(), qos.increment_eventually(4)), (11, 15))
        self.assertEqual((qos.decrement_eventually(), self.sent), (14, []))
        self.assertEqual(self.successResultOf(qos.update()), 14)
        self.assertEqual(self.successResultOf(qos.update()), 14)
        self.assertEqual((self.sent, qos.prev, repr(qos)), ([14], 14, "<QoS 14, sent 14>"))

    def test_never_below_one(self) -> None:
        """A count that limits goes on limiting (kombu O13)."""
        qos = QoS(self.send, 3)
        self.assertEqual((qos.decrement_eventually(50), qos.decrement_eventually()), (1, 1))

    def test_no_limit_stays(self) -> None:
        """0 is no limit, which is neither more nor less by one (kombu O13)."""
        qos = QoS(self.send, 0)
        self.assertEqual((qos.increment_eventually(), qos.decrement_eventually()), (0, 0))
        self.assertEqual(self.successResultOf(qos.update()), 0)
        self.assertEqual(self.sent, [0])

    def test_too_large_to_send(self) -> None:
        """Above 65535 there is no limit; below it there is one again (kombu O13)."""
        qos = QoS(self.send, 65535)
        self.successResultOf(qos.update())
        qos.increment_eventually()
        self.assertEqual((self.successResultOf(qos.update()), qos.value), (0, 65536))
        self.assertEqual(self.successResultOf(qos.update()), 0)
        qos.decrement_eventually()
        self.successResultOf(qos.update())
        self.assertEqual(self.sent, [65535, 0, 65535])

    def test_set(self) -> None:
        """At once, unless it is so already (kombu O13)."""
        qos = QoS(self.send, 1)
        for count in (5, 5, 6):
            self.assertEqual(self.successResultOf(qos.set(count)), count)
        self.assertEqual((self.sent, qos.value, qos.prev), ([5, 6], 6, 6))

    def test_max_prefetch(self) -> None:
        """No further than that."""
        qos = QoS(self.send, 8, max_prefetch=10)
        self.assertEqual((qos.increment_eventually(), qos.increment_eventually(7)), (9, 10))

    def test_failed(self) -> None:
        """What could not be sent is sent by the next update."""
        replies: list[Deferred[None]] = [Deferred(), Deferred()]
        waiting = iter(replies)

        def send(prefetch_count: int) -> Deferred[None]:
            self.send(prefetch_count)
            return next(waiting)

        qos = QoS(send, 1)
        first = qos.update()
        self.assertNoResult(first)
        replies[0].errback(ConnectionResetError())
        self.failureResultOf(first, ConnectionResetError)
        second = qos.update()
        replies[1].callback(None)
        self.assertEqual((self.successResultOf(second), self.sent), (1, [1, 1]))

    def test_no_count(self) -> None:
        """Only whole numbers from 0."""
        wrong: list[Any] = [-1, 1.5, None, True, "1"]
        for count in wrong:
            self.assertRaises(ConfigurationError, QoS, self.send, count)
            self.failureResultOf(QoS(self.send, 1).set(count), ConfigurationError)

    @given(st.integers(1, 70000), st.lists(st.tuples(st.booleans(), st.integers(0, 70000)), max_size=20))
    def test_limits_for_ever(self, initial: int, steps: list[tuple[bool, int]]) -> None:
        """Whatever is added and taken away, it never becomes 0 by itself, and what is sent fits (kombu O13)."""
        self.sent.clear()
        qos = QoS(self.send, initial)
        for is_more, count in steps:
            value = qos.increment_eventually(count) if is_more else qos.decrement_eventually(count)
            self.assertGreaterEqual(value, 1)
            self.successResultOf(qos.update())
            self.assertEqual(self.sent[-1], value if value <= 65535 else 0)

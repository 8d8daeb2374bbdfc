"""Waits over several hosts on a connection that comes back by itself: it tries all of them in one attempt."""

from __future__ import annotations

from twisted.internet.defer import Deferred, fail, succeed

from tests.messaging.publishing.plain_transport import ScriptedCase
from txmsg.errors import ConnectFailed, ConnectionLost, OperationalError
from txmsg.messaging import Connection, Producer

HOSTS = "scripted://a;scripted://b;scripted://c"


class SeveralHostsTests(ScriptedCase):
    """kombu B11, B14: a wait comes after each round over the hosts, and each round is one retry."""

    def setUp(self) -> None:
        """Three hosts; the connection is lost, and three rounds fail."""
        super().setUp()
        self.transport.recovers = True
        self.on: Connection = self.connection(HOSTS)
        self.successResultOf(self.on.default_channel.open())
        self.transport.retries.extend([ConnectFailed("refused")] * 3)
        self.told: list[tuple[str, float]] = []

    def errback(self, error: BaseException, interval: float) -> None:
        """Notes it."""
        self.told.append((type(error).__name__, interval))

    def test_ensure_connection(self) -> None:
        """The first attempt is a round already."""
        self.transport.made[0].lose()
        done = self.on.ensure_connection(self.errback)
        self.assertEqual(self.told, [("ConnectFailed", 2)])
        self.clock.pump([2, 4, 6])
        self.successResultOf(done)
        self.assertEqual(self.told, [("ConnectFailed", seconds) for seconds in (2, 4, 6)])
        self.assertEqual(self.transport.attempts, ["a", "retry", "retry", "retry", "retry"])

    def test_the_number_of_retries(self) -> None:
        """Two retries are two rounds after the first."""
        self.transport.made[0].lose()
        done = self.on.ensure_connection(self.errback, max_retries=2, interval_start=1, interval_step=1)
        self.clock.pump([1, 2, 3])
        self.failureResultOf(done, OperationalError)
        self.assertEqual([seconds for _, seconds in self.told], [1, 2])
        self.assertEqual(self.transport.attempts, ["a", "retry", "retry", "retry"])

    def test_ensure(self) -> None:
        """The loss itself is one host's: the others are tried at once."""
        calls: list[int] = []

        def fun() -> Deferred[str]:
            calls.append(1)
            if len(calls) == 1:
                self.transport.made[0].lose()
                return fail(ConnectionLost())
            return succeed("done")

        done = self.on.ensure(None, fun, self.errback, interval_step=1, interval_max=9)()
        self.clock.pump([0, 1, 2, 3])
        self.assertEqual(self.successResultOf(done), "done")
        self.assertEqual(self.told, [("ConnectionLost", 0), *(("ConnectFailed", seconds) for seconds in (1, 2, 3))])

    def test_publish(self) -> None:
        """As `ensure` does it."""
        producer = Producer(self.on)
        self.successResultOf(producer.publish("open"))
        self.transport.made[0].lose()
        policy = {"errback": self.errback, "interval_step": 1, "interval_max": 9}
        done = producer.publish("x", retry=True, retry_policy=policy)
        self.clock.pump([0, 1, 2, 3])
        self.successResultOf(done)
        self.assertEqual(self.told, [("NotSent", 0), *(("ConnectFailed", seconds) for seconds in (1, 2, 3))])

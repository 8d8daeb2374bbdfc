"""ReconnectingConnection: one attempt and no more, an attempt at once, more hosts later."""

from __future__ import annotations

from tests.amqp.recovery.world import REFUSES, SILENT, WorldTestCase
from txmsg.amqp import Backoff, PlainCredentials
from txmsg.errors import AuthenticationFailed, ConfigurationError, ConnectFailed, ConnectTimeout


class OnceTests(WorldTestCase):
    """start(once=True): the first connect has one round."""

    def test_it_gives_up(self) -> None:
        """R12: it fails with the error of the attempt, is closed, and nothing is left."""
        connection = self.connection()
        started = connection.start(once=True)
        self.world.run(0.1)
        self.assertIsInstance(self.failed(started), ConnectFailed)
        self.assertEqual(self.states(), ["connecting", "closing", "closed"])
        self.world.run(60)
        self.assertEqual(len(self.world.attempts), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_every_host_has_its_turn(self) -> None:
        """A round is all of the hosts."""
        self.world.hosts["s"] = SILENT
        connection = self.connection(["amqp://a", "amqp://s"], attempt_timeout=2)
        started = connection.start(once=True)
        self.world.run(1)
        self.assertNoResult(started)
        self.world.run(2)
        self.assertIsInstance(self.failed(started), ConnectTimeout)
        self.assertEqual([host for _, host in self.world.attempts], ["a", "s"])

    def test_it_comes_back_all_the_same(self) -> None:
        """Later losses have as many rounds as they need."""
        broker = self.world.broker()
        connection = self.connection()
        started = connection.start(once=True)
        self.world.run(0.1)
        self.successResultOf(started)
        self.world.hosts["a"] = REFUSES
        broker.stop()
        self.world.run(20)
        self.assertGreater(connection.rounds, 2)
        self.world.broker()
        self.world.run(20)
        self.assertEqual((connection.epoch, connection.is_ready), (2, True))


class HurryTests(WorldTestCase):
    """hurry(): the wait is over, the waits to come are not."""

    def test_the_wait_is_cut_short(self) -> None:
        """R12: an attempt in the next turn of the reactor; nothing where there is no wait."""
        broker = self.world.broker()
        connection = self.connection(backoff=Backoff(initial=8, jitter=False, eager_for=0))
        connection.hurry()
        self.noErrors(connection.start())
        connection.hurry()
        self.world.run(0.1)
        connection.hurry()
        self.assertEqual((connection.epoch, len(self.world.attempts)), (1, 1))
        self.world.hosts["a"] = REFUSES
        broker.stop()
        self.world.run(0.5)
        self.assertEqual(connection.state.value, "lost")
        self.world.attempts.clear()
        began = self.clock.seconds()
        connection.hurry()
        self.world.run(0.1)
        self.assertEqual(self.world.attempts, [(began, "a")])
        self.assertEqual([step.delay for step in self.steps if step.new.value == "lost"], [8, 16])
        self.world.broker()
        connection.hurry()
        self.world.run(0.1)
        self.assertEqual((connection.epoch, connection.is_ready), (2, True))
        connection.close(0)
        connection.hurry()

    def test_from_a_callback(self) -> None:
        """Whoever is told of the loss may do it at once."""
        broker = self.world.broker()
        connection = self.connection(backoff=Backoff(initial=60, maximum=60, jitter=False, eager_for=0))
        left = [3]

        def hurry(step: object) -> None:
            if connection.state.value == "lost" and left[0]:
                left[0] -= 1
                connection.hurry()

        connection.add_state_callback(hurry)
        self.noErrors(connection.start())
        self.world.run(0.1)
        self.world.hosts["a"] = REFUSES
        broker.stop()
        self.world.run(5)
        self.assertEqual(len(self.world.attempts), 4)

    def test_a_host_that_refused_us(self) -> None:
        """It is asked again, too: what is wrong may just have been mended."""
        broker = self.world.broker()
        connection = self.connection(["amqp://a", "amqp://b"], credentials=PlainCredentials("app", "secret"))
        self.world.hosts["b"] = REFUSES
        self.noErrors(connection.start())
        self.world.run(0.4)
        self.assertIn(AuthenticationFailed, [type(step.reason) for step in self.steps])
        broker.add_user("app", "secret")
        connection.hurry()
        self.world.run(0.1)
        self.assertTrue(connection.is_ready)


class TargetsTests(WorldTestCase):
    """add_targets(): hosts that it may come back to."""

    def test_more_hosts(self) -> None:
        """They have their turn after the first ones."""
        broker = self.world.broker()
        other = self.world.broker("b")
        connection = self.started()
        self.assertRaises(ConfigurationError, connection.add_targets, "nonsense://x")
        connection.add_targets("amqp://guest:guest@b")
        self.assertEqual(connection.hosts, ["a:5672", "b:5672"])
        self.world.hosts["a"] = REFUSES
        broker.stop()
        self.world.run(2)
        self.assertEqual((connection.where, connection.epoch), ("b:5672", 2))
        other.stop()

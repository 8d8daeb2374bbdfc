"""Crashes of a simulated broker, and disasters at random."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.testing.disruption.sessions import PERSISTENT, SimulationCase
from txmsg.errors import (
    ConfigurationError,
    ConnectionClosed,
    ConnectionForced,
    HeartbeatTimeout,
    PublishUnconfirmed,
)
from txmsg.testing.disruption import (
    Network,
    QueueChecker,
    Simulation,
)


class CrashTests(SimulationCase):
    """F1 (SIM), R35: what a crash leaves."""

    def crash_behind(self, keep: Any, *, confirmed: bool) -> list[bytes]:
        """Publish a message, crash before or after its confirm, start again: the bodies in the queue."""
        simulation = self.simulate(sync_delay=(0.05, 0.05))
        _, channel = self.publisher(simulation)
        outcome = simulation.watch(channel.basic_publish("", "jobs", b"first", PERSISTENT))
        simulation.advance(0.1 if confirmed else 0.04)
        self.assertEqual(outcome.succeeded, confirmed)
        simulation.broker.crash(keep)
        simulation.settle()
        self.assertEqual(simulation.broker.embedded.broker.connections, set())
        if not confirmed:
            self.assertIsInstance(outcome.error, PublishUnconfirmed)
        simulation.run_until(simulation.broker.start())
        bodies: list[bytes] = simulation.broker.embedded.queue("jobs").bodies
        self.assertEqual(simulation.finish(), [])
        return bodies

    def test_synced(self) -> None:
        """What was confirmed is there; what was not is not."""
        self.assertEqual(self.crash_behind("synced", confirmed=True), [b"first"])
        self.assertEqual(self.crash_behind("synced", confirmed=False), [])

    def test_written(self) -> None:
        """What nobody was told of is there, too."""
        self.assertEqual(self.crash_behind("written", confirmed=False), [b"first"])

    def test_nothing(self) -> None:
        """The disk is gone."""
        self.assertEqual(self.crash_behind("nothing", confirmed=True), [])

    def test_long_bodies_acks_and_deletions(self) -> None:
        """The disk holds what the broker holds."""
        simulation = self.simulate()
        connection, channel = self.publisher(simulation)
        simulation.run_until(channel.queue_declare("gone", durable=True))
        bodies = [b"%d" % number * 3000 for number in range(4)]
        for body in bodies:
            simulation.run_until(channel.basic_publish("", "jobs", body, PERSISTENT))
            simulation.run_until(channel.basic_publish("", "gone", body, PERSISTENT))
        simulation.run_until(channel.queue_delete("gone"))
        delivery = simulation.run_until(channel.basic_get("jobs"))
        delivery.ack()
        simulation.run_until(channel.basic_get("jobs"))
        simulation.settle()
        simulation.broker.restart(0.1)
        simulation.advance(0.2)
        self.assertEqual(simulation.broker.embedded.queue("jobs").bodies, bodies[1:])
        self.assertEqual(set(simulation.broker.embedded.queues()), {"jobs"})
        self.assertEqual(len(simulation.broker.disk.messages), 3)
        self.assertFalse(connection.is_open)

    def test_a_clean_stop(self) -> None:
        """Clients are told 320, and the next start knows of it."""
        simulation = self.simulate()
        connection, _ = self.publisher(simulation)
        closed = simulation.watch(connection.when_closed())
        simulation.run_until(simulation.broker.stop())
        self.assertIsInstance(closed.result, ConnectionForced)
        self.assertTrue(simulation.broker.disk.was_stopped_cleanly)
        simulation.run_until(simulation.broker.start())
        with self.assertRaises(ConfigurationError):
            simulation.broker.start()

    def test_what_came_back(self) -> None:
        """A message that a consumer had already is still marked as redelivered after a clean stop; others are not."""
        simulation = self.simulate()
        connection, channel = self.publisher(simulation)
        for body in (b"first", b"second"):
            simulation.run_until(channel.basic_publish("", "jobs", body, PERSISTENT))
        simulation.run_until(channel.basic_get("jobs")).nack(requeue=True)
        simulation.run_until(connection.close())
        simulation.run_until(simulation.broker.stop())
        simulation.run_until(simulation.broker.start())
        _, channel = self.publisher(simulation)
        found = [simulation.run_until(channel.basic_get("jobs")) for _ in range(2)]
        self.assertEqual([(each.body, each.redelivered) for each in found], [(b"first", True), (b"second", False)])

    def test_a_host_without_power(self) -> None:
        """R13: nobody is told; heartbeats find out."""
        simulation = self.simulate()
        connection, _ = self.publisher(simulation, heartbeat=4)
        closed = simulation.watch(connection.when_closed())
        simulation.broker.crash(silent=True)
        simulation.advance(7)
        self.assertFalse(closed.has_fired)
        simulation.advance(2)
        self.assertIsInstance(closed.result, HeartbeatTimeout)
        self.assertEqual(simulation.finish(), [])

    def test_in_memory(self) -> None:
        """A broker without a disk forgets everything."""
        simulation = self.simulate(is_durable=False)
        _, channel = self.publisher(simulation)
        simulation.run_until(channel.basic_publish("", "jobs", b"first", PERSISTENT))
        simulation.broker.restart(0.1)
        simulation.advance(0.2)
        self.assertEqual(simulation.broker.embedded.queue("jobs").bodies, [])

    def test_a_crash_while_it_starts(self) -> None:
        """The next start is the one that counts."""
        simulation = self.simulate(sync_delay=(0.5, 0.5))
        simulation.broker.crash()
        simulation.broker.start()
        simulation.advance(0.1)
        self.assertFalse(simulation.broker.is_up)
        simulation.broker.restart(0.1)
        simulation.advance(5)
        self.assertTrue(simulation.broker.is_up)


class ChaosTests(SimulationCase):
    """Disasters at random."""

    def run_chaos(self, seed: int, **settings: Any) -> tuple[QueueChecker, Any, Simulation]:
        """A publisher and a consumer that connect again and again while things go wrong."""
        simulation = self.simulate(seed, network=Network(chunk=(1, 300)), sync_delay=(0.0, 0.01))
        checker = QueueChecker("chaos", seed=seed)
        is_over = False

        async def publish() -> None:
            while not is_over:
                try:
                    connection = await simulation.connect("publisher", heartbeat=2)
                    channel = await connection.channel()
                    await channel.confirm_select()
                    while connection.is_open and not is_over:
                        message_id = checker.attempt()
                        publish = channel.basic_publish("", "jobs", message_id.encode(), PERSISTENT)
                        await checker.publishing(message_id, publish)
                    await connection.close()
                except ConnectionClosed:
                    await pause()

        async def consume() -> None:
            while not is_over:
                try:
                    connection = await simulation.connect("consumer", heartbeat=2)
                    channel = await connection.channel()
                    await channel.basic_qos(prefetch_count=10)
                    await channel.basic_consume("jobs", handle)
                    await connection.when_closed()
                except ConnectionClosed:
                    await pause()

        def handle(delivery: Any) -> None:
            checker.handled(delivery.body.decode(), redelivered=delivery.redelivered)
            delivery.ack()

        def pause() -> Deferred[None]:
            waiting: Deferred[None] = Deferred()
            simulation.clock.callLater(0.1, waiting.callback, None)
            return waiting

        ends = [simulation.watch(Deferred.fromCoroutine(each()), each.__name__) for each in (publish, consume)]
        chaos = simulation.disrupt(times=5, every=(0.2, 1.0), **settings)
        simulation.run_while(lambda: chaos.is_active, 30)
        simulation.advance(4)
        is_over = True
        simulation.run_while(lambda: not ends[0].has_fired, 10)
        simulation.advance(1)
        for link in simulation.open_links("consumer"):
            link.reset()
        simulation.run_while(lambda: not ends[1].has_fired, 10)
        simulation.settle()
        queue = simulation.broker.embedded.queue("jobs")
        checker.drained([message.body.decode() for message in queue.messages])
        return checker, chaos, simulation

    def test_nothing_is_lost(self) -> None:
        """R1, R2, R22, R28: whatever goes wrong."""
        disasters: set[str] = set()
        for seed in range(8):
            checker, chaos, simulation = self.run_chaos(seed)
            self.assertEqual(simulation.finish(), [], seed)
            checker.report().check()
            self.assertEqual(chaos.count, 5)
            self.assertGreater(checker.report().confirmed, 20)
            disasters |= {disaster for _, disaster, _ in chaos.history}
        self.assertEqual(disasters, {"fin", "rst", "stall", "blackhole", "crash", "stop"})

    def test_a_disk_that_lies_is_found_out(self) -> None:
        """When confirmed messages vanish, the checker says so: this is what it is for."""
        simulation = self.simulate()
        _, channel = self.publisher(simulation)
        checker = QueueChecker("a disk that lies")
        for _ in range(3):
            message_id = checker.attempt()
            publish = channel.basic_publish("", "jobs", message_id.encode(), PERSISTENT)
            self.assertTrue(simulation.run_until(checker.publishing(message_id, publish)))
        simulation.broker.restart(keep="nothing")
        simulation.advance(1)
        checker.drained(message.body.decode() for message in simulation.broker.embedded.queue("jobs").messages)
        self.assertEqual(checker.report().lost, 3)

    def test_what_makes_no_sense(self) -> None:
        """It is refused when it is set."""
        simulation = self.simulate()
        with self.assertRaises(ConfigurationError):
            simulation.disrupt(())
        with self.assertRaises(ConfigurationError):
            simulation.disrupt(every=(0.0, 1.0))

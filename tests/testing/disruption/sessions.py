"""What the tests of the simulator run in it.

The canonical session of the sweeps: connect, declare, consume, three publishes, acks, close (F4).
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp import AMQPProtocol, BasicProperties
from txmsg.testing import EmbeddedBroker
from txmsg.testing.disruption import Network, Outcome, QueueChecker, Simulation

#: Longer than all time limits of the session together.
PATIENCE = 60.0


class Session:
    """One run of it in a simulation of its own; whatever happens, it ends."""

    def __init__(self, seed: int | str = 0, *, network: Network | None = None, is_traced: bool = False) -> None:
        self.simulation = Simulation(seed, network=network, is_traced=is_traced)
        self.checker = QueueChecker("canonical session", seed=seed)
        self.events: list[str] = []
        self.outcome: Outcome | None = None

    def run(self, **cut: Any) -> list[str]:
        """Run it, cut as `simulation.cut` has it; what was left behind."""
        with self.simulation as simulation:
            if cut:
                simulation.cut(**cut)
            self.outcome = simulation.watch(Deferred.fromCoroutine(self._steps()), "the session")
            simulation.advance(PATIENCE)
            queue = simulation.broker.embedded.queue("jobs")
            if queue.exists:
                self.checker.drained([message.body.decode() for message in queue.messages])
            return simulation.finish()

    async def _steps(self) -> None:
        simulation = self.simulation
        connection = await simulation.connect(heartbeat=4)
        closed = simulation.watch(connection.when_closed(), "when_closed()")
        channel = await connection.channel()
        await channel.queue_declare("jobs", durable=True)
        await channel.confirm_select()
        await channel.basic_consume("jobs", self._handle, consumer_tag="worker")
        for _ in range(3):
            message_id = self.checker.attempt()
            properties = BasicProperties(delivery_mode=2, message_id=message_id)
            publish = channel.basic_publish("", "jobs", message_id.encode(), properties, mandatory=True)
            if await self.checker.publishing(message_id, publish):
                self.events.append(f"confirmed {message_id}")
        await connection.close()
        self.events.append("closed")
        assert closed.has_fired

    def _handle(self, delivery: Any) -> None:
        message_id = delivery.body.decode()
        self.events.append(f"handled {message_id}")
        self.checker.handled(message_id, redelivered=delivery.redelivered)
        delivery.ack()


PERSISTENT = BasicProperties(delivery_mode=2)


def declare_jobs(broker: EmbeddedBroker) -> None:
    """A durable queue."""
    broker.declare_queue("jobs", durable=True)


class SimulationCase(SynchronousTestCase):
    """A simulation with a durable queue "jobs"."""

    def simulate(self, seed: int = 0, **settings: Any) -> Simulation:
        """Started, and finished at the end."""
        simulation = Simulation(seed, set_up=declare_jobs, **settings).start()
        self.addCleanup(simulation.finish)
        return simulation

    def publisher(self, simulation: Simulation, **fields: Any) -> tuple[AMQPProtocol, Any]:
        """An open connection, and a channel with confirms."""
        connection = simulation.run_until(simulation.connect(**fields))
        channel = simulation.run_until(connection.channel())
        simulation.run_until(channel.confirm_select())
        return connection, channel

"""Rows of load in the simulator: thousands in flight when it breaks, bad handlers, everything at random."""

from __future__ import annotations

from dataclasses import replace

from twisted.internet.defer import Deferred

from tests.lab.rows import Tally, row
from tests.lab.simulated.process import add, seeds
from tests.lab.simulated.world import World, simulate
from tests.lab.workload import Settings
from txmsg.amqp import BasicProperties, Delivery
from txmsg.amqp.recovery import Backoff, ReconnectingConnection, RecoveryState
from txmsg.broker.limits import BrokerLimits
from txmsg.errors import TxmsgError
from txmsg.testing.disruption import Network, QueueChecker, Report, Simulation
from txmsg.testing.disruption.chaos import Disaster

__all__: list[str] = []


@row("F52", "SIM", "10,000 publishes in flight, then cut", "fail: all end at detection; resend: all confirmed")
def in_flight(is_long: bool, client: str) -> Report:
    tally = Tally()
    for on_loss in ("fail", "resend"):
        for seed in seeds(is_long, 1, 5):
            tally.add(_cut_in_flight(seed, on_loss, tally))
    return tally.report(f"0 to {tally.cases // 2 - 1}", in_flight=10_000)


def _cut_in_flight(seed: int, on_loss: str, tally: Tally) -> Report:
    checker = QueueChecker("F52", seed=seed)
    with Simulation(seed) as simulation:
        clock = simulation.clock
        connection = ReconnectingConnection(
            simulation.parameters(heartbeat=4),
            reactor=clock,
            endpoint=simulation.endpoints(),
            backoff=Backoff(random=simulation.random.random),
        )
        simulation.run_until(connection.start())
        channel = simulation.run_until(connection.channel())
        simulation.run_until(channel.queue_declare("lab", durable=True))
        publisher = connection.publisher(on_loss="fail" if on_loss == "fail" else "resend", max_outstanding=10_000)
        first = checker.attempt()
        simulation.run_until(publisher.publish("", "lab", first))
        checker.ended(first, "confirmed")
        # The broker's answers do not arrive, so all of them are in flight.
        release = simulation.open_links()[0].hold(("to_client",))
        for number in range(10_000):
            message_id = checker.attempt()
            checker.publishing(
                message_id, publisher.publish("", "lab", message_id, BasicProperties(message_id=message_id))
            )
            if number % 500 == 0:
                simulation.advance(0.05)
        simulation.advance(1.0)
        if publisher.outstanding != 10_000:
            raise AssertionError(f"{publisher.outstanding} are in flight")
        lost: list[float] = []
        connection.add_state_callback(lambda step: lost.append(step.at) if step.new is RecoveryState.LOST else None)
        cut_at = clock.seconds()
        reset_all_of(simulation)
        release()
        simulation.run_while(lambda: bool(publisher.outstanding), 30)
        checker.detected(lost[0] - cut_at)
        took = clock.seconds() - lost[0]
        tally.detections.append(lost[0] - cut_at)
        tally.recoveries.append(took)
        if took > 2:
            raise AssertionError(f"{on_loss}: the last of 10,000 ended {took:.3f} s after detection")
        simulation.run_until(publisher.close())
        simulation.run_until(connection.close())
        checker.drained(body.decode() for body in simulation.broker.embedded.queue("lab").bodies)
        for problem in simulation.finish():
            checker.unhandled_error(problem)
    report = checker.report()
    if on_loss == "resend" and report.confirmed != 10_001:
        raise AssertionError(f"{report.confirmed} of 10,000 are confirmed")
    if on_loss == "fail" and report.unconfirmed != 10_000:
        raise AssertionError(f"{report.unconfirmed} of 10,000 are unconfirmed: {report}")
    return report


def reset_all_of(simulation: Simulation) -> None:
    """Reset each connection."""
    for link in simulation.open_links():
        link.reset()


@row("F58", "SIM", "anything at any time: cuts, stalls, black holes, crashes, stops", "all confirmed, by seed")
def anything(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 20, 2000):
        disasters: tuple[Disaster, ...] = ("fin", "rst", "stall", "blackhole", "crash", "stop")

        def disturb(world: World, disasters: tuple[Disaster, ...] = disasters) -> None:
            chaos = world.simulation.disrupt(disasters, every=(0.1, 3.0), lasting=(0.05, 2.0))
            world.at(20, chaos.stop)

        settings = Settings(messages=150, every=0.1, handling=0.02, publish_timeout=120)
        network = Network(chunk=(1, 400), delay=(0.0, 0.02))
        report, world = simulate("F58", seed, disturb, settings, network=network, sync_delay=(0.0, 0.05))
        add(tally, report, world)
    return tally.report(f"0 to {tally.cases - 1}")


@row("F57", "SIM", "handlers that raise, hang, or finish after the close", "redelivered or in the queue; nothing lost")
def handlers(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 200):
        tally.add(_bad_handlers(seed))
    return tally.report(f"0 to {tally.cases - 1}")


def _bad_handlers(seed: int) -> Report:
    checker = QueueChecker("F57", seed=seed)
    with Simulation(seed) as simulation:
        random = simulation.random
        connection = ReconnectingConnection(
            simulation.parameters(heartbeat=4),
            reactor=simulation.clock,
            endpoint=simulation.endpoints(),
            backoff=Backoff(random=random.random),
        )
        late: list[Delivery] = []

        def settle(delivery: Delivery) -> None:
            try:
                delivery.ack()
            except TxmsgError:
                return

        def handler(delivery: Delivery) -> None:
            luck = random.random()
            checker.handled(delivery.body.decode(), redelivered=delivery.redelivered)
            if luck < 0.1:
                delivery.nack(requeue=True)
            elif luck < 0.2:
                late.append(delivery)  # hangs
            elif luck < 0.5:
                simulation.clock.callLater(random.uniform(0, 2), settle, delivery)
            else:
                delivery.ack()
            if luck > 0.9:
                raise RuntimeError("a handler failed")

        async def session() -> None:
            await connection.start()
            channel = await connection.channel(prefetch_count=50)
            await channel.queue_declare("lab", durable=True)
            await channel.basic_consume("lab", handler)
            publisher = connection.publisher()
            for _ in range(100):
                message_id = checker.attempt()
                checker.publishing(message_id, publisher.publish("", "lab", message_id))
            await publisher.drain()
            simulation.clock.callLater(1, reset_all_of, simulation)
            await channel.when_closed().addTimeout(4, simulation.clock, lambda outcome, limit: None)
            await connection.close()

        simulation.run_until(Deferred.fromCoroutine(session()), 120)
        for delivery in late:
            settle(delivery)
        simulation.advance(3)
        checker.drained(body.decode() for body in simulation.broker.embedded.queue("lab").bodies)
        # What a handler raises is in the log, as it must be.
        for problem in simulation.finish():
            if "a handler failed" not in problem and "callback" not in problem:
                checker.unhandled_error(problem)
    report = checker.report()
    # A message that is handed back comes behind later ones: that is the application's own doing.
    return replace(report, order_violations=0)


@row("F54", "SIM", "2,047 channels, opened and closed again and again", "no number is lost; one more fails typed")
def channels(is_long: bool, client: str) -> Report:
    checker = QueueChecker("F54", seed=0)
    most, churn = 2047, 100_000 if is_long else 3_000
    limits = BrokerLimits(channels=most, login_delay=0.0)
    with Simulation(0, limits=limits) as simulation:
        connection = simulation.run_until(simulation.connect(heartbeat=4, channel_max=most))

        async def session() -> None:
            opened = [await each for each in [connection.channel() for _ in range(most)]]
            try:
                await connection.channel()
            except TxmsgError:
                pass
            else:
                raise AssertionError("one channel more than there are numbers was opened")
            for channel in opened[1:]:
                await channel.close()
            for _ in range(churn):
                await (await connection.channel()).close()
            for number in range(most - 1):  # all of them are free again
                opened[number + 1] = await connection.channel()
            await opened[0].queue_declare("lab", durable=True)
            await opened[0].confirm_select()
            for _ in range(10):
                message_id = checker.attempt()
                await checker.publishing(message_id, opened[0].basic_publish("", "lab", message_id))
            await connection.close()

        simulation.run_until(Deferred.fromCoroutine(session()), 3600)
        checker.drained(body.decode() for body in simulation.broker.embedded.queue("lab").bodies)
        for problem in simulation.finish():
            checker.unhandled_error(problem)
    return replace(checker.report(), extra={"cases": 1, "opened": 2 * most + churn})

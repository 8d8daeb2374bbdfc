"""Rows of processes in the simulator: brokers that crash, freeze or restart, clients that are many or blocked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from unittest import mock

from twisted.internet.defer import gatherResults

from tests.lab.rows import Tally, row
from tests.lab.simulated.world import World, simulate
from tests.lab.workload import Settings
from txmsg.amqp.recovery import Backoff, ReconnectingConnection
from txmsg.broker.limits import BrokerLimits
from txmsg.testing.disruption import Network, Report, Simulation
from txmsg.testing.disruption.broker import Kept

__all__: list[str] = []

#: The most a client waits between two rounds while an outage is young.
EAGER = Backoff().eager


def promised(tally: Tally, detection: float | None = None, recovery: float | None = 2.0) -> None:
    """AssertionError if something took longer."""
    for name, found, limit in (("detection", tally.detections, detection), ("recovery", tally.recoveries, recovery)):
        if limit is not None and found and max(found) > limit:
            raise AssertionError(f"{name} took {max(found):.3f} s, more than {limit:g} s")


def seeds(is_long: bool, quick: int, long: int) -> range:
    """Which seeds to run."""
    return range(long if is_long else quick)


def add(tally: Tally, report: Report, world: World) -> None:
    """One run more, with its times."""
    tally.add(report)
    for detection, recovery in (times_of(world),):
        tally.detections += detection
        tally.recoveries += recovery


def times_of(world: World) -> tuple[list[float], list[float]]:
    """Detections and recoveries of a world."""
    found: Any = world.checker
    return list(found._detections), list(found._recoveries)


@row("F1", "SIM", "the broker crashes and restarts", "recovery at most 2 s after the listener; all confirmed")
def crash(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 20, 400):

        def disturb(world: World) -> None:
            random = world.simulation.random
            keep: Kept = "synced" if random.random() < 0.5 else "written"
            for moment in sorted(random.uniform(0.05, 6.0) for _ in range(random.randint(1, 3))):
                down = random.uniform(0.1, 2.0)

                def now(down: float = down) -> None:
                    if world.simulation.broker.is_up:
                        world.fault(down)
                        world.simulation.broker.restart(down, keep=keep)

                world.at(moment, now)

        settings = Settings(messages=100, every=0.05, handling=0.01)
        add(tally, *simulate("F1", seed, disturb, settings, sync_delay=(0.0, 0.02)))
    promised(tally)
    return tally.report(f"0 to {tally.cases - 1}")


@row("F1d", "SIM", "the same with a window that drops duplicates", "0 duplicates reach a handler")
def crash_without_duplicates(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 200):

        def disturb(world: World) -> None:
            random = world.simulation.random
            world.at(random.uniform(0.1, 3.0), lambda: world.fault(0.3), lambda: world.simulation.broker.restart(0.3))
            world.at(random.uniform(4.0, 6.0), world.fault, lambda: reset_all(world))

        # The handler is done at once: what is dropped then was handled before.
        settings = Settings(messages=100, every=0.05, handling=0)
        report, world = simulate("F1d", seed, disturb, settings, window=_window(), sync_delay=(0.0, 0.02))
        if report.duplicates:
            raise AssertionError(f"seed {seed}: {report.duplicates} duplicates reached a handler")
        add(tally, report, world)
    promised(tally)
    return tally.report(f"0 to {tally.cases - 1}")


def reset_all(world: World) -> None:
    """Reset each connection."""
    for link in world.simulation.open_links():
        link.reset()


def frozen(world: World, seconds: float) -> None:
    """The broker's process stops for a while: its connections stay, the system accepts new ones, nothing answers."""
    broker = world.simulation.broker
    releases = [link.hold() for link in world.simulation.open_links()]
    broker.is_silent = True
    world.fault(seconds)

    def go_on() -> None:
        broker.is_silent = False
        for release in releases:
            release()

    world.at(seconds, go_on)


@row("F2", "SIM", "the broker is stopped for three heartbeats", "found between 8 and 9 s (heartbeat 4)")
def freeze(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 100):
        settings = Settings(messages=100, every=0.1)
        report, world = simulate(
            "F2",
            seed,
            lambda world: world.at(world.simulation.random.uniform(1, 6), lambda: frozen(world, 12)),
            settings,
        )
        add(tally, report, world)
    between(tally.detections, 8, 9)
    # An attempt that the frozen broker has accepted ends by its limit of 10 s, and not before.
    promised(tally, recovery=10 + EAGER)
    return tally.report(f"0 to {tally.cases - 1}")


def between(found: list[float], low: float, high: float) -> None:
    """AssertionError for a detection that was too early or too late; the peer's last octet came up to 0.2 s before."""
    for each in found:
        if not low - 0.2 <= each <= high:
            raise AssertionError(f"found after {each:.3f} s, not between {low:g} and {high:g} s")


@row("F3", "SIM", "the broker is stopped for less than a heartbeat", "no reconnect")
def short_freeze(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 100):
        settings = Settings(messages=100, every=0.1)
        report, world = simulate(
            "F3",
            seed,
            lambda world: world.at(world.simulation.random.uniform(1, 6), lambda: frozen(world, 3.5)),
            settings,
        )
        none_lost(world)
        add(tally, report, world)
    return tally.report(f"0 to {tally.cases - 1}", reconnects=0)


def none_lost(world: World) -> None:
    """AssertionError if a connection was lost."""
    if world.recorder.times.count("lost"):
        raise AssertionError(f"a connection was lost: {world.recorder.times.steps}")


@row("F22", "SIM", "the broker never answers a close", "close() ends within its 10 s")
def no_close_ok(is_long: bool, client: str) -> Report:
    tally = Tally()
    longest = 0.0
    for method in ("connection.close", "channel.close"):
        for seed in seeds(is_long, 3, 50):
            closing: list[float] = []

            def disturb(world: World, method: str = method, closing: list[float] = closing) -> None:
                world.simulation.frames.drop(None, "to_broker", method=method, times=None)
                world.workload.consuming.add_state_callback(
                    lambda step: closing.append(step.at) if step.new.value == "closing" else None
                )

            report, world = simulate("F22", seed, disturb)
            # Two connections, one after the other.
            longest = max(longest, (world.now - closing[0]) / 2)
            add(tally, report, world)
    if longest > 10.1:
        raise AssertionError(f"close() took {longest:.3f} s")
    return tally.report(f"0 to {tally.cases // 2 - 1}", close_seconds=round(longest, 3))


@row("F24", "SIM", "the wall clock jumps by an hour, both ways", "no reconnect, nothing expires")
def wall_clock(is_long: bool, client: str) -> Report:
    import time

    tally = Tally()
    for seed in seeds(is_long, 4, 50):
        offset = [0.0]
        real = time.time

        def jump(hours: float, offset: list[float] = offset) -> None:
            offset[0] += hours

        def disturb(world: World, jump: Callable[[float], None] = jump) -> None:
            for second in range(1, 10):
                hours = world.simulation.random.choice((-3600.0, 3600.0))
                world.at(float(second), partial(jump, hours))

        with mock.patch("time.time", lambda offset=offset, real=real: real() + offset[0]):
            report, world = simulate("F24", seed, disturb, Settings(messages=100, every=0.1))
        none_lost(world)
        add(tally, report, world)
    return tally.report(f"0 to {tally.cases - 1}", reconnects=0)


@row("F25", "SIM", "the application blocks the reactor for 1.5 and 4 heartbeats", "we drop no live connection")
def blocked_reactor(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 5, 100):
        for heartbeats in (1.5, 4):

            def disturb(world: World, heartbeats: float = heartbeats) -> None:
                # Nothing of what is due runs until the pause is over; then all of it is late.
                def block() -> None:
                    world.simulation.clock.rightNow += heartbeats * 4

                world.at(world.simulation.random.uniform(1, 5), block)

            report, world = simulate("F25", seed, disturb, Settings(messages=100, every=0.1))
            lost = [step for step in world.recorder.times.steps if step[2] == "lost"]
            if any(why == "HeartbeatTimeout" for *_, why in lost):
                raise AssertionError(f"seed {seed}: a live connection was declared dead after {heartbeats} heartbeats")
            add(tally, report, world)
    return tally.report(f"0 to {tally.cases // 2 - 1}")


@row("F27", "SIM", "a hundred clients, and the broker restarts", "attempts per second stay below 300; all are back")
def herd(is_long: bool, client: str) -> Report:
    tally = Tally()
    peak = 0
    for seed in seeds(is_long, 1, 20):
        attempts: list[float] = []

        def disturb(world: World, attempts: list[float] = attempts) -> None:
            simulation = world.simulation
            others = [_one_of_many(simulation, number, attempts) for number in range(98)]
            world.at(3.0, lambda: world.fault(4.0), lambda: simulation.broker.restart(4.0))

            def all_back() -> None:
                missing = [each for each in others if not each.is_ready]
                if missing:
                    world.checker.unhandled_error(
                        f"{len(missing)} of {len(others)} clients are not back: {missing[0]!r}"
                    )
                gatherResults([each.close() for each in others])

            world.at(11.0, all_back)

        settings = Settings(messages=130, every=0.1)
        limits = BrokerLimits(connections_per_address=256, login_delay=0.0)
        report, world = simulate("F27", seed, disturb, settings, network=Network(delay=(0.001, 0.01)), limits=limits)
        attempts += [at for at, _, state, _ in world.recorder.times.steps if state == "connecting"]
        during = sorted(at for at in attempts if 3.0 <= at < 11.0)
        peak = max(peak, *(sum(at <= other < at + 1 for other in during) for at in during))
        add(tally, report, world)
    promised(tally)
    if peak >= 300:
        raise AssertionError(f"{peak} attempts within a second")
    return tally.report(f"0 to {tally.cases - 1}", attempts_per_second_peak=peak)


def _one_of_many(simulation: Simulation, number: int, attempts: list[float]) -> ReconnectingConnection:
    connection = ReconnectingConnection(
        simulation.parameters(heartbeat=4),
        reactor=simulation.clock,
        endpoint=simulation.endpoints(f"client-{number}"),
        backoff=Backoff(random=simulation.random.random),
    )
    connection.add_state_callback(lambda step: attempts.append(step.at) if step.new.value == "connecting" else None)
    connection.start().addErrback(lambda failure: None)
    return connection


def _window() -> Any:
    from txmsg.amqp.recovery.duplicates import DuplicateWindow

    return DuplicateWindow()


@row("F1e", "SIM", "the broker comes back empty: its disk is gone", "everything is declared and consumed again")
def empty_broker(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 100):

        def disturb(world: World) -> None:
            def paused(is_paused: bool) -> None:
                world.workload.is_paused = is_paused

            for moment in (1.0, 6.0):
                down = world.simulation.random.uniform(0.1, 1.0)
                # What is in the queues would be lost with the disk; so nothing is.
                world.at(moment, lambda: paused(True))
                world.at(moment + 0.5, partial(world.fault, down))
                world.at(moment + 0.5, partial(world.simulation.broker.restart, down, keep="nothing"))
                world.at(moment + 4.0, lambda: paused(False))

        add(tally, *simulate("F1e", seed, disturb, Settings(messages=100, every=0.05)))
    promised(tally)
    return tally.report(f"0 to {tally.cases - 1}")

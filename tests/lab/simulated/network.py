"""Rows of networks in the simulator: cut, stalled, silent, slow, flapping, at every position of a session."""

from __future__ import annotations

from tests.lab.rows import Tally, row
from tests.lab.simulated.process import EAGER, add, between, none_lost, promised, reset_all, seeds
from tests.lab.simulated.world import World, simulate
from tests.lab.workload import Settings
from txmsg.testing.disruption import TO_BROKER, TO_CLIENT, Network, Report
from txmsg.testing.disruption.cuts import How
from txmsg.testing.disruption.frames import Direction

__all__: list[str] = []

#: The canonical session of a sweep: connect, declare, consume, three publishes, acks, close.
SESSION = Settings(publishers=1, queues=1, messages=3, every=0.005)
HEARTBEAT = 4.0

_CLIENTS = ("publishing", "consuming")
_DIRECTIONS: tuple[Direction, Direction] = (TO_BROKER, TO_CLIENT)


def nothing(world: World) -> None:
    """No fault."""


def lengths(settings: Settings = SESSION) -> dict[tuple[str, Direction], int]:
    """How many octets pass in a session without a fault."""
    _, world = simulate("no fault", 0, nothing, settings)
    return {
        (link.client, direction): link.octets(direction) for link in world.simulation.links for direction in _DIRECTIONS
    }


def sweep(fault: str, how: How, is_long: bool, recovery: float) -> Report:
    """Cut the session at each octet (quick: at each 37th), of each connection, in each direction."""
    tally = Tally()
    for (client, direction), octets in lengths().items():
        for position in range(0, octets + 1, 1 if is_long else 37):

            def disturb(
                world: World, client: str = client, direction: Direction = direction, position: int = position
            ) -> None:
                world.simulation.cut(how, direction, after_bytes=position, client=client, connection=1)

            try:
                report, world = simulate(fault, position, disturb, SESSION)
                if world.recorder.times.reconnects():
                    first = next(at for at, *_, state, _ in world.recorder.times.steps if state == "lost")
                    ready = [at for at, *_, state, _ in world.recorder.times.steps if state == "ready" and at > first]
                    tally.recoveries.append(ready[0] - first)
                tally.add(report)
            except Exception as error:
                error.add_note(f"{how} of {client} {direction} after {position} octets")
                raise
    promised(tally, recovery=recovery)
    return tally.report("position", step=1 if is_long else 37)


@row("F4", "SIM", "RST at every octet of a session, both ways, both connections", "all confirmed, recovery at most 2 s")
def reset(is_long: bool, client: str) -> Report:
    return sweep("F4", "rst", is_long, 2.0)


@row("F5", "SIM", "FIN at every octet", "all confirmed, recovery at most 2 s")
def end_of_stream(is_long: bool, client: str) -> Report:
    return sweep("F5", "fin", is_long, 2.0)


@row("F6", "SIM", "stall for ever at every octet", "all confirmed, recovery at most 2 s after detection")
def stall(is_long: bool, client: str) -> Report:
    return sweep("F6", "stall", is_long, 2.0)


@row("F7", "SIM", "octets in pieces of any size", "the same outcomes as in whole pieces; no reconnect")
def pieces(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(messages=20, size=600)
    whole, _ = simulate("F7", 0, nothing, settings)
    for chunk in ((1, 1), (2, 3), (7, 7), (8, 8), (1, 100), (4095, 4097), (65536, 65536)):
        for seed in seeds(is_long, 1, 20):
            report, world = simulate("F7", seed, nothing, settings, network=Network(chunk, (0.0, 0.0001)))
            none_lost(world)
            same = ("sent", "confirmed", "handled", "deliveries", "duplicates")
            if any(getattr(report, name) != getattr(whole, name) for name in same):
                raise AssertionError(f"chunks of {chunk}: {report} instead of {whole}")
            add(tally, report, world)
    return tally.report(f"0 to {tally.cases // 7 - 1}", reconnects=0)


def half_open(world: World, directions: tuple[Direction, ...], seconds: float) -> None:
    """What is connected goes through a black hole from now on, and new connections fail for a while."""
    broker = world.simulation.broker
    for link in world.simulation.open_links():
        link.swallow(directions)
    broker.is_unreachable = seconds > 0
    world.fault(seconds)

    def heal() -> None:
        broker.is_unreachable = False

    world.at(seconds, heal)


@row("F8", "SIM", "half-open: nothing passes any more, healed after 10 s", "found between 8 and 9 s")
def black_hole(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 100):
        settings = Settings(messages=100, every=0.1)
        report, world = simulate(
            "F8",
            seed,
            lambda world: world.at(world.simulation.random.uniform(1, 6), lambda: half_open(world, _DIRECTIONS, 10)),
            settings,
        )
        add(tally, report, world)
    between(tally.detections, 8, 9)
    promised(tally, recovery=10 + EAGER)
    return tally.report(f"0 to {tally.cases - 1}")


@row("F9", "SIM", "one way only: we hear nothing; they hear nothing", "we find it between 8 and 9 s, they within 3 T")
def one_way(is_long: bool, client: str) -> Report:
    tally = Tally()
    ways: list[tuple[Direction, float, float]] = [(TO_CLIENT, 8.0, 9.0), (TO_BROKER, 0.0, 13.0)]
    for direction, low, high in ways:
        found: list[float] = []
        for seed in seeds(is_long, 5, 50):

            def disturb(world: World, direction: Direction = direction) -> None:
                world.at(world.simulation.random.uniform(1, 6), lambda: half_open(world, (direction,), 0))

            report, world = simulate("F9", seed, disturb, Settings(messages=100, every=0.1))
            add(tally, report, world)
            found += tally.detections[-2:]
        between(found, low, high)
    promised(tally)
    return tally.report(f"0 to {tally.cases // 2 - 1}")


@row("F10", "SIM", "the first host accepts and says nothing, or does not answer", "it costs 10 s, then comes the next")
def silent_host(is_long: bool, client: str) -> Report:
    tally = Tally()
    longest = 0.0
    for attribute in ("is_silent", "is_unreachable"):
        for seed in seeds(is_long, 2, 30):

            def disturb(world: World, attribute: str = attribute) -> None:
                setattr(world.simulation.broker, attribute, True)
                world.at(15, world.fault, lambda: reset_all(world))

            settings = Settings(messages=100, every=0.1)
            report, world = simulate("F10", seed, disturb, settings, brokers=("silent", "live"))
            first = min(at for at, _, state, _ in world.recorder.times.steps if state == "ready")
            longest = max(longest, first)
            add(tally, report, world)
    if longest > 10.5:
        raise AssertionError(f"the first connection took {longest:.3f} s")
    return tally.report(f"0 to {tally.cases // 2 - 1}", first_ready=round(longest, 3))


@row("F12", "SIM", "nothing listens for 60 s", "at most 120 attempts in 60 s; ready within 32 s of the listener")
def port_closed(is_long: bool, client: str) -> Report:
    tally = Tally()
    most = 0
    for seed in seeds(is_long, 10, 100):

        def disturb(world: World) -> None:
            world.at(1, lambda: world.fault(60), lambda: world.simulation.broker.restart(60))

        settings = Settings(messages=100, every=0.1, publish_timeout=120)
        report, world = simulate("F12", seed, disturb, settings)
        add(tally, report, world)
        for name in _CLIENTS:
            steps = world.recorder.times.steps
            most = max(most, sum(who == name and state == "connecting" and 1 < at < 61 for at, who, state, _ in steps))
    promised(tally, recovery=32)
    if most > 120:
        raise AssertionError(f"{most} attempts in 60 s")
    return tally.report(f"0 to {tally.cases - 1}", attempts_in_60_s=most)


@row("F13", "SIM", "partition from the broker for three heartbeats", "found between 8 and 9 s; recovery at most 11.5 s")
def partition(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 100):

        def disturb(world: World) -> None:
            world.at(world.simulation.random.uniform(1, 6), lambda: half_open(world, _DIRECTIONS, 12))

        add(tally, *simulate("F13", seed, disturb, Settings(messages=100, every=0.1)))
    between(tally.detections, 8, 9)
    promised(tally, recovery=10 + EAGER)
    return tally.report(f"0 to {tally.cases - 1}")


@row("F14", "SIM", "flapping for 60 s: 200 ms up, 200 ms down", "at most 10 attempts per second; recovery at most 32 s")
def flapping(is_long: bool, client: str) -> Report:
    tally = Tally()
    peak = 0
    for seed in seeds(is_long, 3, 50):

        def disturb(world: World) -> None:
            broker = world.simulation.broker
            embedded = [broker.embedded]

            def down() -> None:
                broker.is_silent = True
                reset_all(world)

            def up() -> None:
                broker.is_silent = False
                reset_all(world)  # those that were accepted meanwhile

            assert embedded
            for number in range(150):
                world.at(1 + number * 0.4, down)
                world.at(1.2 + number * 0.4, up)
            world.at(1, lambda: world.fault(60))

        settings = Settings(messages=300, every=0.1, publish_timeout=150)
        report, world = simulate("F14", seed, disturb, settings)
        add(tally, report, world)
        for name in _CLIENTS:
            tried = [at for at, who, state, _ in world.recorder.times.steps if who == name and state == "connecting"]
            peak = max(peak, *(sum(at <= other < at + 1 for other in tried) for at in tried))
    promised(tally, recovery=32)
    if peak > 10:
        raise AssertionError(f"{peak} attempts within a second")
    return tally.report(f"0 to {tally.cases - 1}", attempts_per_second_peak=peak)


@row(
    "F15",
    "SIM",
    "a second fault at each frame and octet of the recovery",
    "converges in all cases, within 2 s or limit",
)
def second_fault(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(publishers=1, queues=2, messages=30, every=0.02)
    for name in _CLIENTS:
        for direction in _DIRECTIONS:
            for how in ("rst", "fin", "stall"):
                # A consuming connection recovers in 20 frames or so; beyond its end nothing happens.
                for frames in range(0, 26, 1 if is_long else 3):

                    def disturb(
                        world: World,
                        name: str = name,
                        direction: Direction = direction,
                        how: How = how,
                        frames: int = frames,
                    ) -> None:
                        world.at(0.2, world.fault, lambda: reset_all(world))
                        world.simulation.cut(how, direction, after_frames=frames, client=name, connection=2)

                    try:
                        report, _ = simulate("F15", frames, disturb, settings)
                        tally.add(report)
                    except Exception as error:
                        error.add_note(f"{how} of {name}'s second connection {direction} after {frames} frames")
                        raise
    return tally.report("frame")


@row("F15b", "SIM", "the same with the broker's crash, and cuts at each octet", "converges in all cases")
def crash_in_recovery(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(publishers=1, queues=2, messages=30, every=0.02)
    for name in _CLIENTS:
        for direction in _DIRECTIONS:
            for position in range(0, 900, 1 if is_long else 61):

                def disturb(
                    world: World, name: str = name, direction: Direction = direction, position: int = position
                ) -> None:
                    broker = world.simulation.broker
                    world.at(0.2, world.fault, lambda: reset_all(world))
                    world.simulation.cut(
                        lambda link: broker.restart(0.3), direction, after_bytes=position, client=name, connection=2
                    )

                try:
                    report, _ = simulate("F15b", position, disturb, settings)
                    tally.add(report)
                except Exception as error:
                    error.add_note(f"crash when {name}'s second connection has {position} octets {direction}")
                    raise
    return tally.report("position")

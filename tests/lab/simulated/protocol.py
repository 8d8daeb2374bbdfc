"""Rows of the protocol in the simulator: closes, cancels, alarms, refusals and broken frames."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.rows import Tally, row
from tests.lab.simulated.process import add, none_lost, promised, reset_all, seeds
from tests.lab.simulated.world import World, simulate
from tests.lab.workload import EXCHANGE, Settings, queue_name
from txmsg.testing.disruption import TO_CLIENT, Frame, Report
from txmsg.testing.faults import Faults
from txmsg.wire.methods import connection as connection_methods

__all__: list[str] = []

#: Codes after which the same host is left alone for a while: 30 to 45 s.
_SLOW = 45.0


def _several(
    fault: str,
    settings: Settings,
    is_long: bool,
    what: Callable[[World, Faults], object],
    *,
    times: int = 3,
    recovery: float | None = 2.0,
    all_confirmed: bool = True,
    keeps_connections: bool = False,
) -> Tally:
    """Do it at a few moments of each run; the number of runs is 10, or 200."""
    tally = Tally()
    for seed in seeds(is_long, 10, 200):

        def disturb(world: World) -> None:
            random = world.simulation.random
            for _ in range(random.randint(1, times)):

                def now() -> None:
                    world.fault()
                    what(world, world.simulation.broker.embedded.faults)

                world.at(random.uniform(0.05, 4.0), now)

        report, world = simulate(fault, seed, disturb, settings, all_confirmed=all_confirmed)
        if keeps_connections:
            none_lost(world)
        add(tally, report, world)
    promised(tally, recovery=recovery)
    return tally


@row("F30", "SIM", "connection.close before each frame of a session", "code 320: recovery at most 2 s; 5xx: 30 to 45 s")
def connection_close(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(publishers=1, queues=1, messages=3, every=0.01, publish_timeout=120)
    for code in (320, 501, 504, 530, 541):
        close = Frame.of(1, 0, connection_methods.Close(code, "closed by the lab").encode())
        slow = code in (501, 504, 530)
        for number in range(1, 24, 1 if is_long else 3):

            def disturb(world: World, close: Frame = close, number: int = number) -> None:
                world.expected.append("the broker found fault with what was sent")
                world.simulation.frames.inject(close, number, TO_CLIENT)

            try:
                report, world = simulate("F30", f"{code}/{number}", disturb, settings)
            except Exception as error:
                error.add_note(f"{code} before frame {number}")
                raise
            tally.add(report)
            steps = world.recorder.times.steps
            for name in {step[1] for step in steps}:
                lost = [at for at, who, state, _ in steps if who == name and state == "lost"]
                ready = [at for at, who, state, _ in steps if who == name and state == "ready"]
                if lost and max(ready) > lost[0]:
                    tally.recoveries.append(max(ready) - lost[0])
                    if tally.recoveries[-1] > (_SLOW + 2 if slow else 2):
                        raise AssertionError(f"{code} before frame {number}: {tally.recoveries[-1]:.3f} s")
    return tally.report("code/frame")


@row("F30b", "SIM", "the broker closes all connections with 320, as an operator does", "recovery at most 2 s")
def forced(is_long: bool, client: str) -> Report:
    settings = Settings(messages=100, every=0.05)
    tally = _several("F30b", settings, is_long, lambda world, faults: faults.close_connection(320))
    return tally.report(f"0 to {tally.cases - 1}")


@row(
    "F31",
    "SIM",
    "channel.close (404, 406, 403, 405) with confirms pending",
    "no connection is lost; none but the guilty fail",
)
def channel_close(is_long: bool, client: str) -> Report:
    settings = Settings(messages=100, every=0.02, publish_timeout=120)

    def close(world: World, faults: Faults) -> None:
        random = world.simulation.random
        code = random.choice((403, 404, 405, 406))
        if random.random() < 0.5:
            faults.close_channel(code)
        else:
            faults.close_channel(code, on=random.choice(("basic.publish", "queue.declare")))

    # A publish that was alone in flight when the broker closed its channel because of a publish is the one: it fails.
    tally = _several("F31", settings, is_long, close, all_confirmed=False, keeps_connections=True)
    return tally.report(f"0 to {tally.cases - 1}")


@row("F32", "SIM", "a broken frame from the broker, at each frame of a session", "one connection lost; all confirmed")
def broken_frames(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(publishers=1, queues=1, messages=3, every=0.01, publish_timeout=120)
    for number in range(1, 20, 1 if is_long else 3):
        for kind in ("end octet", "type", "unknown method", "heartbeat on channel 5", "too long"):

            def disturb(world: World, number: int = number, kind: str = kind) -> None:
                frames = world.simulation.frames
                if kind == "end octet":
                    frames.corrupt(number, TO_CLIENT)
                elif kind == "type":
                    frames.corrupt(number, TO_CLIENT, at=0, to=9)
                elif kind == "unknown method":
                    frames.inject(Frame.of(1, 0, b"\x00\x63\x00\x63"), number, TO_CLIENT)
                elif kind == "too long":
                    frames.inject(b"\x01\x00\x00\x7f\xff\xff\xff", number, TO_CLIENT)
                else:
                    frames.inject(Frame.of(8, 5, b""), number, TO_CLIENT)

            try:
                report, _ = simulate("F32", number, disturb, settings)
            except Exception as error:
                error.add_note(f"{kind} at frame {number}")
                raise
            tally.add(report)
    return tally.report("frame")


@row("F34", "SIM", "a confirm or a delivery is lost, or comes twice", "lost: by the deadline; twice: connection anew")
def frames_astray(is_long: bool, client: str) -> Report:
    tally = Tally()
    settings = Settings(messages=20, every=0.05, publish_timeout=20)
    for method in ("basic.ack", "basic.deliver"):
        for what in ("duplicate", "drop"):
            for number in range(1, 12, 1 if is_long else 4):

                def disturb(world: World, method: str = method, what: str = what, number: int = number) -> None:
                    getattr(world.simulation.frames, what)(number, TO_CLIENT, method=method)

                try:
                    # A confirm that is lost leaves its publish unconfirmed.
                    report, _ = simulate("F34", number, disturb, settings, all_confirmed=False)
                except Exception as error:
                    error.add_note(f"{what} of {method} {number}")
                    raise
                tally.add(report)
    return tally.report("number")


@row("F36", "SIM", "the broker cancels consumers, again and again", "no connection is lost; all confirmed and handled")
def cancelled(is_long: bool, client: str) -> Report:
    settings = Settings(messages=100, every=0.05)

    def cancel(world: World, faults: Faults) -> None:
        faults.cancel_consumers(queue_name(world.simulation.random.randrange(2)))

    tally = _several("F36", settings, is_long, cancel, keeps_connections=True)
    return tally.report(f"0 to {tally.cases - 1}")


@row(
    "F37",
    "SIM",
    "alarms: memory and disk, overlapping, also while connections are cut",
    "consumers go on; all confirmed",
)
def alarms(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 200):

        def disturb(world: World) -> None:
            random = world.simulation.random
            for source in ("memory", "disk"):
                began = random.uniform(0.5, 3.0)

                def block(source: str = source) -> None:
                    fault = world.simulation.broker.embedded.faults.block(source)
                    world.at(random.uniform(1.0, 8.0), fault.stop)

                world.at(began, block)
            if random.random() < 0.5:
                world.at(random.uniform(1.0, 5.0), lambda: reset_all(world))

        settings = Settings(messages=100, every=0.05)
        report, world = simulate("F37", seed, disturb, settings)
        add(tally, report, world)
    return tally.report(f"0 to {tally.cases - 1}")


@row(
    "F43",
    "SIM",
    "the broker nacks some publishes",
    "each ends with its own error; no connection is lost",
)
def refused(is_long: bool, client: str) -> Report:
    tally = Tally()
    for seed in seeds(is_long, 10, 200):

        def disturb(world: World) -> None:
            random = world.simulation.random

            def nack() -> None:
                world.simulation.broker.embedded.faults.nack(exchange=EXCHANGE, times=random.randint(1, 20))

            world.at(random.uniform(0.1, 3.0), nack)

        report, world = simulate("F43", seed, disturb, Settings(messages=100, every=0.05), all_confirmed=False)
        none_lost(world)
        if report.confirmed + report.nacked != report.sent:
            raise AssertionError(f"seed {seed}: {report}")
        add(tally, report, world)
    return tally.report(f"0 to {tally.cases - 1}")

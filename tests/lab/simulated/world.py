"""One run of the workload in a simulation, with a fault."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tests.lab.recorder import CheckerRecorder
from tests.lab.workload import Settings, Workload
from txmsg.broker.limits import BrokerLimits
from txmsg.testing.disruption import Network, QueueChecker, Report, Simulation

__all__ = ["World", "simulate"]

_PORT = 5672


class World:
    """A simulation with the workload in it.

    simulation, workload, checker, recorder.   faults: list of (began, healed), in seconds of the simulation.
    """

    def __init__(self, fault: str, seed: int | str, settings: Settings, simulation: Simulation, window: Any) -> None:
        self.simulation = simulation
        self.checker = QueueChecker(fault, seed=seed)
        self.recorder = CheckerRecorder(self.checker, simulation.clock.seconds)
        self.faults: list[tuple[float, float]] = []
        #: What may be in the log: parts of the texts.
        self.expected: list[str] = []
        self._plans: list[IDelayedCall] = []
        ports = [_PORT + number for number in range(len(simulation.brokers))]
        self.workload = Workload(
            replace(
                settings,
                targets=tuple(
                    simulation.parameters(host="localhost", port=port, operation_timeout=120) for port in ports
                ),
            ),
            self.recorder,
            simulation.clock,
            endpoint=simulation.endpoints,
            window=window,
            random=simulation.random.random,
        )

    @property
    def now(self) -> float:
        """Seconds of the simulation."""
        return self.simulation.clock.seconds()

    def at(self, seconds: float, *what: Callable[[], object]) -> None:
        """Do it in so many seconds."""
        self._plans += [self.simulation.clock.callLater(seconds, each) for each in what]

    def fault(self, lasting: float = 0.0) -> None:
        """A fault begins now, and is over in so many seconds: what detection and recovery are counted from."""
        self.faults.append((self.now, self.now + lasting))

    def finish(self) -> Report:
        """Let the workload come to its end; what was left behind counts as an error."""
        workload, simulation = self.workload, self.simulation
        limit = workload.settings.publish_timeout + workload.settings.quiet + 300
        simulation.run_until(Deferred.fromCoroutine(workload.run()), limit)
        for plan in self._plans:
            if plan.active():
                plan.cancel()
        for problem in simulation.finish():
            if any(text in problem for text in self.expected):
                continue
            self.checker.unhandled_error(problem)
        self.recorder.times.tell(self.checker, self.faults)
        return self.checker.report()


def simulate(
    fault: str,
    seed: int | str,
    disturb: Callable[[World], object],
    settings: Settings | None = None,
    *,
    network: Network | None = None,
    brokers: tuple[str, ...] = ("broker",),
    sync_delay: tuple[float, float] = (0.0, 0.0),
    limits: BrokerLimits | None = None,
    window: Any = None,
    all_confirmed: bool = True,
) -> tuple[Report, World]:
    """Run it once; returns the report and the world, which is over.

    disturb(world) -- called before anything happens, to set the faults.
    all_confirmed: whether each message must be confirmed in the end, as it must if they may be sent again.
    """
    used = Settings(messages=20) if settings is None else settings
    with Simulation(seed, network=network, brokers=brokers, sync_delay=sync_delay, limits=limits) as simulation:
        world = World(fault, seed, used, simulation, window)
        disturb(world)
        report = world.finish()
    if all_confirmed and report.confirmed != report.sent:
        raise AssertionError(
            f"{fault} (seed {seed!r}): {report.sent - report.confirmed} of {report.sent} not confirmed"
        )
    return report, world

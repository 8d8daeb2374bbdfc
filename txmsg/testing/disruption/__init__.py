"""Things that go wrong, on purpose: what tests of reliability are made of.

* :mod:`txmsg.testing.disruption.simulator`: clients and brokers in one process, on one clock, with every choice from
  one seed: chunks, delays, cuts at any octet or frame, stalls, black holes, crashes of the broker.
* :mod:`txmsg.testing.disruption.proxy`: a TCP proxy that knows AMQP's frames, for real clients and real brokers.
* :mod:`txmsg.testing.disruption.checker`: what publishers were told against what consumers got, as a report.

docs/disruption.md has them with examples.
"""

from txmsg.testing.disruption.broker import SimulatedBroker
from txmsg.testing.disruption.checker import QueueChecker, ending_of
from txmsg.testing.disruption.clock import SimulatedClock, SimulationStuck
from txmsg.testing.disruption.frames import TO_BROKER, TO_CLIENT, Frame
from txmsg.testing.disruption.links import Link, Network
from txmsg.testing.disruption.outcomes import Outcome
from txmsg.testing.disruption.proxied import ProxiedConnection
from txmsg.testing.disruption.proxy import DisruptionProxy, ProxyCounters
from txmsg.testing.disruption.report import Report, Timing, table
from txmsg.testing.disruption.simulator import Simulation, SimulationFailed, SimulationTimeout

__all__ = [
    "TO_BROKER",
    "TO_CLIENT",
    "DisruptionProxy",
    "Frame",
    "Link",
    "Network",
    "Outcome",
    "ProxiedConnection",
    "ProxyCounters",
    "QueueChecker",
    "Report",
    "SimulatedBroker",
    "SimulatedClock",
    "Simulation",
    "SimulationFailed",
    "SimulationStuck",
    "SimulationTimeout",
    "Timing",
    "ending_of",
    "table",
]

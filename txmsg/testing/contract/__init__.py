"""The contract of a messaging transport (:mod:`txmsg.abc`) as tests, for transports of your own too.

    class PigeonTests(TransportContract, TestCase):
        timeout = 30
        lacks = frozenset({"exchanges", "exchange bindings"})

        def new_connection(self):
            return PigeonTransport().connect("carrier+pigeon://loft")

Trial and pytest run the methods that it brings.  What a transport does not have is named in `lacks`; it has to refuse
it then.  One whose connections come back adds :class:`RecoveryContract` and says how they are lost.
"""

from __future__ import annotations

from txmsg.testing.contract.case import FEATURES, ContractCase
from txmsg.testing.contract.consuming import ConsumingContract
from txmsg.testing.contract.life import LifeContract
from txmsg.testing.contract.publishing import PublishingContract
from txmsg.testing.contract.recovery import RecoveryContract
from txmsg.testing.contract.routing import RoutingContract
from txmsg.testing.contract.settling import SettlingContract
from txmsg.testing.contract.topology import TopologyContract

__all__ = [
    "FEATURES",
    "ConsumingContract",
    "ContractCase",
    "LifeContract",
    "PublishingContract",
    "RecoveryContract",
    "RoutingContract",
    "SettlingContract",
    "TopologyContract",
    "TransportContract",
]


class TransportContract(
    LifeContract, PublishingContract, TopologyContract, RoutingContract, ConsumingContract, SettlingContract
):
    """All of what every transport promises, but for recovery.  Put it before `twisted.trial.unittest.TestCase`."""

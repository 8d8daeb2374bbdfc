"""The public test kit: brokers to test against.

* :mod:`txmsg.testing.broker`: a whole broker inside your test, with or without a socket, which can be looked into and
  told to fail (:mod:`txmsg.testing.faults`).
* :mod:`txmsg.testing.process`: the same in a process of its own, for clients that block.
* :mod:`txmsg.testing.cases`: a mixin for trial's test cases; `txmsg.pytest_plugin` has the fixtures for pytest.
* :mod:`txmsg.testing.rabbitmq`: a private RabbitMQ node, started and killed by your test.
* :mod:`txmsg.testing.disruption`: a simulator, a proxy and a checker, for tests of what happens when things go wrong.
* :mod:`txmsg.testing.ports`: free ports that cannot lead to a TCP self-connect.

Nothing else in txmsg imports this package.
"""

from txmsg.testing.broker import EmbeddedBroker, WaitTimeout
from txmsg.testing.cases import BrokerMixin
from txmsg.testing.inspection import MessageView, NoSuchEntity, QueueView
from txmsg.testing.ports import free_ports
from txmsg.testing.process import BrokerProcess, BrokerProcessFailed
from txmsg.testing.rabbitmq import NodeFailed, NodeTLS, RabbitMQMissing, RabbitMQNode, find_rabbitmq_server
from txmsg.testing.scripted import ScriptedFault

__all__ = [
    "BrokerMixin",
    "BrokerProcess",
    "BrokerProcessFailed",
    "EmbeddedBroker",
    "MessageView",
    "NoSuchEntity",
    "NodeFailed",
    "NodeTLS",
    "QueueView",
    "RabbitMQMissing",
    "RabbitMQNode",
    "ScriptedFault",
    "WaitTimeout",
    "find_rabbitmq_server",
    "free_ports",
]

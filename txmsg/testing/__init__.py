"""The public test kit: brokers to test against.

* :mod:`txmsg.testing.rabbitmq`: a private RabbitMQ node, started and killed by your test.
* :mod:`txmsg.testing.ports`: free ports that cannot lead to a TCP self-connect.

Nothing else in txmsg imports this package.
"""

from txmsg.testing.ports import free_ports
from txmsg.testing.rabbitmq import NodeFailed, NodeTLS, RabbitMQMissing, RabbitMQNode, find_rabbitmq_server

__all__ = ["NodeFailed", "NodeTLS", "RabbitMQMissing", "RabbitMQNode", "find_rabbitmq_server", "free_ports"]

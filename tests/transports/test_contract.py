"""The contract of a messaging transport, over each transport there is."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred

from tests.cases import RabbitMQTestCase
from tests.transports.cases import TransportCases
from txmsg.testing import EmbeddedBroker
from txmsg.transports.amqp import AMQPTransport
from txmsg.transports.memory import MemoryTransport


class ContractOverMemory(TransportCases):
    """R38, C12: ``memory://``."""

    __test__ = True

    def setUp(self) -> None:
        self.transport = MemoryTransport()
        self.addCleanup(self.transport.reset)

    async def new_connection(self) -> Any:
        return await self.transport.connect("memory://")


class ContractOverBroker(TransportCases):
    """R38, C12, R34: ``amqp://`` to the embedded broker."""

    __test__ = True

    def setUp(self) -> Deferred[Any]:  # type: ignore[override]
        self.broker = EmbeddedBroker(listen=True)
        self.addCleanup(self.broker.stop)
        return self.broker.start()

    async def new_connection(self) -> Any:
        return await AMQPTransport().connect(self.broker.url)


class ContractOverRabbitMQ(RabbitMQTestCase, TransportCases):
    """R38, C12: ``amqp://`` to RabbitMQ."""

    __test__ = True

    async def new_connection(self) -> Any:
        return await AMQPTransport().connect(self.node.url)

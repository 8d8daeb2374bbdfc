"""The contract of a messaging transport, over each transport there is."""

from __future__ import annotations

from typing import Any

from tests.cases import RabbitMQTestCase
from tests.transports.cases import TransportCases
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


class ContractOverRabbitMQ(RabbitMQTestCase, TransportCases):
    """R38, C12: ``amqp://`` to RabbitMQ."""

    __test__ = True

    async def new_connection(self) -> Any:
        return await AMQPTransport().connect(self.node.url)

"""examples/list_transport.py, the transport that docs/transports.md goes through, keeps the contract."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from tests.cases import ReactorTestCase
from tests.test_examples import run_example
from txmsg import abc
from txmsg.errors import ConfigurationError, NotImplementedByPeer
from txmsg.testing.contract import FEATURES, TransportContract

_EXAMPLE = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "list_transport.py"))


class ListTransportTests(TransportContract, ReactorTestCase):
    """kombu C4, C11, W2: the contract, but for what it says it has not."""

    lacks = FEATURES - {"redelivered"}

    def setUp(self) -> None:
        self.transport = _EXAMPLE["ListTransport"]()

    def new_connection(self) -> Any:
        return self.transport.connect("list://")

    async def test_what_it_has_not(self) -> None:
        """It is refused, and not emulated; the channel goes on."""
        channel = await self.channel()
        await self.failure(channel.exchange_declare("x"), NotImplementedByPeer)
        await self.failure(channel.queue_declare("q", durable=True), NotImplementedByPeer)
        await self.failure(self.transport.connect("list://", options={"speed": 3}), ConfigurationError)
        self.assertTrue(channel.is_open)
        self.assertIsInstance(self.transport, abc.MessagingTransport)

    async def test_the_program(self) -> None:
        """It runs as it says."""
        self.assertEqual(await self.in_thread(run_example, "list_transport.py"), "1 first\n")

"""txamqp's own tests and published examples on our classes, from a checkout of its repository.

TXMSG_TXAMQP_CHECKOUT names the checkout; nothing of it is kept here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue

from tests.compat.txamqp.cases import OverBroker, OverRabbitMQ, TxAMQPCase
from tests.source import ROOT

CHECKOUT = os.environ.get("TXMSG_TXAMQP_CHECKOUT", "")
RUNNER = Path(__file__).with_name("example_program.py")


class PublishedCases(TxAMQPCase):
    timeout = 120

    def run_example(self, file: str, *more: str) -> Deferred[Any]:
        broker = [self.node.host, str(self.node.port), "/", "guest", "guest", "no file"]
        arguments = [str(RUNNER), str(Path(CHECKOUT) / "src" / "examples" / "simple" / file), *broker, *more]
        environment = dict(os.environ, PYTHONPATH=str(ROOT), PYTHONUNBUFFERED="1")
        running: Deferred[Any] = getProcessOutputAndValue(sys.executable, arguments, env=environment)
        return running

    async def test_examples(self) -> None:
        """The consumer receives what the publisher sends, in order, and both end by themselves."""
        channel = await self.tx_channel()
        await channel.exchange_declare(exchange="chatservice", type="direct", durable=True)
        await channel.queue_declare(queue="chatrooms", durable=True)
        await channel.queue_bind(queue="chatrooms", exchange="chatservice", routing_key="txamqp_chatroom")
        consuming = self.run_example("txconsumer.py")
        output, errors, code = await self.run_example("txpublisher.py", "hello", "20")
        self.assertEqual((code, errors), (0, b""))
        self.assertEqual(output.decode().count("Sending message: hello-"), 20)
        output, errors, code = await consuming
        self.assertEqual((code, errors), (0, b""))
        received = [line.split()[1] for line in output.decode().splitlines() if line.startswith("Received: ")]
        self.assertEqual(received, [*(f"hello-{number}" for number in range(20)), "STOP"])

    async def run_suite(self, *arguments: str) -> None:
        done = await self.in_thread(
            subprocess.run,
            [sys.executable, str(ROOT / "scripts" / "foreign_txamqp.py"), CHECKOUT, *arguments],
            env=dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])),
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])


@pytest.mark.long
@pytest.mark.skipif(not CHECKOUT, reason="TXMSG_TXAMQP_CHECKOUT names no checkout of txamqp")
class PublishedOverRabbitMQ(OverRabbitMQ, PublishedCases):
    __test__ = True

    async def test_suite(self) -> None:
        """Exactly the expected tests fail."""
        await self.run_suite(self.node.url)


@pytest.mark.long
@pytest.mark.skipif(not CHECKOUT, reason="TXMSG_TXAMQP_CHECKOUT names no checkout of txamqp")
class PublishedOverBroker(OverBroker, PublishedCases):
    __test__ = True

    async def test_suite(self) -> None:
        """Exactly the expected tests fail."""
        await self.run_suite()

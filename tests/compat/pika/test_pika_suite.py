"""pika's own tests and published examples of its Twisted adapter, on our classes, from a checkout of its repository.

TXMSG_PIKA_CHECKOUT names the checkout; nothing of it is kept here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.utils import getProcessOutputAndValue

from tests.compat.pika.cases import PikaCase
from tests.conformance.base import OverBroker
from tests.source import ROOT
from txmsg.broker.tls import ServerTLS

CHECKOUT = os.environ.get("TXMSG_PIKA_CHECKOUT", "")
RUNNER = Path(__file__).with_name("example_program.py")


@pytest.mark.long
@pytest.mark.skipif(not CHECKOUT, reason="TXMSG_PIKA_CHECKOUT names no checkout of pika")
class PikaSuiteTests(unittest.TestCase):
    def test_suite(self) -> None:
        """Exactly the tests that poke at pika's private objects fail."""
        done = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "foreign_pika_twisted.py"), CHECKOUT],
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-3000:] + done.stderr[-3000:])


@pytest.mark.long
@pytest.mark.skipif(not CHECKOUT, reason="TXMSG_PIKA_CHECKOUT names no checkout of pika")
class PublishedExamples(OverBroker, PikaCase):
    """The files themselves, their import changed and their ports led to the test's broker."""

    __test__ = True
    timeout = 60

    def run_example(self, file: str, port: int, seconds: float) -> Deferred[Any]:
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        arguments = [str(RUNNER), str(Path(CHECKOUT) / "examples" / file), str(port), str(seconds)]
        running: Deferred[Any] = getProcessOutputAndValue(sys.executable, arguments, env=environment)
        return running

    async def test_tls_with_client_certificate(self) -> None:
        """X-15: EXTERNAL, as the user whom pika's own certificate names."""
        certificates = Path(CHECKOUT) / "tests" / "certs"
        tls = ServerTLS(
            cert_file=str(certificates / "server_certificate.pem"),
            key_file=str(certificates / "server_key.pem"),
            ca_file=str(certificates / "ca_certificate.pem"),
            verify="required",
        )
        port = (await self.embedded.listen(tls=tls)).port
        await self.in_thread(self.node.add_user, "shostakovich")
        channel = await self.pika_channel()
        queue = await self.pika_queue(channel)
        await channel.queue_bind(queue, "amq.topic", "hello.world")
        output, errors, _ = await self.run_example("tls_mutual_authentication_twisted.py", port, 3.0)
        self.assertIn(b"published", output, errors.decode())
        self.assertEqual((await channel.basic_get(queue, auto_ack=True)).body, b"Hello World!")

    async def test_service(self) -> None:
        """X-14: requests are answered; a task is acked when it is done."""
        running = self.run_example("twisted_service.py", self.node.port, 6.0)
        await self.until(lambda: {"request1", "request2", "request3", "task"} <= set(self.embedded.queues()))
        channel = await self.pika_channel()
        responses = await self.pika_queue(channel)
        await channel.queue_bind(responses, "foobar", "response")
        for key in ("request1", "request3", "task"):
            channel.basic_publish("foobar", key, key.encode())
        await self.pika_depth(channel, responses, 2)
        output, errors, _ = await running
        self.assertIn(b"task completed", output + errors)
        await self.pika_depth(channel, "task", 0)

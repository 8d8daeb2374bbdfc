"""fedora-messaging 3.9, unchanged, on the drop-in: over RabbitMQ and over our broker, through restarts.

It runs in a process of its own, on the Python that TXMSG_FEDORA_PYTHON names or on this one; where fedora-messaging is
not installed (`pip install txmsg[compat-test]`) the tests are skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from pathlib import Path
from typing import Any

import pytest

from tests import rabbitmq
from tests.source import ROOT
from txmsg.testing import RabbitMQNode, free_ports

PYTHON = os.environ.get("TXMSG_FEDORA_PYTHON", sys.executable)
PROGRAM = Path(__file__).with_name("fedora_program.py")
LIMIT = 150.0

EXPECTED = {
    "first": True,
    "published through a restart": {"NoneType": 150},
    "received after it": True,
    "confirmed": "NoneType",
    "refused": "PublishReturned",
    "returned": "UnroutableError",
    "cancelled by the server": "ConsumerCanceled",
    "cancelled by us": "Consumer",
    "published after being forced out": "NoneType",
    "received after being forced out": True,
    "stopped": "NoneType",
}


def has_fedora_messaging() -> bool:
    done = subprocess.run([PYTHON, "-c", "import fedora_messaging"], capture_output=True, check=False, timeout=60)
    return done.returncode == 0


class OurBroker:
    """`twistd txmsg-broker` on a port of its own, which keeps what is durable."""

    def __init__(self, folder: str) -> None:
        [self.port] = free_ports(1)
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        twistd = Path(sys.executable).with_name("twistd")
        listen = ["--listen", f"127.0.0.1:{self.port}", "--data-dir", self._folder]
        self._process = subprocess.Popen(
            [twistd, "--nodaemon", "--pidfile=", "txmsg-broker", *listen],
            cwd=ROOT,
            env=dict(os.environ, PYTHONPATH=str(ROOT)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.1)
        raise AssertionError("the broker did not come up")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None


@pytest.mark.long
class FedoraMessagingTests(unittest.TestCase):
    def setUp(self) -> None:
        if not has_fedora_messaging():
            self.skipTest(f"fedora_messaging is not installed for {PYTHON}: pip install txmsg[compat-test]")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def run_program(self, broker: Any, close_connections: Any) -> dict[str, Any]:
        """Run it; do to the broker what it wants; give back what it has seen."""
        environment = dict(os.environ, PYTHONPATH=str(ROOT))
        process = subprocess.Popen(
            [PYTHON, str(PROGRAM), broker.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        errors: list[str] = []
        assert process.stderr is not None
        reading = threading.Thread(target=lambda pipe: errors.append(pipe.read()), args=(process.stderr,))
        reading.start()
        watchdog = threading.Timer(LIMIT, process.kill)
        watchdog.start()
        seen: dict[str, Any] = {}
        try:
            for line in process.stdout:
                if line.startswith("seen "):
                    seen = json.loads(line.removeprefix("seen "))
                elif line.startswith("want "):
                    if line.split()[1] == "restart":
                        broker.stop()
                        time.sleep(1.0)
                        broker.start()
                    else:
                        close_connections()
                    process.stdin.write("done\n")
                    process.stdin.flush()
            status = process.wait(30)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait(30)
            reading.join()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()
        self.assertEqual(status, 0, "".join(errors)[-4000:])
        return seen

    def test_over_rabbitmq(self) -> None:
        """Consumer and publisher, through a restart, a refusal, a return, a server's cancel, a forced close."""
        reason = rabbitmq.why_no_rabbitmq()
        if reason:
            self.skipTest(reason)
        with RabbitMQNode() as node:
            self.assertEqual(self.run_program(node, node.close_all_connections), EXPECTED)

    def test_over_our_broker(self) -> None:
        """The same; being forced out is another restart there."""
        broker = OurBroker(self.folder)
        broker.start()
        self.addCleanup(broker.stop)

        def restart() -> None:
            broker.stop()
            broker.start()

        self.assertEqual(self.run_program(broker, restart), EXPECTED)

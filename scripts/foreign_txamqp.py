"""Run txamqp's own tests with our modules in place of txamqp's, and print the counts.

    python scripts/foreign_txamqp.py CHECKOUT [BROKER_URL]

CHECKOUT is a checkout of https://github.com/txamqp/txamqp, or its source distribution unpacked; nothing of it is
copied or changed.  For this process `txamqp.client`, `txamqp.protocol` and so on are the modules of
`txmsg.compat.txamqp`; what is left of the package are its tests and their base class.  They run against the broker at
BROKER_URL (user guest), or an embedded one.  Two files of them want `six`.

Some tests look at what is inside txamqp's own client, or want to lose a connection over what is refused here before
it does harm.  Those are EXPECTED to fail, each for one of the REASONS.  The exit status is 0 if exactly those fail.
"""

from __future__ import annotations

import importlib
import os
import sys
import types
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from txmsg.testing.process import BrokerProcess

#: txamqp's modules that programs import.
MODULES = ("client", "content", "delegate", "endpoint", "factory", "message", "protocol", "queue", "spec")

REASONS = {
    "pump": "replaces the transport with one that takes txamqp's frame objects out of private methods",
    "harmless": "wants the broker to close the connection over a call that fails here by itself, without harm",
    "spy": "overrides the methods that send and watch heartbeats inside txamqp's client",
    "timer": "wants a heartbeat timer before there is a connection",
    "product": "skips itself only where the broker says that it is RabbitMQ",
}

EXPECTED: dict[str, str] = {
    "AMQClientTest.test_channel_close": "pump",
    "AMQClientTest.test_close": "pump",
    "AMQClientTest.test_close_closes_channels": "pump",
    "AMQClientTest.test_close_closes_queues": "pump",
    "AMQClientTest.test_close_within": "pump",
    "AMQClientTest.test_close_within_hits_timeout": "pump",
    "AMQClientTest.test_connection_close": "pump",
    "AMQClientTest.test_connection_close_raises_error": "pump",
    "AMQClientTest.test_connection_lost": "pump",
    "AMQClientTest.test_disconnected_event": "pump",
    "AMQClientTest.test_hearbeat_check_failure": "pump",
    "AMQClientTest.test_sending_method_on_closed_channel": "pump",
    "AMQFactoryTest.test_build_protocol_custom_parameters": "timer",
    "AMQPumpTest.test_send_receive": "pump",
    "BasicTests.test_consume_unique_consumers": "harmless",
    "BrokerTests.test_closed_channel": "harmless",
    "BrokerTests.test_invalid_channel": "harmless",
    "HeartbeatTests.test_heartbeat": "spy",
}

#: The same for the embedded broker, which does not call itself RabbitMQ.
EXPECTED_EMBEDDED = EXPECTED | {
    "BrokerTests.test_basic_delivery_immediate": "product",
    "QueueTests.test_delete_non_existing": "product",
}


class Counting:
    """A pytest plug-in that notes how each test ended."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []
        self.skipped: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note it."""
        name = report.nodeid.rsplit("/", 1)[-1].split("::", 1)[1].replace("::", ".")
        if report.skipped:
            self.skipped.append(name)
        elif report.when == "call":
            (self.passed if report.passed else self.failed).append(name)


def install(source: Path) -> None:
    """Let `txamqp` be our modules, with `source` for all that is not one of them."""
    package = types.ModuleType("txamqp")
    package.__path__ = [str(source / "txamqp")]
    sys.modules["txamqp"] = package
    for name in MODULES:
        ours = importlib.import_module(f"txmsg.compat.txamqp.{name}")
        sys.modules[f"txamqp.{name}"] = ours
        setattr(package, name, ours)


def run(source: Path, port: int) -> Counting:
    """Run the tests."""
    os.environ["TXAMQP_BROKER"] = "RABBITMQ"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        testlib: Any = importlib.import_module("txamqp.testlib")
    begin = testlib.TestBase.__init__

    def initialize(self: Any, *args: Any, **kwargs: Any) -> None:
        begin(self, *args, **kwargs)
        self.host, self.port, self.timeout = "127.0.0.1", port, 15

    testlib.TestBase.__init__ = initialize
    counting = Counting()
    options = (
        "-q --no-header --tb=line -rN -W ignore -p no:cacheprovider -p no:txmsg.pytest_plugin --import-mode=importlib"
    )
    pytest.main(
        [*options.split(), "-c", "/dev/null", f"--rootdir={source}", str(source / "txamqp" / "test")],
        plugins=[counting],
    )
    return counting


def main() -> int:
    """Run, print, compare."""
    source = Path(sys.argv[1]) / "src" if len(sys.argv) > 1 else Path()
    if not (source / "txamqp" / "test").is_dir():
        print(__doc__)
        return 2
    install(source.resolve())
    if len(sys.argv) > 2:
        expected = EXPECTED
        counting = run(source.resolve(), urlsplit(sys.argv[2]).port or 5672)
    else:
        expected = EXPECTED_EMBEDDED
        with BrokerProcess() as broker:
            counting = run(source.resolve(), urlsplit(broker.url).port or 5672)
    surprising = sorted(set(counting.failed) ^ set(expected))
    print(
        f"{len(counting.passed)} passed, {len(counting.failed)} failed, of which {len(expected)} were expected to, "
        f"{len(counting.skipped)} skipped by themselves"
    )
    for name in counting.failed:
        print(f"  {name}: {REASONS.get(expected.get(name, ''), 'UNEXPECTED')}")
    for name in surprising:
        print(f"  not as expected: {name}")
    return 1 if surprising else 0


if __name__ == "__main__":
    sys.exit(main())

"""The brokers that the tests of foreign clients share: processes of their own, since these clients block."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.service.children import Child
from txmsg.testing import BrokerProcess
from txmsg.testing.ports import free_ports


@pytest.fixture(scope="session")
def shared_broker() -> Iterator[BrokerProcess]:
    """One broker for all tests."""
    with BrokerProcess() as broker:
        yield broker


@pytest.fixture
def vhost_url(shared_broker: BrokerProcess) -> str:
    """The URL of a virtual host of the test's own on the shared broker."""
    return shared_broker.url_for(virtual_host=shared_broker.add_vhost())


@pytest.fixture(scope="session")
def managed_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """`twistd txmsg-broker --management`: the ports of AMQP and of HTTP."""
    port, management = free_ports(2)
    arguments = ["--listen", f"127.0.0.1:{port}", "--management", f"127.0.0.1:{management}"]
    directory = tmp_path_factory.mktemp("broker")
    child = Child(directory, ["-n", "--pidfile=", "txmsg-broker", *arguments], {})
    try:
        child.until(lambda: "users: " in child.output)
        yield port, management
    finally:
        child.signal()
        try:
            child.process.wait(30)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()

"""pytest fixtures: brokers for tests of programs that use AMQP.

`txmsg_broker_url` works everywhere: each test that asks for it gets the URL of a virtual host of its own, in a broker
that runs in another process, once for the whole run.  `txmsg_broker_process` is that process, for faults and for
looking into queues.  `txmsg_broker` is a broker in the test's own process, for programs on Twisted whose tests run the
reactor (pytest-twisted).  `txmsg_clock_broker` is one on a `twisted.internet.task.Clock`, which needs neither time nor
a reactor.

Loaded in every pytest run where txmsg is installed, so it imports nothing before it is needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from txmsg.testing.broker import EmbeddedBroker
    from txmsg.testing.process import BrokerProcess

__all__ = ["txmsg_broker", "txmsg_broker_process", "txmsg_broker_url", "txmsg_clock_broker"]

#: Turns of the reactor, of 10 ms at most, that the end of a broker may take where nothing else runs the reactor.
_TURNS = 1500


@pytest.fixture(scope="session")
def txmsg_broker_process() -> Iterator[BrokerProcess]:
    """A broker in a process of its own, which lasts for the whole run: `.url`, `.fault(...)`, `.depth(queue)`."""
    from txmsg.testing.process import BrokerProcess

    with BrokerProcess() as process:
        yield process


@pytest.fixture
def txmsg_broker_url(txmsg_broker_process: BrokerProcess) -> Iterator[str]:
    """The URL of a virtual host of this test's own; faults and the virtual host are gone after the test."""
    txmsg_broker_process.start()  # again, if a test has killed it
    txmsg_broker_process.clear_faults()  # of a test that had the process only
    name = txmsg_broker_process.add_vhost()
    try:
        yield txmsg_broker_process.url_for(virtual_host=name)
    finally:
        if txmsg_broker_process.is_running:
            txmsg_broker_process.clear_faults()
            txmsg_broker_process.delete_vhost(name)


@pytest.fixture
def txmsg_broker() -> Iterator[EmbeddedBroker]:
    """A broker in this process, on the installed reactor, started; stopped after the test."""
    from txmsg.testing.broker import EmbeddedBroker

    broker = EmbeddedBroker()
    _wait(broker.start())
    try:
        yield broker
    finally:
        _wait(broker.stop())


@pytest.fixture
def txmsg_clock_broker() -> Iterator[EmbeddedBroker]:
    """A broker on a clock of its own (`broker.reactor`): after `broker.reactor.advance(0)` all has happened."""
    from twisted.internet.task import Clock

    from txmsg.testing.broker import EmbeddedBroker

    clock = Clock()
    broker = EmbeddedBroker(reactor=clock)
    broker.start()
    try:
        yield broker
    finally:
        broker.stop()
        for _ in range(20):
            clock.advance(1)


def _wait(deferred: Deferred[Any]) -> None:
    """Wait for `deferred`: with pytest-twisted, or by turning a reactor that nobody else runs."""
    from twisted.python.failure import Failure

    runner = sys.modules.get("pytest_twisted")
    if runner is not None and not deferred.called:
        runner.blockon(deferred)
        return
    from twisted.internet import reactor

    ended: list[Any] = []
    deferred.addBoth(ended.append)
    for _ in range(_TURNS):
        if ended:
            break
        reactor.iterate(0.01)
    if not ended:
        raise RuntimeError("the broker did not start or stop: does the reactor run?")
    if isinstance(ended[0], Failure):
        ended[0].raiseException()

"""ReconnectingConnection on real sockets: RabbitMQ and our own broker."""

from __future__ import annotations

import gc
import os
import time
from pathlib import Path
from typing import Any

import pytest
from twisted.internet import tcp
from twisted.internet.defer import Deferred

from tests.conformance.base import BrokerCase, OverBroker, OverRabbitMQ, pause
from txmsg.amqp import Backoff, ConnectionParameters, PlainCredentials, ReconnectingConnection
from txmsg.errors import AuthenticationFailed, ConnectFailed, ConnectionForced, ConnectTimeout, VirtualHostRefused
from txmsg.testing import free_ports

_QUICK = Backoff(initial=0.02, maximum=0.2)


class ReconnectCase(BrokerCase):
    """Makes connections that are closed at the end."""

    def reconnecting(self, targets: Any = None, **options: Any) -> ReconnectingConnection:
        """One to the broker under test, not started."""
        given = self.parameters() if targets is None else targets
        options.setdefault("backoff", _QUICK)
        connection = ReconnectingConnection(given, **options)
        self.addCleanup(connection.close)
        return connection

    def target(self, **fields: Any) -> ConnectionParameters:
        """The broker's parameters, changed."""
        return self.parameters().replace(**fields)


class ReconnectCases(ReconnectCase):
    async def test_comes_back(self) -> None:
        """R9, F1: closed by an operator, it is there again at once; the reason is known."""
        connection = self.reconnecting(name="comes-back")
        await connection.start()
        lost: list[Any] = []
        connection.add_state_callback(lambda step: lost.append(step.reason) if step.new.value == "lost" else None)
        await self.in_thread(self.node.close_all_connections, "maintenance")
        await self.until(lambda: connection.epoch == 2)
        self.assertIsInstance(lost[0], ConnectionForced)
        self.assertIn("maintenance", str(lost[0]))
        assert connection.protocol is not None
        channel = await connection.protocol.channel()
        await channel.queue_declare(exclusive=True)

    async def test_reconnect_again_and_again(self) -> None:
        """R31: forced reconnects; when it is closed nothing is left in the reactor (R28)."""
        connection = self.reconnecting()
        await connection.start()
        for number in range(20):
            connection.reconnect()
            await self.until(lambda number=number: connection.epoch == number + 2)
        await connection.close()
        self.assertEqual(connection.state.value, "closed")

    async def test_refused(self) -> None:
        """R12: a refused login and a virtual host that is not there are typed, and not tried again at once."""
        for target, kind in (
            (self.target(credentials=PlainCredentials("guest", "wrong")), AuthenticationFailed),
            (self.target(virtual_host="no such vhost"), VirtualHostRefused),
        ):
            connection = self.reconnecting(target)
            started = connection.start()
            started.addErrback(lambda failure: None)
            await self.until(lambda connection=connection: connection.state.value == "lost", 8)
            self.assertIsInstance(connection.last_error, kind)
            await pause(0.6)
            self.assertEqual((connection.attempts, connection.state.value), (1, "lost"))
            with self.assertRaises(ConnectTimeout):
                await connection.when_ready(0.1)
            await connection.close()

    async def test_failover(self) -> None:
        """R11: a port where nobody listens, then the broker; and a rotating credential is asked for each time."""
        asked: list[int] = []

        def credentials() -> PlainCredentials:
            asked.append(1)
            return PlainCredentials("guest", "guest")

        (dead,) = free_ports(1)
        targets = [self.target(port=dead), self.target()]
        connection = self.reconnecting(targets, order="listed", credentials=credentials)
        await connection.start()
        self.assertEqual((connection.attempts, len(asked)), (2, 1))
        self.assertIsInstance(connection.last_error, ConnectFailed)
        connection.reconnect()
        await self.until(lambda: connection.epoch == 2)
        self.assertEqual(len(asked), 2)

    async def test_a_name(self) -> None:
        """R11: a name is looked up, and each of its addresses is a host."""
        connection = self.reconnecting(self.target(host="localhost"))
        await connection.start()
        self.assertIn(connection.where.partition("(")[2], ("127.0.0.1)", "::1)"))

    async def test_blocked(self) -> None:
        """R16, R30: an alarm is a state of its own; close() is not held up by it."""
        connection = self.reconnecting()
        await connection.start()
        assert connection.protocol is not None
        channel = await connection.protocol.channel()
        alarm = self.node.alarm()
        await self.in_thread(alarm.__enter__)
        try:
            channel.basic_publish("", "nobody", b"x")
            await self.until(lambda: connection.state.value == "blocked")
            started = time.monotonic()
            await connection.close(2)
            self.assertLess(time.monotonic() - started, 2.5)
        finally:
            await self.in_thread(alarm.__exit__, None, None, None)


class ReconnectOverRabbitMQ(OverRabbitMQ, ReconnectCases):
    pass


class ReconnectOverBroker(OverBroker, ReconnectCases):
    pass


class RestartOfRabbitMQ(OverRabbitMQ, ReconnectCase):
    timeout = 120

    async def test_a_restart(self) -> None:
        """R9, R12, F5: killed and started again; with the default policy it is back within 2 s of the listener."""
        connection = self.reconnecting(backoff=Backoff())
        await connection.start()
        await self.in_thread(self.node.kill)
        await self.until(lambda: connection.protocol is None)
        starting: Deferred[None] = self.in_thread(self.node.start)
        up = await self._listening()
        await self.until(lambda: connection.epoch == 2, 10)
        took = time.monotonic() - up
        await starting
        self.assertLess(took, 2)

    async def _listening(self) -> float:
        """Wait for the port, without a protocol of our own on it."""
        port = f"{self.node.port:04X}"
        for _ in range(1200):
            for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and fields[1].endswith(f":{port}"):
                    return time.monotonic()
            await pause(0.05)
        raise AssertionError("the node does not listen")


@pytest.mark.long
class LeaksOverRabbitMQ(OverRabbitMQ, ReconnectCase):
    timeout = 300

    async def test_a_thousand_reconnects(self) -> None:
        """R31: 1,000 forced reconnects change RSS by less than 5 MiB, and no transport stays."""
        connection = self.reconnecting(backoff=Backoff(initial=0, maximum=0))
        await connection.start()

        async def reconnect(times: int) -> None:
            for _ in range(times):
                epoch = connection.epoch
                connection.reconnect()
                await self.until(lambda epoch=epoch: connection.epoch > epoch)

        await reconnect(200)
        gc.collect()
        before = _resident()
        await reconnect(1000)
        gc.collect()
        grown = _resident() - before
        clients = [each for each in gc.get_objects() if isinstance(each, tcp.Client)]
        self.assertEqual(len(clients), 1)
        self.assertLess(grown / 2**20, 5)


def _resident() -> int:
    """The resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

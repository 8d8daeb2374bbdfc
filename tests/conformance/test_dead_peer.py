"""Heartbeats on a real socket: a silent peer, a frozen broker, a blocked reactor, an idle connection."""

from __future__ import annotations

import time

from twisted.internet.task import LoopingCall

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, pause
from tests.conformance.minibroker import ignore
from txmsg.errors import HeartbeatTimeout, PublishUnconfirmed
from txmsg.testing import RabbitMQNode


class SilentPeer(OverPeer, BrokerCase):
    async def test_a_silent_peer(self) -> None:
        """R13, H-03, S-15, item 15, F8, peers 24: dead between 2T and 2T + 1 s; the socket is aborted, no close is
        sent.
        """
        connection = await self.connect(heartbeat=1)
        channel = await connection.channel()
        self.broker.on["Basic.Qos"] = ignore
        call = channel.basic_qos(1)
        await pause(0.3)
        await channel.queue_declare(exclusive=True)
        heard = self.now()
        error = await self.failure(call, HeartbeatTimeout)
        self.assertTrue(1.9 <= self.now() - heard <= 3.1, self.now() - heard)
        self.assertIs(await connection.closed, error)
        self.assertIs(await channel.closed, error)
        self.assertTrue(error.recoverable)
        await self.session.gone
        self.assertNotIn("Connection.Close", self.session.names())
        self.assertGreaterEqual(self.session.heartbeats, 2)

    async def test_any_byte_is_a_sign_of_life(self) -> None:
        """R13, R15, H-01: single bytes of a frame keep it alive; heartbeats of ours leave every T/2."""
        connection = await self.connect(heartbeat=1)
        frame = b"\x08\x00\x00\x00\x00\x00\x00\xce" * 3
        sent = iter(frame)
        session = self.session
        loop = LoopingCall(lambda: session.write(bytes([next(sent)])))
        loop.start(0.25)
        await pause(3.0)
        loop.stop()
        self.assertTrue(connection.is_open)
        self.assertTrue(4 <= session.heartbeats <= 7, session.heartbeats)

    async def test_a_blocked_reactor(self) -> None:
        """R14, F25: the application blocks the reactor for 2.6 T while heartbeats pile up: nothing happens."""
        connection = await self.connect(heartbeat=1)
        session = self.session
        # The peer lives in this reactor as well, so what it "sent meanwhile" is written just before the pause.
        session.write(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        time.sleep(2.6)
        await pause(0.1)
        self.assertTrue(connection.is_open)
        session.write(b"\x08\x00\x00\x00\x00\x00\x00\xce")
        await pause(0.7)
        self.assertTrue(connection.is_open)

    async def test_our_own_pause_is_not_held_against_the_peer(self) -> None:
        """R14, I-11: while a full no_ack consumer has stopped the reading, the connection is not dropped."""
        connection = await self.connect(heartbeat=1, read_high_water_messages=2)
        channel = await connection.channel()
        name = await self.queue(channel, *[bytes(100)] * 50)
        consumer = await channel.basic_consume(name, no_ack=True)
        await self.until(lambda: connection.is_reading_paused)
        await pause(2.8)
        self.assertTrue(connection.is_open)
        for _ in range(50):
            await consumer.get()
        self.assertFalse(connection.is_reading_paused)
        self.assertTrue(connection.is_open)


class HeartbeatCases(BrokerCase):
    async def test_an_idle_connection_stays_open(self) -> None:
        """R15, peers 15, 64: idle for more than the three intervals that RabbitMQ grants: it stays."""
        connection = await self.connect(heartbeat=1)
        channel = await connection.channel()
        await pause(3.6)
        await channel.queue_declare(exclusive=True)
        self.assertTrue(connection.is_open)


class HeartbeatsOverRabbitMQ(OverRabbitMQ, HeartbeatCases):
    pass


class HeartbeatsOverBroker(OverBroker, HeartbeatCases):
    pass


class FrozenRabbitMQ(OverRabbitMQ, BrokerCase):
    async def test_a_frozen_broker(self) -> None:
        """R13, F2, 0.5: SIGSTOP under a confirmed publish: typed, within 2T + 1 s; pika needs 18 s for this at T=4."""
        connection = await self.connect(heartbeat=1)
        channel = await connection.channel()
        await channel.confirm_select()
        name = await self.queue(channel)
        await channel.basic_publish("", name, b"x")
        node: RabbitMQNode = self.node
        node.pause()
        started = time.monotonic()
        try:
            error = await self.failure(channel.basic_publish("", name, b"x"), PublishUnconfirmed)
            self.assertTrue(1.4 <= time.monotonic() - started <= 3.2, time.monotonic() - started)
            self.assertIsInstance(error.cause, HeartbeatTimeout)
        finally:
            node.resume()
        await pause(0.2)
        self.assertTrue((await self.connect()).is_open)

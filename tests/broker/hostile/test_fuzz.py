"""R36: whatever one client sends, the broker lives, its memory stays in bounds, and another client notices nothing.

The tables F30 to F45 seen from the other side: what each single violation is answered with is in `test_connection`;
here are sessions made at random, each from a seed that the failure names.
"""

from __future__ import annotations

import time
import tracemalloc

import pytest
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.broker.hostile.fuzz_client import PASSWORD, PERMISSIONS, USER, FuzzClient
from tests.broker.server_peer import Peer, make_broker
from txmsg.broker.server import Broker
from txmsg.wire.connection import ConnectionState
from txmsg.wire.methods import basic, channel

#: Sessions after which the healthy client does something.
_ROUND = 20


class FuzzedSessionTests(SynchronousTestCase):
    """A hostile client beside a healthy one."""

    def make(self) -> tuple[Broker, Peer]:
        broker = make_broker(Clock(), max_message_size=100_000, broker_bytes=3_000_000, queues=50, login_delay=0.0)
        broker.users.add(USER, PASSWORD)
        broker.users.set_permissions(USER, "/", *PERMISSIONS)
        healthy = Peer(broker).open()
        healthy.open_channel(1)
        healthy.declare("untouched", exclusive=True)
        return broker, healthy

    def play(self, broker: Broker, seed: int) -> None:
        """One session, from the first octet to the lost socket."""
        client, peer = FuzzClient(seed), Peer(broker)
        if seed % 3:
            self.play_by_turns(client, peer)
        else:
            self.play_blindly(client, peer)
        if not peer.is_lost:
            peer.lose()

    def play_blindly(self, client: FuzzClient, peer: Peer) -> None:
        """A client that does not read what it is sent."""
        for octets in client.session():
            peer.server.dataReceived(octets)
            peer.broker.reactor.advance(0.001)
            if peer.transport.disconnecting:
                break

    def play_by_turns(self, client: FuzzClient, peer: Peer) -> None:
        """A client that keeps its channels open, and goes mad in the end."""
        peer.open(user=USER, password=PASSWORD)
        for number in (1, 2, 3):
            peer.open_channel(number)
        for _ in range(client.random.randint(5, 60)):
            peer.send_raw(client.act())
            peer.advance(0.001)
            while peer.methods and not peer.is_lost:
                number, method = peer.methods.pop(0)
                if isinstance(method, channel.Close):
                    peer.send_raw(client.reopen(number))
            if peer.is_lost or peer.wire.state is not ConnectionState.OPEN:
                return
        parts = [client.act() if client.random.random() < 0.7 else client.rubbish() for _ in range(10)]
        client.spoil(parts)
        for octets in parts:
            peer.send_raw(octets)

    def check(self, healthy: Peer, number: int) -> None:
        """The healthy client does what clients do."""
        body = b"%d" % number
        healthy.publish(body, "untouched")
        healthy.contents.clear()
        healthy.send(basic.Get(queue="untouched"), 1)
        (got,) = healthy.contents
        self.assertEqual(got[-1], body)
        healthy.send_raw(healthy.wire.encode_ack(1, got[2]))
        self.assertEqual(healthy.methods, [])

    def run_for(self, sessions: int, seconds: float) -> None:
        broker, healthy = self.make()
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        highest, end, number = 0, time.monotonic() + seconds, 0
        while number < sessions and time.monotonic() < end:
            for _ in range(_ROUND):
                number += 1
                try:
                    self.play(broker, number)
                except BaseException:
                    print(f"seed {number}")  # noqa: T201
                    raise
                self.assertEqual(self.flushLoggedErrors(), [], f"seed {number}")
                self.assertEqual(broker.connections, {healthy.server}, f"seed {number}")
            highest = max(highest, tracemalloc.get_traced_memory()[0])
            self.assertLessEqual(broker.usage.bytes, broker.limits.broker_bytes * 1.5)
            self.assertLessEqual(len(broker.vhosts["/"].queues), broker.limits.queues)
            if broker.alarms.are_on:
                for name in list(broker.vhosts["/"].queues):
                    if name != "untouched":
                        broker.vhosts["/"].delete_queue(name)
                broker.reactor.advance(0)
            self.check(healthy, number)
        self.assertGreater(number, _ROUND)
        self.assertLess(highest, 40_000_000)

    def test_fuzzed_sessions(self) -> None:
        """Some hundred sessions: no error of ours, nothing left behind, the healthy client is served."""
        self.run_for(600, 20)

    @pytest.mark.long
    def test_fuzzed_sessions_for_minutes(self) -> None:
        """Many more."""
        self.run_for(10**9, 300)

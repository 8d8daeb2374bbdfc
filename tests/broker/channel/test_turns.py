"""R36: what one client asks for in one read does not keep the others waiting for longer than a turn."""

from __future__ import annotations

from twisted.internet.task import Clock

from tests.broker.channel_client import Client, ClientTestCase
from txmsg.broker.connection.flow import TURN
from txmsg.broker.server import Broker
from txmsg.broker.users.credentials import Users
from txmsg.wire.methods import basic, channel, queue


class CostlyClock(Clock):
    """Time goes on by a quarter of a turn whenever somebody looks at it, once `is_costly`."""

    is_costly = False

    def seconds(self) -> float:
        """IReactorTime."""
        if self.is_costly:
            self.rightNow += TURN / 4
        return super().seconds()


class Turns(ClientTestCase):
    """A long chunk from one client beside a healthy one."""

    def setUp(self) -> None:
        self.costly = CostlyClock()
        self.clock = self.costly
        self.broker = Broker(reactor=self.clock, users=Users(cost=2))
        self.vhost = self.broker.vhosts["/"]
        self.client = Client(self.broker, self.clock)
        self.healthy = Client(self.broker, self.clock)

    def test_the_others_have_their_turn(self) -> None:
        self.costly.is_costly = True
        self.client.send(1, *[queue.Declare(queue=f"q{n}") for n in range(20)])
        self.assertLess(len(self.vhost.queues), 8)
        self.assertEqual(self.client.transport.producerState, "paused")
        self.healthy.send(1, queue.Declare(queue="healthy"))
        self.assertIn("healthy", self.vhost.queues)
        self.assertLess(len(self.vhost.queues), 12)
        self.costly.is_costly = False
        names = [method.queue for method in self.client.methods()]  # type: ignore[attr-defined]
        self.assertEqual(names, [f"q{n}" for n in range(20)])
        self.assertEqual(self.client.transport.producerState, "producing")

    def test_publishes_too(self) -> None:
        self.client.declare("q")
        self.costly.is_costly = True
        self.client.publish("", "q", *[b"%d" % n for n in range(20)])
        self.assertLess(self.depth("q"), 8)
        self.costly.is_costly = False
        self.clock.advance(0)
        bodies = [entry.message.body for entry in self.vhost.queues["q"].ready_entries()]
        self.assertEqual(bodies, [b"%d" % n for n in range(20)])

    def test_the_client_goes_meanwhile(self) -> None:
        self.costly.is_costly = True
        self.client.send(1, *[queue.Declare(queue=f"q{n}") for n in range(20)])
        self.client.lose()
        count = len(self.vhost.queues)
        self.clock.advance(0)
        self.assertEqual(len(self.vhost.queues), count)

    def test_the_channel_is_closed_meanwhile(self) -> None:
        self.costly.is_costly = True
        self.client.send(1, *[basic.Qos()] * 20, channel.Close(200, "bye"))
        self.costly.is_costly = False
        # The wire knows of the close, so no reply may be sent; the close is answered in its turn.
        self.assertEqual(self.client.methods(), [channel.CloseOk()])

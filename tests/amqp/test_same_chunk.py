"""The broker's close in the same bytes as what is being handled: the wire has ended before our objects know.

Whatever a callback does in that moment, nothing follows the close on the wire, and everything ends with the broker's
reason, which comes next.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import base, commands
from twisted.internet.defer import Deferred

from tests.amqp.peer import Peer, PeerTestCase
from txmsg.amqp.channel import Channel
from txmsg.amqp.client import AMQPProtocol
from txmsg.errors import AuthenticationFailed, ConnectionForced, NotFound, NotSent, VirtualHostRefused

Basic, Connection, Queue = commands.Basic, commands.Connection, commands.Queue

CLOSES: list[tuple[base.Frame, type[BaseException]]] = [
    (commands.Channel.Close(404, "gone", 0, 0), NotFound),
    (Connection.Close(320, "gone", 0, 0), ConnectionForced),
]

#: What a handler may do with its channel, and expects a Deferred of.
CALLS: dict[str, Callable[[Channel], Deferred[Any]]] = {
    "declare": lambda channel: channel.queue_declare("q"),
    "nowait": lambda channel: channel.queue_declare("q", nowait=True),
    "get": lambda channel: channel.basic_get("q"),
    "consume": lambda channel: channel.basic_consume("q"),
    "cancel": lambda channel: channel.basic_cancel("c"),
    "qos": lambda channel: channel.basic_qos(5),
    "recover": lambda channel: channel.basic_recover(),
    "select": lambda channel: channel.confirm_select(),
    "tx": lambda channel: channel.tx_select(),
}


class OpenConnectionTests(PeerTestCase):
    def handle(self, close: base.Frame, action: Callable[[Channel], Any], **options: Any) -> tuple[Peer, Channel]:
        """Run `action` in the handler of a delivery that is followed by `close` in its chunk."""
        peer = self.opened(**options)
        channel = peer.channel()
        peer.consumer(channel, lambda delivery: action(channel), consumer_tag="c")
        peer.read()
        peer.send_raw(peer.encode(*peer.delivery(b"m", "c", 1)) + peer.encode(close))
        return peer, channel

    def test_calls(self) -> None:
        """K-02, R2, R21: each fails with the broker's reason, the object that everybody gets; nothing is written."""
        for close, kind in CLOSES:
            for name, call in CALLS.items():
                with self.subTest(name, close=close.name):
                    made: list[Deferred[Any]] = []
                    peer, channel = self.handle(close, lambda c, call=call, m=made: m.append(call(c)))  # type: ignore[misc]
                    self.assertEqual(peer.names(), [f"{close.name.partition('.')[0]}.CloseOk"])
                    self.assertIsInstance(channel.close_reason, kind)
                    self.assertIs(self.failed(made[0], kind), channel.close_reason)

    def test_another_channel(self) -> None:
        """R17, J-12: on a dying channel others can be opened; on a dying connection that fails with the reason."""
        for close, kind in CLOSES:
            made: list[Deferred[Any]] = []
            peer, channel = self.handle(close, lambda c, m=made: m.append(c.connection.channel()))  # type: ignore[misc]
            if kind is NotFound:
                self.assertEqual(peer.names(), ["Channel.Open", "Channel.CloseOk"])
                peer.send(commands.Channel.OpenOk(), channel=2)
                self.assertTrue(self.result(made[0]).is_open)
            else:
                self.assertEqual(peer.names(), ["Connection.CloseOk"])
                self.assertIs(self.failed(made[0], kind), channel.close_reason)

    def test_closing(self) -> None:
        """R29: close() of the channel or the connection: the broker was first, its reason is the result."""
        for close, kind in CLOSES:
            for what in ("channel", "connection"):
                with self.subTest(what, close=close.name):
                    made: list[Deferred[Any]] = []

                    def end(channel: Channel, w: str = what, m: list[Deferred[Any]] = made) -> None:
                        m.append(channel.close() if w == "channel" else channel.connection.close())

                    peer, channel = self.handle(close, end)
                    self.assertIsInstance(channel.close_reason, kind)
                    names = peer.names()
                    broker = close.name.partition(".")[0]
                    if broker == what.capitalize():  # as when the closes cross on the wire
                        self.assertEqual(names, [f"{broker}.Close", f"{broker}.CloseOk"])
                    elif what == "channel":
                        self.assertEqual(names, ["Connection.CloseOk"])
                    else:
                        self.assertEqual(names, ["Connection.Close"])
                        peer.send(Connection.CloseOk())
                    peer.lose()
                    reason = self.result(made[0])
                    if what == "channel":
                        self.assertIs(reason, channel.close_reason)
                    else:
                        self.assertEqual(reason.initiator, "client" if kind is NotFound else "server")

    def test_update_secret(self) -> None:
        """R2: fails with the broker's reason."""
        made: list[Deferred[Any]] = []
        self.handle(CLOSES[1][0], lambda c: made.append(c.connection.update_secret("t")))
        self.failed(made[0], ConnectionForced)

    def test_methods_that_want_an_answer(self) -> None:
        """I-09, O-04: channel.flow and a basic.cancel that asks for cancel-ok are not answered any more."""
        for close, kind in CLOSES:
            for method in (commands.Channel.Flow(False), Basic.Cancel("c", False)):
                peer = self.opened()
                channel = peer.channel()
                peer.consumer(channel, consumer_tag="c")
                peer.read()
                peer.send_raw(peer.encode(method) + peer.encode(close))
                self.assertEqual(peer.names(), [f"{close.name.partition('.')[0]}.CloseOk"])
                self.assertIsInstance(channel.close_reason, kind)

    def test_held_publishes(self) -> None:
        """R2, R21: the alarm is over, and so is the channel: the publish fails; nothing follows close-ok."""
        for close, kind in CLOSES:
            peer = self.opened()
            channel = peer.confirm_channel()
            peer.send(Connection.Blocked("low on memory"))
            publish, declared = channel.basic_publish("", "q", b"held"), channel.queue_declare("q")
            peer.send_raw(peer.encode(Connection.Unblocked()) + peer.encode(close))
            self.assertEqual(peer.names()[-1], f"{close.name.partition('.')[0]}.CloseOk")
            self.failed(publish, NotSent, kind)
            self.failed(declared, kind)


class OpeningTests(PeerTestCase):
    """F-07, R12: the reason for a refusal is the broker's also if it does not wait for our word."""

    def test_in_the_chunk_of_connection_start(self) -> None:
        peer = self.peer().connect()
        start = Connection.Start(0, 9, {}, "PLAIN", "en_US")
        peer.send_raw(peer.encode(start) + peer.encode(Connection.Close(320, "shutting down", 0, 0)))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertEqual(self.failed(peer.protocol.ready, ConnectionForced).reply_text, "shutting down")

    def test_in_the_chunk_of_connection_tune(self) -> None:
        peer = self.peer(heartbeat=10).connect()
        peer.start()
        peer.read()
        tune = Connection.Tune(2047, 131072, 60)
        peer.send_raw(peer.encode(tune) + peer.encode(Connection.Close(320, "shutting down", 0, 0)))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertEqual(self.failed(peer.protocol.ready, ConnectionForced).reply_text, "shutting down")

    def test_in_the_chunk_of_a_challenge(self) -> None:
        peer = self.peer().connect()
        peer.start()
        peer.send_raw(peer.encode(Connection.Secure("?")) + peer.encode(Connection.Close(403, "no", 0, 0)))
        self.failed(peer.protocol.ready, AuthenticationFailed)

    def test_in_the_chunk_of_open_ok(self) -> None:
        """`ready` fires, whoever uses the connection in its callback learns the reason, `closed` fires."""
        peer = self.peer().connect()
        peer.start()
        peer.send(Connection.Tune(2047, 131072, 0))
        made: list[Deferred[Any]] = []

        def use(protocol: AMQPProtocol) -> None:
            made.append(protocol.channel())

        peer.protocol.ready.addCallback(use)
        peer.send_raw(peer.encode(Connection.OpenOk()) + peer.encode(Connection.Close(530, "no", 10, 40)))
        self.result(peer.protocol.ready)
        error = self.failed(made[0])
        self.assertNotIsInstance(error, VirtualHostRefused)
        self.assertEqual(error.reply_code, 530)
        peer.lose()
        self.assertIs(self.result(peer.protocol.closed), error)

"""Channel: what the broker sends finds its way, whatever is in it, and what must not come ends the connection."""

from __future__ import annotations

import gc
import weakref
from typing import Any

from pamqp import body, commands

from tests.amqp.peer import Frame, Peer, PeerTestCase, ignore
from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import Delivery
from txmsg.errors import RemoteProtocolError
from txmsg.wire.properties import BasicProperties, UndecodableProperties

Basic, Connection, Queue = commands.Basic, commands.Connection, commands.Queue


def content_header(size: int, properties: bytes, channel: int = 1) -> bytes:
    """A content header frame around an encoded property list, right or wrong."""
    payload = b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + properties
    return b"\x02" + channel.to_bytes(2, "big") + len(payload).to_bytes(4, "big") + payload + b"\xce"


class DeliveringTests(PeerTestCase):
    def consuming(self, **options: Any) -> tuple[Peer, Channel, str, list[Delivery]]:
        peer = self.peer().open(**options)
        channel = peer.channel()
        seen: list[Delivery] = []
        return peer, channel, peer.consumer(channel, seen.append).consumer_tag, seen

    def test_bodies(self) -> None:
        """M-20: none, one octet, several frames, and frames without octets in between."""
        peer, _, tag, seen = self.consuming()
        large = bytes(range(256)) * 3000
        peer.deliver(tag, b"", b"x", large[:100_000])
        method, head, _ = peer.delivery(large, tag, 4)
        pieces: list[Frame] = [body.ContentBody(large[n : n + 100_000]) for n in range(0, len(large), 100_000)]
        peer.send(method, head, *pieces[:3])
        peer.send(body.ContentBody(b""), *pieces[3:])
        self.assertEqual([delivery.body for delivery in seen], [b"", b"x", large[:100_000], large])

    def test_cut_anywhere(self) -> None:
        """W-28, Z3: chunks of every size give the same deliveries."""
        peer, _, tag, seen = self.consuming()
        octets = b"".join(peer.encode(*peer.delivery(b"body %d" % n, tag, n)) for n in range(1, 6))
        for size in (1, 2, 3, 7, 64):
            for start in range(0, len(octets), size):
                peer.send_raw(octets[start : start + size])
            self.assertEqual([delivery.body for delivery in seen], [b"body %d" % n for n in range(1, 6)], size)
            seen.clear()
            peer.channels[1].outstanding.clear()

    def test_contents_of_channels_interleave(self) -> None:
        """M-21: frame by frame, each channel puts its own together."""
        peer, _, tag, seen = self.consuming()
        other = peer.channel()
        others: list[Delivery] = []
        other_tag = peer.consumer(other, others.append).consumer_tag
        first = peer.delivery(b"first", tag, 1)
        second = peer.delivery(b"second", other_tag, 1, channel=2)
        for left, right in zip(first, second, strict=True):
            peer.send(left, channel=1)
            peer.send(right, channel=2)
        self.assertEqual(([d.body for d in seen], [d.body for d in others]), ([b"first"], [b"second"]))

    def test_properties_that_cannot_be_read(self) -> None:
        """R20, 0.3: sound frames with a bad property list are delivered: the raw octets and the error are there, the
        body too; it can be settled, and the messages behind it arrive."""
        nested = b""
        for _ in range(600):
            nested = b"\x01aF" + len(nested).to_bytes(4, "big") + nested
        too_deep = b"\x20\x00" + len(nested).to_bytes(4, "big") + nested
        for properties in (b"\x80\x00\xff", b"\x20\x00\x00\x00\x00\x10\x01aq", b"\x00", too_deep):
            peer, channel, tag, seen = self.consuming()
            method, _, octets = peer.delivery(b"body", tag, 1)
            peer.send_raw(peer.encode(method) + content_header(4, properties) + peer.encode(octets))
            peer.deliver(tag, b"next", first=2)
            bad, following = seen
            assert isinstance(bad.properties, UndecodableProperties)
            self.assertEqual((bad.body, following.body), (b"body", b"next"))
            self.assertEqual(bad.properties.raw, properties)
            self.assertIsInstance(bad.properties.error, RemoteProtocolError)
            repr(bad)
            bad.reject()
            self.assertEqual(peer.settlements(), [("Reject", 1, False)])
            self.assertTrue(channel.is_open)

    def test_strings_that_are_no_utf8_survive(self) -> None:
        """R20, 0.4, Q-20: 255 octets of 0xFF as correlation id and reply-to come back as the same octets."""
        peer, channel, tag, seen = self.consuming()
        octets = b"\x06\x00" + (b"\xff" + b"\xff" * 255) * 2
        peer.send_raw(peer.encode(peer.delivery(b"", tag, 1)[0]) + content_header(0, octets))
        properties = seen[0].properties
        assert isinstance(properties, BasicProperties)
        self.patch(peer, "bytes_written", lambda data: None)  # pamqp cannot read what comes now
        channel.basic_publish("", "replies", b"", properties)
        peer.clock.advance(0)
        self.assertIn(content_header(0, octets), peer.transport.value())

    def test_headers_are_not_shared(self) -> None:
        """A handler that changes the headers of one message does not change those of an equal one."""
        peer, _, tag, seen = self.consuming()
        properties = commands.Basic.Properties(headers={"retries": 1, "nested": {"a": 1}})
        for number in (1, 2):
            peer.send(*peer.delivery(b"m", tag, number, properties=properties))
        found: list[Any] = [delivery.properties for delivery in seen]
        first, second = (properties.headers for properties in found)
        first["retries"] = 99
        first["nested"]["a"] = 99
        self.assertEqual(second, {"retries": 1, "nested": {"a": 1}})

    def test_a_message_that_is_too_large(self) -> None:
        """R19: refused on its header, before its body is here."""
        peer = self.peer(max_message_size=1000).open()
        channel = peer.channel()
        tag = peer.consumer(channel, lambda delivery: None).consumer_tag
        method, _, _ = peer.delivery(b"x", tag, 1)
        peer.read()
        peer.send_raw(peer.encode(method) + content_header(1001, b"\x00\x00"))
        self.assertIn(peer.only(Connection.Close).reply_code, (311, 501))
        self.assertIn("1001", str(channel.close_reason))

    def test_order_over_consumers(self) -> None:
        """R24: deliveries are handed over in the order in which they came, whoever they are for."""
        peer = self.opened()
        channel = peer.channel()
        seen: list[bytes] = []
        tags = [peer.consumer(channel, lambda d: seen.append(d.body)).consumer_tag for _ in range(3)]
        values: list[Frame] = []
        for number in range(1, 31):
            values += peer.delivery(b"%d" % number, tags[number % 3], number)
        peer.send(*values)
        self.assertEqual(seen, [b"%d" % number for number in range(1, 31)])


class ViolationTests(PeerTestCase):
    """R18: one typed error for everybody, a connection.close with the right code, the end."""

    def violated(self, *frames: Frame, code: int) -> None:
        peer = self.opened()
        channel = peer.channel()
        declared = channel.queue_declare("q")
        peer.read()
        peer.send(*frames)
        self.assertEqual(peer.only(Connection.Close).reply_code, code, frames)
        error = self.failed(declared, RemoteProtocolError)
        self.assertIs(self.result(channel.closed), error)
        self.assertTrue(peer.transport.disconnecting)

    def test_replies_nobody_asked_for(self) -> None:
        """W-85: 503, for each kind."""
        for reply in (
            Queue.BindOk(),
            Queue.DeleteOk(1),
            commands.Exchange.DeclareOk(),
            Basic.QosOk(),
            Basic.ConsumeOk("c"),
            Basic.CancelOk("c"),
            Basic.GetEmpty(),
            Basic.RecoverOk(),
            commands.Tx.CommitOk(),
            commands.Confirm.SelectOk(),
            commands.Channel.FlowOk(True),
        ):
            self.violated(reply, code=503)

    def test_methods_of_the_client(self) -> None:
        """A-02: what only a client may send."""
        for method in (Queue.Declare(0, "q"), Basic.Qos(), commands.Tx.Select()):
            self.violated(method, code=503)

    def test_contents_out_of_order(self) -> None:
        """M-20: a body without a method, a method without its content, a second header: 505."""
        self.violated(body.ContentBody(b"x"), code=505)
        self.violated(Basic.Deliver("c", 1, False, "x", "k"), Queue.DeclareOk("q", 0, 0), code=505)
        head = Peer.content(Peer(), Basic.Deliver("c", 1, False, "x", "k"), b"ab")
        self.violated(head[0], head[1], head[1], code=505)

    def test_more_body_than_announced(self) -> None:
        """M-20, F33: the frame that goes beyond the size is refused."""
        method, head, _ = Peer.content(Peer(), Basic.Deliver("c", 1, False, "x", "k"), b"ab")
        self.violated(method, head, body.ContentBody(b"abc"), code=501)


class MemoryTests(PeerTestCase):
    def test_a_closed_channel_is_let_go(self) -> None:
        """W-82, R31: neither the connection nor a consumer's end keeps it."""
        peer = self.opened()
        channel: Channel | None = peer.confirm_channel()
        assert channel is not None
        ignore(channel.basic_publish("", "q", b""), channel.queue_declare("q"))
        peer.consumer(channel)
        gone: Any = weakref.ref(channel)
        channel.close()
        peer.read()
        peer.send(Basic.Ack(1))
        peer.send(commands.Channel.CloseOk())
        channel = None
        gc.collect()
        self.assertIsNone(gone())

    def test_a_closed_connection_is_let_go(self) -> None:
        """R31: no cycle with the transport, the clock or the channels outlives it."""
        peer: Peer | None = Peer().open()
        assert peer is not None
        channel: Channel | None = peer.channel()
        assert channel is not None
        peer.consumer(channel)
        peer.lose()
        gone: list[Any] = [weakref.ref(peer.protocol), weakref.ref(channel), weakref.ref(peer.transport)]
        clock = peer.clock
        peer = channel = None
        gc.collect()
        self.assertEqual([each() for each in gone], [None, None, None])
        self.assertEqual(clock.getDelayedCalls(), [])

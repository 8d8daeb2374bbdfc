"""basic.publish: what leaves, confirm mode, and the one outcome of each publish."""

from __future__ import annotations

from typing import Any

from pamqp import body, commands
from twisted.internet.defer import CancelledError, Deferred

from tests.amqp.peer import PublishTestCase, ignore, outcomes
from txmsg.errors import (
    ConnectionForced,
    EncodeError,
    NotFound,
    PublishNacked,
    PublishTimeout,
    PublishUnconfirmed,
    RemoteProtocolError,
)
from txmsg.wire.properties import BasicProperties

Basic, Connection = commands.Basic, commands.Connection


class FramesTests(PublishTestCase):
    def test_method_header_and_body(self) -> None:
        """K-31, X-04: what was said is on the wire; without confirms the Deferred fires with None."""
        peer, channel = self.channel()
        properties = BasicProperties(content_type="text/plain", delivery_mode=2, headers={"a": [1, {"b": None}]})
        published = channel.basic_publish("ex", "key", b"body", properties, mandatory=True)
        self.assertIsNone(self.result(published))
        method, found, octets = self.sent(peer)
        self.assertEqual((method.exchange, method.routing_key, octets), ("ex", "key", b"body"))
        self.assertEqual((method.mandatory, method.immediate), (True, False))
        self.assertEqual((found.content_type, found.delivery_mode), ("text/plain", 2))
        self.assertEqual(found.headers, {"a": [1, {"b": None}]})
        self.assertIsNone(found.message_id)

    def test_defaults(self) -> None:
        """K-31: no properties and not mandatory unless asked for; an empty exchange and key are fine (K-35)."""
        peer, channel = self.channel()
        channel.basic_publish("", "", b"x")
        method, found, _ = self.sent(peer)
        self.assertEqual((method.exchange, method.routing_key, method.mandatory), ("", "", False))
        self.assertEqual([value for _, value in found if value not in (None, "")], [])

    def test_kinds_of_bodies(self) -> None:
        """K-33, W-58, W-61: bytes-like as it is, str as UTF-8 before its size is counted; empty: no body frame."""
        peer, channel = self.channel()
        for given, expected in (
            (b"bytes", b"bytes"),
            (bytearray(b"array"), b"array"),
            (memoryview(b"view"), b"view"),
            (memoryview(b"every second")[::2], b"eeyscn"),
            ("text ü", "text ü".encode()),
            (b"", b""),
            ("", b""),
        ):
            channel.basic_publish("", "q", given)
            self.assertEqual(self.sent(peer)[2], expected)

    def test_a_bytearray_may_be_used_again(self) -> None:
        """The body is taken when the call is made, also if it leaves later."""
        peer, channel = self.channel()
        octets = bytearray(b"first")
        channel.basic_publish("", "q", octets)
        octets[:] = b"OTHER"
        self.assertEqual(self.sent(peer)[2], b"first")

    def test_body_frames(self) -> None:
        """24.12, K-34, G-10: frame_max 4096 leaves 4088 octets for the body of a frame; no empty frame at the end."""
        peer = self.peer().open(frame_max=4096)
        channel = peer.channel()
        for size, frames in ((0, 0), (1, 1), (4087, 1), (4088, 1), (4089, 2), (8176, 2), (8177, 3)):
            channel.basic_publish("", "q", bytes(size))
            pieces = [frame for _, frame in peer.read() if isinstance(frame, body.ContentBody)]
            self.assertEqual((len(pieces), sum(len(piece.value) for piece in pieces)), (frames, size))

    def test_falsy_is_not_absent(self) -> None:
        """24.13, Q-05: only None is absent."""
        peer, channel = self.channel()
        properties = BasicProperties(priority=0, headers={}, correlation_id="", expiration="0", timestamp=0)
        channel.basic_publish("", "q", b"", properties)
        found = self.sent(peer)[1]
        self.assertEqual((found.priority, found.headers, found.correlation_id, found.expiration), (0, {}, "", "0"))
        assert found.timestamp is not None
        self.assertEqual(found.timestamp.timestamp(), 0)
        self.assertIsNone(found.content_type)

    def test_messages_do_not_mix(self) -> None:
        """R8, W-33: two large messages on two channels in one turn, each in one piece."""
        peer = self.peer().open(frame_max=4096)
        channels = [peer.channel(), peer.channel()]
        for number, channel in enumerate(channels):
            channel.basic_publish("", "q", bytes([number]) * 10_000)
        order = [number for number, _ in peer.read()]
        self.assertEqual(order, [1] * 5 + [2] * 5)

    def test_what_cannot_be_sent(self) -> None:
        """K-05, R21, Q-21, Q-22: EncodeError, nothing on the wire, no number used up, nothing raised."""
        peer, channel = self.channel(confirm=True)
        publish: Any = channel.basic_publish
        bad: list[tuple[Any, ...]] = [
            ("x" * 256, "", b""),
            ("", "ü" * 128, b""),
            (None, "", b""),
            ("", 5, b""),
            ([], "", b""),
            ("", "q", None),
            ("", "q", 5),
            ("", "q", {"a": 1}),
            ("", "q", "lone surrogate \ud800"),
            ("", "q", b"", {"content_type": "text/plain"}),
            ("", "q", b"", "text/plain"),
            ("", "q", b"", b"\x80\x00"),
            ("", "q", b"", BasicProperties(headers={"x": object()})),
            ("", "q", b"", BasicProperties(message_id="x" * 256)),
            ("", "q", b"", BasicProperties(headers={"x": "y" * 200_000})),
        ]
        for arguments in bad:
            for mandatory in (False, True):
                with self.subTest(arguments=repr(arguments)[:60], mandatory=mandatory):
                    self.failed(publish(*arguments, mandatory=mandatory), EncodeError)
        self.assertEqual(peer.read(), [])
        good = publish("", "q", b"good")
        peer.send(Basic.Ack(1))
        self.assertEqual(self.result(good), 1)

    def test_ten_thousand_in_a_row(self) -> None:
        """W-20: awaiting each publish of a long row does not run out of stack."""
        peer, channel = self.channel()

        async def row() -> str:
            for _ in range(10_000):
                await channel.basic_publish("", "q", b"")
            return "done"

        self.assertEqual(self.result(Deferred.fromCoroutine(row())), "done")
        self.assertEqual(len(peer.published()), 10_000)


class ConfirmSelectTests(PublishTestCase):
    def test_numbers_begin_when_select_is_written(self) -> None:
        """24.3, N-01, N-02, K-09: publishes made before select-ok are counted; those before the call are not."""
        peer, channel = self.channel()
        before = channel.basic_publish("", "q", b"unconfirmed")
        selected = channel.confirm_select()
        publishes = [channel.basic_publish("", "q", b"") for _ in range(2)]
        self.assertEqual(peer.names(), ["Basic.Publish", "Confirm.Select", "Basic.Publish", "Basic.Publish"])
        self.assertIsNone(self.result(before))
        peer.send(commands.Confirm.SelectOk(), Basic.Ack(1))
        self.result(selected)
        self.assertEqual(outcomes(publishes), [1, None])
        peer.send(Basic.Ack(2))

    def test_selecting_again(self) -> None:
        """K-38, N-16: no second select, no second beginning of the numbers."""
        peer, channel = self.channel(confirm=True)
        first = channel.basic_publish("", "q", b"")
        self.assertIsNone(self.result(channel.confirm_select()))
        second = channel.basic_publish("", "q", b"")
        self.assertEqual(peer.names(), ["Basic.Publish", "Basic.Publish"])
        peer.send(Basic.Ack(2, True))
        self.assertEqual([self.result(first), self.result(second)], [1, 2])
        self.assertTrue(channel.is_confirming)

    def test_nowait(self) -> None:
        """M-07: the bit is set, and counting begins as well."""
        peer, channel = self.channel()
        self.assertIsNone(self.result(channel.confirm_select(nowait=True)))
        self.assertTrue(peer.only(commands.Confirm.Select).nowait)
        publish = channel.basic_publish("", "q", b"")
        peer.send(Basic.Ack(1))
        self.assertEqual(self.result(publish), 1)

    def test_not_on_a_dead_channel(self) -> None:
        """K-03: the reason of the end; the channel is not in confirm mode."""
        peer, channel = self.channel()
        peer.send(commands.Channel.Close(406, "", 0, 0))
        self.assertIs(self.failed(channel.confirm_select()), channel.close_reason)
        self.assertFalse(channel.is_confirming)

    def test_given_up_while_it_is_held(self) -> None:
        """R8: who cancels confirm_select, or whom it times out, still has a channel that confirms what it publishes."""
        for give_up in ("cancel", "time out"):
            with self.subTest(give_up):
                peer, channel = self.channel(operation_timeout=5.0)
                peer.send(Connection.Blocked("low on memory"))
                ignore(channel.basic_publish("", "q", b"unconfirmed"))
                peer.clock.advance(1)
                selected = channel.confirm_select()
                publish = channel.basic_publish("", "q", b"confirmed")
                if give_up == "cancel":
                    selected.cancel()
                else:
                    peer.clock.advance(5)
                outcomes([selected])
                peer.send(Connection.Unblocked())
                self.assertIn("Confirm.Select", peer.names())
                peer.send(commands.Confirm.SelectOk(), Basic.Ack(1))
                self.assertEqual(self.result(publish), 1)

    def test_after_a_new_channel(self) -> None:
        """W-36: another channel counts from 1 again."""
        peer, first = self.channel(confirm=True)
        ignore(first.basic_publish("", "q", b""))
        first.close()
        peer.send(Basic.Ack(1))
        peer.send(commands.Channel.CloseOk())
        second = peer.confirm_channel()
        publish = second.basic_publish("", "q", b"")
        peer.send(Basic.Ack(1))
        self.assertEqual(self.result(publish), 1)


class OutcomeTests(PublishTestCase):
    def test_acks_and_nacks(self) -> None:
        """R1, N-03 to N-06, 24.5: single and multiple, in one chunk."""
        peer, channel = self.channel(confirm=True)
        publishes = [channel.basic_publish("", "q", b"") for _ in range(6)]
        self.assertEqual(outcomes(publishes), [None] * 6)
        peer.send(Basic.Ack(3), Basic.Nack(4), Basic.Ack(5, True), Basic.Nack(6, True))
        found = outcomes(publishes)
        self.assertEqual([found[n] for n in (0, 1, 2, 4)], [1, 2, 3, 5])
        self.assertEqual([type(found[n]) for n in (3, 5)], [PublishNacked] * 2)

    def test_answers_that_cannot_be(self) -> None:
        """R18: a number never given, or any confirm on a channel without confirm mode: 503 and the end."""
        for confirm in (False, True):
            for answer in (Basic.Ack(2), Basic.Nack(2)):
                peer, channel = self.channel(confirm=confirm)
                publish = channel.basic_publish("", "q", b"")
                peer.read()
                peer.send(answer)
                self.assertEqual(peer.only(Connection.Close).reply_code, 503)
                if confirm:
                    self.failed(publish, PublishUnconfirmed)
                self.assertIsInstance(self.result(channel.closed), RemoteProtocolError)

    def test_the_channel_is_closed_by_the_broker(self) -> None:
        """N-14, 24.6: publishing to a missing exchange: all that are pending fail with 404."""
        peer, channel = self.channel(confirm=True)
        publishes = [channel.basic_publish("nope", "q", b"") for _ in range(3)]
        peer.read()
        peer.send(commands.Channel.Close(404, "NOT_FOUND - no exchange 'nope' in vhost '/'", 60, 40))
        for publish in publishes:
            self.assertEqual(self.failed(publish, NotFound).method_name, "basic.publish")

    def test_the_end_leaves_the_outcome_unknown(self) -> None:
        """R2, N-15: lost, aborted, closed by us: PublishUnconfirmed with the reason; by the broker: its own error."""
        for end, kind in (
            (lambda peer, channel: peer.lose(), PublishUnconfirmed),
            (lambda peer, channel: peer.protocol.abort(), PublishUnconfirmed),
            (lambda peer, channel: peer.send(Connection.Close(320, "bye", 0, 0)), ConnectionForced),
        ):
            peer, channel = self.channel(confirm=True)
            publish = channel.basic_publish("", "q", b"")
            peer.read()
            end(peer, channel)
            error = self.failed(publish, kind)
            if kind is PublishUnconfirmed:
                self.assertIs(error.cause, channel.close_reason)
                self.assertIn("publish 1", str(error))

    def test_no_answer(self) -> None:
        """R2: PublishTimeout within confirm_timeout and a second; a late ack harms nobody."""
        peer, channel = self.channel(confirm=True, confirm_timeout=5.0)
        publish = channel.basic_publish("", "q", b"")
        peer.clock.pump([0.5] * 9)
        self.assertNoResult(publish)
        peer.clock.pump([0.5] * 4)
        self.failed(publish, PublishTimeout)
        peer.send(Basic.Ack(1))
        again = channel.basic_publish("", "q", b"")
        peer.send(Basic.Ack(2))
        self.assertEqual(self.result(again), 2)

    def test_cancelling(self) -> None:
        """R8, N-22: the message is on its way, its number stays; later confirms find their publishes."""
        peer, channel = self.channel(confirm=True)
        publishes = [channel.basic_publish("", "q", b"%d" % n) for n in range(3)]
        publishes[1].cancel()
        self.failed(publishes[1], CancelledError)
        self.assertEqual(peer.published(), [b"0", b"1", b"2"])
        peer.send(Basic.Ack(1), Basic.Ack(2), Basic.Ack(3))
        self.assertEqual([self.result(publishes[0]), self.result(publishes[2])], [1, 3])

    def test_publishing_in_the_callback_of_a_confirm(self) -> None:
        """R32, W-20: thousands of publishes, each made when the one before is confirmed."""
        peer, channel = self.channel(confirm=True)
        confirmed: list[int | None] = []

        def next_publish() -> None:
            ignore(channel.basic_publish("", "q", b"").addCallback(next_one))

        def next_one(tag: int | None) -> None:
            confirmed.append(tag)
            next_publish()

        for _ in range(10):
            next_publish()
        for n in range(300):
            peer.send(Basic.Ack((n + 1) * 10, True))
        self.assertEqual(confirmed, list(range(1, 3001)))

"""basic.publish: what leaves, the one outcome of each publish, and publishes that have to wait."""

from __future__ import annotations

from typing import Any

from pamqp import body, commands, header
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import globalLogPublisher
from twisted.python.failure import Failure

from tests.amqp.peer import Peer, PeerTestCase, ignore, outcomes
from txmsg.amqp.channel import Channel
from txmsg.amqp.delivery import ReturnedMessage
from txmsg.errors import (
    ChannelClosed,
    ConnectionForced,
    ConnectionLost,
    EncodeError,
    NotFound,
    NotSent,
    Overloaded,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
    RemoteProtocolError,
)
from txmsg.wire.properties import BasicProperties, UndecodableProperties

Basic, Connection = commands.Basic, commands.Connection


class PublishTestCase(PeerTestCase):
    def channel(self, *, confirm: bool = False, **options: Any) -> tuple[Peer, Channel]:
        peer = self.opened(**options)
        return peer, peer.confirm_channel() if confirm else peer.channel()

    def sent(self, peer: Peer) -> tuple[Any, Any, bytes]:
        """The one publish written since the last look."""
        (_, method), (_, head), *pieces = peer.read()
        assert isinstance(method, Basic.Publish)
        assert isinstance(head, header.ContentHeader)
        octets = b"".join(piece.value for _, piece in pieces if isinstance(piece, body.ContentBody))
        self.assertEqual(head.body_size, len(octets))
        return method, head.properties, octets


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


class ReturnTests(PublishTestCase):
    def publish(self, peer: Peer, channel: Channel, octets: bytes = b"", **properties: Any) -> tuple[Any, Any]:
        """A mandatory publish, and its properties on the wire."""
        given = BasicProperties(**properties) if properties else None
        published = channel.basic_publish("x", "key", octets, given, mandatory=True)
        return published, self.sent(peer)[1]

    def test_unroutable(self) -> None:
        """N-07, R1, N-13: return, then ack: PublishReturned with what came back."""
        peer, channel = self.channel(confirm=True)
        publish, properties = self.publish(peer, channel, b"body", content_type="text/plain")
        peer.return_(b"body", properties)
        self.assertNoResult(publish)
        peer.send(Basic.Ack(1))
        error = self.failed(publish, PublishReturned)
        self.assertEqual((error.reply_code, error.reply_text), (312, "NO_ROUTE"))
        self.assertEqual((error.exchange, error.routing_key), ("x", "key"))
        self.assertEqual((error.returned.body, error.returned.properties.content_type), (b"body", "text/plain"))

    def test_a_hundred_in_turn(self) -> None:
        """R5, 24.4, N-09: routable and unroutable alternate with equal bodies; the broker acks with `multiple`."""
        peer, channel = self.channel(confirm=True)
        made = [self.publish(peer, channel, b"same") for _ in range(100)]
        for _, properties in made[1::2]:
            peer.return_(b"same", properties)
        peer.send(Basic.Ack(100, True))
        for n, outcome in enumerate(outcomes([publish for publish, _ in made])):
            self.assertEqual(isinstance(outcome, PublishReturned), n % 2 == 1, n)

    def test_message_ids(self) -> None:
        """R5, R7: the application's id stays; without one a unique one is given, for mandatory messages only."""
        peer, channel = self.channel(confirm=True)
        publish, properties = self.publish(peer, channel, message_id="mine")
        self.assertEqual(properties.message_id, "mine")
        generated = [self.publish(peer, channel)[1].message_id for _ in range(3)]
        self.assertEqual(len({*generated, None}), 4)
        peer.return_(b"", commands.Basic.Properties(message_id="mine"))
        peer.send(Basic.Ack(4, True))
        self.failed(publish, PublishReturned)
        ignore(channel.basic_publish("", "q", b""))
        self.assertIsNone(self.sent(peer)[1].message_id)
        peer.send(Basic.Ack(5))

    def test_return_callbacks(self) -> None:
        """K-13, N-12, W-35: called with one ReturnedMessage, before the publish fails; errors in them go no further."""
        peer, channel = self.channel(confirm=True)
        heard: list[Any] = []

        def fail(message: ReturnedMessage) -> None:
            raise ValueError("in the callback")

        channel.add_return_callback(fail)
        channel.add_return_callback(heard.append)
        publish, properties = self.publish(peer, channel)
        publish.addErrback(heard.append)
        peer.send(*peer.content(Basic.Return(313, "NO_CONSUMERS", "x", "key"), b"", properties), Basic.Ack(1))
        message, failure = heard
        self.assertIsInstance(message, ReturnedMessage)
        self.assertEqual((message.reply_code, message.body), (313, b""), "an empty body comes back too")
        self.assertIs(failure.value.returned, message)
        self.assertEqual(len(self.unhandled(ValueError)), 1)
        channel.remove_return_callback(heard.append)
        self.assertRaises(ValueError, channel.remove_return_callback, heard.append)

    def test_without_confirm_mode(self) -> None:
        """N-11: only the callbacks hear of it; the publish has succeeded."""
        peer, channel = self.channel()
        heard: list[ReturnedMessage] = []
        channel.add_return_callback(heard.append)
        publish, properties = self.publish(peer, channel, b"body")
        self.assertIsNone(self.result(publish))
        peer.return_(b"body", properties)
        self.assertEqual([message.body for message in heard], [b"body"])

    def test_a_return_nobody_asked_for(self) -> None:
        """N-20: is logged, with the broker's text made harmless, and not with the body (C3.3)."""
        events: list[Any] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        peer, channel = self.channel()
        peer.send(*peer.content(Basic.Return(312, "NO\nROUTE", "x", "k"), b"canary"))
        (event,) = [e for e in events if e["log_namespace"].startswith("txmsg.amqp.channel")]
        self.assertEqual((event["code"], event["text"]), (312, "NO\\nROUTE"))
        self.assertNotIn("canary", str(event))
        self.assertTrue(channel.is_open)

    def test_properties_that_cannot_be_read(self) -> None:
        """R20: the return is told of, with the raw octets; the channel goes on."""
        peer, channel = self.channel()
        heard: list[ReturnedMessage] = []
        channel.add_return_callback(heard.append)
        octets = peer.encode(Basic.Return(312, "NO_ROUTE", "x", "k"))
        head = b"\x00\x3c\x00\x00" + (4).to_bytes(8, "big") + b"\x80\x00\xff"
        octets += b"\x02\x00\x01" + len(head).to_bytes(4, "big") + head + b"\xce"
        peer.send_raw(octets + peer.encode(body.ContentBody(b"body")))
        (message,) = heard
        self.assertIsInstance(message.properties, UndecodableProperties)
        self.assertEqual(message.body, b"body")
        self.assertTrue(channel.is_open)


class HeldTests(PublishTestCase):
    """R6, R16, I-06: publishes wait while the broker blocks the connection or stops the channel's flow."""

    def blocked(self, *, confirm: bool = False, **options: Any) -> tuple[Peer, Channel]:
        peer, channel = self.channel(confirm=confirm, **options)
        peer.send(Connection.Blocked("low on memory"))
        return peer, channel

    def test_they_leave_in_order_when_it_is_over(self) -> None:
        """R4: across two channels each keeps its order; what is published meanwhile goes behind."""
        peer, first = self.channel()
        second = peer.channel()
        peer.send(Connection.Blocked("low on memory"))
        made = [channel.basic_publish("", "q", b"%d" % n) for n in range(3) for channel in (first, second)]
        made[0].addCallback(lambda result: ignore(first.basic_publish("", "q", b"meanwhile")))
        self.assertEqual(peer.read(), [])
        self.assertEqual(outcomes(made), [None] * 6)
        self.assertEqual(repr(first), "<Channel 1 open, 0 calls waiting, 0 unsettled, 3 held>")
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"0", b"1", b"2", b"meanwhile", b"0", b"1", b"2"])
        for publish in made:
            self.assertIsNone(self.result(publish))
        self.assertEqual(peer.protocol.outbox.messages, 0)

    def test_numbers_are_given_when_they_are_written(self) -> None:
        """R8, N-01: a publish that was cancelled while held has none; the others are confirmed right."""
        peer, channel = self.blocked(confirm=True)
        made = [channel.basic_publish("", "q", b"%d" % n, mandatory=n == 2) for n in range(3)]
        made[0].cancel()
        self.failed(made[0], CancelledError)
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"1", b"2"])
        peer.send(Basic.Ack(2))
        self.assertEqual(self.result(made[2]), 2)
        peer.send(Basic.Ack(1))
        self.assertEqual(self.result(made[1]), 1)

    def test_the_bound(self) -> None:
        """R6: Overloaded at once; there is room again when others end."""
        peer, channel = self.blocked(outbox_max_messages=2)
        first, second = (channel.basic_publish("", "q", b"") for _ in range(2))
        error = self.failed(channel.basic_publish("", "q", b""), Overloaded)
        self.assertIn("low on memory", str(error))
        peer.send(Connection.Unblocked())
        self.assertEqual(len(peer.published()), 2)
        self.assertEqual([self.result(first), self.result(second)], [None, None])
        peer.send(Connection.Blocked("again"))
        ignore(channel.basic_publish("", "q", b""))
        self.assertEqual(peer.protocol.outbox.messages, 1)

    def test_the_bound_in_bytes(self) -> None:
        """R6: what counts is what would be written, frames included."""
        _, channel = self.blocked(outbox_max_bytes=10_000)
        held = channel.basic_publish("", "q", bytes(9_000))
        self.failed(channel.basic_publish("", "q", bytes(1_000)), Overloaded)
        self.assertNoResult(held)
        ignore(held)

    def test_the_deadline(self) -> None:
        """R2: NotSent within confirm_timeout (or operation_timeout, without confirms) plus a second."""
        for confirm, limits in (
            (True, {"confirm_timeout": 5.0, "operation_timeout": 50.0}),
            (False, {"confirm_timeout": 50.0, "operation_timeout": 5.0}),
        ):
            peer, channel = self.blocked(confirm=confirm, **limits)
            peer.clock.advance(0.3)
            publish = channel.basic_publish("", "q", b"")
            peer.clock.pump([0.1] * 49)
            self.assertNoResult(publish)
            peer.clock.pump([0.1] * 12)
            self.assertIn("low on memory", str(self.failed(publish, NotSent)))
            peer.send(Connection.Unblocked())
            self.assertEqual(peer.published(), [])

    def test_the_end(self) -> None:
        """R2: no byte has left: NotSent, whoever ends it; those that were written fail first, in their order (R4)."""
        for end in (
            lambda peer: peer.lose(),
            lambda peer: peer.send(Connection.Close(320, "bye", 0, 0)),
            lambda peer: peer.send(commands.Channel.Close(406, "x", 0, 0)),
        ):
            peer, channel = self.channel(confirm=True)
            order: list[str] = []

            def note(failure: Failure, o: list[str] = order) -> None:
                o.append(type(failure.value).__name__)

            written = channel.basic_publish("", "q", b"written")
            peer.read()
            peer.send(Connection.Blocked("low on memory"))
            held = channel.basic_publish("", "q", b"held")
            held.addErrback(note)
            written.addErrback(note)
            end(peer)
            self.assertEqual(len(order), 2)
            self.assertEqual(order[1], "NotSent")
            self.assertEqual(peer.protocol.outbox.messages, 0)

    def test_flow(self) -> None:
        """I-09, I-08: channel.flow is answered; this channel's publishes wait, in order, others do not."""
        peer, channel = self.channel()
        other = peer.channel()
        peer.read()
        peer.send(commands.Channel.Flow(False))
        self.assertIs(peer.only(commands.Channel.FlowOk).active, False)
        self.assertFalse(channel.flow_active)
        held = [channel.basic_publish("", "q", b"%d" % n) for n in range(2)]
        ignore(other.basic_publish("", "q", b"other"))
        self.assertEqual(peer.published(), [b"other"])
        peer.send(commands.Channel.Flow(True))
        self.assertEqual(peer.names(), ["Channel.FlowOk", "Basic.Publish", "Basic.Publish"])
        self.assertTrue(channel.flow_active)
        self.assertEqual([self.result(publish) for publish in held], [None, None])
        ignore(channel.basic_publish("", "q", b"2"))
        self.assertEqual(peer.published(), [b"2"])

    def test_flow_and_blocked(self) -> None:
        """Both must be over."""
        peer, channel = self.channel()
        peer.send(commands.Channel.Flow(False), Connection.Blocked("low on memory"))
        peer.read()
        ignore(channel.basic_publish("", "q", b"held"))
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [])
        peer.send(Connection.Blocked("low on memory"), commands.Channel.Flow(True))
        self.assertEqual(peer.names(), ["Channel.FlowOk"])
        peer.send(Connection.Unblocked())
        self.assertEqual(peer.published(), [b"held"])


class EndedInTheSameChunkTests(PublishTestCase):
    """The broker's close came in the same bytes as what is being handled: the wire has ended before we know."""

    def test_publishing_in_a_callback(self) -> None:
        """R2, R21: nothing follows the close; the publish fails as not sent, with the reason that is on its way."""
        for close in (commands.Channel.Close(404, "gone", 0, 0), Connection.Close(320, "gone", 0, 0)):
            for confirm in (False, True):
                peer, channel = self.channel(confirm=confirm)
                made: list[Deferred[Any]] = []

                def callback(delivery: Any, c: Channel = channel, m: list[Deferred[Any]] = made) -> None:
                    m.append(c.basic_publish("", "q", delivery.body))

                consumer = peer.consumer(channel, callback)
                peer.read()
                peer.send_raw(peer.encode(*peer.delivery(b"m", consumer.consumer_tag, 1)) + peer.encode(close))
                self.assertNotIn("Basic.Publish", peer.names())
                error = self.failed(made[0], NotSent, ChannelClosed, ConnectionLost)
                self.assertIs(error.cause if isinstance(error, NotSent) else error, channel.close_reason)

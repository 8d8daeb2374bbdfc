"""AMQPProtocol, once it is open: channel numbers, notices of the broker, secrets."""

from __future__ import annotations

from typing import Any

from pamqp import commands, heartbeat
from twisted.internet.defer import CancelledError
from twisted.internet.error import ConnectionDone

from tests.amqp.peer import PeerTestCase
from txmsg.errors import (
    ChannelLimitReached,
    ChannelNumberInUse,
    ConnectionBlockedTimeout,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    ConnectionWrongState,
    EncodeError,
    HeartbeatTimeout,
    NotAllowed,
    OperationTimeout,
    RemoteProtocolError,
)

Connection = commands.Connection


class ChannelNumberTests(PeerTestCase):
    def test_the_lowest_free_number(self) -> None:
        """F-08, W-39, J-10: 1, 2, 3; a closed one is given again, when the broker has agreed."""
        peer = self.opened()
        channels = [peer.channel() for _ in range(3)]
        self.assertEqual([int(channel) for channel in channels], [1, 2, 3])
        channels[1].close()
        self.assertEqual(int(peer.channel()), 4)
        peer.send(commands.Channel.CloseOk(), channel=2)
        self.assertEqual(int(peer.channel()), 2)
        self.assertEqual(int(peer.channel(0)), 5)

    def test_an_explicit_number(self) -> None:
        """F-09, F-10, M-01: taken, out of range or no number: a failed Deferred, nothing is written."""
        peer = self.opened()
        peer.protocol.channel(7)
        peer.read()
        for number in (7, 2048, 65536, -1, True, "1", 1.5):
            self.failed(peer.protocol.channel(number), ChannelNumberInUse)  # type: ignore[arg-type]
        self.assertEqual(peer.read(), [])
        self.assertEqual(int(peer.channel()), 1)
        peer.send(commands.Channel.OpenOk(), channel=7)

    def test_all_numbers_in_use(self) -> None:
        """F-08: ChannelLimitReached with the negotiated limit."""
        peer = self.peer().open(channel_max=2)
        channels = [peer.channel(), peer.channel()]
        error = self.failed(peer.protocol.channel(), ChannelLimitReached)
        self.assertIn("2", str(error))
        peer.send(commands.Channel.Close(406, "x", 0, 0), channel=1)
        self.assertEqual(int(peer.channel()), 1)
        self.assertTrue(channels[0].is_closed)

    def test_not_open(self) -> None:
        """J-11, W-15: before the opening, while it is closing, and after: a failed Deferred with the reason."""
        peer = self.peer()
        self.failed(peer.protocol.channel(), ConnectionWrongState)
        peer.open()
        closed = peer.protocol.close()
        self.failed(peer.protocol.channel(), ConnectionClosed)
        peer.lose()
        self.assertIs(self.failed(peer.protocol.channel()), self.successResultOf(closed))

    def test_pending_at_the_end(self) -> None:
        """J-12: channel() fails with the connection's reason."""
        peer = self.opened()
        opening = peer.protocol.channel()
        peer.send(Connection.Close(320, "bye", 0, 0))
        self.assertEqual(self.failed(opening, ConnectionForced).reply_text, "bye")

    def test_cancelled(self) -> None:
        """R8: a cancelled channel() is closed when it opens; until then its number stays taken."""
        peer = self.opened()
        opening = peer.protocol.channel()
        peer.read()
        opening.cancel()
        self.failed(opening, CancelledError)
        self.assertEqual(int(peer.channel()), 2)
        peer.send(commands.Channel.OpenOk(), channel=1)
        self.assertEqual(peer.names(), ["Channel.Close"])
        peer.send(commands.Channel.CloseOk(), channel=1)
        self.assertEqual(int(peer.channel()), 1)

    def test_timed_out(self) -> None:
        """R2, I-03: no answer within operation_timeout; the late one is undone."""
        peer = self.opened(operation_timeout=5.0)
        opening = peer.protocol.channel()
        peer.read()
        peer.send(Connection.Blocked("low on memory"))
        peer.clock.advance(5)
        self.assertTrue(self.failed(opening, OperationTimeout).blocked)
        peer.send(commands.Channel.OpenOk(), channel=1)
        self.assertEqual(peer.names(), ["Channel.Close"])

    def test_many_channels_leave_nothing(self) -> None:
        """W-82, R31: opening and closing 300 channels grows nothing."""
        peer = self.opened()
        for _ in range(300):
            channel = peer.channel()
            done = channel.close()
            peer.send(commands.Channel.CloseOk())
            self.successResultOf(done)
        self.assertEqual(peer.protocol.channels, {})
        self.assertEqual(dict(peer.protocol.wire.channels), {})


class NoticeTests(PeerTestCase):
    def test_blocked(self) -> None:
        """I-01, I-02, R16: state, reason and callbacks; an error in a callback harms nobody (F-22)."""
        peer = self.opened()
        protocol, heard = peer.protocol, list[Any]()

        def fail(reason: str) -> None:
            raise ValueError("in the callback")

        protocol.blocked.add_blocked_callback(fail)
        protocol.blocked.add_blocked_callback(heard.append)
        protocol.blocked.add_unblocked_callback(lambda: heard.append("over"))
        peer.send(Connection.Blocked("low on memory"))
        self.assertTrue(protocol.is_blocked)
        self.assertEqual(protocol.blocked.reason, "low on memory")
        peer.send(Connection.Unblocked())
        self.assertFalse(protocol.is_blocked)
        self.assertEqual(heard, ["low on memory", "over"])
        self.assertEqual(len(self.unhandled(ValueError)), 1)
        self.assertTrue(protocol.is_open)

    def test_blocked_for_too_long(self) -> None:
        """I-04, B-14: the connection is dropped, with ConnectionBlockedTimeout for all who wait."""
        peer = self.opened(blocked_connection_timeout=5.0)
        peer.send(Connection.Blocked("low on memory"))
        declared = peer.protocol.channel()
        peer.clock.advance(5)
        self.assertTrue(peer.transport.disconnected)
        error = self.failed(declared, ConnectionBlockedTimeout)
        peer.lose()
        self.assertIs(self.successResultOf(peer.protocol.closed), error)

    def test_blocked_in_the_same_chunk_as_the_end(self) -> None:
        """R28: what follows in a chunk after the end starts no timer."""
        peer = self.opened(blocked_connection_timeout=5.0)
        channel = peer.channel()
        consumer = peer.consumer(channel, lambda delivery: peer.protocol.abort())
        peer.send_raw(peer.encode(*peer.delivery(b"", consumer.consumer_tag, 1)) + peer.encode(Connection.Blocked("x")))
        self.assertEqual(peer.clock.getDelayedCalls(), [])

    def test_heartbeats(self) -> None:
        """H-01, H-07, R15, R13, W-90: frames of ours go out; a silent broker is dropped between 2T and 2T + 1 s."""
        peer = self.peer(heartbeat=10).open(heartbeat=60)
        self.successResultOf(peer.protocol.ready)
        peer.clock.pump([0.5] * 30)
        beats = [(number, frame) for number, frame in peer.read() if isinstance(frame, heartbeat.Heartbeat)]
        self.assertGreaterEqual(len(beats), 2)
        self.assertEqual({number for number, _ in beats}, {0})
        waiting = peer.protocol.channel()
        peer.clock.pump([0.5] * 9)
        self.assertFalse(peer.transport.disconnected, "19.5 s")
        peer.clock.pump([0.5] * 3)
        self.assertTrue(peer.transport.disconnected, "21 s")
        self.assertEqual(peer.clock.getDelayedCalls(), [], "before the socket is gone")
        error = self.failed(waiting, HeartbeatTimeout)
        peer.lose()
        self.assertIs(self.successResultOf(peer.protocol.closed), error)
        self.assertEqual(peer.clock.getDelayedCalls(), [], "24.15")

    def test_any_byte_is_a_sign_of_life(self) -> None:
        """H-02, R13: not only heartbeat frames; our own traffic does not count."""
        peer = self.peer(heartbeat=10).open(heartbeat=60)
        channel = peer.channel()
        for _ in range(10):
            peer.clock.pump([1] * 19)
            self.assertTrue(peer.protocol.is_open)
            peer.send(commands.Channel.Flow(True))
        for _ in range(21):
            channel.basic_publish("", "q", b"")
            peer.clock.advance(1)
        self.assertTrue(peer.transport.disconnected)

    def test_no_heartbeats_when_zero_was_agreed(self) -> None:
        """H-04: no timer at all."""
        peer = self.peer(heartbeat=0).open(heartbeat=60)
        self.assertEqual(peer.clock.getDelayedCalls(), [])
        peer.clock.advance(10_000)
        self.assertTrue(peer.protocol.is_open)

    def test_frames_of_unknown_channels(self) -> None:
        """M-18, R18: a channel that was never opened is a violation of the peer's."""
        peer = self.opened()
        peer.send(commands.Queue.DeclareOk("q", 0, 0), channel=9)
        self.assertEqual(peer.only(Connection.Close).reply_code, 504)
        peer.lose()
        self.assertIsInstance(self.successResultOf(peer.protocol.closed), RemoteProtocolError)

    def test_garbage_on_an_open_connection(self) -> None:
        """R18: one RemoteProtocolError for everybody, a connection.close, the socket closed within a second."""
        peer = self.opened()
        channel = peer.channel()
        declared = channel.queue_declare("q")
        peer.read()
        peer.send_raw(b"\xff" * 64)
        self.assertIn(peer.only(Connection.Close).reply_code, (501, 505))
        error = self.failed(declared, RemoteProtocolError)
        self.assertIs(self.successResultOf(channel.closed), error)
        self.assertTrue(peer.transport.disconnecting)
        self.assertFalse(peer.transport.disconnected)
        peer.clock.advance(1)
        self.assertTrue(peer.transport.disconnected)
        peer.send_raw(b"\xff" * 64)


class LossTests(PeerTestCase):
    def test_a_loss_in_the_middle_of_a_frame_says_so(self) -> None:
        """F5, J-19: an end inside a frame is a loss and no broken protocol; the text tells where it was."""
        peer = self.opened()
        closed = peer.protocol.when_closed()
        peer.send_raw(b"\x01\x00\x01\x00")
        peer.lose()
        reason = self.result(closed)
        self.assertIsInstance(reason, ConnectionLost)
        self.assertIn("inside a frame, after 4 octets of it", str(reason))


class UpdateSecretTests(PeerTestCase):
    def test_update_secret(self) -> None:
        """The new secret and the reason leave; the Deferred fires at update-secret-ok."""
        for secret in ("token", b"token"):
            peer = self.opened()
            updated = peer.protocol.update_secret(secret, "refresh")
            sent = peer.only(Connection.UpdateSecret)
            self.assertEqual((sent.new_secret, sent.reason), ("token", "refresh"))
            self.assertNoResult(updated)
            peer.send(Connection.UpdateSecretOk())
            self.successResultOf(updated)

    def test_refused(self) -> None:
        """A refusal closes the connection, and its reason is the Deferred's."""
        peer = self.opened()
        updated = peer.protocol.update_secret("token")
        peer.send(Connection.Close(530, "NOT_ALLOWED - token expired", 10, 70))
        self.assertIn("token expired", str(self.failed(updated, NotAllowed)))

    def test_time_out_and_state(self) -> None:
        """R2: no answer is OperationTimeout; on a connection that is not open it fails."""
        peer = self.peer(operation_timeout=5.0)
        self.failed(peer.protocol.update_secret("t"), ConnectionWrongState)
        peer.open()
        updated = peer.protocol.update_secret("t")
        peer.clock.advance(5)
        self.failed(updated, OperationTimeout)
        peer.send(Connection.UpdateSecretOk())
        peer.send(Connection.UpdateSecretOk())
        self.assertTrue(peer.protocol.is_open)
        self.failed(peer.protocol.update_secret("x" * 200_000), EncodeError)
        peer.lose(ConnectionDone())
        self.failed(peer.protocol.update_secret("t"), ConnectionLost)

"""AMQPProtocol: the opening, every way it fails, and the hook that may delay it."""

from __future__ import annotations

from typing import Any

from pamqp import commands, header
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost as SocketLost

from tests.amqp.peer import Peer, PeerTestCase
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.handshake import Negotiated
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import PlainCredentials
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    EncodeError,
    HandshakeTimeout,
    IncompatibleProtocol,
    LocalProtocolError,
    NotAllowed,
    RemoteProtocolError,
    TLSFailed,
    TxmsgError,
    VirtualHostRefused,
)

Connection = commands.Connection
TUNE = Connection.Tune(2047, 131072, 0)

#: What the broker has said when a stage of the opening begins, by the name of the stage.
STAGES: dict[str, int] = {"header": 0, "login": 1, "tuned": 2}


def advance_to(peer: Peer, stage: str) -> Peer:
    """Play the opening up to a stage."""
    peer.connect()
    if STAGES[stage] > 0:
        peer.start()
    if STAGES[stage] > 1:
        peer.send(TUNE)
    return peer


class OpeningTests(PeerTestCase):
    def test_the_whole_opening(self) -> None:
        """G-01, J-03, J-04, J-14: the eight octets at once; `ready` fires with the protocol at open-ok, not before."""
        peer = self.peer(heartbeat=0, virtual_host="/app")
        protocol = peer.protocol
        self.assertNoResult(protocol.ready)
        peer.connect()
        self.assertEqual(peer.transport.value(), b"AMQP\x00\x00\x09\x01")
        self.assertIsInstance(peer.only(header.ProtocolHeader), header.ProtocolHeader)
        peer.start(capabilities={"basic.nack": True, "per_consumer_qos": False})
        start_ok = peer.only(Connection.StartOk)
        self.assertEqual((start_ok.mechanism, start_ok.response), ("PLAIN", "\0guest\0guest"))
        assert start_ok.client_properties is not None
        self.assertEqual(start_ok.client_properties["product"], "txmsg")
        self.assertTrue(start_ok.client_properties["capabilities"]["consumer_cancel_notify"])  # type: ignore[index,call-overload]
        peer.send(Connection.Tune(100, 8192, 60))
        (_, tune_ok), (_, opened) = peer.read()
        assert isinstance(tune_ok, Connection.TuneOk)
        assert isinstance(opened, Connection.Open)
        self.assertEqual((tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat), (100, 8192, 0))
        self.assertEqual(opened.virtual_host, "/app")
        self.assertNoResult(protocol.ready)
        self.assertFalse(protocol.is_open or protocol.is_closing or protocol.is_closed)
        peer.send(Connection.OpenOk())
        self.assertIs(self.successResultOf(protocol.ready), protocol)
        self.assertTrue(protocol.is_open)
        self.assertEqual(protocol.negotiated, Negotiated(100, 8192, 0))
        self.assertEqual(protocol.server_properties["product"], "peer")
        self.assertTrue(protocol.server_capabilities["basic.nack"])
        self.assertFalse(protocol.server_capabilities["per_consumer_qos"])
        self.assertFalse(protocol.server_capabilities.get("connection.blocked", False))
        self.assertEqual(peer.clock.getDelayedCalls(), [], "no time limit runs on an open connection")

    def test_byte_by_byte(self) -> None:
        """W-28: how the bytes are cut does not matter."""
        peer = self.peer().connect()
        for values in (
            [Connection.Start(0, 9, {"product": "p"}, "PLAIN", "en_US")],
            [TUNE],
            [Connection.OpenOk(), Connection.Blocked("low on memory")],
        ):
            for octet in peer.encode(*values):
                peer.send_raw(bytes([octet]))
        self.assertTrue(peer.protocol.is_open)
        self.assertTrue(peer.protocol.is_blocked)
        self.successResultOf(peer.protocol.ready)

    def test_two_connections_of_one_parameters_object(self) -> None:
        """B-21: the second begins with the original wishes."""
        parameters = ConnectionParameters(channel_max=65535)
        for _ in range(2):
            peer = self.peer(parameters).open(channel_max=10, heartbeat=0)
            self.assertEqual(peer.protocol.negotiated, Negotiated(10, 131072, 0))
        self.assertEqual(parameters.channel_max, 65535)

    def test_an_alarm_during_the_opening(self) -> None:
        """I-01: connection.blocked may come before open-ok, and counts."""
        peer = advance_to(self.peer(), "tuned")
        peer.send(Connection.Blocked("low on disk"), Connection.OpenOk())
        self.assertTrue(peer.protocol.is_open)
        self.assertFalse(peer.protocol.can_publish)

    def test_a_server_without_properties(self) -> None:
        """F-27: capabilities that are not announced are absent, not an error; also when they are no table."""
        announced: list[dict[str, Any]] = [{}, {"capabilities": "none"}]
        for properties in announced:
            peer = self.peer().connect()
            peer.send(Connection.Start(0, 9, properties, "PLAIN", "en_US"))
            peer.send(TUNE)
            peer.send(Connection.OpenOk())
            self.successResultOf(peer.protocol.ready)
            self.assertEqual(peer.protocol.server_capabilities, {})
        self.assertEqual(self.peer().protocol.server_properties, {})

    def test_repr_and_log_prefix(self) -> None:
        """J-16, B-19, C3.1: where to and in which state; no password."""
        peer = self.opened(credentials=PlainCredentials("user", "canary"), virtual_host="vh\n")
        peer.channel()
        peer.send(Connection.Blocked("alarm"))
        text = repr(peer.protocol)
        for expected in ("localhost:5672", "open", "blocked", "1 channels", r"vh\\n"):
            self.assertIn(expected, text)
        self.assertNotIn("canary", text)
        self.assertEqual(peer.protocol.logPrefix(), "AMQPProtocol")


class OpeningFailureTests(PeerTestCase):
    def fails(self, peer: Peer, *kinds: type[BaseException]) -> Any:
        """`ready` has failed; when the socket is gone nothing else fires, and `closed` never does (24.2)."""
        error = self.failed(peer.protocol.ready, *kinds)
        self.assertIsInstance(error, TxmsgError)
        peer.lose()
        self.assertTrue(peer.protocol.is_closed)
        self.assertNoResult(peer.protocol.closed)
        self.assertIs(self.successResultOf(peer.protocol.when_closed()), error)
        self.assertIs(self.failed(peer.protocol.when_ready()), error)
        self.assertIs(self.failed(peer.protocol.channel()), error)
        self.assertEqual(peer.clock.getDelayedCalls(), [])
        return error

    def test_the_socket_is_lost_at_each_stage(self) -> None:
        """F-07, W-08, J-07, S-05, S-07, S-08: the class tells the probable cause; once; with the socket's own error
        below.
        """
        for stage, kind in (
            ("header", IncompatibleProtocol),
            ("login", AuthenticationFailed),
            ("tuned", VirtualHostRefused),
        ):
            with self.subTest(stage=stage):
                peer = advance_to(self.peer(), stage)
                cause = SocketLost()
                peer.lose(cause)
                error = self.fails(peer, kind)
                self.assertIs(error.cause, cause)
                self.assertEqual(error.initiator, "transport")

    def test_lost_inside_a_frame(self) -> None:
        """J-19: half a connection.start is not "no AMQP at all"."""
        peer = self.peer().connect()
        peer.send_raw(peer.encode(Connection.Start(0, 9, {}, "PLAIN", "en_US"))[:20])
        peer.lose()
        self.assertIs(type(self.fails(peer, ConnectionLost)), ConnectionLost)

    def test_a_refused_login(self) -> None:
        """24.2, J-06, E-10, E-11: 403 and the broker's text; close-ok is sent, then the socket closed."""
        peer = advance_to(self.peer(), "login")
        peer.read()
        peer.send(Connection.Close(403, "ACCESS_REFUSED - user 'guest' can only connect via localhost", 0, 0))
        self.assertEqual(peer.names(), ["Connection.CloseOk"])
        self.assertTrue(peer.transport.disconnecting)
        error = self.fails(peer, AuthenticationFailed)
        self.assertEqual((error.reply_code, error.initiator), (403, "server"))
        self.assertIn("only connect via localhost", str(error))

    def test_a_refused_virtual_host(self) -> None:
        """24.2, G-09: 530 and the broker's text."""
        peer = advance_to(self.peer(), "tuned")
        peer.send(Connection.Close(530, "NOT_ALLOWED - vhost nope not found", 10, 40))
        error = self.fails(peer, VirtualHostRefused)
        self.assertEqual((error.reply_code, error.method_name), (530, "connection.open"))
        self.assertIn("vhost nope not found", str(error))

    def test_the_broker_shuts_down_meanwhile(self) -> None:
        """R12: 320 at any stage is ConnectionForced, which is worth trying again."""
        for stage in STAGES:
            peer = advance_to(self.peer(), stage)
            peer.send(Connection.Close(320, "CONNECTION_FORCED - broker forced connection closure", 0, 0))
            self.assertTrue(self.fails(peer, ConnectionForced).recoverable)

    def test_a_header_in_answer(self) -> None:
        """G-02: the version the broker speaks is in the error."""
        peer = self.peer().connect()
        peer.send_raw(b"AMQP\x00\x00\x0a\x00")
        self.assertIn("0.0.10.0", str(self.fails(peer, IncompatibleProtocol)))

    def test_something_that_is_not_amqp(self) -> None:
        """D-08, F-07: an HTTP, SSH or SMTP server, whatever it says, does not speak AMQP."""
        for greeting in (
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"220 mail ESMTP\r\n",
            bytes(64),
        ):
            with self.subTest(greeting=greeting):
                peer = self.peer().connect()
                peer.send_raw(greeting)
                self.fails(peer, IncompatibleProtocol)

    def test_a_tls_server_on_a_plain_connection(self) -> None:
        """3.7: its alert record gives a one-line hint."""
        peer = self.peer().connect()
        peer.send_raw(b"\x15\x03\x01\x00\x02\x02\x46")
        self.assertIn("amqps", str(self.fails(peer, IncompatibleProtocol)))
        self.assertTrue(peer.transport.disconnected)

    def test_tls_asked_for_and_a_plain_transport(self) -> None:
        """C1.1: parameters with TLS never run over a plain socket; nothing is written."""
        peer = self.peer(tls=TLSOptions(), credentials=PlainCredentials("u", "p")).connect()
        self.assertEqual(peer.transport.value(), b"")
        self.fails(peer, TLSFailed)
        self.assertTrue(peer.transport.disconnected)

    def test_a_silent_peer(self) -> None:
        """R11, 0.11: handshake_timeout at every stage; the socket is aborted."""
        for stage in STAGES:
            with self.subTest(stage=stage):
                peer = advance_to(self.peer(handshake_timeout=5.0), stage)
                peer.clock.advance(4.9)
                self.assertNoResult(peer.protocol.ready)
                peer.clock.advance(0.2)
                self.assertTrue(peer.transport.disconnected)
                self.assertIn("5 s", str(self.fails(peer, HandshakeTimeout)))

    def test_a_dripping_peer(self) -> None:
        """R11: an octet a second does not prolong the limit."""
        peer = self.peer(handshake_timeout=5.0).connect()
        for octet in peer.encode(Connection.Start(0, 9, {}, "PLAIN", "en_US"))[:6]:
            peer.clock.advance(1)
            if not peer.transport.disconnected:
                peer.send_raw(bytes([octet]))
        self.fails(peer, HandshakeTimeout)

    def test_a_bad_tune(self) -> None:
        """R19: frame_max 1 to 4095 is refused, with a connection.close that says so."""
        peer = advance_to(self.peer(), "login")
        peer.read()
        peer.send(Connection.Tune(2047, 100, 0))
        close = peer.only(Connection.Close)
        self.assertIn(close.reply_code, (501, 502))
        self.fails(peer, RemoteProtocolError)

    def test_a_heartbeat_callable_gone_wrong(self) -> None:
        """B-07: our own mistake is told as such; the broker is not asked to understand it."""
        peer = advance_to(self.peer(heartbeat=lambda proposed: -1), "login")
        peer.send(TUNE)
        self.fails(peer, LocalProtocolError)
        self.assertTrue(peer.transport.disconnected)

    def test_methods_at_the_wrong_time(self) -> None:
        """R18: open-ok before tune, a second start: one RemoteProtocolError, a close, the end."""
        for stage, method in (("login", Connection.OpenOk()), ("tuned", Connection.Start(0, 9, {}, "PLAIN", "en_US"))):
            peer = advance_to(self.peer(), stage)
            peer.send(method)
            self.assertEqual(peer.names()[-1], "Connection.Close")
            self.fails(peer, RemoteProtocolError)

    def test_client_properties_that_cannot_be_sent(self) -> None:
        """Q-21: EncodeError, not a hanging or broken handshake."""
        peer = self.peer(client_properties={"x": object()}).connect()
        peer.start()
        self.fails(peer, EncodeError)

    def test_credentials_that_fail(self) -> None:
        """C2.2, R2: the callable's failure is `ready`'s; the socket is closed."""

        def fail() -> Any:
            raise OSError("no such file")

        peer = self.peer(credentials=fail).connect()
        peer.start()
        self.fails(peer, AuthenticationFailed)
        self.assertTrue(peer.transport.disconnected)

    def test_lost_while_the_credentials_are_fetched(self) -> None:
        """R28: the fetching is cancelled; credentials that come later go nowhere."""
        cancelled: list[Any] = []
        asked: Deferred[Any] = Deferred(cancelled.append)
        peer = self.peer(credentials=lambda: asked).connect()
        peer.start()
        peer.read()
        peer.lose()
        self.assertEqual(len(cancelled), 1)
        self.assertIn("credentials", str(self.fails(peer, ConnectionLost)))
        self.assertEqual(peer.read(), [])

    def test_cancelling_ready(self) -> None:
        """R2: at each stage, also before there is a socket: the attempt is given up and leaves nothing."""
        for stage in ("", *STAGES):
            with self.subTest(stage=stage):
                peer = self.peer()
                if stage:
                    advance_to(peer, stage)
                peer.protocol.ready.cancel()
                if stage:
                    self.assertTrue(peer.transport.disconnected)
                else:
                    peer.connect()
                    self.assertEqual(peer.transport.value(), b"")
                self.fails(peer, ConnectionClosed, CancelledError)

    def test_closing_at_each_stage(self) -> None:
        """F-13, W-14, R29, S-03: close() while opening drops the stream and fails `ready`."""
        for stage in ("", *STAGES):
            with self.subTest(stage=stage):
                peer = self.peer()
                if stage:
                    advance_to(peer, stage)
                    peer.read()
                closed = peer.protocol.close()
                if stage:
                    self.assertNoResult(closed)
                    self.assertEqual(peer.names(), [], "there is no AMQP connection to close yet")
                    peer.lose()
                self.assertIsInstance(self.successResultOf(closed), ConnectionClosed)
                if not stage:
                    peer.connect()
                error = self.fails(peer, ConnectionClosed)
                self.assertEqual(error.initiator, "client")
                self.assertIs(self.successResultOf(peer.protocol.close()), error)


class ReadyHookTests(PeerTestCase):
    def hooked(self, hook: Any) -> Peer:
        class Hooked(AMQPProtocol):
            def connection_ready(self) -> Any:
                return hook(self)

        peer = self.peer(protocol=Hooked)
        advance_to(peer, "tuned").send(Connection.OpenOk())
        return peer

    def test_the_hook_may_use_the_connection(self) -> None:
        """J-15: it runs at open-ok, before `ready`; `ready` and when_ready() wait for its Deferred."""
        calls: list[AMQPProtocol] = []
        going: Deferred[str] = Deferred()

        def hook(protocol: AMQPProtocol) -> Any:
            self.assertTrue(protocol.is_open)
            calls.append(protocol)
            return going

        peer = self.hooked(hook)
        self.assertEqual(calls, [peer.protocol])
        waiter = peer.protocol.when_ready()
        self.assertNoResult(peer.protocol.ready)
        self.assertNoResult(waiter)
        peer.channel()
        going.callback("ignored")
        self.assertIs(self.successResultOf(peer.protocol.ready), peer.protocol)
        self.assertIs(self.successResultOf(waiter), peer.protocol)

    def test_a_hook_that_fails(self) -> None:
        """J-15: its failure is that of `ready`; the connection ends, and `closed` has nothing to say."""
        for error in (ValueError("no"), NotAllowed("no")):

            def hook(protocol: AMQPProtocol, error: Exception = error) -> Any:
                raise error

            peer = self.hooked(hook)
            self.assertIs(self.failed(peer.protocol.ready, type(error)), error)
            self.assertTrue(peer.transport.disconnected)
            peer.lose()
            self.assertNoResult(peer.protocol.closed)
            self.assertIs(self.successResultOf(peer.protocol.when_closed()), error)

    def test_the_connection_is_lost_while_the_hook_waits(self) -> None:
        """J-15, 24.2: `ready` fails with the reason; `closed` is for connections that were ready."""
        going: Deferred[None] = Deferred()
        peer = self.hooked(lambda protocol: going)
        waiter = peer.protocol.when_ready()
        peer.lose()
        self.failed(peer.protocol.ready, ConnectionLost)
        self.failed(waiter, ConnectionLost)
        self.assertNoResult(peer.protocol.closed)
        going.callback(None)

    def test_closing_while_the_hook_waits(self) -> None:
        """R29: an orderly close; `ready` fails."""
        going: Deferred[None] = Deferred()
        peer = self.hooked(lambda protocol: going)
        peer.read()
        closed = peer.protocol.close()
        self.assertEqual(peer.names(), ["Connection.Close"])
        peer.send(Connection.CloseOk())
        peer.lose()
        self.successResultOf(closed)
        self.failed(peer.protocol.ready, ConnectionClosed)
        going.errback(ValueError("late"))

    def test_the_hook_ends_while_we_close(self) -> None:
        """J-15, R29: nobody is told that a connection is ready which is being closed."""
        going: Deferred[None] = Deferred()
        peer = self.hooked(lambda protocol: going)
        waiter = peer.protocol.when_ready()
        peer.protocol.close()
        going.callback(None)
        self.assertNoResult(peer.protocol.ready)
        peer.send(Connection.CloseOk())
        self.failed(peer.protocol.ready, ConnectionClosed)
        self.failed(waiter, ConnectionClosed)

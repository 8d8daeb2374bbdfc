"""AMQPProtocol under TLS: not one byte before the server's identity was checked once more."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport
from zope.interface import alsoProvides

from tests.amqp.peer import Peer, PeerTestCase
from txmsg.amqp import client
from txmsg.amqp.sasl import PlainCredentials
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import ConnectionClosed, ConnectionLost, HandshakeTimeout, PeerVerificationFailed, TLSFailed


class TLSTests(PeerTestCase):
    def secure(self, verdict: BaseException | None = None, **options: Any) -> Peer:
        """A connected peer whose certificate is judged by `verdict`; TLS is not up yet."""
        self.asked: list[str] = []

        def verify(transport: Any, host: str) -> None:
            self.asked.append(host)
            if verdict is not None:
                raise verdict

        self.patch(client, "verify_peer", verify)
        self.patch(client, "has_client_certificate", lambda transport: False)
        options.setdefault("tls", TLSOptions())
        peer = self.peer(credentials=PlainCredentials("u", "canary"), host="broker.example", **options)
        # As a transport under TLS looks to a protocol.
        alsoProvides(peer.transport, ISSLTransport)
        return peer.connect()

    def test_nothing_before_the_check(self) -> None:
        """C1.2, 0.11: connectionMade comes before TLS is up; the header follows the check."""
        peer = self.secure()
        self.assertEqual(peer.transport.value(), b"")
        peer.protocol.handshakeCompleted()
        self.assertEqual(self.asked, ["broker.example"])
        self.assertEqual(peer.transport.value(), b"AMQP\x00\x00\x09\x01")
        peer.start()
        self.assertIn(b"canary", peer.transport.value(), "the password may go over TLS to another machine")
        peer.protocol.close()
        self.failed(peer.protocol.ready, ConnectionClosed)

    def test_the_name_that_is_checked(self) -> None:
        """C1.2: `server_name` where it is given."""
        peer = self.secure(tls=TLSOptions(server_name="other.example"))
        peer.protocol.handshakeCompleted()
        self.assertEqual(self.asked, ["other.example"])
        peer.protocol.ready.cancel()
        self.failed(peer.protocol.ready, ConnectionClosed)

    def test_any_error_of_the_check_refuses(self) -> None:
        """C1.2, 0.1: fail closed: also what nobody expected means no; nothing is written, the socket is aborted."""
        for verdict, kind in (
            (PeerVerificationFailed("not for this host"), PeerVerificationFailed),
            (AttributeError("a defect somewhere"), TLSFailed),
            (KeyError("x"), TLSFailed),
        ):
            peer = self.secure(verdict)
            peer.protocol.handshakeCompleted()
            error = self.failed(peer.protocol.ready, kind)
            self.assertTrue(error is verdict or error.cause is verdict)
            self.assertEqual(peer.transport.value(), b"")
            self.assertTrue(peer.transport.disconnected)

    def test_tls_that_does_not_come_up(self) -> None:
        """R11, 0.11: its own time limit; then the AMQP handshake has its own."""
        peer = self.secure(handshake_timeout=5.0)
        peer.clock.advance(4)
        peer.protocol.handshakeCompleted()
        peer.clock.advance(4)
        self.assertFalse(peer.transport.disconnected)
        peer.clock.advance(1)
        self.assertIn("AMQP", str(self.failed(peer.protocol.ready, HandshakeTimeout)))
        peer = self.secure(handshake_timeout=5.0)
        peer.clock.advance(5)
        self.assertIn("TLS", str(self.failed(peer.protocol.ready, HandshakeTimeout)))
        self.assertTrue(peer.transport.disconnected)

    def test_lost(self) -> None:
        """D-08: before TLS is up, right after it, and later: the error says which, and is no refused login."""
        texts: list[str] = []
        for stage in range(3):
            peer = self.secure()
            if stage > 0:
                peer.protocol.handshakeCompleted()
            if stage > 1:
                peer.start()
            peer.lose(ConnectionDone())
            texts.append(
                str(self.failed(peer.protocol.ready, *((ConnectionLost,) if stage < 2 else (ConnectionClosed,))))
            )
        self.assertIn("TLS", texts[0])
        self.assertIn("TLS", texts[1])
        self.assertIn("login", texts[2])

    def test_tls_is_up_after_the_end(self) -> None:
        """R29: whoever gave the attempt up meanwhile is not surprised by a login."""
        peer = self.secure()
        peer.protocol.close()
        peer.protocol.handshakeCompleted()
        self.assertEqual((peer.transport.value(), self.asked), (b"", []))
        self.failed(peer.protocol.ready, ConnectionClosed)

"""The opening conversation: what is offered, what is accepted, and how everything else ends."""

from __future__ import annotations

import unittest

from tests.broker.server_peer import Peer, make_broker
from txmsg import __version__
from txmsg.broker.connection.handshake import Stage
from txmsg.wire.methods import channel, connection
from txmsg.wire.tables import encode_table

HEADER = b"AMQP\x00\x00\x09\x01"


class StartTests(unittest.TestCase):
    """The first octets, and connection.start."""

    def test_start(self) -> None:
        """Mechanisms, locales and properties are RabbitMQ's, but for who we are."""
        start = Peer(make_broker(name="here")).start()
        self.assertEqual((start.version_major, start.version_minor), (0, 9))
        self.assertEqual(start.mechanisms, "AMQPLAIN PLAIN")
        self.assertEqual(start.locales, "en_US")
        said = start.server_properties
        self.assertEqual(
            list(said),
            ["capabilities", "cluster_name", "copyright", "information", "platform", "product", "version"],
        )
        self.assertEqual((said["product"], said["version"], said["cluster_name"]), ("txmsg", __version__, "here"))
        self.assertEqual(
            list(said["capabilities"]),
            [
                "publisher_confirms",
                "exchange_exchange_bindings",
                "basic.nack",
                "consumer_cancel_notify",
                "connection.blocked",
                "consumer_priorities",
                "authentication_failure_close",
                "per_consumer_qos",
                "direct_reply_to",
            ],
        )
        self.assertEqual(set(said["capabilities"].values()), {True})

    def test_other_protocols(self) -> None:
        """Whatever is no AMQP 0-9-1 gets our header, and the end (section 4.2.2)."""
        for octets in (
            b"AMQP\x00\x00\x09\x00",
            b"AMQP\x00\x01\x00\x00",
            b"AMQP\x03\x01\x00\x00",
            b"AMQP\x01\x01\x08\x00",
            b"HTTP/1.1",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            b"AMQPAMQPAMQP",
        ):
            with self.subTest(octets=octets):
                peer = Peer(make_broker())
                peer.send_raw(octets)
                self.assertEqual(peer.raw, HEADER)
                self.assertTrue(peer.is_lost)
                self.assertEqual(peer.broker.connections, set())

    def test_octet_by_octet(self) -> None:
        """The header may come in pieces."""
        peer = Peer(make_broker())
        for octet in HEADER[:-1]:
            peer.send_raw(bytes([octet]))
        self.assertEqual(peer.raw, b"")
        peer.send_raw(HEADER[-1:])
        self.assertIn(b"product", peer.raw)

    def test_amqp_0_9(self) -> None:
        """peers 3: the header of AMQP 0-9 is taken for that of 0-9-1, whole and in pieces."""
        for cuts in ([8], [1] * 8, [3, 5], [5, 3]):
            with self.subTest(cuts=cuts):
                peer, rest = Peer(make_broker()), b"AMQP\x01\x01\x00\x09"
                for cut in cuts:
                    peer.send_raw(rest[:cut])
                    rest = rest[cut:]
                self.assertIn(b"product", peer.raw)


class LoginTests(unittest.TestCase):
    """From start-ok to tune."""

    def test_mechanisms(self) -> None:
        """PLAIN and AMQPLAIN let the right ones in."""
        table = encode_table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]
        for mechanism, response in (("PLAIN", b"\0guest\0guest"), ("AMQPLAIN", table)):
            with self.subTest(mechanism=mechanism):
                peer = Peer(make_broker())
                peer.start()
                peer.log_in(response, mechanism)
                offered = peer.tune()
                self.assertEqual((offered.channel_max, offered.frame_max, offered.heartbeat), (256, 131072, 60))
                self.assertEqual(peer.server.auth_mechanism, mechanism)

    def test_locale(self) -> None:
        """It is ignored, as by RabbitMQ."""
        peer = Peer(make_broker())
        peer.start()
        peer.send(connection.StartOk(mechanism="PLAIN", response=b"\0guest\0guest", locale="xx"))
        peer.expect(connection.Tune)

    def test_refused(self) -> None:
        """Every wrong login is told the same, after a second, and nothing of why."""
        broken = [
            ("PLAIN", b"\0guest\0wrong"),
            ("PLAIN", b"\0nobody\0guest"),
            ("PLAIN", b""),
            ("PLAIN", b"guest\0guest\0guest"),
            ("PLAIN", b"\0guest\0guest\0"),
            ("AMQPLAIN", b"rubbish"),
            ("AMQPLAIN", encode_table({"LOGIN": "guest"})[4:]),
            ("AMQPLAIN", encode_table({"LOGIN": "guest", "PASSWORD": 5})[4:]),
            ("EXTERNAL", b""),
            ("plain", b"\0guest\0guest"),
        ]
        for mechanism, response in broken:
            with self.subTest(mechanism=mechanism, response=response):
                peer = Peer(make_broker())
                peer.start()
                peer.log_in(response, mechanism)
                peer.advance(0.9)
                self.assertEqual(peer.methods, [])
                peer.advance(0.2)
                close = peer.expect(connection.Close)
                self.assertEqual((close.reply_code, close.class_id, close.method_id), (403, 0, 0))
                self.assertEqual(
                    close.reply_text,
                    f"ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
                    "For details see the broker logfile.",
                )
                peer.send(connection.CloseOk())
                self.assertTrue(peer.is_lost)

    def test_refused_without_capability(self) -> None:
        """A client that does not know authentication_failure_close only sees the socket close."""
        peer = Peer(make_broker())
        peer.start({})
        peer.log_in(b"\0guest\0wrong")
        peer.advance(1.1)
        self.assertEqual(peer.methods, [])
        self.assertTrue(peer.is_lost)

    def test_each_refusal_takes_longer(self) -> None:
        """4.4, failed logins: 1, 2, 4 ... 30 s from one address; a right login begins anew; others do not wait."""
        broker = make_broker()

        def seconds(host: str = "127.0.0.1") -> float:
            peer = Peer(broker, host)
            peer.start()
            peer.log_in(b"\0guest\0wrong")
            waited = 0.0
            while not peer.methods and waited < 100:
                peer.advance(0.5)
                waited += 0.5
            peer.send(connection.CloseOk())
            return waited

        self.assertEqual([seconds() for _ in range(7)], [1, 2, 4, 8, 16, 30, 30])
        self.assertEqual(seconds("127.0.0.2"), 1)
        Peer(broker).open()
        self.assertEqual(seconds(), 1)

    def test_gone_while_refused(self) -> None:
        """A client that does not wait for the answer leaves no timer behind."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in(b"\0guest\0wrong")
        self.assertEqual(peer.server.handshake.stage, Stage.REFUSED)
        peer.lose()
        self.assertEqual(peer.broker.reactor.getDelayedCalls(), [])

    def test_nothing_is_read_while_refused(self) -> None:
        """What comes after a wrong login waits in the kernel."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in(b"\0guest\0wrong")
        self.assertEqual(peer.transport.producerState, "paused")

    def test_guest_from_elsewhere(self) -> None:
        """C7.1: guest comes from this machine only, by the peer's address, whatever the listener's (CVE-2026-57216)."""
        broker = make_broker()
        broker.users.add("remote", "secret")
        for host, name, is_let_in in (
            ("10.0.0.1", "guest", False),
            ("10.0.0.1", "remote", True),
            ("127.0.0.9", "guest", True),
        ):
            with self.subTest(host=host, name=name):
                peer = Peer(broker, host)
                peer.start()
                peer.log_in(f"\0{name}\0{'guest' if name == 'guest' else 'secret'}".encode())
                if is_let_in:
                    peer.expect(connection.Tune)
                else:
                    peer.advance(5)
                    self.assertEqual(peer.expect(connection.Close).reply_code, 403)

    def test_password_is_not_kept(self) -> None:
        """The response is not part of anything that outlives the check."""
        peer = Peer(make_broker()).open()
        self.assertNotIn("guest\\x00guest", repr(vars(peer.server)))
        self.assertNotIn("guest\\x00guest", repr(vars(peer.server.handshake)))


class TuneTests(unittest.TestCase):
    """tune-ok and connection.open."""

    def test_beyond_the_offer(self) -> None:
        """More than was offered is refused; so is 0, which means no limit (RabbitMQ's words)."""
        cases = [
            (300, 131072, "negotiated channel_max = 300 is higher than the maximum allowed value (256)"),
            (0, 131072, "negotiated channel_max = 0 (no limit) is higher than the maximum allowed value (256)"),
            (256, 131073, "negotiated frame_max = 131073 is higher than the maximum allowed value (131072)"),
            (256, 0, "negotiated frame_max = 0 (no limit) is higher than the maximum allowed value (131072)"),
        ]
        for channel_max, frame_max, text in cases:
            with self.subTest(text=text):
                peer = Peer(make_broker())
                peer.start()
                peer.log_in()
                peer.tune(channel_max, frame_max)
                close = peer.expect(connection.Close)
                self.assertEqual((close.reply_code, close.reply_text), (530, f"NOT_ALLOWED - {text}"))
                self.assertEqual((close.class_id, close.method_id), (10, 31))

    def test_frame_max_too_small(self) -> None:
        """F39: below 4096 is no frame_max."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in()
        peer.tune(frame_max=4095)
        self.assertIn(peer.expect(connection.Close).reply_code, (502, 530))

    def test_smaller_values_hold(self) -> None:
        """The client's smaller values are taken."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in()
        peer.tune(channel_max=7, frame_max=4096, heartbeat=3)
        server = peer.server
        self.assertEqual((server.channel_max, server.frame_max, server.heartbeat_interval), (7, 4096, 3))

    def test_unknown_vhost(self) -> None:
        """530, with the name as RabbitMQ writes it."""
        self.assert_not_opened("nowhere", "NOT_ALLOWED - vhost nowhere not found")

    def test_vhost_without_permissions(self) -> None:
        """530, and who it was."""
        self.assert_not_opened("other", "NOT_ALLOWED - access to vhost 'other' refused for user 'guest'")

    def assert_not_opened(self, vhost: str, text: str) -> None:
        broker = make_broker()
        broker.add_vhost("other")
        peer = Peer(broker)
        peer.start()
        peer.log_in()
        peer.tune()
        peer.send(connection.Open(virtual_host=vhost))
        close = peer.expect(connection.Close)
        self.assertEqual((close.reply_code, close.reply_text), (530, text))
        self.assertEqual((close.class_id, close.method_id), (10, 40))
        peer.send(connection.CloseOk())
        self.assertTrue(peer.is_lost)

    def test_open(self) -> None:
        """The whole of it; then the connection knows who it is."""
        peer = Peer(make_broker()).open(heartbeat=10)
        server = peer.server
        self.assertTrue(server.is_open)
        self.assertEqual((server.user.name, server.vhost.name, server.state), ("guest", "/", "running"))
        self.assertEqual(server.permissions.user, "guest")


class OutOfOrderTests(unittest.TestCase):
    """What is not its turn."""

    def test_before_the_login(self) -> None:
        """Nothing is said to a client that has not logged in, and the socket closes."""
        frame = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"  # close-ok
        for octets in (frame, b"\x01" + frame[1:-1] + b"\x00", b"\x03\x00\x01\xff\xff\xff\xff", b"\x00" * 20):
            with self.subTest(octets=octets):
                peer = Peer(make_broker())
                peer.start()
                sent = peer.raw
                peer.send_raw(octets)
                self.assertEqual(peer.raw, sent)
                self.assertTrue(peer.is_lost)

    def test_frame_before_tune(self) -> None:
        """4.4, frame before tune: 4096 octets and the frame's 8; one more ends the connection."""
        peer = Peer(make_broker())
        peer.start()
        peer.send_raw(b"\x01\x00\x00" + (4097).to_bytes(4, "big"))
        self.assertTrue(peer.is_lost)
        other = Peer(make_broker())
        other.start()
        other.send_raw(b"\x01\x00\x00" + (4096).to_bytes(4, "big"))
        self.assertFalse(other.is_lost)

    def test_channel_before_open(self) -> None:
        """After the login the client is told."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in()
        peer.tune()
        peer.send_raw(b"\x01\x00\x01\x00\x00\x00\x05\x00\x14\x00\x0a\x00\xce")
        self.assertEqual(peer.expect(connection.Close).reply_code, 504)

    def test_close_in_the_handshake(self) -> None:
        """A client may give up at any moment."""
        peer = Peer(make_broker())
        peer.start()
        peer.log_in()
        peer.tune()
        peer.send(connection.Close(reply_code=200, reply_text="changed my mind"))
        peer.expect(connection.CloseOk)
        self.assertTrue(peer.is_lost)

    def test_channel_after_open(self) -> None:
        """The connection goes on to do what connections do."""
        peer = Peer(make_broker()).open()
        peer.send(channel.Open(), 1)
        peer.expect(channel.OpenOk, 1)
        self.assertEqual(list(peer.server.channels), [1])

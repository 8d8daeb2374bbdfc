"""TLS listeners: which clients get in, who they are then, and files that change (C1.3, C1.4, EXTERNAL)."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.cases import ReactorTestCase
from tests.certificates import CLIENT_AUTH, SERVER_AUTH, Authority, Issued, shared_authority
from txmsg.amqp import connect
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import ExternalCredentials, PlainCredentials
from txmsg.amqp.tls import TLSOptions
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.listeners import Listener
from txmsg.broker.server import Broker
from txmsg.broker.tls import ServerTLS, peer_certificate, peer_name
from txmsg.broker.users.credentials import Users
from txmsg.errors import AuthenticationFailed, ConfigurationError, ConnectionClosed, NoCommonMechanism


class OptionsTests(ReactorTestCase):
    """What is checked when the files are named."""

    def setUp(self) -> None:
        self.authority = shared_authority()
        self.server = self.authority.issue("localhost", dns=["localhost"], ip=["127.0.0.1"])

    def refused(self, **options: Any) -> str:
        arguments = {"cert_file": self.server.certificate_file, "key_file": self.server.key_file, **options}
        with self.assertRaises(ConfigurationError) as caught:
            ServerTLS(**arguments)
        return str(caught.exception)

    def test_defaults(self) -> None:
        """Client certificates are verified where there is a CA, and otherwise not asked for."""
        plain = ServerTLS(cert_file=self.server.certificate_file, key_file=self.server.key_file)
        mutual = ServerTLS(
            cert_file=self.server.certificate_file,
            key_file=self.server.key_file,
            ca_file=self.authority.certificate_file,
        )
        self.assertEqual((plain.verify, mutual.verify), ("none", "optional"))

    def test_mistakes(self) -> None:
        """Each is told with the file's name; nothing of a key is shown."""
        other = self.authority.issue("other", dns=["other"])
        empty = Path(self.mktemp())
        empty.write_bytes(b"nothing")
        encrypted = self.server.encrypted_key_file(b"phrase")
        for options, words in (
            ({"cert_file": "/nonexistent"}, "/nonexistent"),
            ({"cert_file": None}, "cert_file"),
            ({"cert_file": empty}, "certificate"),
            ({"key_file": empty}, "private key"),
            ({"key_file": other.key_file}, "does not belong"),
            ({"key_file": encrypted}, "encrypted"),
            ({"key_file": encrypted, "key_password": lambda: b"wrong"}, "can be read"),
            ({"ca_file": "/nonexistent"}, "/nonexistent"),
            ({"ca_file": empty}, "certificate"),
            ({"verify": "required"}, "ca_file"),
            ({"verify": "maybe"}, "verify"),
            ({"login_from": "e-mail"}, "login_from"),
            ({"minimum_version": "TLSv1.1"}, "minimum_version"),
        ):
            with self.subTest(options=options):
                text = self.refused(**options)
                self.assertIn(words, text)
                self.assertNotIn("BEGIN", text)

    def test_encrypted_key(self) -> None:
        """With its pass phrase."""
        ServerTLS(
            cert_file=self.server.certificate_file,
            key_file=self.server.encrypted_key_file(b"phrase"),
            key_password=lambda: b"phrase",
        )

    def test_no_certificate(self) -> None:
        """A transport without TLS names nobody."""
        self.assertIsNone(peer_certificate(object()))
        self.assertIsNone(peer_name(object()))


class TLSCase(ReactorTestCase):
    """A broker with one TLS listener."""

    def setUp(self) -> None:
        self.authority = shared_authority()
        self.server = self.authority.issue("localhost", dns=["localhost"], ip=["127.0.0.1"])
        self.broker = Broker(reactor=reactor, users=Users(cost=2), limits=BrokerLimits(login_delay=0.01))
        self.addCleanup(self.broker.stop)

    async def listen(self, **options: Any) -> Listener:
        arguments = {"cert_file": self.server.certificate_file, "key_file": self.server.key_file, **options}
        return await self.broker.listen(port=0, tls=ServerTLS(**arguments))

    async def client(
        self, listener: Listener, certificate: Issued | None = None, external: bool = False, **options: Any
    ) -> AMQPProtocol:
        files: dict[str, Any] = {"ca_file": self.authority.certificate_file, **options}
        if certificate is not None:
            files.update(cert_file=certificate.certificate_file, key_file=certificate.key_file)
        return await connect(
            ConnectionParameters(
                host="localhost",
                port=listener.port,
                tls=TLSOptions(**files),
                credentials=ExternalCredentials() if external else PlainCredentials("guest", "guest"),
            )
        )


class LoginTests(TLSCase):
    """Certificates of clients."""

    async def test_plain(self) -> None:
        """Without a client certificate, PLAIN within TLS."""
        listener = await self.listen()
        self.assertTrue(listener.url.startswith("amqps://"))
        client = await self.client(listener)
        (connection,) = self.broker.connections
        self.assertTrue(connection.is_tls)
        self.assertEqual(connection.auth_mechanism, "PLAIN")
        self.assertIsNone(connection.certificate_name())
        await client.close()

    async def test_external(self) -> None:
        """The certificate's common name is the user."""
        self.broker.users.add("robot", None)
        self.broker.users.set_permissions("robot", "/")
        robot = self.authority.issue("robot", dns=["robot"], usages=[CLIENT_AUTH])
        client = await self.client(await self.listen(ca_file=self.authority.certificate_file), robot, external=True)
        (connection,) = self.broker.connections
        self.assertEqual((connection.user.name, connection.auth_mechanism), ("robot", "EXTERNAL"))
        await client.close()

    async def test_distinguished_name(self) -> None:
        """Or the whole subject."""
        self.broker.users.add("CN=robot", None)
        self.broker.users.set_permissions("CN=robot", "/")
        robot = self.authority.issue("robot", dns=["robot"])
        listener = await self.listen(ca_file=self.authority.certificate_file, login_from="distinguished_name")
        client = await self.client(listener, robot, external=True)
        (connection,) = self.broker.connections
        self.assertEqual(connection.user.name, "CN=robot")
        await client.close()

    async def test_unknown_user(self) -> None:
        """A certificate for nobody is refused."""
        stranger = self.authority.issue("stranger", dns=["stranger"])
        listener = await self.listen(ca_file=self.authority.certificate_file)
        with self.assertRaises(AuthenticationFailed):
            await self.client(listener, stranger, external=True)

    async def test_not_offered(self) -> None:
        """EXTERNAL needs a certificate that was verified: where none is asked for it is not offered."""
        robot = self.authority.issue("guest", dns=["guest"])
        listener = await self.listen()
        with self.assertRaises(NoCommonMechanism):
            await self.client(listener, robot, external=True)

    async def test_required(self) -> None:
        """No certificate, no connection; and none but from our CA, also where it is optional."""
        stranger = Authority("stranger").issue("guest", dns=["guest"])
        required = await self.listen(ca_file=self.authority.certificate_file, verify="required")
        optional = await self.listen(ca_file=self.authority.certificate_file)
        with self.assertRaises(ConnectionClosed):
            await self.client(required)
        for listener in (required, optional):
            with self.assertRaises(ConnectionClosed):
                await self.client(listener, stranger)
        client = await self.client(optional)
        await client.close()
        known = self.authority.issue("known", dns=["known"])
        client = await self.client(required, known)
        await client.close()
        await deferLater(reactor, 0, lambda: None)
        self.assertFalse(any(connection.is_open for connection in self.broker.connections))

    async def test_servers_certificate(self) -> None:
        """0.2 from the other side: a certificate for servers only does not make a client."""
        server = self.authority.issue("guest", dns=["guest"], usages=[SERVER_AUTH])
        listener = await self.listen(ca_file=self.authority.certificate_file)
        with self.assertRaises(ConnectionClosed):
            await self.client(listener, server, external=True)

    async def test_expired_client_certificate(self) -> None:
        """It is verified like any other."""
        import datetime

        day = datetime.timedelta(days=1)
        expired = self.authority.issue("guest", dns=["guest"], valid_from=-10 * day, valid_for=5 * day)
        listener = await self.listen(ca_file=self.authority.certificate_file)
        with self.assertRaises(ConnectionClosed):
            await self.client(listener, expired, external=True)


class StreamTests(TLSCase):
    """What the stream allows."""

    async def openssl(self, listener: Listener, *arguments: str) -> str:
        """What another implementation says."""

        def run() -> str:
            done = subprocess.run(
                ["openssl", "s_client", "-connect", f"127.0.0.1:{listener.port}", *arguments],
                input=b"",
                capture_output=True,
                timeout=20,
                check=False,
            )
            return (done.stdout + done.stderr).decode("utf-8", "replace")

        return await self.in_thread(run)

    async def test_versions(self) -> None:
        """C1.3, C1.4: TLS 1.2 at least, no compression."""
        if shutil.which("openssl") is None:
            self.skipTest("no openssl here")
        listener = await self.listen()
        for version in ("-tls1", "-tls1_1"):
            said = await self.openssl(listener, version, "-cipher", "ALL@SECLEVEL=0")
            self.assertIn("Cipher is (NONE)", said)
        said = await self.openssl(listener, "-tls1_2")
        self.assertIn("TLSv1.2", said)
        self.assertIn("Compression: NONE", said)
        raised = await self.listen(minimum_version="TLSv1.3")
        self.assertIn("Cipher is (NONE)", await self.openssl(raised, "-tls1_2"))

    async def test_plaintext_on_a_tls_port(self) -> None:
        """Whatever is no TLS is the end."""
        import socket

        listener = await self.listen()

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as stream:
                stream.sendall(b"AMQP\x00\x00\x09\x01")
                got = b""
                try:
                    while piece := stream.recv(1000):
                        got += piece
                except ConnectionResetError:
                    pass
                return got

        self.assertNotIn(b"AMQP", await self.in_thread(talk))
        self.assertEqual(self.broker.connections, set())

    async def test_silent_stranger(self) -> None:
        """4.4, handshake: the time limit includes TLS."""
        import socket

        self.broker.limits = BrokerLimits(handshake_timeout=0.2)
        listener = await self.listen()

        def wait() -> bytes:
            with socket.create_connection(("127.0.0.1", listener.port), timeout=10) as stream:
                try:
                    return stream.recv(1)
                except ConnectionResetError:
                    return b""

        self.assertEqual(await self.in_thread(wait), b"")

    async def test_large_messages(self) -> None:
        """Bodies of many TLS records arrive whole, both ways."""
        client = await self.client(await self.listen())
        channel = await client.channel()
        await channel.queue_declare("q", exclusive=True)
        body = os.urandom(3_000_000)
        await channel.confirm_select()
        await channel.basic_publish("", "q", body)
        delivery = await channel.basic_get("q", no_ack=True)
        assert delivery is not None
        self.assertEqual(delivery.body, body)
        await client.close()


class RenewalTests(TLSCase):
    """Certificates that are renewed."""

    async def test_taken_up(self) -> None:
        """New files hold for the next connection; broken ones are reported and the old go on."""
        folder = Path(self.mktemp())
        folder.mkdir()
        certificate, key = folder / "server.pem", folder / "server.key"

        def put(issued: Issued) -> None:
            shutil.copy(issued.certificate_file, certificate)
            shutil.copy(issued.key_file, key)

        def serial(port: int) -> int:
            context = ssl.create_default_context(cafile=self.authority.certificate_file)
            import socket

            with (
                socket.create_connection(("localhost", port), timeout=10) as stream,
                context.wrap_socket(stream, server_hostname="localhost") as secure,
            ):
                found = secure.getpeercert()
                assert found is not None
                return int(str(found["serialNumber"]), 16)

        put(self.server)
        listener = await self.listen(cert_file=certificate, key_file=key)
        self.assertEqual(await self.in_thread(serial, listener.port), self.server.certificate.serial_number)
        renewed = self.authority.issue("localhost", dns=["localhost"])
        put(renewed)
        self.assertEqual(await self.in_thread(serial, listener.port), renewed.certificate.serial_number)
        key.write_bytes(b"broken")
        self.assertEqual(await self.in_thread(serial, listener.port), renewed.certificate.serial_number)
        put(self.server)
        self.assertEqual(await self.in_thread(serial, listener.port), self.server.certificate.serial_number)

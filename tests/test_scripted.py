"""The scripted peer itself, judged by pika: what it plays must be AMQP to somebody else."""

from __future__ import annotations

import ssl

import pika
from pamqp import commands
from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import shared_authority
from tests.scripted import PeerGone, ScriptedPeer, ScriptedServer, ScriptedTestCase, play_in_memory


async def _one_message(peer: ScriptedPeer) -> None:
    """Open, one declare, one get of "hello", close."""
    await peer.accept()
    channel = await peer.accept_channel()
    declare = await peer.expect(commands.Queue.Declare, channel)
    peer.send(commands.Queue.DeclareOk(declare.queue, 1, 0), channel)
    published = await peer.expect_content(commands.Basic.Publish, channel)
    assert published.body == b"x" * 300_000
    await peer.expect(commands.Basic.Get, channel)
    peer.send_content(commands.Basic.GetOk(1, False, "", "q", 0), b"hello", channel, piece=2)
    await peer.expect(commands.Channel.Close, channel)
    peer.send(commands.Channel.CloseOk(), channel)
    await peer.accept_close()


def _pika_session(port: int, options: pika.SSLOptions | None = None) -> bytes:
    """What a pika client sees of `_one_message`."""
    host = "localhost" if options else "127.0.0.1"
    connection = pika.BlockingConnection(
        pika.ConnectionParameters(host, port, ssl_options=options, socket_timeout=5, stack_timeout=5)
    )
    channel = connection.channel()
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"x" * 300_000)
    _, _, octets = channel.basic_get("q")
    connection.close()
    return bytes(octets)


class ScriptedServerTests(ScriptedTestCase):
    """ScriptedServer and ScriptedPeer on a real socket."""

    async def _play(self, server: ScriptedServer, options: pika.SSLOptions | None = None) -> None:
        octets = await self.in_thread(_pika_session, server.port, options)
        self.assertEqual(octets, b"hello")
        await server.played()

    async def test_session(self) -> None:
        """A whole session with pika."""
        server = self.serve(_one_message)
        await self._play(server)
        self.assertEqual(server.peers[0].methods[:2], ["Connection.StartOk", "Connection.TuneOk"])

    async def test_tls(self) -> None:
        """The same over TLS, the client's certificate verified."""
        authority = shared_authority()
        server = self.serve(
            _one_message, tls=authority.issue("s", dns=["localhost"]), client_ca=authority.certificate_file
        )
        context = ssl.create_default_context(cafile=str(authority.certificate_file))
        client = authority.issue("client")
        context.load_cert_chain(client.certificate_file, client.key_file)
        await self._play(server, pika.SSLOptions(context, "localhost"))

    async def test_error_in_script(self) -> None:
        """A client that does something else fails the script, and `played` says so."""

        async def script(peer: ScriptedPeer) -> None:
            await peer.accept()
            await peer.expect(commands.Connection.Close)

        async def hang_up(peer: ScriptedPeer) -> None:
            peer.abort()

        server = self.serve(script, hang_up)
        connection = await self.in_thread(
            lambda: pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", server.port))
        )
        open_channel = self.in_thread(connection.channel)
        try:
            with self.assertRaisesRegex(Exception, "expected Close, got"):
                await server.played()
        finally:
            server.peers[0].abort()
            await self.assertFailure(open_channel, Exception)


class _Silent(Protocol):
    """A client that only sends its header."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"AMQP\x00\x00\x09\x01")


class InMemoryTests(SynchronousTestCase):
    """play_in_memory."""

    def test_end_of_connection(self) -> None:
        """A script that waits when the client goes away ends with PeerGone."""
        client = _Silent()
        peer, pump, played = play_in_memory(client, lambda peer: peer_start(peer))
        self.assertNoResult(played)
        self.assertEqual(bytes(peer.raw), b"AMQP\x00\x00\x09\x01")
        assert client.transport is not None
        client.transport.loseConnection()
        pump.flush()
        self.failureResultOf(played, PeerGone)


async def peer_start(peer: ScriptedPeer) -> None:
    """Start, and nothing more."""
    await peer.start()

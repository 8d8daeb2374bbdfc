"""Opening a connection: logins, virtual hosts, and a peer that says anything but what it should, at every step."""

from __future__ import annotations

from functools import partial
from typing import Any

from pamqp import commands
from twisted.internet.defer import CancelledError

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ, reactor, settle
from tests.conformance.minibroker import SERVER_PROPERTIES, Session, finish, instead, stay_silent
from txmsg.amqp import (
    AMQPlainCredentials,
    AMQPProtocol,
    ExternalCredentials,
    PlainCredentials,
    connect,
)
from txmsg.errors import (
    AuthenticationFailed,
    ConnectFailed,
    ConnectionClosed,
    ConnectionForced,
    ConnectionLost,
    HandshakeTimeout,
    IncompatibleProtocol,
    NoCommonMechanism,
    RemoteProtocolError,
    TxmsgError,
    VirtualHostRefused,
    connection_error,
)
from txmsg.testing import free_ports

#: What arrives at each step, by the name under which the small broker can be told to do something else.
STEPS = ["ProtocolHeader", "Connection.StartOk", "Connection.TuneOk", "Connection.Open"]


class LoginCases(BrokerCase):
    async def test_open(self) -> None:
        """J-03, J-04, J-05, F-06, F-26, F-27: fires with the protocol; the states exclude each other."""
        connection = await self.connect()
        self.assertIsInstance(connection, AMQPProtocol)
        self.assertTrue(connection.is_open)
        self.assertFalse(connection.is_closing or connection.is_closed)
        self.assertIs(await connection.when_ready(), connection)
        self.assertIs(await connection.when_ready(), connection)
        self.assertIn("version", connection.server_properties)
        self.assertTrue(connection.server_capabilities["publisher_confirms"])
        self.assertFalse(connection.server_capabilities.get("no_such_thing", False))

    async def test_wrong_password(self) -> None:
        """J-06, E-11, W-44, 24.2, W-48: AuthenticationFailed, 403, the broker's text, not the password; not
        recoverable.
        """
        parameters = self.parameters(credentials=PlainCredentials("guest", "wrong-secret"))
        error = await self.failure(connect(parameters), AuthenticationFailed)
        self.assertEqual(error.reply_code, 403)
        self.assertIn("ACCESS_REFUSED", error.reply_text)
        self.assertFalse(error.recoverable)
        self.assertNotIn("wrong-secret", f"{error} {error!r} {parameters!r}")

    async def test_unknown_virtual_host(self) -> None:
        """J-06, G-09, 24.2: VirtualHostRefused, 530, with the name."""
        error = await self.failure(connect(self.parameters(virtual_host="nowhere")), VirtualHostRefused)
        self.assertEqual(error.reply_code, 530)
        self.assertIn("nowhere", str(error))
        self.assertFalse(error.recoverable)

    async def test_ready_and_closed_of_a_refused_login(self) -> None:
        """J-07, 24.2: `ready` fails exactly once, `closed` does not fire, later waiters get the same error."""
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        parameters = self.parameters(credentials=PlainCredentials("guest", "wrong"))
        protocol = AMQPProtocol(parameters)
        assert parameters.port is not None
        await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", parameters.port), protocol)
        waiter = protocol.when_ready()
        error = await self.failure(protocol.ready, AuthenticationFailed)
        self.assertIs(await self.failure(waiter, AuthenticationFailed), error)
        self.assertIs(await self.failure(protocol.when_ready(), AuthenticationFailed), error)
        self.assertIs(await protocol.when_closed(), error)
        self.assertFalse(protocol.closed.called)

    async def test_mechanism_not_offered(self) -> None:
        """E-04, E-06: EXTERNAL is not on offer here: NoCommonMechanism."""
        await self.failure(connect(self.parameters(credentials=ExternalCredentials())), TxmsgError)


class LoginServerCases(LoginCases):
    async def test_amqplain(self) -> None:
        """E-09: the other mechanism that RabbitMQ offers."""
        connection = await self.connect(credentials=AMQPlainCredentials("guest", "guest"))
        self.assertTrue(connection.is_open)

    async def test_no_permission_on_a_virtual_host(self) -> None:
        """G-09: it exists, but not for us: VirtualHostRefused with the broker's text."""
        await self.in_thread(self.node.add_vhost, "/private é", user=None)
        self.addCleanup(self.in_thread, self.node.delete_vhost, "/private é")
        error = await self.failure(connect(self.parameters(virtual_host="/private é")), VirtualHostRefused)
        self.assertIn("/private é", error.reply_text)

    async def test_own_properties_reach_the_broker(self) -> None:
        """F-28, B-15: product and connection name are shown by the broker; capabilities survive additions."""
        connection = await self.connect(
            connection_name="conformance é", client_properties={"capabilities": {"mine": True}, "site": "here"}
        )
        channel = await connection.channel()
        await channel.queue_declare(exclusive=True)
        listed = await self.in_thread(self.node.rabbitmqctl, "list_connections", "client_properties")
        for expected in ("conformance", "txmsg", "consumer_cancel_notify", '"mine"', '"site"'):
            self.assertIn(expected.strip('"'), listed)


class LoginOverRabbitMQ(OverRabbitMQ, LoginServerCases):
    pass


class LoginOverBroker(OverBroker, LoginServerCases):
    pass


class LoginOverPeer(OverPeer, LoginCases):
    async def test_no_common_mechanism(self) -> None:
        """E-03, E-04, F40, S-06: PLAIN is not found inside AMQPLAIN; nothing secret is sent."""
        self.broker.mechanisms = "AMQPLAIN CRAM-MD5 XPLAIN"
        error = await self.failure(
            connect(self.parameters(credentials=PlainCredentials("guest", "guest"))), NoCommonMechanism
        )
        self.assertIn("AMQPLAIN", str(error))
        self.assertEqual(self.session.names(), [])

    async def test_the_broker_just_hangs_up_after_the_login(self) -> None:
        """F41, E-11, F-07: a broker without authentication_failure_close: still AuthenticationFailed."""
        self.broker.on["Connection.StartOk"] = instead(Session.hang_up)
        error = await self.failure(connect(self.parameters()), AuthenticationFailed)
        self.assertEqual(error.initiator, "transport")

    async def test_a_challenge_without_an_answer(self) -> None:
        """E-08, F41: connection.secure to PLAIN, which has no second step: typed, not a hang."""

        def challenge(session: Session, number: int, method: Any) -> bool:
            session.send(0, commands.Connection.Secure("who are you?"))
            return True

        self.broker.on["Connection.StartOk"] = challenge
        await self.failure(connect(self.parameters()), AuthenticationFailed)


class StepCases(OverPeer, BrokerCase):
    """The peer stops to cooperate at each step of the opening."""

    def at(self, step: str, do: Any) -> None:
        """Let the peer do that when the step is reached, and nothing else."""

        def act(session: Session, number: int, method: Any) -> bool:
            do(session)
            session.is_deaf = not session.is_closing  # tune-ok and open come together
            return True

        self.broker.on = {step: act}

    async def refused(self, *types: type[BaseException], **overrides: Any) -> Any:
        """The one error that connecting fails with, in time."""
        started = self.now()
        error = await self.failure(connect(self.parameters(**overrides)), *types)
        self.assertLess(self.now() - started, 3.0)
        return error

    async def test_the_peer_goes_away_at_each_step(self) -> None:
        """W-08, F-05, F-07, F4, F5, S-05, S-07, S-08: FIN or RST: one typed error that tells the step."""
        expected = [IncompatibleProtocol, AuthenticationFailed, VirtualHostRefused, VirtualHostRefused]
        for step, error in zip(STEPS, expected, strict=True):
            for leave in (Session.hang_up, finish):
                self.at(step, leave)
                await self.refused(error)

    async def test_the_peer_says_nothing_at_each_step(self) -> None:
        """W-08, R11, F6, F10: HandshakeTimeout after handshake_timeout."""
        for step in STEPS:
            self.at(step, lambda session: None)
            error = await self.refused(HandshakeTimeout, handshake_timeout=0.2)
            self.assertIn("0.2", str(error))

    async def test_the_peer_closes_at_each_step(self) -> None:
        """F30: connection.close with each code at each step: close-ok is sent, the error has code and text."""
        for step in STEPS[1:]:
            for code in (320, 501, 503, 504, 530, 541):
                self.at(step, lambda session, code=code: session.close_connection(code, f"text of {code}"))
                error = await self.refused(ConnectionClosed)
                self.assertEqual((error.reply_code, error.initiator), (code, "server"))
                self.assertIn(f"text of {code}", error.reply_text)
                if not (code == 530 and step != STEPS[1]):
                    self.assertIsInstance(error, type(connection_error(code, "")))
                session = self.session
                await session.gone
                self.assertEqual(session.names()[-1], "Connection.CloseOk")

    async def test_the_first_word_is_a_close(self) -> None:
        """F30: connection.close instead of connection.start ends it, typed."""
        self.at("ProtocolHeader", lambda session: session.close_connection(320, "CONNECTION_FORCED - bye"))
        await self.refused(ConnectionClosed, RemoteProtocolError)

    async def test_the_peer_is_something_else(self) -> None:
        """G-02, F10, F11, R18: another AMQP version, an HTTP server, an echo, noise: typed, and never a hang."""
        for answer, types in [
            (b"AMQP\x00\x01\x00\x00", (IncompatibleProtocol,)),
            (b"AMQP\x01\x01\x00\x09", (IncompatibleProtocol,)),
            (b"AMQP\x00\x00\x09\x01", (IncompatibleProtocol,)),
            (b"HTTP/1.1 400 Bad Request\r\n\r\n", (IncompatibleProtocol, RemoteProtocolError)),
            (b"SSH-2.0-OpenSSH_9.2p1\r\n", (IncompatibleProtocol, RemoteProtocolError)),
            (b"\x15\x03\x01\x00\x02\x02\x46", (IncompatibleProtocol, RemoteProtocolError, ConnectionLost)),
            (bytes(range(256)) * 40, (IncompatibleProtocol, RemoteProtocolError)),
        ]:

            def say(session: Session, answer: bytes = answer) -> None:
                session.write(answer)
                finish(session)

            self.at("ProtocolHeader", say)
            await self.refused(*types)

    async def test_wrong_order(self) -> None:
        """R18, F30: a method that may not come at that step ends the connection, typed."""
        wrong = [
            ("ProtocolHeader", commands.Connection.Tune(0, 131072, 0)),
            ("ProtocolHeader", commands.Connection.OpenOk()),
            ("Connection.StartOk", commands.Connection.OpenOk()),
            ("Connection.StartOk", commands.Connection.Start(0, 9, {}, "PLAIN", "en_US")),
            ("Connection.TuneOk", commands.Connection.Tune(0, 131072, 0)),
            ("Connection.Open", commands.Connection.Start(0, 9, {}, "PLAIN", "en_US")),
            ("Connection.Open", commands.Basic.QosOk()),
        ]
        for step, method in wrong:
            self.at(step, lambda session, method=method: session.send(0, method))
            if step == STEPS[0]:
                await self.refused(IncompatibleProtocol)
            else:
                error = await self.refused(RemoteProtocolError)
                self.assertGreaterEqual(error.reply_code, 501)

    async def test_a_version_that_is_not_ours(self) -> None:
        """G-03, S-28: connection.start for AMQP 1-0: both versions are in the text."""
        self.at(
            "ProtocolHeader", lambda session: session.send(0, commands.Connection.Start(1, 0, {}, "PLAIN", "en_US"))
        )
        error = await self.refused(IncompatibleProtocol)
        self.assertIn("1-0", str(error))
        self.assertIn("0-9", str(error))

    async def test_locales(self) -> None:
        """B-13, F40: ours if it is offered, else the first that is."""
        for offered, wish, sent in [
            ("en_US", "en_US", "en_US"),
            ("de_DE en_US", "en_US", "en_US"),
            ("xx", "en_US", "xx"),
        ]:

            def start(session: Session, number: int, header: Any, offered: str = offered) -> bool:
                session.send(0, commands.Connection.Start(0, 9, SERVER_PROPERTIES, "PLAIN", offered))
                return True

            self.broker.on["ProtocolHeader"] = start
            await self.connect(locale=wish)
            self.assertEqual(self.session.last("Connection.StartOk").locale, sent)

    async def test_what_we_say_of_ourselves(self) -> None:
        """F-28, W-04, B-15, E-02: capabilities, product, version; the SASL response; application keys on top."""
        await self.connect(client_properties={"product": "mine", "capabilities": {"extra": True}})
        start_ok = self.session.last("Connection.StartOk")
        self.assertEqual(start_ok.client_properties["product"], "mine")
        self.assertIn("version", start_ok.client_properties)
        self.assertIn("platform", start_ok.client_properties)
        capabilities = start_ok.client_properties["capabilities"]
        for name in (
            *("authentication_failure_close", "basic.nack", "connection.blocked", "consumer_cancel_notify"),
            *("publisher_confirms", "extra"),
        ):
            self.assertIs(capabilities[name], True, name)
        self.assertEqual(start_ok.mechanism, "PLAIN")
        response = start_ok.response
        self.assertEqual(response.encode() if isinstance(response, str) else response, b"\0guest\0guest")

    async def test_cut_after_each_byte_of_the_opening(self) -> None:
        """F4, F5, F6, R2, R28: reset, finished or silent after byte k: one typed error each, nothing left behind."""
        await self.connect()
        total = self.session.written
        sample = sorted({*range(1, 12), *range(12, total, 17), *range(total - 20, total)})
        for index, after in enumerate(sample):
            self.broker.cut_after = after
            self.broker.cut = [Session.hang_up, finish, stay_silent][index % 3]
            await self.refused(ConnectionLost, ConnectionClosed, RemoteProtocolError, handshake_timeout=0.05)
        self.broker.cut_after = None
        self.assertTrue((await self.connect()).is_open)

    async def test_in_small_pieces(self) -> None:
        """F7, W-28: the peer's bytes come one by one: the connection opens all the same."""

        def trickle(session: Session, number: int, header: bytes) -> bool:
            write = session.transport.write
            session.transport.write = lambda data: [write(data[i : i + 1]) for i in range(len(data))]
            return False

        self.broker.on["ProtocolHeader"] = trickle
        channel = await (await self.connect()).channel()
        await channel.queue_declare(exclusive=True)

    async def test_a_cancelled_attempt(self) -> None:
        """R28, R29: cancel connect() at each step: it fails once, the socket is gone, no timer is left."""
        for step in STEPS:
            attempt: list[Any] = []
            self.at(step, lambda session, attempt=attempt: attempt[0].cancel())
            attempt.append(connect(self.parameters()))
            error = await settle(attempt[0])
            self.assertIsInstance(error, (CancelledError, ConnectionClosed))
            await self.session.gone
        early = connect(self.parameters())
        early.cancel()
        self.assertIsInstance(await settle(early), (CancelledError, ConnectionClosed))

    def has_reached(self, step: str) -> bool:
        """Whether the last connection has come that far."""
        return bool(self.broker.sessions) and (step == STEPS[0] or step in self.session.names())

    async def test_close_while_opening(self) -> None:
        """F-13, W-14, S-03: close() on a protocol that is not open: `ready` fails, no AMQP close is sent."""
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        for step in STEPS:
            self.at(step, lambda session: None)
            protocol = AMQPProtocol(self.parameters())
            await connectProtocol(TCP4ClientEndpoint(reactor, self.host, self.port), protocol)
            await self.until(partial(self.has_reached, step))
            closed = protocol.close()
            error = await self.failure(protocol.ready, ConnectionClosed)
            self.assertEqual(error.initiator, "client")
            self.assertIs(await closed, error)
            await self.session.gone
            self.assertNotIn("Connection.Close", self.session.names())

    async def test_calls_before_it_is_open(self) -> None:
        """J-11, W-15, F-18: channel() and update_secret() before `ready` fail; nothing is written."""
        protocol = AMQPProtocol(self.parameters())
        await self.failure(protocol.channel(), ConnectionClosed)
        await self.failure(protocol.update_secret("s", "why"), ConnectionClosed)

    async def test_refused_port(self) -> None:
        """W-10, W-47, F12: ConnectFailed that names the reason; unknown names too."""
        [port] = free_ports(1)
        error = await self.refused(ConnectFailed, port=port)
        self.assertIn("refused", str(error).lower())
        self.assertTrue(error.recoverable)
        credentials = PlainCredentials("guest", "guest")
        unknown = {"host": "no-such-host.invalid", "credentials": credentials, "allow_plaintext_auth": True}
        error = await self.refused(ConnectFailed, **unknown)
        self.assertIn("no-such-host.invalid", str(error))

    async def test_the_failure_of_an_operator(self) -> None:
        """F30: 320 while opening is ConnectionForced, and recoverable."""
        self.at("Connection.Open", lambda session: session.close_connection(320, "CONNECTION_FORCED - shutdown"))
        self.assertTrue((await self.refused(ConnectionForced)).recoverable)

    async def test_connection_ready_hook(self) -> None:
        """J-15: a subclass's hook holds `ready` back, and its failure fails `ready`."""
        from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

        class Fails(AMQPProtocol):
            def connection_ready(self) -> Any:
                return self.channel().addCallback(lambda channel: 1 / 0)

        class Prepares(AMQPProtocol):
            prepared = False

            def connection_ready(self) -> Any:
                def note(channel: Any) -> None:
                    self.prepared = True

                return self.channel().addCallback(note)

        endpoint = TCP4ClientEndpoint(reactor, self.host, self.port)
        fails = await connectProtocol(endpoint, Fails(self.parameters()))
        await self.failure(fails.ready, ZeroDivisionError)
        await fails.when_closed()
        prepares = await connectProtocol(endpoint, Prepares(self.parameters()))
        self.assertTrue((await prepares.ready).prepared)
        await prepares.close()

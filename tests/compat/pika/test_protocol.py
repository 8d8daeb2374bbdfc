"""TwistedProtocolConnection over RabbitMQ and over the embedded broker: rows J-01 to J-21 of pika's adapter."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pika
from pamqp import commands
from pika import exceptions, spec
from twisted.internet import error as twisted_error
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ClientCreator, Factory
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.compat.pika.cases import OverBroker, OverRabbitMQ, PikaCase, noting, outcomes, pause, reactor, settle
from tests.conformance.base import BrokerCase, OverPeer
from txmsg.compat.pika import TwistedChannel, TwistedProtocolConnection


class Hooked(TwistedProtocolConnection):
    """A subclass as programs have them, with attributes that are also names of ours."""

    connected = False
    name = "AMQP:Protocol"
    channels: Any = None

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self._channel: Any = None
        self._state = self._pending = self.heartbeat = self.parameters = "mine"
        self.lost: list[Any] = []
        self.closed_at_loss: Any = None

    @inlineCallbacks
    def connectionReady(self) -> Any:
        self._channel = yield self.channel()
        yield self._channel.basic_qos(prefetch_count=2)
        self.connected = True

    def connectionLost(self, reason: Failure = Failure(twisted_error.ConnectionDone())) -> None:  # noqa: B008
        super().connectionLost(reason)
        self.lost.append(reason)
        assert self.closed is not None
        self.closed_at_loss = self.closed.called


class Failing(TwistedProtocolConnection):
    def connectionReady(self) -> Any:
        raise RuntimeError("the hook failed")


class ProtocolCases(PikaCase):
    async def test_client_creator(self) -> None:
        """J-01, J-03, J-04, X-01: ClientCreator, `ready`, which fires with the protocol and is None then."""
        creator = ClientCreator(reactor, TwistedProtocolConnection, self.pika_parameters())
        protocol: Any = await creator.connectTCP(self.node.host, self.node.port)
        self.addCleanup(protocol.close)
        self.assertIsNone(protocol.closed)
        self.assertFalse(protocol.is_closed)
        self.assertIs(await protocol.ready, protocol)
        self.assertIsNone(protocol.ready)
        self.assertTrue(protocol.is_open)
        self.assertFalse(protocol.is_closed)
        channel = await protocol.channel()
        self.assertIsInstance(channel, TwistedChannel)
        self.assertEqual(channel.channel_number, 1)
        self.assertTrue(channel.is_open)

    async def test_factory_without_parameters_for_the_socket(self) -> None:
        """J-01, J-02: a factory builds it; host and port of the parameters do not count."""
        made: list[TwistedProtocolConnection] = []

        class Building(Factory):
            def buildProtocol(self, addr: object) -> TwistedProtocolConnection:
                made.append(TwistedProtocolConnection(parameters, custom_reactor=reactor))
                return made[0]

        parameters = self.pika_parameters(host="nowhere.invalid", port=1)
        protocol: Any = await TCP4ClientEndpoint(reactor, self.node.host, self.node.port).connect(Building())
        self.addCleanup(protocol.close)
        self.assertIs(await protocol.ready, made[0])

    async def test_when_ready_works_at_any_time(self) -> None:
        """J-05: before, after, and once it is over."""
        protocol = await self.transport_up()
        before = [protocol.whenReady(), protocol.whenReady()]
        self.assertIs(await before[0], protocol)
        self.assertIs(await before[1], protocol)
        self.assertIs(await protocol.whenReady(), protocol)
        await protocol.close()
        await self.failure(protocol.whenReady(), exceptions.ConnectionClosedByClient)

    async def test_wrong_password(self) -> None:
        """J-06, F-07, 24.2: the class for it with the broker's words, once; `closed` never is."""
        protocol = await self.transport_up(self.pika_parameters(credentials=pika.PlainCredentials("guest", "wrong")))
        assert protocol.ready is not None
        seen = outcomes([protocol.ready, protocol.whenReady()])
        await settle(protocol.whenReady())
        self.assertEqual({type(value) for _, value in seen}, {exceptions.ProbableAuthenticationError})
        self.assertIn("ACCESS_REFUSED", str(seen[0][1]))
        self.assertIsNone(protocol.ready)
        self.assertIsNone(protocol.closed)
        self.assertTrue(protocol.is_closed)

    async def test_unknown_vhost(self) -> None:
        """J-06: 530 and the text."""
        protocol = await self.transport_up(self.pika_parameters(virtual_host="/nowhere"))
        error = await self.failure(protocol.whenReady(), exceptions.ProbableAccessDeniedError)
        self.assertIn("nowhere", str(error))
        self.assertIsInstance(error, exceptions.AMQPConnectionError)

    async def test_the_hook_and_the_subclass(self) -> None:
        """J-15, J-16: connectionReady holds `ready` back; the subclass's names are its own."""
        protocol = await self.pika_connect(Hooked)
        self.assertTrue(protocol.connected)
        assert isinstance(protocol, Hooked)
        self.assertEqual(protocol._channel.channel_number, 1)
        self.assertEqual(protocol._state, "mine")
        self.assertEqual(protocol.logPrefix(), "Hooked")
        await protocol.close()
        await pause(0)  # `closed` fires inside connectionLost
        self.assertTrue(protocol.closed_at_loss)
        self.assertEqual(len(protocol.lost), 1)

    async def test_a_hook_that_fails(self) -> None:
        """J-15: `ready` fails with it; the connection stays open."""
        protocol = await self.transport_up(kind=Failing)
        assert protocol.ready is not None
        ready = protocol.ready
        await self.failure(ready, RuntimeError)
        await self.failure(protocol.whenReady(), RuntimeError)
        self.assertTrue(protocol.is_open)
        await protocol.channel()

    async def test_close(self) -> None:
        """J-09, J-13: `close` returns `closed`; it fires with who closed it; again and again; also after the end."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        closing = protocol.close(200, "enough")
        self.assertIs(closing, protocol.closed)
        self.assertIs(protocol.close(), closing)
        reason = await closing
        self.assertIsInstance(reason, exceptions.ConnectionClosedByClient)
        self.assertEqual((reason.reply_code, reason.reply_text), (200, "enough"))
        # pika's adapter lets programs see ConnectionDone.
        self.assertIsInstance(reason, twisted_error.ConnectionDone)
        self.assertTrue(protocol.is_closed)
        self.assertIsInstance(await protocol.close(), exceptions.ConnectionClosedByClient)
        self.assertIsInstance(await channel.on_closed, exceptions.ChannelClosedByClient)

    async def test_close_before_it_is_open(self) -> None:
        """F-13, J-13: ConnectionOpenAborted."""
        protocol = await self.transport_up()
        assert protocol.ready is not None
        ready = settle_later(protocol.ready)
        self.assertIsInstance(await protocol.close(), exceptions.ConnectionOpenAborted)
        self.assertIsInstance(ready[0], exceptions.ConnectionOpenAborted)

    async def test_channel_when_not_open(self) -> None:
        """J-11: a failed Deferred, before and after."""
        protocol = await self.transport_up()
        await self.failure(protocol.channel(), exceptions.ConnectionWrongStateError)
        await protocol.whenReady()
        await protocol.close()
        await self.failure(protocol.channel(), exceptions.ConnectionWrongStateError)

    async def test_channel_numbers(self) -> None:
        """J-10, F-08, F-09, F-10: lowest free, the one asked for, one in use, none left."""
        protocol = await self.pika_connect(channel_max=3)
        first, second = await protocol.channel(), await protocol.channel(2)
        self.assertEqual([first.channel_number, second.channel_number], [1, 2])
        self.assertEqual((await self.failure(protocol.channel(2), exceptions.InvalidChannelNumber)).args, (2,))
        self.assertEqual((await self.failure(protocol.channel(99), exceptions.InvalidChannelNumber)).args, (99,))
        await self.failure(protocol.channel("7"), exceptions.InvalidChannelNumber)  # type: ignore[arg-type]
        await protocol.channel()
        await self.failure(protocol.channel(), exceptions.NoFreeChannels)
        await second.close()
        self.assertEqual((await protocol.channel()).channel_number, 2)

    async def test_closed_by_the_broker(self) -> None:
        """J-09, J-12, F-16, 24.1: 320 and the text; all that waits fails with the same object."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        queue, _ = await channel.basic_consume(await self.pika_queue(channel))
        reasons: list[Any] = []
        channel.add_on_close_callback(lambda *arguments: reasons.append(arguments))
        closed_seen: list[bool] = []
        waiting = queue.get()
        waiting.addBoth(noting(closed_seen, lambda: protocol.is_closed))
        seen = outcomes([waiting, channel.on_closed])
        assert protocol.closed is not None
        await self.in_thread(self.node.close_all_connections, "bye")
        reason = await protocol.closed
        self.assertIsInstance(reason, exceptions.ConnectionClosedByBroker)
        self.assertIsInstance(reason, twisted_error.ConnectionDone)
        self.assertEqual(reason.reply_code, 320)
        self.assertIn("bye", reason.reply_text)
        self.assertEqual([value is reason for _, value in seen], [True, True])
        # Who is told of the end and asks for a connection must not be given this one.
        self.assertEqual(closed_seen, [True])
        self.assertEqual([(each[0] is channel, each[1] is reason) for each in reasons], [(True, True)])
        self.assertIs(await settle(channel.queue_declare("x")), reason)

    async def test_the_socket_breaks(self) -> None:
        """F-20, J-09: StreamLostError, which is Twisted's ConnectionLost as well."""
        protocol = await self.pika_connect()
        opening = protocol.channel()
        transport: Any = protocol.transport
        transport.abortConnection()
        assert protocol.closed is not None
        reason = await protocol.closed
        self.assertIsInstance(reason, exceptions.StreamLostError)
        self.assertIsInstance(reason, (twisted_error.ConnectionLost, twisted_error.ConnectionDone))
        self.assertIs(await settle(opening), reason)

    async def test_parameters_are_not_changed(self) -> None:
        """B-21, E-07: two connections from one object; their own copies have what was agreed on, as with pika."""
        parameters = self.pika_parameters(channel_max=7, heartbeat=600)
        for _ in range(2):
            protocol = await self.transport_up(parameters)
            await protocol.whenReady()
            self.assertEqual(protocol._impl.native.negotiated.channel_max, 7)  # type: ignore[union-attr]
            agreed = protocol._impl.native.negotiated
            assert agreed is not None
            params = protocol.parameters
            self.assertEqual(
                (params.channel_max, params.frame_max, params.heartbeat),
                (agreed.channel_max, agreed.frame_max, agreed.heartbeat),
            )
        self.assertEqual((parameters.channel_max, parameters.heartbeat), (7, 600))
        self.assertEqual(parameters.credentials.password, "guest")

    async def test_heartbeat_callable(self) -> None:
        """B-07: it is given the connection and the broker's proposal."""
        asked: list[Any] = []

        def heartbeat(connection: Any, proposed: int) -> int:
            asked.append((connection, proposed))
            return 17

        protocol = await self.pika_connect(heartbeat=heartbeat)
        self.assertEqual(protocol._impl.native.negotiated.heartbeat, 17)  # type: ignore[union-attr]
        self.assertIs(asked[0][0], protocol._impl)

    async def test_the_connection_below(self) -> None:
        """F-26, F-27, K-54: `channel.connection` has the public face of pika's."""
        protocol = await self.pika_connect()
        channel = await protocol.channel()
        below = channel.connection
        self.assertIs(below, protocol._impl)
        self.assertTrue(below.is_open and not below.is_closing and not below.is_closed)
        for flag in ("basic_nack", "consumer_cancel_notify", "exchange_exchange_bindings", "publisher_confirms"):
            self.assertIs(getattr(below, flag), True, flag)
        self.assertIn("product", below.server_properties)
        self.assertIn("publisher_confirms", below.server_capabilities)
        self.assertEqual(below.params.virtual_host, "/")
        reasons: list[Any] = []
        below.add_on_close_callback(lambda connection, reason: reasons.append((connection, reason)))
        below.close()
        self.assertTrue(below.is_closing)
        self.assertRaises(exceptions.ConnectionWrongStateError, below.close)
        assert protocol.closed is not None
        reason = await protocol.closed
        self.assertEqual(reasons, [(below, reason)])

    async def test_a_new_secret(self) -> None:
        """It fires with the frame, which the callback is given as well."""
        protocol = await self.pika_connect()
        told: list[Any] = []
        replied = await protocol._impl.update_secret("guest", "it is time", told.append)
        self.assertIsInstance(replied.method, spec.Connection.UpdateSecretOk)
        self.assertEqual(told, [replied])
        await protocol.close()
        self.assertRaises(exceptions.ConnectionWrongStateError, protocol._impl.update_secret, "guest", "")


class NoticesOverPeer(OverPeer, BrokerCase):
    """What only a scripted broker does."""

    async def test_blocked(self) -> None:
        """I-01, I-02: the connection and pika's frame, each time; publishes wait meanwhile."""
        protocol = TwistedProtocolConnection()
        told: list[tuple[Any, Any]] = []
        below = protocol._impl
        for add in (
            below.add_on_connection_blocked_callback,
            below.add_on_connection_unblocked_callback,
            lambda callback: below.add_on_open_callback(lambda connection: callback(connection, None)),
        ):
            add(lambda *arguments: told.append(arguments))
        await connectProtocol(TCP4ClientEndpoint(reactor, self.host, self.port), protocol)
        self.addCleanup(protocol.close)
        channel = await (await protocol.whenReady()).channel()
        self.assertEqual(told, [(below, None)])
        self.session.send(0, commands.Connection.Blocked("low on memory"))
        await channel.basic_qos()
        waiting = channel.basic_publish("", "q", b"")
        self.assertFalse(waiting.called)
        self.session.send(0, commands.Connection.Unblocked())
        self.assertIsNone(await waiting)
        await channel.basic_qos()
        (_, blocked), (connection, unblocked) = told[1:]
        self.assertIs(connection, below)
        self.assertIsInstance(blocked.method, spec.Connection.Blocked)
        self.assertEqual(blocked.method.reason, "low on memory")
        self.assertIsInstance(unblocked.method, spec.Connection.Unblocked)


def settle_later(deferred: Deferred[Any]) -> list[Any]:
    """A list that is given what it fails with."""
    seen: list[Any] = []
    deferred.addErrback(lambda failure: seen.append(failure.value))
    return seen


class ProtocolOverRabbitMQ(OverRabbitMQ, ProtocolCases):
    pass


class ProtocolOverBroker(OverBroker, ProtocolCases):
    pass


class WithoutABroker(SynchronousTestCase):
    def test_wrong_parameters(self) -> None:
        """What is no parameters object is refused, as pika does."""
        self.assertRaises(ValueError, TwistedProtocolConnection, {"host": "x"})

    def test_defaults(self) -> None:
        """J-01: without parameters; the header is written at once (J-14)."""
        protocol = TwistedProtocolConnection(custom_reactor=mock.Mock())
        self.assertEqual((protocol.is_open, protocol.is_closed), (False, False))
        transport = StringTransport()
        protocol.makeConnection(transport)
        self.assertEqual(transport.value(), b"AMQP\x00\x00\x09\x01")
        self.assertFalse(protocol.is_closed)

    def test_parameters(self) -> None:
        """A copy of those given, but for the TLS context, which cannot be; a subclass may use the name for its own."""

        class WithParameters(TwistedProtocolConnection):
            parameters: Any = pika.ConnectionParameters(virtual_host="class")

        given = pika.ConnectionParameters(virtual_host="given")
        protocol = TwistedProtocolConnection(given, custom_reactor=mock.Mock())
        self.assertEqual(protocol.parameters, given)
        self.assertIsNot(protocol.parameters, given)
        for_tls = pika.URLParameters("amqps://localhost")
        self.assertIsNotNone(for_tls.ssl_options)
        copied = TwistedProtocolConnection(for_tls, custom_reactor=mock.Mock())
        self.assertIs(copied.parameters.ssl_options, for_tls.ssl_options)
        protocol.parameters = "mine"
        self.assertEqual(protocol.parameters, "mine")
        self.assertEqual(WithParameters(given).parameters.virtual_host, "class")

    def test_lost_before_it_was_open(self) -> None:
        """J-07: `ready` fails once, with an AMQPConnectionError; another loss changes nothing."""
        protocol = TwistedProtocolConnection(custom_reactor=mock.Mock())
        assert protocol.ready is not None
        seen = outcomes([protocol.ready])
        protocol.makeConnection(StringTransport())
        protocol.connectionLost(Failure(twisted_error.ConnectionLost()))
        protocol.connectionLost(Failure(twisted_error.ConnectionLost()))
        self.assertEqual(len(seen), 1)
        self.assertIsInstance(seen[0][1], exceptions.IncompatibleProtocolError)
        self.assertIsNone(protocol.ready)
        self.assertIsNone(protocol.closed)

    def test_cancelling_ready(self) -> None:
        """The waiting is given up, not the connection: the hook of pika's own contract runs no more."""
        protocol = TwistedProtocolConnection(custom_reactor=mock.Mock())
        assert protocol.ready is not None
        ready = protocol.ready
        waiter = protocol.whenReady()
        ready.addErrback(lambda failure: None)
        ready.cancel()
        protocol._on_connection_ready(protocol._impl)
        self.assertIsNotNone(protocol.closed)
        self.assertIs(self.successResultOf(waiter), protocol)

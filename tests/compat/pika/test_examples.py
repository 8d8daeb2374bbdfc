"""Programs in the shape of those that pika's documentation publishes for Twisted: only the import is another one.

The service that reconnects, with its reading and answering; the publisher over TLS with a client certificate.
(The published files themselves run in test_pika_suite.py, from a checkout.)
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import pika
from pika import DeliveryMode, spec
from pika.exchange_type import ExchangeType
from twisted.application import internet, service
from twisted.internet import defer, protocol, ssl
from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred
from twisted.internet.endpoints import TCP4ClientEndpoint, wrapClientTLS
from twisted.protocols import policies

from tests.certificates import shared_authority
from tests.compat.pika.cases import OverBroker, OverRabbitMQ, PikaCase, pause, reactor
from txmsg.compat import pika as twisted_connection


class Answering(twisted_connection.TwistedProtocolConnection):
    """Reads what the factory is to read, when it is ready."""

    connected = False
    name = "Test:Protocol"

    def __init__(self, factory: Any, parameters: Any) -> None:
        super().__init__(parameters)
        self.factory = factory

    @inlineCallbacks
    def connectionReady(self) -> Any:
        self._channel = yield self.channel()
        yield self._channel.basic_qos(prefetch_count=2)
        self.connected = True
        yield self._channel.confirm_delivery()
        for exchange, routing_key, callback in self.factory.to_read:
            yield self.read(exchange, routing_key, callback)
        self.factory.ready_times += 1

    @inlineCallbacks
    def read(self, exchange: str, routing_key: str, callback: Any) -> Any:
        channel = self._channel
        yield channel.exchange_declare(exchange=exchange, exchange_type=ExchangeType.topic, durable=True)
        yield channel.queue_declare(queue=routing_key, durable=True)
        yield channel.queue_bind(queue=routing_key, exchange=exchange, routing_key=routing_key)
        (queue, _tag) = yield channel.basic_consume(queue=routing_key, auto_ack=False)
        self.read_next(queue, callback)

    def read_next(self, queue: Any, callback: Any) -> None:
        d = queue.get()
        d.addCallback(self.read_item, queue, callback)
        d.addErrback(lambda failure: self.factory.ends.append(failure.value))

    def read_item(self, item: Any, queue: Any, callback: Any) -> None:
        self.read_next(queue, callback)
        (channel, deliver, _properties, _body) = item
        d = maybeDeferred(callback, item)
        d.addCallbacks(
            lambda _: channel.basic_ack(deliver.delivery_tag), lambda _: channel.basic_nack(deliver.delivery_tag)
        )

    @inlineCallbacks
    def send(self, exchange: str, routing_key: str, body: bytes) -> Any:
        properties = spec.BasicProperties(delivery_mode=DeliveryMode.Persistent)
        yield self._channel.basic_publish(
            exchange=exchange, routing_key=routing_key, body=body, properties=properties, mandatory=True
        )


class AnsweringFactory(protocol.ReconnectingClientFactory):
    initialDelay = 0.1
    noisy = False

    def __init__(self, parameters: Any) -> None:
        self.parameters = parameters
        self.client: Any = None
        self.to_read: list[Any] = []
        self.ends: list[Any] = []
        self.ready_times = 0

    def buildProtocol(self, addr: object) -> Answering:
        self.resetDelay()
        self.client = made = Answering(self, self.parameters)
        return made


class ExampleCases(PikaCase):
    async def test_service(self) -> None:
        """X-12, X-14: it answers requests, comes back when the broker closes the connection, and stops."""
        exchange, request, response = self.name("e"), self.name("request"), self.name("response")
        parameters = self.pika_parameters()
        factory = AnsweringFactory(parameters)
        tcp: Any = internet.TCPClient(host=parameters.host, port=parameters.port, factory=factory)
        root = service.MultiService()
        tcp.setServiceParent(root)

        def answer(item: Any) -> Deferred[Any]:
            sent: Deferred[Any] = factory.client.send(exchange, response, b"re: " + item[3])
            return sent

        factory.to_read.append((exchange, request, answer))
        root.startService()
        self.addCleanup(self._stop, root, factory)
        await self.until(lambda: factory.ready_times == 1)
        channel = await self.pika_channel()
        answers = await self.pika_queue(channel)
        await channel.queue_bind(answers, exchange, response)
        channel.basic_publish(exchange, request, b"one")
        await self.pika_depth(channel, answers, 1)
        await self.in_thread(self.node.close_all_connections, "again")
        await self.until(lambda: factory.ready_times == 2, 20.0)
        self.assertEqual([end.reply_code for end in factory.ends], [320])
        channel = await self.pika_channel()
        answers = await self.pika_queue(channel)
        await channel.queue_bind(answers, exchange, response)
        await channel.basic_publish(exchange, request, b"two")
        await self.pika_depth(channel, answers, 1)
        self.assertEqual((await channel.basic_get(answers, auto_ack=True)).body, b"re: two")
        await channel.queue_delete(request)
        await channel.exchange_delete(exchange)

    async def _stopped(self, root: Any, factory: AnsweringFactory) -> None:
        factory.stopTrying()
        client = factory.client
        await defer.maybeDeferred(root.stopService)
        if client.closed is not None:
            await client.close()
        await pause(0)

    def _stop(self, root: Any, factory: AnsweringFactory) -> Deferred[None]:
        return Deferred.fromCoroutine(self._stopped(root, factory))

    async def test_tls_with_client_certificate(self) -> None:
        """X-15, E-06: EXTERNAL over connectSSL; Twisted's options verify the server."""
        if isinstance(self, OverBroker):
            await self.node.listen_with_tls()
        user = self.name("user")[-30:]
        await self.in_thread(self.node.add_user, user)
        authority = shared_authority()
        issued = authority.issue(user)
        with open(authority.certificate_file, "rb") as file:
            trusted = ssl.Certificate.loadPEM(file.read())
        with open(issued.key_file, "rb") as key, open(issued.certificate_file, "rb") as certificate:
            pair = ssl.PrivateCertificate.loadPEM(key.read() + certificate.read())
        context = ssl.optionsForClientTLS("localhost", trustRoot=trusted, clientCertificate=pair)
        parameters = pika.ConnectionParameters(credentials=pika.credentials.ExternalCredentials())
        creator = protocol.ClientCreator(reactor, twisted_connection.TwistedProtocolConnection, parameters)
        connecting: Any = creator.connectSSL("localhost", self.node.mtls_port, context)
        connection = await connecting.addCallback(lambda conn: conn.ready.addCallback(lambda _: conn))
        self.addCleanup(connection.close)
        channel = await connection.channel()
        queue = await self.pika_queue(channel)
        await channel.queue_bind(queue, "amq.topic", "hello.world")
        await channel.basic_publish(exchange="amq.topic", routing_key="hello.world", body="Hello World!")
        self.assertEqual((await channel.basic_get(queue, auto_ack=True)).body, b"Hello World!")

    async def test_tls_to_somebody_else(self) -> None:
        """C1.2, J-02: the parameters' host does not count, the name that the context asks for does."""
        if isinstance(self, OverBroker):
            await self.node.listen_with_tls()
        with open(shared_authority().certificate_file, "rb") as file:
            trusted = ssl.Certificate.loadPEM(file.read())
        creator = protocol.ClientCreator(
            reactor, twisted_connection.TwistedProtocolConnection, pika.ConnectionParameters(host="not.used")
        )
        for name, is_right in (("localhost", True), ("other.example", False)):
            context = ssl.optionsForClientTLS(name, trustRoot=trusted)
            connecting: Any = creator.connectSSL("localhost", self.node.tls_port, context)
            connection = await connecting
            try:
                await connection.ready
                self.assertTrue(is_right)
            except pika.exceptions.AMQPConnectionError:
                self.assertFalse(is_right)
            await connection.close()

    async def test_tls_below_a_wrapper(self) -> None:
        """J-01: wrappers do not pass on that TLS is up; the server is looked at all the same, before the login."""
        if isinstance(self, OverBroker):
            await self.node.listen_with_tls()
        with open(shared_authority().certificate_file, "rb") as file:
            trusted = ssl.Certificate.loadPEM(file.read())
        context = ssl.optionsForClientTLS("localhost", trustRoot=trusted)
        for refusal in (None, ValueError("somebody else")):
            connection = twisted_connection.TwistedProtocolConnection(pika.ConnectionParameters())
            factory = policies.WrappingFactory(OneProtocol(connection))
            endpoint = wrapClientTLS(context, TCP4ClientEndpoint(reactor, "localhost", self.node.tls_port))
            ready: Any = connection.ready
            with mock.patch("txmsg.compat.given_tls.verify_peer", side_effect=refusal) as verify:
                await endpoint.connect(factory)
                if refusal is None:
                    self.assertIs(await ready, connection)
                    await connection.channel()
                else:
                    await self.failure(ready, pika.exceptions.AMQPConnectionError)
                    self.assertEqual(connection._impl.server_properties, {})
            verify.assert_called_once()
            self.assertEqual(verify.call_args.args[1], "localhost")
            await connection.close()


class OneProtocol(protocol.Factory):
    """Makes no new ones."""

    def __init__(self, made: twisted_connection.TwistedProtocolConnection) -> None:
        self.made = made

    def buildProtocol(self, addr: object) -> twisted_connection.TwistedProtocolConnection:
        return self.made


class ExamplesOverRabbitMQ(OverRabbitMQ, ExampleCases):
    pass


class ExamplesOverBroker(OverBroker, ExampleCases):
    pass

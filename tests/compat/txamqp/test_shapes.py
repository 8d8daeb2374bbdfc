"""Content, Message, the protocol as data, factory and endpoint: what programs hold in their hands."""

from __future__ import annotations

import copy
from typing import Any

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.compat.txamqp.cases import OverBroker, OverRabbitMQ, TxAMQPCase, reactor
from txmsg.amqp import BasicProperties
from txmsg.compat.txamqp import spec
from txmsg.compat.txamqp.client import ChannelClosed, Closed, ConnectionClosed, TwistedDelegate, closed_error
from txmsg.compat.txamqp.content import Content, ContentReader, Properties, _known, native_properties, received_content
from txmsg.compat.txamqp.delegate import Delegate
from txmsg.compat.txamqp.endpoint import AMQEndpoint
from txmsg.compat.txamqp.factory import AMQFactory
from txmsg.compat.txamqp.message import Message, closing_message
from txmsg.compat.txamqp.methods import bind, values_of
from txmsg.compat.txamqp.native import native_credentials
from txmsg.compat.txamqp.protocol import AMQClient
from txmsg.errors import AuthenticationFailed, EncodeError


class ContentTests(SynchronousTestCase):
    def test_spellings(self) -> None:
        """One property, three spellings; a dict in all else."""
        properties = Properties({"delivery mode": 2}, content_type="text/plain")
        self.assertEqual(list(properties), ["delivery-mode", "content-type"])
        self.assertEqual(properties["delivery_mode"], 2)
        self.assertIn("content type", properties)
        self.assertNotIn(7, properties)
        self.assertEqual(properties.get("reply to", "none"), "none")
        self.assertEqual(properties.setdefault("reply to", "me"), "me")
        self.assertEqual(properties.pop("reply_to"), "me")
        self.assertEqual(properties, {"delivery_mode": 2, "content type": "text/plain"})
        self.assertNotEqual(properties, {})
        self.assertEqual(properties.copy(), properties)
        del properties["delivery mode"]
        self.assertEqual(dict(properties), {"content-type": "text/plain"})

    def test_to_native(self) -> None:
        content = Content("x", properties={"delivery mode": 2, "message-id": "m", "priority": None, "colour": "red"})
        content["reply_to"] = "me"
        native = native_properties(content)
        assert native is not None
        self.assertEqual((native.delivery_mode, native.message_id, native.reply_to), (2, "m", "me"))
        self.assertIsNone(native.priority)
        self.assertIsNone(native_properties(Content("x")))
        self.assertEqual((content.size(), content.weight()), (1, 0))
        self.assertIn("message-id", repr(content))
        del content["reply_to"]
        self.assertEqual(content.properties["delivery mode"], 2)

    def test_from_native(self) -> None:
        """Falsy is not absent; text where it is text."""
        content = received_content(BasicProperties(priority=0, headers={}), b"\xc3\xbc")
        self.assertEqual(content.properties, {"priority": 0, "headers": {}})
        self.assertEqual(content.body, "ü")
        self.assertEqual(received_content(BasicProperties(), b"\xff").body, b"\xff")

    def test_bytes(self) -> None:
        """Bytes are short strings too, as with txamqp; what is no UTF-8 is refused when it is sent, and not here."""
        for _ in range(2):  # what was sent lately is known
            sent = native_properties(Content(properties={"correlation id": b"7", "delivery mode": 2}))
            self.assertEqual(sent, BasicProperties(correlation_id="7", delivery_mode=2))
        sent = native_properties(Content(properties={"headers": {b"k": b"v", "n": 1}}))
        self.assertEqual(sent, BasicProperties(headers={"k": b"v", "n": 1}))
        sent = native_properties(Content(properties={"correlation id": b"\xff"}))
        assert sent is not None
        self.assertRaises(EncodeError, sent.encode)
        method = spec.method_named("queue.declare")
        values, _ = bind(method, (), {"queue": b"q", "arguments": {b"x-max-length": 5}})
        self.assertEqual(values_of(method, values)["arguments"], {"x-max-length": 5})

    def test_read_in_a_row(self) -> None:
        """Messages that share their properties do not share what a program may change."""
        reader, shared = ContentReader(), BasicProperties(priority=1)
        first, second = reader.read(shared, b"1"), reader.read(shared, b"2")
        first["priority"] = 9
        self.assertEqual((second["priority"], reader.read(shared, b"3")["priority"]), (1, 1))
        own = BasicProperties(headers={"a": 1})
        self.assertEqual(reader.read(own, b"").properties, {"headers": {"a": 1}})
        self.assertEqual(reader.read(BasicProperties(), b"").properties, {})

    def test_sent_in_a_row(self) -> None:
        """Equal properties are one object; headers are for each message anew; what is known does not grow."""
        native_properties(Content("", properties={"priority": True}))
        first, second = (native_properties(Content("", properties={"priority": 1})) for _ in range(2))
        self.assertIs(first, second)
        assert first is not None
        self.assertIs(type(first.priority), int)
        headers = {"a": 1}
        sent = native_properties(Content("", properties={"headers": headers}))
        assert sent is not None
        self.assertIs(sent.headers, headers)
        for number in range(1000):
            made = native_properties(Content("", properties={"message-id": str(number)}))
            assert made is not None
            self.assertEqual(made.message_id, str(number))
        self.assertLessEqual(len(_known), 256)


class MessageTests(SynchronousTestCase):
    def test_fields(self) -> None:
        message = closing_message("channel", 404, "NOT_FOUND", 50, 10)
        self.assertEqual((message.reply_code, message[1], message[-1], len(message)), (404, "NOT_FOUND", 10, 4))
        message.reply_text = message[0] = 5
        self.assertEqual(message.fields, [5, 5, 50, 10])
        message[4] = content = Content("x")
        self.assertIs(message.content, content)
        self.assertIs(message[4], content)
        self.assertRaises(IndexError, lambda: message[5])
        self.assertRaises(AttributeError, lambda: message.nothing)
        self.assertEqual(copy.copy(message).fields, message.fields)
        self.assertIn("channel.close(reply_code=5", str(message))

    def test_errors(self) -> None:
        """Closed for a reason of each kind."""
        self.assertIsInstance(closed_error(closing_message("channel", 404, "")), ChannelClosed)
        self.assertIsInstance(closed_error(closing_message("connection", 320, "")), ConnectionClosed)
        self.assertIs(type(closed_error(Failure(RuntimeError()))), Closed)
        error = Closed("as it is")
        self.assertIs(closed_error(error), error)


class SpecTests(SynchronousTestCase):
    def test_protocol(self) -> None:
        made = spec.load("/no/such/file.xml")
        self.assertEqual(made.file, "/no/such/file.xml")
        self.assertEqual(spec.load_string("<amqp/>").file, spec.DEFAULT_SPEC)
        method = made.parse_method("basic.deliver")
        self.assertEqual((method.klass.id, method.id, method.content), (60, 60, True))
        field = method.fields.bypyname["delivery_tag"]
        self.assertEqual((field.name, field.type, method.fields.index(field)), ("delivery-tag", "longlong", 1))
        self.assertEqual(made.classes.byname["queue"].methods.byname["declare"].responses[0].name, "declare-ok")
        self.assertIn("delivery-mode", made.classes.byid[60].fields.byname)
        self.assertRaises(ValueError, method.fields.index, None)
        self.assertEqual(spec.pythonize("return"), "return_")
        self.assertIn("9", repr(made) + repr(method) + repr(field))


class DelegateTests(SynchronousTestCase):
    def test_mixins(self) -> None:
        """invoke_all reaches the method of each class that has one."""

        class Mixin(TwistedDelegate):
            def init(self) -> None:
                self.was_set_up = True

        self.assertTrue(Mixin().was_set_up)

    def test_no_handler(self) -> None:
        """A message that nobody handles is no error (txamqp: AttributeError, and the connection is closed)."""
        self.assertIsNone(Delegate().dispatch(None, closing_message("channel", 404, "")))


class CredentialsTests(SynchronousTestCase):
    def test_mechanisms(self) -> None:
        """C3.1: each mechanism's response, never shown."""
        amqplain = native_credentials("AMQPLAIN", {"LOGIN": b"me", "PASSWORD": "hush"})
        self.assertEqual((amqplain.mechanism, amqplain.username), ("AMQPLAIN", "me"))
        plain = native_credentials("PLAIN", "\0me\0hush")
        self.assertEqual(bytes(plain.response()), b"\0me\0hush")
        other = native_credentials("X-TOKEN", "hush")
        self.assertEqual((other.mechanism, other.response()), ("X-TOKEN", b"hush"))
        self.assertNotIn("hush", repr((amqplain, plain, other)))
        self.assertRaises(AuthenticationFailed, other.respond, b"?")


class FactoryTests(SynchronousTestCase):
    def test_build(self) -> None:
        factory = AMQFactory(spec="some.xml", clock=Clock())
        factory.set_vhost("foo")
        factory.set_heartbeat(7)
        one, two = factory.buildProtocol(None), factory.buildProtocol(None)
        self.assertIsInstance(one, AMQClient)
        self.assertEqual((one.vhost, one.heartbeatInterval, one.spec.file), ("foo", 7, "some.xml"))
        self.assertIsNot(one.delegate, two.delegate)
        self.assertFalse(one.check_0_8())


class EndpointTests(SynchronousTestCase):
    def connected(self, uri: str) -> tuple[Any, AMQFactory]:
        memory, factory = MemoryReactorClock(), AMQFactory(clock=Clock())
        AMQEndpoint.from_uri(memory, uri).connect(factory)
        return memory, factory

    def test_uri(self) -> None:
        """The URI of RabbitMQ's specification; txamqp takes %2F as it stands and knows no TLS."""
        memory, factory = self.connected("amqp://m%40e:p%3Aw@some.broker/a%2Fb?heartbeat=10&timeout=5")
        host, port, _, timeout, _ = memory.tcpClients[0]
        self.assertEqual((host, port, timeout), ("some.broker", 5672, 5))
        client = factory.buildProtocol(None)
        self.assertEqual((client.vhost, client.heartbeatInterval), ("a/b", 10))
        for uri in ("amqp://h", "amqp://h/", "amqp://h/%2F"):
            _, factory = self.connected(uri)
            self.assertEqual(factory.buildProtocol(None).vhost, "/")
        memory, _ = self.connected("amqps://secure")
        self.assertEqual(memory.tcpClients[0][:2], ("secure", 5671))

    def test_refused(self) -> None:
        for uri in (
            "http://h",
            "amqp://h?tls=1",
            "amqps://h?cacertfile=x",
            "amqp://h?host=other",
            "amqp://h?heartbeat=x",
        ):
            self.assertRaises(ValueError, AMQEndpoint.from_uri, None, uri)
        self.assertNotIn("hush", repr(AMQEndpoint.from_uri(None, "amqp://me:hush@h")))


class EndpointCases(TxAMQPCase):
    async def test_connects(self) -> None:
        """From a URI to a client that is logged in."""
        uri = f"amqp://guest:guest@{self.node.host}:{self.node.port}/?auth_mechanism=PLAIN"
        client = await AMQEndpoint.from_uri(reactor, uri).connect(AMQFactory())
        self.addCleanup(client.disconnected.wait)
        self.addCleanup(client.close)
        channel = await self.tx_channel(client)
        await channel.tx_select()

    async def test_refused_login(self) -> None:
        """A login that fails leaves no connection behind."""
        uri = f"amqp://guest:wrong@{self.node.host}:{self.node.port}/"
        factory = AMQFactory()
        await self.failure(AMQEndpoint.from_uri(reactor, uri).connect(factory), ConnectionClosed)


class EndpointOverRabbitMQ(OverRabbitMQ, EndpointCases):
    __test__ = True


class EndpointOverBroker(OverBroker, EndpointCases):
    __test__ = True


class UnfinishedMessageTests(SynchronousTestCase):
    def test_unfinished(self) -> None:
        """An unfinished Message has no fields to look for."""
        self.assertRaises(AttributeError, getattr, Message.__new__(Message), "reply_code")

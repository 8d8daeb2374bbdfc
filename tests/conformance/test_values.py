"""What messages carry: every property and kind of value, and values that no decoder likes."""

from __future__ import annotations

import datetime
import socket
import struct
from decimal import Decimal
from typing import Any

from pamqp import commands, frame

from tests.conformance.base import BrokerCase, OverBroker, OverPeer, OverRabbitMQ
from tests.conformance.minibroker import Message, Session
from txmsg.amqp import BasicProperties, Channel, Delivery, UndecodableProperties
from txmsg.errors import EncodeError, RemoteProtocolError

LONG = "é" * 127


def decoded(delivery: Delivery) -> BasicProperties:
    """The properties of a delivery, which must be decodable."""
    assert isinstance(delivery.properties, BasicProperties)
    return delivery.properties


class ValueCases(BrokerCase):
    async def there_and_back(self, channel: Channel, properties: BasicProperties) -> Any:
        """What comes out of a queue that a message with these properties was put in."""
        name = await self.queue(channel)
        channel.basic_publish("", name, b"body", properties)
        await self.until_depth(channel, name, 1)
        delivery = await self.get(channel, name)
        self.assertEqual(delivery.body, b"body")
        return delivery.properties

    async def test_all_properties(self) -> None:
        """Q-01 to Q-14: each comes back as it was sent (kombu D32)."""
        channel = await self.channel()
        properties = BasicProperties(
            content_type="text/plain",
            content_encoding="gzip",
            headers={"a": 1},
            delivery_mode=2,
            priority=9,
            correlation_id=LONG,
            reply_to="amq.somewhere",
            expiration="60000",
            message_id="id",
            timestamp=1_700_000_000,
            type="type",
            user_id="guest",
            app_id="app",
            cluster_id="cluster",
        )
        self.assertEqual(await self.there_and_back(channel, properties), properties)

    async def test_falsy_is_not_absent(self) -> None:
        """24.13, Q-03, Q-05: zero, empty text and the empty table are there; None alone is absent (kombu D32)."""
        channel = await self.channel()
        falsy = BasicProperties(priority=0, headers={}, correlation_id="", reply_to="", type="", timestamp=0, app_id="")
        back = await self.there_and_back(channel, falsy)
        self.assertEqual(back, falsy)
        self.assertEqual((back.priority, back.headers, back.correlation_id, back.timestamp), (0, {}, "", 0))
        self.assertIsNone(back.content_type)
        self.assertIsNone(back.message_id)
        nothing = await self.there_and_back(channel, BasicProperties())
        self.assertEqual(nothing, BasicProperties())

    async def test_timestamps(self) -> None:
        """Q-10, peers 18: seconds, milliseconds, and every 64-bit value come through as ints; the link lives."""
        channel = await self.channel()
        name = await self.queue(channel)
        stamps = [0, 1, 2**31, 2**32, 1_700_000_000_000, 253_402_300_800, 2**63 - 1, 2**63, 2**64 - 1]
        for stamp in stamps:
            channel.basic_publish("", name, b"", BasicProperties(timestamp=stamp))
        moment = datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.UTC)
        channel.basic_publish("", name, b"", BasicProperties(timestamp=moment))
        channel.basic_publish("", name, b"", BasicProperties(timestamp=moment.replace(tzinfo=None)))
        await self.until_depth(channel, name, len(stamps) + 2)
        got = [decoded(d).timestamp for d in await self.get_all(channel, name, len(stamps) + 2)]
        self.assertEqual(got[:-2], stamps)
        self.assertEqual(got[-2:], [int(moment.timestamp())] * 2)

    async def test_headers(self) -> None:
        """Q-18, Q-19, Q-24, W-06, W-59, W-72: all kinds of value, nested, with non-ASCII keys (kombu D38)."""
        channel = await self.channel()
        headers = {
            "bool": True,
            "false": False,
            "small": 1,
            "negative": -1,
            "2**31": 2**31,
            "2**32": 2**32,
            "2**63-1": 2**63 - 1,
            "-(2**63)": -(2**63),
            "float": 1.5,
            "decimal": Decimal("12.345"),
            "text": "é",
            "bytes": b"\x00\xff",
            "none": None,
            "list": [1, "two", [3.0, None], {"four": True}],
            "table": {"nested": {"deeper": [1]}},
            "ключ": "значение",
            "empty": {},
            "empty list": [],
        }
        back = await self.there_and_back(channel, BasicProperties(headers=headers))
        self.assertEqual(back.headers, headers)
        self.assertIs(back.headers["bool"], True)
        self.assertIs(type(back.headers["small"]), int)

    async def test_text_that_is_not_utf8(self) -> None:
        """Q-20, W-07, R20, 0.4: bytes that are not UTF-8 come through as they are and can be sent again."""
        channel = await self.channel()
        odd = b"caf\xe9 \xff\xfe".decode("utf-8", "surrogateescape")
        properties = BasicProperties(correlation_id=odd, reply_to=odd, headers={odd: odd})
        back = await self.there_and_back(channel, properties)
        self.assertEqual(back, properties)
        self.assertEqual(await self.there_and_back(channel, back), properties)

    async def test_what_cannot_be_sent(self) -> None:
        """Q-06, Q-08, Q-21, Q-22, R21: refused before a byte is sent, never cut; the channel goes on."""
        channel = await self.channel()
        deep: Any = 1
        for _ in range(40):
            deep = {"x": deep}
        wrong: list[dict[str, Any]] = [
            {"correlation_id": "x" * 256},
            {"correlation_id": "é" * 128},
            {"expiration": 60000},
            {"content_type": b"text/plain"},
            {"delivery_mode": 256},
            {"priority": -1},
            {"timestamp": -1},
            {"timestamp": 2**64},
            {"timestamp": "now"},
            {"headers": {"x": object()}},
            {"headers": {"x" * 256: 1}},
            {"headers": {"x": 2**64}},
            {"headers": {1: 1}},
            {"headers": deep},
            {"headers": [1]},
        ]
        for arguments in wrong:
            try:
                published = channel.basic_publish("", "q", b"", BasicProperties(**arguments))
            except (EncodeError, TypeError):
                continue  # refused even before that
            await self.failure(published, EncodeError)
        self.assertTrue(channel.is_open)
        await channel.queue_declare(exclusive=True)


class ValueServerCases(ValueCases):
    async def test_dead_letter_headers(self) -> None:
        """Q-25: x-death is a list of tables."""
        channel = await self.channel()
        dead = await self.queue(channel)
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead, "x-message-ttl": 1}
        declared = await channel.queue_declare(self.name("source"), exclusive=True, arguments=arguments)
        channel.basic_publish("", declared.queue, b"x", BasicProperties(headers={"mine": 1}))
        await self.until_depth(channel, dead, 1)
        headers = decoded(await self.get(channel, dead)).headers
        assert headers is not None
        self.assertEqual(headers["mine"], 1)
        [death] = headers["x-death"]
        self.assertEqual((death["queue"], death["reason"], death["count"]), (declared.queue, "expired", 1))
        self.assertGreater(death["time"], 1_600_000_000)


class ValuesOverBroker(OverBroker, ValueServerCases):
    pass


class ValuesOverRabbitMQ(OverRabbitMQ, ValueServerCases):
    async def test_poison_from_another_client(self) -> None:
        """0.3, R19, R20, peers 19: tables nested 600 deep, through RabbitMQ: that message alone is undecodable."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel)
        table = b""
        for _ in range(600):
            table = b"\x01xF" + struct.pack(">I", len(table)) + table
        poison = b"\x20\x00" + struct.pack(">I", len(table)) + table
        await self.in_thread(publish_raw, self.node.port, name, [poison, b"\x00\x00"])
        await self.until_depth(channel, name, 2)
        consumer = await channel.basic_consume(name)
        first, second = await consumer.get(), await consumer.get()
        self.assertIsInstance(first.properties, UndecodableProperties)
        self.assertEqual((first.body, second.body), (b"body 0", b"body 1"))
        self.assertEqual(second.properties, BasicProperties())
        first.reject()
        second.ack()
        await channel.basic_qos(1)
        self.assertTrue(connection.is_open)


def publish_raw(port: int, queue: str, property_lists: list[bytes]) -> None:
    """Publish messages with these property bytes from a plain socket: no codec would write them."""
    name = queue.encode()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        reader = sock.makefile("rb")

        def expect(name: str) -> None:
            head = reader.read(7)
            raw = head + reader.read(struct.unpack(">BHI", head)[2] + 1)
            assert frame.unmarshal(raw)[2].name == name

        sock.sendall(b"AMQP\x00\x00\x09\x01")
        expect("Connection.Start")
        sock.sendall(frame.marshal(commands.Connection.StartOk({}, "PLAIN", "\0guest\0guest", "en_US"), 0))
        expect("Connection.Tune")
        sock.sendall(frame.marshal(commands.Connection.TuneOk(10, 131072, 0), 0))
        sock.sendall(frame.marshal(commands.Connection.Open("/"), 0))
        expect("Connection.OpenOk")
        sock.sendall(frame.marshal(commands.Channel.Open(), 1))
        expect("Channel.OpenOk")
        publish = b"\x00\x3c\x00\x28\x00\x00\x00" + bytes([len(name)]) + name + b"\x00"
        for number, properties in enumerate(property_lists):
            body = b"body %d" % number
            header = struct.pack(">HHQ", 60, 0, len(body)) + properties
            for kind, payload in ((1, publish), (2, header), (3, body)):
                sock.sendall(struct.pack(">BHI", kind, 1, len(payload)) + payload + b"\xce")
        sock.sendall(frame.marshal(commands.Channel.Close(200, "", 0, 0), 1))
        expect("Channel.CloseOk")


class ValuesOverPeer(OverPeer, ValueCases):
    async def test_properties_that_cannot_be_decoded(self) -> None:
        """R20, peers 19, F33: unknown kinds, cut tables, overlong lengths: that message only; it can be settled."""
        connection = await self.connect()
        channel = await connection.channel()
        name = await self.queue(channel)
        consumer = await channel.basic_consume(name)

        def with_headers(table: bytes) -> bytes:
            return b"\x20\x00" + struct.pack(">I", len(table)) + table

        deep = b""
        for _ in range(600):
            deep = b"\x01xF" + struct.pack(">I", len(deep)) + deep
        bad = {
            "unknown kind": with_headers(b"\x01xQ\x00"),
            "unknown kind in a list": with_headers(b"\x01xA\x00\x00\x00\x02Q\x00"),
            "table longer than its frame": b"\x20\x00\xff\xff\xff\xff",
            "value longer than its table": with_headers(b"\x01xS\xff\xff\xff\xff"),
            "cut value": with_headers(b"\x01xl\x00\x00"),
            "nested too deep": with_headers(deep),
            "too many items": with_headers(b"\x01xt\x01" * 5000),
            "cut flags": b"\x20",
            "missing property": b"\x80\x00",
        }
        server = self.session.channels[channel.channel_number]
        for why, properties in bad.items():
            server.last_tag += 1
            queue = self.broker.queues[name]
            server.unacked[server.last_tag] = (Message("", name, properties, b"x"), queue, consumer.consumer_tag)
            deliver = commands.Basic.Deliver(consumer.consumer_tag, server.last_tag, False, "", name)
            self.session.send_content(channel.channel_number, deliver, properties, b"the body")
            delivery = await consumer.get()
            self.assertIsInstance(delivery.properties, UndecodableProperties, why)
            assert isinstance(delivery.properties, UndecodableProperties)
            self.assertEqual(delivery.properties.raw, properties, why)
            self.assertEqual(delivery.body, b"the body")
            delivery.reject()
        await channel.basic_qos(1)
        self.assertTrue(connection.is_open)
        self.assertEqual(server.unacked, {})

    async def test_every_kind_that_others_send(self) -> None:
        """Q-18, peers 19, W-62: t b B s u I i l f d D S A T F V x, as Java, Go and the rest write them (kombu D38)."""
        channel = await self.channel()
        name = await self.queue(channel)
        kinds: list[tuple[bytes, Any]] = [
            (b"t\x01", True),
            (b"b\xff", -1),
            (b"B\xff", 255),
            (b"s\xff\xfe", -2),
            (b"u\xff\xfe", 65534),
            (b"I\xff\xff\xff\xfd", -3),
            (b"i\xff\xff\xff\xfd", 2**32 - 3),
            (b"l" + struct.pack(">q", -4), -4),
            (b"f" + struct.pack(">f", 1.5), 1.5),
            (b"d" + struct.pack(">d", 2.5), 2.5),
            (b"D\x02" + struct.pack(">i", 314), Decimal("3.14")),
            (b"S\x00\x00\x00\x02hi", "hi"),
            (b"A\x00\x00\x00\x02b\x01", [1]),
            (b"T" + struct.pack(">Q", 2**63), 2**63),
            (b"F\x00\x00\x00\x04\x01xb\x02", {"x": 2}),
            (b"V", None),
            (b"x\x00\x00\x00\x01\xff", b"\xff"),
        ]
        for encoded, value in kinds:
            table = b"\x01k" + encoded
            properties = b"\x20\x00" + struct.pack(">I", len(table)) + table
            self.broker.queues[name].messages.append(Message("", name, properties, b""))
            self.assertEqual(decoded(await self.get(channel, name)).headers, {"k": value})

    async def test_a_message_above_the_limit(self) -> None:
        """R19, 4.4: refused on its content header, before the body is read: typed, and the connection ends."""
        connection = await self.connect(max_message_size=1000)
        channel = await connection.channel()
        name = await self.queue(channel, bytes(1000))
        self.assertEqual(len((await self.get(channel, name)).body), 1000)
        header = struct.pack(">HHQ", 60, 0, 1001) + b"\x00\x00"

        def too_much(session: Session, number: int, method: Any) -> bool:
            get_ok = frame.marshal(commands.Basic.GetOk(9, False, "", name, 0), number)
            session.write(get_ok + struct.pack(">BHI", 2, number, len(header)) + header + b"\xce")
            return True

        self.broker.on["Basic.Get"] = too_much
        error = await self.failure(channel.basic_get(name), RemoteProtocolError)
        self.assertIn("1001", str(error))
        self.assertIs(await connection.closed, error)

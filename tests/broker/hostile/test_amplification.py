"""A few octets that cost the broker much: time of the loop that everybody shares, or memory beyond what was sent."""

from __future__ import annotations

import tracemalloc
from itertools import product

from tests.broker.hostile.beside import BesideCase, body_frame, header_frame, method_frame, short_string, timed
from txmsg.broker.vhost.routing import MAX_STEPS
from txmsg.wire.methods import basic, connection, exchange, queue
from txmsg.wire.properties import BasicProperties


class TimeTests(BesideCase):
    """No single frame keeps the loop for long (R36, R32): each limit is some ten times what it takes."""

    def test_carbon_copies(self) -> None:
        """A thousand keys in CC, each of which leads to all the bindings there are, are 506 and no stall."""
        peer = self.attacker()
        declares = [queue.Declare(queue=f"q{number}", exclusive=True, nowait=True) for number in range(2000)]
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in declares))
        for source in ("amq.topic", "amq.fanout", "amq.headers"):
            binds = [
                queue.Bind(queue=f"q{number}", exchange=source, routing_key="#", nowait=True) for number in range(2000)
            ]
            self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in binds))
        properties = BasicProperties(headers={"CC": [f"k{number}" for number in range(1000)]})
        self.assertGreater(2000 * 1000, MAX_STEPS)

        def publish(source: str, number: int) -> None:
            self.feed(peer, b"".join(peer.wire.encode_publish(number, source, "k", False, properties, b"x")))

        with timed(self, 1.5):
            # The key means nothing to these: they are asked once.
            publish("amq.fanout", 1)
            publish("amq.headers", 1)
            self.assertEqual(self.vhost.queues["q7"].message_count, 2)
            publish("amq.topic", 1)
        self.assertEqual(
            self.closed(peer),
            ("channel", 506, "RESOURCE_ERROR - too many routes from exchange 'amq.topic' in vhost '/' to follow"),
        )
        self.leave_no_trace(peer)

    def test_carbon_copies_from_exchange_to_exchange(self) -> None:
        """The same through exchanges, each of which leads to all the others."""
        peer = self.attacker()
        names = [f"x{number}" for number in range(40)]
        declares = [exchange.Declare(exchange=name, type="direct", auto_delete=True, nowait=True) for name in names]
        binds = [
            exchange.Bind(destination=to, source=source, routing_key=f"k{key}", nowait=True)
            for source in names
            for to in names
            for key in range(5)
        ]
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in [*declares, *binds]))
        properties = BasicProperties(headers={"CC": [f"k{key % 5}" + " " * (key // 5) for key in range(1000)]})
        with timed(self, 1.0):
            self.feed(peer, b"".join(peer.wire.encode_publish(1, "x0", "k0", False, properties, b"x")))
        deletes = [exchange.Delete(exchange=name, nowait=True) for name in names]
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in deletes))
        self.leave_no_trace(peer)

    def test_carbon_copies_that_match_nothing(self) -> None:
        """A thousand keys in CC, each of which is compared with hundreds of patterns in vain: 506, too."""
        peer = self.attacker()
        patterns = ["#." + ".".join(words) + ".z" for words in product("a*#", repeat=6)]
        binds = [queue.Bind(queue="q", exchange="amq.topic", routing_key=key, nowait=True) for key in patterns]
        peer.declare("q", auto_delete=True, exclusive=True)
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in binds))
        key = ".".join("a" * 60)
        with timed(self, 0.5):
            self.feed(peer, b"".join(peer.wire.encode_publish(1, "amq.topic", key, False, BasicProperties(), b"x")))
            properties = BasicProperties(headers={"CC": [f"{key}{number}" for number in range(900)]})
            self.feed(peer, b"".join(peer.wire.encode_publish(1, "amq.topic", key, False, properties, b"x")))
        self.assertEqual(self.closed(peer)[:2], ("channel", 506))
        self.leave_no_trace(peer)

    def test_carbon_copies_to_empty_exchanges(self) -> None:
        """Each of a thousand keys is looked up in each of hundreds of exchanges, and leads nowhere."""
        peer = self.attacker(channels=2)
        declares = [exchange.Declare(exchange=f"x{number}", auto_delete=True, nowait=True) for number in range(900)]
        binds = [exchange.Bind(destination=f"x{number}", source="amq.fanout", nowait=True) for number in range(900)]
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in [*declares, *binds]))
        properties = BasicProperties(headers={"CC": [f"k{number}" for number in range(1000)]})
        self.feed(peer, b"".join(peer.wire.encode_publish(1, "amq.fanout", "k", False, properties, b"x")))
        self.assertEqual(self.closed(peer)[:2], ("channel", 506))
        deletes = [exchange.Delete(exchange=f"x{number}", nowait=True) for number in range(900)]
        self.feed(peer, b"".join(peer.wire.send_method(2, method) for method in deletes))
        self.leave_no_trace(peer)

    def test_circles(self) -> None:
        """Alternate exchanges that lead to each other, and a chain of auto-delete exchanges, end without recursion."""
        peer = self.attacker()
        count = 900
        declares = [
            exchange.Declare(
                exchange=f"x{number}",
                type="fanout",
                auto_delete=True,
                nowait=True,
                arguments={"alternate-exchange": f"x{(number + 1) % count}"},
            )
            for number in range(count)
        ]
        binds = [
            exchange.Bind(destination=f"x{number + 1}", source=f"x{number}", nowait=True) for number in range(count - 1)
        ]
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in declares))
        with timed(self, 1.0):
            peer.publish(b"x", "", exchange="x0")
        self.feed(peer, b"".join(peer.wire.send_method(1, method) for method in binds))
        peer.declare("end", auto_delete=True)
        peer.send(queue.Bind(queue="end", exchange=f"x{count - 1}"), 1)
        peer.expect(queue.BindOk, 1)
        peer.consume("end")
        with timed(self, 1.0):
            peer.send(basic.Cancel(consumer_tag="", nowait=True), 1)
            peer.lose()
        self.leave_no_trace(peer)

    def test_thousands_of_consumers(self) -> None:
        """As many consumers of one queue as one connection may have, each with a priority of its own, go at once."""
        peer = self.attacker(channels=32)
        peer.declare("q", auto_delete=True, arguments={"x-single-active-consumer": True})
        octets = [
            peer.wire.send_method(
                number, basic.Consume(queue="q", nowait=True, arguments={"x-priority": number * 256 + one})
            )
            for number in range(1, 33)
            for one in range(256)
        ]
        with timed(self, 10.0):
            self.feed(peer, b"".join(octets))
            self.assertEqual(self.vhost.queues["q"].consumer_count, 32 * 256)
            peer.lose()
        self.leave_no_trace(peer)

    def test_recover(self) -> None:
        """basic.recover takes 12 octets and delivers everything again: one at a time, to whoever reads it."""
        peer = self.attacker()
        peer.declare("q", auto_delete=True)
        message = b"".join(peer.wire.encode_publish(1, "", "q", False, BasicProperties(), b"x"))
        self.feed(peer, message * 5000)
        peer.consume("q")
        self.settle(peer)
        self.assertEqual(self.vhost.queues["q"].unacked_count, 5000)
        recover = peer.wire.send_method(1, basic.Recover(requeue=True))
        with timed(self, 10.0):
            peer.server.dataReceived(recover * 100)
            # It has not even begun to read: the neighbour's turn comes in between.
            self.round_trip()
        self.leave_no_trace(peer)


class MemoryTests(BesideCase):
    """What is kept costs about what was sent."""

    def test_arguments_of_consumers(self) -> None:
        """4.4, topology bytes: consumers keep their arguments, so these count, and 406 is the end of it."""
        peer = self.attacker(channels=16)
        peer.declare("q", auto_delete=True)
        arguments = {f"k{number:04}": "v" * 250 for number in range(400)}
        for number in range(1, 17):
            octets = [
                peer.wire.send_method(number, basic.Consume(queue="q", nowait=True, arguments=arguments))
                for _ in range(256)
            ]
            self.feed(peer, b"".join(octets))
            if self.closed(peer)[0] == "channel":
                break
        self.assertEqual(self.closed(peer)[:2], ("channel", 406))
        self.assertIn("what is declared in vhost '/' takes more than", self.closed(peer)[2])
        self.assertLess(self.vhost.queues["q"].consumer_count, 1500)
        self.leave_no_trace(peer)

    def test_properties_and_keys(self) -> None:
        """Small bodies with large properties and long keys cost what is counted (C7.3), not many times as much."""
        peer = self.attacker()
        peer.declare("q", exclusive=True)
        peer.send(queue.Bind(queue="q", exchange="amq.topic", routing_key="#"), 1)
        peer.expect(queue.BindOk, 1)
        names = ("content_type", "content_encoding", "correlation_id", "reply_to", "message_id", "type", "app_id")

        def publish(count: int) -> None:
            for number in range(count):
                text = f"{number:0240}"
                values = dict.fromkeys(names, text)
                parts = peer.wire.encode_publish(1, "amq.topic", text, False, BasicProperties(**values), b"")  # type: ignore[arg-type]
                peer.send_raw(b"".join(parts))

        publish(1500)  # fills what the wire remembers
        before = self.broker.usage.bytes
        tracemalloc.start()
        try:
            publish(1500)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        counted = self.broker.usage.bytes - before
        self.assertGreater(counted, 1500 * 8 * 240)
        self.assertLess(held, 2 * counted)
        self.leave_no_trace(peer)

    def test_body_in_single_octets(self) -> None:
        """A large body in frames of one octet each takes what it has, and not an object for each of them."""
        peer = self.attacker()
        publish = method_frame(1, 60, 40, b"\0\0" + short_string(b"") + short_string(b"q") + b"\0")
        peer.send_raw(publish + header_frame(1, 300_000))
        octets = body_frame(1, b"x") * 8000
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for _ in range(5):
                peer.send_raw(octets)
            held = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        self.assertEqual(self.broker.usage.bytes, 40_000)
        self.assertLess(held, 500_000)
        self.leave_no_trace(peer)

    def test_many_unfinished_contents(self) -> None:
        """Bodies that never become whole: 506 beyond twice the largest message, on however many channels."""
        peer = self.attacker(channels=8)
        publish = b"\0\0" + short_string(b"") + short_string(b"q") + b"\0"
        size = self.broker.limits.max_message_size
        part = body_frame(1, bytes(131064))[7:]
        for number in range(1, 9):
            peer.send_raw(method_frame(number, 60, 40, publish) + header_frame(number, size))
            for _ in range(40):
                if not peer.is_lost and peer.server.is_open:
                    peer.send_raw(body_frame(number, b"")[:3] + (131064).to_bytes(4, "big") + part)
        self.assertEqual(self.closed(peer)[:2], ("connection", 506))
        self.assertEqual(self.broker.usage.bytes, 0)
        peer.send(connection.CloseOk())
        self.leave_no_trace(peer)

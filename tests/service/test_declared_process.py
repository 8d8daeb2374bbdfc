"""Declared handlers under twistd, in child processes, on an embedded broker in another."""

from __future__ import annotations

import json
from typing import Any

import pika

from tests.service.children import Child, ChildTestCase
from txmsg.testing import BrokerProcess

APP = """
import threading
from handlers import seen
from txmsg.messaging import Exchange, Queue
from txmsg.service import consumes

SHOP = Exchange("shop", "topic")

@consumes(Queue("orders", SHOP, "order.*"), accept=["json"], prefetch_count=10)
def order(body, message):
    seen("order", body["id"], message.delivery_info["routing_key"])

@consumes(Queue("prices", SHOP, "price"), serializer="json", threads=2)
def price(body, message, producer):
    assert threading.current_thread() is not threading.main_thread()
    producer.reply(message, {"of": body, "price": 42})
    message.ack()
    seen("price", body)

async def stock(body, message):
    seen("stock", body)
"""

TABLES = """
drain = 5

[[consumer]]
handler = "shop:stock"
queue = "stock"
exchange = "shop"
exchange_type = "topic"
routing_key = ["stock.in", "stock.out"]
accept = []
on_decode_error = "dead_letter"
"""

JSON = pika.BasicProperties(content_type="application/json")


class DeclaredProcessTests(ChildTestCase):
    def setUp(self) -> None:
        """A broker of its own, in place of the RabbitMQ node."""
        broker = BrokerProcess().start()
        self.addCleanup(broker.close)
        self.node: Any = broker
        self.children: list[Child] = []
        self.addCleanup(self.end_children)
        self.queue = ""

    def send(self, key: str, body: bytes, properties: pika.BasicProperties = JSON) -> None:
        with self.pika() as channel:
            channel.basic_publish("shop", key, body, properties)

    def started(self, *arguments: str, consumers: int, **files: str) -> Child:
        child = self.twistd(*arguments, files={"shop.py": APP, "shop.toml": TABLES, **files})
        child.until(lambda: child.output.count("consuming from queue") == consumers)
        return child

    def refused(self, *arguments: str, **files: str) -> str:
        child = self.twistd(*arguments, files={"shop.py": APP, "shop.toml": TABLES, **files})
        self.assertIn(child.wait(), (64, 78), child.output)
        (line,) = child.errors
        self.assertEqual(child.seen, ["atexit"] if child.seen else [])
        return line

    def test_an_app_and_tables(self) -> None:
        """Issue: handlers declared in Python and in TOML, in one process; threads, a reply, a refused body; SIGTERM."""
        child = self.started("--config", "shop.toml", "--app", "shop", consumers=3)
        with self.pika() as channel:
            channel.queue_declare("answers")
        self.send("order.new", b'{"id": 1}')
        self.send("order.new", b"<order/>", pika.BasicProperties(content_type="application/xml"))
        self.send("price", b'"tea"', pika.BasicProperties(content_type="application/json", reply_to="answers"))
        self.send("stock.in", b'"json"')
        self.send("stock.out", b"text", pika.BasicProperties(content_type="text/plain", content_encoding="utf-8"))
        child.until_seen_so_many(3)
        self.assertEqual(sorted(child.seen), ["order 1 order.new", "price tea", "stock text"])
        child.until(lambda: self.ready("stock.dead") == 1)
        with self.pika() as channel:
            _, properties, body = channel.basic_get("answers", auto_ack=True)
        self.assertEqual((json.loads(body), properties.content_type), ({"of": "tea", "price": 42}, "application/json"))
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)
        self.assertEqual(child.errors, [])
        self.assertEqual([self.ready(queue) for queue in ("orders", "prices", "stock")], [0, 0, 0])
        self.assertIn("message rejected, its body is refused: refusing to decode a body of type", child.output)

    def test_one_handler(self) -> None:
        """--handler names a declared one, too."""
        child = self.started("--handler", "shop:order", consumers=1)
        self.send("order.new", b'{"id": 7}')
        child.until_seen("order 7 order.new")
        child.signal()
        self.assertEqual(child.wait(), 0, child.output)

    def test_mistakes_are_one_line(self) -> None:
        """Issue: bad configuration is one clear line on the terminal, before the process is a daemon.

        What else there is, is in test_plan.py and test_tables.py.
        """
        app = APP.replace('accept=["json"]', 'accept=["jsn"]')
        line = self.refused("--app", "shop", **{"shop.py": app})
        self.assertIn("DeclaredConsumer of orders with order: ", line)
        self.assertIn("jsn", line)
        tables = TABLES.replace('queue = "stock"\n', "")
        line = self.refused("--config", "shop.toml", **{"shop.toml": tables})
        self.assertIn("[[consumer]] 1 in shop.toml: key 'queue' is required (exit code 78)", line)

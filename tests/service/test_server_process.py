"""RPC servers and Celery workers under twistd, in child processes, on an embedded broker in another."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pika

from tests.service.children import Child, ChildTestCase
from txmsg.rpc.celery import build_task
from txmsg.testing import BrokerProcess

SERVERS = """
import os, time
from handlers import later, seen
from txmsg.messaging import Queue
from txmsg.rpc import RPCServer
from txmsg.rpc.celery.worker import CeleryWorker, Tasks
from txmsg.service import consumes

def make(connection):
    server = RPCServer(connection, "prices")

    @server.register
    def total(amounts):
        return sum(amounts)

    @server.register
    async def slow(seconds):
        seen("begin", seconds)
        await later(seconds)
        seen("end", seconds)
        return "done"

    return server

own = RPCServer(os.environ["TXMSG_URL"], "own")

@own.register
def ping():
    return "pong"

tasks = Tasks()

@tasks.task(name="shop.add")
def add(x, y):
    return x + y

@tasks.task(name="shop.slow")
async def slow(seconds):
    seen("begin", seconds)
    await later(seconds)
    seen("end", seconds)
    return "done"

@tasks.task(name="shop.block", thread=True)
def block():
    seen("blocked")
    time.sleep(60)

def worker(connection):
    return CeleryWorker(connection, tasks, "mail", acks_late=True)

@consumes(Queue("orders"))
def order(body, message):
    seen("order", body)
"""

FILE = """
rpc = ["servers:make", "servers:own"]
celery = "servers:tasks"
app = "servers"
drain = 5
"""


class Peer:
    """A caller, and a client of Celery's wire format, that block."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.channel = connection.channel()
        self.replies: dict[str, Any] = {}
        self.queue = str(uuid4())
        self.channel.queue_declare(self.queue, exclusive=True)
        self.channel.basic_consume("amq.rabbitmq.reply-to", self._received, auto_ack=True)
        self.channel.basic_consume(self.queue, self._received, auto_ack=True)

    def _received(self, _channel: Any, _method: Any, properties: Any, body: bytes) -> None:
        self.replies[properties.correlation_id] = json.loads(body)

    def call(self, queue: str, method: str, *args: Any) -> str:
        """Send a request; the id of the reply."""
        wanted = str(uuid4())
        properties = pika.BasicProperties(
            content_type="application/json", reply_to="amq.rabbitmq.reply-to", correlation_id=wanted
        )
        self.channel.basic_publish("", queue, json.dumps({"method": method, "args": args}).encode(), properties)
        return wanted

    def send_task(self, queue: str, name: str, *args: Any) -> str:
        """Send a task as Celery does; its id."""
        message = build_task(name, args, reply_to=self.queue)
        properties = pika.BasicProperties(**dict(message.properties))
        self.channel.basic_publish("", queue, message.body, properties)
        return message.task_id

    def reply(self, wanted: str, limit: float = 20.0) -> Any:
        """What has come for an id."""
        deadline = time.monotonic() + limit
        while wanted not in self.replies:
            assert time.monotonic() < deadline, "there is no reply"
            self.connection.process_data_events(0.05)
        return self.replies.pop(wanted)


class ServerProcessTests(ChildTestCase):
    def setUp(self) -> None:
        """A broker of its own, in place of the RabbitMQ node."""
        broker = BrokerProcess().start()
        self.addCleanup(broker.close)
        self.node: Any = broker
        self.children: list[Child] = []
        self.addCleanup(self.end_children)
        self.queue = ""

    @contextlib.contextmanager
    def peer(self) -> Iterator[Peer]:
        connection = pika.BlockingConnection(pika.URLParameters(self.node.url))
        try:
            yield Peer(connection)
        finally:
            with contextlib.suppress(pika.exceptions.AMQPError):  # a test may have closed it
                connection.close()

    def started(self, *arguments: str, servers: int = 1, **environment: Any) -> Child:
        child = self.twistd(*arguments, files={"servers.py": SERVERS, "servers.toml": FILE}, **environment)
        child.until(lambda: child.output.count(" serves ") == servers)
        return child

    def ended(self, child: Child, code: int = 0) -> None:
        self.assertEqual(child.wait(), code, child.output)
        self.assertNotIn("Traceback", child.output)
        self.assertNotIn("Unhandled", child.output)

    def test_a_call_in_the_middle(self) -> None:
        """Issue 7, R30: SIGTERM while a function is at work: its caller has its reply, and the process ends with 0."""
        child = self.started("--rpc", "servers:make")
        with self.peer() as peer:
            self.assertEqual(peer.reply(peer.call("prices", "total", [1, 2])), {"result": 3})
            slow = peer.call("prices", "slow", 0.6)
            child.until_seen("begin 0.6")
            child.signal()
            child.until(lambda: "stopping the RPC server servers:make" in child.output)
            late = peer.call("prices", "total", [4])
            self.assertEqual(peer.reply(slow), {"result": "done"})
            self.ended(child)
            self.assertNotIn(late, peer.replies)
            self.assertEqual(self.ready("prices"), 1, "what was not begun is for another server")
        self.assertEqual(child.errors, [])
        self.assertIn("serves slow, total at queue 'prices'", child.output)

    def test_a_call_that_does_not_end(self) -> None:
        """R22, R30: past the deadline it goes back to the queue, and the code says so; a second signal is that."""
        for how in ("deadline", "signal"):
            with self.subTest(how):
                child = self.started("--rpc", "servers:make", "--drain", "1" if how == "deadline" else "60")
                with self.peer() as peer:
                    peer.call("prices", "slow", 120)
                    child.until_seen("begin 120")
                    child.signal()
                    if how == "signal":
                        child.until(lambda child=child: "stopping the RPC server" in child.output)  # type: ignore[misc]
                        child.signal()
                    self.ended(child, 75)
                    self.assertIn("1 of the RPC server servers:make did not finish in time", child.errors[0])
                    self.assertEqual(self.ready("prices"), 1)
                    peer.channel.queue_delete("prices")

    def test_a_task_in_the_middle(self) -> None:
        """Issue 7, R30: the same for a Celery worker, whose client has its result."""
        child = self.started("--celery", "servers:tasks")
        with self.peer() as peer:
            self.assertEqual(peer.reply(peer.send_task("celery", "shop.add", 2, 3))["result"], 5)
            slow = peer.send_task("celery", "shop.slow", 0.6)
            child.until_seen("begin 0.6")
            child.signal()
            reply = peer.reply(slow)
            self.assertEqual((reply["status"], reply["result"]), ("SUCCESS", "done"))
            self.ended(child)
        self.assertEqual(child.errors, [])

    def test_a_task_that_does_not_end(self) -> None:
        """R22: with late acks it goes back; a worker that a function makes has the queue that the function says."""
        child = self.started("--celery", "servers:worker", "--drain=1")
        with self.peer() as peer:
            peer.send_task("mail", "shop.slow", 120)
            child.until_seen("begin 120")
            child.signal()
            self.ended(child, 75)
            self.assertEqual(self.ready("mail"), 1)

    def test_a_task_that_blocks_a_thread(self) -> None:
        """R30: a thread that does not end does not keep the process."""
        child = self.started("--celery", "servers:tasks", "--drain=1")
        with self.peer() as peer:
            task = peer.send_task("celery", "shop.block")
            child.until_seen("blocked")
            child.signal()
            reply = peer.reply(task)
            self.assertEqual((reply["status"], reply["result"]["exc_type"]), ("FAILURE", "WorkerLostError"))
            self.assertEqual(child.wait(30), 75, child.output)

    def test_all_in_one(self) -> None:
        """Issue 7: handlers, RPC servers and Celery tasks in one process, from one file."""
        child = self.started("--config", "servers.toml", servers=3)
        child.until_consuming()
        with self.peer() as peer:
            waiting = [peer.call("prices", "total", [1]), peer.call("own", "ping")]
            self.assertEqual([peer.reply(each) for each in waiting], [{"result": 1}, {"result": "pong"}])
            self.assertEqual(peer.reply(peer.send_task("celery", "shop.add", 2, 3))["result"], 5)
            self.queue = "orders"
            self.publish('"tea"', content_type="application/json")
            child.until_seen("order tea")
            slow = peer.call("prices", "slow", 0.5)
            child.until_seen_so_many(2)
            child.signal()
            self.assertEqual(peer.reply(slow), {"result": "done"})
            self.ended(child)

    def test_one_ends_and_the_others_are_stopped(self) -> None:
        """R33: a process of which a part is missing is none: its supervisor is to know."""
        with self.pika() as channel:
            channel.queue_declare("prices", durable=False)
        child = self.twistd("--config", "servers.toml", files={"servers.py": SERVERS, "servers.toml": FILE})
        self.ended(child, 10)
        self.assertIn("the RPC server servers:make cannot start: ", child.errors[0])
        self.assertIn("give the server a Queue that has them", child.errors[0])

    def test_the_settings_of_the_connection(self) -> None:
        """What a function makes of a connection has the service's user; a refused login is one line and 17."""
        self.node.add_user("clerk", "s3cret")
        child = self.started("--rpc", "servers:make", TXMSG_USERNAME="clerk", TXMSG_PASSWORD="s3cret")
        with self.peer() as peer:
            self.assertEqual(peer.reply(peer.call("prices", "total", [1])), {"result": 1})
        child.signal()
        self.ended(child)
        self.assertNotIn("s3cret", child.output)
        child = self.twistd(
            "--rpc",
            "servers:make",
            files={"servers.py": SERVERS},
            TXMSG_USERNAME="clerk",
            TXMSG_PASSWORD="wr0ng",
        )
        self.ended(child, 17)
        (line,) = child.errors
        self.assertIn("check the user name and password", line)
        self.assertNotIn("wr0ng", line + child.output)

    def test_a_connection_that_is_closed(self) -> None:
        """R9, R22: it comes back; what was at work is delivered again, and both kinds serve as before."""
        child = self.started("--config", "servers.toml", servers=3)
        with self.peer() as peer:
            peer.call("prices", "slow", 0.3)
            peer.send_task("celery", "shop.slow", 0.3)
            child.until_seen_so_many(2)
            self.node.fault("close_connection")
        child.until(lambda: child.output.count("is connected again") >= 3)
        with self.peer() as peer:
            self.assertEqual(peer.reply(peer.call("prices", "total", [1, 2])), {"result": 3})
            self.assertEqual(peer.reply(peer.send_task("celery", "shop.add", 2, 3))["result"], 5)
            child.signal()
            self.ended(child)

    def test_stopped_during_an_outage(self) -> None:
        """R30: a stop does not wait for a broker; nothing is at work, so the code is 0."""
        child = self.started("--config", "servers.toml", servers=3)
        child.until_consuming()
        self.node.close()
        child.until(lambda: child.output.count("is lost: ") >= 2)
        begin = time.monotonic()
        child.signal()
        self.ended(child)
        self.assertLess(time.monotonic() - begin, 15)

    def test_the_broker_does_not_come_back(self) -> None:
        """R12: an outage that is longer than recovery_limit is the end, with 14."""
        child = self.started("--rpc", "servers:make", "--recovery-limit", "2")
        self.node.close()
        self.ended(child, 14)
        self.assertIn("has ended", child.errors[0])

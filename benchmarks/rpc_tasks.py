"""The processes that benchmarks/rpc.py starts: a server that adds two numbers, and a client that asks it to.

Each library in the way that its own documentation shows, but all over direct reply-to where the choice is ours, and
with JSON (aio-pika's RPC pattern pickles, and has a queue of its own).  A server prints "ready"; it ends with its
standard input.  A client prints one line of JSON: the seconds of each of `--one` calls one after the other, and the
seconds and the CPU of `--many` calls with `--in-flight` of them at a time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections import deque
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks.task import URL_VARIABLE

__all__ = ["main"]

QUEUE = "benchmarks.rpc"
DIRECT = "amq.rabbitmq.reply-to"
PREFETCH = 100
#: Calls before the clock starts.
WARM_UP = 200


def add(a: int, b: int) -> int:
    """What is called."""
    return a + b


def ready() -> None:
    """Tell the parent."""
    print("ready", flush=True)


class Report:
    """Takes the times of a client."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.one: list[float] = []
        self._wall = self._cpu = 0.0
        self.many = self.cpu = 0.0

    def begin(self) -> None:
        """Of the calls in flight together."""
        self._cpu = _cpu()
        self._wall = time.perf_counter()

    def end(self) -> None:
        """Of these."""
        self.many = time.perf_counter() - self._wall
        self.cpu = _cpu() - self._cpu

    def print(self) -> None:
        """For the parent."""
        print(json.dumps({"one": self.one, "many": self.many, "cpu": self.cpu}), flush=True)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _blocking(options: argparse.Namespace, call: Callable[[int], int], many: Callable[[int, int], None]) -> None:
    """A client whose `call(n)` waits for n + n, and whose `many(count, in_flight)` makes that many."""
    report = Report(options)
    for n in range(WARM_UP):
        assert call(n) == 2 * n
    for n in range(options.one):
        started = time.perf_counter()
        call(n)
        report.one.append(time.perf_counter() - started)
    report.begin()
    many(options.many, options.in_flight)
    report.end()
    report.print()


# -- txmsg -----------------------------------------------------------------------------------------


def txmsg_server(options: argparse.Namespace) -> None:
    """RPCServer."""
    from twisted.internet import stdio, task
    from twisted.internet.defer import Deferred
    from twisted.internet.protocol import Protocol

    from txmsg.rpc import RPCServer

    class UntilEnd(Protocol):
        def __init__(self, done: Deferred[None]) -> None:
            self.done = done

        def connectionLost(self, reason: Any = None) -> None:
            self.done.callback(None)

    async def serve(reactor: Any) -> None:
        server = RPCServer(os.environ[URL_VARIABLE], QUEUE, concurrency=PREFETCH)
        server.register(add)
        await server.start()
        done: Deferred[None] = Deferred()
        stdio.StandardIO(UntilEnd(done))
        ready()
        await done
        await server.stop()

    _react(options, task.react, lambda reactor: Deferred.fromCoroutine(serve(reactor)))


def _react(options: argparse.Namespace, react: Any, run: Any) -> None:
    if not options.profile:
        react(run)
        return
    import cProfile

    profile = cProfile.Profile()
    try:
        profile.runcall(react, run)
    finally:
        profile.dump_stats(options.profile)


def txmsg_client(options: argparse.Namespace) -> None:
    """RPCClient."""
    from twisted.internet import task
    from twisted.internet.defer import Deferred

    from txmsg.rpc import RPCClient

    async def run(reactor: Any) -> None:
        async with RPCClient(os.environ[URL_VARIABLE]) as client:
            report = Report(options)
            for n in range(WARM_UP):
                assert await client.call(QUEUE, "add", n, n) == 2 * n
            for n in range(options.one):
                started = time.perf_counter()
                await client.call(QUEUE, "add", n, n)
                report.one.append(time.perf_counter() - started)
            report.begin()
            await in_flight(client, options.many, options.in_flight)
            report.end()
            report.print()

    def in_flight(client: Any, count: int, most: int) -> Any:
        """Each answer is followed by the next call."""
        done: Deferred[None] = Deferred()
        left, waiting = count - most, most

        def answered(result: Any) -> None:
            nonlocal left, waiting
            if left:
                left -= 1
                client.call(QUEUE, "add", left, left).addCallbacks(answered, done.errback)
                return
            waiting -= 1
            if not waiting:
                done.callback(None)

        for n in range(most):
            client.call(QUEUE, "add", n, n).addCallbacks(answered, done.errback)
        return done

    _react(options, task.react, lambda reactor: Deferred.fromCoroutine(run(reactor)))


# -- aio-pika --------------------------------------------------------------------------------------


async def _add(a: int, b: int) -> int:
    return a + b


def aio_pika_server(options: argparse.Namespace) -> None:
    """aio_pika.patterns.RPC."""
    aio_pika: Any = import_module("aio_pika")
    patterns: Any = import_module("aio_pika.patterns")

    async def serve() -> None:
        connection = await aio_pika.connect(os.environ[URL_VARIABLE])
        async with connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            rpc = await patterns.RPC.create(channel)
            await rpc.register(QUEUE + ".aio", _add, auto_delete=True)
            ready()
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

    asyncio.run(serve())


def aio_pika_client(options: argparse.Namespace) -> None:
    """aio_pika.patterns.RPC."""
    aio_pika: Any = import_module("aio_pika")
    patterns: Any = import_module("aio_pika.patterns")

    async def run() -> None:
        connection = await aio_pika.connect(os.environ[URL_VARIABLE])
        async with connection:
            rpc = await patterns.RPC.create(await connection.channel())
            report = Report(options)

            async def call(n: int) -> Any:
                return await rpc.call(QUEUE + ".aio", {"a": n, "b": n})

            for n in range(WARM_UP):
                assert await call(n) == 2 * n
            for n in range(options.one):
                started = time.perf_counter()
                await call(n)
                report.one.append(time.perf_counter() - started)
            numbers = iter(range(options.many))

            async def worker() -> None:
                for n in numbers:
                    await call(n)

            report.begin()
            await asyncio.gather(*(worker() for _ in range(options.in_flight)))
            report.end()
            report.print()

    asyncio.run(run())


# -- pika ------------------------------------------------------------------------------------------


def _pika() -> Any:
    pika: Any = import_module("pika")

    return pika.BlockingConnection(pika.URLParameters(os.environ[URL_VARIABLE]))


def pika_server(options: argparse.Namespace) -> None:
    """As RabbitMQ's tutorial six."""
    pika: Any = import_module("pika")

    channel = _pika().channel()
    channel.queue_declare(QUEUE + ".pika")
    channel.basic_qos(prefetch_count=PREFETCH)

    def request(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        reply = json.dumps({"result": add(*json.loads(body)["args"])}).encode()
        channel.basic_publish(
            "", properties.reply_to, reply, pika.BasicProperties(correlation_id=properties.correlation_id)
        )
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(QUEUE + ".pika", request)
    ready()
    channel.start_consuming()


def pika_client(options: argparse.Namespace) -> None:
    """As RabbitMQ's tutorial six."""
    import uuid

    pika: Any = import_module("pika")

    connection = _pika()
    channel = connection.channel()
    answers: dict[str, int] = {}

    def answered(channel: Any, method: Any, properties: Any, body: bytes) -> None:
        answers[properties.correlation_id] = json.loads(body)["result"]

    channel.basic_consume(DIRECT, answered, auto_ack=True)

    def ask(n: int) -> str:
        correlation_id = str(uuid.uuid4())
        channel.basic_publish(
            "",
            QUEUE + ".pika",
            json.dumps({"method": "add", "args": [n, n]}).encode(),
            pika.BasicProperties(reply_to=DIRECT, correlation_id=correlation_id),
        )
        return correlation_id

    def call(n: int) -> int:
        correlation_id = ask(n)
        while correlation_id not in answers:
            connection.process_data_events(time_limit=None)
        return answers.pop(correlation_id)

    def many(count: int, in_flight: int) -> None:
        asked = done = 0
        while done < count:
            while asked < count and asked - done < in_flight:
                ask(asked)
                asked += 1
            if not answers:
                connection.process_data_events(time_limit=None)
            done += len(answers)
            answers.clear()

    _blocking(options, call, many)


# -- Kombu -----------------------------------------------------------------------------------------


def kombu_server(options: argparse.Namespace) -> None:
    """A Consumer and a Producer over pyamqp."""
    kombu: Any = import_module("kombu")

    connection = kombu.Connection(os.environ[URL_VARIABLE])
    channel = connection.channel()
    producer = kombu.Producer(channel)
    requests: deque[tuple[Any, Any]] = deque()

    # A publish reads what has come: in the callback it would call itself, until Python's stack is full.
    def request(body: Any, message: Any) -> None:
        requests.append((body, message))

    queue = kombu.Queue(QUEUE + ".kombu", durable=False)
    with kombu.Consumer(channel, [queue], callbacks=[request], accept=["json"], prefetch_count=PREFETCH):
        ready()
        while True:
            connection.drain_events()
            while requests:
                body, message = requests.popleft()
                producer.publish(
                    {"result": add(*body["args"])},
                    routing_key=message.properties["reply_to"],
                    correlation_id=message.properties["correlation_id"],
                    delivery_mode=1,
                )
                message.ack()


def kombu_client(options: argparse.Namespace) -> None:
    """A Producer, and a Consumer of direct replies, over pyamqp."""
    kombu: Any = import_module("kombu")

    connection = kombu.Connection(os.environ[URL_VARIABLE])
    channel = connection.channel()
    producer = kombu.Producer(channel)
    answers: dict[str, int] = {}

    def answered(body: Any, message: Any) -> None:
        answers[message.properties["correlation_id"]] = body["result"]

    queue = kombu.Queue(DIRECT, no_declare=True, no_ack=True)

    def ask(n: int) -> str:
        correlation_id: str = kombu.uuid()
        producer.publish(
            {"method": "add", "args": [n, n]},
            routing_key=QUEUE + ".kombu",
            reply_to=DIRECT,
            correlation_id=correlation_id,
            delivery_mode=1,
        )
        return correlation_id

    def call(n: int) -> int:
        correlation_id = ask(n)
        while correlation_id not in answers:
            connection.drain_events()
        return answers.pop(correlation_id)

    def many(count: int, in_flight: int) -> None:
        asked = done = 0
        while done < count:
            while asked < count and asked - done < in_flight:
                ask(asked)
                asked += 1
            if not answers:
                connection.drain_events()
            done += len(answers)
            answers.clear()

    with kombu.Consumer(channel, [queue], callbacks=[answered], accept=["json"], auto_declare=False, no_ack=True):
        _blocking(options, call, many)


TASKS = {
    ("txmsg", "server"): txmsg_server,
    ("txmsg", "client"): txmsg_client,
    ("aio-pika", "server"): aio_pika_server,
    ("aio-pika", "client"): aio_pika_client,
    ("pika", "server"): pika_server,
    ("pika", "client"): pika_client,
    ("kombu", "server"): kombu_server,
    ("kombu", "client"): kombu_client,
}


def main() -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("side")
    parser.add_argument("role", choices=["server", "client"])
    parser.add_argument("--one", type=int, default=1000)
    parser.add_argument("--many", type=int, default=10_000)
    parser.add_argument("--in-flight", type=int, default=100)
    parser.add_argument("--profile", default="")
    options = parser.parse_args()
    TASKS[options.side, options.role](options)


if __name__ == "__main__":
    main()

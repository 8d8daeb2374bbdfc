"""Rounds of load on a durable broker that is killed in the middle of each, and what must be true after it (F56)."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from txmsg.amqp import AMQPProtocol, BasicProperties, Channel, ConnectionParameters, Delivery, connect
from txmsg.errors import TxmsgError

__all__ = ["CrashRounds", "TheBroker"]

reactor: Any = installed_reactor

ROOT = Path(__file__).parents[2]
PERSISTENT = BasicProperties(delivery_mode=2)
QUEUES = ("a", "b")
#: Publishes that are not confirmed yet, at most.
IN_FLIGHT = 300
#: Messages that stay in a queue from one round to the next, at most.
ENOUGH = 500
#: Octets of the bodies; the long ones have a row of their own, which the two queues share.
SIZES = (10, 100, 1000, 6000, 20_000)


class TheBroker:
    """The broker as a process of its own, on a data directory."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.broker.crash_broker", str(directory)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.damage: list[str] = []
        self.port = 0

    def wait_for_port(self) -> None:
        """Block until it listens."""
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()).startswith(b"damage"):
            self.damage.append(line.decode())
        self.port = int(line)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does; nothing if it has ended."""
        if self._process.returncode is None:
            self._process.kill()
            self._collect()

    def stop(self) -> int:
        """In good order; its exit code."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)
        return self._collect()

    def _collect(self) -> int:
        code = self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        return code


class CrashRounds:
    """What is known, over all rounds, of the messages: each has a number, its body begins with it.

    confirmed: numbers the broker has confirmed.   acked: queue -> numbers an ack was sent for.
    delivered: queue -> numbers that were seen.   gone: queue -> numbers known not to be there any more.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.next = 0
        self.confirmed: set[int] = set()
        self.acked: dict[str, set[int]] = {queue: set() for queue in QUEUES}
        self.delivered: dict[str, set[int]] = {queue: set() for queue in QUEUES}
        self.gone: dict[str, set[int]] = {queue: set() for queue in QUEUES}
        self.problems: list[str] = []
        self.is_over = True
        self.in_flight = 0
        self.brokers: list[TheBroker] = []

    async def run(self, rounds: int) -> None:
        """So many kills, then a clean stop."""
        try:
            broker = self.start()
            broker.wait_for_port()
            for _ in range(rounds):
                broker = await self.round(broker)
            code = broker.stop()
            if code:
                self.problems.append(f"a clean stop ended with {code}")
            broker = self.start()
            broker.wait_for_port()
            await self.check(broker, "clean")
        finally:
            for started in self.brokers:
                started.kill()

    def start(self) -> TheBroker:
        """Another process."""
        self.brokers.append(TheBroker(self.directory))
        return self.brokers[-1]

    async def round(self, broker: TheBroker) -> TheBroker:
        """Load, kill, start (sometimes killed in its start), check."""
        connection = await self.connect(broker)
        await self.load(connection, self.random.uniform(0.02, 0.5), broker)
        for _ in range(self.random.randrange(2)):
            broker = self.start()
            await deferLater(reactor, self.random.uniform(0.2, 0.9), lambda: None)
            broker.kill()
        broker = self.start()
        broker.wait_for_port()
        await self.check(broker, "killed")
        return broker

    async def connect(self, broker: TheBroker) -> AMQPProtocol:
        return await connect(ConnectionParameters(host="127.0.0.1", port=broker.port), reactor=reactor)

    async def load(self, connection: AMQPProtocol, seconds: float, broker: TheBroker) -> None:
        """Publish with confirms, consume and ack some of it, and kill the broker after `seconds`."""
        self.is_over = False
        channel = await connection.channel()
        for queue in QUEUES:
            await channel.queue_declare(queue, durable=True)
            await channel.queue_bind(queue, "amq.fanout")
        await channel.confirm_select()
        consuming = await connection.channel()
        await consuming.basic_qos(50)
        await consuming.basic_consume("b", self.take)
        reactor.callLater(seconds, self.end, broker)
        self.in_flight = 0
        self.publish(channel)
        while not self.is_over:
            await deferLater(reactor, 0.005, lambda: None)
        await deferLater(reactor, 0.05, lambda: None)
        connection.abort()

    def end(self, broker: TheBroker) -> None:
        broker.kill()
        self.is_over = True

    def publish(self, channel: Channel) -> None:
        """Keep IN_FLIGHT publishes on their way."""
        while self.in_flight < IN_FLIGHT and not self.is_over:
            number, self.next = self.next, self.next + 1
            body = b"%d " % number
            body += b"x" * (self.random.choice(SIZES) - len(body))
            self.in_flight += 1
            published = channel.basic_publish("amq.fanout", "", body, PERSISTENT)
            published.addCallbacks(self.is_confirmed, self.is_not, callbackArgs=(number, channel))
            if published.called and self.in_flight >= IN_FLIGHT:
                return

    def is_confirmed(self, tag: int | None, number: int, channel: Channel) -> None:
        self.confirmed.add(number)
        self.in_flight -= 1
        if self.in_flight < IN_FLIGHT // 2:
            self.publish(channel)

    def is_not(self, failure: Any) -> None:
        self.in_flight -= 1
        failure.trap(TxmsgError)

    def take(self, delivery: Delivery) -> None:
        """Queue b is consumed: ack most, give some back, keep some."""
        self.see("b", delivery)
        chance = self.random.random()
        if chance < 0.8:
            self.acked["b"].add(number_of(delivery.body))
            delivery.ack()
        elif chance < 0.9:
            delivery.nack(requeue=True)

    def see(self, queue: str, delivery: Delivery) -> None:
        number = number_of(delivery.body)
        if number in self.delivered[queue] and not delivery.redelivered:
            self.problems.append(f"{number} was served from {queue} as new a second time")
        if number in self.gone[queue]:
            self.problems.append(f"{number} has come back to {queue}")
        self.delivered[queue].add(number)

    async def check(self, broker: TheBroker, how: str) -> None:
        """Read both queues to the end, give all back, and compare with what is known."""
        if broker.damage:
            self.problems.append(f"{how}: {broker.damage}")
        connection = await self.connect(broker)
        for queue in QUEUES:
            channel = await connection.channel()
            await channel.basic_qos(0)
            found: list[Delivery] = []
            count = (await channel.queue_declare(queue, durable=True)).message_count
            done: Deferred[None] = Deferred()

            def take(
                delivery: Delivery,
                queue: str = queue,
                found: list[Delivery] = found,
                count: int = count,
                done: Deferred[None] = done,
            ) -> None:
                self.see(queue, delivery)
                found.append(delivery)
                if len(found) == count:
                    done.callback(None)

            if count:
                await channel.basic_consume(queue, take)
                await done
            self.compare(queue, [number_of(delivery.body) for delivery in found], how)
            if len(found) > ENOUGH:  # or the queue would only grow
                found[-ENOUGH].ack(multiple=True)
                self.acked[queue] |= {number_of(delivery.body) for delivery in found[: 1 - ENOUGH]}
            await channel.close()
        await connection.close()

    def compare(self, queue: str, found: list[int], how: str) -> None:
        """Everything confirmed and not acked is there; nothing else; each once; in order."""
        if found != sorted(set(found)):
            self.problems.append(f"{how}: {queue} is out of order")
        here = set(found)
        if missing := self.confirmed - here - self.acked[queue] - self.gone[queue]:
            self.problems.append(f"{how}: {queue} has lost {len(missing)} confirmed messages: {sorted(missing)[:5]}")
        # An ack that was on its way may or may not have arrived; from here on it is known.
        self.gone[queue] |= set(range(self.next)) - here
        self.acked[queue] -= here


def number_of(body: bytes) -> int:
    """The number a body begins with."""
    return int(body.split(b" ", 1)[0])

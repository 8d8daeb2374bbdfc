"""Topology recovery over real brokers: what comes back, what does not, what is refused (R9, R10, Z7)."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.amqp.recovery.test_topology import random_steps
from tests.conformance.base import OverBroker, OverRabbitMQ, pause
from tests.conformance.recovery.case import RecoveryCase
from txmsg.amqp import Channel
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.amqp.recovery.consumer import RecoveringConsumer
from txmsg.amqp.recovery.events import ENTITY_FAILED, QUEUE_RENAMED
from txmsg.errors import ChannelClosed, NotFound, PreconditionFailed, ResourceLocked, TxmsgError


class RecoveredTopologyCases(RecoveryCase):
    async def exists(self, channel: Channel, kind: str, name: str) -> bool:
        """Asked on a channel of its own."""
        asking = await channel.connection.channel()
        try:
            if kind == "queue":
                await asking.queue_declare(name, passive=True)
            else:
                await asking.exchange_declare(name, passive=True)
        except NotFound:
            return False
        except ChannelClosed:
            return True  # it is somebody's own
        await asking.close()
        return True

    async def test_everything_is_back(self) -> None:
        """R9, R10: exchanges, bindings between them, queues with arguments, a server-named one, consumers, settings."""
        connection = await self.recovering()
        channel = await connection.channel(prefetch_count=1, confirm=True)
        source, target, jobs = self.name("source"), self.name("target"), self.name("jobs")
        await channel.exchange_declare(source, "topic", auto_delete=True)
        await channel.exchange_declare(target, "fanout", auto_delete=True)
        await channel.exchange_bind(target, source, "k.#")
        await channel.queue_declare(jobs, exclusive=True, arguments={"x-max-length": 5})
        await channel.queue_bind(jobs, target)
        named = (await channel.queue_declare("", exclusive=True)).queue
        await channel.queue_bind("", source, "k.named")
        consumers = [await channel.basic_consume(queue) for queue in (jobs, named)]
        for epoch in (2, 3):
            await self.lose(connection)
            await channel.basic_publish(source, "k.named", b"%d" % epoch, mandatory=True)
            for consumer in consumers:
                delivery = await consumer.get()
                self.assertEqual(delivery.body, b"%d" % epoch)
                delivery.ack()
        now = connection.topology.current_name(named)
        self.assertNotEqual(now, named)
        self.assertEqual(self.kinds(), [QUEUE_RENAMED] * 2)
        await channel.basic_publish("", named, b"by its first name", mandatory=True)
        self.assertEqual((await consumers[1].get()).routing_key, now)

    async def test_deleted_things_stay_away(self) -> None:
        """R10: deleted, unbound, gone with their last binding or consumer."""
        connection = await self.recovering()
        channel = await connection.channel()
        source, gone, temp, kept = (self.name(each) for each in ("source", "gone", "temp", "kept"))
        await channel.exchange_declare(source, auto_delete=True)
        for queue, auto_delete in ((gone, False), (temp, True), (kept, False)):
            await channel.queue_declare(queue, auto_delete=auto_delete)
            await channel.queue_bind(queue, source, "k")
        self.addCleanup(self._delete, kept)
        await (await channel.basic_consume(temp)).cancel()
        await channel.queue_delete(gone)
        await channel.queue_unbind(kept, source, "k")
        self.assertEqual([str(entity) for entity in connection.topology], [f"queue {kept!r}"])
        await self.lose(connection)
        other = await self.channel()
        found = [
            await self.exists(other, kind, name)
            for kind, name in (("queue", gone), ("queue", temp), ("exchange", source), ("queue", kept))
        ]
        self.assertEqual(found, [False, False, False, True])

    async def _delete(self, queue: str) -> None:
        await (await self.channel()).queue_delete(queue)

    async def test_one_that_is_refused(self) -> None:
        """R10: somebody has declared it otherwise meanwhile: it is reported and skipped, the rest is there."""
        connection = await self.recovering()
        channel = await connection.channel()
        names = [self.name(f"q{number}") for number in range(5)]
        for name in names:
            await channel.queue_declare(name, auto_delete=True)
            await channel.queue_bind(name, "amq.topic", "k")
        other = await self.channel()
        await other.queue_delete(names[2])
        await other.queue_declare(names[2], exclusive=False, durable=True)
        self.addCleanup(self._delete, names[2])
        consumers = [await channel.basic_consume(name) for name in names]
        await self.lose(connection)
        [failed] = self.events
        self.assertEqual((failed.kind, failed.subject), (ENTITY_FAILED, f"queue {names[2]!r}"))
        self.assertIsInstance(failed.error, PreconditionFailed)
        await other.basic_publish("amq.topic", "k", b"x")
        for consumer in consumers:
            (await consumer.get()).ack()

    async def test_many(self) -> None:
        """R9: 200 queues with a binding each come back within the time of a few round trips."""
        connection = await self.recovering()
        channel = await connection.channel()
        prefix = self.name("q")
        calls: list[Any] = []
        for number in range(200):
            calls.append(channel.queue_declare(f"{prefix}.{number}", exclusive=True))
            calls.append(channel.queue_bind(f"{prefix}.{number}", "amq.topic", "k"))
        for call in calls:
            await call
        for epoch in (2, 3, 4):
            self.events.clear()
            await self.lose(connection)
            self.assertEqual(channel.epoch, epoch)
            if not any(isinstance(event.error, ResourceLocked) for event in self.events):
                break
            await pause(1)  # the broker had not let go of the lost connection's queues yet
        self.assertEqual(self.events, [])
        for number in (0, 199):
            await channel.queue_declare(f"{prefix}.{number}", passive=True)


class RecoveredTopologyOverRabbitMQ(OverRabbitMQ, RecoveredTopologyCases):
    """peers 26: on RabbitMQ, which also says what it has."""

    timeout = 120

    async def test_random_steps(self) -> None:
        """Z7: after random declarations, bindings and their undoing what is back is what the record says."""
        await self.check_seeds(1)

    @pytest.mark.long
    async def test_many_random_steps(self) -> None:
        """Z7: more of them."""
        await self.check_seeds(2, 3, 4, 5)

    async def check_seeds(self, *seeds: int) -> None:
        """In a virtual host of its own, so that everything in it is ours; both sides are what rabbitmqctl lists."""
        for seed in seeds:
            vhost = self.name("z7")
            await self.in_thread(self.node.add_vhost, vhost)
            try:
                connection = await self.recovering(virtual_host=vhost)
                channel = await connection.channel()
                await live(channel, random_steps(Random(seed), 60))
                recorded = set(map(str, connection.topology))
                await self.lose(connection)
                self.assertEqual(set(map(str, connection.topology)), recorded)
                self.assertEqual(await self.in_thread(self.listed, vhost), recorded, f"seed {seed}")
                await connection.close()
            finally:
                await self.in_thread(self.node.delete_vhost, vhost)

    test_many_random_steps.timeout = 300  # type: ignore[attr-defined]

    def listed(self, vhost: str) -> set[str]:
        """What the broker has, as the topology would write it."""

        def rows(*what: str) -> list[list[str]]:
            text = self.node.rabbitmqctl("list_" + what[0], "-p", vhost, "--no-table-headers", "--silent", *what[1:])
            return [line.split("\t") for line in text.splitlines() if line]

        found = {f"queue {name!r}" for [name] in rows("queues", "name")}
        found |= {f"exchange {name!r}" for [name] in rows("exchanges", "name") if name and not name.startswith("amq.")}
        found |= {
            f"binding of {kind} {destination!r} to exchange {source!r} with {key!r}"
            for source, destination, kind, key in rows(
                "bindings", "source_name", "destination_name", "destination_kind", "routing_key"
            )
            if source
        }
        return found

    @pytest.mark.long
    async def test_restarted(self) -> None:
        """R9, F2: the node is stopped and started; transient things are made again, durable ones are found."""
        connection = await self.recovering()
        channel = await connection.channel(confirm=True)
        durable, transient = self.name("durable"), self.name("transient")
        await channel.queue_declare(durable, durable=True)
        await channel.queue_declare(transient)
        self.addCleanup(self._delete, durable)
        self.addCleanup(self._delete, transient)
        await channel.queue_bind(transient, "amq.topic", "k")
        consumers: list[RecoveringConsumer] = [await channel.basic_consume(queue) for queue in (durable, transient)]
        epoch = connection.epoch
        await self.in_thread(self.node.kill)
        await self.in_thread(self.node.start)
        await self.until(lambda: connection.epoch > epoch and connection.is_ready, 40)
        await channel.basic_publish("", durable, b"1")
        await channel.basic_publish("amq.topic", "k", b"2", mandatory=True)
        self.assertEqual([(await consumer.get()).body for consumer in consumers], [b"1", b"2"])


class RecoveredTopologyOverBroker(OverBroker, RecoveredTopologyCases):
    """On the embedded broker."""


async def live(channel: RecoveringChannel, steps: list[tuple[Any, ...]]) -> None:
    """Do as the steps say; what the broker refuses is part of it."""
    consumers: list[RecoveringConsumer] = []
    for step in steps:
        try:
            match step:
                case ("exchange", name, auto_delete):
                    await channel.exchange_declare(name, "topic", auto_delete=auto_delete)
                case ("delete exchange", name):
                    await channel.exchange_delete(name)
                case ("queue", name, kind):
                    await channel.queue_declare(name, auto_delete=kind == "auto", exclusive=kind == "exclusive")
                case ("delete queue", name):
                    await channel.queue_delete(name)
                case ("bind", queue, exchange, key):
                    await channel.queue_bind(queue, exchange, key)
                case ("unbind", queue, exchange, key):
                    await channel.queue_unbind(queue, exchange, key)
                case ("lead", destination, source, key):
                    await channel.exchange_bind(destination, source, key)
                case ("unlead", destination, source, key):
                    await channel.exchange_unbind(destination, source, key)
                case ("consume", queue):
                    consumers.append(await channel.basic_consume(queue))
                case ("cancel", number):
                    if number < len(consumers):
                        await consumers.pop(number).cancel()
                case _:
                    await channel.queue_declare("none", passive=True)
        except TxmsgError:
            await channel.basic_qos(0)

"""Z6: a queue against a short reference model, in random order of everything that can happen to it.

The model keeps its messages in one sorted list and computes everything anew.  Which consumer gets a message is taken
from what happened, and checked: it had to be able to, and nobody of a higher priority could.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from twisted.internet.task import Clock

from tests.broker.model_fakes import FakeConsumer, bodies, message
from txmsg.broker.message import Entry
from txmsg.broker.queues.queue import REJECTED, ROUTED
from txmsg.broker.vhost.vhost import VirtualHost

#: Seconds: exact as floats, and so are their sums.
TICKS = st.sampled_from([0.0, 0.125, 0.25, 1.0])
TTLS = st.sampled_from([None, 0, 125, 250, 1000])
SIZES = st.integers(0, 5)


@dataclass(eq=False)
class Item:
    """A message of the model."""

    number: int
    body: bytes
    priority: int
    expires_at: float | None
    returns: int = 0


class Model:
    """The reference: the rules of RabbitMQ, written down without a thought of speed."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.ready: list[Item] = []
        self.unacked: dict[bytes, Item] = {}
        self.dead: list[tuple[bytes, str]] = []
        self.now = 0.0
        self.count = 0

    def made(self, body: bytes, priority: int, expiration: int | None) -> Item:
        self.count += 1
        ttls = [ttl for ttl in (expiration, self.arguments.get("x-message-ttl")) if ttl is not None]
        limit = self.arguments.get("x-max-priority", 0)
        return Item(self.count, body, min(priority, limit), self.now + min(ttls) / 1000 if ttls else None)

    def insert(self, item: Item) -> None:
        self.ready.append(item)
        self.ready.sort(key=lambda one: (-one.priority, one.number))

    def is_over(self, length: int, octets: int) -> bool:
        limits: tuple[int, int] = (
            self.arguments.get("x-max-length", 10**9),
            self.arguments.get("x-max-length-bytes", 10**9),
        )
        return length > limits[0] or octets > limits[1]

    @property
    def octets(self) -> int:
        return sum(len(one.body) for one in self.ready)

    def refuses(self, body: bytes) -> bool:
        is_over = self.is_over(len(self.ready) + 1, self.octets + len(body))
        overflow = self.arguments.get("x-overflow", "drop-head")
        if is_over and overflow == "reject-publish-dlx":
            self.dead.append((body, "maxlen"))
        return is_over and overflow != "drop-head"

    def drop(self) -> None:
        """What is too much, then what has expired."""
        if self.arguments.get("x-overflow", "drop-head") == "drop-head":
            while self.ready and self.is_over(len(self.ready), self.octets):
                self.dead.append((self.ready.pop(0).body, "maxlen"))
        while self.ready and (at := self.ready[0].expires_at) is not None and at <= self.now:
            self.dead.append((self.ready.pop(0).body, "expired"))

    def requeue(self, items: list[Item]) -> None:
        limit = self.arguments.get("x-delivery-limit")
        for item in items:
            item.returns += 1
            if limit is not None and item.returns > limit:
                self.dead.append((item.body, "delivery_limit"))
            else:
                self.insert(item)
        self.drop()


ARGUMENTS = st.one_of(
    st.fixed_dictionaries(
        {},
        optional={
            "x-message-ttl": st.sampled_from([0, 125, 1000]),
            "x-max-length": st.integers(0, 4),
            "x-max-length-bytes": st.integers(0, 30),
            "x-overflow": st.sampled_from(["drop-head", "reject-publish", "reject-publish-dlx"]),
            "x-max-priority": st.integers(0, 3),
        },
    ),
    st.fixed_dictionaries(
        {"x-queue-type": st.just("quorum"), "x-delivery-limit": st.integers(0, 2)},
        optional={"x-message-ttl": st.sampled_from([125, 1000]), "x-max-length": st.integers(1, 4)},
    ),
    st.fixed_dictionaries({"x-single-active-consumer": st.just(True)}),
)


class QueueMachine(RuleBasedStateMachine):
    """Steps on the real queue and on the model."""

    @initialize(arguments=ARGUMENTS)
    def begin(self, arguments: dict[str, Any]) -> None:
        self.clock = Clock()
        self.vhost = VirtualHost("/", clock=self.clock)
        self.model = Model(arguments)
        self.dead = self.vhost.declare_queue("dead")
        letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        self.queue = self.vhost.declare_queue("q", durable=True, arguments={**letters, **arguments})
        self.consumers: list[FakeConsumer] = []
        self.tags = 0
        self.taken: list[Entry] = []  # by basic.get
        self.log: list[tuple[str, bytes]] = []

    # -- what may happen ------------------------------------------------------------------------------------

    @rule(size=SIZES, priority=st.integers(0, 4), ttl=TTLS)
    def put(self, size: int, priority: int, ttl: int | None) -> None:
        body = b"%d" % self.model.count + b"." * size
        sent = message(body, key="q", priority=priority, expiration=None if ttl is None else str(ttl))
        model, is_first = self.model, not self.model.ready
        if model.refuses(body):
            assert self.queue.put(sent) == REJECTED
            model.count += 1
            return
        item = model.made(body, priority, ttl)
        can_go = is_first and bool(self.available())
        assert self.queue.put(sent) == ROUTED
        model.insert(item)
        if can_go:
            self.replay(at_once=True)
        else:
            model.drop()

    @rule(no_ack=st.booleans())
    def get(self, no_ack: bool) -> None:
        entry = self.queue.get(no_ack=no_ack)
        self.model.drop()
        if not self.model.ready:
            assert entry is None
            return
        item = self.model.ready.pop(0)
        assert entry is not None
        assert (entry.message.body, entry.delivery_count) == (item.body, item.returns)
        if not no_ack:
            self.taken.append(entry)
            self.model.unacked[item.body] = item
        self.model.drop()

    @rule(data=st.data(), how=st.sampled_from(["ack", "requeue", "reject"]))
    def settle_got(self, data: st.DataObject, how: str) -> None:
        if not self.taken:
            return
        count = data.draw(st.integers(1, len(self.taken)))
        entries = [self.taken.pop(data.draw(st.integers(0, len(self.taken) - 1))) for _ in range(count)]
        self.settle(entries, how)

    @rule(data=st.data(), how=st.sampled_from(["ack", "requeue", "reject"]))
    def settle_delivered(self, data: st.DataObject, how: str) -> None:
        holders = [one for one in self.consumers if one.entries]
        if not holders:
            return
        consumer = data.draw(st.sampled_from(holders))
        entries = consumer.take(data.draw(st.integers(1, len(consumer.entries))))
        self.queue.consumer_available(consumer)
        self.replay()
        self.settle(entries, how)

    @rule(
        prefetch=st.one_of(st.none(), st.integers(0, 3)),
        priority=st.integers(0, 2),
        no_ack=st.booleans(),
    )
    def add_consumer(self, prefetch: int | None, priority: int, no_ack: bool) -> None:
        if len(self.consumers) == 4:
            return
        self.tags += 1
        tag = f"c{self.tags}"
        consumer = FakeConsumer(tag, prefetch=prefetch, priority=priority, no_ack=no_ack, log=self.log)
        self.consumers.append(consumer)
        self.queue.add_consumer(consumer)
        self.replay()

    @rule(data=st.data(), gives_back=st.booleans())
    def remove_consumer(self, data: st.DataObject, gives_back: bool) -> None:
        if not self.consumers:
            return
        consumer = data.draw(st.sampled_from(self.consumers))
        self.consumers.remove(consumer)
        self.queue.remove_consumer(consumer)
        self.replay()
        self.settle(consumer.take(len(consumer.entries)), "requeue" if gives_back else "ack")

    @rule(data=st.data(), is_flowing=st.booleans(), more=st.integers(0, 2))
    def change_credit(self, data: st.DataObject, is_flowing: bool, more: int) -> None:
        if not self.consumers:
            return
        consumer = data.draw(st.sampled_from(self.consumers))
        consumer.is_flowing = is_flowing
        if consumer.prefetch is not None:
            consumer.prefetch += more
        self.queue.consumer_available(consumer)
        self.replay()

    @rule()
    def purge(self) -> None:
        assert self.queue.purge() == len(self.model.ready)
        self.model.ready.clear()

    @rule(seconds=TICKS)
    def advance(self, seconds: float) -> None:
        self.model.now += seconds
        self.clock.advance(seconds)
        self.model.drop()

    # -- what has to be true --------------------------------------------------------------------------------

    def settle(self, entries: list[Entry], how: str) -> None:
        items = [self.model.unacked.pop(entry.message.body) for entry in entries]
        if how == "requeue":
            self.queue.requeue(entries)
            self.model.requeue(items)
            self.replay()
            return
        for entry, item in zip(entries, items, strict=True):
            if how == "ack":
                self.queue.ack(entry)
            else:
                self.queue.reject(entry)
                self.model.dead.append((item.body, "rejected"))

    def served(self) -> list[FakeConsumer]:
        """Those who are served at all."""
        if not self.model.arguments.get("x-single-active-consumer"):
            return self.consumers
        return [consumer for consumer in self.consumers if consumer is self.queue.active_consumer]

    def available(self) -> list[FakeConsumer]:
        return [consumer for consumer in self.served() if consumer.is_available]

    def replay(self, *, at_once: bool = False) -> None:
        """Do in the model what the queue has done since: the deliveries, in their order."""
        for tag, body in self.log:
            if not at_once:
                self.model.drop()
            item = self.model.ready.pop(0)
            assert item.body == body, (item, body)
            (consumer,) = (one for one in self.consumers if one.tag == tag)
            assert consumer in self.served()
            if not consumer.no_ack:
                self.model.unacked[body] = item
            better = [one for one in self.available() if one.priority > consumer.priority]
            assert not better, f"{tag} was served before {better[0].tag}"
        self.log.clear()
        self.model.drop()

    @invariant()
    def nothing_waits_for_nothing(self) -> None:
        """A message is ready only while nobody can take it; the logs are replayed."""
        if hasattr(self, "queue"):
            assert not self.log
            assert not (self.model.ready and self.available())

    @invariant()
    def both_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        queue, model = self.queue, self.model
        assert bodies(queue.ready_entries()) == [item.body for item in model.ready]
        assert (queue.message_count, queue.ready_bytes) == (len(model.ready), model.octets)
        assert queue.unacked_count == len(model.unacked)
        held = [entry for consumer in self.consumers for entry in consumer.entries] + self.taken
        assert sorted(bodies(held)) == sorted(model.unacked)
        for entry in held:
            assert entry.delivery_count == model.unacked[entry.message.body].returns
        assert queue.consumer_count == len(self.consumers)

    @invariant()
    def the_dead_agree(self) -> None:
        if not hasattr(self, "queue"):
            return
        dead = [
            (entry.message.body, (entry.message.decoded_properties.headers or {})["x-death"][0]["reason"])
            for entry in self.dead.ready_entries()
        ]
        assert dead == self.model.dead

    @invariant()
    def memory_agrees(self) -> None:
        """Every byte that was counted belongs to a message that is there."""
        if not hasattr(self, "queue"):
            return
        held = [entry for consumer in self.consumers for entry in consumer.entries] + self.taken
        costs = [entry.message.cost for entry in [*self.queue.ready_entries(), *held]]
        assert self.queue.held_bytes == sum(costs)
        assert self.vhost.usage.bytes == self.queue.held_bytes + self.dead.held_bytes

    def teardown(self) -> None:
        """In the end, whatever happened, nothing is left and no timer runs."""
        if not hasattr(self, "queue"):
            return
        for entry in [entry for consumer in self.consumers for entry in consumer.entries] + self.taken:
            self.queue.ack(entry)
        self.vhost.delete_queue("q")
        self.vhost.delete_queue("dead")
        assert self.vhost.usage.bytes == 0
        assert self.clock.getDelayedCalls() == []


TestQueue = QueueMachine.TestCase
TestQueue.settings = settings(max_examples=max(150, settings().max_examples), stateful_step_count=40)

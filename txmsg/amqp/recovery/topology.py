"""Topology: what the application has declared and still means, so that it can be declared again.

It is a record and does nothing: no I/O, no Deferred.  A recovering channel notes here what the broker has agreed to;
:mod:`txmsg.amqp.recovery.replay` declares it again on a new connection.  The invariant (R10): what is recorded is what
was declared, less what was deleted, unbound, or went by itself:

- a queue or exchange that is deleted takes its bindings with it, on both sides;
- an auto-delete exchange goes with the last binding that it is the source of;
- an auto-delete queue goes with its last consumer.  Only the consumers and bindings of this connection are known here.

A queue that the broker has named gets another name when it is declared again.  It is recorded under the name that the
application was given first; :meth:`Topology.current_name` says what it is called now, and so do the callbacks of
:meth:`Topology.add_renamed_callback`.

Source: AMQP 0-9-1 sections 1.6 and 1.7, https://www.rabbitmq.com/docs/queues, https://www.rabbitmq.com/docs/e2e
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from twisted.logger import Logger

from txmsg.errors import clip

__all__ = ["BindingRecord", "ConsumerRecord", "Entity", "ExchangeRecord", "QueueRecord", "Topology"]

#: How many of its earlier names a server-named queue is still found by, besides the first one.
_NAMES_KEPT = 8


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """An exchange as it was declared; the fields are the arguments of exchange.declare."""

    name: str
    exchange_type: str = "direct"
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"exchange {clip(self.name)!r}"


@dataclass(slots=True, eq=False)
class QueueRecord:
    """A queue as it was declared; the fields are the arguments of queue.declare.

    name: what the application calls it.   current: what the broker calls it, another name only if `is_server_named`.
    """

    name: str
    durable: bool = False
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    is_server_named: bool = False
    current: str = ""
    earlier: deque[str] = field(default_factory=lambda: deque(maxlen=_NAMES_KEPT), repr=False)

    def __post_init__(self) -> None:
        self.current = self.current or self.name

    def __str__(self) -> str:
        now = "" if self.current == self.name else f" (now {clip(self.current)!r})"
        return f"queue {clip(self.name)!r}{now}"


@dataclass(frozen=True, slots=True)
class BindingRecord:
    """A binding; `kind` says what its destination is.  A queue is named as the application does."""

    kind: Literal["queue", "exchange"]
    source: str
    destination: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[object, ...]:
        """What makes two bindings the same one for the broker."""
        return (self.kind, self.source, self.destination, self.routing_key, _comparable(self.arguments))

    def __str__(self) -> str:
        return (
            f"binding of {self.kind} {clip(self.destination)!r} to exchange {clip(self.source)!r} "
            f"with {clip(self.routing_key)!r}"
        )


@dataclass(slots=True, eq=False)
class ConsumerRecord:
    """That something consumes from a queue.  `is_queue_deleted`: the application itself has deleted that."""

    queue: str
    is_queue_deleted: bool = False


Entity = ExchangeRecord | QueueRecord | BindingRecord


def _comparable(value: object) -> object:
    """A hashable equal of a field value; True and 1 differ, the order of a table's keys does not matter."""
    if isinstance(value, Mapping):
        return tuple(sorted(((str(key), _comparable(item)) for key, item in value.items()), key=lambda pair: pair[0]))
    if isinstance(value, (list, tuple)):
        return tuple(_comparable(item) for item in value)
    return (type(value).__name__, repr(value))


class Topology:
    """The exchanges, queues and bindings that a connection is to have; may be read at any time.

    exchanges, queues: dict by name.   bindings: dict, in the order in which they were made.
    left_out: dict by entity -- what the broker ended a whole connection for; it is tried again after the next one.
    wanted: callable(Entity) -> bool, or None (the default: all).  What it says False to is not declared again: that is
        how to recover only a part, or (`lambda entity: False`) nothing.
    """

    _log = Logger(namespace="txmsg.amqp.recovery")

    def __init__(self) -> None:
        self.exchanges: dict[str, ExchangeRecord] = {}
        self.queues: dict[str, QueueRecord] = {}
        self.bindings: dict[tuple[object, ...], BindingRecord] = {}
        self.wanted: Callable[[Entity], bool] | None = None
        #: What the broker ended the last connection for, and what it said: it is not declared on this one.
        self.left_out: dict[Entity, BaseException] = {}
        #: For the replay: the last one that the broker ended a connection for.
        self.suspect: Entity | None = None
        self._by_source: dict[str, dict[tuple[object, ...], None]] = {}
        self._by_destination: dict[tuple[str, str], dict[tuple[object, ...], None]] = {}
        self._consumers: dict[str, dict[ConsumerRecord, None]] = {}
        #: Every name but the first one that a server-named queue has or had.
        self._names: dict[str, QueueRecord] = {}
        self._being_deleted: dict[str, int] = {}
        self._renamed_callbacks: list[Callable[[str, str], object]] = []

    # -- names -------------------------------------------------------------------------------------

    def name_of(self, queue: str) -> str:
        """The name under which a queue is recorded, from any name that it has had."""
        record = self._names.get(queue)
        return queue if record is None else record.name

    def current_name(self, queue: str) -> str:
        """What the broker calls a queue now, from any name that it has had."""
        record = self.queues.get(queue) or self._names.get(queue)
        return queue if record is None else record.current

    @property
    def has_renamed(self) -> bool:
        """Whether some queue has another name than the application was given first."""
        return bool(self._names)

    def add_renamed_callback(self, callback: Callable[[str, str], object]) -> None:
        """Call `callback(old, new)` when a server-named queue has got a new name.

        It is called before its bindings and consumers are there again, and must not wait for them.
        """
        self._renamed_callbacks.append(callback)

    def remove_renamed_callback(self, callback: Callable[[str, str], object]) -> None:
        """Stop calling it; ValueError if it is not registered."""
        self._renamed_callbacks.remove(callback)

    def renamed(self, record: QueueRecord, new: str) -> None:
        """For the replay: the broker has given a server-named queue this name."""
        old = record.current
        if new == old:
            return
        if len(record.earlier) == _NAMES_KEPT:
            self._names.pop(record.earlier[0], None)
        if old != record.name:
            record.earlier.append(old)
        record.current = new
        self._names[new] = record
        for callback in list(self._renamed_callbacks):
            try:
                callback(old, new)
            except Exception:
                self._log.failure("a callback for renamed queues failed")

    # -- exchanges ---------------------------------------------------------------------------------

    def exchange_declared(self, record: ExchangeRecord) -> None:
        """The broker has agreed to an exchange."""
        self.exchanges[record.name] = record

    def exchange_deleted(self, name: str) -> None:
        """An exchange is gone, and its bindings with it; so go auto-delete exchanges that only led to it."""
        self.exchanges.pop(name, None)
        for key in list(self._by_source.get(name, ())):
            self._forget_binding(key)
        self._destination_gone("exchange", name)

    # -- queues ------------------------------------------------------------------------------------

    def queue_declared(self, record: QueueRecord) -> None:
        """The broker has agreed to a queue."""
        known = self.queues.get(self.name_of(record.name))
        if known is not None and known.is_server_named:
            return  # declared once more, under its name
        self.queues[record.name] = record

    def queue_deleted(self, name: str, *, by_application: bool = False) -> None:
        """A queue is gone, and its bindings with it.  `by_application`: its consumers are to end, not to come back."""
        name = self.name_of(name)
        record = self.queues.pop(name, None)
        if record is not None:
            for other in (record.current, *record.earlier):
                self._names.pop(other, None)
        if by_application:
            for consumer in self._consumers.pop(name, {}):
                consumer.is_queue_deleted = True
        self._destination_gone("queue", name)

    def deletion_begins(self, queue: str) -> None:
        """The application asks for a queue to be deleted: its consumers may hear of it before the reply is here."""
        name = self.name_of(queue)
        self._being_deleted[name] = self._being_deleted.get(name, 0) + 1

    def deletion_ended(self, queue: str) -> None:
        """That was answered, or failed."""
        name = self.name_of(queue)
        left = self._being_deleted.pop(name, 0) - 1
        if left > 0:
            self._being_deleted[name] = left

    # -- bindings ----------------------------------------------------------------------------------

    def bound(self, record: BindingRecord) -> None:
        """The broker has made a binding."""
        record = self._named(record)
        key = record.key
        self.bindings[key] = record
        self._by_source.setdefault(record.source, {})[key] = None
        self._by_destination.setdefault((record.kind, record.destination), {})[key] = None

    def unbound(self, record: BindingRecord) -> None:
        """A binding is gone; with the last one goes an auto-delete exchange that it came from."""
        record = self._named(record)
        if self._forget_binding(record.key):
            self._source_less_used(record.source)

    def _named(self, record: BindingRecord) -> BindingRecord:
        if record.kind == "exchange":
            return record
        name = self.name_of(record.destination)
        if name == record.destination:
            return record
        return BindingRecord("queue", record.source, name, record.routing_key, record.arguments)

    def _forget_binding(self, key: tuple[object, ...]) -> bool:
        record = self.bindings.pop(key, None)
        if record is None:
            return False
        for index, place in (
            (self._by_source, record.source),
            (self._by_destination, (record.kind, record.destination)),
        ):
            keys = index[place]  # type: ignore[index]
            del keys[key]
            if not keys:
                del index[place]  # type: ignore[arg-type]
        return True

    def _destination_gone(self, kind: str, name: str) -> None:
        for key in list(self._by_destination.get((kind, name), ())):
            record = self.bindings.get(key)
            if record is not None and self._forget_binding(key):
                self._source_less_used(record.source)

    def _source_less_used(self, source: str) -> None:
        exchange = self.exchanges.get(source)
        if exchange is not None and exchange.auto_delete and source not in self._by_source:
            self.exchange_deleted(source)

    # -- consumers ---------------------------------------------------------------------------------

    def consumer_added(self, queue: str) -> ConsumerRecord:
        """Something consumes from a queue; returns what stands for it."""
        record = ConsumerRecord(self.name_of(queue))
        self._consumers.setdefault(record.queue, {})[record] = None
        return record

    def consumer_removed(self, record: ConsumerRecord) -> None:
        """It has ended for good; with the last one goes an auto-delete queue."""
        consumers = self._consumers.get(record.queue)
        if consumers is None or record not in consumers:
            return
        del consumers[record]
        if not consumers:
            del self._consumers[record.queue]
            queue = self.queues.get(record.queue)
            if queue is not None and queue.auto_delete:
                self.queue_deleted(record.queue)

    def is_deleted(self, consumer: ConsumerRecord) -> bool:
        """Whether the application has deleted a consumer's queue, or is about to."""
        return consumer.is_queue_deleted or consumer.queue in self._being_deleted

    # -- what is to be declared --------------------------------------------------------------------

    def plan(self) -> list[list[Entity]]:
        """What to declare on a new connection: stages, each of which needs the one before."""
        return self._staged(self.exchanges.values(), self.queues.values(), self.bindings.values())

    def plan_for(self, queue: str) -> list[list[Entity]]:
        """The same for one queue: with its bindings, and the exchanges from which messages reach it."""
        name = self.name_of(queue)
        record = self.queues.get(name)
        if record is None:
            return []
        exchanges: dict[str, ExchangeRecord] = {}
        bindings: list[BindingRecord] = []
        places: deque[tuple[str, str]] = deque([("queue", name)])
        seen = {("queue", name)}
        while places:
            for key in self._by_destination.get(places.popleft(), ()):
                binding = self.bindings[key]
                bindings.append(binding)
                if binding.source in self.exchanges:
                    exchanges[binding.source] = self.exchanges[binding.source]
                place = ("exchange", binding.source)
                if place not in seen:
                    seen.add(place)
                    places.append(place)
        return self._staged(exchanges.values(), [record], bindings)

    def _staged(self, exchanges: Any, queues: Any, bindings: Any) -> list[list[Entity]]:
        asked, left_out = self.wanted, self.left_out

        def wanted(entity: Entity) -> bool:
            return (asked is None or asked(entity)) and entity not in left_out

        bindings = [binding for binding in bindings if wanted(binding)]
        first: list[Entity] = [exchange for exchange in exchanges if wanted(exchange)]
        first += [binding for binding in bindings if binding.kind == "exchange"]
        first += [queue for queue in queues if wanted(queue)]
        second: list[Entity] = [binding for binding in bindings if binding.kind == "queue"]
        return [stage for stage in (first, second) if stage]

    def __iter__(self) -> Iterator[Entity]:
        """Everything, in the order in which it would be declared."""
        return (entity for stage in self.plan() for entity in stage)

    def __len__(self) -> int:
        return len(self.exchanges) + len(self.queues) + len(self.bindings)

    def __bool__(self) -> bool:
        return True

    def __str__(self) -> str:
        """One line for each entity."""
        return "\n".join(map(str, self))

    def __repr__(self) -> str:
        return (
            f"<Topology {len(self.exchanges)} exchanges, {len(self.queues)} queues, {len(self.bindings)} bindings, "
            f"{sum(map(len, self._consumers.values()))} consumers>"
        )

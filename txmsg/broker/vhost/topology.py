"""What there is in a virtual host: declaring, binding and deleting exchanges and queues.

AMQP 0-9-1 section 3.1 (the classes exchange and queue), with RabbitMQ's rules on names, equivalence of declarations,
life cycles and reply codes.

Whoever acts is an `owner`, any hashable object, which only matters for exclusive queues.  Permissions are asked
before, by the channel.

Invariants: the standard exchanges are always there; a binding exists only while both its ends do; what is durable is
told to the journal in an order in which it can be done again; a refused declaration changes nothing.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from txmsg.broker import faults
from txmsg.broker.exchanges import ALTERNATE_EXCHANGE, EXCHANGE_TYPES, STANDARD_EXCHANGES, Destination, Exchange
from txmsg.broker.interfaces import Journal, NoJournal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.queues.arguments import QUORUM, check_exchange_equivalence, check_queue_equivalence
from txmsg.broker.vhost import footprint
from txmsg.broker.vhost.bindings import EXCHANGE, QUEUE, Binding
from txmsg.broker.vhost.footprint import cost_of
from txmsg.broker.vhost.routing import RouteCache

if TYPE_CHECKING:
    from txmsg.broker.queues.queue import Queue

__all__ = ["Policies", "Topology", "server_name", "without_line_breaks"]

_RESERVED: Final = "amq."
_LINE_BREAKS: Final = str.maketrans("", "", "\r\n")


class Policies(Protocol):
    """What changes the settings of queues and exchanges by their names."""

    def queue_declared(self, queue: Queue) -> None:
        """A queue is new; change its settings if a policy is for it."""

    def exchange_declared(self, exchange: Exchange) -> None:
        """An exchange is new; change its alternate exchange if a policy is for it."""

    def forget(self) -> None:
        """The virtual host is being deleted: none of them is kept."""


def without_line_breaks(name: str) -> str:
    """`name` as RabbitMQ takes it in declarations, deletions and bindings: carriage returns and line feeds go."""
    return name.translate(_LINE_BREAKS)


def server_name(prefix: str) -> str:
    """A name nobody can guess: `prefix`, a hyphen and 22 characters (128 random bits in URL-safe base64)."""
    return f"{prefix}-{secrets.token_urlsafe(16)}"


class Topology(ABC):
    """The exchanges, queues and bindings of a virtual host; the attributes are those of the virtual host."""

    def __init__(self, name: str, *, limits: BrokerLimits | None, journal: Journal | None, strict_4: bool) -> None:
        self.name = name
        self.limits = limits or BrokerLimits()
        self.journal: Journal = journal or NoJournal()
        self.strict_4 = strict_4
        #: Told of every new queue and exchange; set by whoever keeps policies.
        self.policies: Policies | None = None
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {}
        self.routes = RouteCache()
        self.topology_version = 0
        self.topology_bytes = 0
        self._binding_count = 0
        #: What leads to a queue or an exchange.
        self._bindings_to: dict[Destination, dict[Binding, None]] = {}
        self._owned: dict[Hashable, dict[Queue, None]] = {}

    @abstractmethod
    def _new_exchange(
        self,
        name: str,
        type: str,
        *,
        durable: bool,
        auto_delete: bool,
        internal: bool,
        arguments: Mapping[str, Any] | None,
    ) -> Exchange:
        """Make an exchange that is not there yet, of a type there is."""

    @abstractmethod
    def _new_queue(
        self,
        name: str,
        *,
        durable: bool,
        exclusive: bool,
        auto_delete: bool,
        arguments: Mapping[str, Any] | None,
        owner: Hashable | None,
    ) -> Queue:
        """Make a queue that is not there yet; Fault 406 for its arguments."""

    # -- exchanges ----------------------------------------------------------------------------------------

    def exchange(self, name: str) -> Exchange:
        """The exchange of that name; Fault 404."""
        try:
            return self.exchanges[name]
        except KeyError:
            raise faults.not_found("exchange", name, self.name) from None

    def declare_exchange(
        self,
        name: str,
        type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Exchange:
        """Make sure that there is such an exchange (exchange.declare), and return it.

        With `passive` only the name counts.  Faults: 403 for the default exchange and for a new `amq.` name, 404
        (`passive`), 406 if there is one with other properties or the limit is reached, 503 for an unknown type.
        """
        name = without_line_breaks(name)
        arguments = arguments or {}
        if not passive and type not in EXCHANGE_TYPES:
            raise faults.unknown_exchange_type(type)
        if not name:
            raise faults.default_exchange()
        found = self.exchanges.get(name)
        if passive:
            return found or self.exchange(name)
        if found is not None:
            check_exchange_equivalence(
                found, type=type, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
            )
            return found
        if name.startswith(_RESERVED):
            raise faults.reserved_name("exchange", name)
        alternate = arguments.get(ALTERNATE_EXCHANGE, "")
        if not isinstance(alternate, str):
            raise faults.invalid_argument_type("exchange", name, self.name, ALTERNATE_EXCHANGE, alternate)
        if len(self.exchanges) - len(STANDARD_EXCHANGES) > self.limits.exchanges:  # one more: the default one
            raise faults.limit_reached("exchange", name, self.name, self.limits.exchanges)
        self._check_bytes("exchange", name, footprint.EXCHANGE + cost_of(name, arguments))
        made = self._new_exchange(
            name, type, durable=durable, auto_delete=auto_delete, internal=internal, arguments=arguments
        )
        self._enter_exchange(made)
        if durable:
            self.journal.exchange_declared(self.name, made)
        return made

    def _enter_exchange(self, exchange: Exchange) -> None:
        self.exchanges[exchange.name] = exchange
        self.topology_bytes += footprint.EXCHANGE + cost_of(exchange.name, exchange.arguments)
        self.topology_changed()
        if self.policies is not None:
            self.policies.exchange_declared(exchange)

    def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange with its bindings (exchange.delete); one that is not there is no error.

        Faults: 403 for the default exchange and every `amq.` name, 406 with `if_unused` while it is the source of
        a binding.
        """
        name = without_line_breaks(name)
        if not name:
            raise faults.default_exchange()
        if name.startswith(_RESERVED):
            raise faults.system_exchange(name, self.name)
        found = self.exchanges.get(name)
        if found is None:
            return
        if if_unused and found.bindings:
            raise faults.in_use("exchange", name, self.name)
        self._end_exchanges([found])

    def _end_exchanges(self, exchanges: Iterable[Exchange]) -> None:
        """Delete these, and the auto-delete ones that lose their last binding by it."""
        waiting = deque(exchanges)
        while waiting:
            exchange = waiting.popleft()
            if self.exchanges.get(exchange.name) is not exchange:
                continue
            for binding in list(exchange.bindings):
                self._unbind(binding)
            waiting.extend(self._unbind_all_from(exchange))
            del self.exchanges[exchange.name]
            self.topology_bytes -= footprint.EXCHANGE + cost_of(exchange.name, exchange.arguments)
            self.topology_changed()
            if exchange.durable:
                self.journal.exchange_deleted(self.name, exchange.name)

    # -- queues -------------------------------------------------------------------------------------------

    def queue(self, name: str, owner: Hashable | None = None) -> Queue:
        """The queue of that name, for whoever may use it; Fault 404, or 405 if it is another's exclusively."""
        queue = self.queues.get(name)
        if queue is None:
            raise faults.not_found("queue", name, self.name)
        if queue.exclusive and queue.owner is not owner:
            raise faults.locked(name, self.name)
        return queue

    def declare_queue(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        owner: Hashable | None = None,
        takes_reserved: bool = False,
    ) -> Queue:
        """Make sure that there is such a queue (queue.declare), and return it.

        An empty name gives a new queue, named by the broker.  With `passive` only the name counts.  An exclusive
        queue belongs to `owner`, ends with it and is never durable.  Names of direct reply-to are not for here.
        `takes_reserved`: a new `amq.` name will do: a broker has named the queue, before it was written down.

        Faults: 403 for a new `amq.` name, 404 (`passive`), 405 if it is another's exclusively or `exclusive` was
        not the same, 406 if there is one with other properties, an argument is invalid or the limit is reached.
        """
        name = without_line_breaks(name)
        if passive:
            queue = self.queue(name, owner)
            queue.used()
            return queue
        arguments = arguments or {}
        found = self.queues.get(name) if name else None
        if found is not None:
            if found.exclusive is not exclusive or (exclusive and found.owner is not owner):
                raise faults.locked(name, self.name)
            check_queue_equivalence(found, durable=durable, auto_delete=auto_delete, arguments=arguments)
            found.used()
            return found
        if name.startswith(_RESERVED) and not takes_reserved:
            raise faults.reserved_name("queue", name)
        if self.strict_4 and not durable and not exclusive:
            raise faults.transient_queue_refused()
        if len(self.queues) >= self.limits.queues:
            raise faults.limit_reached("queue", name, self.name, self.limits.queues)
        if not name and arguments.get("x-queue-type") == QUORUM:
            raise faults.server_named_queue_type(QUORUM)
        name = name or server_name("amq.gen")
        self._check_bytes("queue", name, footprint.QUEUE + cost_of(name, arguments))
        made = self._new_queue(
            name,
            durable=durable,
            exclusive=exclusive,
            auto_delete=auto_delete,
            arguments=arguments,
            owner=owner if exclusive else None,
        )
        self._enter_queue(made)
        if made.durable:
            self.journal.queue_declared(self.name, made)
        return made

    def _enter_queue(self, queue: Queue) -> None:
        self.queues[queue.name] = queue
        self.topology_bytes += footprint.QUEUE + cost_of(queue.name, queue.arguments)
        if queue.exclusive:
            self._owned.setdefault(queue.owner, {})[queue] = None
        self.topology_version += 1
        self.routes.forget_queue(queue.name)
        if self.policies is not None:
            self.policies.queue_declared(queue)

    def delete_queue(
        self, name: str, *, if_unused: bool = False, if_empty: bool = False, owner: Hashable | None = None
    ) -> int:
        """Delete a queue with its bindings (queue.delete); returns how many messages were ready in it.

        One that is not there is no error.  Faults: 405 if it is another's exclusively, 406 for `if_unused` while it
        has consumers and `if_empty` while messages are ready.
        """
        name = without_line_breaks(name)
        if name not in self.queues:
            return 0
        queue = self.queue(name, owner)
        if if_empty and queue.message_count:
            raise faults.not_empty(name, self.name)
        if if_unused and queue.consumer_count:
            raise faults.in_use("queue", name, self.name)
        return self._end_queue(queue)

    def _end_queue(self, queue: Queue) -> int:
        del self.queues[queue.name]  # first: whatever its consumers do when they are cancelled finds it gone
        self.topology_bytes -= footprint.QUEUE + cost_of(queue.name, queue.arguments)
        if queue.exclusive:
            owned = self._owned[queue.owner]
            del owned[queue]
            if not owned:
                del self._owned[queue.owner]
        orphans = self._unbind_all_from(queue)
        self.topology_changed()
        count = queue.delete()
        if queue.durable:
            self.journal.queue_deleted(self.name, queue.name)
        self._end_exchanges(orphans)
        return count

    def owner_gone(self, owner: Hashable) -> None:
        """The connection has ended: its exclusive queues are deleted."""
        for queue in list(self._owned.get(owner, ())):
            if not queue.is_deleted:  # by what the end of the one before has led to
                self._end_queue(queue)

    def clear(self) -> None:
        """Delete everything but the standard exchanges, whoever owns or uses it: the virtual host is deleted."""
        for queue in list(self.queues.values()):
            if not queue.is_deleted:
                self._end_queue(queue)
        self._end_exchanges(
            [found for name, found in self.exchanges.items() if name and name not in STANDARD_EXCHANGES]
        )
        for binding in list(self.bindings()):
            self._unbind(binding)

    # -- bindings -----------------------------------------------------------------------------------------

    def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        owner: Hashable | None = None,
    ) -> None:
        """Lead from `exchange` to `queue` (queue.bind); a binding that is there already is no error.

        Faults: 403 for the default exchange, 404, 405 if the queue is another's exclusively, 406 for arguments the
        exchange does not understand and beyond the limit.
        """
        self._bind(QUEUE, queue, exchange, routing_key, arguments, lambda name: self.queue(name, owner))

    def bind_exchange(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Lead from the exchange `source` to the exchange `destination` (exchange.bind); faults as for a queue."""
        self._bind(EXCHANGE, destination, source, routing_key, arguments, self.exchange)

    def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
        owner: Hashable | None = None,
    ) -> None:
        """Undo a :meth:`bind_queue` with the same values (queue.unbind); what is not there is no error.

        Faults: 403 for the default exchange, 405 if the queue is another's exclusively.
        """
        binding = self._binding_between(QUEUE, queue, exchange, routing_key, arguments)
        if binding is not None:
            self.queue(binding.destination, owner)
            self._unbind_one(binding)

    def unbind_exchange(
        self, destination: str, source: str, routing_key: str = "", arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Undo a :meth:`bind_exchange` with the same values (exchange.unbind); what is not there is no error."""
        binding = self._binding_between(EXCHANGE, destination, source, routing_key, arguments)
        if binding is not None:
            self._unbind_one(binding)

    @property
    def binding_count(self) -> int:
        """How many bindings there are, without those of the default exchange."""
        return self._binding_count

    def bindings(self) -> Iterator[Binding]:
        """All bindings, without those of the default exchange, exchange by exchange."""
        for exchange in self.exchanges.values():
            yield from exchange.bindings

    def bindings_to(self, destination: Destination) -> tuple[Binding, ...]:
        """The bindings that lead to a queue or an exchange, oldest first."""
        return tuple(self._bindings_to.get(destination, ()))

    def _bind(
        self,
        kind: str,
        destination: str,
        source: str,
        routing_key: str,
        arguments: Mapping[str, Any] | None,
        find: Callable[[str], Destination],
    ) -> None:
        source, destination = without_line_breaks(source), without_line_breaks(destination)
        if not source or (kind == EXCHANGE and not destination):
            raise faults.default_exchange()
        exchange = self.exchange(source)
        found = find(destination)
        exchange.check_binding(arguments or {})
        binding = Binding(source, destination, kind, routing_key, arguments)
        if binding in exchange.bindings:
            return
        if self._binding_count >= self.limits.bindings:
            raise faults.limit_reached("binding", routing_key, self.name, self.limits.bindings)
        self._check_bytes("binding", routing_key, exchange.cost_of(binding))
        self._enter_binding(binding, exchange, found)
        if exchange.durable and found.durable:
            self.journal.bound(self.name, binding)

    def _enter_binding(self, binding: Binding, exchange: Exchange, destination: Destination) -> None:
        exchange.add(binding, destination)
        self._bindings_to.setdefault(destination, {})[binding] = None
        self._binding_count += 1
        self.topology_bytes += exchange.cost_of(binding)
        self.topology_changed()

    def _binding_between(
        self, kind: str, destination: str, source: str, routing_key: str, arguments: Mapping[str, Any] | None
    ) -> Binding | None:
        """The binding of these values; None if there is none."""
        source, destination = without_line_breaks(source), without_line_breaks(destination)
        if not source or (kind == EXCHANGE and not destination):
            raise faults.default_exchange()
        binding = Binding(source, destination, kind, routing_key, arguments)
        exchange = self.exchanges.get(source)
        return binding if exchange is not None and binding in exchange.bindings else None

    def _unbind_one(self, binding: Binding) -> None:
        exchange = self._unbind(binding)
        if exchange.auto_delete and not exchange.bindings:
            self._end_exchanges([exchange])

    def _unbind(self, binding: Binding) -> Exchange:
        """Remove a binding; returns its source, which may have lost its last one."""
        exchange = self.exchanges[binding.source]
        destination = exchange.bindings[binding]
        exchange.remove(binding)
        others = self._bindings_to[destination]
        del others[binding]
        if not others:
            del self._bindings_to[destination]
        self._binding_count -= 1
        self.topology_bytes -= exchange.cost_of(binding)
        self.topology_changed()
        if exchange.durable and destination.durable:
            self.journal.unbound(self.name, binding)
        return exchange

    def _unbind_all_from(self, destination: Destination) -> list[Exchange]:
        """Remove what leads to `destination`; returns the auto-delete exchanges that lost their last binding."""
        sources = [self._unbind(binding) for binding in list(self._bindings_to.get(destination, ()))]
        return [source for source in sources if source.auto_delete and not source.bindings]

    def _check_bytes(self, kind: str, name: str, cost: int) -> None:
        if self.topology_bytes + cost > self.limits.topology_bytes:
            raise faults.topology_full(kind, name, self.name, self.limits.topology_bytes)

    def consumer_came(self, tag: str, cost: int) -> None:
        """There is one more consumer, which takes `cost` octets; Fault 406 if there is no room."""
        self._check_bytes("consumer", tag, cost)
        self.topology_bytes += cost

    def consumer_went(self, cost: int) -> None:
        """It is gone."""
        self.topology_bytes -= cost

    def topology_changed(self) -> None:
        """Forget the routes that were found: a binding, an exchange or an alternate exchange has changed."""
        self.topology_version += 1
        self.routes.forget()

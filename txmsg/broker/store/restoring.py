"""From rows to a running broker: vhosts, policies, exchanges, queues, bindings, then the messages, in their order.

What cannot be restored (a queue whose definition is damaged, an exchange of a type that is gone) is reported, and
what hangs on it is set aside with it; nothing of it stops the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from txmsg.broker.definitions.policies import SETTING as POLICY
from txmsg.broker.definitions.policies import restore_policies
from txmsg.broker.message import Entry
from txmsg.broker.store.records import (
    BINDING,
    EXCHANGE,
    QUEUE,
    SETTING,
    Contents,
    Definition,
    KeptMessage,
)
from txmsg.broker.store.report import Damage, LoadReport
from txmsg.broker.store.rows import KeptQueue, KeptRows
from txmsg.broker.vhost.bindings import Binding
from txmsg.errors import TxmsgError, clip

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["VHOST", "Restorer", "VirtualHosts", "binding_table", "exchange_table", "queue_table"]

#: The kind of setting that names a virtual host.
VHOST = "vhost"


class VirtualHosts(Protocol):
    """What is restored into; the broker is one."""

    @property
    def vhosts(self) -> Mapping[str, VirtualHost]:
        """By name."""

    def add_vhost(self, name: str) -> VirtualHost:
        """One more."""


def exchange_table(vhost: str, exchange: Exchange) -> dict[str, Any]:
    """What is kept of an exchange."""
    return {
        "vhost": vhost,
        "name": exchange.name,
        "type": exchange.type,
        "auto_delete": exchange.auto_delete,
        "internal": exchange.internal,
        "arguments": exchange.arguments or {},
    }


def queue_table(vhost: str, queue: Queue) -> dict[str, Any]:
    """What is kept of a queue."""
    return {
        "vhost": vhost,
        "name": queue.name,
        "auto_delete": queue.auto_delete,
        "arguments": queue.arguments or {},
    }


def binding_table(vhost: str, binding: Binding) -> dict[str, Any]:
    """What is kept of a binding."""
    return {
        "vhost": vhost,
        "source": binding.source,
        "destination": binding.destination,
        "destination_type": binding.destination_type,
        "routing_key": binding.routing_key,
        "arguments": binding.arguments or {},
    }


class Restorer:
    """Restores into `broker`, notes in `rows` where it came from, and in `report` what was done.

    unusable: (table, row) of what could not be restored.
    new_vhosts: names of virtual hosts that something was in although they were not kept themselves.
    """

    def __init__(self, broker: VirtualHosts, rows: KeptRows, report: LoadReport, wall_offset: float) -> None:
        self._broker = broker
        self._rows = rows
        self._report = report
        self._wall_offset = wall_offset
        self._sequence = 0
        self._queues: dict[int, tuple[Queue, KeptQueue]] = {}
        self.unusable: list[tuple[str, int]] = []
        self.new_vhosts: list[str] = []

    def restore(self, contents: Contents) -> None:
        """All of it: definitions in the order of their kinds, messages in that of their rows.

        Policies follow the virtual hosts and come before the queues: what has expired meanwhile must find the dead
        letter exchange that a policy gives its queue.
        """
        settings = [definition for definition in contents.definitions if definition.kind == SETTING]
        for definition in settings:
            self._definition(definition)
        self._policies()
        for definition in contents.definitions[len(settings) :]:
            self._definition(definition)
        self._messages(contents.messages)

    def _policies(self) -> None:
        kept = self._rows.settings.get(POLICY, {})
        for problem in restore_policies(self._broker.vhosts, {name: value for name, (_, value) in kept.items()}):
            self._damaged(problem)

    def _definition(self, definition: Definition) -> None:
        table, kind = definition.table, definition.kind
        try:
            if kind == SETTING:
                self._setting(definition.row, table)
            elif kind == EXCHANGE:
                self._exchange(definition.row, table)
            elif kind == QUEUE:
                self._queue(definition.row, table)
            elif kind == BINDING:
                self._binding(definition.row, table)
        except (TxmsgError, LookupError, TypeError, ValueError) as error:
            self.unusable.append(("definition", definition.row))
            what = {EXCHANGE: "exchange", QUEUE: "queue", BINDING: "binding to"}.get(kind, "setting")
            name = clip(str(table.get("name", table.get("destination"))))
            self._damaged(f"the {what} {name!r} could not be restored: {clip(str(error))}")

    def _damaged(self, what: str, messages: int = 0) -> None:
        self._report.damage.append(Damage(what, messages))

    def _vhost(self, table: Mapping[str, Any]) -> VirtualHost:
        name = table["vhost"]
        vhost = self._broker.vhosts.get(name)
        if vhost is None:
            vhost = self._broker.add_vhost(name)
            self.new_vhosts.append(name)
        return vhost

    def _setting(self, row: int, table: Mapping[str, Any]) -> None:
        kind, name = table["kind"], table["name"]
        self._rows.set_setting(kind, name, row, table["value"])
        if kind == VHOST:
            self._report.vhosts += 1
            if name not in self._broker.vhosts:
                self._broker.add_vhost(name)

    def _exchange(self, row: int, table: Mapping[str, Any]) -> None:
        vhost = self._vhost(table)
        vhost.restore_exchange(
            table["name"],
            table["type"],
            auto_delete=table["auto_delete"],
            internal=table["internal"],
            arguments=table["arguments"],
        )
        self._rows.exchanges[vhost.name, table["name"]] = row
        self._report.exchanges += 1

    def _queue(self, row: int, table: Mapping[str, Any]) -> None:
        vhost = self._vhost(table)
        queue = vhost.restore_queue(table["name"], auto_delete=table["auto_delete"], arguments=table["arguments"])
        self._queues[row] = (queue, self._rows.add_queue(vhost.name, queue, row))
        self._report.queues += 1

    def _binding(self, row: int, table: Mapping[str, Any]) -> None:
        vhost = self._vhost(table)
        binding = Binding(
            table["source"],
            table["destination"],
            table["destination_type"],
            table["routing_key"],
            table["arguments"],
        )
        vhost.restore_binding(binding)
        self._rows.bindings[vhost.name, binding] = row
        self._report.bindings += 1

    def _messages(self, messages: list[KeptMessage]) -> None:
        may_have_been_delivered = not self._report.stopped_cleanly
        lost: dict[int, int] = {}
        for row, queue_row, message, expires_at, delivery_count in messages:
            found = self._queues.get(queue_row)
            if found is None:
                self.unusable.append(("message", row))
                lost[queue_row] = lost.get(queue_row, 0) + 1
                continue
            queue, kept = found
            kept.messages += 1
            # Higher with each row, so the order of a queue is that of its rows.
            self._sequence += 1
            entry = Entry(message, self._sequence, None if expires_at is None else expires_at - self._wall_offset)
            entry.delivery_count = delivery_count or int(may_have_been_delivered)
            entry.row = row
            queue.restore(entry)
            self._report.messages += 1
        for queue_row, count in lost.items():
            self._damaged(f"{count} messages of a queue that could not be restored (row {queue_row})", count)

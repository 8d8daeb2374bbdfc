"""Giving definitions to a broker.

What is there already stays as it is, as RabbitMQ does it; a user that is there gets the password and the tags of the
definitions.  The order is RabbitMQ's but for policies, which come before the queues so that these obey them from the
beginning: users, virtual hosts, permissions, policies, exchanges, queues, bindings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from txmsg.broker.definitions.definitions import Definitions, ExchangeDefinition, QueueDefinition
from txmsg.broker.definitions.policies import policies_of
from txmsg.broker.faults import Fault
from txmsg.broker.users.users_file import UserEntry
from txmsg.errors import ConfigurationError, clip
from txmsg.wire.constants import PRECONDITION_FAILED, RESOURCE_LOCKED

if TYPE_CHECKING:
    from txmsg.broker.server import Broker
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["ImportReport", "export_definitions", "export_vhost", "import_definitions", "put_user"]


@dataclass(slots=True)
class ImportReport:
    """What came of an import.

    counts: what there was of each kind.  remarks: a line for everything that was not done as the document says.
    """

    counts: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def summary(self) -> str:
        """What there was, in one line."""
        return ", ".join(f"{count} {kind}" for kind, count in self.counts.items() if count) or "nothing"


def put_user(broker: Broker, entry: UserEntry) -> None:
    """Have a user as `entry` has it, with its permissions; virtual hosts that these name are made.

    :raises ConfigurationError: if the name or the hash cannot be used.
    """
    if entry.password is not None:
        broker.users.add(entry.name, entry.password, entry.tags)
    elif entry.password_hash is not None:
        broker.users.add_hash(entry.name, entry.password_hash, entry.hashing_algorithm, entry.tags)
    else:
        broker.users.add(entry.name, None, entry.tags)
    for given in entry.permissions:
        broker.add_vhost(given.vhost)
        broker.users.set_permissions(entry.name, given.vhost, given.configure, given.write, given.read)


def import_definitions(broker: Broker, definitions: Definitions) -> ImportReport:
    """Make all that `definitions` names; what was made before an error stays.

    :raises ConfigurationError: naming the entry that cannot be, and why.
    """
    report = ImportReport(
        {
            kind: len(getattr(definitions, kind))
            for kind in ("users", "vhosts", "permissions", "policies", "exchanges", "queues", "bindings")
        },
        list(definitions.not_used),
    )
    for entry in definitions.users:
        try:
            put_user(broker, entry)
        except ConfigurationError as error:
            raise ConfigurationError(f"user {clip(entry.name, 60)!r}: {error}") from None
    for name in definitions.vhosts:
        broker.add_vhost(name)
    for given in definitions.permissions:
        if given.vhost not in broker.vhosts or broker.users.get(given.user) is None:
            where = f"permission of {clip(given.user, 60)!r} for {clip(given.vhost, 60)!r}"
            raise ConfigurationError(f"{where}: there is no such user or virtual host")
        broker.users.set_permissions(given.user, given.vhost, given.configure, given.write, given.read)
    for policy in definitions.policies:
        where = f"policy {clip(policy.name, 60)!r}"
        policies_of(_vhost(broker, policy.vhost, where)).put(policy)
        if policy.without_effect:
            report.remarks.append(f"{where}: without effect here: {', '.join(policy.without_effect)}")
    _import_topology(broker, definitions, report)
    return report


def _vhost(broker: Broker, name: str, where: str) -> VirtualHost:
    found = broker.vhosts.get(name)
    if found is None:
        raise ConfigurationError(f"{where}: there is no virtual host {clip(name, 60)!r}")
    return found


def _import_topology(broker: Broker, definitions: Definitions, report: ImportReport) -> None:
    for exchange in definitions.exchanges:
        where = f"exchange {clip(exchange.name, 60)!r}"
        _declare_exchange(_vhost(broker, exchange.vhost, where), exchange, where, report)
    for queue in definitions.queues:
        where = f"queue {clip(queue.name, 60)!r}"
        _declare_queue(_vhost(broker, queue.vhost, where), queue, where, report)
    for binding in definitions.bindings:
        where = f"binding of {clip(binding.destination, 60)!r} to {clip(binding.source, 60)!r}"
        vhost = _vhost(broker, binding.vhost, where)
        if not binding.source:
            continue  # to the default exchange: it is there with the queue
        bind = vhost.bind_queue if binding.destination_type == "queue" else vhost.bind_exchange
        try:
            bind(binding.destination, binding.source, binding.routing_key, dict(binding.arguments))
        except Fault as fault:
            raise ConfigurationError(f"{where}: {fault.reply_text}") from None


def _declare_exchange(vhost: VirtualHost, given: ExchangeDefinition, where: str, report: ImportReport) -> None:
    was_there = given.name in vhost.exchanges
    try:
        vhost.declare_exchange(
            given.name,
            given.type,
            durable=given.durable,
            auto_delete=given.auto_delete,
            internal=given.internal,
            arguments=dict(given.arguments),
        )
    except Fault as fault:
        _judge(fault, where, was_there, report)


def _declare_queue(vhost: VirtualHost, given: QueueDefinition, where: str, report: ImportReport) -> None:
    was_there = given.name in vhost.queues
    try:
        vhost.declare_queue(
            given.name,
            durable=given.durable,
            auto_delete=given.auto_delete,
            arguments=dict(given.arguments),
            takes_reserved=True,
        )
    except Fault as fault:
        _judge(fault, where, was_there, report)


def _judge(fault: Fault, where: str, was_there: bool, report: ImportReport) -> None:
    """One that is there with other properties stays as it is; anything else is an error."""
    if not was_there or fault.reply_code not in (PRECONDITION_FAILED, RESOURCE_LOCKED):
        raise ConfigurationError(f"{where}: {fault.reply_text}") from None
    report.remarks.append(f"{where} stays as it is: {fault.reply_text}")


# -- the other way ----------------------------------------------------------------------------------------------------


def export_definitions(broker: Broker) -> dict[str, Any]:
    """All that a document can hold, in RabbitMQ's shape; exclusive queues and standard exchanges are left out.

    Values of arguments are field values: whoever writes it as JSON converts them.
    """
    vhosts = [broker.vhosts[name] for name in sorted(broker.vhosts)]
    return {
        "users": [
            {
                "name": user.name,
                "password_hash": user.password_hash,
                "hashing_algorithm": user.hashing_algorithm,
                "tags": list(user.tags),
                "limits": {},
            }
            for user in (broker.users.get(name) for name in broker.users.names())
            if user is not None
        ],
        "vhosts": [{"name": vhost.name} for vhost in vhosts],
        "permissions": [
            {
                "user": each.user,
                "vhost": each.vhost,
                "configure": each.configure,
                "write": each.write,
                "read": each.read,
            }
            for each in broker.users.all_permissions()
        ],
        "topic_permissions": [],
        "parameters": [],
        "global_parameters": [],
        **_collected([export_vhost(vhost, with_name=True) for vhost in vhosts]),
    }


def _collected(parts: Iterable[dict[str, list[Any]]]) -> dict[str, list[Any]]:
    together: dict[str, list[Any]] = {"policies": [], "queues": [], "exchanges": [], "bindings": []}
    for part in parts:
        for key, entries in part.items():
            together[key] += entries
    return together


def export_vhost(vhost: VirtualHost, *, with_name: bool = False) -> dict[str, list[Any]]:
    """Policies, queues, exchanges and bindings of one virtual host; `with_name`: entries say which one."""
    where = {"vhost": vhost.name} if with_name else {}
    return {
        "policies": [
            where
            | {
                "name": policy.name,
                "pattern": policy.pattern,
                "apply-to": policy.apply_to,
                "definition": dict(policy.definition),
                "priority": policy.priority,
            }
            for policy in policies_of(vhost)
        ],
        "queues": [
            where
            | {
                "name": queue.name,
                "durable": queue.durable,
                "auto_delete": queue.auto_delete,
                "arguments": dict(queue.arguments),
            }
            for _, queue in sorted(vhost.queues.items())
            if not queue.exclusive
        ],
        "exchanges": [
            where
            | {
                "name": exchange.name,
                "type": exchange.type,
                "durable": exchange.durable,
                "auto_delete": exchange.auto_delete,
                "internal": exchange.internal,
                "arguments": dict(exchange.arguments),
            }
            for _, exchange in sorted(vhost.exchanges.items())
            if exchange.name and not exchange.name.startswith("amq.")
        ],
        "bindings": [
            where
            | {
                "source": binding.source,
                "destination": binding.destination,
                "destination_type": binding.destination_type,
                "routing_key": binding.routing_key,
                "arguments": dict(binding.arguments),
            }
            for _, exchange in sorted(vhost.exchanges.items())
            for binding in exchange.bindings
            if not (binding.is_to_queue and vhost.queues[binding.destination].exclusive)
        ],
    }

"""Policies: settings for all queues and exchanges whose names match a pattern.

https://www.rabbitmq.com/docs/parameters#policies.  At most one policy applies to a queue or exchange: of those that
match, the one with the highest priority.  Where a queue has the same setting as an argument of its own, the smaller of
two numbers counts, and of two other values the queue's own.

Used are the keys in :data:`QUEUE_KEYS` and `alternate-exchange`; the keys in :data:`WITHOUT_EFFECT` are taken and mean
nothing to a single broker.

Patterns come from administrators, not from clients, so a regular expression is allowed here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.exchanges.exchange import ALTERNATE_EXCHANGE
from txmsg.broker.faults import Fault
from txmsg.broker.queues.arguments import QueueArguments
from txmsg.errors import ConfigurationError, clip

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "APPLY_TO",
    "QUEUE_KEYS",
    "SETTING",
    "WITHOUT_EFFECT",
    "Policies",
    "Policy",
    "policies_of",
    "restore_policies",
]

#: What a journal keeps a policy as.
SETTING: Final = "policy"

#: What a policy can be for.
APPLY_TO: Final = ("all", "queues", "exchanges", "classic_queues", "quorum_queues")

#: policy key -> the setting of a queue.
QUEUE_KEYS: Final = {
    "message-ttl": "message_ttl",
    "expires": "expires",
    "max-length": "max_length",
    "max-length-bytes": "max_length_bytes",
    "overflow": "overflow",
    "dead-letter-exchange": "dead_letter_exchange",
    "dead-letter-routing-key": "dead_letter_routing_key",
    "delivery-limit": "delivery_limit",
}
#: Of these the smaller counts, policy's or argument's.
_SMALLER_COUNTS: Final = frozenset({"message_ttl", "expires", "max_length", "max_length_bytes", "delivery_limit"})

#: Keys of clusters, federation and queue files.
WITHOUT_EFFECT: Final = frozenset(
    {
        "queue-mode",
        "queue-version",
        "queue-master-locator",
        "queue-leader-locator",
        "max-in-memory-length",
        "max-in-memory-bytes",
        "dead-letter-strategy",
        "ha-mode",
        "ha-params",
        "ha-promote-on-failure",
        "ha-promote-on-shutdown",
        "ha-sync-batch-size",
        "ha-sync-mode",
        "federation-upstream",
        "federation-upstream-set",
        "consumer-timeout",
    }
)


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy.  Its definition is checked: :meth:`checked` makes it."""

    vhost: str
    name: str
    pattern: str
    definition: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    apply_to: str = "all"

    @classmethod
    def checked(
        cls, vhost: str, name: str, pattern: object, definition: object, priority: object = 0, apply_to: object = "all"
    ) -> Policy:
        """The policy.

        :raises ConfigurationError: if the pattern, a key, a value, the priority or `apply_to` cannot be used.
        """
        if not isinstance(pattern, str):
            raise ConfigurationError("the pattern must be a string")
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigurationError(f"not a regular expression: {clip(str(error), 100)}") from None
        if isinstance(priority, bool) or not isinstance(priority, int):
            raise ConfigurationError("the priority must be an integer")
        if apply_to not in APPLY_TO:
            raise ConfigurationError(f"apply-to must be one of {', '.join(APPLY_TO)}")
        if not isinstance(definition, dict) or not definition:
            raise ConfigurationError("the definition must be an object that is not empty")
        for key, value in definition.items():
            _check(key, value)
        return cls(vhost, name, pattern, dict(definition), priority, str(apply_to))

    @property
    def without_effect(self) -> list[str]:
        """The keys that mean nothing to this broker."""
        return sorted(WITHOUT_EFFECT.intersection(self.definition))

    def applies_to_queue(self, name: str, queue_type: str) -> bool:
        """Whether it is for a queue of that name and type."""
        return self.apply_to in ("all", "queues", f"{queue_type}_queues") and bool(re.search(self.pattern, name))

    def applies_to_exchange(self, name: str) -> bool:
        """Whether it is for an exchange of that name."""
        return self.apply_to in ("all", "exchanges") and bool(re.search(self.pattern, name))

    def settings(self, own: QueueArguments) -> QueueArguments:
        """What a queue with the arguments `own` has to obey under this policy."""
        default = QueueArguments()
        changes: dict[str, Any] = {}
        for key, setting in QUEUE_KEYS.items():
            if key not in self.definition:
                continue
            given, mine = self.definition[key], getattr(own, setting)
            if mine == getattr(default, setting):
                changes[setting] = given
            elif setting in _SMALLER_COUNTS:
                changes[setting] = min(given, mine)
        return replace(own, **changes) if changes else own


def _check(key: str, value: object) -> None:
    """Refuse a setting that RabbitMQ would refuse."""
    if key in WITHOUT_EFFECT:
        return
    if key == "alternate-exchange" or key == "dead-letter-exchange":
        if not isinstance(value, str):
            raise ConfigurationError(f"{key} must be a string")
    elif key == "delivery-limit":
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ConfigurationError(f"{key} must be an integer that is not negative")
    elif key in QUEUE_KEYS:
        arguments = {f"x-{key}": value}
        if key == "dead-letter-routing-key":
            arguments["x-dead-letter-exchange"] = ""
        try:
            QueueArguments.parse(arguments)
        except Fault:
            raise ConfigurationError(f"{clip(repr(value), 60)} is not a valid {key}") from None
    else:
        raise ConfigurationError(f"{clip(key, 60)!r} is not a recognised policy setting")


class Policies:
    """The policies of a virtual host, by name.

    Applied when a queue or exchange is declared, and to all there are when a policy comes or goes.  Kept by the
    journal, where there is one.
    """

    def __init__(self, vhost: VirtualHost) -> None:
        self._vhost = vhost
        self._policies: dict[str, Policy] = {}

    def __iter__(self) -> Iterator[Policy]:
        return iter(sorted(self._policies.values(), key=lambda policy: policy.name))

    def __len__(self) -> int:
        return len(self._policies)

    def get(self, name: str) -> Policy | None:
        """The policy of that name."""
        return self._policies.get(name)

    def put(self, policy: Policy) -> None:
        """Have it, in the place of one of that name."""
        self._policies[policy.name] = policy
        self._apply()
        value = {
            "vhost": policy.vhost,
            "name": policy.name,
            "pattern": policy.pattern,
            "definition": dict(policy.definition),
            "priority": policy.priority,
            "apply_to": policy.apply_to,
        }
        self._vhost.journal.put_setting(SETTING, self._setting(policy.name), value)

    def restore(self, policy: Policy) -> None:
        """Have one that the journal has kept."""
        self._policies[policy.name] = policy
        self._apply()

    def delete(self, name: str) -> bool:
        """Be without it; False if there is none."""
        if self._policies.pop(name, None) is None:
            return False
        self._apply()
        self._vhost.journal.delete_setting(SETTING, self._setting(name))
        return True

    def forget(self) -> None:
        """The virtual host is being deleted: none of them is kept."""
        for name in list(self._policies):
            self.delete(name)

    def _setting(self, name: str) -> str:
        return f"{self._vhost.name}\0{name}"

    def of_queue(self, queue: Queue) -> Policy | None:
        """The policy that a queue obeys."""
        return self._best(one for one in self._policies.values() if one.applies_to_queue(queue.name, queue.type))

    def of_exchange(self, name: str) -> Policy | None:
        """The policy that an exchange obeys; the default exchange obeys none."""
        return self._best(one for one in self._policies.values() if name and one.applies_to_exchange(name))

    @staticmethod
    def _best(matching: Iterable[Policy]) -> Policy | None:
        return max(matching, key=lambda policy: (policy.priority, policy.name), default=None)

    # -- called by the virtual host -----------------------------------------------------------------------------------

    def queue_declared(self, queue: Queue) -> None:
        """A queue is new: it obeys its policy from the beginning."""
        if self._policies:
            self._apply_to_queue(queue)

    def exchange_declared(self, exchange: Exchange) -> None:
        """An exchange is new: it obeys its policy from the beginning."""
        if self._policies:
            self._apply_to_exchange(exchange)

    def _apply(self) -> None:
        for queue in list(self._vhost.queues.values()):
            self._apply_to_queue(queue)
        for exchange in list(self._vhost.exchanges.values()):
            self._apply_to_exchange(exchange)

    def _apply_to_queue(self, queue: Queue) -> None:
        policy = self.of_queue(queue)
        own = QueueArguments.parse(
            queue.arguments,
            name=queue.name,
            vhost=self._vhost.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
        )
        settings = own if policy is None else policy.settings(own)
        if settings != queue.settings:
            queue.change_settings(settings)

    def _apply_to_exchange(self, exchange: Exchange) -> None:
        policy = self.of_exchange(exchange.name)
        alternate = exchange.arguments.get(ALTERNATE_EXCHANGE)
        if alternate is None and policy is not None:
            alternate = policy.definition.get(ALTERNATE_EXCHANGE)
        if alternate != exchange.alternate:
            exchange.alternate = alternate
            self._vhost.topology_changed()


def policies_of(vhost: VirtualHost) -> Policies:
    """The policies of a virtual host."""
    if not isinstance(vhost.policies, Policies):
        vhost.policies = Policies(vhost)
    return vhost.policies


def restore_policies(vhosts: Mapping[str, VirtualHost], settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Give policies that a journal has kept to their virtual hosts; a line for each that cannot be."""
    for name, value in settings.items():
        try:
            vhost = vhosts[value["vhost"]]
            policies_of(vhost).restore(
                Policy.checked(
                    value["vhost"],
                    value["name"],
                    value["pattern"],
                    value["definition"],
                    value["priority"],
                    value["apply_to"],
                )
            )
        except (KeyError, ConfigurationError) as error:
            yield f"policy {clip(name, 60)!r} cannot be restored: {clip(str(error), 100)}"

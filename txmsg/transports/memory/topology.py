"""Exchanges, queues and bindings over ``memory://``: the model's methods with the transport's signatures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred

from txmsg.abc import DeclaredQueue
from txmsg.broker import faults
from txmsg.broker.vhost.direct_reply import is_reply_name
from txmsg.transports.memory.life import ChannelLife, carried, name

__all__ = ["Topology"]

Arguments = Mapping[str, Any] | None


class Topology(ChannelLife):
    """The part of a channel that declares.  See :class:`txmsg.abc.MessagingChannel` for what each method does."""

    def exchange_declare(
        self,
        exchange: str,
        exchange_type: str = "direct",
        *,
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[None]:
        """Create an exchange, or check that it is there (`passive`).  NotFound, PreconditionFailed, AccessRefused."""

        def declare() -> None:
            self.vhost.declare_exchange(
                name("exchange", exchange),
                name("type", exchange_type),
                passive=passive,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                arguments=carried(arguments),
            )

        return self._call(declare)

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        """Delete an exchange; one that is not there is fine.  PreconditionFailed: `if_unused` and it is bound."""
        return self._call(lambda: self.vhost.delete_exchange(name("exchange", exchange), if_unused=if_unused))

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from one exchange to another.  NotFound."""
        return self._call(
            lambda: self.vhost.bind_exchange(
                name("destination", destination),
                name("source", source),
                name("routing_key", routing_key),
                carried(arguments),
            )
        )

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away; one that is not there is fine."""
        return self._call(
            lambda: self.vhost.unbind_exchange(
                name("destination", destination),
                name("source", source),
                name("routing_key", routing_key),
                carried(arguments),
            )
        )

    def queue_declare(
        self,
        queue: str = "",
        *,
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Arguments = None,
    ) -> Deferred[DeclaredQueue]:
        """Create a queue, or check that it is there (`passive`); "" lets the broker choose the name.

        NotFound, PreconditionFailed, ResourceLocked, AccessRefused.
        """

        def declare() -> DeclaredQueue:
            wanted = name("queue", queue)
            if is_reply_name(wanted):
                if not self.vhost.direct_reply.exists(wanted):
                    raise faults.not_found("queue", wanted, self.vhost.name)
                return DeclaredQueue(wanted, 0, 1)
            declared = self.vhost.declare_queue(
                wanted,
                passive=passive,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                arguments=carried(arguments),
                owner=self.connection,
            )
            return DeclaredQueue(declared.name, declared.message_count, declared.consumer_count)

        return self._call(declare)

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        """Delete a queue; fires with how many messages went with it.  One that is not there is fine: 0."""
        return self._call(
            lambda: self.vhost.delete_queue(
                name("queue", queue), if_unused=if_unused, if_empty=if_empty, owner=self.connection
            )
        )

    def queue_purge(self, queue: str) -> Deferred[int]:
        """Drop the messages that are ready; fires with how many.  NotFound."""
        return self._call(lambda: self.vhost.queue(name("queue", queue), self.connection).purge())

    def queue_bind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Let messages flow from an exchange to a queue.  NotFound."""
        return self._call(
            lambda: self.vhost.bind_queue(
                name("queue", queue),
                name("exchange", exchange),
                name("routing_key", routing_key),
                carried(arguments),
                owner=self.connection,
            )
        )

    def queue_unbind(
        self, queue: str, exchange: str, routing_key: str = "", arguments: Arguments = None
    ) -> Deferred[None]:
        """Take such a binding away; one that is not there is fine."""
        return self._call(
            lambda: self.vhost.unbind_queue(
                name("queue", queue),
                name("exchange", exchange),
                name("routing_key", routing_key),
                carried(arguments),
                owner=self.connection,
            )
        )

"""Transactions: class tx.

AMQP 0-9-1 section 1.9 and https://www.rabbitmq.com/docs/semantics#tx.  Publishes and settlements are held until
commit; what is wrong with one is said at once.  The invariants:

* Until commit no queue has changed: what was published is nowhere, what was settled still belongs to the consumer
  and counts against its prefetch count.  Such a tag cannot be settled a second time.
* Rollback makes settled tags outstanding again and forgets the publishes.
* Commit publishes, returns what is mandatory and went nowhere, settles, and answers once all that is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.broker.channel.unacked import Delivered
from txmsg.broker.faults import Fault, cannot_switch_mode, not_transactional, transaction_limit
from txmsg.broker.queues.queue import REJECTED, UNROUTED
from txmsg.wire.constants import NOT_FOUND
from txmsg.wire.methods import tx

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.broker.message import Message
    from txmsg.wire.properties import BasicProperties

__all__ = ["Transactions"]

#: What a held settlement costs, about.
_SETTLEMENT_COST = 200


class Transactions:
    """The transaction of a channel.

    is_on: bool -- tx.select has come; for good.
    """

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self.is_on = False
        self._publishes: list[tuple[Message, BasicProperties, bool]] = []
        self._settlements: list[tuple[int, list[tuple[int, Delivered]]]] = []
        #: Bytes held by it.
        self._cost = 0
        self.handlers: dict[type[Any], Any] = {
            tx.Select: self._select,
            tx.Commit: self._commit,
            tx.Rollback: self._rollback,
        }

    def _select(self, method: tx.Select) -> None:
        if self._channel.confirms.is_on:
            raise cannot_switch_mode("confirm", "tx")
        self.is_on = True
        self._channel.send(tx.SelectOk())

    # -- what is held -------------------------------------------------------------------------------------

    def publish(self, message: Message, properties: BasicProperties, mandatory: bool) -> None:
        """Hold a message that was checked; `properties` are those it came with, for routing.

        Fault 506, which closes the connection, when the transaction holds more than a queue may, or all that clients
        have begun is too much and this one has most of it.
        """
        self._hold(message.cost)
        self._publishes.append((message, properties, mandatory))

    def settle(self, deliveries: list[tuple[int, Delivered]], outcome: int) -> None:
        """Hold what became of deliveries."""
        self._hold(_SETTLEMENT_COST)
        self._settlements.append((outcome, deliveries))

    def _hold(self, cost: int) -> None:
        limit = self._channel.vhost.limits.queue_bytes
        if self._cost + cost > limit:
            raise transaction_limit(limit)
        # Before it is known whether it may: what is given back at the end is what was counted.
        self._cost += cost
        refusal = self._channel.connection.hold_unfinished(cost)
        if refusal is not None:
            raise refusal

    def _forget(self) -> None:
        self._publishes = []
        self._settlements = []
        cost, self._cost = self._cost, 0
        self._channel.connection.free_unfinished(cost)

    # -- its end ------------------------------------------------------------------------------------------

    def _commit(self, method: tx.Commit) -> None:
        self._check()
        channel = self._channel
        for message, properties, mandatory in self._publishes:
            outcome = self._publish(message, properties)
            if outcome == UNROUTED and mandatory:
                channel.publishing.give_back(message, properties)
            elif outcome == REJECTED:
                channel.vhost.check_capacity(message, properties)
        settlements = self._settlements
        self._forget()
        is_durable = channel.vhost.journal.is_durable
        if not is_durable:
            # Before what the settlements set free.
            channel.send(tx.CommitOk())
        for outcome, deliveries in settlements:
            channel.settling.apply((delivered for _, delivered in deliveries), outcome)
        if is_durable:
            channel.reply_when_kept(tx.CommitOk(), tx.Commit)

    def _publish(self, message: Message, properties: BasicProperties) -> int:
        try:
            return self._channel.vhost.publish(message.exchange, message.routing_key, message, properties)
        except Fault as refusal:
            if refusal.reply_code != NOT_FOUND:
                raise
            # The exchange went after the publish was accepted.
            return UNROUTED

    def _rollback(self, method: tx.Rollback) -> None:
        self._check()
        self._give_back()
        self._channel.send(tx.RollbackOk())

    def _give_back(self) -> None:
        """Make what was settled outstanding again, and forget the rest."""
        deliveries = [one for _, taken in self._settlements for one in taken]
        self._forget()
        if deliveries:
            self._channel.settling.unacked.give_back(deliveries)

    def _check(self) -> None:
        if not self.is_on:
            raise not_transactional()

    def close(self) -> None:
        """The channel is over: the transaction never was."""
        self._give_back()

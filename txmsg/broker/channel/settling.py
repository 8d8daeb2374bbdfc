"""Settling: ack, nack, reject and recover; what became of deliveries, and the credit that comes back by it.

AMQP 0-9-1 sections 1.8.3.13 to 1.8.3.16, https://www.rabbitmq.com/docs/confirms and /docs/nack.  The invariants:

* A delivery is settled once; a tag that is not outstanding closes the channel (406) and settles nothing.
* The queue hears of a settlement before the credit comes back, so a message that is returned may go to another
  consumer before this one is asked again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from txmsg.broker.channel.unacked import Delivered, Unacked
from txmsg.broker.faults import Fault, not_implemented, unknown_delivery_tag
from txmsg.wire.methods import basic

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.broker.channel.consumer import QueueConsumer
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue

__all__ = ["ACKED", "REJECTED", "REQUEUED", "Settling"]

#: What became of deliveries.
ACKED = 0
REQUEUED = 1
REJECTED = 2


class Settling:
    """The unsettled deliveries of a channel."""

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self._credit = channel.credit
        #: The delivery tag given last; tags count from 1.
        self.last_tag = 0
        self.unacked = Unacked()
        self.handlers: dict[type[Any], Any] = {
            basic.Reject: self._reject,
            basic.Recover: self._recover,
            basic.RecoverAsync: self._recover_async,
        }

    def ack(self, tag: int, multiple: bool) -> None:
        """basic.ack; Fault 406 for a tag that is not outstanding."""
        # Hot where it is a single one outside a transaction.
        if multiple or self._channel.transactions.is_on:
            self._settle(tag, multiple, ACKED)
            return
        delivered = self.unacked.pop(tag, None)
        if delivered is None:
            raise unknown_delivery_tag(tag)
        consumer, queue, entry = delivered
        queue.ack(entry)
        if consumer is not None:
            self._credit.settled(1)
            consumer.settled(1)

    def nack(self, tag: int, multiple: bool, requeue: bool) -> None:
        """basic.nack; Fault 406 for a tag that is not outstanding."""
        self._settle(tag, multiple, REQUEUED if requeue else REJECTED)

    def _reject(self, method: basic.Reject) -> None:
        self._settle(method.delivery_tag, False, REQUEUED if method.requeue else REJECTED)

    def _settle(self, tag: int, multiple: bool, outcome: int) -> None:
        deliveries = self.unacked.take(tag, multiple)
        if self._channel.transactions.is_on:
            try:
                self._channel.transactions.settle(deliveries, outcome)
            except Fault:
                # They belong to nobody else yet, and have to return to their queues.
                self.unacked.give_back(deliveries)
                raise
        else:
            self.apply((delivered for _, delivered in deliveries), outcome)

    def apply(self, deliveries: Iterable[Delivered], outcome: int) -> None:
        """Do to the queues what `outcome` says, and give the credit back."""
        owed: dict[QueueConsumer, int] = {}
        returned: dict[Queue, list[Entry]] = {}
        for consumer, queue, entry in deliveries:
            if outcome == ACKED:
                queue.ack(entry)
            elif outcome == REJECTED:
                queue.reject(entry)
            else:
                returned.setdefault(queue, []).append(entry)
            if consumer is not None:
                owed[consumer] = owed.get(consumer, 0) + 1
        for queue, entries in returned.items():
            queue.requeue(entries)
        if owed:
            # All counts first: a consumer that goes on may be given messages that fill the channel again.
            for consumer, count in owed.items():
                consumer.unacked_count -= count
            self._credit.settled(sum(owed.values()))
            for consumer in owed:
                consumer.settled(0)

    # -- recover ------------------------------------------------------------------------------------------

    def _recover(self, method: basic.Recover) -> None:
        self._check_requeue(method.requeue)
        self._channel.send(basic.RecoverOk())
        self.apply([delivered for _, delivered in self.unacked.take(0, True)], REQUEUED)

    def _recover_async(self, method: basic.RecoverAsync) -> None:
        self._check_requeue(method.requeue)
        self.apply([delivered for _, delivered in self.unacked.take(0, True)], REQUEUED)

    @staticmethod
    def _check_requeue(requeue: bool) -> None:
        if not requeue:
            raise not_implemented("requeue=false")

    def close(self) -> None:
        """The channel is over: everything that was not settled goes back."""
        self.apply([delivered for _, delivered in self.unacked.take(0, True)], REQUEUED)

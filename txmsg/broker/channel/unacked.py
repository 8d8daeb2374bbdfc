"""Unacked: the deliveries of a channel that the client has not settled.

AMQP 0-9-1 sections 1.8.3.13 and 3.1.10, with RabbitMQ's rules (https://www.rabbitmq.com/docs/confirms): a tag that is
not outstanding is an error, with `multiple` too, and then nothing is settled; only tag 0 with `multiple` always means
whatever there is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from txmsg.broker.faults import unknown_delivery_tag

if TYPE_CHECKING:
    from txmsg.broker.channel.consumer import QueueConsumer
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue

__all__ = ["Delivered", "Unacked"]

#: Who got it (None: basic.get), the queue it came from, and its place there.
Delivered: TypeAlias = "tuple[QueueConsumer | None, Queue, Entry]"


class Unacked(dict[int, Delivered]):
    """Delivery tag -> what was delivered; tags only grow, so they stand in order."""

    __slots__ = ()

    def take(self, tag: int, multiple: bool) -> list[tuple[int, Delivered]]:
        """Remove, and return in order, what an ack, nack or reject of `tag` speaks of; Fault 406 for an unknown tag."""
        if not multiple:
            try:
                return [(tag, self.pop(tag))]
            except KeyError:
                raise unknown_delivery_tag(tag) from None
        if tag == 0:
            taken = list(self.items())
            self.clear()
            return taken
        if tag not in self:
            raise unknown_delivery_tag(tag)
        taken = []
        for number, delivered in self.items():
            if number > tag:
                break
            taken.append((number, delivered))
        for number, _ in taken:
            del self[number]
        return taken

    def give_back(self, deliveries: list[tuple[int, Delivered]]) -> None:
        """Undo :meth:`take`, as often as it was called: a rolled back transaction."""
        everything = sorted([*self.items(), *deliveries])
        self.clear()
        self.update(everything)

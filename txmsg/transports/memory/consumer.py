"""A consumer of ``memory://``: what the broker's queues deliver to.

A queue hands an entry over in the middle of its own work (while somebody publishes, or acks), where nobody's callback
may run.  So the delivery waits until the channel's next turn of the reactor.  Invariant: at most the prefetch count,
or :data:`UNSETTLED_LIMIT` where there is none, is in the hands of a consumer; the rest stays in the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.message import Entry
from txmsg.transports.memory.delivery import MemoryDelivery

if TYPE_CHECKING:
    from txmsg.broker.message import Message
    from txmsg.broker.queues.queue import Queue
    from txmsg.transports.memory.channel import MemoryChannel

__all__ = ["UNSETTLED_LIMIT", "MemoryConsumer", "priority_of"]

#: How many deliveries a consumer may have, handed over or about to be, when its prefetch count is 0; with no_ack,
#: how many are about to be.
UNSETTLED_LIMIT: Final = 10_000


class MemoryConsumer:
    """One subscription; a :class:`txmsg.broker.interfaces.Consumer`.

    limit: int -- deliveries it may have.   in_hand: int -- those that it has.
    """

    __slots__ = (
        "callback",
        "channel",
        "exclusive",
        "in_hand",
        "is_available",
        "is_ended",
        "limit",
        "no_ack",
        "on_cancel",
        "priority",
        "queue",
        "reply_name",
        "tag",
    )

    def __init__(
        self,
        channel: MemoryChannel,
        tag: str,
        callback: Callable[[MemoryDelivery], object],
        *,
        no_ack: bool,
        exclusive: bool,
        priority: int,
        prefetch_count: int,
        on_cancel: Callable[[BaseException], object] | None,
    ) -> None:
        self.channel = channel
        self.tag = tag
        self.callback = callback
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.limit = UNSETTLED_LIMIT if no_ack or not prefetch_count else min(prefetch_count, UNSETTLED_LIMIT)
        self.on_cancel = on_cancel
        self.in_hand = 0
        self.is_available = True
        self.is_ended = False
        self.queue: Queue | None = None
        #: What others see as `reply_to`, of a consumer of direct replies.
        self.reply_name = ""

    def reply_received(self, message: Message) -> None:
        """For direct reply-to: take `message`, which is in no queue."""
        self.deliver(None, Entry(message, 0))

    def deliver(self, queue: Queue | None, entry: Entry) -> None:
        """For the queue: take `entry`; the callback has it in the next turn."""
        channel = self.channel
        channel.last_tag = tag = channel.last_tag + 1
        no_ack = self.no_ack
        delivery = MemoryDelivery(channel, self, queue, entry, tag, no_ack)
        if not no_ack:
            channel.unsettled[tag] = delivery
        self.in_hand = in_hand = self.in_hand + 1
        if in_hand >= self.limit:
            self.is_available = False
        ready = channel.ready
        if not ready:
            channel.hand_over_soon()
        ready.append(delivery)

    def one_less(self) -> None:
        """A delivery was settled (with no_ack: handed over); there is room for another one."""
        self.in_hand -= 1
        if not self.is_available and not self.is_ended:
            self.is_available = True
            queue = self.queue
            if queue is not None:
                queue.consumer_available(self)

    def cancelled(self, queue: Queue) -> None:
        """For the queue: it is gone."""
        self.channel.consumer_cancelled(self)

    def end(self) -> None:
        """Take nothing more."""
        self.is_ended = True
        self.is_available = False

    def __repr__(self) -> str:
        name = None if self.queue is None else self.queue.name
        return f"<MemoryConsumer {self.tag!r} of {name!r}, {self.in_hand} in hand{', ended' if self.is_ended else ''}>"


def priority_of(arguments: Any) -> int:
    """The consumer priority among the arguments of a subscription; 0 if there is none."""
    value = arguments.get("x-priority", 0) if arguments else 0
    return value if isinstance(value, int) and not isinstance(value, bool) else 0

"""Consuming: consume, cancel, get and qos; the consumers of a channel by their tags, and its direct replies.

AMQP 0-9-1 section 1.8; https://www.rabbitmq.com/docs/consumers, /docs/consumer-prefetch, /docs/consumer-cancel and
/docs/direct-reply-to.  The invariants:

* No delivery comes before its consume-ok, and none after cancel-ok.
* A client that cannot hear basic.cancel is not sent one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.channel.consumer import QueueConsumer
from txmsg.broker.faults import (
    Fault,
    consumer_limit,
    duplicate_consumer_tag,
    get_unsupported,
    global_qos_unsupported,
    invalid_argument,
    kind_of,
    no_previous_queue,
    not_implemented,
    reply_consumer_acknowledges,
    reply_consumer_set,
    unacked_limit,
    unsendable,
)
from txmsg.broker.queues.arguments import QUORUM
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.broker.vhost.topology import server_name
from txmsg.errors import EncodeError
from txmsg.wire.field_values import Timestamp
from txmsg.wire.methods import basic

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.broker.message import Message
    from txmsg.broker.queues.queue import Queue

__all__ = ["Consuming"]

_PRIORITY: Final = "x-priority"
_FAILOVER: Final = "x-cancel-on-ha-failover"
#: Octets of direct replies that are held for a client whose socket is full, about: what is more is dropped.
_REPLIES_AHEAD: Final = 16 * 1024 * 1024


class Consuming:
    """The consumers of a channel.

    consumers: dict[str, QueueConsumer] -- by tag; read-only.
    prefetch_count: int -- of basic.qos without `global`: what the next consumers get; 0 for no limit.
    reply_name: str -- what stands for this channel in `reply_to`, while it consumes direct replies; else "".
    """

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self.consumers: dict[str, QueueConsumer] = {}
        self.prefetch_count = 0
        self.reply_name = ""
        self._reply_tag = ""
        #: Tags of consumers whose queue went, of which the client has not heard.
        self._cancelled: dict[Queue, list[str]] = {}
        self.handlers: dict[type[Any], Any] = {
            basic.Qos: self._qos,
            basic.Consume: self._consume,
            basic.Cancel: self._cancel,
            basic.CancelOk: self._cancel_ok,
            basic.Get: self._get,
        }

    def queue_name(self, name: str) -> str:
        """`name`, or the queue this channel declared last if it is empty; Fault 404 if there is none."""
        name = name or self._channel.last_queue
        if not name:
            raise no_previous_queue()
        return name

    # -- basic.qos ----------------------------------------------------------------------------------------

    def _qos(self, method: basic.Qos) -> None:
        if method.prefetch_size:
            raise not_implemented(f"prefetch_size!=0 ({method.prefetch_size})")
        # RabbitMQ 4 takes `global` as if it were absent.
        if method.global_ and not self._channel.vhost.strict_4:
            self._channel.send(basic.QosOk())
            self._channel.credit.set_prefetch_count(method.prefetch_count)
            return
        self.prefetch_count = method.prefetch_count
        self._channel.send(basic.QosOk())

    # -- basic.consume ------------------------------------------------------------------------------------

    def _consume(self, method: basic.Consume) -> None:
        channel = self._channel
        tag = method.consumer_tag
        # Before the same tag may come to mean another consumer.
        self.tell_cancelled()
        name = self.queue_name(method.queue)  # RabbitMQ looks at nothing before this
        if tag in self.consumers:
            raise duplicate_consumer_tag(tag)
        if len(self.consumers) >= channel.vhost.limits.consumers_per_channel:
            raise consumer_limit(channel.vhost.limits.consumers_per_channel)
        if name == REPLY_TO:
            self._consume_replies(method)
            return
        channel.connection.permissions.check_read("queue", name)
        queue = channel.vhost.queue(name, channel.connection)
        consumer = QueueConsumer(
            channel,
            queue,
            tag or server_name("amq.ctag"),
            no_ack=method.no_ack,
            exclusive=method.exclusive,
            priority=self._priority(queue, method.arguments),
            prefetch_count=self.prefetch_count,
            arguments=method.arguments,
        )
        if queue.type == QUORUM and channel.credit.has_prefetch_count:
            raise global_qos_unsupported(name, channel.vhost.name)
        channel.vhost.consumer_came(consumer.tag, consumer.cost)
        try:
            # It cannot be given anything yet.
            queue.add_consumer(consumer)
        except Fault:
            channel.vhost.consumer_went(consumer.cost)
            raise
        self.consumers[consumer.tag] = consumer
        if not method.nowait:
            channel.send(basic.ConsumeOk(consumer.tag))
        channel.patience.start()
        channel.credit.add(consumer)

    @staticmethod
    def _priority(queue: Queue, arguments: dict[str, Any]) -> int:
        priority = arguments.get(_PRIORITY, 0)
        if not isinstance(priority, int) or isinstance(priority, (bool, Timestamp)):
            reason = f'"expected integer, got {kind_of(priority)}"'
            raise invalid_argument("queue", queue.name, queue.vhost.name, _PRIORITY, reason)
        failover = arguments.get(_FAILOVER, False)
        if not isinstance(failover, bool):
            reason = f"{{unacceptable_type,{kind_of(failover)}}}"
            raise invalid_argument("queue", queue.name, queue.vhost.name, _FAILOVER, reason)
        return int(priority)

    # -- direct reply-to ----------------------------------------------------------------------------------

    def _consume_replies(self, method: basic.Consume) -> None:
        if not method.no_ack:
            raise reply_consumer_acknowledges()
        if self.reply_name:
            raise reply_consumer_set()
        self._reply_tag = method.consumer_tag or server_name("amq.ctag")
        self.reply_name = self._channel.vhost.direct_reply.register(self)
        if not method.nowait:
            self._channel.send(basic.ConsumeOk(self._reply_tag))

    def _end_replies(self) -> None:
        if self.reply_name:
            self._channel.vhost.direct_reply.unregister(self.reply_name)
            self.reply_name = self._reply_tag = ""

    def reply_received(self, message: Message) -> None:
        """A direct reply; it goes out at once, or, to a client that has not read many of them, nowhere."""
        channel = self._channel
        if not channel.is_open or channel.connection.written_ahead >= _REPLIES_AHEAD:
            return
        # The delivery tag is the next one, and is not used up.
        method = basic.Deliver(self._reply_tag, channel.settling.last_tag + 1, False, "", message.routing_key)
        try:
            parts = channel.wire.send_content(channel.number, method, message.encoded_properties, message.body)
        except EncodeError as error:
            channel.refuse_soon(unsendable("a reply", str(error)), basic.Deliver)
            return
        channel.connection.write_all(parts)

    # -- basic.cancel -------------------------------------------------------------------------------------

    def _cancel(self, method: basic.Cancel) -> None:
        tag = method.consumer_tag
        consumer = self.consumers.pop(tag, None)
        if consumer is not None:
            self._remove(consumer)
        elif tag == self._reply_tag:
            self._end_replies()
        if not method.nowait:
            self._channel.send(basic.CancelOk(tag))

    def _remove(self, consumer: QueueConsumer, *, goes_on: bool = True) -> None:
        consumer.is_available = False
        self._channel.credit.remove(consumer)
        self._channel.vhost.consumer_went(consumer.cost)
        consumer.queue.remove_consumer(consumer, goes_on=goes_on)

    def cancelled_by_queue(self, consumer: QueueConsumer) -> None:
        """The queue is gone: tell a client that can hear it."""
        channel = self._channel
        if self.consumers.get(consumer.tag) is not consumer:
            return
        del self.consumers[consumer.tag]
        channel.credit.remove(consumer)
        channel.vhost.consumer_went(consumer.cost)
        if channel.connection.capabilities.get("consumer_cancel_notify") is True:
            # At the end of the turn: behind the answer to a queue.delete on this very channel.
            self._cancelled.setdefault(consumer.queue, []).append(consumer.tag)
            channel.connection.flush_soon(channel)

    def tell_cancelled(self) -> None:
        """Write what :meth:`cancelled_by_queue` has left to be written."""
        if self._cancelled:
            cancelled, self._cancelled = self._cancelled, {}
            for tags in cancelled.values():
                for tag in sorted(tags):  # RabbitMQ's order
                    self._channel.send(basic.Cancel(tag, True))

    def _cancel_ok(self, method: basic.CancelOk) -> None:
        """The client has heard; it was not asked to answer."""

    # -- basic.get ----------------------------------------------------------------------------------------

    def _get(self, method: basic.Get) -> None:
        channel = self._channel
        name = self.queue_name(method.queue)
        channel.connection.permissions.check_read("queue", name)
        queue = channel.vhost.queue(name, channel.connection)
        if queue.type == QUORUM and queue.settings.single_active_consumer:
            raise get_unsupported(name, channel.vhost.name)
        settling = channel.settling
        limit = channel.vhost.limits.unacked_per_channel
        if not method.no_ack and len(settling.unacked) >= limit:
            raise unacked_limit(limit)
        if not channel.is_open:
            # The client has closed the channel meanwhile, and could not receive it.
            return
        entry = queue.get(no_ack=method.no_ack)
        if entry is None:
            channel.send(basic.GetEmpty())
            return
        tag = settling.last_tag = settling.last_tag + 1
        if not method.no_ack:
            settling.unacked[tag] = (None, queue, entry)
            channel.patience.start()
        message = entry.message
        reply = basic.GetOk(tag, entry.delivery_count > 0, message.exchange, message.routing_key, queue.message_count)
        try:
            parts = channel.wire.send_content(channel.number, reply, message.encoded_properties, message.body)
        except EncodeError as error:
            raise unsendable(f"a message of queue '{name}'", str(error)) from None
        channel.connection.write_all(parts)

    def close(self) -> list[Queue]:
        """The channel is over: no consumer is left.

        The queues they had are returned: whoever succeeds them as the single active consumer is served once that
        has come back which they had not settled (:meth:`Queue.go_on`).
        """
        self._end_replies()
        consumers, self.consumers = self.consumers, {}
        for consumer in consumers.values():
            self._remove(consumer, goes_on=False)
        return [consumer.queue for consumer in consumers.values()]

"""The small test broker's basic, confirm and tx methods; see minibroker for what it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pamqp import commands

from tests.conformance.minibroker import Consumer, Exchange, Message, Queue, Refused, ServerChannel, Session

Basic = commands.Basic

NO_PROPERTIES = b"\x00\x00"


class BasicMethods(Session):
    """Publishing, consuming and settling."""

    def _queue(self, channel: ServerChannel, name: str) -> Queue:
        queue = self.broker.queues.get(name or channel.last_queue)
        if queue is None:
            raise Refused(404, f"NOT_FOUND - no queue '{name}' in vhost '/'")
        if queue.owner not in (None, self):
            raise Refused(405, f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}'")
        return queue

    def _exchange(self, name: str) -> Exchange:
        if name not in self.broker.exchanges:
            raise Refused(404, f"NOT_FOUND - no exchange '{name}' in vhost '/'")
        return self.broker.exchanges[name]

    def give_back(self, channel: ServerChannel, tags: list[int]) -> None:
        by_queue: dict[Queue, list[Message]] = {}
        for tag in tags:
            message, queue, _ = channel.unacked.pop(tag)
            by_queue.setdefault(queue, []).append(message)
        for queue, messages in by_queue.items():
            self.broker.requeue(queue, messages)

    # -- basic: receiving --------------------------------------------------------------------------

    def basic_qos(self, channel: ServerChannel, method: Any) -> None:
        if method.prefetch_size:
            raise Refused(540, "NOT_IMPLEMENTED - prefetch_size!=0", hard=True)
        channel.prefetch = method.prefetch_count
        self.send(channel.number, Basic.QosOk())

    def basic_consume(self, channel: ServerChannel, method: Any) -> None:
        queue = self._queue(channel, method.queue)
        if method.exclusive and queue.consumers:
            raise Refused(403, f"ACCESS_REFUSED - queue '{queue.name}' in vhost '/' in exclusive use")
        tag = method.consumer_tag or self.broker.generated_name("amq.ctag-")
        if tag in channel.consumers:
            raise Refused(530, f"NOT_ALLOWED - attempt to reuse consumer tag '{tag}'", hard=True)
        consumer = Consumer(self, channel, tag, queue, method.no_ack)
        channel.consumers[tag] = consumer
        queue.consumers.append(consumer)
        if not method.nowait:
            self.send(channel.number, Basic.ConsumeOk(tag))
        self.broker.push(queue)

    def basic_cancel(self, channel: ServerChannel, method: Any) -> None:
        consumer = channel.consumers.pop(method.consumer_tag, None)
        if consumer is not None:
            consumer.queue.consumers.remove(consumer)
            self.broker.consumer_left(consumer.queue)
        if not method.nowait:
            self.send(channel.number, Basic.CancelOk(method.consumer_tag))

    def basic_get(self, channel: ServerChannel, method: Any) -> None:
        queue = self._queue(channel, method.queue)
        if not queue.messages:
            self.send(channel.number, Basic.GetEmpty())
            return
        message = queue.messages.popleft()
        channel.last_tag += 1
        if not method.no_ack:
            channel.unacked[channel.last_tag] = (message, queue, "")
        get_ok = Basic.GetOk(
            channel.last_tag, message.redelivered, message.exchange, message.routing_key, len(queue.messages)
        )
        self.send_content(channel.number, get_ok, message.properties, message.body)

    def basic_recover(self, channel: ServerChannel, method: Any) -> None:
        if not method.requeue:
            raise Refused(540, "NOT_IMPLEMENTED - requeue=false", hard=True)
        self.send(channel.number, Basic.RecoverOk())
        self.give_back(channel, list(channel.unacked))

    # -- basic: settling ---------------------------------------------------------------------------

    def _tags(self, channel: ServerChannel, tag: int, multiple: bool) -> list[int]:
        if multiple and tag == 0:
            return list(channel.unacked)
        if tag not in channel.unacked:
            raise Refused(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}")
        return [t for t in channel.unacked if t <= tag] if multiple else [tag]

    def _settle(self, channel: ServerChannel, tags: list[int], requeue: bool) -> None:
        queues = {channel.unacked[tag][1] for tag in tags}
        if requeue:
            self.give_back(channel, tags)
        else:
            for tag in tags:
                del channel.unacked[tag]
        for queue in queues:
            self.broker.push(queue)

    def basic_ack(self, channel: ServerChannel, method: Any) -> None:
        tags = self._tags(channel, method.delivery_tag, method.multiple)
        if channel.transaction is not None:
            channel.transaction.append(lambda: self._settle(channel, tags, False))
        else:
            self._settle(channel, tags, False)

    def basic_nack(self, channel: ServerChannel, method: Any) -> None:
        self._settle(channel, self._tags(channel, method.delivery_tag, method.multiple), method.requeue)

    def basic_reject(self, channel: ServerChannel, method: Any) -> None:
        self._settle(channel, self._tags(channel, method.delivery_tag, False), method.requeue)

    # -- basic: publishing, confirm, tx ------------------------------------------------------------

    def basic_publish(self, channel: ServerChannel, method: Any) -> None:
        channel.content = [method, 0, NO_PROPERTIES, b""]

    def published(self, channel: ServerChannel, method: Any, properties: bytes, body: bytes) -> None:
        self._exchange(method.exchange)
        message = Message(method.exchange, method.routing_key, properties, body)
        if channel.transaction is not None:
            channel.transaction.append(lambda: self._store(channel, method, message))
        else:
            self._store(channel, method, message)
        if channel.confirming:
            channel.published += 1
            channel.to_confirm.append(channel.published)

    def _store(self, channel: ServerChannel, method: Any, message: Message) -> None:
        queues = self.broker.route(message)
        for queue in queues:
            self.broker.enqueue(queue, message)
        if not queues and method.mandatory:
            returned = Basic.Return(312, "NO_ROUTE", message.exchange, message.routing_key)
            self.send_content(channel.number, returned, message.properties, message.body)

    def confirm_select(self, channel: ServerChannel, method: Any) -> None:
        if channel.transaction is not None:
            raise Refused(406, "PRECONDITION_FAILED - cannot switch from tx to confirm mode")
        channel.confirming = True
        if not method.nowait:
            self.send(channel.number, commands.Confirm.SelectOk())

    def tx_select(self, channel: ServerChannel, method: Any) -> None:
        if channel.confirming:
            raise Refused(406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode")
        channel.transaction = []
        self.send(channel.number, commands.Tx.SelectOk())

    def _transaction(self, channel: ServerChannel) -> list[Callable[[], None]]:
        if channel.transaction is None:
            raise Refused(406, "PRECONDITION_FAILED - channel is not transactional")
        steps, channel.transaction = channel.transaction, []
        return steps

    def tx_commit(self, channel: ServerChannel, method: Any) -> None:
        for step in self._transaction(channel):
            step()
        self.send(channel.number, commands.Tx.CommitOk())

    def tx_rollback(self, channel: ServerChannel, method: Any) -> None:
        self._transaction(channel)
        self.send(channel.number, commands.Tx.RollbackOk())

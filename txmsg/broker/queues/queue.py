"""One queue: its messages, its consumers, and every way in which a message leaves it.

AMQP 0-9-1 section 2.1.2 and RabbitMQ's pages on queues, TTL, lengths, priorities, consumers and dead letters, which
the modules that do the parts of it name.

Invariants.  A message is in exactly one of three places: ready (the backlog), unacked (with whoever took it) or gone.
Order is kept: what comes back goes to its old place.  While a consumer can take a message none is ready, but for the
rest of a long run that is served in the next turn of the reactor.  Nothing here raises half way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker import faults
from txmsg.broker.message import Entry, Message
from txmsg.broker.queues.arguments import QUORUM, QueueArguments
from txmsg.broker.queues.backlog import Backlog, PriorityBacklog
from txmsg.broker.queues.dead_letter import DELIVERY_LIMIT, EXPIRED, MAXLEN, REJECTED_BY_CONSUMER
from txmsg.broker.queues.delivery_count import with_delivery_count
from txmsg.broker.queues.dispatch import Dispatcher
from txmsg.broker.queues.expiry import HeadTimer, Lease, expiry_of, is_expired
from txmsg.broker.queues.overflow import REJECT_PUBLISH_DLX

if TYPE_CHECKING:
    from txmsg.broker.interfaces import Consumer, Timer
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["PENDING", "REJECTED", "ROUTED", "UNROUTED", "Queue"]

#: What became of a message.  UNROUTED: no queue takes it.  ROUTED: it is in place.  REJECTED: a queue refuses it, and
#: a publisher with confirms gets a nack.  PENDING: in place, and safe once `journal.after_commit` calls back.
UNROUTED: Final = 0
ROUTED: Final = 1
REJECTED: Final = 2
PENDING: Final = 3

#: What one more place of a message costs, in bytes; the first counts with the message.
_PLACE_COST: Final = 120
#: So many messages are handed out, or expire, before the reactor gets its turn.
_RUN: Final = 1000


class Queue:
    """A queue of a virtual host, which makes and deletes it.

    name: str, vhost: VirtualHost.
    durable, exclusive, auto_delete: bool -- an exclusive queue is never durable.
    arguments: dict[str, Any] -- as given; settings: QueueArguments -- what they mean.
    owner -- the connection of an exclusive queue.
    type: str -- `classic` or `quorum`.
    message_count, unacked_count: int -- ready, and taken but not settled.
    ready_bytes: int -- octets of the bodies that are ready.
    held_bytes: int -- what all its messages cost in memory, about.
    is_deleted: bool -- settling what was taken from it still works, and frees memory only.

    The constructor raises Fault 406 for arguments that RabbitMQ refuses.
    """

    def __init__(
        self,
        vhost: VirtualHost,
        name: str,
        *,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        owner: object | None = None,
    ) -> None:
        settings = QueueArguments.parse(
            arguments, name=name, vhost=vhost.name, durable=durable, exclusive=exclusive, auto_delete=auto_delete
        )
        self.vhost = vhost
        self.name = name
        self.durable = durable and not exclusive
        self.exclusive = exclusive
        self.auto_delete = auto_delete
        self.arguments = dict(arguments or {})
        self.owner = owner
        self.type = settings.queue_type
        self.message_count = 0
        self.unacked_count = 0
        self.ready_bytes = 0
        self.held_bytes = 0
        self.is_deleted = False
        self._sequence = 0
        self._capacity = vhost.limits.queue_bytes
        self._usage = vhost.usage
        self._journal = vhost.journal
        self._is_kept = self.durable and vhost.journal.is_durable
        self._is_quorum = settings.queue_type == QUORUM
        self._backlog: Backlog | PriorityBacklog = (
            Backlog() if settings.max_priority is None else PriorityBacklog(settings.max_priority)
        )
        self._dispatcher = Dispatcher(is_single=settings.single_active_consumer)
        self._is_dispatching = False
        self._next_run: Timer | None = None
        # None until the first message comes that can expire: from then on the head has to be watched.
        self._head_timer: HeadTimer | None = None
        self._lease: Lease | None = None
        self._apply(settings)

    def change_settings(self, settings: QueueArguments) -> None:
        """From now on `settings` hold, as when a policy changes.

        The type, the priorities and the single active consumer stay as they were declared, and messages that are
        there already keep their time to live.
        """
        old = self.settings
        self._apply(
            replace(
                settings,
                queue_type=old.queue_type,
                max_priority=old.max_priority,
                single_active_consumer=old.single_active_consumer,
            )
        )
        self._drop_heads()
        if self._head_timer is not None:
            self._watch_head()

    def _apply(self, settings: QueueArguments) -> None:
        self.settings = settings
        self._ttl = settings.message_ttl
        self._length_limit = settings.length_limit
        if self._lease is not None:
            self._lease.stop()
            self._lease = None
        if settings.expires is not None:
            self._lease = Lease(self.vhost.clock, settings.expires, self._dispatcher.__len__, self._lease_ended)

    # -- in -----------------------------------------------------------------------------------------------

    def put(self, message: Message) -> int:
        """Take a message, and hand it out at once when nothing waits in front and somebody can take it.

        ROUTED, PENDING or REJECTED: the last for `reject-publish`, and when the queue or the broker holds as much
        as it may.
        """
        cost = message.cost
        usage = self._usage
        if self.held_bytes + cost > self._capacity or usage.bytes > usage.hard_limit:
            return REJECTED
        limit = self._length_limit
        if limit is not None and limit.rejects and self._would_exceed(message):
            return self._reject_publish(message)
        self._sequence = sequence = self._sequence + 1
        entry = Entry(message, sequence)
        if message.expiration is not None or self._ttl is not None:
            entry.expires_at = expiry_of(self.vhost.clock.seconds(), self._ttl, message.expiration)
            if self._head_timer is None:
                self._head_timer = HeadTimer(self.vhost.clock, self._watch_head)
        consumer = None if self.message_count or self._is_dispatching else self._dispatcher.take()
        if consumer is not None and consumer.no_ack:
            # It never rests here, so there is nothing to count and nothing to keep.
            consumer.deliver(self, entry)
            return ROUTED
        self.held_bytes += cost
        places = message.places
        message.places = places + 1
        usage.add(_PLACE_COST if places else cost)
        outcome = ROUTED
        if self._is_kept and message.is_persistent:
            self._journal.message_added(self, entry)
            outcome = PENDING
        if consumer is not None:
            self.unacked_count += 1
            consumer.deliver(self, entry)
            return outcome
        self._backlog.append(entry)
        self.message_count += 1
        self.ready_bytes += message.size
        if limit is not None:
            self._drop_heads()
        if self._head_timer is not None:
            self._watch_head()
        return outcome

    def is_full_for(self, message: Message) -> bool:
        """Whether the queue itself (not the broker, not x-max-length) has no room for `message`."""
        return self.held_bytes + message.cost > self._capacity

    def restore(self, entry: Entry) -> None:
        """Put back a message that was kept, after all those restored before; nothing is told to the journal."""
        message = entry.message
        self._sequence = max(self._sequence, entry.sequence)
        if self._is_quorum and entry.delivery_count:
            entry.message = message = with_delivery_count(message, entry.delivery_count)
        self._hold(message)
        self._backlog.append(entry)
        self.message_count += 1
        self.ready_bytes += message.size
        if entry.expires_at is not None:
            # What has expired meanwhile is dropped when the reactor runs: dead letters need the other queues first.
            if self._head_timer is None:
                self._head_timer = HeadTimer(self.vhost.clock, self._watch_head)
            self._head_timer.watch(self._backlog.head)

    def _would_exceed(self, message: Message) -> bool:
        limit = self._length_limit
        return limit is not None and limit.is_exceeded(self.message_count + 1, self.ready_bytes + message.size)

    def _reject_publish(self, message: Message) -> int:
        if self.settings.overflow == REJECT_PUBLISH_DLX:
            self._dead_letter([message], MAXLEN)
        return REJECTED

    # -- out ----------------------------------------------------------------------------------------------

    def get(self, *, no_ack: bool) -> Entry | None:
        """Take the message at the head (basic.get); None when nothing is ready.

        With `no_ack` it is gone; else it is unacked, and the caller's to settle.
        """
        if self._lease is not None:
            self._lease.renew()
        entry = self._take_head()
        if entry is not None:
            if self._is_quorum and not entry.delivery_count:
                self._show_delivery_count(entry)  # RabbitMQ shows the 0 here, and not to consumers
            if no_ack:
                self._forget(entry)
            else:
                self.unacked_count += 1
        if self._head_timer is not None:
            self._watch_head()
        return entry

    def ack(self, entry: Entry) -> None:
        """A message that was taken is done with."""
        self.unacked_count -= 1
        self._forget(entry)

    def reject(self, entry: Entry) -> None:
        """A message that was taken is not wanted: it becomes a dead letter, or is dropped."""
        self.unacked_count -= 1
        self._dead_letter([entry.message], REJECTED_BY_CONSUMER)
        self._forget(entry)

    def requeue(self, entries: Sequence[Entry]) -> None:
        """Messages that were taken come back, each to its place; from a quorum queue only so often."""
        self.unacked_count -= len(entries)
        if self.is_deleted:
            for entry in entries:
                self._release(entry.message)
            return
        limit = self.settings.delivery_limit if self._is_quorum else None
        worn_out: list[Entry] = []
        for entry in entries:
            entry.delivery_count += 1
            if limit is not None and entry.delivery_count > limit:
                worn_out.append(entry)
                continue
            if self._is_kept and entry.message.is_persistent:
                self._journal.message_returned(self, entry)
            if self._is_quorum:
                self._show_delivery_count(entry)
            self._backlog.give_back(entry)
            self.message_count += 1
            self.ready_bytes += entry.message.size
        self._drop(worn_out, DELIVERY_LIMIT)
        if self._length_limit is not None:
            self._drop_heads()
        self._dispatch()

    def purge(self) -> int:
        """Drop all that is ready; how many messages that were."""
        entries = self._backlog.clear()
        self.message_count = self.ready_bytes = 0
        if self._is_kept and (kept := [entry for entry in entries if entry.message.is_persistent]):
            self._journal.queue_purged(self, kept)
        for entry in entries:
            self._release(entry.message)
        return len(entries)

    # -- consumers ----------------------------------------------------------------------------------------

    @property
    def consumers(self) -> list[Consumer]:
        """Those who consume, oldest first."""
        return self._dispatcher.consumers

    @property
    def consumer_count(self) -> int:
        """How many consume."""
        return len(self._dispatcher)

    @property
    def active_consumer(self) -> Consumer | None:
        """The only one that is served, of a queue with a single active consumer; else None."""
        return self._dispatcher.active

    def add_consumer(self, consumer: Consumer) -> None:
        """From now on `consumer` gets messages, the first ones before this returns.

        Fault 403 when it or another one wants the queue for itself alone, which nobody can of a quorum queue: there
        RabbitMQ takes `exclusive` without effect.
        """
        dispatcher = self._dispatcher
        if not self._is_quorum and (
            dispatcher.is_exclusive or (consumer.exclusive and (len(dispatcher) or dispatcher.is_single))
        ):
            raise faults.exclusive_use(self.name, self.vhost.name)
        dispatcher.add(consumer)
        self._dispatch()

    def remove_consumer(self, consumer: Consumer, *, goes_on: bool = True) -> None:
        """`consumer` gets nothing any more; what it has taken stays with it.

        The last one to go takes an auto-delete queue with it.  Nothing happens for one that is not known.  Unless
        `goes_on`, a single active consumer that comes after it has to wait for :meth:`go_on`.
        """
        if not self._dispatcher.remove(consumer) or self.is_deleted:
            return
        if len(self._dispatcher):
            if goes_on:
                self._dispatch()
        elif self.auto_delete:
            self.vhost.delete_queue(self.name, owner=self.owner)
        elif self._lease is not None:
            self._lease.renew()

    def go_on(self) -> None:
        """Hand out messages again, after consumers were removed without."""
        if not self.is_deleted:
            self._dispatch()

    def consumer_available(self, consumer: Consumer) -> None:
        """`consumer` can take messages again."""
        self._dispatcher.may_be_available(consumer)
        if self.message_count:
            self._dispatch()

    def _dispatch(self) -> None:
        """Hand out messages while there are both messages and consumers that can take them; then watch the head."""
        if self._is_dispatching or not self.message_count:
            return
        self._is_dispatching = True
        left = _RUN
        try:
            while left and self.message_count and (consumer := self._dispatcher.take()) is not None:
                left -= 1
                entry = self._take_head()
                if entry is None:
                    break
                if consumer.no_ack:
                    self._forget(entry)
                else:
                    self.unacked_count += 1
                consumer.deliver(self, entry)
        finally:
            self._is_dispatching = False
        if self._head_timer is not None:
            self._watch_head()
        if not left and self.message_count and self._next_run is None:
            self._next_run = self.vhost.clock.callLater(0, self._run_again)

    def _run_again(self) -> None:
        self._next_run = None
        self._dispatch()

    # -- life ---------------------------------------------------------------------------------------------

    def used(self) -> None:
        """It was declared again, which counts as use for x-expires."""
        if self._lease is not None:
            self._lease.renew()

    def delete(self) -> int:
        """The virtual host has deleted it: consumers are told, messages dropped; how many were ready."""
        self.is_deleted = True
        self._is_kept = False  # the journal drops its messages with it
        self._capacity = -1  # nothing is taken any more, whoever may still know it
        self.stop()
        count = self.purge()
        for consumer in self._dispatcher.clear():
            consumer.cancelled(self)
        return count

    def stop(self) -> None:
        """No timer runs any more: the broker ends.  The messages stay."""
        if self._lease is not None:
            self._lease.stop()
        if self._head_timer is not None:
            self._head_timer.stop()
        if self._next_run is not None:
            self._next_run.cancel()
            self._next_run = None

    def ready_entries(self) -> list[Entry]:
        """All that is ready, in the order in which it is to go; for looking at."""
        return list(self._backlog)

    def _lease_ended(self) -> None:
        self.vhost.delete_queue(self.name, owner=self.owner)

    # -- leaving ------------------------------------------------------------------------------------------

    def _take_head(self) -> Entry | None:
        """Take the first entry that has not expired."""
        if self._head_timer is not None:
            self._drop_expired(None)
        return self._pop() if self.message_count else None

    def _pop(self) -> Entry:
        entry = self._backlog.pop()
        self.message_count -= 1
        self.ready_bytes -= entry.message.size
        return entry

    def _drop_heads(self) -> None:
        """Make the queue as short as it may be, unless it refuses new messages instead."""
        limit = self._length_limit
        if limit is None or limit.rejects or not limit.is_exceeded(self.message_count, self.ready_bytes):
            return
        dropped: list[Entry] = []
        while self.message_count and limit.is_exceeded(self.message_count, self.ready_bytes):
            dropped.append(self._pop())
        self._drop(dropped, MAXLEN)

    def _watch_head(self) -> None:
        """The head may be another one: drop it if its time is over, or be there when it is."""
        self._drop_expired(_RUN)  # a timer for the rest is due at once
        if self._head_timer is not None:
            self._head_timer.watch(self._backlog.head)

    def _drop_expired(self, most: int | None) -> None:
        """Drop what has expired at the head, `most` messages of it at once."""
        head = self._backlog.head
        if head is None or head.expires_at is None:
            return
        now = self.vhost.clock.seconds()
        dropped: list[Entry] = []
        while head is not None and is_expired(head, now) and len(dropped) != most:
            dropped.append(self._pop())
            head = self._backlog.head
        self._drop(dropped, EXPIRED)

    def _drop(self, entries: list[Entry], reason: str) -> None:
        """These are out of the backlog: dead letters, if the queue has an exchange for them."""
        if not entries:
            return
        self._dead_letter([entry.message for entry in entries], reason)
        for entry in entries:
            self._forget(entry)

    def _dead_letter(self, messages: Sequence[Message], reason: str) -> None:
        if self.settings.dead_letter_exchange is not None and not self.is_deleted:
            self.vhost.dead_letters.send(self, messages, reason)

    def _forget(self, entry: Entry) -> None:
        """It has left for good."""
        if self._is_kept and entry.message.is_persistent:
            self._journal.message_removed(self, entry)
        self._release(entry.message)

    # -- memory -------------------------------------------------------------------------------------------

    def _hold(self, message: Message) -> None:
        cost = message.cost
        self.held_bytes += cost
        self._usage.add(_PLACE_COST if message.places else cost)
        message.places += 1

    def _release(self, message: Message) -> None:
        cost = message.cost
        self.held_bytes -= cost
        message.places = places = message.places - 1
        self._usage.remove(_PLACE_COST if places else cost)

    def _show_delivery_count(self, entry: Entry) -> None:
        message = with_delivery_count(entry.message, entry.delivery_count)
        self._hold(message)
        self._release(entry.message)
        entry.message = message

    def __repr__(self) -> str:
        """How it stands; its name is a client's word, so it is escaped."""
        state = ", deleted" if self.is_deleted else ""
        return (
            f"<Queue {self.name!r} in {self.vhost.name!r}: {self.message_count} ready, {self.unacked_count} unacked, "
            f"{self.consumer_count} consumers{state}>"
        )

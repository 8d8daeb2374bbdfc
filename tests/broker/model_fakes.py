"""Stand-ins for what the model expects around it: consumers, a journal, a virtual host on a `task.Clock`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txmsg.broker.interfaces import NoJournal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.message import Entry, Message
from txmsg.broker.queues.queue import Queue
from txmsg.broker.vhost.usage import Usage
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import TxmsgError
from txmsg.wire.properties import BasicProperties

__all__ = ["FakeConsumer", "QueueTestCase", "RecordingJournal", "bodies", "message"]


def message(
    body: bytes = b"",
    *,
    exchange: str = "",
    key: str = "q",
    properties: BasicProperties | None = None,
    **fields: Any,
) -> Message:
    """A message as published, with `fields` as its properties."""
    return Message.published(exchange, key, properties or BasicProperties(**fields), body)


def bodies(entries: list[Entry]) -> list[bytes]:
    """The bodies of `entries`."""
    return [entry.message.body for entry in entries]


class FakeConsumer:
    """Takes messages while fewer than `prefetch` are not settled, and keeps them.

    log: a list that several consumers may share; each delivery adds (tag, body).
    """

    def __init__(
        self,
        tag: str = "c",
        *,
        prefetch: int | None = None,
        no_ack: bool = False,
        exclusive: bool = False,
        priority: int = 0,
        log: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.priority = priority
        self.prefetch = prefetch
        self.is_flowing = True
        self.log = [] if log is None else log
        self.entries: list[Entry] = []
        self.cancelled_by: list[Queue] = []
        self.asked = 0

    @property
    def is_available(self) -> bool:
        self.asked += 1
        return self.is_flowing and (self.prefetch is None or self.no_ack or len(self.entries) < self.prefetch)

    @property
    def bodies(self) -> list[bytes]:
        """What it has taken and not settled."""
        return bodies(self.entries)

    def deliver(self, queue: Queue, entry: Entry) -> None:
        """Keep it."""
        self.log.append((self.tag, entry.message.body))
        if not self.no_ack:
            self.entries.append(entry)

    def cancelled(self, queue: Queue) -> None:
        """Remember that."""
        self.cancelled_by.append(queue)

    def take(self, count: int = 1) -> list[Entry]:
        """The oldest deliveries, no longer its own: to be settled."""
        taken, self.entries = self.entries[:count], self.entries[count:]
        return taken


class RecordingJournal(NoJournal):
    """Keeps everything as tuples: what was told, of which queue, which body."""

    is_durable = True

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self.waiting: list[Callable[[], object]] = []

    def message_added(self, queue: Queue, entry: Entry) -> None:
        """As in Journal."""
        self.told.append(("added", queue.name, entry.message.body))

    def message_removed(self, queue: Queue, entry: Entry) -> None:
        """As in Journal."""
        self.told.append(("removed", queue.name, entry.message.body))

    def message_returned(self, queue: Queue, entry: Entry) -> None:
        """As in Journal."""
        self.told.append(("returned", queue.name, entry.message.body, entry.delivery_count))

    def queue_purged(self, queue: Queue, entries: list[Entry]) -> None:
        """As in Journal."""
        self.told.append(("purged", queue.name, bodies(entries)))

    def queue_deleted(self, vhost: str, name: str) -> None:
        """As in Journal."""
        self.told.append(("deleted", name))

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        """Wait for the test."""
        self.waiting.append(callback)


class QueueTestCase(SynchronousTestCase):
    """A test of queues in a virtual host, at `self.clock`."""

    limits = BrokerLimits()

    def setUp(self) -> None:
        self.clock = Clock()
        self.journal = RecordingJournal()
        self.usage = Usage(self.limits.broker_bytes)
        self.vhost = VirtualHost("/", clock=self.clock, limits=self.limits, journal=self.journal, usage=self.usage)

    def queue(self, name: str = "q", arguments: Mapping[str, Any] | None = None, **properties: Any) -> Queue:
        """A new queue."""
        return self.vhost.declare_queue(name, arguments=arguments, **properties)

    def put(self, queue: Queue, *what: bytes, **fields: Any) -> list[int]:
        """Put messages with these bodies into `queue`; the outcomes."""
        return [queue.put(message(body, key=queue.name, **fields)) for body in what]

    def ready(self, queue: Queue) -> list[bytes]:
        """The bodies of what is ready, in order."""
        return bodies(queue.ready_entries())

    def get(self, queue: Queue) -> Entry:
        """Take a message that must be there."""
        entry = queue.get(no_ack=False)
        assert entry is not None
        return entry

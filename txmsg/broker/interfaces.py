"""What the parts of the broker expect of each other.

A queue sees whoever consumes from it as a :class:`Consumer`, time as a :class:`Clock`, and durability as a
:class:`Journal`, so the model runs in a server, behind ``memory://`` and in tests without any of them knowing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from txmsg.broker.exchanges.exchange import Exchange
    from txmsg.broker.message import Entry
    from txmsg.broker.queues.queue import Queue
    from txmsg.broker.vhost.bindings import Binding
    from txmsg.errors import TxmsgError

__all__ = ["Clock", "Consumer", "Journal", "NoJournal", "Timer"]


class Timer(Protocol):
    """A call that is due later; Twisted's IDelayedCall is one."""

    def active(self) -> bool:
        """Whether it has neither run nor been cancelled."""

    def cancel(self) -> None:
        """Never run it; only while it is active."""


class Clock(Protocol):
    """Time; Twisted's reactor is one, and its `task.Clock`."""

    def seconds(self) -> float:
        """Seconds since some moment in the past."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: Any) -> Any:
        """Run `callable(*args)` in `delay` seconds; a :class:`Timer`."""


class Consumer(Protocol):
    """Who takes messages from a queue.

    The queue only calls :meth:`deliver` while `is_available` is true; whoever makes it true calls
    `queue.consumer_available(self)`.  An entry that was delivered belongs to the consumer until it calls one of
    `queue.ack`, `queue.requeue` and `queue.reject` with it; with `no_ack` it is gone at once.
    """

    #: Unique within its channel.
    tag: str
    no_ack: bool
    exclusive: bool
    #: The argument x-priority; higher ones are served first.
    priority: int

    @property
    def is_available(self) -> bool:
        """Whether it may be given a message now: credit, flow, room in the socket's buffer."""

    def deliver(self, queue: Queue, entry: Entry) -> None:
        """Take `entry`.  Must not raise, nor call back into the queue's dispatch."""

    def cancelled(self, queue: Queue) -> None:
        """The queue is gone, or has been taken away: nothing will come any more."""


class Journal(Protocol):
    """What is told of everything durable, as it happens, so that it can be kept.

    Called in the order of the events and never waits.  Only durable things come here: durable exchanges, durable
    queues that are not exclusive, bindings between two durable things, persistent messages in those queues.
    """

    #: False: nothing is kept, and what is told is dropped; so callers may save themselves the call.
    is_durable: bool

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """A durable exchange exists."""

    def exchange_deleted(self, vhost: str, name: str) -> None:
        """It does no longer; its bindings were told one by one before."""

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """A durable queue exists."""

    def queue_deleted(self, vhost: str, name: str) -> None:
        """It does no longer, nor do its messages; its bindings were told one by one before."""

    def bound(self, vhost: str, binding: Binding) -> None:
        """A durable binding exists."""

    def unbound(self, vhost: str, binding: Binding) -> None:
        """It does no longer."""

    def message_added(self, queue: Queue, entry: Entry) -> None:
        """A persistent message is in a durable queue; the journal may keep what it needs in `entry.row`."""

    def message_removed(self, queue: Queue, entry: Entry) -> None:
        """It has left the queue for good."""

    def message_returned(self, queue: Queue, entry: Entry) -> None:
        """It has come back unsettled; `entry.delivery_count` has grown."""

    def queue_purged(self, queue: Queue, entries: list[Entry]) -> None:
        """All these have left the queue for good."""

    def put_setting(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """Keep `value`, a field table, as the setting `name` of that kind: a user, a vhost, a permission."""

    def delete_setting(self, kind: str, name: str) -> None:
        """Keep it no longer."""

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        """Call `callback()` once all that was told until now is safe, or `failed(error)` if it could not be kept.

        One of the two is called, once; before this returns if there is nothing to wait for.
        """


class NoJournal:
    """Keeps nothing: the broker forgets everything when it ends."""

    is_durable = False

    def exchange_declared(self, vhost: str, exchange: Exchange) -> None:
        """Nothing."""

    def exchange_deleted(self, vhost: str, name: str) -> None:
        """Nothing."""

    def queue_declared(self, vhost: str, queue: Queue) -> None:
        """Nothing."""

    def queue_deleted(self, vhost: str, name: str) -> None:
        """Nothing."""

    def bound(self, vhost: str, binding: Binding) -> None:
        """Nothing."""

    def unbound(self, vhost: str, binding: Binding) -> None:
        """Nothing."""

    def message_added(self, queue: Queue, entry: Entry) -> None:
        """Nothing."""

    def message_removed(self, queue: Queue, entry: Entry) -> None:
        """Nothing."""

    def message_returned(self, queue: Queue, entry: Entry) -> None:
        """Nothing."""

    def queue_purged(self, queue: Queue, entries: list[Entry]) -> None:
        """Nothing."""

    def put_setting(self, kind: str, name: str, value: Mapping[str, Any]) -> None:
        """Nothing."""

    def delete_setting(self, kind: str, name: str) -> None:
        """Nothing."""

    def after_commit(
        self, callback: Callable[[], object], failed: Callable[[TxmsgError], object] | None = None
    ) -> None:
        """There is nothing to wait for."""
        callback()

"""Publishes that cannot be written yet, in order and within a bound.

A publish is held while the socket does not take more (the transport paused us), while the broker has
blocked the connection (https://www.rabbitmq.com/docs/connection-blocked) or has stopped the channel's
flow.  A method called on a channel with held publishes waits behind them, so the order on the channel is
the order of the calls.  Acks are never held: they are few, and they free the broker's memory.

The bound is in messages and bytes for the whole connection.  What does not fit fails at once with
Overloaded: a publish that waited for room would occupy the very memory the bound is there to protect.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmsg.errors import NotSent, Overloaded

__all__ = ["HELD_OVERHEAD", "Held", "HeldQueue", "HoldingChannel", "Outbox"]


#: What a held publish costs beside its bytes: its Deferred, its place in the queue and what they hold.  It is counted
#: against `outbox_max_bytes`, or a hundred thousand small messages would take twice the memory that is the bound.
HELD_OVERHEAD = 1536


class Held:
    """One held publish (size > 0) or call (size 0).

    write: callable -- writes it and registers whoever waits.
    deferred: the Deferred of the publisher, None for a call.  A cancelled one is not written.
    deadline: float | None -- when the publish fails with NotSent.
    """

    __slots__ = ("deadline", "deferred", "size", "write")

    def __init__(
        self, write: Callable[[], None], size: int, deferred: Deferred[int | None] | None, deadline: float | None
    ) -> None:
        self.write = write
        self.size = size
        self.deferred = deferred
        self.deadline = deadline


class HoldingChannel(Protocol):
    """What the outbox asks of a channel that holds publishes."""

    def drain_held(self) -> None:
        """Write what was held, as far as it goes."""

    def expire_held(self, now: float, why: str) -> None:
        """Fail held publishes whose time is up."""


class Outbox:
    """The held publishes of one connection: their bound, their time limits, and who waits for room.

    clock: IReactorTime.   max_messages: int, max_bytes: int -- both are kept; a single message larger
    than `max_bytes` is taken only when nothing else is held.
    may_publish, why: callables -- whether publishes can be written now, and in words why not.
    """

    __slots__ = (
        "_clock",
        "_may_publish",
        "_timer",
        "_waiters",
        "_why",
        "bytes",
        "holding",
        "max_bytes",
        "max_messages",
        "messages",
    )

    def __init__(
        self,
        clock: IReactorTime,
        max_messages: int,
        max_bytes: int,
        may_publish: Callable[[], bool],
        why: Callable[[], str],
    ) -> None:
        self._clock = clock
        self.max_messages = max_messages
        self.max_bytes = max_bytes
        self.messages = 0
        self.bytes = 0
        #: Channels with held publishes, in the order in which they began to hold.
        self.holding: dict[HoldingChannel, None] = {}
        self._may_publish = may_publish
        self._why = why
        self._timer: IDelayedCall | None = None
        self._waiters: list[Deferred[int | None]] = []

    def take(self, size: int) -> None:
        """Count one message in; raises Overloaded where the bound is reached."""
        if self.messages >= self.max_messages or (self.messages and self.bytes + size > self.max_bytes):
            raise Overloaded(
                f"the outbox is full: {self.messages} messages ({self.bytes} bytes) wait because {self._why()}; "
                "wait for earlier publishes, or raise outbox_max_messages / outbox_max_bytes"
            )
        self.messages += 1
        self.bytes += size

    def release(self, size: int) -> None:
        """Count one message out."""
        self.messages -= 1
        self.bytes -= size

    def hold(self, channel: HoldingChannel) -> None:
        """`channel` holds publishes from now on."""
        self.holding[channel] = None
        if self._timer is None:
            self._timer = self._clock.callLater(1.0, self._expire)

    def _expire(self) -> None:
        """Look once a second after held publishes whose time is up."""
        self._timer = None
        for channel in list(self.holding):
            channel.expire_held(self._clock.seconds(), self._why())
        if self.holding and self._timer is None:
            self._timer = self._clock.callLater(1.0, self._expire)

    def wait_for_room(self, deferred: Deferred[int | None]) -> None:
        """Fire `deferred` with None when publishes can be written again."""
        self._waiters.append(deferred)

    def drain(self) -> None:
        """Write what was held, channel by channel, then tell those who wait for room."""
        for channel in list(self.holding):
            channel.drain_held()
            if not self._may_publish():
                return
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(None)

    def close(self) -> None:
        """The connection has ended.  Those who wait for room had written: without confirms that is all to say."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.holding.clear()
        self._tell_waiters()

    def __repr__(self) -> str:
        return f"<Outbox {self.messages}/{self.max_messages} messages, {self.bytes}/{self.max_bytes} bytes>"


class HeldQueue:
    """The held publishes and calls of one channel, in the order they were made."""

    __slots__ = ("_outbox", "entries")

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        #: The front is written first.
        self.entries: deque[Held] = deque()

    def __len__(self) -> int:
        return len(self.entries)

    def hold_publish(
        self, write: Callable[[], None], size: int, deferred: Deferred[int | None], deadline: float | None
    ) -> None:
        """Hold a publish; raises Overloaded."""
        self._outbox.take(size)
        self.entries.append(Held(write, size, deferred, deadline))

    def hold_call(self, write: Callable[[], None]) -> None:
        """Let a method wait behind the publishes held so far."""
        self.entries.append(Held(write, 0, None, None))

    def drain(self, may_publish: Callable[[], bool]) -> None:
        """Write from the front as long as `may_publish()`; calls at the front always go."""
        # Looked up each time: a callback may end the channel, which takes the entries away.
        while entries := self.entries:
            if entries[0].deferred is not None and not may_publish():
                return
            entry = entries.popleft()
            if entry.deferred is not None:
                self._outbox.release(entry.size)
                if entry.deferred.called:  # cancelled while held: nothing of it has left
                    continue
            entry.write()

    def expire(self, now: float, why: str) -> None:
        """Fail the publishes whose time is up."""
        if not any(e.deadline is not None and e.deadline <= now for e in self.entries):
            return
        kept: deque[Held] = deque()
        late: list[Held] = []
        for entry in self.entries:
            (late if entry.deadline is not None and entry.deadline <= now else kept).append(entry)
        self.entries = kept
        self._fail(late, lambda: NotSent(f"not written within its time limit: {why}"))

    def close(self, reason: BaseException) -> None:
        """Fail all held publishes with NotSent; held calls are failed by their owner."""
        entries, self.entries = self.entries, deque()
        self._fail(list(entries), lambda: NotSent("held back until the end", reason))

    def _fail(self, entries: list[Held], make_error: Callable[[], NotSent]) -> None:
        for entry in entries:
            if entry.deferred is not None:
                self._outbox.release(entry.size)
        for entry in entries:
            if entry.deferred is not None and not entry.deferred.called:
                entry.deferred.errback(Failure(make_error()))

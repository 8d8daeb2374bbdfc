"""PublisherOutbox: publications in order, written to one channel after another until each has its outcome.

The part of a :class:`~txmsg.amqp.recovery.publisher.Publisher` that is a member of the reconnecting connection.

Invariants:

- a publication without an outcome is in exactly one place: the line of those that wait for room, `_waiting`, the
  confirm ledger of the open channel, or `_again`;
- `_waiting` is in the order in which it is to be written, and what comes back from a channel goes in front of it;
- while the message that broke a channel is being looked for, what is in flight is at most `_window`: one of them, if
  the channel breaks again and only that one was in flight, is the one.

Source: https://www.rabbitmq.com/docs/confirms
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from txmsg.amqp.channel import Channel
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.recovery.channel_keeper import ChannelKeeper
from txmsg.amqp.recovery.member import ORDER_PUBLISHER
from txmsg.amqp.recovery.publication import Publication, PublisherReport
from txmsg.errors import (
    ChannelClosed,
    ConnectionClosed,
    NotSent,
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    PublishUnconfirmed,
    TxmsgError,
)

__all__ = ["PublisherOutbox"]

#: Reply codes with which a broker ends a whole connection because of what one publish contains.
_BROKER_BLAMES_CONTENT = frozenset({501, 502, 503, 505, 540})
#: Seconds between looks at the deadlines.
_TICK = 1.0
#: Seconds of nothing but nacks after which the channel is opened anew; doubled each time, up to the most.
_NACKS_LAST = 1.0
_NACKS_LAST_MOST = 30.0


class PublisherOutbox:
    """See the module.

    connection: the ReconnectingConnection, of which `clock` and `backoff` are used.   confirm: bool.
    resends: bool -- whether what was in flight at a loss is written again.
    max_messages, max_bytes: int -- how much may be without an outcome.
    """

    order = ORDER_PUBLISHER

    def __init__(self, connection: Any, confirm: bool, resends: bool, max_messages: int, max_bytes: int) -> None:
        self.connection = connection
        self.confirm = confirm
        self.max_outstanding = max_messages
        self.max_outstanding_bytes = max_bytes
        #: Messages and bytes that have been taken and have no outcome.
        self.outstanding = 0
        self.outstanding_bytes = 0
        self.counts = dict.fromkeys(PublisherReport.__slots__, 0)
        self._resends = resends
        self._clock = connection.clock
        self._keeper = ChannelKeeper(connection, confirm, self._channel_opened, self._channel_closed)
        self._channel: Channel | None = None
        #: Whether a publish may be written at once: there is a channel, nothing waits, and nobody is suspected.
        self._is_direct = False
        self._is_pumping = False
        #: Not written yet, or to be written again: in this order.
        self._waiting: deque[Publication] = deque()
        #: Written on a channel that has ended, oldest first; they go in front of `_waiting`.
        self._again: list[Publication] = []
        #: What was in flight when the broker closed a channel because of one of them, and what it said.
        self._blamed: list[tuple[Publication, BaseException]] = []
        #: Waiting for room.
        self._line: deque[Publication] = deque()
        #: How many may be in flight while the one that broke a channel is being looked for; 0: nobody looks.
        self._window = 0
        #: How many in `_waiting` have their outcome, at most.
        self._given_up = 0
        self._ended: BaseException | None = None
        self._is_stopping = False
        self._timer: IDelayedCall | None = None
        self._earliest = float("inf")
        self._room_waiters: list[Deferred[None]] = []
        self._idle_waiters: list[Deferred[None]] = []
        #: Whether anybody is to be told when an outcome is there: kept up to date, because it is asked for each.
        self._is_watched = False
        #: Of the first nack since the last confirm: how many were confirmed before, and when it came.
        self._nacks_since: tuple[int, float] = (-1, 0.0)
        self._nacks_last = _NACKS_LAST

    # -- taking ------------------------------------------------------------------------------------

    def has_room_for(self, size: int) -> bool:
        """Whether a publication of that size stays within the bound."""
        return not self.outstanding or (
            self.outstanding < self.max_outstanding and self.outstanding_bytes + size <= self.max_outstanding_bytes
        )

    def take(self, publication: Publication) -> None:
        """Write a publication now, or when what is before it has been written.  There must be room for it."""
        self.counts["published"] += 1
        self.outstanding += 1
        self.outstanding_bytes += publication.size
        if publication.deadline < self._earliest:
            self._watch(publication.deadline)
        if self._is_direct:
            channel = self._channel
            if channel is not None and channel.takes_publishes and self._write(channel, publication):
                return
        if not publication.called:
            self._waiting.append(publication)
            self._pump()

    def take_later(self, publication: Publication) -> None:
        """Take a publication when there is room for it."""
        self.counts["published"] += 1
        self._line.append(publication)
        self._is_watched = True
        self._watch(publication.deadline)

    def waiting_for_room(self) -> int:
        """How many publications wait for room."""
        return len(self._line)

    # -- writing -----------------------------------------------------------------------------------

    def _write(self, channel: Channel, publication: Publication) -> bool:
        """Write a publication to an open channel that takes it; False if it could not be written there."""
        was_written = publication.is_written
        publication.is_written = True
        publication.is_repeated = was_written
        try:
            if not channel.publish_encoded(
                publication,
                publication.exchange,
                publication.routing_key,
                publication.properties,
                publication.content,
                publication if publication.is_mandatory else None,
            ):
                publication.is_written = was_written
                return False
        except TxmsgError as error:  # it cannot be encoded
            publication.is_written = was_written
            self._finish(publication, "not_sent", error)
            return True
        if was_written:
            self.counts["resent"] += 1
        if not self.confirm:
            self.publication_confirmed(publication)
        return True

    def _pump(self) -> None:
        """Write what waits, as far as it goes."""
        if self._is_pumping:
            return  # called by a callback of what is being written
        self._is_pumping = True
        try:
            self._write_waiting()
        finally:
            self._is_pumping = False
        self._is_direct = self._channel is not None and not self._waiting and not self._window

    def _write_waiting(self) -> None:
        # Looked up each time: a callback may change what waits.
        while waiting := self._waiting:
            channel = self._channel
            if channel is None:
                return
            if not channel.takes_publishes:
                self._wait_for(channel)
                return
            if self._window and len(channel.unconfirmed or ()) >= self._window:
                return
            publication = waiting.popleft()
            if not publication.called and not self._write(channel, publication):
                self._waiting.appendleft(publication)
                return

    def _wait_for(self, channel: Channel) -> None:
        """Be called again when the socket or the broker takes more."""
        if channel.is_open:
            channel.connection.outbox.hold(self)

    def drain_held(self) -> None:
        """For the connection, which takes publishes again."""
        if self._keeper.protocol is not None:
            self._keeper.protocol.outbox.holding.pop(self, None)
        self._pump()

    def expire_held(self, now: float, why: str) -> None:
        """For the connection, once a second: the deadlines are looked after here."""

    # -- outcomes ----------------------------------------------------------------------------------

    def publication_confirmed(self, publication: Publication) -> None:
        """The broker has taken responsibility for it."""
        if not publication.called:
            self.outstanding -= 1
            self.outstanding_bytes -= publication.size
            self.counts["confirmed"] += 1
            publication.called = True
            publication.content = b""
            publication.deferred.callback(publication.message_id)
        if self._is_watched or self._window:
            self._after_answer()

    def publication_failed(self, publication: Publication, failure: Failure) -> None:
        """It came back, was refused, or was in flight when its channel ended."""
        error: BaseException = failure.value or NotSent("unknown")
        if isinstance(error, PublishReturned):
            self._finish(publication, "returned", error)
        elif isinstance(error, PublishNacked):
            if publication.is_repeated:
                text = "a copy was refused; what became of the one that was under way at a loss is not known"
                self._finish(publication, "unconfirmed", PublishUnconfirmed(text, error))
            else:
                self._finish(publication, "nacked", error)
            self._nacked()
        else:
            self._came_back(publication, error)
            return
        if self._window:
            self._after_answer()

    def _nacked(self) -> None:
        """Open the channel anew when nothing but nacks comes.

        A RabbitMQ channel whose first publish to a quorum queue comes between the death of the queue's leader and the
        election of the next one (3.10: seen) goes on to refuse all publishes to it, when other channels' are taken.
        """
        now = self._clock.seconds()
        confirmed, since = self._nacks_since
        if confirmed != self.counts["confirmed"]:
            self._nacks_since = self.counts["confirmed"], now
            self._nacks_last = _NACKS_LAST
        elif now - since >= self._nacks_last and self._channel is not None:
            self._nacks_since = confirmed, now
            self._nacks_last = min(2 * self._nacks_last, _NACKS_LAST_MOST)
            self._channel.close()

    def publication_given_up(self, publication: Publication) -> None:
        """Its Deferred was cancelled, and fails by itself."""
        if publication.called:
            return
        publication.called = True
        publication.content = b""
        self._uncount(publication, "cancelled")
        self._given_up += 1
        if self._given_up > 100 and self._given_up > len(self._waiting) // 2:
            self._forget_finished()
        if self._is_watched or self._window:
            self._after_answer()

    def _finish(self, publication: Publication, outcome: str, error: BaseException) -> None:
        if publication.called:
            return
        self._uncount(publication, outcome)
        publication.fail(error)
        if self._is_watched:
            self._after_answer()

    def _uncount(self, publication: Publication, outcome: str) -> None:
        self.counts[outcome] += 1
        if self._line and publication in self._line:
            self._line.remove(publication)  # it was not counted as taken
            return
        self.outstanding -= 1
        self.outstanding_bytes -= publication.size

    def _after_answer(self) -> None:
        """One more has its outcome: let others in, and tell those who wait."""
        if self._window:
            self._look_on()
        while self._line and self.has_room_for(self._line[0].size):
            publication = self._line.popleft()
            self.counts["published"] -= 1  # counted when it came
            self.take(publication)
        if self._room_waiters and self.has_room_for(1):
            waiters, self._room_waiters = self._room_waiters, []
            for waiter in waiters:
                waiter.callback(None)
        if self._idle_waiters and not self.outstanding and not self._line:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                waiter.callback(None)
        self._is_watched = bool(self._line or self._room_waiters or self._idle_waiters)

    def wait_for_room(self) -> Deferred[None]:
        """A new Deferred that fires when there is room, or at the end."""
        if self._ended is not None or (self.has_room_for(1) and not self._line):
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._room_waiters.remove)
        self._room_waiters.append(waiter)
        self._is_watched = True
        return waiter

    def wait_until_idle(self) -> Deferred[None]:
        """A new Deferred that fires when nothing is without an outcome."""
        if not self.outstanding and not self._line:
            return succeed(None)
        waiter: Deferred[None] = Deferred(self._idle_waiters.remove)
        self._idle_waiters.append(waiter)
        self._is_watched = True
        return waiter

    # -- losses ------------------------------------------------------------------------------------

    def _came_back(self, publication: Publication, error: BaseException) -> None:
        """It was in flight when its channel ended with `error`: nobody knows what became of it."""
        blames = _is_because_of_content(error)
        if blames:
            self._blamed.append((publication, error))
        if publication.called:
            return
        if self._ended is not None or not self._resends:
            if not blames and not isinstance(error, PublishUnconfirmed):
                error = PublishUnconfirmed("written, but not confirmed before the loss", error)
            self._finish(publication, "refused" if blames else "unconfirmed", error)
        else:
            self._again.append(publication)

    def _judge(self) -> None:
        """The broker has closed a channel because of one message that was in flight: which?"""
        blamed, self._blamed = self._blamed, []
        if len(blamed) == 1:
            publication, error = blamed[0]
            self._finish(publication, "refused", error)
        else:
            for publication, _ in blamed:
                publication.is_suspect = True

    def _merge(self) -> None:
        """What came back goes in front; if one of them breaks channels, look for it from now on."""
        self._judge()
        again, self._again = self._again, []
        self._waiting.extendleft(reversed([publication for publication in again if not publication.called]))
        self._window = 1 if any(publication.is_suspect for publication in self._waiting) else 0

    def _look_on(self) -> None:
        """While looking: when what is in flight has been answered, it was none of them.

        What has its outcome, because nobody waits any more or its time is up, is not waited for: it is fewer than the
        doubled window lets in flight.
        """
        channel = self._channel
        if channel is None or channel.unconfirmed is None:
            return
        if not all(publication.called for publication in channel.unconfirmed.pending.values()):
            return
        waiting = self._waiting
        while waiting and waiting[0].called:
            waiting.popleft()
        self._window = self._window * 2 if waiting and waiting[0].is_suspect else 0
        self._pump()

    # -- the connection ----------------------------------------------------------------------------

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """For the connection: go on with this one."""
        return self._keeper.recover(protocol)

    def lost(self, reason: BaseException) -> None:
        """For the connection: it is gone."""
        self._keeper.lost()
        self._channel = None
        self._is_direct = False

    def _channel_opened(self, channel: Channel) -> None:
        self._channel = channel
        channel.on_flow = self._pump
        self._merge()
        self._pump()

    def _channel_closed(self) -> None:
        self._channel = None
        self._is_direct = False
        self._judge()

    # -- deadlines ---------------------------------------------------------------------------------

    def _watch(self, deadline: float) -> None:
        """Look at the deadlines no later than the second after this one."""
        self._earliest = min(self._earliest, deadline)
        if self._timer is None:
            self._timer = self._clock.callLater(_TICK, self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        if self._earliest <= now:
            self._expire(now)
        if self.outstanding or self._line:
            self._timer = self._clock.callLater(_TICK, self._tick)
        else:
            self._earliest = float("inf")

    def _open_publications(self) -> list[Publication]:
        """All without an outcome, in order."""
        channel = self._channel
        found = [*self._again, *self._waiting, *self._line]
        if channel is not None and channel.unconfirmed is not None:
            found[:0] = cast("Iterable[Publication]", channel.unconfirmed.pending.values())
        return [publication for publication in found if not publication.called]

    def _expire(self, now: float) -> None:
        self._earliest = float("inf")
        late: list[Publication] = []
        for publication in self._open_publications():
            if publication.deadline <= now:
                late.append(publication)
            else:
                self._earliest = min(self._earliest, publication.deadline)
        why = self._why_waiting()
        for publication in late:
            if publication.is_written:
                text = "written, and not confirmed within the time limit"
                self._finish(publication, "timed_out", PublishTimeout(f"{text}: {why}" if why else text))
            else:
                self._finish(publication, "not_sent", NotSent(f"not written within the time limit: {why}"))
        self._forget_finished()
        if late and self._window:
            self._look_on()

    def _forget_finished(self) -> None:
        """What has its outcome needs no place any more."""
        self._again = [publication for publication in self._again if not publication.called]
        self._waiting = deque(publication for publication in self._waiting if not publication.called)
        self._given_up = 0
        channel = self._channel
        if channel is None or channel.unconfirmed is None:
            return
        if len(channel.unconfirmed.pending) - self.outstanding > self.max_outstanding:
            # A broker that never answers: what it owes an answer for stays in the ledger, so begin another one (R6).
            channel.close()

    def _why_waiting(self) -> str:
        protocol = self._keeper.protocol
        if protocol is None:
            error = self.connection.last_error
            return "there is no connection" if error is None else f"there is no connection ({error})"
        if protocol.is_blocked:
            return "the broker has blocked the connection"
        if self._channel is None:
            return "there is no channel"
        return "" if self._channel.takes_publishes else "the socket takes no more"

    # -- the end -----------------------------------------------------------------------------------

    def stop(self) -> Deferred[None]:
        """For the connection: take no more, and fire when nothing is outstanding; the caller limits it."""
        self._is_stopping = True
        return self.wait_until_idle()

    def closed(self, reason: BaseException) -> None:
        """For the connection: it is over.  Everything that is left fails."""
        if self._ended is not None:
            return
        self._ended = reason
        left = self._open_publications()
        self.lost(reason)
        for publication in left:
            if publication.is_written:
                error: TxmsgError = PublishUnconfirmed("written, but not confirmed before the end", reason)
                self._finish(publication, "unconfirmed", error)
            else:
                self._finish(publication, "not_sent", NotSent("not written before the end", reason))
        self._again.clear()
        self._waiting.clear()
        self._blamed.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiters = self._room_waiters + self._idle_waiters
        self._room_waiters, self._idle_waiters = [], []
        for waiter in waiters:
            waiter.callback(None)


def _is_because_of_content(error: BaseException) -> bool:
    """Whether the broker ended the channel or connection because of what was published."""
    if isinstance(error, ChannelClosed):
        return error.initiator == "server"
    if not isinstance(error, ConnectionClosed):
        return False
    return error.initiator == "server" and error.reply_code in _BROKER_BLAMES_CONTENT

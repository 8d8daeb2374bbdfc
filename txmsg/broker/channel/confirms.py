"""Confirms: telling a publisher what was accepted.

https://www.rabbitmq.com/docs/confirms.  Publishes are counted from 1 after confirm.select, and each is answered with
one ack or nack.  The invariants (R35):

* Nothing is acked before it was accepted: routed into its queues, and, where a queue keeps it, on disk.
* What is refused is nacked, alone; a message that could not be routed counts as accepted, after its return.
* Confirms leave in the order of the publishes, at the end of a turn: one ack with `multiple` for all of a turn.

A turn that has something for the disk waits for it as a whole, and what comes after waits behind it.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from txmsg.broker.faults import cannot_switch_mode
from txmsg.broker.queues.queue import PENDING, REJECTED
from txmsg.wire.methods import confirm

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel
    from txmsg.errors import TxmsgError

__all__ = ["Confirms"]


class _Turn:
    """The publishes of a turn, up to one: those refused, and those that nothing is ever said about."""

    __slots__ = ("dropped", "highest", "nacked")

    def __init__(self) -> None:
        self.highest = 0
        self.nacked: list[int] = []
        self.dropped: list[int] = []


class Confirms:
    """The confirm mode of a channel.

    is_on: bool -- confirm.select has come.
    published: int -- how many publishes have come since.
    """

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self.is_on = False
        self.published = 0
        #: All up to this one have been answered.
        self._answered = 0
        self._turn = _Turn()
        self._is_flush_due = False
        self._has_pending = False
        #: Turns that wait for the disk, oldest first.
        self._waiting: deque[_Turn] = deque()
        #: Something was dropped, so nothing can be said about several at once any more.
        self._has_gaps = False
        self.handlers: dict[type[Any], Any] = {confirm.Select: self._select}

    def _select(self, method: confirm.Select) -> None:
        if self._channel.transactions.is_on:
            raise cannot_switch_mode("tx", "confirm")
        self.is_on = True
        if not method.nowait:
            self._channel.send(confirm.SelectOk())

    # -- publishes ----------------------------------------------------------------------------------------

    def settle(self, outcome: int) -> None:
        """A publish has come; `outcome` is that of `VirtualHost.publish`."""
        # Hot.
        self.published += 1
        if outcome == PENDING:
            self._has_pending = True
        elif outcome == REJECTED:
            self._turn.nacked.append(self.published)
        if not self._is_flush_due:
            self._is_flush_due = True
            self._channel.connection.flush_soon(self._channel)

    def drop(self) -> None:
        """A publish has come that is never answered."""
        self.published += 1
        self._turn.dropped.append(self.published)
        self._has_gaps = True

    @property
    def unanswered(self) -> int:
        """Publishes that wait for their confirm."""
        return self.published - self._answered

    # -- answers ------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """The end of a turn: answer its publishes, or have the disk do so."""
        if not self._is_flush_due:
            return
        self._is_flush_due = False
        turn, self._turn = self._turn, _Turn()
        turn.highest = self.published
        if self._has_pending:
            self._has_pending = False
            self._waiting.append(turn)
            self._channel.vhost.journal.after_commit(self._kept, self._not_kept)
        elif self._waiting:
            last = self._waiting[-1]
            last.highest = turn.highest
            last.nacked += turn.nacked
            last.dropped += turn.dropped
        else:
            self._answer(turn)

    def _kept(self) -> None:
        self._answer(self._waiting.popleft())

    def _not_kept(self, error: TxmsgError) -> None:
        turn = self._waiting.popleft()
        dropped = set(turn.dropped)
        turn.nacked = [tag for tag in range(self._answered + 1, turn.highest + 1) if tag not in dropped]
        self._answer(turn)

    def _answer(self, turn: _Turn) -> None:
        first, self._answered = self._answered + 1, turn.highest
        channel = self._channel
        if not channel.is_open:
            return
        wire, number = channel.wire, channel.number
        # The nacks come first: an ack with `multiple` speaks of all below it that have not been spoken of.
        parts = [wire.encode_nack(number, tag) for tag in turn.nacked]
        if not turn.nacked and not self._has_gaps:
            parts.append(wire.encode_ack(number, turn.highest, turn.highest > first))
        else:
            answered = {*turn.nacked, *turn.dropped}
            acked = [tag for tag in range(first, turn.highest + 1) if tag not in answered]
            if self._has_gaps:
                parts += [wire.encode_ack(number, tag) for tag in acked]
            elif acked:
                parts.append(wire.encode_ack(number, acked[-1], len(acked) > 1))
        if parts:
            channel.connection.write(b"".join(parts))

"""Publisher confirms: a Deferred for the broker's answer to each publish.

After confirm.select the broker counts the messages published on the channel from 1 and answers each
number once, with basic.ack or basic.nack, in any order and for several at a time with `multiple`
(https://www.rabbitmq.com/docs/confirms#publisher-confirms).  An unroutable message is acked as well; if
it was mandatory, a basic.return comes *before* that ack.

A return does not carry the number.  It is matched to its publish by message id, exchange and routing
key; a mandatory message without an id is given a unique one for that.  Where the application sets ids
itself and repeats them, body and publish order decide.

Invariant: a number is given when the message is written, never taken back, and its entry leaves only
with the broker's answer or the channel's end.  So cancelling a Deferred, or its time-out, shifts nothing.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from txmsg.amqp.delivery import ReturnedMessage
from txmsg.errors import (
    PublishNacked,
    PublishReturned,
    PublishTimeout,
    RemoteProtocolError,
)

__all__ = ["ConfirmLedger", "MandatoryPublish", "PublishWaiter", "Returnable"]

#: How often the time limit is looked at, in seconds: a limit is kept to within this.
TICK = 1.0


def _swallow(failure: Failure) -> None:
    """Nobody waits for this answer any more."""


class PublishWaiter(Protocol):
    """Who is given the answer to one publish, once: a Deferred, or something like one."""

    called: Any

    def callback(self, result: Any) -> None:
        """The broker has taken responsibility; the argument is the delivery tag (int)."""

    def errback(self, fail: Any = None) -> None:
        """It has not, or nobody knows; the argument is a Failure."""


class Returnable(Protocol):
    """What identifies a mandatory message when it comes back: a MandatoryPublish, or something like one."""

    @property
    def key(self) -> tuple[str, str, str]:
        """Message id, exchange, routing key."""

    @property
    def body(self) -> bytes | None:
        """The body where the application chose the message id, which may repeat."""


class MandatoryPublish:
    """What identifies a mandatory message when it comes back.

    body: bytes | None -- only where the application chose the message id, which may repeat.
    """

    __slots__ = ("body", "key")

    def __init__(self, message_id: str, exchange: str, routing_key: str, body: bytes | None) -> None:
        self.key = (message_id, exchange, routing_key)
        self.body = body


class ConfirmLedger:
    """The unanswered publishes of one channel in confirm mode.

    clock: IReactorTime; timeout: float | None -- seconds until an unanswered publish fails with
    PublishTimeout (kept to within one second), None for no limit.
    """

    __slots__ = (
        "_awaiting_return",
        "_by_key",
        "_clock",
        "_id_counter",
        "_id_prefix",
        "_is_closed",
        "_lowest",
        "_marks",
        "_returned",
        "_timed_out_up_to",
        "_timeout",
        "_timer",
        "last_tag",
        "pending",
        "when_idle",
    )

    def __init__(self, clock: IReactorTime, timeout: float | None) -> None:
        #: Unanswered publishes: delivery tag -> who waits, ascending.
        self.pending: dict[int, PublishWaiter] = {}
        #: The number of messages written since confirm.select.
        self.last_tag = 0
        #: Called once, when nothing is pending any more.
        self.when_idle: Callable[[], None] | None = None
        self._awaiting_return: dict[int, Returnable] = {}
        #: Their numbers by what a return is recognised by; made when the first message comes back, for most never do.
        self._by_key: dict[tuple[str, str, str], list[int]] | None = None
        self._returned: dict[int, ReturnedMessage] = {}
        self._clock = clock
        self._timeout = timeout
        self._timer: IDelayedCall | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._timed_out_up_to = 0
        #: No number below this one is pending.
        self._lowest = 1
        self._id_prefix = os.urandom(12).hex()
        self._id_counter = 0
        self._is_closed = False
        if timeout is not None:
            self._timer = clock.callLater(min(TICK, timeout), self._tick)

    def __len__(self) -> int:
        return len(self.pending)

    # -- publishing --------------------------------------------------------------------------------

    def next_message_id(self) -> str:
        """A message id that nobody else uses: 96 random bits of this channel and a counter, 36 characters."""
        self._id_counter += 1
        return f"{self._id_prefix}{self._id_counter:012x}"

    def published(self, deferred: PublishWaiter) -> None:
        """The next message is being written; `deferred` waits for its answer."""
        self.last_tag = tag = self.last_tag + 1
        self.pending[tag] = deferred

    def published_mandatory(self, deferred: PublishWaiter, message: Returnable) -> None:
        """As `published`, for a message that may be returned."""
        self.published(deferred)
        self.may_return(self.last_tag, message)

    def may_return(self, tag: int, message: Returnable) -> None:
        """The publish with this number was mandatory."""
        self._awaiting_return[tag] = message
        if self._by_key is not None:
            self._by_key.setdefault(message.key, []).append(tag)

    # -- the broker's answers ----------------------------------------------------------------------

    def acked(self, tag: int, multiple: bool) -> None:
        """basic.ack: succeed, or fail with PublishReturned where the message came back before."""
        if tag > self.last_tag or (not tag and not multiple):
            raise self._unknown(tag)
        pending, awaiting = self.pending, self._awaiting_return
        if multiple:
            for number in self._pending_up_to(tag or self.last_tag):
                deferred = pending.pop(number, None)
                if deferred is not None:
                    if self._by_key is not None:
                        self._finish_mandatory(number, deferred)
                    else:
                        awaiting.pop(number, None)
                        deferred.callback(number)
        else:
            deferred = pending.pop(tag, None)
            if deferred is not None:  # else it was answered before: the broker's fault, and harmless
                if self._by_key is not None:
                    self._finish_mandatory(tag, deferred)
                else:
                    awaiting.pop(tag, None)
                    deferred.callback(tag)
        if not self.pending:
            self._idle()

    def nacked(self, tag: int, multiple: bool) -> None:
        """basic.nack: fail with PublishNacked."""
        if tag > self.last_tag or (not tag and not multiple):
            raise self._unknown(tag)
        for t in self._pending_up_to(tag or self.last_tag) if multiple else (tag,):
            deferred = self.pending.pop(t, None)
            if deferred is not None:
                returned = self._returned.get(t)
                self._forget_mandatory(t)
                deferred.errback(Failure(PublishNacked(f"the broker refused publish {t} (basic.nack)", returned)))
        if not self.pending:
            self._idle()

    def returned(self, message: ReturnedMessage) -> bool:
        """basic.return: remember it until the ack that follows; False if it matches no publish."""
        message_id = getattr(message.properties, "message_id", None)
        key = (message_id or "", message.exchange, message.routing_key)
        if self._by_key is None:
            self._by_key = {}
            for tag, publish in self._awaiting_return.items():
                self._by_key.setdefault(publish.key, []).append(tag)
        for tag in self._by_key.get(key, ()):
            publish = self._awaiting_return[tag]
            if tag in self._returned:
                continue
            if publish.body is None or publish.body == message.body:
                self._returned[tag] = message
                return True
        return False

    def _pending_up_to(self, last: int) -> Iterable[int]:
        """The pending numbers up to `last`, all of which are answered now, and perhaps some that are not pending.

        By counting up from the lowest: callbacks may publish meanwhile, which adds behind, and the front of
        a dict is slow to find where much has been taken away.  Except after very many single answers.
        """
        first, self._lowest = self._lowest, max(self._lowest, last + 1)
        if last - first > 2 * len(self.pending):
            return [number for number in self.pending if number <= last]
        return range(first, last + 1)

    def _unknown(self, tag: int) -> RemoteProtocolError:
        """A number that was never given: both sides count differently, every later answer would go astray."""
        return RemoteProtocolError(
            f"the broker answered publish {tag}, but {self.last_tag} were made on this channel", 503
        )

    def _finish_mandatory(self, tag: int, deferred: PublishWaiter) -> None:
        returned = self._returned.pop(tag, None)
        self._forget_mandatory(tag)
        if returned is None:
            deferred.callback(tag)
        else:
            deferred.errback(
                Failure(
                    PublishReturned(
                        returned.reply_code, returned.reply_text, returned.exchange, returned.routing_key, returned
                    )
                )
            )

    def _forget_mandatory(self, tag: int) -> None:
        self._returned.pop(tag, None)
        publish = self._awaiting_return.pop(tag, None)
        if publish is not None and self._by_key is not None:
            tags = self._by_key[publish.key]
            tags.remove(tag)
            if not tags:
                del self._by_key[publish.key]
                if not self._by_key:
                    self._by_key = None

    def _idle(self) -> None:
        when_idle, self.when_idle = self.when_idle, None
        if when_idle is not None:
            when_idle()

    # -- time limit --------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Look at the clock once a second instead of noting the time of every publish.

        A mark says: up to this number everything was published at this time or before.
        """
        self._timer = None
        assert self._timeout is not None
        now = self._clock.seconds()
        expired = 0
        while self._marks and self._marks[0][0] <= now - self._timeout:
            expired = self._marks.popleft()[1]
        self._marks.append((now, self.last_tag))
        if expired > self._timed_out_up_to:
            self._expire(expired)
        if not self._is_closed:
            self._timer = self._clock.callLater(min(TICK, self._timeout), self._tick)

    def _expire(self, up_to: int) -> None:
        error_text = f"no answer to publish {{}} within {self._timeout:g} s"
        late = [(tag, d) for tag, d in self.pending.items() if self._timed_out_up_to < tag <= up_to]
        self._timed_out_up_to = max(self._timed_out_up_to, up_to)
        for tag, deferred in late:
            if tag not in self.pending:
                continue  # the errback of an earlier one closed the channel
            # The entry stays, with a Deferred that swallows the late answer: numbers must not shift.
            ignored: Deferred[int | None] = Deferred()
            ignored.addErrback(_swallow)
            self.pending[tag] = ignored
            if not deferred.called:
                deferred.errback(Failure(PublishTimeout(error_text.format(tag))))

    # -- the end -----------------------------------------------------------------------------------

    def close(self, make_error: Callable[[int], BaseException]) -> None:
        """Fail all that is pending, oldest first, with `make_error(tag)`."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Emptied in place: `acked` may be half way through it, with a callback that closed the channel.
        pending = list(self.pending.items())
        self.pending.clear()
        returned, self._returned = self._returned, {}
        self._awaiting_return.clear()
        self._by_key = None
        self._marks.clear()
        for tag, deferred in pending:
            back = returned.get(tag)
            if back is not None:
                error: BaseException = PublishReturned(
                    back.reply_code, back.reply_text, back.exchange, back.routing_key, back
                )
            else:
                error = make_error(tag)
            deferred.errback(Failure(error))
        self._idle()

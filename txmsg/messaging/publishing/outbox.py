"""Outbox: the publishes of one producer that could not leave at once, in the order in which they were given.

They wait for the channel to be opened, for something to be declared, or, with a retry policy, for the connection to
be back (kombu B6 to B9, G18).  An attempt is for all that wait: when it fails it counts for each of them, and the first
one's policy says how long to wait.  What was sent and not confirmed comes back here with the place it had.

The invariants: messages leave in the order of the publishes, and a new one never overtakes one that is sent again
(R4); a copy has the octets and the message_id of the first (R7); each publish ends once, and with a
time limit in time (R2); when nothing waits, there is no delayed call and no attempt.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import (
    ChannelClosed,
    NotSent,
    OperationalError,
    OperationTimeout,
    Overloaded,
    PublishTimeout,
)
from txmsg.messaging.publishing.publication import Publication
from txmsg.messaging.retrying.ensuring import come_back, is_time_to_wait, is_worth_retrying
from txmsg.messaging.retrying.retrying import RetryIntervals

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from txmsg.messaging.connection.channel import Channel

__all__ = ["Outbox", "OutboxOwner"]


class OutboxOwner(Protocol):
    """What the outbox needs of its producer."""

    @property
    def channel(self) -> Channel:
        """Where to publish.  NotBoundError."""

    def is_ready(self, declare: Sequence[Any]) -> bool:
        """Whether the channel is open and the exchange and all of `declare` are known to be there."""

    async def make_ready(self, declare: Sequence[Any]) -> None:
        """Declare them; the channel is open."""

    def revive(self, channel: Channel) -> None:
        """The connection was lost and is back."""

    def ended(self, publication: Publication, error: BaseException) -> None:
        """A publish has failed for good."""


class Outbox:
    """See the module.

    owner: the producer.   max_waiting, max_waiting_bytes: int -- beyond that a publish fails with Overloaded.
    waiting: int -- how many wait here now; 0: a publish may pass by.
    """

    _log = Logger(namespace="txmsg.messaging.outbox")

    def __init__(self, owner: OutboxOwner, max_waiting: int, max_waiting_bytes: int) -> None:
        self._owner = owner
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._line: list[Publication] = []
        self.waiting = 0
        self._bytes = 0
        self._connection: Any = None
        self._work: Deferred[Any] | None = None
        self._wait: IDelayedCall | None = None
        self._is_looping = False
        #: The error of the last attempt, until one succeeds.
        self._last_error: BaseException | None = None

    # -- in and out

    def add(self, publication: Publication) -> Deferred[None]:
        """Send it when its turn comes, which may be now."""
        try:
            connection = self._owner.channel.connection
        except Exception:
            return fail()
        if self.waiting and (
            self.waiting >= self._max_waiting or self._bytes + publication.weight > self._max_waiting_bytes
        ):
            return fail(Overloaded(f"{self.waiting} publishes of {self._bytes} octets wait already"))
        if publication.intervals is None and self._last_error is not None and not connection.connected:
            return fail(NotSent("the connection is lost", self._last_error))
        deferred = self._promise(publication, connection)
        self._push(publication, connection)
        self._advance()
        return deferred

    def send_again(self, failure: Failure, publication: Publication) -> Any:
        """For the errback of a publish that passed by: the outcome, or a Deferred of it."""
        connection = self._owner.channel.connection
        deferred = self._promise(publication, connection)
        self._not_delivered(failure, None, publication)
        return deferred

    def _promise(self, publication: Publication, connection: Any) -> Deferred[None]:
        deferred: Deferred[None] = Deferred(lambda _: self._cancelled(publication))
        publication.deferred = deferred
        policy = publication.intervals
        of_policy = None if policy is None else policy.timeout
        limits = [limit for limit in (publication.timeout, of_policy) if limit is not None]
        if limits:
            publication.limit = connection.reactor.callLater(min(limits), self._time_is_up, publication, min(limits))
        return deferred

    def _push(self, publication: Publication, connection: Any) -> None:
        if self._connection is None:
            self._connection = connection
            connection.add_close_callback(self._connection_closed)
        heappush(self._line, publication)
        publication.is_waiting = True
        self.waiting += 1
        self._bytes += publication.weight

    def _head(self) -> Publication | None:
        line = self._line
        while line and line[0].is_done:
            heappop(line)
        return line[0] if line else None

    def _take(self, publication: Publication) -> None:
        """It does not wait any more."""
        publication.is_waiting = False
        self.waiting -= 1
        self._bytes -= publication.weight
        if not self.waiting:
            self._rest()

    def _rest(self) -> None:
        """Nothing waits: leave nothing behind."""
        self._line.clear()
        self._last_error = None
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.remove_close_callback(self._connection_closed)
        if self._wait is not None:
            self._wait.cancel()
            self._wait = None
        work, self._work = self._work, None
        if work is not None:
            work.cancel()

    # -- ends

    def _end(self, publication: Publication) -> Deferred[None] | None:
        """Whatever becomes of it, this is the end; returns the Deferred that is to be fired."""
        if publication.is_done:
            return None
        publication.is_done = True
        limit, publication.limit = publication.limit, None
        if limit is not None and limit.active():
            limit.cancel()
        in_flight, publication.in_flight = publication.in_flight, None
        if in_flight is not None:
            in_flight.cancel()
        if publication.is_waiting:
            self._take(publication)
        return publication.deferred

    def _cancelled(self, publication: Publication) -> None:
        self._end(publication)

    def _fail(self, publication: Publication, error: BaseException | Failure) -> None:
        deferred = self._end(publication)
        if deferred is not None:
            failure = error if isinstance(error, Failure) else Failure(error)
            self._owner.ended(publication, failure.value)  # type: ignore[arg-type]
            deferred.errback(failure)

    def _time_is_up(self, publication: Publication, seconds: float) -> None:
        why = f"not confirmed within {seconds} s"
        policy = publication.intervals
        error: BaseException
        if publication.in_flight is not None:
            error = PublishTimeout(why)
        elif publication.unknown is not None:
            error = PublishTimeout(why, publication.unknown)
        else:
            error = NotSent(f"not sent within {seconds} s", self._last_error)
        if policy is not None and seconds == policy.timeout and seconds != publication.timeout:
            times = max(1, publication.failures)
            last = error if publication.unknown or publication.in_flight else self._last_error
            error = OperationalError(
                f"gave up after {times} attempts and {seconds} s", last or OperationTimeout("not done in time")
            )
        self._fail(publication, error)

    def _connection_closed(self, reason: BaseException) -> None:
        self.fail_all("the connection was closed", reason)

    def moved(self, connection: Any) -> None:
        """The producer has another channel."""
        if self._connection is not None and self._connection is not connection:
            self._connection.remove_close_callback(self._connection_closed)
            self._connection = connection
            connection.add_close_callback(self._connection_closed)

    def fail_all(self, why: str, reason: BaseException | None = None) -> None:
        """End all that wait with NotSent, or PublishUnconfirmed where they were sent before."""
        for publication in sorted(self._line):
            if not publication.is_done:
                self._fail(publication, publication.not_sent(why, reason))

    # -- attempts

    def _advance(self) -> None:
        """Send what can be sent, until something has to be waited for."""
        if self._is_looping:
            return
        self._is_looping = True
        try:
            while self._work is None and self._wait is None:
                head = self._head()
                if head is None:
                    return
                if self._last_error is None and self._owner.is_ready(head.declare) and head.reply_queue is None:
                    self._send(head)
                    continue
                work = self._work = Deferred.fromCoroutine(self._prepare(head))
                work.addCallbacks(
                    self._prepared, self._not_prepared, callbackArgs=(work, head), errbackArgs=(work, head)
                )
        finally:
            self._is_looping = False

    async def _prepare(self, head: Publication) -> None:
        channel = self._owner.channel
        connection = channel.connection
        is_retry = self._last_error is not None
        try:
            if channel.is_closed:
                raise ChannelClosed("the channel was closed by the application", 200, initiator="client")
            if (is_retry or head.intervals is not None) and not connection.connected:
                await come_back(connection, is_retry)
            await channel.open()
        except Exception as error:
            raise _NotConnected from error
        if is_retry:
            self._owner.revive(channel)
            for on_revive in {id(one.on_revive): one.on_revive for one in sorted(self._line)}.values():
                if on_revive is not None:
                    await maybeDeferred(on_revive, channel)
        await self._owner.make_ready(head.declare)
        if head.reply_queue is not None:
            head.properties["reply_to"] = head.reply_queue.name
            head.reply_queue = None

    def _prepared(self, _: object, work: Deferred[Any], head: Publication) -> None:
        if self._work is not work:
            return
        self._work = None
        if self._owner.channel.transport_channel is None:
            # It went while something was declared, or the connection was pointed elsewhere meanwhile.
            self._attempt_failed(NotSent("the channel was lost before the message could be sent"))
        else:
            self._last_error = None
            if not head.is_done and self._head() is head:
                self._send(head)
        self._advance()

    def _not_prepared(self, failure: Failure, work: Deferred[Any], head: Publication) -> None:
        if self._work is not work:
            return
        self._work = None
        concerns_all = isinstance(failure.value, _NotConnected)
        error = failure.value.__cause__ if concerns_all and failure.value is not None else failure.value
        assert error is not None
        if concerns_all or is_worth_retrying(error):
            self._attempt_failed(error)
        else:
            self._fail(head, failure)
        self._advance()

    def _attempt_failed(self, error: BaseException) -> None:
        """Nobody in the line gets further for now."""
        left: list[Publication] = []
        given_up: list[Publication] = []
        for publication in sorted(self._line):
            if not publication.is_done:
                (left if publication.failed(error, was_sent=False) else given_up).append(publication)
        if left:  # first, for what is told to the others can publish again
            self._again(left[0], left, error, was_sent=False)
        for publication in given_up:
            self._fail(publication, publication.outcome(error))

    def _again(
        self, head: Publication, publications: Sequence[Publication], error: BaseException, was_sent: bool
    ) -> None:
        """These have failed, and may be tried again after a wait, which begins here unless it runs already.

        head: the first that is left.   was_sent: False: the attempt was to get ready.
        """
        self._last_error = error
        clock = self._connection.reactor
        wait = 0.0
        if self._wait is not None:
            wait = max(0.0, float(self._wait.getTime()) - clock.seconds())
        elif self._work is None:
            intervals = head.intervals or _DEFAULT
            if is_time_to_wait(self._connection, head.failures - 1, not was_sent):
                wait = intervals.wait(max(1, head.rounds + 1))
            self._wait = clock.callLater(wait, self._waited)
        for publication in publications:
            publication.rounds += wait > 0
            self._tell(publication, error, wait)

    def _tell(self, publication: Publication, error: BaseException, wait: float) -> None:
        if publication.errback is None or publication.is_done:
            return
        limit = publication.limit
        if limit is not None:
            wait = max(0.0, min(wait, float(limit.getTime()) - self._connection.reactor.seconds()))
        try:
            publication.errback(error, wait)
        except Exception:
            self._fail(publication, Failure())

    def _waited(self) -> None:
        self._wait = None
        self._advance()

    # -- sending

    def _send(self, publication: Publication) -> None:
        heappop(self._line)
        transport = self._owner.channel.transport_channel
        assert transport is not None  # is_ready(), or just opened
        sent = maybeDeferred(
            transport.publish,
            publication.exchange,
            publication.routing_key,
            publication.body,
            publication.properties,
            mandatory=publication.mandatory,
        )
        publication.in_flight = sent
        self._take(publication)
        sent.addCallbacks(
            self._delivered, self._not_delivered, callbackArgs=(sent, publication), errbackArgs=(sent, publication)
        )

    def _delivered(self, _: object, sent: Deferred[None], publication: Publication) -> None:
        if publication.in_flight is sent:
            deferred = self._end(publication)
            if deferred is not None:
                deferred.callback(None)

    def _not_delivered(self, failure: Failure, sent: Deferred[None] | None, publication: Publication) -> None:
        """`sent`: None where the publish passed by."""
        if publication.is_done or publication.in_flight is not sent:
            return
        publication.in_flight = None
        error = failure.value
        assert error is not None
        may_retry = publication.failed(error, was_sent=True)
        try:
            connection = self._owner.channel.connection
        except Exception:
            may_retry = False
        if not may_retry:
            outcome = publication.outcome(error)
            self._fail(publication, failure if outcome is error else outcome)
            return
        self._push(publication, connection)
        self._again(self._head() or publication, [publication], error, was_sent=True)
        self._advance()


class _NotConnected(Exception):
    """There is no connection, or no channel, for anybody; `__cause__` says why."""


#: For a publish without a policy that has one with a policy behind it.
_DEFAULT: Final = RetryIntervals(interval_start=1.0, interval_step=1.0, interval_max=1.0)

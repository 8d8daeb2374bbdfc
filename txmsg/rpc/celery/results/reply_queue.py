"""ReplyQueue: the one queue that the results of a client come to, and its consumer (celery A-01, A-07 to A-10).

The queue is a durable one with a random name, not exclusive and not auto-delete: it outlives the connection, and a
restart of the broker, so that a result which comes while the client is away waits there.  When nobody has used it for
`expires` seconds the broker deletes it; closing the client does so at once.  What it holds is acked here, after it was
read: what is on its way when the connection is lost comes again, and the second one is a duplicate.

Invariant: :meth:`ready` has fired, over the present connection, before anything is published that names the queue.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import TxmsgError
from txmsg.messaging import Channel, Connection, Queue
from txmsg.messaging.connection.failures import is_recoverable
from txmsg.messaging.connection.sharing import SharedAttempt

__all__ = ["ReplyQueue"]

_log = Logger(namespace="txmsg.rpc.celery.reply_queue")

#: Results that are on their way at a time.
_PREFETCH: Final = 1_000


class ReplyQueue:
    """Declares and consumes a queue over a connection, and again over each that comes after it.

    queue: Queue.   on_delivery(delivery) -- called with each; what it raises is logged, and the delivery is acked.
    on_lost(reason) -- called when it does not come back by itself: the connection is closed, or it was refused.
    """

    def __init__(
        self,
        connection: Connection,
        queue: Queue,
        on_delivery: Callable[[Any], object],
        on_lost: Callable[[BaseException], object] | None = None,
    ) -> None:
        self.connection = connection
        self.queue = queue
        self._on_delivery = on_delivery
        self._on_lost = on_lost
        self._channel: Channel | None = None
        #: The channel of the transport on which it is consumed.
        self._consumed_on: Any = None
        self._consumer_tag = ""
        self._starting: SharedAttempt[None] = SharedAttempt()

    @property
    def is_ready(self) -> bool:
        """Whether results can come.

        A connection that comes back by itself brings the queue and its consumer with it before anything can be
        published on it, so that this holds while it is away, too.
        """
        channel = self._channel
        return channel is not None and self._consumed_on is not None and self._consumed_on is channel.transport_channel

    def ready(self) -> Deferred[None]:
        """Be able to receive results; fails as connecting, declaring and consuming do."""
        return succeed(None) if self.is_ready else self._starting.join(self._begin)

    def _begin(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> None:
        channel = self._channel
        if channel is None or channel.is_closed:
            channel = self._channel = Channel(self.connection)
        await channel.open()
        on = channel.transport_channel
        await self.queue(channel).declare()
        await channel.qos(_PREFETCH)
        tag = await channel.consume(self.queue.name, self._received, on_cancel=self._cancelled)
        if on is None or channel.transport_channel is not on or channel is not self._channel:
            raise TxmsgError("the connection was lost while the queue for results was made ready")
        self._consumed_on, self._consumer_tag = on, tag
        channel.add_member(self)

    def _received(self, delivery: Any) -> None:
        try:
            self._on_delivery(delivery)
        except Exception:
            _log.failure("a result could not be handled")
        try:
            delivery.ack()
        except TxmsgError as error:  # the connection was lost: it comes again, and is a duplicate then
            _log.debug("a result could not be acked: {error}", error=str(error))

    def _cancelled(self, reason: BaseException) -> None:
        """The queue is gone, and so is what was in it: make it anew, for what is still to come."""
        self._consumed_on = None
        if self._channel is None:
            return
        _log.warn("the queue for results is lost: {reason}", reason=str(reason))
        self.ready().addErrback(self._not_ready)

    def _not_ready(self, failure: Failure) -> None:
        failure.trap(TxmsgError)
        error: Any = failure.value
        _log.warn("the queue for results could not be made: {error}", error=str(error))
        if not is_recoverable(error):
            self.lost(error)

    # -- as a member of its channel

    def revive(self, channel: Channel) -> Deferred[None]:
        """A connection that does not come back by itself was replaced."""
        return self.ready()

    def lost(self, reason: BaseException) -> None:
        """It is over; the next :meth:`ready` begins anew."""
        self._consumed_on = None
        if self._on_lost is not None:
            self._on_lost(reason)

    def close(self) -> Deferred[None]:
        """Delete the queue with what is in it; where the connection is away, the broker does that when it expires."""
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        channel, self._channel = self._channel, None
        was_ready, self._consumed_on = self._consumed_on is not None, None
        if channel is None:
            return
        channel.remove_member(self)
        try:
            if was_ready and channel.is_open:
                await channel.cancel(self._consumer_tag)
                await channel.queue_delete(self.queue.name)
            await channel.close()
        except TxmsgError as error:
            _log.debug("the queue for results was not deleted: {error}", error=str(error))

    def __repr__(self) -> str:
        return f"<ReplyQueue {self.queue.name!r}{'' if self.is_ready else ', not ready'}>"

"""Replies: the replies to the requests of one mailbox, each to the request whose ticket it carries.

One queue and one consumer serve all requests; they are there from the first request that wants replies.  A reply that
nobody waits for any more is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.errors import ChannelClosed
from txmsg.messaging.connection.sharing import SharedAttempt
from txmsg.messaging.consuming.consumer import Consumer
from txmsg.messaging.pidbox.times import clock_in

if TYPE_CHECKING:
    from txmsg.messaging.connection.channel import Channel
    from txmsg.messaging.consuming.message import Message
    from txmsg.messaging.pidbox.mailbox import Mailbox

__all__ = ["Replies", "Request"]


class Request:
    """One request that waits for replies.

    ticket: str.   replies: list -- those that came.   limit: int | None -- with so many it is done.
    callback -- called with each reply.
    done: Deferred[list] -- fires with the replies.
    """

    def __init__(self, replies: Replies, ticket: str, limit: int | None, callback: Callable[[Any], object] | None):
        self._owner = replies
        self.ticket = ticket
        self.limit = limit
        self.callback = callback
        self.replies: list[Any] = []
        self.done: Deferred[list[Any]] = Deferred(lambda _: self.end(CancelledError()))
        self._timer: Any = None

    def came(self, reply: Any) -> None:
        """One more."""
        self.replies.append(reply)
        if self.callback is not None:
            try:
                self.callback(reply)
            except Exception as error:
                self.end(error)
                return
        if self.limit is not None and len(self.replies) >= self.limit:
            self.end()

    def wait(self, timeout: float | None, reactor: Any) -> Deferred[list[Any]]:
        """The request has left: begin to count the time.  Fires with what came until then."""
        if timeout is not None and not self.done.called:
            self._timer = reactor.callLater(timeout, self.end)
        return self.done

    def end(self, reason: BaseException | None = None) -> None:
        """Nobody waits any more; reason: fail with it instead of giving what came."""
        self._owner.waiting.pop(self.ticket, None)
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()
        if self.done.called:
            return
        if reason is None:
            self.done.callback(self.replies)
        else:
            self.done.errback(Failure(reason))


class Replies:
    """The reply queue of a mailbox, and who waits for what comes there.

    waiting: dict[str, Request] -- by ticket.
    """

    _log = Logger(namespace="txmsg.messaging.pidbox")

    def __init__(self, mailbox: Mailbox, channel: Channel) -> None:
        self._mailbox = mailbox
        self._channel = channel
        self._consumer: Consumer | None = None
        self._starting: SharedAttempt[None] = SharedAttempt(lambda: Deferred.fromCoroutine(self._start()))
        self.waiting: dict[str, Request] = {}

    def listen(self) -> Deferred[None]:
        """Consume the reply queue, unless that is so; fires when replies are heard."""
        return self._starting.join()

    async def _start(self) -> None:
        consumer = self._consumer
        if consumer is not None and consumer.is_consuming:
            return
        consumer = self._consumer = Consumer(
            self._channel,
            [self._mailbox.reply_queue],
            no_ack=True,
            accept=self._mailbox.accept,
            callbacks=[self._on_reply],
            on_decode_error=self._on_decode_error,
        )
        await consumer.consume()
        consumer.when_ended().addCallback(self._ended, consumer)

    def expect(self, ticket: str, limit: int | None, callback: Callable[[Any], object] | None) -> Request:
        """Keep the replies with this ticket, from now on."""
        request = self.waiting[ticket] = Request(self, ticket, limit, callback)
        return request

    def _on_reply(self, body: Any, message: Message) -> None:
        headers = message.headers
        self._mailbox.clock.adjust(clock_in(headers))
        ticket, expires = headers.get("ticket"), headers.get("expires")
        request = self.waiting.get(ticket) if isinstance(ticket, str) else None
        if request is None:
            self._log.debug("a reply that nobody waits for was dropped")
        elif not (isinstance(expires, int | float) and 0 < expires < self._mailbox.reactor.seconds()):
            request.came(body)

    def _on_decode_error(self, message: Message, error: Exception) -> None:
        self._log.error("a reply cannot be decoded and was dropped: {error}", error=error)

    def _ended(self, reason: BaseException, consumer: Consumer) -> None:
        if consumer is self._consumer:
            self._consumer = None
            for request in list(self.waiting.values()):
                request.end(reason)

    async def close(self) -> None:
        """End the consumer; requests that wait fail."""
        reason = ChannelClosed("the mailbox was closed by the application", 200, initiator="client")
        for request in list(self.waiting.values()):
            request.end(reason)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close()

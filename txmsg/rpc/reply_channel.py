"""ReplyChannel: the channel on which requests leave and replies come, as long as it lives.

Direct reply-to (https://www.rabbitmq.com/docs/direct-reply-to) where the broker has it: replies go straight to the
channel, with no queue between.  Else a queue that is this client's alone.  Either is gone with the channel, and so are
the replies that were on their way: whoever waits for one is told.

Invariants: nothing is published before the replies are consumed; the reason of the end is told once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from txmsg.abc import MessagingChannel, OffersPlainChannels, ReturnCallback
from txmsg.errors import ChannelClosed

__all__ = ["DIRECT_REPLY_TO", "REPLY_MODES", "ReplyChannel", "open_plain_channel"]

#: What direct replies are consumed from, and what stands in `reply_to` of a request for them.
DIRECT_REPLY_TO: Final = "amq.rabbitmq.reply-to"

#: "auto": direct where the broker has it; "direct": that or nothing; "queue": always a queue.
REPLY_MODES: Final = ("auto", "direct", "queue")

_log = Logger(namespace="txmsg.rpc.reply_channel")


def open_plain_channel(connection: Any, on_return: ReturnCallback | None = None) -> Deferred[Any]:
    """A channel on a connection of a transport: one without confirms where there are such."""
    if isinstance(connection, OffersPlainChannels):
        return connection.plain_channel(on_return)
    opened: Deferred[Any] = connection.channel()
    return opened


class ReplyChannel:
    """One channel, from when it is open to its end.

    channel: MessagingChannel.   reply_to: str -- for the requests.
    publish: the method of the channel.   reason: why it has ended, if it was not closed here; else None.
    """

    __slots__ = ("_is_over", "_on_end", "channel", "publish", "reason", "reply_to")

    def __init__(self, channel: MessagingChannel, on_end: Callable[[ReplyChannel, BaseException], object]) -> None:
        self.channel = channel
        self.publish = channel.publish
        self.reply_to = ""
        self.reason: BaseException | None = None
        self._on_end = on_end
        self._is_over = False

    @classmethod
    async def open(
        cls,
        connection: Any,
        mode: str,
        on_reply: Callable[[Any], object],
        on_return: ReturnCallback,
        on_end: Callable[[ReplyChannel, BaseException], object],
    ) -> ReplyChannel:
        """Open one on a :class:`txmsg.messaging.Connection`, which connects if need be.

        on_reply(delivery), on_return: see the contract of transports.   on_end(self, reason): told once.
        Fails as connecting, declaring and consuming do; with mode "direct" as the broker refuses that.
        """
        transport = await connection.transport_connection()
        if mode != "queue":
            self = cls(await open_plain_channel(transport, on_return), on_end)
            try:
                await self._consume(DIRECT_REPLY_TO, on_reply)
                return self
            except ChannelClosed as error:
                if mode == "direct" or error.initiator != "server":
                    raise
                _log.info("the broker has no direct reply-to, using a queue: {error}", error=str(error))
        self = cls(await open_plain_channel(transport, on_return), on_end)
        await self._consume("", on_reply)
        return self

    async def _consume(self, queue: str, on_reply: Callable[[Any], object]) -> None:
        channel = self.channel
        try:
            if not queue:
                queue = (await channel.queue_declare("", exclusive=True, auto_delete=True)).name
                await channel.consume(queue, on_reply, no_ack=True, exclusive=True, on_cancel=self.end)
            else:
                await channel.consume(queue, on_reply, no_ack=True, on_cancel=self.end)
        except BaseException:  # also when whoever waited has gone
            self.close()
            raise
        self.reply_to = queue
        channel.when_closed().addCallback(self.end)

    @property
    def is_direct(self) -> bool:
        """Whether the replies come without a queue."""
        return self.reply_to == DIRECT_REPLY_TO

    def end(self, reason: BaseException) -> None:
        """It is over, because of `reason`; what is left of it is closed."""
        if self._is_over:
            return
        self.close()
        self.reason = reason
        self._on_end(self, reason)

    def close(self) -> Deferred[None]:
        """Close it; nobody is told.  Also one that is not open: it must not come back."""
        self._is_over = True
        return self.channel.close().addErrback(_not_closed)

    def __repr__(self) -> str:
        what = "over" if self._is_over else "direct" if self.is_direct else "with a queue"
        return f"<ReplyChannel of {self.channel!r}, {what}>"


def _not_closed(failure: Any) -> None:
    _log.debug("a channel was not closed in order: {error}", error=str(failure.value))

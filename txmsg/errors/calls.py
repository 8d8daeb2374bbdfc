"""How a single call, publish, consumer or settlement fails while its channel lives on."""

from __future__ import annotations

from typing import Any

from txmsg.errors.base import TxmsgError, clip

__all__ = [
    "AlreadySettled",
    "ChannelError",
    "ChannelLimitReached",
    "ChannelNumberInUse",
    "ConsumerCancelled",
    "DuplicateConsumerTag",
    "NotSent",
    "OperationTimeout",
    "Overloaded",
    "PublishFailed",
    "PublishNacked",
    "PublishReturned",
    "PublishTimeout",
    "PublishUnconfirmed",
    "QueueClosed",
    "SettlementError",
    "StaleDelivery",
]


class ChannelError(TxmsgError):
    """A channel operation that failed without closing the channel."""


class ChannelLimitReached(ChannelError):
    """All channel numbers up to the negotiated `channel_max` are in use."""

    recoverable = True


class ChannelNumberInUse(ChannelError, ValueError):
    """The channel number asked for is taken."""


class DuplicateConsumerTag(ChannelError, ValueError):
    """The consumer tag is in use on this channel."""


class ConsumerCancelled(ChannelError):
    """The consumer has ended; `initiator` is "client" (basic_cancel) or "server" (queue deleted ...)."""

    recoverable = True

    def __init__(self, consumer_tag: str = "", initiator: str = "server", queue: str = "") -> None:
        self.consumer_tag = consumer_tag
        self.initiator = initiator
        self.queue = queue
        super().__init__(consumer_tag, initiator, queue)

    def __str__(self) -> str:
        why = "its queue was deleted or became unavailable" if self.initiator == "server" else "basic_cancel was called"
        what = f"consumer {clip(self.consumer_tag)!r} of queue {clip(self.queue)!r}"
        return f"{what} was cancelled by the {self.initiator}: {why}"


class QueueClosed(ChannelError):
    """A ClosableDeferredQueue was closed without a more telling reason."""


class OperationTimeout(ChannelError):
    """No reply within `operation_timeout` seconds; `blocked` says whether the broker had blocked the connection.

    The outcome is unknown: the broker may still do it.  A late reply is swallowed and the channel
    stays usable.
    """

    recoverable = True

    def __init__(self, message: str, blocked: bool = False) -> None:
        self.blocked = blocked
        super().__init__(message, blocked)

    def __str__(self) -> str:
        return str(self.args[0]) + (" (the connection is blocked by the broker)" if self.blocked else "")


# -- publishing -----------------------------------------------------------------------------------


class PublishFailed(TxmsgError):
    """A publish that did not succeed; each subclass stands for one fact."""

    recoverable = True


class PublishReturned(PublishFailed):
    """The broker could not route a mandatory message and gave it back.

    `returned` is the :class:`txmsg.amqp.ReturnedMessage`.
    """

    recoverable = False

    def __init__(self, reply_code: int, reply_text: str, exchange: str, routing_key: str, returned: Any = None) -> None:
        self.reply_code = reply_code
        self.reply_text = clip(reply_text)
        self.exchange = exchange
        self.routing_key = routing_key
        self.returned = returned
        super().__init__(reply_code, self.reply_text, exchange, routing_key, returned)

    def __str__(self) -> str:
        return (
            f"returned by the broker: {self.reply_text} (code {self.reply_code}), "
            f"exchange {clip(self.exchange)!r}, routing key {clip(self.routing_key)!r}"
        )


class PublishNacked(PublishFailed):
    """The broker said basic.nack: it did not take responsibility for the message.

    `returned` is the :class:`txmsg.amqp.ReturnedMessage` where it came back as well, None otherwise.
    """

    def __init__(self, message: str, returned: Any = None) -> None:
        self.returned = returned
        super().__init__(message, returned)

    def __str__(self) -> str:
        return str(self.args[0])


class PublishUnconfirmed(PublishFailed):
    """Written, but the connection or channel ended before the broker answered: the outcome is unknown.

    `cause` is the error that ended it.
    """

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.cause = cause
        super().__init__(message, cause)

    def __str__(self) -> str:
        text = str(self.args[0])
        return text if self.cause is None else f"{text}: {self.cause}"


class PublishTimeout(PublishUnconfirmed):
    """Written, but the broker did not answer within `confirm_timeout`: the outcome is unknown."""


class NotSent(PublishFailed):
    """No byte of the message has left: it is safe to publish it again.  `cause` says why."""

    def __init__(self, message: str, cause: BaseException | None = None) -> None:
        self.cause = cause
        super().__init__(message, cause)

    def __str__(self) -> str:
        text = str(self.args[0])
        return text if self.cause is None else f"{text}: {self.cause}"


class Overloaded(NotSent):
    """The outbox is full, so the message was not taken; wait for earlier publishes to finish."""


# -- settling -------------------------------------------------------------------------------------


class SettlementError(TxmsgError):
    """An ack, nack or reject that cannot be done.  Nothing was sent."""


class StaleDelivery(SettlementError):
    """The delivery's channel is closed: the broker has requeued it and will deliver it again."""


class AlreadySettled(SettlementError):
    """The delivery was already acked, nacked or rejected, or was delivered with `no_ack`."""

"""Direct reply-to: replies that go straight to the channel that asked, with no queue between.

https://www.rabbitmq.com/docs/direct-reply-to.  A channel that consumes (no_ack) from `amq.rabbitmq.reply-to` gets a
name; where it publishes with that queue as `reply_to`, the property is replaced by the name; and what is published
to the default exchange with the name as routing key goes to the channel, or nowhere if the channel is gone.

Invariants: a name cannot be guessed, and is never used again.
"""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from txmsg.broker.message import Message

__all__ = ["REPLY_PREFIX", "REPLY_TO", "DirectReply", "ReplyConsumer", "is_reply_name"]

#: What a client consumes from, and writes into `reply_to`.
REPLY_TO: Final = "amq.rabbitmq.reply-to"
#: How the names begin that others see in its place.
REPLY_PREFIX: Final = "amq.rabbitmq.reply-to."


def is_reply_name(name: str) -> bool:
    """Whether a queue's name is one of direct reply-to: the general one, or that of a channel, living or not."""
    return name == REPLY_TO or name.startswith(REPLY_PREFIX)


class ReplyConsumer(Protocol):
    """A channel that consumes its replies."""

    def reply_received(self, message: Message) -> None:
        """Deliver `message`: no_ack, not redelivered.  Must not raise."""


class DirectReply:
    """The channels of a virtual host that consume replies, by the names others see."""

    __slots__ = ("_consumers",)

    def __init__(self) -> None:
        self._consumers: dict[str, ReplyConsumer] = {}

    def register(self, consumer: ReplyConsumer) -> str:
        """A name for the channel, to be written into `reply_to`; valid until :meth:`unregister`."""
        name = f"{REPLY_PREFIX}{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(16)}"
        self._consumers[name] = consumer
        return name

    def unregister(self, name: str) -> None:
        """The channel has cancelled, or is closed; to do so twice is no error."""
        self._consumers.pop(name, None)

    def exists(self, name: str) -> bool:
        """Whether queue.declare of `name` succeeds (no message, one consumer); else it answers 404."""
        return name == REPLY_TO or name in self._consumers

    def deliver(self, name: str, message: Message) -> bool:
        """Hand `message` to the channel of that name; False if it is gone."""
        consumer = self._consumers.get(name)
        if consumer is None:
            return False
        consumer.reply_received(message)
        return True

    def __len__(self) -> int:
        return len(self._consumers)

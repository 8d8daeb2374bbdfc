"""HandMadeDelivery: what is behind a Message that was made by hand, for a test or by a program (kombu I1, I13)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.errors import MessageStateError, StaleDelivery

if TYPE_CHECKING:
    from txmsg.messaging.connection.channel import Channel

__all__ = ["HandMadeDelivery"]


class HandMadeDelivery:
    """A delivery that no transport made; a :class:`~txmsg.abc.MessagingDelivery`.

    What is not in `info` (exchange, routing_key, redelivered, consumer_tag) is "" or False.
    """

    __slots__ = ("_channel", "_info", "body", "delivery_tag", "properties", "properties_error")

    def __init__(
        self, body: bytes, properties: dict[str, Any], info: dict[str, Any], delivery_tag: int, channel: Channel | None
    ) -> None:
        self.body = body
        self.properties = properties
        self._info = info
        self.delivery_tag = delivery_tag
        self._channel = channel
        self.properties_error: BaseException | None = None

    @property
    def exchange(self) -> str:
        """Where it was published to."""
        return str(self._info.get("exchange") or "")

    @property
    def routing_key(self) -> str:
        """With which key."""
        return str(self._info.get("routing_key") or "")

    @property
    def redelivered(self) -> bool:
        """Whether somebody may have seen it before."""
        return bool(self._info.get("redelivered"))

    @property
    def consumer_tag(self) -> str:
        """Of the consumer it was given to."""
        return str(self._info.get("consumer_tag") or "")

    def _settling(self) -> Any:
        if self._channel is None:
            raise MessageStateError("this message was made by hand: there is no channel to settle it on")
        channel = self._channel.transport_channel
        if channel is None:
            raise StaleDelivery(f"delivery {self.delivery_tag} cannot be settled: its channel is not open")
        if not hasattr(channel, "ack"):  # where tags start again with each connection
            raise MessageStateError("this message was made by hand, and its transport settles no tags: only deliveries")
        return channel

    def ack(self, multiple: bool = False) -> None:
        """By its tag, on its channel; MessageStateError without one."""
        self._settling().ack(self.delivery_tag, multiple)

    def nack(self, requeue: bool = True, multiple: bool = False) -> None:
        """As `ack`."""
        self._settling().nack(self.delivery_tag, multiple, requeue)

    def reject(self, requeue: bool = False) -> None:
        """As `ack`."""
        self._settling().reject(self.delivery_tag, requeue)

    @property
    def is_settled(self) -> bool:
        """Nobody knows."""
        return False

"""A clock that is also a reactor, and a channel that does what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from txmsg.amqp import BasicProperties, Delivery
from txmsg.errors import AlreadySettled, StaleDelivery


class ClockReactor(Clock):
    """Time that moves when told, and the three other things that the service asks of a reactor."""

    def __init__(self) -> None:
        super().__init__()
        self.stops = 0

    def callWhenRunning(self, call: Callable[..., object], *args: Any) -> None:
        call(*args)

    def callFromThread(self, call: Callable[..., object], *args: Any) -> None:
        self.callLater(0, call, *args)

    def stop(self) -> None:
        self.stops += 1


class FakeChannel:
    """Notes how deliveries are settled, until it is lost."""

    def __init__(self) -> None:
        self.is_open = True
        self.unsettled: set[int] = set()
        self.settled: list[tuple[Any, ...]] = []

    def lose(self, reason: BaseException) -> None:
        self.is_open = False
        self.unsettled.clear()

    # -- settling, as Delivery asks for it

    def is_open_delivery(self, tag: int) -> bool:
        return tag in self.unsettled

    def _settle(self, tag: int, how: tuple[Any, ...]) -> None:
        if not self.is_open:
            raise StaleDelivery("the channel is closed")
        if tag not in self.unsettled:
            raise AlreadySettled(f"delivery {tag} is settled")
        self.unsettled.discard(tag)
        self.settled.append((tag, *how))

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        self._settle(delivery_tag, ("ack",))

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        self._settle(delivery_tag, ("requeue" if requeue else "reject",))

    def basic_reject(self, delivery_tag: int, requeue: bool = True) -> None:
        self._settle(delivery_tag, ("requeue" if requeue else "reject",))

    def delivery(
        self, tag: int, body: bytes = b"body", *, redelivered: bool = False, properties: Any = None
    ) -> Delivery:
        """A delivery that waits to be settled on this channel."""
        self.unsettled.add(tag)
        return Delivery(
            self,  # type: ignore[arg-type]
            "tag-1",
            tag,
            redelivered,
            "exchange",
            "key",
            BasicProperties(message_id=f"m{tag}") if properties is None else properties,
            body,
        )

"""A channel that writes down what it is asked for, and a connection with a cache, for tests without a broker."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, fail, succeed

from txmsg.abc import DeclaredQueue
from txmsg.messaging.entities import DeclarationCache, EntityChannel

__all__ = ["RecordingChannel", "RecordingConnection"]


class RecordingConnection:
    """Has what entities want of a connection."""

    def __init__(self) -> None:
        self.declared_entities = DeclarationCache()
        self.made: list[RecordingChannel] = []

    @property
    def default_channel(self) -> RecordingChannel:
        """The one channel there is; made when it is asked for."""
        if not self.made:
            self.made.append(RecordingChannel(self))
        return self.made[0]


class RecordingChannel:
    """Does nothing, and remembers it.

    calls: what was called, as (method, the arguments by position, those by name that say more than the default).
    answer: called for each call, if it is not None, with the method's name; gives the Deferred.
    """

    def __init__(self, connection: RecordingConnection | None = None, number: int = 7) -> None:
        self.connection = connection
        self.number = number
        self.calls: list[tuple[Any, ...]] = []
        self.answer: Any = None
        self.named = 0

    @property
    def methods(self) -> list[str]:
        """The names of what was called."""
        return [call[0] for call in self.calls]

    def _called(self, result: Any, method: str, *args: Any, **kwargs: Any) -> Deferred[Any]:
        given = {key: value for key, value in kwargs.items() if value not in (None, False)}
        self.calls.append((method, *args, given) if given else (method, *args))
        answer = None if self.answer is None else self.answer(method)
        if isinstance(answer, Exception):
            return fail(answer)
        return succeed(result) if answer is None else answer

    def exchange_declare(self, exchange: str, exchange_type: str = "direct", **kwargs: Any) -> Deferred[None]:
        return self._called(None, "exchange_declare", exchange, exchange_type, **kwargs)

    def exchange_delete(self, exchange: str, *, if_unused: bool = False) -> Deferred[None]:
        return self._called(None, "exchange_delete", exchange, if_unused=if_unused)

    def exchange_bind(
        self, destination: str, source: str, routing_key: str = "", arguments: Any = None
    ) -> Deferred[None]:
        return self._called(None, "exchange_bind", destination, source, routing_key, arguments=arguments)

    def exchange_unbind(
        self, destination: str, source: str, routing_key: str = "", arguments: Any = None
    ) -> Deferred[None]:
        return self._called(None, "exchange_unbind", destination, source, routing_key, arguments=arguments)

    def queue_declare(self, queue: str = "", **kwargs: Any) -> Deferred[DeclaredQueue]:
        if not queue:
            self.named += 1
        declared = DeclaredQueue(queue or f"amq.gen-{self.number}-{self.named}", 3, 2)
        return self._called(declared, "queue_declare", queue, **kwargs)

    def queue_delete(self, queue: str, *, if_unused: bool = False, if_empty: bool = False) -> Deferred[int]:
        return self._called(4, "queue_delete", queue, if_unused=if_unused, if_empty=if_empty)

    def queue_purge(self, queue: str) -> Deferred[int]:
        return self._called(5, "queue_purge", queue)

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", arguments: Any = None) -> Deferred[None]:
        return self._called(None, "queue_bind", queue, exchange, routing_key, arguments=arguments)

    def queue_unbind(self, queue: str, exchange: str, routing_key: str = "", arguments: Any = None) -> Deferred[None]:
        return self._called(None, "queue_unbind", queue, exchange, routing_key, arguments=arguments)

    def publish(
        self, exchange: str, routing_key: str, body: bytes, properties: Any = None, *, mandatory: bool = False
    ) -> Deferred[None]:
        return self._called(None, "publish", exchange, routing_key, body, properties, mandatory=mandatory)

    def consume(self, queue: str, callback: Any, *, consumer_tag: str = "", **kwargs: Any) -> Deferred[str]:
        return self._called(consumer_tag or "made-up", "consume", queue, callback, consumer_tag, **kwargs)

    def cancel(self, consumer_tag: str) -> Deferred[None]:
        return self._called(None, "cancel", consumer_tag)

    def get(self, queue: str, *, no_ack: bool = False) -> Deferred[Any]:
        return self._called(None, "get", queue, no_ack=no_ack)


def _is_a_channel(channel: RecordingChannel) -> EntityChannel:
    return channel

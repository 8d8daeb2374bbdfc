"""What the tests of the contract have in common."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

if TYPE_CHECKING:
    from twisted.trial.unittest import TestCase

    _Base = TestCase
else:
    _Base = object

__all__ = ["FEATURES", "ContractCase", "needs"]

E = TypeVar("E", bound=BaseException)
F = TypeVar("F", bound=Callable[..., Any])

#: What a transport may lack:
#: "exchanges" -- but for the default one, with the bindings of queues to them.   "exchange bindings" -- of exchanges to
#: exchanges.   "exclusive" -- queues and consumers that nobody else may use.   "queue arguments" -- limits, lifetimes,
#: dead letters, priorities.   "redelivered" -- it does not know who has had a message before.
FEATURES: Final = frozenset({"exchanges", "exchange bindings", "exclusive", "queue arguments", "redelivered"})

_SECONDS: Final = 10.0


def needs(*features: str) -> Callable[[F], F]:
    """Mark a test of something that not every transport has: `features`, of :data:`FEATURES`."""

    def mark(test: F) -> F:
        test.needs = frozenset(features)  # type: ignore[attr-defined]
        return test

    return mark


class ContractCase(_Base):
    """Say how to connect in `new_connection`, and the tests run over that.

    lacks: what the transport does not have, of :data:`FEATURES`.
    message_properties: what a message is sent with; one value of each property.
    """

    lacks: ClassVar[frozenset[str]] = frozenset()
    message_properties: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "content_type": "text/plain",
            "content_encoding": "utf-8",
            "headers": {"number": 1, "list": [1, "two", None], "table": {"a": True}, "octets": b"\x00\xff"},
            "delivery_mode": 1,
            "priority": 4,
            "correlation_id": "c",
            "reply_to": "r",
            "expiration": "60000",
            "message_id": "m",
            "timestamp": 1700000000,
            "type": "t",
            "user_id": "guest",
            "app_id": "a",
            "cluster_id": "",
        }
    )

    def new_connection(self) -> Any:
        """Return a Deferred, or another awaitable, of a connection: to the same broker each time in one test."""
        raise NotImplementedError

    def __init_subclass__(cls, **options: Any) -> None:
        """A case has no test of what its transport lacks."""
        super().__init_subclass__(**options)
        for name in dir(cls):
            if name.startswith("test") and cls.lacks & getattr(getattr(cls, name), "needs", frozenset()):
                setattr(cls, name, None)

    def unique(self, what: str) -> str:
        """A name nothing else has."""
        return f"{what}.{self.id().rpartition('.')[2][:100]}.{secrets.token_hex(8)}"

    async def connect(self) -> Any:
        """A connection, closed at the end."""
        connection = await self.new_connection()
        self.addCleanup(connection.close)
        return connection

    async def channel(self) -> Any:
        """A channel of a connection of its own."""
        connection = await self.connect()
        return await connection.channel()

    async def queue(self, channel: Any, *bodies: bytes, **settings: Any) -> str:
        """A queue of the test's own, with messages in it."""
        declared = await channel.queue_declare(self.unique("q"), auto_delete=True, **settings)
        for body in bodies:
            await channel.publish("", declared.name, body)
        return str(declared.name)

    async def failure(self, awaitable: Awaitable[Any], kind: type[E]) -> E:
        """The error of this kind that it fails with."""
        try:
            value = await awaitable
        except kind as error:
            return error
        raise self.failureException(f"succeeded with {value!r}, and not with {kind.__name__}")

    def pause(self, seconds: float = 0.0) -> Deferred[None]:
        """Let others have their turn."""
        from twisted.internet import reactor

        return deferLater(reactor, seconds, lambda: None)

    async def until(self, condition: Callable[[], object], seconds: float = _SECONDS) -> None:
        """Wait until something is true."""
        from twisted.internet import reactor

        clock: Any = reactor
        end = clock.seconds() + seconds
        while not condition():
            if clock.seconds() > end:
                self.fail(f"it did not come true within {seconds:g} s")
            await self.pause(0.01)

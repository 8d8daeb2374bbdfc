"""A messaging transport that does what a test says: fails so many attempts, holds confirms back, loses connections."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.ends import Ends
from txmsg.abc import DeclaredQueue, Guarantees
from txmsg.errors import ChannelClosed, ConnectFailed, ConnectionLost, NotSent, PublishUnconfirmed
from txmsg.messaging.connection.connection import Connection
from txmsg.transports.registry import register, unregister

__all__ = ["HOLD", "ScriptedCase", "ScriptedChannel", "ScriptedConnection", "ScriptedTransport"]

#: An outcome that does not come by itself.
HOLD = object()


def outcome_of(script: deque[Any], default: Any = None) -> Deferred[Any]:
    """The next outcome that a script has: an error, HOLD, a Deferred, or a value; `default` when it is at its end."""
    outcome = script.popleft() if script else default
    if outcome is HOLD:
        return Deferred()
    if isinstance(outcome, Deferred):
        return outcome
    return fail(outcome) if isinstance(outcome, BaseException) else succeed(outcome)


class ScriptedChannel(Ends):
    """Writes down what it is asked."""

    def __init__(self, transport: ScriptedTransport, connection: ScriptedConnection) -> None:
        super().__init__()
        self.transport = transport
        self.connection = connection
        self.unconfirmed: list[Deferred[Any]] = []

    @property
    def is_open(self) -> bool:
        """As the connection."""
        return super().is_open and self.connection.is_open

    def end(self, reason: BaseException) -> None:
        """It is over."""
        if self.reason is None:
            self.unconfirm(reason)
            self.lose(reason)

    def unconfirm(self, reason: BaseException) -> None:
        """What was not confirmed will not be."""
        unconfirmed, self.unconfirmed = self.unconfirmed, []
        for sent in unconfirmed:
            if not sent.called:
                sent.errback(PublishUnconfirmed("lost", reason))

    def close(self) -> Deferred[None]:
        """As the contract has it."""
        self.end(ChannelClosed("closed", 200, initiator="client"))
        return succeed(None)

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Mapping[str, Any] | None = None,
        *,
        mandatory: bool = False,
    ) -> Deferred[None]:
        """The next outcome of `publishes`."""
        if not self.is_open:
            return fail(NotSent("away", self.reason))
        self.transport.sent.append((exchange, routing_key, body, dict(properties or {}), mandatory))
        self.transport.log.append(f"publish {body.decode(errors='replace')}")
        sent = outcome_of(self.transport.publishes)
        if not sent.called:
            self.unconfirmed.append(sent)
        return sent

    def exchange_declare(self, exchange: str, exchange_type: str = "direct", **options: Any) -> Deferred[None]:
        """The next outcome of `declares`."""
        self.transport.log.append(f"exchange {exchange}")
        return outcome_of(self.transport.declares)

    def queue_declare(self, queue: str = "", **options: Any) -> Deferred[DeclaredQueue]:
        """The next outcome of `declares`."""
        self.transport.log.append(f"queue {queue}")
        declared = DeclaredQueue(queue or "made-up", 0, 0)
        return outcome_of(self.transport.declares).addCallback(lambda _: declared)

    def queue_bind(self, queue: str, exchange: str, routing_key: str = "", arguments: Any = None) -> Deferred[None]:
        """Of no effect."""
        self.transport.log.append(f"bind {queue}")
        return succeed(None)


class ScriptedConnection(Ends):
    """A connection that ends when it is lost."""

    def __init__(self, transport: ScriptedTransport) -> None:
        super().__init__()
        self.transport = transport
        self.channels: list[ScriptedChannel] = []

    def channel(self) -> Deferred[ScriptedChannel]:
        """The next outcome of `channels`."""
        made = ScriptedChannel(self.transport, self)

        def opened(_: object) -> ScriptedChannel:
            self.channels.append(made)
            return made

        return outcome_of(self.transport.channels).addCallback(opened)

    def lose(self, reason: BaseException | None = None) -> None:
        """It is lost; its channels are told first."""
        reason = reason or ConnectionLost("the connection was lost")
        self.is_away = True
        for channel in self.channels:
            channel.end(reason)
        super().lose(reason)

    def close(self) -> Deferred[None]:
        """As the contract has it."""
        if self.reason is None:
            self.lose(ConnectionLost("closed", 200, initiator="client"))
        return succeed(None)


class ScriptedRecoveringConnection(ScriptedConnection):
    """A connection that comes back."""

    def __init__(self, transport: ScriptedTransport) -> None:
        super().__init__(transport)
        self.callbacks: list[Any] = []

    def lose(self, reason: BaseException | None = None) -> None:
        """It is away, or, when it is closed, it is over."""
        if reason is not None:
            super().lose(reason)
            return
        self.is_away = True
        for channel in self.channels:
            channel.unconfirm(ConnectionLost("the connection was lost"))
        for callback in list(self.callbacks):
            callback(ConnectionLost("the connection was lost"), None)

    def retry(self) -> Deferred[None]:
        """The next outcome of `retries`."""
        self.transport.attempts.append("retry")

        def back(_: object) -> None:
            self.is_away = False

        return outcome_of(self.transport.retries).addCallback(back)

    def add_recovery_callback(self, callback: Any) -> None:
        """As the contract has it."""
        self.callbacks.append(callback)

    def remove_recovery_callback(self, callback: Any) -> None:
        """As the contract has it."""
        self.callbacks.remove(callback)


class ScriptedTransport:
    """Its scripts say how the next attempts end; what is not written succeeds."""

    schemes = ("scripted",)
    default_ports: Mapping[str, int] = {}
    exchange_types = frozenset({"direct"})
    guarantees = Guarantees(delivery="at-least-once", is_ordered=True, survives_restart=False, redelivery_timeout=None)

    def __init__(self) -> None:
        self.connects: deque[Any] = deque()
        self.retries: deque[Any] = deque()
        self.channels: deque[Any] = deque()
        self.publishes: deque[Any] = deque()
        self.declares: deque[Any] = deque()
        #: The hosts that were connected to.
        self.attempts: list[str] = []
        self.made: list[ScriptedConnection] = []
        self.sent: list[tuple[str, str, bytes, dict[str, Any], bool]] = []
        self.log: list[str] = []
        self.recovers = False

    def connect(
        self, url: str, *, reactor: Any = None, alternates: Sequence[str] = (), options: Any = None
    ) -> Deferred[Any]:
        """The next outcome of `connects`."""
        self.attempts.append(urlsplit(url).hostname or "")
        made = ScriptedRecoveringConnection(self) if self.recovers else ScriptedConnection(self)

        def connected(_: object) -> ScriptedConnection:
            self.made.append(made)
            return made

        return outcome_of(self.connects).addCallback(connected)

    def bodies(self) -> list[str]:
        """What was sent, in order."""
        return [body.decode() for _, _, body, _, _ in self.sent]


class ScriptedCase(SynchronousTestCase):
    """A clock, a scripted transport, and connections over it."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.transport = ScriptedTransport()
        register("scripted", self.transport)
        self.addCleanup(unregister, "scripted")

    def connection(self, url: str = "scripted://a", **settings: Any) -> Connection:
        """A lazy Connection."""
        settings.setdefault("connect_timeout", None)
        return Connection(url, reactor=self.clock, **settings)

    def refuse(self, times: int) -> ConnectFailed:
        """Let so many attempts to connect fail."""
        error = ConnectFailed("refused")
        self.transport.connects.extend([error] * times)
        return error

    def assert_nothing_is_left(self) -> None:
        """No delayed call."""
        self.assertEqual(self.clock.getDelayedCalls(), [])

"""A messaging transport that does what a test says: it connects when it is told to, refuses, loses, and remembers."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.messaging.ends import Ends
from txmsg.abc import DeclaredQueue, Guarantees, RecoveryCallback
from txmsg.errors import ChannelClosed, ConnectionClosed, ConnectionLost, NotFound
from txmsg.messaging import Connection
from txmsg.transports.registry import register, unregister

__all__ = ["ScriptedChannel", "ScriptedConnection", "ScriptedConnectionCase", "ScriptedRecovering", "ScriptedTransport"]


class ScriptedChannel(Ends):
    """A MessagingChannel that answers what is asked most, and notes each call."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, ...]] = []
        self.refusals: dict[str, BaseException] = {}

    def _answer(self, name: str, *args: Any, result: Any = None) -> Deferred[Any]:
        self.calls.append((name, *args))
        if not self.is_open:
            return fail(ChannelClosed("it is over", initiator="transport"))
        error = self.refusals.get(name)
        return succeed(result) if error is None else fail(error)

    def queue_declare(self, queue: str = "", **flags: Any) -> Deferred[DeclaredQueue]:
        """As it is asked; NotFound for a passive one."""
        if flags.get("passive"):
            error = NotFound("no queue", 404)
            self.lose(error)
            return fail(error)
        return self._answer("queue_declare", queue, result=DeclaredQueue(queue, 0, 0))

    def consume(self, queue: str, callback: Any, **options: Any) -> Deferred[str]:
        """The tag is the one that was given, or "tag"."""
        self.deliver = callback
        return self._answer("consume", queue, result=options.get("consumer_tag") or "tag")

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **options: self._answer(name, *args)

    def close(self) -> Deferred[None]:
        """In good order."""
        self.lose(ChannelClosed("closed by the application", 200, initiator="client"))
        return succeed(None)


class ScriptedConnection(Ends):
    """A plain MessagingConnection: when it is lost, it is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.channels: list[ScriptedChannel] = []
        self.closed: list[Deferred[None]] = []
        self.closes_at_once = True

    def channel(self) -> Deferred[ScriptedChannel]:
        """A new one."""
        if self.reason is not None:
            return fail(self.reason)
        self.channels.append(ScriptedChannel())
        return succeed(self.channels[-1])

    def lose(self, reason: BaseException) -> None:
        """With all its channels, which are told first."""
        self.is_away = True
        for channel in self.channels:
            channel.lose(reason)
        super().lose(reason)

    def close(self) -> Deferred[None]:
        """In good order."""
        self.lose(ConnectionClosed("closed by the application", 200, initiator="client"))
        self.closed.append(Deferred())
        if self.closes_at_once:
            self.closed[-1].callback(None)
        return self.closed[-1]


class ScriptedRecovering(ScriptedConnection):
    """A RecoveringMessagingConnection: `away` and `back` are its loss and return."""

    def __init__(self) -> None:
        super().__init__()
        self.heartbeat = 7
        self.callbacks: list[RecoveryCallback] = []
        self.retries: list[Deferred[None]] = []

    def add_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Note it."""
        self.callbacks.append(callback)

    def remove_recovery_callback(self, callback: RecoveryCallback) -> None:
        """Forget it."""
        self.callbacks.remove(callback)

    def retry(self) -> Deferred[None]:
        """Waits for the test."""
        self.retries.append(Deferred())
        return self.retries[-1]

    def away(self, reason: BaseException, delay: float | None) -> None:
        """It was lost, or could not come back."""
        self.is_away = True
        for callback in list(self.callbacks):
            callback(reason, delay)

    def back(self) -> None:
        """It is there again."""
        self.is_away = False
        for callback in list(self.callbacks):
            callback(None, None)


class ScriptedTransport:
    """Each connect takes the next of `outcomes`: an error, a Deferred, a connection; without one it succeeds.

    attempts: list of (URL, alternates, options).   made: the connections.
    """

    default_ports: Mapping[str, int] = {}
    exchange_types = frozenset({"direct", "topic"})
    guarantees = Guarantees(
        delivery="at-least-once", is_ordered=True, survives_restart=False, redelivery_timeout=None, has_heartbeats=True
    )

    def __init__(self, test: Any, *outcomes: Any) -> None:
        scheme = f"s{secrets.token_hex(6)}"
        self.schemes = (scheme, f"{scheme}s")
        self.outcomes = list(outcomes)
        self.attempts: list[tuple[str, list[str], Mapping[str, Any] | None]] = []
        self.reactors: list[Any] = []
        self.made: list[ScriptedConnection] = []
        for name in self.schemes:
            register(name, self)
            test.addCleanup(unregister, name)

    @property
    def scheme(self) -> str:
        """The first of its schemes, which no other has."""
        return self.schemes[0]

    @property
    def url(self) -> str:
        """A URL of it."""
        return f"{self.scheme}://host"

    def lost(self) -> ConnectionLost:
        """An error that can be retried."""
        return ConnectionLost("the test took it away")

    def connect(
        self,
        url: str,
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[Any]:
        """The next outcome."""
        self.attempts.append((url, list(alternates), options))
        self.reactors.append(reactor)
        outcome = self.outcomes.pop(0) if self.outcomes else ScriptedConnection()
        if isinstance(outcome, Deferred):
            return outcome
        if isinstance(outcome, BaseException):
            return fail(Failure(outcome))
        self.made.append(outcome)
        return succeed(outcome)


class ScriptedConnectionCase(SynchronousTestCase):
    """A Connection on a scripted transport."""

    def setUp(self) -> None:
        """Make both."""
        self.clock = Clock()
        self.transport = ScriptedTransport(self)

    def connection(self, *outcomes: Any, url: str = "", **settings: Any) -> Connection:
        """A Connection whose attempts have these outcomes."""
        self.transport.outcomes = list(outcomes)
        return Connection(url or self.transport.url, reactor=self.clock, **settings)

    def hosts(self, *names: str) -> list[str]:
        """URLs of the transport."""
        return [f"{self.transport.scheme}://{name}" for name in names]

    def tried(self) -> list[str]:
        """The hosts of the attempts there were."""
        return [url.partition("://")[2].partition("/")[0].partition("?")[0] for url, _, _ in self.transport.attempts]

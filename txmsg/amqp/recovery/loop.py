"""ConnectionLoop: Twisted's ClientService, told what an AMQP connection is.

ClientService is the loop: connect, prepare, wait for the loss, wait, again.  What it gets from us:

- an endpoint whose `connect` is one attempt at one host, up to connection.open-ok.  Each step of that is limited
  (see :mod:`txmsg.amqp.endpoint`), and so is the whole;
- `prepareConnection`, which brings the members back, limited too;
- a `retryPolicy` that does not count itself: ClientService starts its count anew at every connection, also at one that
  lasts for a second only.

The protocol that ClientService holds is a stand-in, which learns of a loss only once the connection was ready: while
`prepareConnection` runs, ClientService has no transition for a lost connection, and a failed preparation says the same.

Invariants: an owner's method is never called inside a transition of ClientService's state machine, but for
`next_delay`; so `stop` may be called from anywhere.  There is at most one attempt, one recovery, one connection.
ClientService logs the attempt's number, the endpoint and the delay at info level, unless the owner's `logs_retries` is
off; the endpoint's repr shows the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.application.internet import ClientService
from twisted.internet.defer import CancelledError, Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocolFactory, IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.protocol import Protocol as StreamProtocol
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.amqp.client import AMQPProtocol
from txmsg.errors import ConnectionClosed, HandshakeTimeout

__all__ = ["ConnectionLoop", "LoopOwner"]


class LoopOwner(Protocol):
    """What the loop asks and tells; nothing of it may raise."""

    #: Whether ClientService logs each attempt to come.
    logs_retries: bool

    def attempt(self) -> Deferred[AMQPProtocol]:
        """Connect to one host; fires with an open connection."""
        ...

    def recover(self, protocol: AMQPProtocol) -> Deferred[None]:
        """Bring the members back on it."""
        ...

    def next_delay(self, error: BaseException) -> float:
        """Return the seconds until the next attempt.  Called inside a transition: no callbacks from here."""
        ...

    def made(self, protocol: AMQPProtocol) -> None:
        """It is ready."""
        ...

    def failed(self, error: BaseException) -> None:
        """An attempt or a recovery failed; the next attempt is scheduled."""
        ...

    def lost(self, reason: BaseException) -> None:
        """The ready connection is gone; the next attempt is scheduled."""
        ...

    @property
    def where(self) -> str:
        """The host of the current attempt, for logs."""
        ...


@implementer(IStreamClientEndpoint)
class ConnectionLoop:
    """See the module.

    owner: LoopOwner;   clock: IReactorTime;   recovery_timeout: seconds for `owner.recover`.
    """

    def __init__(self, owner: LoopOwner, clock: Any, recovery_timeout: float) -> None:
        self._owner = owner
        self._clock = clock
        self._recovery_timeout = recovery_timeout
        self._waits = _Waits(clock)
        factory = Factory.forProtocol(_StandIn)
        factory.noisy = False
        self._service = _Service(
            self, factory, retryPolicy=self._retry_policy, clock=self._waits, prepareConnection=self._prepare
        )
        self._is_stopping = False
        #: With what the last attempt, recovery or connection ended, until the owner has been told.
        self._error: BaseException | None = None
        # One attempt: its delayed beginning, its work, what ClientService waits for.
        self._turn: IDelayedCall | None = None
        self._work: Deferred[AMQPProtocol] | None = None
        self._factory: IProtocolFactory | None = None
        self._result: Deferred[Any] | None = None
        # One connection.
        self._protocol: AMQPProtocol | None = None
        self._stand_in: Any = None
        self._recovering: Deferred[None] | None = None
        self._prepared: Deferred[None] | None = None
        self._is_preparing = False
        self._is_made = False
        #: Connections that never became ready and whose sockets are not gone yet.
        self._leaving: list[AMQPProtocol] = []

    def __repr__(self) -> str:
        return f"<AMQP {self._owner.where}>"

    def start(self) -> None:
        """Begin; once."""
        self._service.logs_retries = self._owner.logs_retries
        self._service.startService()

    def stop(self) -> Deferred[None]:
        """End the loop: give up an attempt or a recovery at once.

        Fires when that is done; if there is a ready connection, once the owner has closed it.
        """
        self._is_stopping = True
        is_trying = self._result is not None
        ends: list[Deferred[Any]] = [self._service.stopService()]
        if is_trying:  # the socket of an attempt that is given up goes in the reactor's next turn
            ends.append(deferLater(self._clock, 0, lambda: None))
        ends += [protocol.when_closed() for protocol in self._leaving]
        return DeferredList(ends).addCallback(lambda results: None)

    def hurry(self) -> None:
        """End the wait before the next attempt, if there is one: the attempt begins in the next turn."""
        self._waits.end()

    # -- an attempt --------------------------------------------------------------------------------

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        """For ClientService: one attempt.  It begins in the next turn, outside of the transition."""
        self._factory = protocolFactory
        result: Deferred[Any] = Deferred(self._attempt_cancelled)
        self._result = result
        self._turn = self._clock.callLater(0, self._begin)
        return result

    def _begin(self) -> None:
        self._turn = None
        self._work = work = maybeDeferred(self._owner.attempt)
        work.addCallbacks(self._connected, self._not_connected)
        if self._result is None and self._work is not None:
            self._work.cancel()  # a callback in there has stopped it, when there was nothing to cancel yet

    def _attempt_cancelled(self, result: Deferred[Any]) -> None:
        """Twisted's Deferred fails with CancelledError by itself after this."""
        self._result = None
        turn, self._turn = self._turn, None
        if turn is not None:
            turn.cancel()
        if self._work is not None:
            self._work.cancel()

    def _not_connected(self, failure: Failure) -> None:
        self._work = None
        result, self._result = self._result, None
        if result is not None:
            self._error = failure.value
            result.errback(failure)
            self._tell()

    def _connected(self, protocol: AMQPProtocol) -> None:
        self._work = None
        result, self._result = self._result, None
        if result is None:
            protocol.abort(ConnectionClosed("the attempt to connect was given up", initiator="client"))
            return
        assert self._factory is not None
        self._protocol = protocol
        self._stand_in = self._factory.buildProtocol(_NoAddress())
        self._stand_in.makeConnection(_NoTransport())
        protocol.when_closed().addCallback(self._gone, protocol)
        result.callback(self._stand_in)  # recovery begins in this call, and may end in it
        self._tell()

    # -- recovery ----------------------------------------------------------------------------------

    def _prepare(self, stand_in: object) -> Deferred[None]:
        """For ClientService: bring the members back on the new connection."""
        protocol = self._protocol
        if protocol is None:  # gone already
            assert self._error is not None
            return fail(self._error)
        prepared: Deferred[None] = Deferred(self._recovery_cancelled)
        self._prepared = prepared
        self._is_preparing = True
        self._recovering = recovering = maybeDeferred(self._owner.recover, protocol)
        recovering.addTimeout(self._recovery_timeout, self._clock, self._recovery_took_too_long)
        recovering.addBoth(self._recovery_ended, protocol)
        self._is_preparing = False
        if self._is_stopping:
            # stop() was called in there, when ClientService could not yet cancel what it had not got.
            if not prepared.called:
                prepared.cancel()
            else:
                self._drop(ConnectionClosed("closed while it was recovering", initiator="client"))
                prepared.addErrback(lambda failure: None)
                return fail(CancelledError())
        return prepared

    def _recovery_ended(self, outcome: object, protocol: AMQPProtocol) -> None:
        if protocol is not self._protocol or self._prepared is None:
            return  # it was cancelled, and the reason is known
        prepared, self._prepared, self._recovering = self._prepared, None, None
        if isinstance(outcome, Failure):
            # If the connection is about to end, its own reason tells more than what a call made of it.
            error = protocol.close_reason or outcome.value
            self._error = error
            self._drop(ConnectionClosed("recovery failed", initiator="client"))
            prepared.errback(Failure(error))
        else:
            self._is_made = True
            prepared.callback(None)
        if not self._is_preparing:
            self._tell()

    def _recovery_took_too_long(self, outcome: object, limit: float) -> object:
        if isinstance(outcome, Failure) and outcome.check(CancelledError):
            raise HandshakeTimeout(f"the recovery on {self._owner.where} did not end within {limit:g} s")
        return outcome

    def _recovery_cancelled(self, prepared: Deferred[None]) -> None:
        self._drop(ConnectionClosed("closed while it was recovering", initiator="client"))

    def _drop(self, reason: BaseException) -> None:
        """Let go of a connection that never became ready."""
        protocol, self._protocol = self._protocol, None
        recovering, self._recovering, self._prepared = self._recovering, None, None
        self._is_made = False
        if recovering is not None:
            recovering.cancel()
        if protocol is not None and not protocol.is_closed:
            self._leaving.append(protocol)
            protocol.when_closed().addCallback(lambda closed: self._leaving.remove(protocol))
            if protocol.close_reason is None or self._is_stopping:  # else it is having its last word
                protocol.abort(reason)

    # -- the end of a connection -------------------------------------------------------------------

    def _gone(self, reason: BaseException, protocol: AMQPProtocol) -> None:
        if protocol is not self._protocol:
            return
        self._error = reason
        if self._is_made:
            self._protocol = None
            self._is_made = False
            stand_in, self._stand_in = self._stand_in, None
            stand_in.connectionLost(Failure(reason))
            self._error = None
            if not self._is_stopping:
                self._owner.lost(reason)
            return
        prepared = self._prepared
        self._drop(reason)
        if prepared is not None:
            prepared.errback(Failure(reason))
            if not self._is_preparing:
                self._tell()

    def _retry_policy(self, failed_attempts: int) -> float:
        assert self._error is not None
        return self._owner.next_delay(self._error)

    def _tell(self) -> None:
        """Outside of ClientService's transitions: tell the owner how it came out."""
        error, self._error = self._error, None
        if self._is_stopping:
            return
        if error is not None:
            self._owner.failed(error)
        elif self._is_made:
            assert self._protocol is not None
            self._owner.made(self._protocol)


@implementer(IReactorTime)
class _Waits:
    """The clock of a ClientService, which times nothing but its waits: the present one can be ended.

    Should Twisted time something else with it one day, that would come early too: `end` is called in a wait only.
    """

    def __init__(self, clock: Any) -> None:
        self._clock = clock
        self._wait: IDelayedCall | None = None

    def seconds(self) -> float:
        """Twisted: as the clock has it."""
        return float(self._clock.seconds())

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:
        """Twisted: all of the clock's."""
        calls: Sequence[IDelayedCall] = self._clock.getDelayedCalls()
        return calls

    def callLater(self, delay: float, callable: Callable[..., Any], *args: object, **kwargs: object) -> IDelayedCall:
        """Twisted: as the clock does it."""
        wait: IDelayedCall = self._clock.callLater(delay, callable, *args, **kwargs)
        self._wait = wait
        return wait

    def end(self) -> None:
        """Let the present wait be over in the next turn."""
        if self._wait is not None and self._wait.active():
            self._wait.reset(0)


class _ServiceLog(Logger):
    """The log of a ClientService; the next attempt is all it tells at info level."""

    def info(self, format: str | None = None, **kwargs: object) -> None:
        """Twisted: tell of the next attempt, unless somebody else does."""
        if getattr(self.source, "logs_retries", True):
            super().info(format, **kwargs)


class _Service(ClientService):
    """With a log that can be quiet.  Should Twisted name that in another way one day, the lines are back, no more."""

    _log = _ServiceLog()
    logs_retries = True


class _StandIn(StreamProtocol):
    """The protocol that ClientService holds."""


class _NoTransport:
    """The stand-in's transport: stopService() wants to close it, but the owner closes the connection, in good order."""

    def loseConnection(self) -> None:
        """Twisted: nothing."""


@implementer(IAddress)
class _NoAddress:
    """The stand-in's address."""

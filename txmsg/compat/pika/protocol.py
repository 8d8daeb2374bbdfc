"""TwistedProtocolConnection: the Protocol that programs written for pika's adapter make, subclass and wait for.

A program's subclass may have attributes of any name, so the connection itself is an object of its own (`_impl`).
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import Any

from pika import exceptions
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IHandshakeListener
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.amqp import Channel
from txmsg.compat.pika.channel import TwistedChannel
from txmsg.compat.pika.connection import Connection
from txmsg.compat.pika.errors import call_error
from txmsg.errors import TxmsgError

__all__ = ["TwistedProtocolConnection"]


@implementer(IHandshakeListener)
class TwistedProtocolConnection(Protocol):
    """One connection to a broker, for any of Twisted's ways to connect.

    parameters: pika's ConnectionParameters or URLParameters; None for pika's defaults.  Host, port and TLS in them do
        not count: Twisted connects.
    custom_reactor -- for the timers; default: the installed reactor.

    ready: Deferred | None -- fires with what `connectionReady` returns (or with this protocol, if that is None), or
        fails with what prevented the connection, an AMQPConnectionError.  None after that: `whenReady()` works at any
        time.
    closed: Deferred | None -- None until the connection is ready; fires (never fails) with the exception that ended
        it: ConnectionClosedByBroker, ConnectionClosedByClient, StreamLostError, AMQPHeartbeatTimeout ...
    """

    def __init__(self, parameters: Any = None, custom_reactor: Any = None) -> None:
        self.ready: Deferred[Any] | None = Deferred()
        self.ready.addCallback(self._run_hook)
        self.ready.addCallbacks(self._hook_done, self._not_ready)
        self.closed: Deferred[Any] | None = None
        self._ready_waiters: list[Deferred[Any]] = []
        self._outcome: object = None
        self._impl = Connection(
            parameters,
            self._on_connection_ready,
            self._on_connection_failed,
            self._on_connection_closed,
            custom_reactor,
        )

    # -- the transport -----------------------------------------------------------------------------

    def makeConnection(self, transport: Any) -> None:
        """Twisted: the transport is there; the handshake begins."""
        self._impl.connection_made(transport)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up."""
        self._impl.native.handshakeCompleted()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: some bytes."""
        self._impl.data_received(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the transport is gone.  `closed` fires in here."""
        self._impl.connection_lost(reason)
        self._fail_ready(reason)

    def logPrefix(self) -> str:
        """Twisted: the name in log lines."""
        return type(self).__name__

    # -- the connection's life ---------------------------------------------------------------------

    def connectionReady(self) -> Any:
        """For subclasses: called when the connection is ready, before `ready` fires with what this returns.

        May return a Deferred, which holds `ready` back; if it fails, `ready` fails, and the connection stays open.
        """
        return self

    def _run_hook(self, result: object) -> Any:
        return self.connectionReady()

    def _on_connection_ready(self, connection: object) -> None:
        ready, self.ready = self.ready, None
        if ready is None:
            return
        self.closed = Deferred()
        if ready.called:  # cancelled, which gives up the waiting and not the connection
            self._settle_waiters(self)
        ready.callback(None)

    def _hook_done(self, result: Any) -> Any:
        if result is None:
            result = self
        self._settle_waiters(result)
        return result

    def _not_ready(self, failure: Failure) -> Failure:
        if self.ready is None or not failure.check(CancelledError):
            self._settle_waiters(failure)
        return failure

    def _settle_waiters(self, outcome: object) -> None:
        self._outcome = outcome
        waiters, self._ready_waiters = self._ready_waiters, []
        for waiter in waiters:
            waiter.callback(outcome)

    def _on_connection_failed(self, connection: object, error: BaseException | None = None) -> None:
        if error is None:
            error = exceptions.AMQPConnectionError("the connection could not be opened")
        self._fail_ready(error)

    def _fail_ready(self, error: Any) -> None:
        ready, self.ready = self.ready, None
        if ready is not None:
            is_asked_for_otherwise = bool(self._ready_waiters)
            ready.errback(error)
            if is_asked_for_otherwise:
                ready.addErrback(lambda failure: None)  # who uses whenReady() has it from there

    def _on_connection_closed(self, connection: object, exception: Any) -> None:
        closed = self.closed
        if closed is not None and not closed.called:
            closed.callback(exception.value if isinstance(exception, Failure) else exception)

    def whenReady(self) -> Deferred[Any]:
        """A new Deferred that fires as `ready` does; works at any time, also after the fact."""
        if isinstance(self._outcome, Failure):
            return fail(self._outcome)
        reason = self._impl.native.close_reason
        if reason is not None:
            return fail(self._impl.why(reason))
        if self._outcome is not None:
            return succeed(self._outcome)
        waiter: Deferred[Any] = Deferred(self._ready_waiters.remove)
        self._ready_waiters.append(waiter)
        return waiter

    # -- for the program ---------------------------------------------------------------------------

    @cached_property  # which, unlike a property, leaves the name to whoever assigns to it
    def parameters(self) -> Any:
        """This connection's copy of pika's parameters, with what was agreed on once it is open."""
        return self._impl.params

    @property
    def is_open(self) -> bool:
        """Whether channels can be opened."""
        return self._impl.is_open

    @property
    def is_closed(self) -> bool:
        """Whether it has ended; False before it has begun."""
        return self._impl.is_closed

    def channel(self, channel_number: int | None = None) -> Deferred[TwistedChannel]:
        """Open a channel; fires with a TwistedChannel.

        channel_number: int -- None takes the lowest free one.

        Fails with ConnectionWrongStateError, NoFreeChannels, InvalidChannelNumber, or what ended the connection
        meanwhile.
        """
        impl = self._impl
        if not impl.is_open:
            state = "closed" if impl.is_closed else ("closing" if impl.is_closing else "not open yet")
            return fail(exceptions.ConnectionWrongStateError(f"the connection is {state}"))
        if channel_number is not None and (isinstance(channel_number, bool) or not isinstance(channel_number, int)):
            return fail(exceptions.InvalidChannelNumber(channel_number))
        opening: Any = impl.native.channel(channel_number)
        return opening.addCallbacks(  # type: ignore[no-any-return]
            self._channel_opened, self._channel_not_opened, errbackArgs=(channel_number,)
        )

    def _channel_opened(self, channel: Channel) -> TwistedChannel:
        return TwistedChannel(channel)

    def _channel_not_opened(self, failure: Failure, channel_number: int | None) -> Any:
        error, native = failure.value, self._impl.native
        if error is not None and error is native.close_reason:
            return Failure(self._impl.why(error))
        return Failure(call_error(error, (channel_number,))) if isinstance(error, TxmsgError) else failure

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> Deferred[Any]:
        """End the connection in good order; may be called at any time and more than once.

        Returns `closed`, once the connection has been ready; before, a Deferred that fires with the reason as well.
        """
        impl, closed = self._impl, self.closed
        if not impl.is_closed:
            with suppress(exceptions.ConnectionWrongStateError):  # it is closing already
                impl.close(reply_code, reply_text)
            if closed is not None:
                return closed
        return impl.when_ended()

"""Connection: what `TwistedProtocolConnection._impl` and `TwistedChannel.connection` are, over an AMQPProtocol.

It has the public face of `pika.connection.Connection` but for the channels with callbacks: state, parameters, what the
broker said of itself, and notifications.  The protocol feeds it bytes and is told of the connection's life.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pika
from pika import exceptions, frame, spec
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.compat.given_tls import GivenTLSProtocol
from txmsg.compat.pika.errors import connection_reason, opening_error
from txmsg.compat.pika.messages import method_frame
from txmsg.compat.pika.parameters import native_parameters

__all__ = ["Connection", "NativeConnection"]


class NativeConnection(GivenTLSProtocol):
    """An AMQPProtocol that knows whom it serves.

    face: Connection -- the same connection as pika's programs see it.
    """

    face: Connection


class Connection:
    """The connection below a TwistedProtocolConnection, and of each of its channels.

    params -- a copy of pika's parameters; from open-ok on, channel_max, frame_max and heartbeat in it are those that
        were agreed on.
    """

    def __init__(
        self,
        parameters: Any,
        on_open: Callable[[Connection], object],
        on_open_error: Callable[[Connection, BaseException], object],
        on_close: Callable[[Connection, BaseException], object],
        custom_reactor: Any = None,
    ) -> None:
        if parameters is None:
            parameters = pika.ConnectionParameters()
        elif not isinstance(parameters, pika.connection.Parameters):
            raise ValueError(f"parameters are pika's, not {type(parameters).__name__}")
        # All but the TLS context, which cannot be copied.
        tls: Any = parameters.ssl_options
        self.params = copy.deepcopy(parameters, {id(tls): tls})
        self._on_open = on_open
        self._on_open_error = on_open_error
        self._on_close = on_close
        self._open_callbacks: list[Callable[[Connection], object]] = []
        self._close_callbacks: list[Callable[[Connection, BaseException], object]] = []
        self._reason: tuple[BaseException, BaseException] | None = None
        self.native = NativeConnection(native_parameters(self.params, self), reactor=custom_reactor)
        self.native.face = self
        self.native.ready.addCallbacks(self._opened, self._not_opened)
        self.native.closed.addCallback(self._closed)

    # -- for the protocol --------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """The transport is there."""
        self.native.makeConnection(transport)  # type: ignore[no-untyped-call]

    def data_received(self, data: bytes) -> None:
        """Some bytes have come."""
        self.native.dataReceived(data)

    def connection_lost(self, reason: Failure) -> None:
        """The transport is gone."""
        if self.native.transport is not None:
            self.native.connectionLost(reason)

    def _opened(self, native: object) -> None:
        negotiated = self.native.negotiated
        for name in ("channel_max", "frame_max", "heartbeat"):
            setattr(self.params, name, getattr(negotiated, name))
        self.native.guarded(self._on_open, self)
        for callback in list(self._open_callbacks):
            self.native.guarded(callback, self)

    def _not_opened(self, failure: Failure) -> None:
        assert failure.value is not None
        self._on_open_error(self, opening_error(failure.value))

    def _closed(self, reason: BaseException) -> None:
        error = self.why(reason)
        # Before the protocol's `closed`, as pika's own callbacks are.
        for callback in list(self._close_callbacks):
            self.native.guarded(callback, self, error)
        self._on_close(self, error)

    def why(self, reason: BaseException) -> BaseException:
        """The reason of the connection's end as pika's exception: one object, whoever asks."""
        if self._reason is None or self._reason[0] is not reason:
            self._reason = reason, connection_reason(reason)
        return self._reason[1].with_traceback(None)

    # -- state -------------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """From open-ok until the end begins."""
        return self.native.is_open

    @property
    def is_closing(self) -> bool:
        """While our own close is on its way."""
        return self.native.is_closing and self.native.close_reason is None

    @property
    def is_closed(self) -> bool:
        """From the moment the end is known: as pika has it.

        A channel's callback that is told of the end finds it True, and waits for the next connection.
        """
        return self.native.close_reason is not None

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker said of itself."""
        return self.native.server_properties

    @property
    def server_capabilities(self) -> dict[str, Any]:
        """Its capabilities."""
        return self.native.server_capabilities

    def _can(self, capability: str) -> bool:
        return bool(self.native.server_capabilities.get(capability, False))

    @property
    def basic_nack(self) -> bool:
        """Whether the broker knows basic.nack."""
        return self._can("basic.nack")

    @property
    def consumer_cancel_notify(self) -> bool:
        """Whether the broker tells when it cancels a consumer."""
        return self._can("consumer_cancel_notify")

    @property
    def exchange_exchange_bindings(self) -> bool:
        """Whether exchanges can be bound to exchanges."""
        return self._can("exchange_exchange_bindings")

    @property
    def publisher_confirms(self) -> bool:
        """Whether the broker confirms publishes."""
        return self._can("publisher_confirms")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.native!r}>"

    # -- notifications -----------------------------------------------------------------------------

    def add_on_open_callback(self, callback: Callable[[Connection], object]) -> None:
        """Call `callback(connection)` at open-ok."""
        self._open_callbacks.append(callback)

    def add_on_close_callback(self, callback: Callable[[Connection, BaseException], object]) -> None:
        """Call `callback(connection, reason)` when an open connection has ended."""
        self._close_callbacks.append(callback)

    def add_on_connection_blocked_callback(self, callback: Callable[[Connection, Any], object]) -> None:
        """Call `callback(connection, frame)` when the broker takes no more publishes (Connection.Blocked)."""
        self.native.blocked.add_blocked_callback(
            lambda reason: callback(self, frame.Method(0, spec.Connection.Blocked(reason)))
        )

    def add_on_connection_unblocked_callback(self, callback: Callable[[Connection, Any], object]) -> None:
        """Call `callback(connection, frame)` when it takes them again (Connection.Unblocked)."""
        self.native.blocked.add_unblocked_callback(lambda: callback(self, frame.Method(0, spec.Connection.Unblocked())))

    # -- calls -------------------------------------------------------------------------------------

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> None:
        """End the connection.  Raises ConnectionWrongStateError when it is closing or closed already."""
        if self.native.is_closing or self.native.is_closed:
            raise exceptions.ConnectionWrongStateError("the connection is closing or closed already")
        self.native.close(reply_code, reply_text)

    def when_ended(self) -> Deferred[BaseException]:
        """Fires with the reason once the socket is gone; for a connection that is closing or closed."""
        return self.native.close().addCallback(self._end_of)

    def _end_of(self, reason: BaseException) -> BaseException:
        # pika's own word for what ended before it was open.
        return self.why(reason) if self.native.closed.called else opening_error(reason)

    def update_secret(
        self, new_secret: str | bytes, reason: str, callback: Callable[[Any], object] | None = None
    ) -> Deferred[Any]:
        """Replace the secret of this login; fires with the UpdateSecretOk frame, which `callback` is given too.

        Raises ConnectionWrongStateError when the connection is not open.
        """
        if not self.native.is_open:
            raise exceptions.ConnectionWrongStateError("the connection is not open")
        done: Deferred[Any] = self.native.update_secret(new_secret, reason).addCallback(
            lambda reply: method_frame(0, reply)
        )
        if callback is not None:
            done.addCallback(lambda reply: (callback(reply), reply)[1])
        return done

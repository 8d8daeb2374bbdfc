"""AMQPProtocol: the client's end of one AMQP 0-9-1 connection.

A protocol object lives for one connection: opening (the handshake object has the word), open, closing,
closed.  There is one reason why it ended, kept from the moment it is known; every Deferred that is
still waiting fails with it, and `closed` fires with it once the socket is gone.

Source: AMQP 0-9-1 section 2.2.4 (opening and closing), https://www.rabbitmq.com/docs/connections,
https://www.rabbitmq.com/docs/connection-blocked
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, fail, maybeDeferred
from twisted.internet.interfaces import IDelayedCall, IHandshakeListener, ISSLTransport
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.amqp.channel import Channel
from txmsg.amqp.connection_core import ConnectionCore, State
from txmsg.amqp.handshake import ClientHandshake, Negotiated, Stage
from txmsg.amqp.heartbeat import HeartbeatMonitor
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import host_of_peer
from txmsg.amqp.sockets import set_socket_options
from txmsg.amqp.tls import has_client_certificate
from txmsg.amqp.tls_failures import classify_tls_failure, looks_like_tls
from txmsg.amqp.tls_verify import verify_peer
from txmsg.errors import (
    ChannelLimitReached,
    ChannelNumberInUse,
    ConnectionClosed,
    ConnectionLost,
    EncodeError,
    HandshakeTimeout,
    HeartbeatTimeout,
    IncompatibleProtocol,
    LocalProtocolError,
    RemoteProtocolError,
    TLSFailed,
    TxmsgError,
    clip,
    connection_error,
)
from txmsg.wire.connection import ConnectionState
from txmsg.wire.events import MethodReceived, ProtocolFailure, ProtocolHeaderReceived
from txmsg.wire.methods import Method, connection, method_name

__all__ = ["AMQPProtocol"]

#: Seconds that a peer gets to close the socket after the last word has been said.
LINGER = 1.0


@implementer(IHandshakeListener)
class AMQPProtocol(ConnectionCore):
    """One connection to a broker; use it with any endpoint, or let :func:`txmsg.amqp.connect` do so.

    parameters: ConnectionParameters -- default: ConnectionParameters().  Never changed; what was agreed
        on is in `negotiated`.  Host and port are not used here, but for the check of a TLS certificate.
    reactor -- default: the installed reactor.

    Attributes:

    ready: Deferred -- fires with this protocol at connection.open-ok, or fails with what prevented it
        (AuthenticationFailed, VirtualHostRefused, HandshakeTimeout, TLSFailed ...).  Cancelling it gives
        the attempt up.  For more than one waiter use `when_ready()`.
    closed: Deferred -- fires (never fails) with the exception that ended an open connection:
        ConnectionClosed with `initiator` "client" or "server", ConnectionLost, HeartbeatTimeout ...
    negotiated: Negotiated | None -- channel_max, frame_max and heartbeat in force.
    blocked: BlockedState -- whether the broker takes publishes, and callbacks for when that changes.
    outbox: Outbox -- the publishes that wait for the socket or the broker, and their bound.
    """

    _log = Logger(namespace="txmsg.amqp.connection")

    def __init__(self, parameters: ConnectionParameters | None = None, *, reactor: Any = None) -> None:
        super().__init__(parameters, reactor=reactor)
        self.ready: Deferred[AMQPProtocol]
        self._is_tls = False
        self._got_bytes = False
        self._handshake: ClientHandshake | None = None

    @property
    def server_properties(self) -> dict[str, Any]:
        """What the broker said of itself in connection.start."""
        return {} if self._handshake is None else self._handshake.server_properties

    @property
    def server_capabilities(self) -> dict[str, Any]:
        """The broker's capabilities table; use `.get(name, False)`."""
        capabilities = self.server_properties.get("capabilities")
        return capabilities if isinstance(capabilities, dict) else {}

    def connection_ready(self) -> Deferred[Any] | None:
        """For subclasses: called at connection.open-ok; a Deferred holds `ready` back, a failure fails it."""
        return None

    def __repr__(self) -> str:
        p = self.parameters
        where = f"{p.host}:{p.port} vhost={clip(p.virtual_host, 40)!r}"
        held = f", {self.outbox.messages} held" if self.outbox.messages else ""
        blocked = ", blocked" if self.is_blocked else ""
        return f"<AMQPProtocol {where} {self._state.value}{blocked}, {len(self.channels)} channels{held}>"

    def logPrefix(self) -> str:
        """Twisted: the name in log lines."""
        return type(self).__name__

    # -- opening -----------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Twisted: start the handshake; under TLS, wait for that to be done first."""
        super().connectionMade()
        set_socket_options(self.transport, self.parameters.tcp_options)
        if self._reason is not None:  # cancelled or closed before there was a socket
            self.abort_transport()
            return
        self._is_tls = ISSLTransport.providedBy(self.transport)
        if self._is_tls:
            self._limit_stage("the TLS handshake")
        elif self.parameters.tls is not None:
            self.drop(TLSFailed("TLS is configured, but the transport is plain: wrap the endpoint with TLS"))
        else:
            self._start_handshake()

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up.  Check the server's identity again before a single byte is sent.

        Twisted 26.4 to 26.10 let certificates without a usable name pass; see txmsg.amqp.tls.
        """
        if self._reason is not None:
            return
        tls = self.parameters.tls
        host = self.parameters.host if tls is None else tls.name_for(self.parameters.host)
        try:
            verify_peer(self.transport, host)
        except Exception as error:
            if not isinstance(error, TxmsgError):
                error = TLSFailed(f"the certificate of {host!r} could not be checked", cause=error)
            self.drop(error)
            return
        self._start_handshake()

    def _start_handshake(self) -> None:
        peer = self.transport.getPeer()  # type: ignore[union-attr]
        self._handshake = ClientHandshake(
            self.parameters,
            host=host_of_peer(peer, self.parameters.host),
            is_tls=self._is_tls,
            has_client_certificate=self._is_tls and has_client_certificate(self.transport),
            send=self._send_opening,
            tuned=self._tuned,
            done=self._opened,
            failed=self._handshake_failed,
        )
        self._limit_stage("the AMQP handshake")
        self.write(self.wire.send_protocol_header())

    def _limit_stage(self, stage: str) -> None:
        self._stop_timer()
        seconds = self.parameters.handshake_timeout
        if seconds is not None:
            error = HandshakeTimeout(f"{stage} with {self.parameters.host} did not end within {seconds:g} s")
            self._timer = self.clock.callLater(seconds, self.drop, error)

    def _send(self, method: Method) -> None:
        self.write(self.wire.send_method(0, method))

    def _send_opening(self, method: Method) -> None:
        """For the handshake.  If the broker's close is among the bytes being handled now, that ends it in a moment."""
        try:
            self._send(method)
        except LocalProtocolError:
            if self.wire.state is not ConnectionState.SERVER_CLOSING:
                raise

    def _tuned(self, negotiated: Negotiated) -> None:
        self.negotiated = negotiated
        self.wire.set_tuned(negotiated.channel_max, negotiated.frame_max)
        self.heartbeat = HeartbeatMonitor(
            negotiated.heartbeat, self.clock, lambda: self.write(self.wire.heartbeat()), self._peer_is_dead
        )
        self.heartbeat.start()

    def _opened(self, negotiated: Negotiated) -> None:
        self._stop_timer()
        self._state = State.OPEN
        d = maybeDeferred(self.connection_ready)
        d.addCallbacks(self._fire_ready, self._ready_hook_failed)

    def _fire_ready(self, result: object) -> None:
        if self._state is not State.OPEN:
            return
        self._was_open = True
        waiters, self._ready_waiters = self._ready_waiters, []
        if not self.ready.called:
            self.ready.callback(self)
        for waiter in waiters:
            waiter.callback(self)

    def _ready_hook_failed(self, failure: Failure) -> None:
        assert failure.value is not None
        # The end of the connection, begun already, makes the hook's calls fail: that has its own reason and manners.
        if self._state is State.OPEN:
            self.drop(failure.value)

    def opening_ended(self) -> None:
        """Drop what a half-done handshake still fetches."""
        if self._handshake is not None:
            self._handshake.stop()

    def _handshake_failed(self, error: BaseException) -> None:
        if isinstance(error, ConnectionClosed) and error.initiator == "server" and error.reply_code:
            self._send(connection.CloseOk())
            self._end(error)
            self._linger()
            return
        if isinstance(error, RemoteProtocolError):
            self._protocol_violated(error)
            return
        self.drop(error)

    # -- events ------------------------------------------------------------------------------------

    def dataReceived(self, data: bytes) -> None:
        """Twisted: bytes of the handshake; afterwards the base class gets them directly."""
        self._got_bytes = True
        if not self._is_tls and looks_like_tls(data):
            port = self.parameters.port
            self.drop(IncompatibleProtocol(f"the server speaks TLS on port {port}: use amqps:// (TLSOptions)"))
            return
        # From the second chunk on without this detour.
        self.dataReceived = super().dataReceived  # type: ignore[method-assign]
        super().dataReceived(data)

    def event_received(self, event: Any) -> None:
        """A rare event: a method on channel 0 or another, a strange header, a broken protocol."""
        if isinstance(event, MethodReceived):
            if event.channel:
                channel = self.channels.get(event.channel)
                if channel is not None:
                    channel.method_received(event.method)
            else:
                self._method_received(event.method)
        elif isinstance(event, ProtocolFailure):
            self._protocol_violated(event.error)
        elif isinstance(event, ProtocolHeaderReceived):
            spoken = ".".join(map(str, event.version)) or clip(repr(event.raw))
            self.drop(IncompatibleProtocol(f"the peer answered AMQP 0.9.1 with a protocol header of its own: {spoken}"))

    def _method_received(self, method: Method) -> None:
        if isinstance(method, connection.Close) and self._state is not State.OPENING:
            self._closed_by_server(method)
        elif self._reason is not None:
            return  # what followed in the chunk with which it ended
        elif isinstance(method, connection.Blocked):
            self.blocked.block(method.reason)
        elif isinstance(method, connection.Unblocked):
            self.blocked.unblock()
        elif isinstance(method, connection.CloseOk):
            if self._closing is not None:
                self._end(self._closing)
                self._linger()
        elif isinstance(method, connection.UpdateSecretOk):
            self._pending.resolve(connection.UpdateSecretOk, method)
        elif self._handshake is not None and self._state is State.OPENING:
            self._handshake.receive(method)

    def _protocol_violated(self, error: RemoteProtocolError) -> None:
        """Tell the peer once, as well as it goes, and go."""
        if self._handshake is not None and self._handshake.stage is Stage.HEADER:
            self.drop(IncompatibleProtocol(f"the peer does not speak AMQP 0-9-1: {error}"))
            return
        with suppress(TxmsgError):  # it may be too early, or too late, for a connection.close
            self._send(connection.Close(reply_code=error.reply_code, reply_text=str(error)[:120]))
        self._end(error)
        self._linger()

    def protocol_violated(self, error: RemoteProtocolError) -> None:
        """For channels: the peer broke the protocol on one of them."""
        self._protocol_violated(error)

    def _peer_is_dead(self) -> None:
        assert self.negotiated is not None
        self.drop(HeartbeatTimeout(f"nothing heard from the broker for {2 * self.negotiated.heartbeat} s"))

    # -- channels and other calls ------------------------------------------------------------------

    def channel(self, channel_number: int | None = None) -> Deferred[Channel]:
        """Open a channel; fires with it at channel.open-ok.

        channel_number: int -- 1 to the negotiated channel_max; None or 0 takes the lowest free one.

        Fails with the connection's closing error or ConnectionWrongState, ChannelLimitReached,
        ChannelNumberInUse, OperationTimeout.  Cancelling it closes the channel again.
        Source: AMQP 0-9-1 section 1.5 (class channel)
        """
        self.check_thread()
        if self._state is not State.OPEN:
            return fail(self._wrong_state())
        assert self.negotiated is not None
        highest = self.negotiated.channel_max
        if not channel_number:
            channel_number = next((n for n in range(1, highest + 1) if n not in self.channels), None)
            if channel_number is None:
                return fail(ChannelLimitReached(f"all {highest} channels of the connection are in use"))
        elif (
            isinstance(channel_number, bool) or not isinstance(channel_number, int) or not 0 < channel_number <= highest
        ):
            return fail(ChannelNumberInUse(f"a channel number is an int from 1 to {highest}, not {channel_number!r}"))
        elif channel_number in self.channels:
            return fail(ChannelNumberInUse(f"channel {channel_number} is in use"))
        self.channels[channel_number] = channel = Channel(self, channel_number)
        return channel.open()

    def forget_channel(self, channel_number: int) -> None:
        """For channels: the number may be used again."""
        self.channels.pop(channel_number, None)

    def update_secret(self, new_secret: str | bytes, reason: str = "") -> Deferred[connection.UpdateSecretOk]:
        """Replace the secret of this login, for instance an OAuth 2 token that is about to expire.

        Fails with OperationTimeout, or with the connection's closing error if the broker refuses it.
        Source: https://www.rabbitmq.com/docs/oauth2 ("updating access tokens")
        """
        self.check_thread()
        if self._state is not State.OPEN:
            return fail(self._wrong_state())
        secret = new_secret.decode("utf-8", "surrogateescape") if isinstance(new_secret, bytes) else new_secret
        method = connection.UpdateSecret(new_secret=secret, reason=reason)
        try:
            frame = self.wire.send_method(0, method)
        except TxmsgError as error:
            if self.wire.state is not ConnectionState.OPEN:
                return self._pending.add(method).deferred  # not written; it fails with the reason, in a moment
            return fail(error)
        call = self._pending.add(method)
        call.written = True
        self.write(frame)
        return call.deferred

    # -- the end -----------------------------------------------------------------------------------

    def close(self, reply_code: int = 200, reply_text: str = "Normal shutdown") -> Deferred[BaseException]:
        """End the connection in good order; fires with the reason once the socket is gone.

        Publishes that wait for the broker's confirm get up to half of `close_timeout` to have it; then
        connection.close is sent, which closes the channels and requeues what is not acked.  After
        `close_timeout` the socket is dropped whatever the peer does.  May be called at any time and
        more than once.
        """
        self.check_thread()
        done = self.when_closed()
        if self._state is State.OPENING:
            self.drop(ConnectionClosed("closed before it was open", initiator="client"))
        elif self._state is State.OPEN:
            self._state = State.CLOSING
            self._closing = reason = ConnectionClosed(reply_text, reply_code, initiator="client")
            limit = self.parameters.close_timeout
            self._timer = self.clock.callLater(limit, self.drop, reason)
            for channel in list(self.channels.values()):
                channel.connection_closing(reason)
            unfinished = DeferredList([c.when_published() for c in self.channels.values()], consumeErrors=True)
            enough = self.clock.callLater(limit / 2, unfinished.cancel)
            unfinished.addBoth(self._send_close, enough, reply_code, reply_text)
        return done

    def _send_close(self, result: object, enough: IDelayedCall, reply_code: int, reply_text: str) -> None:
        if enough.active():
            enough.cancel()
        for channel in list(self.channels.values()):
            channel.drop_held(self._closing or ConnectionClosed(reply_text, reply_code, initiator="client"))
        if self._reason is not None:
            return
        self._flush()
        try:
            try:
                self._send(connection.Close(reply_code=reply_code, reply_text=reply_text))
            except EncodeError:  # a code or text that AMQP cannot carry is no reason for a rude end
                self._send(connection.Close(reply_code=200))
        except TxmsgError as error:
            # If the broker's own close is among the bytes being handled now, that ends it in a moment.
            if self.wire.state is ConnectionState.OPEN:
                self.drop(error)

    def abort(self, reason: BaseException | None = None) -> None:
        """Drop the socket at once, without a word to the broker; unacked deliveries are requeued there."""
        self.check_thread()
        self.drop(reason or ConnectionClosed("aborted", initiator="client"))

    def _closed_by_server(self, close: connection.Close) -> None:
        error = connection_error(
            close.reply_code,
            close.reply_text,
            class_id=close.class_id,
            method_id=close.method_id,
            method_name=method_name(close.class_id, close.method_id),
        )
        self._send(connection.CloseOk())
        self._end(error)
        self._linger()

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """Twisted: the socket is gone."""
        super().connectionLost(reason)
        self.__dict__.pop("dataReceived", None)  # a bound method of ours: it would keep us until the next collection
        if self._reason is None:
            self._end(self._why_lost(reason))
        self._gone()

    def _why_lost(self, failure: Failure) -> BaseException:
        if self._closing is not None:
            return self._closing
        if self._state is not State.OPENING:
            cut = self.wire.receive_eof()  # an end in the middle of something is a loss, and worth a word
            return ConnectionLost(f"the connection was lost {cut}".rstrip(), cause=failure.value)
        if self._is_tls and (self._handshake is None or not self._got_bytes):
            return classify_tls_failure(
                failure, self.parameters.host, port=self.parameters.port, transport=self.transport
            )
        if self._handshake is not None:
            return self._handshake.lost(failure.value, self._got_bytes)
        return ConnectionLost(cause=failure.value)

"""connect(): from a URL or parameters to an open connection, or to one typed error.

The way: credentials' precheck, name lookup and TCP (within `connect_timeout`), TLS, the AMQP handshake (each within
`handshake_timeout`, which the protocol watches), all of it within `stack_timeout` (R11).  With several targets they are
tried in order, each verified under its own name.  Reconnecting later is not done here.

Invariant: whatever happens, also when the Deferred is cancelled, it fires once, and a connection that did not become
open leaves no socket and no timer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet import error as twisted_errors
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from txmsg.amqp import uri
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import is_loopback, may_cross_a_network, plaintext_refusal
from txmsg.errors import (
    AuthenticationFailed,
    ConfigurationError,
    ConnectFailed,
    ConnectionClosed,
    ConnectTimeout,
    HandshakeTimeout,
    TxmsgError,
    VirtualHostRefused,
    clip,
)

__all__ = ["Target", "connect"]

#: What connect() takes: a URL or parameters.
Target = str | ConnectionParameters

#: These would meet us at every other host too.
_FINAL = (AuthenticationFailed, ConfigurationError, VirtualHostRefused)


def connect(
    target: Target | Sequence[Target] = "amqp://localhost",
    *,
    reactor: Any = None,
    endpoint: IStreamClientEndpoint | None = None,
) -> Deferred[AMQPProtocol]:
    """Connect to a broker and log in; fires with an open connection.

    target: an amqp:// or amqps:// URL, or ConnectionParameters; or several of them, to be tried in order.
    reactor: default: the installed one.
    endpoint: an IStreamClientEndpoint to connect with, in place of the target's host and port: a unix socket, a proxy.
        With `tls` in the parameters (or amqps://) it is wrapped in TLS, and `host` is the name to verify.

    Fails with exactly one TxmsgError: ConfigurationError (before anything is sent), ConnectFailed, ConnectTimeout,
    TLSFailed, PeerVerificationFailed, ClientCertificateRequired, HandshakeTimeout, IncompatibleProtocol,
    AuthenticationFailed, NoCommonMechanism, VirtualHostRefused, or what the broker closed the connection with.
    Of several targets it is the last one's, with the others' as notes.  Never raises.  Cancelling the Deferred gives
    the attempt up: it fails with CancelledError at once, and nothing is left behind.

    When no target could be reached (ConnectFailed, ConnectTimeout) all are tried again, `connection_attempts` times in
    all, `retry_delay` seconds apart: the first target's parameters count.
    """
    targets = _parameters_of(target)
    del target  # it may be a URL with a password, and the locals of a frame can be printed (C3.1)
    if not isinstance(targets, list):
        return fail(targets)
    if endpoint is not None and len(targets) > 1:
        return fail(ConfigurationError("an endpoint goes to one place: give one target with it"))
    if reactor is None:
        from twisted.internet import reactor as installed

        reactor = installed
    return _Connecting(targets, reactor, endpoint).result


def _parameters_of(target: Target | Sequence[Target]) -> list[ConnectionParameters] | ConfigurationError:
    """Return the parameters of each target, or the error; it is not raised, see `uri.parse`."""
    targets = [target] if isinstance(target, str | ConnectionParameters) or not isinstance(target, Sequence) else target
    found: list[ConnectionParameters] = []
    try:
        for each in targets:
            if isinstance(each, ConnectionParameters):
                found.append(each)
                continue
            arguments = uri.parse(each)
            if isinstance(arguments, ConfigurationError):
                return arguments
            found.append(ConnectionParameters(**arguments))
    except ConfigurationError as error:
        text = str(error)
    else:
        return found or ConfigurationError("there is no target to connect to")
    return ConfigurationError(text)


class _Connecting:
    """One call of connect(): rounds over the targets.

    result: Deferred -- what the caller has.
    """

    def __init__(
        self, targets: list[ConnectionParameters], reactor: Any, endpoint: IStreamClientEndpoint | None
    ) -> None:
        self._targets = targets
        self._reactor = reactor
        self._endpoint = endpoint
        self._is_cancelled = False
        self._is_done = False
        self.result: Deferred[AMQPProtocol] = Deferred(self._cancel)
        self._work = Deferred.fromCoroutine(self._rounds())
        self._work.addBoth(self._done)

    def _cancel(self, result: Deferred[AMQPProtocol]) -> None:
        """Twisted's Deferred fails with CancelledError by itself after this."""
        self._is_cancelled = True
        self._work.cancel()
        if not self._is_done:  # an endpoint that, being cancelled, connected: give that up too
            self._work.cancel()

    def _done(self, outcome: AMQPProtocol | Failure) -> None:
        self._is_done = True
        if self._is_cancelled:
            if isinstance(outcome, AMQPProtocol):
                outcome.abort()
        elif isinstance(outcome, Failure):
            self.result.errback(outcome)
        else:
            self.result.callback(outcome)

    async def _rounds(self) -> AMQPProtocol:
        first = self._targets[0]
        left = first.connection_attempts
        while True:
            left -= 1
            errors: list[TxmsgError] = []
            for parameters in self._targets:
                try:
                    return await _Attempt(parameters, self._reactor, self._endpoint).start()
                except _FINAL:
                    raise
                except TxmsgError as error:
                    errors.append(error)
            if not left or not any(isinstance(error, ConnectFailed) for error in errors):
                for earlier in errors[:-1]:
                    errors[-1].add_note(f"tried before: {earlier}")
                raise errors[-1]
            await deferLater(self._reactor, first.retry_delay)


class _Attempt:
    """One way up to an open connection with one target."""

    def __init__(self, parameters: ConnectionParameters, reactor: Any, endpoint: IStreamClientEndpoint | None) -> None:
        self._parameters = parameters
        self._reactor = reactor
        self._endpoint = endpoint
        self._protocol: AMQPProtocol | None = None
        if endpoint is None:
            host = parameters.host
            self._where = f"{clip(f'[{host}]' if ':' in host else host, 80)}:{parameters.port}"
        else:
            self._where = getattr(endpoint, "where", "") or f"the endpoint given ({type(endpoint).__name__})"

    def start(self) -> Deferred[AMQPProtocol]:
        """Begin; the Deferred may be cancelled."""
        going = Deferred.fromCoroutine(self._go())
        limit = self._parameters.stack_timeout
        return going if limit is None else going.addTimeout(limit, self._reactor, self._took_too_long)

    async def _go(self) -> AMQPProtocol:
        self._check_plaintext()
        endpoint = self._stream()
        connecting = maybeDeferred(endpoint.connect, _OneProtocol(self._parameters, self._reactor))
        limit = self._parameters.connect_timeout
        if limit is not None:
            connecting.addTimeout(limit, self._reactor, self._tcp_took_too_long)
        try:
            protocol = await connecting
        except (CancelledError, TxmsgError):
            raise
        except Exception as error:
            raise self._connect_failed(error) from error
        assert isinstance(protocol, AMQPProtocol)
        self._protocol = protocol
        try:
            await protocol.when_ready()
        except CancelledError:
            self._give_up(protocol)
            raise
        except Exception:
            # It ends by itself, which includes a last word to the broker; nothing may be left behind.
            try:
                await protocol.when_closed()
            except CancelledError:
                self._give_up(protocol)
            raise
        return protocol

    def _give_up(self, protocol: AMQPProtocol) -> None:
        protocol.abort(ConnectionClosed("the attempt to connect was given up", initiator="client"))

    def _check_plaintext(self) -> None:
        """Refuse a password in the clear before there is a socket; the handshake checks again (C1.8)."""
        p = self._parameters
        is_exposed = p.tls is None and self._endpoint is None and not is_loopback(p.host)
        if is_exposed and not p.allow_plaintext_auth and not may_cross_a_network(p.credentials):
            raise ConfigurationError(plaintext_refusal(p.host))

    def _stream(self) -> IStreamClientEndpoint:
        p = self._parameters
        endpoint = self._endpoint
        if endpoint is None:
            # HostnameEndpoint refuses names with an underscore, as containers have them: they are no internet names.
            kind = TCP4ClientEndpoint if "_" in p.host else HostnameEndpoint
            # No limit of its own: ours is for the name lookup too.
            endpoint = kind(self._reactor, p.host, p.port, timeout=None)  # type: ignore[arg-type]
        if p.tls is not None:
            endpoint = wrapClientTLS(p.tls.client_connection_creator(p.host), endpoint)
        return endpoint

    def _connect_failed(self, error: Exception) -> ConnectFailed:
        where = self._where
        if isinstance(error, twisted_errors.DNSLookupError):
            return ConnectFailed(f"unknown host: the name {clip(self._parameters.host)!r} has no address")
        if isinstance(error, twisted_errors.ConnectionRefusedError):
            return ConnectFailed(f"{where} refused the connection: is the broker running, and is it this port?")
        if isinstance(error, twisted_errors.TimeoutError | TimeoutError):
            return ConnectTimeout(f"{where} did not answer in time")
        return ConnectFailed(f"cannot connect to {where}: {clip(str(error) or type(error).__name__, 120)}")

    def _tcp_took_too_long(self, outcome: object, limit: float) -> object:
        if isinstance(outcome, AMQPProtocol):  # at the last moment
            return outcome
        raise ConnectTimeout(f"{self._where} did not answer within connect_timeout ({limit:g} s)")

    def _took_too_long(self, outcome: object, limit: float) -> Any:
        if isinstance(outcome, AMQPProtocol):
            return outcome
        if self._protocol is None:
            raise ConnectTimeout(f"{self._where} did not answer within stack_timeout ({limit:g} s)")
        if isinstance(outcome, Failure) and not outcome.check(CancelledError):
            return outcome
        raise HandshakeTimeout(f"{self._where}: the handshake did not end within stack_timeout ({limit:g} s)")


class _OneProtocol(Factory):
    """Builds the connection's protocol."""

    noisy = False

    def __init__(self, parameters: ConnectionParameters, reactor: Any) -> None:
        self._parameters = parameters
        self._reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> AMQPProtocol:
        """Twisted: a protocol for a stream.  Of two streams to one host the slower one is dropped, unseen."""
        protocol = AMQPProtocol(self._parameters, reactor=self._reactor)
        protocol.ready.addErrback(lambda failure: None)  # whoever called connect() hears of it
        return protocol

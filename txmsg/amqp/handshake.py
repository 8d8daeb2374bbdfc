"""The opening conversation of a client, as an object of its own.

    C: protocol header      S: connection.start
    C: start-ok             S: secure (none to many rounds) ... tune, or close 403
    C: tune-ok, open        S: open-ok, or close 530

It ends once, in `done(negotiated)` or in `failed(error)`; nothing else in the package knows a
half-open connection.  Where the peer went away tells what was probably wrong, so the stage is kept.
Source: AMQP 0-9-1 section 2.2.4, https://www.rabbitmq.com/docs/auth#failure-notifications
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg import __version__
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import choose_mechanism
from txmsg.errors import (
    AuthenticationFailed,
    ConnectionClosed,
    ConnectionLost,
    IncompatibleProtocol,
    LocalProtocolError,
    RemoteProtocolError,
    TxmsgError,
    VirtualHostRefused,
    clip,
    connection_error,
)
from txmsg.wire.methods import Method, connection

__all__ = ["CAPABILITIES", "ClientHandshake", "Negotiated", "Stage", "client_properties", "negotiate"]

#: What we tell the broker that we understand.  Without an entry it silently leaves that notice out.
CAPABILITIES: Mapping[str, bool] = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "exchange_exchange_bindings": True,
    "per_consumer_qos": True,
    "publisher_confirms": True,
}

#: The smallest frame_max the protocol allows (AMQP 0-9-1 section 1.2, frame-min-size).
FRAME_MIN_SIZE = 4096


class Stage(Enum):
    """How far the conversation has come; the value says it in words."""

    HEADER = "before connection.start"
    CREDENTIALS = "while the credentials were fetched"
    LOGIN = "after the login was sent"
    OPENING = "after connection.open was sent"
    DONE = "after the handshake"


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What both sides agreed on.

    channel_max: int -- the highest channel number, 1 to 65535.
    frame_max: int -- the largest frame in bytes, with its 8 bytes of framing.
    heartbeat: int -- seconds, 0 for none.
    """

    channel_max: int
    frame_max: int
    heartbeat: int


def negotiate(parameters: ConnectionParameters, tune: connection.Tune) -> Negotiated:
    """Answer the broker's proposal.

    channel_max and frame_max: the smaller of both, 0 meaning "no limit" to the broker only: RabbitMQ
    drops a client that answers more than it was offered.  heartbeat: ours if we have a wish (0 too),
    else the broker's.  Raises RemoteProtocolError for a frame_max of 1 to 4095.
    """
    if 0 < tune.frame_max < FRAME_MIN_SIZE:
        raise RemoteProtocolError(
            f"the broker proposed frame_max {tune.frame_max}, but the protocol's minimum is {FRAME_MIN_SIZE}", 501
        )
    wish = parameters.heartbeat
    if wish is None:
        heartbeat = tune.heartbeat
    elif callable(wish):
        try:
            heartbeat = wish(tune.heartbeat)
        except Exception as error:
            raise LocalProtocolError(f"the heartbeat callable failed ({type(error).__name__})") from error
        if isinstance(heartbeat, bool) or not isinstance(heartbeat, int) or not 0 <= heartbeat <= 65535:
            raise LocalProtocolError(
                f"the heartbeat callable must return an int from 0 to 65535, not {type(heartbeat).__name__}"
            )
    else:
        heartbeat = wish
    return Negotiated(
        channel_max=min(parameters.channel_max, tune.channel_max or 65535),
        frame_max=min(parameters.frame_max, tune.frame_max or parameters.frame_max),
        heartbeat=heartbeat,
    )


def client_properties(parameters: ConnectionParameters) -> dict[str, Any]:
    """What we say about ourselves in start-ok, the application's entries over ours, key by key.

    Capabilities are merged too: one that the application does not mention keeps its value.
    """
    properties: dict[str, Any] = {
        "product": "txmsg",
        "version": __version__,
        "platform": f"{platform.python_implementation()} {platform.python_version()}",
        "information": "https://pypi.org/project/txmsg/",
        "capabilities": dict(CAPABILITIES),
    }
    if parameters.connection_name is not None:
        properties["connection_name"] = parameters.connection_name
    for key, value in (parameters.client_properties or {}).items():
        if key == "capabilities" and isinstance(value, Mapping):
            properties[key].update(value)
        else:
            properties[key] = value
    return properties


class ClientHandshake:
    """One opening conversation.

    send(method) -- writes a method on channel 0.
    tuned(negotiated) -- called between tune-ok and open: from then on the new limits hold.
    done(negotiated) -- called at open-ok.      failed(error) -- called instead, once.
    is_tls, has_client_certificate, host: what the choice of a SASL mechanism depends on.
    """

    _log = Logger(namespace="txmsg.amqp.handshake")

    def __init__(
        self,
        parameters: ConnectionParameters,
        *,
        host: str,
        is_tls: bool,
        has_client_certificate: bool,
        send: Callable[[Method], None],
        tuned: Callable[[Negotiated], None],
        done: Callable[[Negotiated], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._parameters = parameters
        self._host = host
        self._is_tls = is_tls
        self._has_client_certificate = has_client_certificate
        self._send = send
        self._tuned = tuned
        self._done = done
        self._failed = failed
        self.stage = Stage.HEADER
        self.server_properties: dict[str, Any] = {}
        self._mechanism = ""
        self._credentials: Any = None
        #: What the credentials are being asked for: themselves, or the answer to a challenge.
        self._fetching: Deferred[Any] | None = None
        self._is_over = False
        self._negotiated: Negotiated | None = None

    def receive(self, method: Method) -> None:
        """The broker's next method; the wire's transition table has checked that it may come now."""
        if isinstance(method, connection.Start):
            self._start(method)
        elif isinstance(method, connection.Secure):
            self._secure(method)
        elif isinstance(method, connection.Tune):
            self._tune(method)
        elif isinstance(method, connection.OpenOk):
            self.stage = Stage.DONE
            self._credentials = None
            assert self._negotiated is not None
            self._done(self._negotiated)
        elif isinstance(method, connection.Close):
            self._failed(self.refusal(method))

    def stop(self) -> None:
        """The connection is over; whatever is still being fetched is not wanted any more."""
        self._is_over = True
        fetching, self._fetching = self._fetching, None
        self._credentials = None
        if fetching is not None:
            try:
                fetching.cancel()
            except Exception as error:  # the application's canceller; the end goes on.  Its text may be secret.
                self._log.error("cancelling the fetching of credentials failed ({kind})", kind=type(error).__name__)

    # -- the steps ---------------------------------------------------------------------------------

    def _start(self, start: connection.Start) -> None:
        if (start.version_major, start.version_minor) != (0, 9):
            self._failed(
                IncompatibleProtocol(
                    f"the broker speaks AMQP {start.version_major}-{start.version_minor}, txmsg speaks 0-9-1"
                )
            )
            return
        self.server_properties = start.server_properties
        locale = self._parameters.locale
        offered = start.locales.split()
        if offered and locale not in offered:
            locale = offered[0]
        self.stage = Stage.CREDENTIALS
        self._fetching = fetching = maybeDeferred(self._parameters.get_credentials)
        fetching.addCallback(self._login, start.mechanisms, locale)
        fetching.addErrback(self._no_login)

    def _login(self, credentials: Any, offered: str, locale: str) -> None:
        self._fetching = None
        if self._is_over:
            return
        self._credentials = credentials
        self._mechanism, response = choose_mechanism(
            credentials,
            offered,
            is_tls=self._is_tls,
            has_client_certificate=self._has_client_certificate,
            host=self._host,
            allow_plaintext_auth=self._parameters.allow_plaintext_auth,
        )
        self.stage = Stage.LOGIN
        self._send(
            connection.StartOk(
                client_properties=client_properties(self._parameters),
                mechanism=self._mechanism,
                response=response,
                locale=locale,
            )
        )

    def _no_login(self, failure: Failure) -> None:
        self._fetching = None
        if self._is_over:
            return
        error = failure.value
        if not isinstance(error, TxmsgError):
            # The text of a foreign error may hold what it failed on: a password, a token.
            error = AuthenticationFailed(
                f"the credentials could not be obtained ({type(error).__name__})", 0, initiator="client"
            )
        self._failed(error)

    def _secure(self, secure: connection.Secure) -> None:
        respond = getattr(self._credentials, "respond", None)
        if respond is None:
            self._failed(
                AuthenticationFailed(
                    f"the broker sent a challenge, but SASL {self._mechanism} has no answer to it",
                    0,
                    initiator="client",
                )
            )
            return
        self._fetching = fetching = maybeDeferred(respond, secure.challenge)
        fetching.addCallback(self._answer)
        fetching.addErrback(self._no_login)

    def _answer(self, response: bytes) -> None:
        self._fetching = None
        if not self._is_over:
            self._send(connection.SecureOk(response=response))

    def _tune(self, tune: connection.Tune) -> None:
        try:
            self._negotiated = negotiated = negotiate(self._parameters, tune)
        except TxmsgError as error:
            self._failed(error)
            return
        self._send(
            connection.TuneOk(
                channel_max=negotiated.channel_max,
                frame_max=negotiated.frame_max,
                heartbeat=negotiated.heartbeat,
            )
        )
        self.stage = Stage.OPENING
        self._tuned(negotiated)
        self._send(connection.Open(virtual_host=self._parameters.virtual_host))

    # -- why it failed -----------------------------------------------------------------------------

    def refusal(self, close: connection.Close) -> ConnectionClosed:
        """The error for a connection.close during the handshake."""
        if close.reply_code == 403 and self.stage is Stage.LOGIN:
            return AuthenticationFailed(close.reply_text, close.reply_code)
        if close.reply_code in (402, 403, 530) and self.stage is Stage.OPENING:
            return VirtualHostRefused(close.reply_text, close.reply_code, method_name="connection.open")
        return connection_error(close.reply_code, close.reply_text)

    def lost(self, cause: BaseException | None, got_bytes: bool) -> ConnectionClosed:
        """The error for a socket that closed without a word; the stage tells the probable reason."""
        if self.stage is Stage.LOGIN:
            return AuthenticationFailed(
                f"the broker closed the socket after the login (SASL {self._mechanism}) was sent: "
                "probably it refused the user or the password",
                0,
                initiator="transport",
                cause=cause,
            )
        if self.stage is Stage.OPENING:
            return VirtualHostRefused(
                f"the broker closed the socket after connection.open: probably the virtual host "
                f"{clip(self._parameters.virtual_host)!r} or the tuned limits are not allowed",
                0,
                initiator="transport",
                cause=cause,
            )
        if self.stage is Stage.HEADER and not got_bytes:
            return IncompatibleProtocol(
                "the peer closed the socket without a word: it does not speak AMQP 0-9-1 on this port "
                "(or it expects TLS), or it is shutting down",
                cause=cause,
            )
        return ConnectionLost(f"the connection was lost {self.stage.value}", cause=cause)

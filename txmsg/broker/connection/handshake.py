"""The opening conversation, from the server's side, as an object of its own.

    C: protocol header      S: connection.start
    C: start-ok             S: tune, or close 403 (later, so that guessing takes time)
    C: tune-ok, open        S: open-ok, or close 530

AMQP 0-9-1 section 2.2.4; what is answered to what is not in order, and the texts, as RabbitMQ does it: before the
login silence, for a client may be anything; after it connection.close with the reason.  It ends once, with the
connection open or over; nothing else in the package knows a half-open connection.
"""

from __future__ import annotations

import platform
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg import __version__
from txmsg.broker import faults
from txmsg.broker.users.authentication import LoginRefused, authenticate, offered_mechanisms
from txmsg.broker.users.credentials import User
from txmsg.errors import clip
from txmsg.wire.constants import ACCESS_REFUSED, NOT_ALLOWED, PROTOCOL_HEADER
from txmsg.wire.layout import Method
from txmsg.wire.methods import connection

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection

__all__ = ["CAPABILITIES", "PROTOCOL_HEADER_0_9", "ServerHandshake", "Stage", "server_properties"]

#: What AMQP 0-9 clients open the stream with; RabbitMQ takes it for 0-9-1, which it is in all that matters.
PROTOCOL_HEADER_0_9: Final = b"AMQP\x01\x01\x00\x09"

#: The extensions we have: RabbitMQ's, all of them.
CAPABILITIES: Final[dict[str, bool]] = {
    "publisher_confirms": True,
    "exchange_exchange_bindings": True,
    "basic.nack": True,
    "consumer_cancel_notify": True,
    "connection.blocked": True,
    "consumer_priorities": True,
    "authentication_failure_close": True,
    "per_consumer_qos": True,
    "direct_reply_to": True,
}


def server_properties(cluster_name: str) -> dict[str, Any]:
    """What we say of ourselves in connection.start; the keys are RabbitMQ's."""
    return {
        "capabilities": dict(CAPABILITIES),
        "cluster_name": cluster_name,
        "copyright": "The txmsg developers",
        "information": "https://pypi.org/project/txmsg/",
        "platform": f"{platform.python_implementation()} {platform.python_version()}",
        "product": "txmsg",
        "version": __version__,
    }


class Stage(Enum):
    """How far the conversation has come; the value says it in words."""

    HEADER = "before the protocol header"
    LOGIN = "before the login"
    CHECKING = "while the login was checked"
    REFUSED = "after the login was refused"
    TUNING = "before tune-ok"
    OPENING = "before connection.open"
    DONE = "after the handshake"


class ServerHandshake:
    """One opening conversation of `owner`."""

    _log = Logger(namespace="txmsg.broker.connection.handshake")

    def __init__(self, owner: BrokerConnection) -> None:
        self._connection = owner
        self.stage = Stage.HEADER
        self._certificate_name: str | None = None
        self._is_over = False
        self._checking: Deferred[User] | None = None
        self._delayed: IDelayedCall | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether the client has logged in, so that it is told what it does wrong."""
        return self.stage in (Stage.TUNING, Stage.OPENING, Stage.DONE)

    def end(self) -> None:
        """The connection is over: nothing waits any more."""
        self._is_over = True
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
        delayed, self._delayed = self._delayed, None
        if delayed is not None and delayed.active():
            delayed.cancel()

    # -- what comes in -------------------------------------------------------------------------------------

    def header_received(self, raw: bytes) -> None:
        """The first eight octets; what is not AMQP 0-9-1 gets ours in answer, and the end."""
        if raw != PROTOCOL_HEADER:
            self._log.info(
                "{connection}: refused, the first octets are {raw!r}", connection=self._connection.name, raw=raw
            )
            self._connection.write(PROTOCOL_HEADER)
            self._connection.end_quietly()
            return
        self.stage = Stage.LOGIN
        self._certificate_name = self._connection.certificate_name()
        self._connection.send(
            connection.Start(
                version_major=0,
                version_minor=9,
                server_properties=server_properties(self._connection.broker.name),
                mechanisms=" ".join(offered_mechanisms(self._certificate_name)),
                locales="en_US",
            )
        )

    def method_received(self, method: Method) -> None:
        """A method on channel 0; the wire has checked that it is one of those whose turn it is."""
        if isinstance(method, connection.StartOk):
            self._start_ok(method)
        elif isinstance(method, connection.TuneOk):
            self._tune_ok(method)
        elif isinstance(method, connection.Open):
            self._open(method)

    # -- the login -----------------------------------------------------------------------------------------

    def _start_ok(self, start_ok: connection.StartOk) -> None:
        here = self._connection
        here.learn_client(start_ok.client_properties)
        mechanism = start_ok.mechanism
        if mechanism not in offered_mechanisms(self._certificate_name):
            self._refused(Failure(LoginRefused(f"unknown authentication mechanism {clip(mechanism)!r}")), mechanism)
            return
        here.auth_mechanism = mechanism
        self.stage = Stage.CHECKING
        # Whatever it sends before it has its answer can wait in the kernel.
        here.pause_reading(self)
        self._checking = checking = authenticate(
            here.broker.users, mechanism, start_ok.response, here.peer_host, self._certificate_name
        )
        start_ok.response = b""
        checking.addCallbacks(self._accepted, self._refused, errbackArgs=(mechanism,))
        checking.addErrback(self._failed)

    def _accepted(self, user: User) -> None:
        self._checking = None
        if self._is_over:
            return
        here, limits = self._connection, self._connection.limits
        here.logged_in(user)
        self.stage = Stage.TUNING
        here.send(connection.Tune(channel_max=limits.channels, frame_max=limits.frame_max, heartbeat=limits.heartbeat))
        here.resume_reading(self)

    def _refused(self, failure: Failure, mechanism: str) -> None:
        self._checking = None
        if self._is_over:
            return
        failure.trap(LoginRefused)
        here = self._connection
        self.stage = Stage.REFUSED
        here.pause_reading(self)
        delay = here.login_refused()
        self._log.warn(
            "{connection}: login refused: {reason}; told so in {delay} s",
            connection=here.name,
            reason=str(failure.value),
            delay=delay,
        )
        self._delayed = here.clock.callLater(delay, self._tell_refused, mechanism)

    def _tell_refused(self, mechanism: str) -> None:
        self._delayed = None
        here = self._connection
        here.resume_reading(self)
        if here.capabilities.get("authentication_failure_close") is True:
            here.close_with(
                faults.fault(
                    ACCESS_REFUSED,
                    f"Login was refused using authentication mechanism {clip(mechanism)}. "
                    "For details see the broker logfile.",
                    closes_connection=True,
                )
            )
        else:
            here.end_quietly()

    def _failed(self, failure: Failure) -> None:
        """A defect of ours, not of the client."""
        if not self._is_over:
            self._log.failure("a login could not be checked", failure)
            self._connection.end_quietly()

    # -- tuning and opening --------------------------------------------------------------------------------

    def _tune_ok(self, tune_ok: connection.TuneOk) -> None:
        here, limits = self._connection, self._connection.limits
        # The wire has refused a frame_max below the specification's minimum.
        problem = _beyond("frame_max", tune_ok.frame_max, limits.frame_max) or _beyond(
            "channel_max", tune_ok.channel_max, limits.channels
        )
        if problem:
            here.close_with(faults.fault(NOT_ALLOWED, problem), connection.TuneOk)
            return
        self.stage = Stage.OPENING
        here.tuned(tune_ok.channel_max, tune_ok.frame_max, tune_ok.heartbeat)

    def _open(self, open_: connection.Open) -> None:
        here = self._connection
        name = open_.virtual_host
        vhost = here.broker.vhosts.get(name)
        if vhost is None:
            here.close_with(faults.vhost_missing(name), connection.Open)
            return
        user = here.user
        permissions = here.broker.users.permissions(user.name, name)
        if permissions is None:
            here.close_with(faults.vhost_refused(name, user.name), connection.Open)
            return
        self.stage = Stage.DONE
        here.opened(vhost, permissions)
        here.send(connection.OpenOk())


def _beyond(what: str, value: int, highest: int) -> str:
    """Why a tuned value cannot be accepted, in RabbitMQ's words; 0 from a client means no limit."""
    if highest and not value:
        return f"negotiated {what} = 0 (no limit) is higher than the maximum allowed value ({highest})"
    if highest and value > highest:
        return f"negotiated {what} = {value} is higher than the maximum allowed value ({highest})"
    return ""

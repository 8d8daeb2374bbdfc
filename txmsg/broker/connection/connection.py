"""BrokerConnection: one client, from the accepted socket to its end.

    accepted -> handshake -> open -> closing -> gone

AMQP 0-9-1 sections 1.4 and 2.2.4.  Channel 0 is handled here, everything else by the channel it is for.  Invariants:

- No sequence of octets gets further than this connection (R36): what the wire refuses, and what fails in us, ends it.
- Events are worked off in order, one by one, and only while nothing pauses reading: after `pause_reading(who)` no
  further event reaches any channel until `resume_reading(who)`.
- However it ends, its channels are closed and its exclusive queues deleted before the client can know.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.abstract import FileDescriptor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.amqp.heartbeat import HeartbeatMonitor
from txmsg.amqp.protocol import READ_SIZE
from txmsg.broker import faults
from txmsg.broker.addresses import host_of, port_of
from txmsg.broker.channel import ServerChannel
from txmsg.broker.connection.blocking import Blocking
from txmsg.broker.connection.flow import ConnectionFlow
from txmsg.broker.connection.handshake import PROTOCOL_HEADER_0_9, ServerHandshake, Stage
from txmsg.broker.connection.violations import answer_to, text_problem
from txmsg.broker.faults import Fault
from txmsg.broker.tls import peer_name
from txmsg.broker.users.credentials import User
from txmsg.broker.users.permissions import Permissions
from txmsg.errors import EncodeError, LocalProtocolError, clip
from txmsg.wire.constants import FRAME_ERROR, PROTOCOL_HEADER
from txmsg.wire.events import ContentRefused, MethodReceived, ProtocolFailure, ProtocolHeaderReceived
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, connection

if TYPE_CHECKING:
    from txmsg.broker.server import Broker
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["BrokerConnection"]

#: Seconds that a client gets to answer connection.close, and to take the last octets.
CLOSE_TIMEOUT: Final = 5.0

#: Octets read from the socket at once before the login (R36).
UNTRUSTED_READ_SIZE: Final = 8192

#: A connection.close-ok frame, which is looked for in octets that are no longer read.
_CLOSE_OK: Final = b"\x01\x00\x00\x00\x00\x00\x04\x00\x0a\x00\x33\xce"


class BrokerConnection(ConnectionFlow):
    """One client's connection; made by the broker's factory.

    broker: Broker.
    name: str -- "127.0.0.1:50123 -> 127.0.0.1:5672", as RabbitMQ names connections.
    peer_host, peer_port, host, port -- of both ends; :data:`~txmsg.broker.addresses.LOCAL` and 0 where there is none.
    user, vhost, permissions -- None until the login and connection.open.
    capabilities, client_properties: dict -- what the client said of itself.
    channels: dict -- number -> :class:`~txmsg.broker.channel.ServerChannel`.
    connected_at: float -- seconds since the epoch.
    octets_received, octets_sent: int.
    gone: Deferred -- fires with None when the socket is closed.
    """

    _log = Logger(namespace="txmsg.broker.connection.connection")

    channels: dict[int, ServerChannel]

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.host = self.peer_host = ""
        self.port = self.peer_port = 0
        self.connected_at = 0.0
        self.is_tls = False
        self.auth_mechanism = ""
        self.client_properties: dict[str, Any] = {}
        self.capabilities: dict[str, Any] = {}
        self.user: User = None  # type: ignore[assignment]  # whoever asks before the login is in this file
        self.vhost: VirtualHost = None  # type: ignore[assignment]
        self.permissions: Permissions = None  # type: ignore[assignment]
        self.gone: Deferred[None] = Deferred()
        self.handshake = ServerHandshake(self)
        self.blocking = Blocking(self, broker.alarms, self._tell_blocked)
        #: The one time limit that runs: of the handshake, of the close.
        self._timer: IDelayedCall | None = None
        self._first_octets = b""
        self._is_closing = False
        self._is_released = False
        self._is_entered = False

    # -- what others ask -----------------------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether the handshake is done and the end has not begun."""
        return self.handshake.stage is Stage.DONE and not self._is_closing

    @property
    def is_closing(self) -> bool:
        """Whether the end has begun."""
        return self._is_closing

    @property
    def state(self) -> str:
        """One of RabbitMQ's words: starting, tuning, opening, running, blocked, closing."""
        if self._is_closing:
            return "closing"
        if self.blocking.is_blocked:
            return "blocked"
        words = {Stage.TUNING: "tuning", Stage.OPENING: "opening", Stage.DONE: "running"}
        return words.get(self.handshake.stage, "starting")

    @property
    def channel_max(self) -> int:
        """The highest channel number agreed on; 0 before that."""
        return self.wire.channel_max

    @property
    def frame_max(self) -> int:
        """Octets of the largest frame agreed on."""
        return self.wire.frame_max

    @property
    def heartbeat_interval(self) -> int:
        """Seconds agreed on, 0 for none."""
        return 0 if self.heartbeat is None else int(self.heartbeat.interval)

    def certificate_name(self) -> str | None:
        """Whom the verified client certificate names; None without one."""
        return peer_name(self.transport)

    def __repr__(self) -> str:
        return f"<BrokerConnection {self.name}: {self.state}>"

    # -- accepted ------------------------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Twisted: the socket is accepted (under TLS: not yet secure)."""
        super().connectionMade()
        transport: Any = self.transport
        if isinstance(transport, FileDescriptor):
            transport.bufferSize = UNTRUSTED_READ_SIZE
        keep_alive = getattr(transport, "setTcpKeepAlive", None)
        if keep_alive is not None:
            # Without heartbeats nothing else tells that a client's machine is gone.
            with contextlib.suppress(AttributeError, OSError):
                keep_alive(True)
        peer, here = transport.getPeer(), transport.getHost()
        self.peer_host, self.peer_port = host_of(peer), port_of(peer)
        self.host, self.port = host_of(here), port_of(here)
        self.name = f"{self.peer_host}:{self.peer_port} -> {self.host}:{self.port}"
        self.is_tls = hasattr(transport, "getPeerCertificate")
        self.connected_at = time.time()
        self._is_entered = True
        self.broker.connections.add(self)
        script = self.broker.script
        if script is not None and not script.accepted(self):
            self.broker.admission.enter(self, self.peer_host, self._admitted)
            self.abort_transport()
            return
        self._timer = self.clock.callLater(self.limits.handshake_timeout, self._handshake_took_too_long)
        if not self.broker.admission.enter(self, self.peer_host, self._admitted):
            self.pause_reading(self.broker.admission)

    def _admitted(self) -> None:
        self.resume_reading(self.broker.admission)

    def _handshake_took_too_long(self) -> None:
        self._timer = None
        self._log.info(
            "{connection}: closed {stage}, after {seconds} s",
            connection=self.name,
            stage=self.handshake.stage.value,
            seconds=self.limits.handshake_timeout,
        )
        self.abort_transport()

    # -- the handshake's part ------------------------------------------------------------------------------

    def learn_client(self, properties: dict[str, Any]) -> None:
        """What the client says of itself."""
        self.client_properties = properties
        capabilities = properties.get("capabilities")
        self.capabilities = capabilities if isinstance(capabilities, dict) else {}

    def logged_in(self, user: User) -> None:
        """The login was right."""
        self.user = user
        self.broker.login_delays.succeeded(self.peer_host)
        self.broker.admission.judged(self)
        if isinstance(self.transport, FileDescriptor):
            self.transport.bufferSize = READ_SIZE

    def login_refused(self) -> float:
        """The login was wrong: the seconds after which to say so.  The time limit of the handshake ends here."""
        self._stop_timer()
        delay = self.broker.login_delays.failed(self.peer_host)
        self.broker.admission.judged(self)
        return delay

    def tuned(self, channel_max: int, frame_max: int, heartbeat: int) -> None:
        """Both sides have agreed on the limits, which are within ours."""
        self.wire.set_tuned(channel_max, frame_max)
        self.heartbeat = HeartbeatMonitor(heartbeat, self.clock, self._send_heartbeat, self._peer_is_dead)
        self.heartbeat.start()

    def opened(self, vhost: VirtualHost, permissions: Permissions) -> None:
        """The connection is open."""
        self._stop_timer()
        self.vhost = vhost
        self.permissions = permissions
        self._log.info(
            "{connection}: user {user!r} has opened the virtual host {vhost!r}",
            connection=self.name,
            user=permissions.user,
            vhost=vhost.name,
        )

    def _send_heartbeat(self) -> None:
        self.write(self.wire.heartbeat())

    def _peer_is_dead(self) -> None:
        self.end_at_once("missed heartbeats from client")

    # -- what comes in -------------------------------------------------------------------------------------

    def octets_in(self, data: bytes) -> bytes | None:
        """What of `data` the wire is to read; None for nothing."""
        if self._is_closing:
            self._closing_data_received(data)
            return None
        return self._translated(data) if self.handshake.stage is Stage.HEADER else data

    def _translated(self, data: bytes) -> bytes:
        """The stream's first octets, with the header of AMQP 0-9 replaced by that of 0-9-1."""
        if not self._first_octets and data.startswith(PROTOCOL_HEADER[:5]):
            return data
        data = self._first_octets + data
        self._first_octets = b""
        if data.startswith(PROTOCOL_HEADER_0_9):
            return PROTOCOL_HEADER + data[len(PROTOCOL_HEADER_0_9) :]
        if PROTOCOL_HEADER_0_9.startswith(data):
            self._first_octets = data
            return b""
        return data

    def event_received(self, event: Any) -> None:
        """What is no content and no acknowledgement."""
        if isinstance(event, MethodReceived):
            if problem := text_problem(event.method):
                self._malformed_text(event, problem)
            elif event.channel:
                self._channel_method(event.channel, event.method)
            else:
                self._connection_method(event.method)
        elif isinstance(event, ProtocolFailure):
            self._protocol_failure(event)
        elif isinstance(event, ContentRefused):
            self._content_refused(event.channel, event.size)
        elif isinstance(event, ProtocolHeaderReceived):
            self.handshake.header_received(event.raw)

    def _channel_method(self, number: int, method: Method) -> None:
        if self._is_closing:
            return
        script = self.broker.script
        fault = None if script is None else script.method_received(self, number, method)
        receiver = self.channels.get(number)
        if fault is not None and (fault.closes_connection or receiver is None):
            self.close_with(fault, type(method))
        elif isinstance(method, channel.Open):
            self._open_channel(number, receiver)
        elif receiver is not None and fault is None:
            receiver.method_received(method)
        elif receiver is not None and fault is not None:
            receiver.refuse(fault, type(method))

    def _open_channel(self, number: int, predecessor: ServerChannel | None) -> None:
        if predecessor is not None:
            predecessor.closed()
        self.channels[number] = ServerChannel(self, number)
        # The wire may know of a close further down in the same octets.
        with contextlib.suppress(LocalProtocolError):
            self.write(self.wire.send_method(number, channel.OpenOk()))

    def _connection_method(self, method: Method) -> None:
        if isinstance(method, connection.Close):
            self._close_received(method)
            return
        if isinstance(method, connection.CloseOk):
            self._finish()
            return
        if self._is_closing:
            return
        if self.handshake.stage is not Stage.DONE:
            self.handshake.method_received(method)
            return
        script = self.broker.script
        fault = None if script is None else script.method_received(self, 0, method)
        if fault is not None:
            self.close_with(fault, type(method))
        elif isinstance(method, connection.UpdateSecret):
            # Our passwords do not expire, so any new one will do: as RabbitMQ's internal users.
            self.send(connection.UpdateSecretOk())

    def _protocol_failure(self, failure: ProtocolFailure) -> None:
        self._log.warn("{connection}: {problem}", connection=self.name, problem=clip(str(failure.error)))
        if self.handshake.is_trusted:
            self.close_with(*answer_to(failure, self.wire.channel_max, self.state))
        else:
            self.end_quietly()

    def _malformed_text(self, event: MethodReceived, problem: str) -> None:
        if self.handshake.is_trusted:
            refusal = faults.fault(FRAME_ERROR, problem, closes_connection=True)
            self.close_with(refusal, None if event.channel else type(event.method))
        else:
            self.end_quietly()

    def _content_refused(self, number: int, size: int) -> None:
        """A body that is too large; the wire has not kept it, and waits for the channel's close."""
        receiver = self.channels.get(number)
        if receiver is not None:
            receiver.refuse(faults.message_too_large(size, self.limits.max_message_size), basic.Publish)

    # -- writing -------------------------------------------------------------------------------------------

    def send(self, method: Method) -> None:
        """Write a method on channel 0; nothing happens where the connection's end does not allow it any more."""
        try:
            self.write(self.wire.send_method(0, method))
        except LocalProtocolError:
            # The client's close has been read, and is behind what is handled now.
            return
        except EncodeError:
            self._log.failure("{connection}: {method} cannot be sent", connection=self.name, method=method.NAME)

    def writable_again(self) -> None:
        """Deliveries may go on."""
        for open_channel in list(self.channels.values()):
            open_channel.writable_again()

    # -- blocked -------------------------------------------------------------------------------------------

    def publishing_started(self) -> None:
        """There is a publish, or the beginning of one: it waits while an alarm is on."""
        if self.is_open:
            self.blocking.publishing()

    def _tell_blocked(self, reason: str | None) -> None:
        if self.capabilities.get("connection.blocked") is True and self.is_open:
            self.send(connection.Unblocked() if reason is None else connection.Blocked(reason=reason))

    # -- the end -------------------------------------------------------------------------------------------

    def channel_ended(self, number: int) -> None:
        """A channel is closed; its number may be used again."""
        self.channels.pop(number, None)

    def close_with(self, fault: Fault, cause: type[Method] | None = None) -> None:
        """Close the connection because of `fault`; `cause` is the method that is to blame, if one is."""
        if self._is_closing or not self._is_connected:
            return
        self._log.info(
            "{connection}: closed with {code}, {text}",
            connection=self.name,
            code=fault.reply_code,
            text=clip(fault.reply_text),
        )
        self._begin_end()
        self.send(
            connection.Close(
                reply_code=fault.reply_code,
                reply_text=fault.reply_text,
                class_id=0 if cause is None else cause.CLASS_ID,
                method_id=0 if cause is None else cause.METHOD_ID,
            )
        )

    def end_quietly(self) -> None:
        """Close the socket without a word, once everything written has left."""
        if not self._is_closing and self._is_connected:
            self._begin_end()
            self._finish()

    def _finish(self) -> None:
        """Close the socket once everything written has left; the timer of the close sees to it that it ends."""
        if self._is_connected:
            self.finish_transport()

    def end_at_once(self, why: str) -> None:
        """Close the socket now."""
        self._log.info("{connection}: dropped, {why}", connection=self.name, why=why)
        self.abort_transport()

    def drop(self, reason: BaseException) -> None:
        """End at once because of `reason`."""
        self.end_at_once(clip(str(reason)))

    def _begin_end(self) -> None:
        """From here on nothing of the client's is done any more; what it held is free."""
        self._is_closing = True
        self._held = [event for event in self._held if _is_close(event)]
        self._release()
        self._stop_timer()
        self._timer = self.clock.callLater(CLOSE_TIMEOUT, self.abort_transport)
        if self._reading_pauses and self._is_connected:
            self._reading_pauses.clear()
            self._read_again()

    def _close_received(self, close: connection.Close) -> None:
        self._log.info(
            "{connection}: closed by the client with {code}, {text!r}",
            connection=self.name,
            code=close.reply_code,
            text=clip(close.reply_text),
        )
        if not self._is_closing:
            self._begin_end()
        self.send(connection.CloseOk())
        if self._is_connected:
            self.finish_writing()

    def _closing_data_received(self, data: bytes) -> None:
        """While we wait for close-ok.  After a violation the wire reads no more, so it is looked for in the octets."""
        for event in self.wire.receive(data):
            if isinstance(event, MethodReceived) and _is_close(event):
                self._connection_method(event.method)
        if data.endswith(_CLOSE_OK):
            self._finish()

    def _release(self) -> None:
        """Close the channels and delete the exclusive queues; once."""
        if self._is_released:
            return
        self._is_released = True
        self.handshake.end()
        self.release_flow()
        channels = list(self.channels.values())
        self.channels.clear()
        for open_channel in channels:
            self._guarded(open_channel.closed)
        if self.vhost is not None:
            vhost = self.vhost
            self._guarded(lambda: vhost.owner_gone(self))

    def _guarded(self, step: Any) -> None:
        try:
            step()
        except Exception:
            self._log.failure("{connection}: an error while it ended", connection=self.name)

    def _stop_timer(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None and timer.active():
            timer.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Twisted: the socket is closed."""
        was_open = self.is_open
        self._is_closing = True
        self._held = []
        super().connectionLost(reason)
        self.broker.unsent.remove(self)
        self._stop_timer()
        self._release()
        if self._is_entered:
            self._is_entered = False
            self.broker.connections.discard(self)
            self.broker.admission.leave(self, self.peer_host)
        if was_open:
            self._log.info("{connection}: the client closed the socket without connection.close", connection=self.name)
        script = self.broker.script
        lost = None if script is None else getattr(script, "connection_lost", None)
        if lost is not None:
            lost(self)
        if not self.gone.called:
            self.gone.callback(None)


def _is_close(event: Any) -> bool:
    return isinstance(event, MethodReceived) and isinstance(event.method, connection.Close | connection.CloseOk)

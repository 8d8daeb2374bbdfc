"""WireProtocol: bytes in and out of a Twisted transport, for either role of AMQP 0-9-1.

In: `dataReceived` feeds the wire connection and hands each event on, content by channel number, the
rest to `event_received`.  Out: `write` and `write_all`.  In between the flow of bytes is kept in bounds:

- The transport tells us when its buffer is above its mark (READ_SIZE); from then on we write at most
  WRITE_AHEAD bytes more, and then publishes are held (`can_publish` is False) until it is empty again.
- Reading can be paused by any number of consumers; it goes on when the last of them agrees.

Publishes and acks are not written one by one but together, at the end of the reactor turn: that saves most
of the transport's work, and lets many acks leave as one.
"""

from __future__ import annotations

import contextlib
import threading
from typing import Any
from typing import Protocol as TypingProtocol

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txmsg.amqp.heartbeat import HeartbeatMonitor
from txmsg.errors import ConnectionLost, WrongThread
from txmsg.wire.connection import Limits, Role, WireConnection

__all__ = ["AckWriter", "WireProtocol", "check_thread"]

#: How much Twisted reads from the socket at once, and how much it offers it: its 64 and 128 KiB make a round through
#: the reactor for every large body.  (From 384 KiB on, the memory of each read comes fresh from the system.)
READ_SIZE = 256 * 1024
SEND_SIZE = 512 * 1024

#: Output is handed to the transport when this many bytes have gathered, at the latest.
FLUSH_SIZE = 64 * 1024

#: How many bytes are still written after the transport said that its buffer is full.
WRITE_AHEAD = 1024 * 1024

#: The same, when large bodies are among what is written.
WRITE_AHEAD_LARGE = 96 * 1024


def check_thread(thread_id: int) -> None:
    """Raise WrongThread unless this is that thread."""
    if threading.get_ident() != thread_id:
        raise WrongThread(
            "txmsg may only be called in the reactor's thread; from another thread use "
            "reactor.callFromThread(f, ...), or twisted.internet.threads.blockingCallFromThread "
            "to wait for the result"
        )


class AckWriter(TypingProtocol):
    """A channel that collects acks."""

    def flush_acks(self) -> None:
        """Write the acks given in this reactor turn."""


def _reactor_or_default(reactor: Any = None) -> Any:
    """The reactor given, or the installed one: imported here, so that importing txmsg installs none."""
    if reactor is None:
        from twisted.internet import reactor as installed

        return installed
    return reactor


@implementer(IPushProducer)
class WireProtocol(Protocol):
    """The part of a connection that does not know which side it is.

    role: Role; limits: Limits -- for the wire connection.
    reactor -- an IReactorTime provider; default: the installed reactor, imported when it is needed.
    """

    _log = Logger(namespace="txmsg.amqp.protocol")

    def __init__(self, role: Role, limits: Limits, reactor: Any = None) -> None:
        self.reactor: Any = _reactor_or_default(reactor)
        self.clock: IReactorTime = self.reactor
        self.wire = WireConnection(role, limits)
        self.heartbeat: HeartbeatMonitor | None = None
        #: Open and opening channels, by channel number.
        self.channels: dict[int, Any] = {}
        #: False while publishes have to be held.
        self.can_publish = True
        self.thread_id = threading.get_ident()
        self._is_paused = False
        self._is_writable = True
        self._written_ahead = 0
        #: What was written in this turn and has not been handed to the transport.
        self._output: list[bytes] = []
        self._output_size = 0
        self._has_large_output = False
        #: Whether the transport is a socket itself, and nothing like TLS in between.
        self._sends_at_once = False
        self._reading_pauses: set[object] = set()
        self._is_dispatching = False
        self._to_flush: list[AckWriter] = []
        self._flush_call: IDelayedCall | None = None
        self._is_connected = False

    # -- threads -----------------------------------------------------------------------------------

    def check_thread(self) -> None:
        """Raise WrongThread unless this is the thread the connection was made in."""
        check_thread(self.thread_id)

    # -- the transport -----------------------------------------------------------------------------

    def connectionMade(self) -> None:
        """Twisted: the transport is there (under TLS: not yet secure)."""
        self.thread_id = threading.get_ident()
        self._is_connected = True
        set_no_delay = getattr(self.transport, "setTcpNoDelay", None)
        if set_no_delay is not None:
            # A stream that is not TCP has no delay to switch off.
            with contextlib.suppress(AttributeError, OSError):
                set_no_delay(True)
        if isinstance(self.transport, FileDescriptor):
            self.transport.bufferSize = READ_SIZE
            self.transport.SEND_LIMIT = SEND_SIZE
            self._sends_at_once = True
        self.transport.registerProducer(self, True)  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        """Twisted: some bytes, cut anywhere."""
        monitor = self.heartbeat
        if monitor is not None:
            monitor.last_received = monitor.now()
        channels = self.channels
        self._is_dispatching = True
        try:
            for event in self.wire.receive(data):
                if type(event) is tuple:
                    channel = channels.get(event[1])
                    if channel is not None:
                        channel.content_received(event)
                else:
                    self.event_received(event)
        except Exception as error:
            # Handlers are guarded one by one; what gets here is a defect, and the state is unknown.
            self._log.failure("unexpected error while handling received data; the connection is dropped")
            self.drop(ConnectionLost("an internal error of txmsg", cause=error))
        finally:
            if self._to_flush:
                self._flush()
            self._is_dispatching = False
            if self._output:
                self.flush_output()

    def event_received(self, event: Any) -> None:
        """A rare event of txmsg.wire.events; for the subclass."""
        raise NotImplementedError(f"{type(self).__name__} must handle {event!r}")

    def drop(self, reason: BaseException) -> None:
        """End the connection at once because of `reason`; the subclass tells whoever waits."""
        self.abort_transport()

    def abort_transport(self) -> None:
        """Close the socket without waiting for unsent bytes."""
        self._is_connected = False
        transport: Any = self.transport
        if transport is None:
            return
        abort = getattr(transport, "abortConnection", None)
        if abort is not None:
            abort()
        else:
            self._unregister()
            transport.loseConnection()

    def finish_transport(self) -> None:
        """Close the socket once everything written has left."""
        self.flush_output()
        self._is_connected = False
        self._unregister()
        self.transport.loseConnection()  # type: ignore[union-attr]

    def _unregister(self) -> None:
        # A registered producer keeps loseConnection waiting.
        self.transport.unregisterProducer()  # type: ignore[union-attr]

    # -- writing -----------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Write one piece, behind all that was written before; nothing happens once the connection is over."""
        if self._is_connected:
            self._output.append(data)
            self._output_size += len(data)
            if not self._is_dispatching:
                self.flush_output()

    def write_all(self, parts: list[bytes]) -> None:
        """Write the frames of one message in one piece, at the end of this turn or when enough has gathered."""
        output = self._output
        if not output and self._flush_call is None and not self._is_dispatching:
            self._flush_call = self.clock.callLater(0, self._flush)
        output += parts
        if len(parts) == 1:
            self._output_size += len(parts[0])
            if self._output_size < FLUSH_SIZE:
                return
        else:
            # A large body: hand it on at once, and let the next one wait until it has left.  A buffer of
            # many of them would be copied once more by the transport, out of the processor's caches.
            self._output_size += sum(map(len, parts))
            self._has_large_output = True
        self.flush_output()

    def flush_output(self) -> None:
        """Hand what has gathered to the transport, in one write."""
        output, size = self._output, self._output_size
        if not output:
            return
        self._output, self._output_size = [], 0
        if not self._is_connected:
            return
        if size < FLUSH_SIZE * 2 and not self._has_large_output:
            self.transport.write(output[0] if len(output) == 1 else b"".join(output))  # type: ignore[union-attr]
            if self._sends_at_once and not self._is_paused:
                self._send_at_once()
        else:
            self.transport.writeSequence(output)  # type: ignore[union-attr]  # large bodies are not copied here
        if self._is_paused:
            self._written_ahead += size
            limit = WRITE_AHEAD_LARGE if self._has_large_output else WRITE_AHEAD
            if self._is_writable and self._written_ahead >= limit:
                self._is_writable = False
                self._update_gate()
        self._has_large_output = False

    def _send_at_once(self) -> None:
        """Not only when the reactor has found out that the socket takes it, a turn later: a request and its reply are
        40 us sooner at their ends.  What goes wrong is found again, and told, by the reactor.
        """
        transport: Any = self.transport
        # What a full socket has left over is for the reactor: each try would copy all of that, and be refused.
        if not transport.disconnecting and not transport.dataBuffer:
            transport.doWrite()

    @property
    def written_ahead(self) -> int:
        """Octets that were written since the transport has said that its buffer is full."""
        return self._written_ahead

    def _update_gate(self) -> None:
        self.can_publish = self._is_writable

    def pauseProducing(self) -> None:
        """Twisted: the transport's buffer is above its high-water mark."""
        self._is_paused = True

    def resumeProducing(self) -> None:
        """Twisted: the transport's buffer is empty again."""
        self._is_paused = False
        self._written_ahead = 0
        if not self._is_writable:
            self._is_writable = True
            self._update_gate()
            self.writable_again()

    def stopProducing(self) -> None:
        """Twisted: the transport is gone; connectionLost follows."""

    def writable_again(self) -> None:
        """The transport takes more; for the subclass to write what it held."""

    # -- flushing at the end of the turn ----------------------------------------------------------

    def flush_soon(self, channel: AckWriter) -> None:
        """Call `channel.flush_acks()` at the end of this reactor turn."""
        if self._flush_call is None and not self._is_dispatching:
            self._flush_call = self.clock.callLater(0, self._flush)
        self._to_flush.append(channel)

    def _flush(self) -> None:
        """The end of a turn: the acks given in it, then all that has gathered."""
        call, self._flush_call = self._flush_call, None
        if call is not None and call.active():
            call.cancel()
        if self._to_flush:
            channels, self._to_flush = self._to_flush, []
            for channel in channels:
                channel.flush_acks()
        self.flush_output()

    # -- reading -----------------------------------------------------------------------------------

    def pause_reading(self, who: object) -> None:
        """Read nothing more from the socket until `who` (and everybody else who paused) resumes."""
        self._reading_pauses.add(who)
        if len(self._reading_pauses) == 1 and self._is_connected:
            if self.heartbeat is not None:
                self.heartbeat.reading_paused = True
            self.transport.pauseProducing()  # type: ignore[union-attr]

    def resume_reading(self, who: object) -> None:
        """`who` can take more."""
        self._reading_pauses.discard(who)
        if not self._reading_pauses and self._is_connected:
            if self.heartbeat is not None:
                self.heartbeat.reading_paused = False
            self.transport.resumeProducing()  # type: ignore[union-attr]

    @property
    def is_reading_paused(self) -> bool:
        """Whether a consumer with too much on its hands keeps us from reading."""
        return bool(self._reading_pauses)

    # -- the end -----------------------------------------------------------------------------------

    def release_timers(self) -> None:
        """Stop the heartbeat and the pending flush; nothing is left on the clock."""
        self._to_flush.clear()
        call, self._flush_call = self._flush_call, None
        if call is not None and call.active():
            call.cancel()
        if self.heartbeat is not None:
            self.heartbeat.stop()
            self.heartbeat = None

    def connectionLost(self, reason: Failure = Failure(ConnectionLost())) -> None:  # noqa: B008
        """Twisted: the socket is closed."""
        self._is_connected = False
        self._reading_pauses.clear()
        self.release_timers()

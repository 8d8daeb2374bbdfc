"""The single faults that a test can set; :class:`txmsg.testing.faults.Faults` makes them and asks them.

A fault that changes the stream of a connection has a :class:`_Stream` for each direction of each connection.  What it
lets through later goes straight to the broker or to the transport, past all other faults.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

from twisted.internet.interfaces import IDelayedCall

from txmsg.broker.faults import Fault
from txmsg.wire.constants import PROTOCOL_HEADER

if TYPE_CHECKING:
    from txmsg.broker.connection.connection import BrokerConnection
    from txmsg.wire.methods import Method

__all__ = ["Cut", "Delay", "Meter", "PublishFault", "Refusal", "RefusedMethod", "ScriptedFault", "Stall"]

#: Octets that a stalled connection keeps for later; beyond it the connection is dropped.
_KEPT: Final = 16 * 1024 * 1024

_FRAME_OVERHEAD: Final = 8


class ScriptedFault:
    """Something that goes wrong until it has happened `times` times, or :meth:`stop`; also a context manager.

    count: int -- how often it has happened.
    times: int | None -- how often it is to happen; None: until it is stopped.
    """

    def __init__(self, ended: Callable[[ScriptedFault], object], times: int | None) -> None:
        self.count = 0
        self.times = times
        self._ended: Callable[[ScriptedFault], object] | None = ended

    @property
    def is_active(self) -> bool:
        """Whether it can still happen."""
        return self._ended is not None

    def stop(self) -> None:
        """Let everything be as usual again; what was held back goes on.  Stopping twice is fine."""
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(self)
            self._release()

    def _release(self) -> None:
        """Let go what was held back."""

    def _happened(self) -> None:
        self.count += 1
        if self.times is not None and self.count >= self.times:
            self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "active" if self.is_active else "over"
        return f"<{type(self).__name__}: {state}, happened {self.count} times>"

    # -- what the broker asks

    def accepted(self, connection: BrokerConnection) -> bool:
        """A client has connected; False closes its socket at once."""
        return True

    def data_received(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Octets came; what is returned is read in their place."""
        return data

    def method_received(self, connection: BrokerConnection, number: int, method: Method) -> Fault | None:
        """A method came; a Fault refuses it."""
        return None

    def publish_received(
        self, connection: BrokerConnection, number: int, exchange: str, routing_key: str
    ) -> Literal["nack", "drop"] | Fault | None:
        """A publish came."""
        return None

    def sending(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Octets are about to leave; what is returned leaves in their place."""
        return data

    def connection_lost(self, connection: BrokerConnection) -> None:
        """The socket is gone."""


class Refusal(ScriptedFault):
    """Clients are turned away: the socket is closed before a word is said."""

    def accepted(self, connection: BrokerConnection) -> bool:
        """False."""
        self._happened()
        return False


class PublishFault(ScriptedFault):
    """Publishes that match get an answer of their own: "nack", "drop" (none at all), or a Fault."""

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        answer: Literal["nack", "drop"] | Fault,
        matches: Callable[[BrokerConnection, str, str], bool],
    ) -> None:
        super().__init__(ended, times)
        self._answer = answer
        self._matches = matches

    def publish_received(
        self, connection: BrokerConnection, number: int, exchange: str, routing_key: str
    ) -> Literal["nack", "drop"] | Fault | None:
        """The answer, if it is for this publish."""
        if not self._matches(connection, exchange, routing_key):
            return None
        self._happened()
        return self._answer


class RefusedMethod(ScriptedFault):
    """A method that matches is refused with a Fault.

    name: str -- "queue.declare".   wanted -- what its arguments of these names must be.
    """

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        fault: Fault,
        name: str,
        wanted: dict[str, str],
    ) -> None:
        super().__init__(ended, times)
        self._fault = fault
        self._name = name
        self._wanted = wanted

    def method_received(self, connection: BrokerConnection, number: int, method: Method) -> Fault | None:
        """The Fault, if it is for this method."""
        is_wanted = self._name == method.NAME
        if not is_wanted or any(getattr(method, key, None) != value for key, value in self._wanted.items()):
            return None
        self._happened()
        return self._fault


class Meter:
    """Counts octets or frames of a stream, and says where the last one of so many ends.

    limit: int -- how many, 1 or more.   in_frames: bool -- whether frames count (protocol headers do not), or octets.
    """

    def __init__(self, limit: int, *, in_frames: bool) -> None:
        self._left = limit
        self._in_frames = in_frames
        self._head = b""
        #: Octets of the frame under way that are still to come.
        self._rest = 0
        self._is_first = True

    def feed(self, data: bytes) -> int | None:
        """The octets of `data` up to and with the last one that counts; None while there are more to come."""
        if not self._in_frames:
            if len(data) < self._left:
                self._left -= len(data)
                return None
            return self._left
        return self._feed_frames(data)

    def _feed_frames(self, data: bytes) -> int | None:
        at = 0
        if self._is_first and data:
            self._is_first = False
            if data.startswith(PROTOCOL_HEADER[:4]):
                self._rest = len(PROTOCOL_HEADER)
                self._left += 1  # which is no frame
        while at < len(data):
            if not self._rest:
                wanted = _FRAME_OVERHEAD - 1 - len(self._head)
                self._head += data[at : at + wanted]
                at += wanted
                if len(self._head) < _FRAME_OVERHEAD - 1:
                    return None
                self._rest = int.from_bytes(self._head[3:7], "big") + 1
                self._head = b""
            taken = min(self._rest, len(data) - at)
            if taken < 0:
                return None
            self._rest -= taken
            at += taken
            if not self._rest:
                self._left -= 1
                if not self._left:
                    return at
        return None


class Cut(ScriptedFault):
    """Connections end without a word once so much has gone in one direction.

    limit, unit -- how much.   of_sent: bool -- of what the broker sends; else of what it receives.
    """

    def __init__(
        self,
        ended: Callable[[ScriptedFault], object],
        times: int | None,
        *,
        limit: int,
        unit: Literal["bytes", "frames", "messages"],
        of_sent: bool,
    ) -> None:
        super().__init__(ended, times)
        self._limit = limit
        self._unit = unit
        self._of_sent = of_sent
        self._meters: dict[BrokerConnection, Meter] = {}
        self._messages: dict[BrokerConnection, int] = {}
        self._cut: set[BrokerConnection] = set()

    def accepted(self, connection: BrokerConnection) -> bool:
        """Frames are counted from the beginning, or not at all: elsewhere it is not known where one begins."""
        if self._unit == "frames":
            self._meters[connection] = Meter(self._limit, in_frames=True)
        return True

    def data_received(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """What comes before the cut."""
        return self._measure(connection, data, is_sent=False)

    def sending(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """What leaves before the cut."""
        return self._measure(connection, data, is_sent=True)

    def _measure(self, connection: BrokerConnection, data: bytes, *, is_sent: bool) -> bytes | None:
        if connection in self._cut:
            return None
        if not self.is_active or is_sent is not self._of_sent or self._unit == "messages":
            return data
        meter = self._meters.get(connection)
        if meter is None:
            if self._unit == "frames":
                return data
            meter = self._meters[connection] = Meter(self._limit, in_frames=False)
        end = meter.feed(data)
        if end is None:
            return data
        if is_sent:
            # What is returned has still to be handed to the transport, and to be taken by it.
            self._end(connection, lambda: connection.transport.loseConnection())  # type: ignore[union-attr]
        else:
            self._end(connection, connection.abort_transport)
        return data[:end]

    def publish_received(
        self, connection: BrokerConnection, number: int, exchange: str, routing_key: str
    ) -> Literal["nack", "drop"] | Fault | None:
        """The message at which the connection is cut is lost."""
        if connection in self._cut:
            return "drop"
        if not self.is_active or self._unit != "messages":
            return None
        seen = self._messages[connection] = self._messages.get(connection, 0) + 1
        if seen < self._limit:
            return None
        self._end(connection, connection.abort_transport)
        return "drop"

    def _end(self, connection: BrokerConnection, end: Callable[[], object]) -> None:
        self._cut.add(connection)
        connection.reactor.callLater(0, _end_if_connected, connection, end)
        self._happened()

    @property
    def has_work(self) -> bool:
        """Whether a connection that was cut is still there."""
        return bool(self._cut)

    def connection_lost(self, connection: BrokerConnection) -> None:
        """Forget it."""
        self._cut.discard(connection)
        self._meters.pop(connection, None)
        self._messages.pop(connection, None)


def _end_if_connected(connection: BrokerConnection, end: Callable[[], object]) -> None:
    if connection.transport is not None and not connection.gone.called:
        transport: Any = connection.transport
        unregister = getattr(transport, "unregisterProducer", None)
        if unregister is not None:
            unregister()
        end()


class _Stream:
    """What is held back of one direction of one connection, in order.

    deliver(data) -- lets some octets through.
    """

    def __init__(self, deliver: Callable[[bytes], object]) -> None:
        self._deliver = deliver
        self._held: deque[bytes] = deque()
        self.size = 0
        self.calls: list[IDelayedCall] = []

    def hold(self, data: bytes) -> None:
        self._held.append(data)
        self.size += len(data)

    def release_one(self) -> None:
        """Let the oldest piece through."""
        self.calls = [call for call in self.calls if call.active()]
        if self._held:
            data = self._held.popleft()
            self.size -= len(data)
            self._deliver(data)

    def release(self) -> None:
        """Let all of it through."""
        self.drop_calls()
        while self._held:
            self.release_one()

    def drop_calls(self) -> None:
        for call in self.calls:
            if call.active():
                call.cancel()
        self.calls.clear()


class _Holding(ScriptedFault):
    """A fault that holds octets back."""

    def __init__(self, ended: Callable[[ScriptedFault], object]) -> None:
        super().__init__(ended, None)
        self._streams: dict[tuple[BrokerConnection, bool], _Stream] = {}
        self._is_releasing = False

    def data_received(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Nothing is read now."""
        if self._is_releasing or not self.is_active:
            return data
        return self._hold(connection, data, is_sent=False)

    def sending(self, connection: BrokerConnection, data: bytes) -> bytes | None:
        """Nothing leaves now."""
        if not self.is_active and not self._is_releasing:
            return data
        return self._hold(connection, data, is_sent=True)

    def _hold(self, connection: BrokerConnection, data: bytes, *, is_sent: bool) -> bytes | None:
        stream = self._streams.get((connection, is_sent))
        if stream is None:
            stream = self._streams[connection, is_sent] = _Stream(
                (lambda some: _send(connection, some)) if is_sent else (lambda some: self._read(connection, some))
            )
            self._happened()
        stream.hold(data)
        if stream.size > _KEPT:
            connection.abort_transport()
        else:
            self._held(connection, stream)
        return None

    def _held(self, connection: BrokerConnection, stream: _Stream) -> None:
        """Something is held in `stream`."""

    def _read(self, connection: BrokerConnection, data: bytes) -> None:
        self._is_releasing = True
        try:
            connection.dataReceived(data)
        finally:
            self._is_releasing = False

    def _release(self) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.release()

    def connection_lost(self, connection: BrokerConnection) -> None:
        """Forget it."""
        for is_sent in (False, True):
            stream = self._streams.pop((connection, is_sent), None)
            if stream is not None:
                stream.drop_calls()


def _send(connection: BrokerConnection, data: bytes) -> None:
    transport: Any = connection.transport
    if transport is not None and not connection.gone.called:
        transport.write(data)


class Stall(_Holding):
    """Connections freeze, like those of a host that has stopped: nothing is read and nothing leaves."""


class Delay(_Holding):
    """Everything takes `seconds` longer, in both directions; order is kept."""

    def __init__(self, ended: Callable[[ScriptedFault], object], seconds: float) -> None:
        super().__init__(ended)
        self.seconds = seconds

    def _held(self, connection: BrokerConnection, stream: _Stream) -> None:
        stream.calls.append(connection.reactor.callLater(self.seconds, stream.release_one))

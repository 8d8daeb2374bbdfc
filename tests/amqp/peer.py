"""The broker's end of a connection, in memory and step by step.

Frames are built and read by **pamqp**, so our codec never judges itself.  :class:`Peer` holds one `AMQPProtocol` on a
test clock and a recording transport; what the client writes is decoded at once and judged as a broker would: nothing
after a close, nothing on a channel that is not open, no settlement that would be answered with 406.

:class:`PeerTestCase` ends every test by cutting the connections it made, and then nothing may be left: no violation,
no delayed call, no unhandled failure.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any, TypeVar

from pamqp import base, body, commands, frame, header, heartbeat
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.amqp.broker_model import ACK, DROP, REQUEUE, ModelChannel, Refused
from txmsg.amqp.channel import Channel
from txmsg.amqp.client import AMQPProtocol
from txmsg.amqp.consumers import Consumer
from txmsg.amqp.parameters import ConnectionParameters

Basic = commands.Basic
Frame = base.Frame | body.ContentBody | header.ContentHeader | header.ProtocolHeader | heartbeat.Heartbeat
_F = TypeVar("_F", bound=Frame)

_CHANNEL_ENDS = (commands.Channel.Close, commands.Channel.CloseOk)


class RecordingTransport(StringTransport):
    """A transport that hands on what is written, and remembers how it was ended.

    :ivar writes: each piece given to ``write`` or ``writeSequence``, joined.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "127.0.0.1", 5672))
        self.writes: list[bytes] = []
        self._peer = peer

    def write(self, data: bytes) -> None:
        """Take one piece."""
        super().write(data)
        self.writes.append(bytes(data))
        self._peer.bytes_written(bytes(data))

    def writeSequence(self, data: Any) -> None:
        """Take several pieces as one."""
        self.write(b"".join(data))


class Peer:
    """One client connection and the broker's end of it.

    :ivar frames: every frame the client wrote, with its channel number.
    :ivar violations: what a broker would not have accepted.
    """

    def __init__(
        self,
        parameters: ConnectionParameters | None = None,
        *,
        protocol: type[AMQPProtocol] = AMQPProtocol,
        **overrides: Any,
    ) -> None:
        self.clock = Clock()
        given = ConnectionParameters(**overrides) if parameters is None else parameters
        self.protocol = protocol(given, reactor=self.clock)
        self.transport = RecordingTransport(self)
        self.frames: list[tuple[int, Frame]] = []
        self.violations: list[str] = []
        self.channels: dict[int, ModelChannel] = defaultdict(ModelChannel)
        self._unread = 0
        self._buffer = b""
        self._open_channels: set[int] = set()
        #: Channels that the client has closed and that have no close-ok yet.
        self._closing_channels: set[int] = set()
        self._client_has_closed = False
        self._no_ack: dict[int, list[bool]] = defaultdict(list)
        self._no_ack_tags: set[tuple[int, str]] = set()
        self._is_lost = False

    # -- what the client writes --------------------------------------------------------------------

    def bytes_written(self, data: bytes) -> None:
        """The transport got these."""
        self._buffer += data
        while self._buffer:
            if not self._buffer.startswith(b"AMQP"):
                size = int.from_bytes(self._buffer[3:7], "big")
                assert len(self._buffer) >= size + 8, "a write ended inside a frame"
            used, channel, decoded = frame.unmarshal(self._buffer)
            self._buffer = self._buffer[used:]
            self.frames.append((channel, decoded))
            try:
                self._judge(channel, decoded)
            except Refused as refused:
                self.violations.append(f"channel {channel}: {decoded!r}: {refused}")

    def _judge(self, channel: int, decoded: Frame) -> None:
        if isinstance(decoded, (header.ProtocolHeader, heartbeat.Heartbeat)):
            return
        if self._client_has_closed and not isinstance(decoded, commands.Connection.CloseOk):
            raise Refused("after the client's own connection.close or close-ok")
        if channel == 0:
            self._client_has_closed |= isinstance(decoded, (commands.Connection.Close, commands.Connection.CloseOk))
            return
        if isinstance(decoded, commands.Channel.Open):
            if channel in self._open_channels | self._closing_channels:
                raise Refused("504: the channel number is in use")
            self._open_channels.add(channel)
            self.channels[channel] = ModelChannel()
            return
        if channel not in self._open_channels and not isinstance(decoded, commands.Channel.CloseOk):
            raise Refused("504: the channel is not open")
        if isinstance(decoded, _CHANNEL_ENDS):
            self._open_channels.discard(channel)
            if isinstance(decoded, commands.Channel.Close):
                self._closing_channels.add(channel)
            return
        self._judge_settlement(self.channels[channel], channel, decoded)

    def _judge_settlement(self, model: ModelChannel, channel: int, decoded: Frame) -> None:
        match decoded:
            case Basic.Ack():
                model.settle(decoded.delivery_tag or 0, decoded.multiple, ACK)
            case Basic.Nack():
                model.settle(decoded.delivery_tag or 0, decoded.multiple, REQUEUE if decoded.requeue else DROP)
            case Basic.Reject():
                model.settle(decoded.delivery_tag or 0, False, REQUEUE if decoded.requeue else DROP)
            case Basic.Recover():
                model.recover()
            case commands.Tx.Select():
                model.tx_select()
            case commands.Tx.Commit():
                model.tx_commit()
            case commands.Tx.Rollback():
                model.tx_rollback()
            case Basic.Consume() if decoded.no_ack:
                self._no_ack_tags.add((channel, decoded.consumer_tag))
            case Basic.Get():
                self._no_ack[channel].append(decoded.no_ack)

    def read(self) -> list[tuple[int, Frame]]:
        """End the reactor turn; the frames written since the last `read`, `names`, `only` ..."""
        self.clock.advance(0)
        new = self.frames[self._unread :]
        self._unread = len(self.frames)
        return new

    def names(self) -> list[str]:
        """Their methods' names, content frames left out: ["Queue.Declare", ...]."""
        return [decoded.name for _, decoded in self.read() if isinstance(decoded, base.Frame)]

    def only(self, kind: type[_F]) -> _F:
        """The one frame written since the last look, which must be a `kind`."""
        ((_, decoded),) = self.read()
        assert isinstance(decoded, kind), f"expected {kind.__name__}, got {decoded!r}"
        return decoded

    def settlements(self) -> list[tuple[str, int, bool]]:
        """The acks, nacks and rejects written since the last look: [("Ack", 3, True), ...]."""
        return [
            (decoded.name.partition(".")[2], decoded.delivery_tag or 0, getattr(decoded, "multiple", False))
            for _, decoded in self.read()
            if isinstance(decoded, (Basic.Ack, Basic.Nack, Basic.Reject))
        ]

    def published(self) -> list[bytes]:
        """The bodies of the publishes written since the last look."""
        bodies: list[bytes] = []
        for _, decoded in self.read():
            if isinstance(decoded, header.ContentHeader):
                bodies.append(b"")
            elif isinstance(decoded, body.ContentBody):
                bodies[-1] += decoded.value
        return bodies

    # -- what the broker sends ---------------------------------------------------------------------

    def send(self, *values: Frame, channel: int = 1) -> None:
        """Send frames in one chunk; methods of class connection go on channel 0 by themselves."""
        if any(isinstance(value, commands.Channel.CloseOk) for value in values):
            self._closing_channels.discard(channel)
        self.send_raw(self.encode(*values, channel=channel))

    @staticmethod
    def encode(*values: Frame, channel: int = 1) -> bytes:
        """The bytes of frames."""
        return b"".join(
            frame.marshal(value, 0 if getattr(value, "name", "").startswith("Connection.") else channel)
            for value in values
        )

    def send_raw(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.protocol.dataReceived(data)

    def content(
        self, method: base.Frame, octets: bytes, properties: commands.Basic.Properties | None = None
    ) -> list[Frame]:
        """The frames of a method with content."""
        values: list[Frame] = [method, header.ContentHeader(0, len(octets), properties or Basic.Properties())]
        return [*values, body.ContentBody(octets)] if octets else values

    def delivery(
        self,
        octets: bytes,
        consumer_tag: str,
        delivery_tag: int,
        *,
        channel: int = 1,
        properties: commands.Basic.Properties | None = None,
        redelivered: bool = False,
    ) -> list[Frame]:
        """The frames of one basic.deliver, which counts as sent from now on."""
        if (channel, consumer_tag) not in self._no_ack_tags:
            self.channels[channel].deliver(delivery_tag)
        method = Basic.Deliver(consumer_tag, delivery_tag, redelivered, "x", "key")
        return self.content(method, octets, properties)

    def deliver(self, consumer: Consumer | str, *bodies: bytes, first: int = 1, channel: int = 1) -> None:
        """Deliver messages to a consumer, in one chunk, with delivery tags from `first` on."""
        tag = consumer if isinstance(consumer, str) else consumer.consumer_tag
        values: list[Frame] = []
        for number, octets in enumerate(bodies, first):
            values += self.delivery(octets, tag, number, channel=channel)
        self.send(*values, channel=channel)

    def answer_get(self, octets: bytes, delivery_tag: int, *, left: int = 0, channel: int = 1) -> None:
        """Answer the oldest basic.get with a message."""
        if not self._no_ack[channel].pop(0):
            self.channels[channel].deliver(delivery_tag)
        self.send(*self.content(Basic.GetOk(delivery_tag, False, "x", "key", left), octets), channel=channel)

    def return_(
        self, octets: bytes, properties: commands.Basic.Properties | None, *, key: str = "key", channel: int = 1
    ) -> None:
        """Send a message back with 312."""
        self.send(*self.content(Basic.Return(312, "NO_ROUTE", "x", key), octets, properties), channel=channel)

    def lose(self, reason: BaseException | None = None) -> None:
        """The socket is gone."""
        if not self._is_lost:
            self._is_lost = True
            self.transport.producerState = "stopped"  # who tells it to read now gets an error
            if reason is None:
                reason = ConnectionAborted() if self.transport.disconnected else ConnectionDone()
            self.protocol.connectionLost(Failure(reason))

    # -- the usual exchanges -----------------------------------------------------------------------

    def connect(self) -> Peer:
        """The TCP connection is there."""
        self.protocol.makeConnection(self.transport)
        return self

    def start(self, mechanisms: str = "PLAIN AMQPLAIN", capabilities: dict[str, Any] | None = None) -> None:
        """connection.start."""
        properties: dict[str, Any] = {"product": "peer", "capabilities": capabilities or {"basic.nack": True}}
        self.send(commands.Connection.Start(0, 9, properties, mechanisms, "en_US"))

    def open(self, channel_max: int = 2047, frame_max: int = 131072, heartbeat: int = 0) -> Peer:
        """Play the whole handshake."""
        if self.protocol.transport is None:
            self.connect()
        self.start()
        self.send(commands.Connection.Tune(channel_max, frame_max, heartbeat))
        self.send(commands.Connection.OpenOk())
        assert self.protocol.is_open
        self.read()
        return self

    def channel(self, number: int | None = None) -> Channel:
        """Open a channel."""
        self.read()
        opening = self.protocol.channel(number)
        ((used, opened),) = self.read()
        assert isinstance(opened, commands.Channel.Open)
        self.send(commands.Channel.OpenOk(), channel=used)
        return result_of(opening)  # type: ignore[no-any-return]

    def confirm_channel(self) -> Channel:
        """Open a channel in confirm mode."""
        channel = self.channel()
        channel.confirm_select()
        self.only(commands.Confirm.Select)
        self.send(commands.Confirm.SelectOk(), channel=channel.channel_number)
        return channel

    def consumer(self, channel: Channel, callback: Any = None, **options: Any) -> Consumer:
        """Start a consumer of the queue "q"."""
        self.read()
        consuming = channel.basic_consume("q", callback, **options)
        number = channel.channel_number
        for _, decoded in self.read():
            if isinstance(decoded, Basic.Qos):
                self.send(Basic.QosOk(), channel=number)
            elif isinstance(decoded, Basic.Consume):
                self.send(Basic.ConsumeOk(decoded.consumer_tag), channel=number)
        return result_of(consuming)  # type: ignore[no-any-return]


def result_of(deferred: Deferred[Any]) -> Any:
    """The result of a Deferred that has fired; its error is raised."""
    results: list[Any] = []
    deferred.addBoth(results.append)
    assert results, "the Deferred has not fired"
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return results[0]


def ignore(*deferreds: Deferred[Any]) -> None:
    """How these end is not what the test is about."""
    for deferred in deferreds:
        deferred.addErrback(lambda failure: None)


def outcomes(deferreds: Sequence[Deferred[Any]]) -> list[Any]:
    """What each has fired with: a value or an exception instance; None while it waits.

    Failures count as handled: the exception becomes the Deferred's result.
    """
    found: list[Any] = [None] * len(deferreds)

    def keep(result: Any, index: int) -> Any:
        found[index] = result.value if isinstance(result, Failure) else result
        return found[index]

    for index, deferred in enumerate(deferreds):
        deferred.addBoth(keep, index)
    return found


class PeerTestCase(SynchronousTestCase):
    """A test against peers; what each leaves behind is looked at when the test is over."""

    def peer(self, parameters: ConnectionParameters | None = None, **options: Any) -> Peer:
        """A peer with a connection that has not begun."""
        peer = Peer(parameters, **options)
        self.addCleanup(self._nothing_is_left, peer)
        return peer

    def opened(self, **options: Any) -> Peer:
        """A peer with an open connection."""
        peer = self.peer(**options).open()
        peer.protocol.ready.addErrback(lambda failure: None)
        return peer

    def _nothing_is_left(self, peer: Peer) -> None:
        if peer.protocol.transport is not None:
            peer.lose()
        self.assertEqual(peer.violations, [])
        self.assertEqual(peer.clock.getDelayedCalls(), [], "R28: no timer may outlive the connection")

    def result(self, deferred: Deferred[Any]) -> Any:
        """What `deferred` has fired with."""
        return self.successResultOf(deferred)

    def failed(self, deferred: Deferred[Any], *kinds: type[BaseException]) -> Any:
        """The exception `deferred` has failed with, which must be one of `kinds`."""
        return self.failureResultOf(deferred, *kinds).value

    def unhandled(self, kind: type[BaseException]) -> list[BaseException]:
        """The errors of this kind that were logged, which are then forgiven."""
        return [failure.value for failure in self.flushLoggedErrors(kind)]


class PublishTestCase(PeerTestCase):
    def channel(self, *, confirm: bool = False, **options: Any) -> tuple[Peer, Channel]:
        peer = self.opened(**options)
        return peer, peer.confirm_channel() if confirm else peer.channel()

    def sent(self, peer: Peer) -> tuple[Any, Any, bytes]:
        """The one publish written since the last look."""
        (_, method), (_, head), *pieces = peer.read()
        assert isinstance(method, Basic.Publish)
        assert isinstance(head, header.ContentHeader)
        octets = b"".join(piece.value for _, piece in pieces if isinstance(piece, body.ContentBody))
        self.assertEqual(head.body_size, len(octets))
        return method, head.properties, octets

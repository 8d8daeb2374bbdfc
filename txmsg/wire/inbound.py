"""Bytes to events: the half of `WireConnection` that listens.

AMQP 0-9-1 sections 2.2.4, 4.2 and 4.10.  The invariants:

* Any bytes give events, or events and then one :class:`~txmsg.wire.events.ProtocolFailure`; nothing is raised,
  and nothing is read after a failure.
* The events depend on the bytes and not on how they were cut.  So every check happens at a fixed octet of a
  frame: what the first seven octets show is judged there, the end octet is judged before a payload is.
* While we are closing a channel (or the connection), what the peer had on its way is discarded.

There are two ways to read a frame.  The plain one, :meth:`Inbound._parse`, takes one at a time.  The other,
:meth:`~txmsg.wire.repeats.Repeats.take`, takes a whole content (method, header and body) or acknowledgement
when it looks like an earlier one: the octets that repeat are looked up, only the delivery tag, the body's size
and the body are read.  What is looked up was once read by the plain decoders, and on the slightest difference
the plain way takes over, so there is one set of rules.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from txmsg.errors import RemoteProtocolError
from txmsg.wire.constants import (
    CHANNEL_ERROR,
    CLASS_CONNECTION,
    COMMAND_INVALID,
    FRAME_BODY,
    FRAME_END,
    FRAME_ERROR,
    FRAME_HEADER,
    FRAME_METHOD,
    FRAME_MIN_SIZE,
    FRAME_OVERHEAD,
    INTERNAL_ERROR,
    NOT_IMPLEMENTED,
    PROTOCOL_HEADER,
    SYNTAX_ERROR,
    Role,
)
from txmsg.wire.content import Content, Misplaced, Oversized, event_head
from txmsg.wire.events import (
    ACK,
    NACK,
    ContentRefused,
    Event,
    MethodReceived,
    ProtocolFailure,
    ProtocolHeaderReceived,
)
from txmsg.wire.frames import FRAME_START
from txmsg.wire.layout import Method
from txmsg.wire.methods import METHODS, basic, channel, connection
from txmsg.wire.repeats import Repeats
from txmsg.wire.session import Limits, Session
from txmsg.wire.splitter import START_SIZE, Splitter, check_frame_start
from txmsg.wire.states import (
    CHANNEL_TRANSITIONS,
    CONNECTION_TRANSITIONS,
    ChannelState,
    ConnectionState,
    ProtocolHeader,
    closed_by,
)

__all__ = ["Inbound"]

_IDS: Final = Struct(">HH")


class Inbound(Session):
    """The receiving half; see :class:`~txmsg.wire.connection.WireConnection`."""

    def __init__(self, role: Role, limits: Limits) -> None:
        super().__init__(role, limits)
        self._peer = role.peer
        self._splitter = Splitter()
        self._has_ended = False
        self._wants_header = role is Role.SERVER
        #: Contents between their method and their last octet, by channel.
        self._contents: dict[int, Content] = {}
        #: Octets still to come of a body frame that is being read in pieces, with its end octet; and its content,
        #: None to discard them.
        self._left = 0
        self._sink: Content | None = None
        #: Server: channels of which the rest is discarded until they are closed; see `ContentRefused`.
        self._refused: set[int] = set()
        #: What is being read by the plain way: channel, class id, method id.
        self._reading = (0, 0, 0)
        self._repeats = Repeats(role.peer, limits, self._contents, self._takes_contents)

    # -- the public part ----------------------------------------------------------------------------------

    def receive(self, data: bytes) -> list[Event]:
        """The events in `data`, which continues what was received before.

        Never raises.  When the peer breaks the protocol the last event is a :class:`ProtocolFailure`; after
        that, after a protocol header that ends the connection, and once the connection is closed, whatever
        comes gives [].
        """
        events: list[Event] = []
        if self._has_ended:
            return events
        try:
            if type(data) is not bytes:
                data = bytes(data)
            self._receive(data, events)
        except RemoteProtocolError as error:
            self._end()
            events.append(ProtocolFailure(error, *self._reading))
        except Exception as cause:
            # A defect of ours, and no reason to leave a Deferred waiting for ever.
            self._end()
            defect = RemoteProtocolError(f"{type(cause).__name__} while reading what the peer sent", INTERNAL_ERROR)
            defect.__cause__ = cause
            events.append(ProtocolFailure(defect, *self._reading))
        return events

    def receive_eof(self) -> str:
        """The stream has ended: say what was cut, for the error text; "" for nothing.

        An end is never a violation: whether it was expected is for the layer above to judge.
        """
        cut = ""
        pending = bytes(self._splitter.pending)
        if self._has_ended:
            return cut
        if self._left:
            cut = f"inside a body frame, {self._left} octets before its end"
        elif pending and self.state in (ConnectionState.HEADER, ConnectionState.WANT_START):
            cut = f"after {pending[:START_SIZE]!r}, which is no whole AMQP frame"
        elif pending:
            cut = f"inside a frame, after {len(pending)} octets of it"
        elif self._contents:
            number, content = next(iter(self._contents.items()))
            cut = (
                f"inside a content on channel {number}, after {content.collected} of its {max(content.size, 0)} octets"
                if content.size >= 0
                else f"before the content header due on channel {number}"
            )
        self._end()
        return cut

    @property
    def unfinished(self) -> int:
        """Octets kept of contents that have come in part, on all channels."""
        contents = self._contents
        return sum([content.collected for content in contents.values()]) if contents else 0

    # -- the loop -----------------------------------------------------------------------------------------

    def _receive(self, data: bytes, events: list[Event]) -> None:
        position = 0
        if self._left:
            position = self._continue_body(data, events)
            if self._left:
                return
        elif self._splitter.pending:
            joined = self._splitter.feed(data)
            if joined is None:
                return
            data = joined
        if self._wants_header:
            position = self._take_protocol_header(data, events)
        self._parse(data, position, events)

    def _parse(self, data: bytes, position: int, events: list[Event]) -> None:
        """Read frames from `position` on; what is left of the last one is kept."""
        end = len(data)
        size_limit = self._payload_limit
        take_repeats = self._repeats.take
        while not self._has_ended:
            position = take_repeats(data, position, events, size_limit)
            there = end - position
            if there < START_SIZE:
                self._splitter.keep(data[position:], START_SIZE)
                return
            frame_type, number, size = FRAME_START.unpack_from(data, position)
            if frame_type == 65 and self._is_refusal(data, position):
                if there < len(PROTOCOL_HEADER):
                    self._splitter.keep(data[position:], len(PROTOCOL_HEADER))
                    return
                raw = data[position : position + len(PROTOCOL_HEADER)]
                self._end()
                events.append(ProtocolHeaderReceived(raw, tuple(raw[4:])))
                return
            self._reading = (number, 0, 0)
            check_frame_start(
                frame_type, number, size, size_limit, self.channel_max, data[position : position + START_SIZE]
            )
            first = position + START_SIZE
            after = first + size
            if frame_type == FRAME_BODY:
                sink = self._content_at(number, "body")
                if sink is not None:
                    sink.announce(size)
                if after >= end:
                    self._sink = sink
                    self._left = size + 1
                    self._continue_body(data, events, first)
                    return
                self._check_end(data[after])
                if sink is not None:
                    self._take_body(sink, number, data, first, after, events)
            else:
                if after >= end:
                    self._splitter.keep(data[position:], size + FRAME_OVERHEAD)
                    return
                self._check_end(data[after])
                if frame_type == FRAME_METHOD:
                    self._take_method(number, data, first, after, events)
                elif frame_type == FRAME_HEADER:
                    self._take_header(number, data[first:after], events)
            position = after + 1

    @staticmethod
    def _check_end(octet: int) -> None:
        if octet != FRAME_END:
            raise RemoteProtocolError(f"frame ends with octet {octet} instead of {FRAME_END}", FRAME_ERROR)

    def _takes_contents(self, number: int) -> bool:
        """Whether contents and acknowledgements may come on channel `number` now."""
        return (
            self.state is ConnectionState.OPEN
            and self._channels.get(number) is ChannelState.OPEN
            and number not in self._refused
        )

    # -- methods ------------------------------------------------------------------------------------------

    def _take_method(self, number: int, data: bytes, first: int, after: int, events: list[Event]) -> None:
        if after - first < _IDS.size:
            raise RemoteProtocolError(f"method frame of {after - first} octets", FRAME_ERROR)
        class_id, method_id = _IDS.unpack_from(data, first)
        self._reading = (number, class_id, method_id)
        method_class = METHODS.get((class_id, method_id))
        if number:
            self._take_channel_method(number, class_id, method_id, method_class, data, first, after, events)
        else:
            self._take_connection_method(class_id, method_id, method_class, data, first, after, events)

    def _take_connection_method(
        self,
        class_id: int,
        method_id: int,
        method_class: type[Method] | None,
        data: bytes,
        first: int,
        after: int,
        events: list[Event],
    ) -> None:
        state = self.state
        after_it = None if method_class is None else CONNECTION_TRANSITIONS[state].get((self._peer, method_class))
        if method_class is None or after_it is None:
            if closed_by(state):
                return
            raise self._unexpected_method(class_id, method_id, method_class, 0, state.value)
        method = method_class.decode(data, first + 4, after, self._table_limits)
        if isinstance(method, (connection.Tune, connection.TuneOk)) and 0 < method.frame_max < FRAME_MIN_SIZE:
            raise RemoteProtocolError(
                f"{method.NAME}: frame_max {method.frame_max} is below the minimum of {FRAME_MIN_SIZE}", SYNTAX_ERROR
            )
        self._move_connection(after_it)
        events.append(MethodReceived(0, method))

    def _take_channel_method(
        self,
        number: int,
        class_id: int,
        method_id: int,
        method_class: type[Method] | None,
        data: bytes,
        first: int,
        after: int,
        events: list[Event],
    ) -> None:
        if closed_by(self.state):
            return
        state = self.channel_state(number)
        if number in self._refused and method_class is not channel.Close:
            return
        is_closing = bool(closed_by(state))
        # An open during the close of the same number would wait for ever if it were discarded.
        if is_closing and method_class is not channel.Open and class_id != CLASS_CONNECTION:
            after_it = None if method_class is None else CHANNEL_TRANSITIONS[state].get((self._peer, method_class))
            if method_class is None or after_it is None:
                return
        else:
            if self.state is not ConnectionState.OPEN or (
                state is ChannelState.CLOSED and method_class is not channel.Open
            ):
                raise RemoteProtocolError(f"method frame on channel {number}, which is not open", CHANNEL_ERROR)
            content = self._contents.get(number)
            if content is not None:
                due = "content header" if content.size < 0 else "content body"
                raise Misplaced(f"method frame inside a content on channel {number}", due)
            after_it = None if method_class is None else CHANNEL_TRANSITIONS[state].get((self._peer, method_class))
            if after_it is None and state is ChannelState.OPENING and self.role is Role.SERVER:
                # Our open-ok is written before this method is looked at; RabbitMQ takes it, too.
                sent = CHANNEL_TRANSITIONS[ChannelState.OPEN].get((self._peer, method_class))  # type: ignore[arg-type]
                after_it = None if sent is None else state
            if method_class is None or after_it is None:
                raise self._unexpected_method(class_id, method_id, method_class, number, state.value)
        method = method_class.decode(data, first + 4, after, self._table_limits)
        if after_it is not state:
            self._move_channel(number, after_it)
        if method.HAS_CONTENT:
            self._contents[number] = Content(event_head(number, method))
        elif isinstance(method, basic.Ack):
            events.append((ACK, number, method.delivery_tag, method.multiple))
        elif isinstance(method, basic.Nack):
            events.append((NACK, number, method.delivery_tag, method.multiple, method.requeue))
        else:
            events.append(MethodReceived(number, method))

    @staticmethod
    def _unexpected_method(
        class_id: int, method_id: int, method_class: type[Method] | None, number: int, state: str
    ) -> RemoteProtocolError:
        if method_class is None:
            return RemoteProtocolError(f"there is no method {method_id} in class {class_id}", NOT_IMPLEMENTED)
        where = f"channel {number}" if number else "the connection"
        return RemoteProtocolError(f"{method_class.NAME} while {where} is {state}", COMMAND_INVALID)

    # -- contents -----------------------------------------------------------------------------------------

    def _content_at(self, number: int, what: str) -> Content | None:
        """The content that a header or body frame on `number` belongs to; None to discard the frame."""
        if closed_by(self.state):
            return None
        state = self.channel_state(number)
        if state is ChannelState.CLOSED:
            raise RemoteProtocolError(f"{what} frame on channel {number}, which is not open", CHANNEL_ERROR)
        if closed_by(state):
            return None
        if number in self._refused:
            return None
        content = self._contents.get(number)
        if content is None:
            raise Misplaced(f"{what} frame without a method on channel {number}", "method")
        return content

    def _take_header(self, number: int, payload: bytes, events: list[Event]) -> None:
        content = self._content_at(number, "content header")
        if content is None:
            return
        try:
            content.take_header(payload, self.limits.max_message_size, self._repeats.decode_properties)
        except Oversized as error:
            if self.role is Role.CLIENT:
                raise
            del self._contents[number]
            self._refused.add(number)
            self._repeats.forget()
            events.append(ContentRefused(number, error.size))
            return
        if not content.size:
            del self._contents[number]
            events.append(content.event())

    def _take_body(
        self, content: Content, number: int, data: bytes, first: int, after: int, events: list[Event]
    ) -> None:
        """Take a body frame, all of whose octets are here."""
        if content.left:
            content.collect(data, first, after)
            return
        del self._contents[number]
        if content.collected:
            content.collect(data, first, after)
            events.append(content.event())
        else:
            events.append(content.event(data[first:after]))

    def _continue_body(self, data: bytes, events: list[Event], position: int = 0) -> int:
        """Take what `data` holds, from `position` on, of a body frame that began earlier; the offset after it."""
        sink = self._sink
        stop = min(position + self._left - 1, len(data))
        if sink is not None and stop > position:
            sink.collect(data, position, stop)
        self._left -= stop - position
        if self._left > 1 or stop == len(data):
            return stop
        self._check_end(data[stop])
        self._left = 0
        self._sink = None
        if sink is not None and not sink.left:
            del self._contents[sink.head[1]]
            events.append(sink.event())
        return stop + 1

    # -- the first octets, and the end --------------------------------------------------------------------

    def _take_protocol_header(self, data: bytes, events: list[Event]) -> int:
        """Server: the client's first eight octets; the offset after them."""
        size = len(PROTOCOL_HEADER)
        if len(data) < size:
            self._splitter.keep(data, size)
            return len(data)
        raw = data[:size]
        self._wants_header = False
        events.append(ProtocolHeaderReceived(raw, tuple(raw[4:]) if raw.startswith(PROTOCOL_HEADER[:4]) else ()))
        if raw == PROTOCOL_HEADER:
            self._move_connection(CONNECTION_TRANSITIONS[self.state][self._peer, ProtocolHeader])
        else:
            self._end()
        return size

    def _is_refusal(self, data: bytes, position: int) -> bool:
        """Client: whether the octets are the protocol header of a server that wants another version."""
        return (
            self.role is Role.CLIENT
            and self.state in (ConnectionState.HEADER, ConnectionState.WANT_START)
            and data.startswith(PROTOCOL_HEADER[:4], position)
        )

    def _end(self) -> None:
        """Read nothing more, and let go of what was collected."""
        self._has_ended = True
        self._splitter = Splitter()
        self._drop_contents()
        self._repeats.clear()

    def _drop_contents(self) -> None:
        self._contents.clear()
        self._refused.clear()
        self._sink = None

    # -- state --------------------------------------------------------------------------------------------

    def _move_connection(self, state: ConnectionState) -> None:
        super()._move_connection(state)
        self._repeats.forget()
        if state is ConnectionState.CLOSED:
            self._end()
        elif closed_by(state):
            self._drop_contents()

    def _move_channel(self, number: int, state: ChannelState) -> None:
        super()._move_channel(number, state)
        self._repeats.forget()
        self._refused.discard(number)
        content = None if state is ChannelState.OPEN else self._contents.pop(number, None)
        if content is not None and content is self._sink:
            self._sink = None

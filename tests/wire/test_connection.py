"""A connection as a whole: the handshake, what may be sent when, and that chunks do not matter."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from tests.wire.peers import (
    ConnectionPair,
    body_frame,
    content,
    cut,
    deliver,
    failure_of,
    feed,
    frame,
    header_frame,
    method_octets,
    normal,
    open_client,
    publish,
)
from tests.wire.strategies import ALL_METHODS
from txmsg.errors import EncodeError, LocalProtocolError
from txmsg.wire.connection import ChannelState, ConnectionState, Limits, Role, WireConnection
from txmsg.wire.constants import CLASS_CONNECTION
from txmsg.wire.events import MethodReceived, ProtocolFailure, ProtocolHeaderReceived
from txmsg.wire.layout import Method
from txmsg.wire.methods import basic, channel, connection, exchange, queue
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties

C, S = Role.CLIENT, Role.SERVER
CHANNEL_MOVES = (channel.Open, channel.OpenOk, channel.Close, channel.CloseOk)


# -- the handshake ----------------------------------------------------------------------------------------


def test_the_handshake() -> None:
    """G-01: both ends go through it together; the client's limits come from tune-ok."""
    pair = ConnectionPair(channels=(), frame_max=8192, channel_max=7)
    assert pair.client.state is pair.server.state is ConnectionState.OPEN
    assert (pair.client.frame_max, pair.client.channel_max) == (8192, 7)
    assert repr(pair.client) == "<WireConnection client: open, 0 channels, frame_max 8192, channel_max 7>"


def test_the_protocol_header_is_sent_once() -> None:
    """G-01: eight octets."""
    client = WireConnection(C)
    assert client.send_protocol_header() == b"AMQP\x00\x00\x09\x01"
    with pytest.raises(LocalProtocolError, match="already sent"):
        client.send_protocol_header()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(
    ("raw", "version"),
    [
        (b"AMQP\x00\x00\x09\x01", (0, 0, 9, 1)),
        (b"AMQP\x01\x01\x00\x09", (1, 1, 0, 9)),
        (b"AMQP\x00\x01\x00\x00", (0, 1, 0, 0)),
        (b"GET / HT", ()),
    ],
)
def test_a_server_hears_the_header_of_any_version(raw: bytes, version: tuple[int, ...], whole: bool) -> None:
    """G-02: only 0-9-1 goes on; for the others the layer above answers with our own header."""
    server = WireConnection(S)
    chunks = [raw] if whole else cut(raw, range(8))
    assert feed(server, chunks) == [ProtocolHeaderReceived(raw, version)]
    if version == (0, 0, 9, 1):
        assert server.state is ConnectionState.WANT_START
    else:
        assert server.receive(frame(8, 0, b"x")) == []
        assert server.send_protocol_header() == b"AMQP\x00\x00\x09\x01"


@pytest.mark.parametrize("whole", [True, False])
def test_a_client_hears_a_refusal(whole: bool) -> None:
    """G-02: the server's own header, then nothing more, whatever comes."""
    client = WireConnection(C)
    client.send_protocol_header()
    raw = b"AMQP\x00\x01\x00\x00"
    octets = raw + b"garbage"
    chunks = [octets] if whole else cut(octets, range(len(octets)))
    assert feed(client, chunks) == [ProtocolHeaderReceived(raw, (0, 1, 0, 0))]
    assert client.receive_eof() == ""


def test_a_header_after_start_is_a_violation() -> None:
    """F32: "A" is no frame type, except where a refusal can stand."""
    failure_of(open_client().receive(b"AMQP\x00\x00\x09\x01"), 501)


def test_text_before_the_header_was_sent() -> None:
    """Bad input of the issue: a server that speaks first is no AMQP server."""
    assert "SSH" in failure_of(WireConnection(C).receive(b"SSH-2.0-x\r\n"), 501)


def test_secure_may_repeat() -> None:
    """R-03: a SASL mechanism may need several rounds."""
    pair = ConnectionPair.__new__(ConnectionPair)
    pair.wire = {role: WireConnection(role) for role in Role}
    pair.client, pair.server = pair.wire[C], pair.wire[S]
    pair.server.receive(pair.client.send_protocol_header())
    pair.say(S, 0, connection.Start())
    pair.say(C, 0, connection.StartOk())
    for _ in range(3):
        pair.say(S, 0, connection.Secure(b"challenge"))
        pair.say(C, 0, connection.SecureOk(b"response"))
    pair.say(S, 0, connection.Tune())


def test_methods_before_tune_have_the_smallest_frame() -> None:
    """R19, G-11: 4096 before tune, both ways; 8 more are taken, because implementations count differently."""
    client = WireConnection(C)
    client.send_protocol_header()

    def start(size: int) -> bytes:
        rest = size - 8 - 4 - 2 - 4 - 4 - 4
        return method_octets(0, 10, 10, b"\x00\x09" + b"\x00" * 4 + struct.pack(">I", rest) + b"m" * rest + b"\x00" * 4)

    assert len(start(4104)) == 4104
    assert "larger than the 4104" in failure_of(WireConnection(C).receive(start(4105)), 501)
    (event,) = client.receive(start(4104))
    assert isinstance(event, MethodReceived)
    with pytest.raises(EncodeError, match=r"connection.start-ok: .* frame_max is 4096"):
        client.send_method(0, connection.StartOk(response=b"t" * 5000))
    assert client.state is ConnectionState.WANT_START_OK
    client.send_method(0, connection.StartOk(response=b"t" * 3000))


def test_the_first_limit_can_be_raised() -> None:
    """RabbitMQ's initial_frame_max: an access token may be longer than 4 KiB."""
    client = WireConnection(C, Limits(initial_frame_max=8192))
    client.send_protocol_header()
    client.receive(method_octets(0, 10, 10, b"\x00\x09" + b"\x00" * 12))
    assert len(client.send_method(0, connection.StartOk(response=b"t" * 7000))) > 7000


@pytest.mark.parametrize(
    ("channel_max", "frame_max", "expected"),
    [(0, 0, (65535, 131072)), (10, 4096, (10, 4096)), (65535, 131072, (65535, 131072))],
)
def test_tuned_values(channel_max: int, frame_max: int, expected: tuple[int, int]) -> None:
    """G-04, F39: 0 is no limit of the peer's, and then ours holds."""
    client = WireConnection(C)
    client.set_tuned(channel_max, frame_max)
    assert (client.channel_max, client.frame_max) == expected


@pytest.mark.parametrize(("channel_max", "frame_max"), [(0, 4095), (0, 131073), (0, 1), (65536, 0), (-1, 0)])
def test_values_that_nobody_may_agree_on(channel_max: int, frame_max: int) -> None:
    """R19, G-05: less than the minimum, or more than our own cap."""
    client = WireConnection(C)
    with pytest.raises(LocalProtocolError):
        client.set_tuned(channel_max, frame_max)
    assert client.frame_max == 4096


# -- sending ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "method", "code"),
    [
        (0, queue.Declare(), 503),
        (1, connection.Blocked(), 503),
        (1, connection.Close(), 503),
        (0, connection.OpenOk(), 503),
        (1, queue.DeclareOk(), 503),
        (1, channel.Open(), 503),
        (2, queue.Declare(), 504),
        (9, channel.Open(), 504),
        (-1, channel.Open(), 504),
        (70000, channel.Open(), 504),
        (1, basic.Publish(), 503),
    ],
)
def test_what_is_not_allowed_is_not_sent(number: int, method: Method, code: int) -> None:
    """R21: a LocalProtocolError that names the method, and nothing has changed."""
    pair = ConnectionPair(channel_max=8)
    with pytest.raises(LocalProtocolError, match=method.NAME) as caught:
        pair.client.send_method(number, method)
    assert caught.value.reply_code == code
    pair.check_states()
    pair.say(C, 1, queue.Declare())


def test_errors_say_what_stands_in_the_way() -> None:
    """The state is in the text: the user's first question."""
    client = WireConnection(C)
    with pytest.raises(LocalProtocolError, match="has not sent the protocol header"):
        client.send_method(1, channel.Open())
    pair = ConnectionPair()
    pair.client.send_method(1, channel.Close())
    with pytest.raises(LocalProtocolError, match="channel 1 is closing: the client has sent close"):
        pair.client.encode_ack(1, 1)
    pair.client.send_method(0, connection.Close())
    with pytest.raises(LocalProtocolError, match="the connection is closing: the client has sent close"):
        pair.client.send_method(1, channel.CloseOk())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda c: c.send_method(1, queue.Declare(queue="x" * 256)), "queue.declare.queue"),
        (lambda c: c.send_method(1, queue.Declare(arguments={"x": "y" * 5000})), "queue.declare: .*frame_max is 4096"),
        (lambda c: c.send_method(2, channel.Open("x" * 256)), "channel.open"),
        (lambda c: c.send_method(1, channel.Close(70000)), "channel.close.reply_code"),
        (lambda c: c.send_content(1, basic.Publish(exchange="x" * 256), b"", b""), "basic.publish.exchange"),
        (lambda c: c.send_content(1, basic.Publish(), NO_PROPERTIES, "text"), "a body must be bytes"),
        (lambda c: c.send_content(1, basic.Publish(), BasicProperties(priority=256), b""), "priority"),
        (lambda c: c.send_content(1, basic.Publish(), b"\x00" * 5000, b""), "headers are 5000 bytes"),
        (lambda c: c.encode_publish(1, "x" * 256, "", False, NO_PROPERTIES, b""), "basic.publish.exchange"),
        (lambda c: c.encode_publish(1, ["x"], "", False, NO_PROPERTIES, b""), "basic.publish.exchange"),
        (lambda c: c.encode_publish(1, "x", "", False, NO_PROPERTIES, "text"), "a body must be bytes"),
        (lambda c: c.encode_publish(1, "x", "", False, b"\x00" * 5000, b""), "headers are 5000 bytes"),
        (lambda c: c.encode_publish(1, "x", "", False, BasicProperties(priority=-1), b""), "priority"),
        (lambda c: c.encode_ack(1, -1), "basic.ack.delivery_tag"),
        (lambda c: c.encode_ack(1, 2**64), "basic.ack.delivery_tag"),
        (lambda c: c.encode_nack(1, "5"), "basic.nack.delivery_tag"),
        (lambda c: c.encode_reject(1, None), "basic.reject.delivery_tag"),
    ],
)
def test_what_cannot_be_encoded_changes_nothing(call: Callable[[WireConnection], object], match: str) -> None:
    """R21, Q-22, G-11: an EncodeError that names the argument, also after the caches are warm."""
    pair = ConnectionPair(frame_max=4096)
    for _ in range(3):
        with pytest.raises(EncodeError, match=match):
            call(pair.client)
        pair.check_states()
        pair.server.receive(b"".join(pair.client.encode_publish(1, "x", "", False, NO_PROPERTIES, b"")))
        for octets in (pair.client.encode_ack(1, 1), pair.client.encode_nack(1, 1), pair.client.encode_reject(1, 1)):
            assert len(pair.server.receive(octets)) == 1


def test_content_and_no_content_are_not_mixed_up() -> None:
    """A publish without its content would take the peer's next frame for it."""
    pair = ConnectionPair()
    with pytest.raises(LocalProtocolError, match="use send_content"):
        pair.client.send_method(1, basic.Publish())
    with pytest.raises(LocalProtocolError, match="use send_method"):
        pair.client.send_content(1, queue.Declare(), NO_PROPERTIES, b"")


# -- closing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "missing"), [(5000, 2000), (5000, 20), (100, 20), (100, 1), (100, 108), (100, 120)])
def test_what_was_on_its_way_is_discarded_until_close_ok(size: int, missing: int) -> None:
    """R17, F31: deliveries after our channel.close, whole, cut and begun before it, are dropped unread."""
    pair = ConnectionPair((1, 2), frame_max=4096)
    late = content(deliver(1), 1, b"x" * size)
    begun, rest = late[:-missing], late[-missing:]
    assert pair.client.receive(begun) == []
    close = pair.client.send_method(1, channel.Close(200))
    after = rest + content(deliver(1), 1, b"late") + method_octets(1, 60, 31, b"\x02ct") + header_frame(1, 9)
    assert pair.client.receive(after) == []
    assert len(pair.client.receive(content(deliver(2), 2, b"other"))) == 1
    pair.server.receive(close)
    assert pair.client.receive(pair.server.send_method(1, channel.CloseOk())) == [MethodReceived(1, channel.CloseOk())]
    assert pair.client.channel_state(1) is ChannelState.CLOSED
    assert "not open" in failure_of(pair.client.receive(deliver(1)), 504)


def test_a_number_can_be_used_again() -> None:
    """R17: nothing of the old channel is left: not its content, not its caches."""
    pair = ConnectionPair()
    for _ in range(3):
        assert len(pair.client.receive(content(deliver(1), 1, b"x"))) == 1
        assert pair.client.receive(deliver(1)) == []
        pair.say(C, 1, channel.Close())
        pair.say(S, 1, channel.CloseOk())
        pair.say(C, 1, channel.Open())
        pair.say(S, 1, channel.OpenOk())


def test_after_our_connection_close_only_close_counts() -> None:
    """Section 1.4.2.9: everything else is discarded, on every channel, until close-ok; then nothing is read."""
    pair = ConnectionPair((1, 2))
    cut_content = content(deliver(2), 2, b"y" * 100)
    assert pair.client.receive(cut_content[:-20]) == []
    close = pair.client.send_method(0, connection.Close(200, "bye"))
    late = cut_content[-20:] + content(deliver(1), 1, b"x") + method_octets(0, 10, 60, b"\x00")
    assert pair.client.receive(late + frame(8, 0, b"")) == []
    assert normal(pair.server.receive(close)) == normal([MethodReceived(0, connection.Close(200, "bye"))])
    close_ok = pair.server.send_method(0, connection.CloseOk())
    assert pair.server.state is ConnectionState.CLOSED
    assert pair.client.receive(close_ok + b"garbage") == [MethodReceived(0, connection.CloseOk())]
    assert pair.client.state is ConnectionState.CLOSED
    assert pair.client.channels == pair.server.channels == {}
    assert pair.client.receive(b"more") == pair.server.receive(b"more") == []


def test_the_peers_connection_close_can_cross_ours() -> None:
    """F30: each is answered; the connection is closed when both close-ok have passed."""
    pair = ConnectionPair()
    ours = pair.client.send_method(0, connection.Close(200))
    theirs = pair.server.send_method(0, connection.Close(320))
    assert len(pair.client.receive(theirs)) == len(pair.server.receive(ours)) == 1
    pair.say(C, 0, connection.CloseOk())
    pair.say(S, 0, connection.CloseOk())
    assert pair.client.state is ConnectionState.CLOSED


def test_nothing_is_sent_for_a_channel_while_the_peer_closes() -> None:
    """Settling after the server's channel.close would be a second error."""
    pair = ConnectionPair()
    for _ in range(3):
        pair.client.encode_ack(1, 1)
        pair.client.encode_publish(1, "", "q", False, NO_PROPERTIES, b"x")
    pair.say(S, 1, channel.Close(406))
    for call in (
        lambda: pair.client.encode_ack(1, 1),
        lambda: pair.client.encode_publish(1, "", "q", False, NO_PROPERTIES, b"x"),
        lambda: pair.client.send_method(1, queue.Declare()),
    ):
        with pytest.raises(LocalProtocolError, match="the server has sent close"):
            call()
    pair.say(C, 1, channel.CloseOk())
    with pytest.raises(LocalProtocolError, match="channel 1 is not open"):
        pair.client.encode_ack(1, 1)


def test_a_violation_is_the_end() -> None:
    """Z4: events before it are given, nothing after it; our own close can still be sent."""
    client = open_client()
    good = content(deliver(1), 1, b"x")
    events = client.receive(good + frame(9, 1, b"") + good)
    assert len(events) == 2
    failure_of(events, 501)
    assert client.receive(good) == []
    assert client.send_method(0, connection.Close(501))


@pytest.mark.parametrize(
    ("octets", "words"),
    [
        (b"", ""),
        (b"\x01\x00", "inside a frame, after 2 octets"),
        (deliver(1)[:-1], f"inside a frame, after {len(deliver(1)) - 1} octets"),
        (deliver(1), "before the content header due on channel 1"),
        (deliver(1) + header_frame(1, 10), "inside a content on channel 1, after 0 of its 10 octets"),
        (deliver(1) + header_frame(1, 10) + body_frame(1, b"abc"), "after 3 of its 10 octets"),
        (deliver(1) + header_frame(1, 10) + body_frame(1, b"abc")[:-2], "inside a body frame, 2 octets before"),
        (content(deliver(1), 1, b"x"), ""),
        (frame(9, 0, b""), ""),
    ],
)
def test_an_end_of_stream_says_what_was_cut(octets: bytes, words: str) -> None:
    """F5: words for the error text, never a violation of their own."""
    client = open_client()
    client.receive(octets)
    note = client.receive_eof()
    assert words in note
    assert bool(note) is bool(words)
    assert client.receive(deliver(1)) == []


def test_an_end_in_the_handshake_shows_the_octets() -> None:
    """Bad input of the issue: too short to judge, but telling."""
    client = WireConnection(C)
    client.send_protocol_header()
    assert client.receive(b"bye\n") == []
    assert "b'bye\\n'" in client.receive_eof()


# -- all of it ----------------------------------------------------------------------------------------------


def test_an_exchange_of_everything() -> None:
    """R-01 to R-68: each method and its replies pass between the two ends."""
    pair = ConnectionPair()
    for made in ALL_METHODS:
        if made.HAS_CONTENT or made.CLASS_ID == CLASS_CONNECTION or made in CHANNEL_MOVES:
            continue
        for sender in made.SENT_BY:
            if made not in (basic.Ack, basic.Nack):
                pair.say(sender, 1, made())
    pair.say(S, 0, connection.Blocked("low on memory"))
    pair.say(S, 0, connection.Unblocked())
    pair.say(C, 0, connection.UpdateSecret("s", "r"))
    pair.say(S, 0, connection.UpdateSecretOk())
    pair.say(C, 1, exchange.Declare(exchange="e"))


def test_octets_may_come_as_other_buffers() -> None:
    """`receive` is documented for bytes; what is like them is not a reason to fail."""
    octets = content(deliver(1), 1, b"x")
    assert normal(open_client().receive(bytearray(octets))) == normal(open_client().receive(octets))  # type: ignore[arg-type]
    assert normal(open_client().receive(memoryview(octets))) == normal(open_client().receive(octets))  # type: ignore[arg-type]


def test_a_defect_of_ours_does_not_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Z4: `receive` never raises; a defect ends the connection with 541 and keeps its cause."""
    client = open_client()
    monkeypatch.setattr(basic.Cancel, "decode", lambda *_: 1 / 0)
    events = client.receive(content(deliver(1), 1, b"x") + method_octets(1, 60, 30, b"\x02ct\x00"))
    assert "ZeroDivisionError" in failure_of(events, 541)
    assert isinstance(events[-1], ProtocolFailure)
    assert isinstance(events[-1].error.__cause__, ZeroDivisionError)
    assert client.receive(publish(1)) == []

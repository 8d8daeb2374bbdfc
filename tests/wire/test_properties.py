"""The 14 properties of a message: both ways, hostile octets, caches, and what a user may do with them."""

from __future__ import annotations

import contextlib
import copy
import gc
import pickle
import struct
import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pamqp.commands
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import (
    PROPERTY_KINDS,
    mutated,
    properties,
    property_lists,
    same_value,
    short_texts,
    unencodable,
)
from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire.properties import NO_PROPERTIES, BasicProperties, UndecodableProperties
from txmsg.wire.tables import TableLimits, UnknownFieldKind, encode_table

FULL = BasicProperties(
    content_type="application/json",
    content_encoding="utf-8",
    headers={"a": 1, "b": [True, None]},
    delivery_mode=2,
    priority=0,
    correlation_id="c",
    reply_to="r",
    expiration="60000",
    message_id="m",
    timestamp=1_700_000_000,
    type="t",
    user_id="guest",
    app_id="app",
    cluster_id="",
)


def test_order_flags_and_types_are_those_of_another_library() -> None:
    """Q-01 to Q-14: names in wire order, the flag of each, and the octets of all of them together."""
    theirs = pamqp.commands.Basic.Properties
    renamed = {"type": "message_type"}
    assert [renamed.get(name, name) for name in BasicProperties.NAMES] == list(theirs.__slots__)
    for name in BasicProperties.NAMES:
        value = getattr(FULL, name)
        octets = BasicProperties(**{name: value}).encode()
        assert struct.unpack_from(">H", octets)[0] == theirs.flags[renamed.get(name, name)]
        assert PROPERTY_KINDS[name].replace("longlong", "timestamp") == getattr(theirs, f"_{renamed.get(name, name)}")
    moment = datetime.fromtimestamp(1_700_000_000, UTC)
    values = {**FULL.as_dict(), "headers": {"b": [True, None]}, "timestamp": moment}
    marshalled = theirs(**{renamed.get(name, name): value for name, value in values.items()}).marshal()
    # pamqp does not send an empty string.
    assert FULL.replace(headers={"b": [True, None]}, cluster_id=None).encode() == marshalled


@given(properties())
def test_properties_come_back(made: BasicProperties) -> None:
    """Z1: any of the 14, with any value; falsy values are present, absent ones stay absent."""
    back = BasicProperties.decode(made.encode())
    assert same_value(back.as_dict(), made.as_dict())
    assert back.encode() == made.encode()


@given(property_lists())
def test_property_lists_come_back(octets: bytes) -> None:
    """Z2, R20: encode(decode(b)) == b, octets that are not UTF-8 included; also when it is really encoded."""
    made = BasicProperties.decode(octets)
    assert made.encode() == octets
    assert made.replace().encode() == octets


@given(st.binary(max_size=60) | mutated(property_lists()))
def test_any_octets_give_properties_or_one_error(octets: bytes) -> None:
    """Z4: RemoteProtocolError and nothing else; what is accepted stays the same when it is sent on."""
    try:
        made = BasicProperties.decode(octets)
    except RemoteProtocolError as error:
        assert error.reply_code in (501, 502)
        assert str(error).split(":")[0].split("[")[0] in ("properties", *BasicProperties.NAMES)
    else:
        again = BasicProperties.decode(made.replace().encode())
        assert same_value(again.as_dict(), made.as_dict())


@given(st.sampled_from(BasicProperties.NAMES), unencodable(), properties())
def test_any_value_is_encoded_or_named(name: str, value: Any, others: BasicProperties) -> None:
    """Z4, Q-21: the error names the property."""
    try:
        made = others.replace(**{name: value})
        BasicProperties.decode(made.encode())
    except EncodeError as error:
        assert str(error).startswith(name)
        assert error.__context__ is None


@pytest.mark.parametrize("name", sorted(set(BasicProperties.NAMES)))
def test_absent_is_not_empty(name: str) -> None:
    """Q-03, Q-05: 0, "" and {} are sent; None is not."""
    empty: Any = {"shortstr": "", "table": {}}.get(PROPERTY_KINDS[name], 0)
    made = BasicProperties.decode(BasicProperties(**{name: empty}).encode())
    assert made.as_dict() == {name: empty}
    assert getattr(NO_PROPERTIES, name) is None
    assert NO_PROPERTIES.encode() == b"\x00\x00"
    assert BasicProperties.decode(b"\x00\x00") == NO_PROPERTIES


def test_expiration_is_a_string_of_milliseconds() -> None:
    """Q-08: an int is refused where it is given, with a text that says what to write."""
    with pytest.raises(EncodeError, match=r"^expiration: expected a str of milliseconds, such as '60000', got int 60"):
        BasicProperties(expiration=60)  # type: ignore[arg-type]
    with pytest.raises(EncodeError, match="str of milliseconds"):
        FULL.replace(expiration=60.0)
    assert BasicProperties(expiration="60000").expiration == "60000"


@pytest.mark.parametrize(
    ("given_as", "seconds"),
    [
        (0, 0),
        (2**32, 2**32),
        (2**63, 2**63),
        (2**64 - 1, 2**64 - 1),
        (1_700_000_000_000, 1_700_000_000_000),
        (datetime(2023, 11, 14, 22, 13, 20, 999_999), 1_700_000_000),
        (datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC), 1_700_000_000),
        (datetime(2023, 11, 15, 0, 13, 20, tzinfo=timezone(timedelta(hours=2))), 1_700_000_000),
    ],
)
def test_a_timestamp_is_an_int_when_decoded(given_as: int | datetime, seconds: int) -> None:
    """Q-10, peers 18 (pika#1698): any 64 bits come through as an int; datetimes may be given."""
    decoded = BasicProperties.decode(BasicProperties(timestamp=given_as).encode()).timestamp
    assert type(decoded) is int
    assert decoded == seconds


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"priority": 256}, "priority: 256 is out of range, 0 to 255"),
        ({"priority": -1}, "priority: -1 is out of range"),
        ({"delivery_mode": "2"}, "delivery_mode: expected an int, got str"),
        ({"timestamp": 2**64}, "timestamp: 18446744073709551616 is out of range"),
        ({"timestamp": -1}, "timestamp: -1 is out of range"),
        ({"timestamp": 1.5}, "timestamp: expected an int of seconds or a datetime, got float"),
        ({"timestamp": datetime(1969, 1, 1)}, "timestamp: .* before 1970"),
        ({"correlation_id": 5}, "correlation_id: expected a str, got int"),
        ({"message_id": b"m"}, "message_id: expected a str, got bytes"),
        ({"reply_to": "€" * 86}, "reply_to: 258 bytes of UTF-8 do not fit a short string"),
        ({"headers": [1]}, "headers: expected a dict, got list"),
        ({"headers": {"a": {"b": object()}}}, r"headers\['a'\]\['b'\]: AMQP has no kind of field for object"),
    ],
)
def test_what_cannot_be_encoded_is_named(values: dict[str, Any], text: str) -> None:
    """R21, Q-22: when it is encoded; the next attempt says the same, and nothing is remembered."""
    made = BasicProperties(**values)
    for _ in range(2):
        with pytest.raises(EncodeError, match=f"^{text}"):
            made.encode()


# -- hostile octets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(FULL.encode())))
def test_a_cut_anywhere_is_refused(cut: int) -> None:
    """0.8, R18: a cut flag word too, which others read as no property at all."""
    with pytest.raises(RemoteProtocolError):
        BasicProperties.decode(FULL.encode()[:cut])


def test_octets_left_over_are_refused() -> None:
    """R18: nothing may follow the last property."""
    with pytest.raises(RemoteProtocolError, match="3 octets after the last property") as caught:
        BasicProperties.decode(FULL.encode() + b"abc")
    assert caught.value.reply_code == 501


@pytest.mark.parametrize(
    ("flags", "accepted"),
    [
        (b"\x80\x01\x00\x00", True),
        (b"\x80\x01\x00\x01\x00\x00", True),
        (b"\x80\x01\x80\x00", False),
        (b"\x80\x01\x00\x02", False),
        (b"\x80\x01\x00\x01\xff\xff", False),
        (b"\x80\x02", False),
        (b"\x80\x03\x00\x00", False),
    ],
)
def test_continuation_flags(flags: bytes, accepted: bool) -> None:
    """Q-15: bit 0 announces another flag word, bit 1 and the bits of further words stand for no property."""
    octets = flags + b"\x01x"
    if accepted:
        made = BasicProperties.decode(octets)
        assert made == BasicProperties(content_type="x")
        assert made.encode() == b"\x80\x00\x01x"
    else:
        with pytest.raises(RemoteProtocolError, match="stand for no known property"):
            BasicProperties.decode(octets)


@pytest.mark.parametrize("octets", [b"\x00\x01", b"\x00\x01\x00", b"\x00\x01" * 1000, b"\x00\x01" * 1000 + b"\x00"])
def test_endless_continuation_flags_are_refused(octets: bytes) -> None:
    """Q-15, pamqp#63: the words end with the octets."""
    with pytest.raises(RemoteProtocolError, match="continued flag word is cut"):
        BasicProperties.decode(octets)


def test_an_unknown_kind_in_headers_is_told_apart() -> None:
    """R20, peers 19: the caller can see that only this message is affected."""
    octets = b"\x20\x00" + struct.pack(">I", 3) + b"\x01k?"
    with pytest.raises(UnknownFieldKind, match=r"^headers\['k'\]: unknown kind"):
        BasicProperties.decode(octets)


def test_the_limits_reach_the_headers() -> None:
    """R19: the connection's limits hold."""
    octets = BasicProperties(headers={"a": [1, 2]}).encode()
    assert BasicProperties.decode(octets, TableLimits(2, 3)).headers == {"a": [1, 2]}
    for limits in (TableLimits(1, 3), TableLimits(2, 2)):
        with pytest.raises(RemoteProtocolError, match="headers"):
            BasicProperties.decode(octets, limits)


@pytest.mark.parametrize(
    "octets",
    [
        b"\xff\xfc" + b"\xff" * 100_000,
        b"\x20\x00" + encode_table({"k": "\udcff" * 120_000}),
        b"\x20\x00" + struct.pack(">I", 6 * 20_000) + b"\x04aaaaV" * 20_000,
        b"\xdf\xfc" + (b"\xff" + b"\xff" * 255) * 2 + b"\x00" * 2 + (b"\xff" + b"\xff" * 255) * 9,
    ],
)
def test_memory_is_bounded(octets: bytes) -> None:
    """Z5: at most 8 bytes for each octet, 160 for each of 4096 header entries, 8 KiB for the rest."""
    gc.collect()
    tracemalloc.start()
    try:
        kept: object = None
        with contextlib.suppress(RemoteProtocolError):
            kept = BasicProperties.decode(octets)
        _, peak = tracemalloc.get_traced_memory()
        del kept
    finally:
        tracemalloc.stop()
    assert peak <= 8 * len(octets) + 160 * 4096 + 8192


# -- caches -----------------------------------------------------------------------------------------------


def test_the_encoding_is_remembered_without_headers() -> None:
    """Architecture 4.1: the same bytes object; with headers, which can change, it is made anew."""
    made = FULL.replace(headers=None)
    assert made.encode() is made.encode()
    headers = {"a": 1}
    mutable = FULL.replace(headers=headers)
    before = mutable.encode()
    headers["a"] = 2
    after = mutable.encode()
    assert before != after
    assert BasicProperties.decode(after).headers == {"a": 2}
    again = mutable.encode_with_message_id(b"1")
    headers["a"] = 3
    assert BasicProperties.decode(mutable.encode_with_message_id(b"1")).headers == {"a": 3}
    assert BasicProperties.decode(again).headers == {"a": 2}


def test_what_was_decoded_is_passed_on_without_encoding() -> None:
    """Architecture 4.1: the octets themselves, unless there are headers, which the receiver may change."""
    octets = FULL.replace(headers=None).encode()
    assert BasicProperties.decode(octets).encode() is octets
    received = BasicProperties.decode(FULL.encode())
    assert isinstance(received.headers, dict)
    received.headers["hops"] = 1
    assert BasicProperties.decode(received.encode()).headers == {"a": 1, "b": [True, None], "hops": 1}


@given(properties(), short_texts(), short_texts())
def test_a_message_id_can_be_put_in(made: BasicProperties, one: str, two: str) -> None:
    """R5, R7: the same as replacing it, the second time (from the template) too."""
    for message_id in (one, two, one):
        octets = message_id.encode("utf-8", "surrogateescape")
        assert made.encode_with_message_id(octets) == made.replace(message_id=message_id).encode()
    assert same_value(BasicProperties.decode(made.encode()).as_dict(), made.as_dict())


def test_a_message_id_can_be_put_in_beside_a_datetime() -> None:
    """Q-10, R5: what only the plain codec encodes, with and without headers."""
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    for made in (
        BasicProperties(timestamp=moment),
        BasicProperties(timestamp=moment, headers={"a": 1}, message_id="x"),
    ):
        for message_id in ("one", "two"):
            octets = made.encode_with_message_id(message_id.encode())
            assert octets == made.replace(message_id=message_id).encode()
            assert BasicProperties.decode(octets).message_id == message_id


@pytest.mark.parametrize("made", [NO_PROPERTIES, FULL])
def test_a_message_id_must_fit(made: BasicProperties) -> None:
    """Q-22: also from the template."""
    for _ in range(2):
        with pytest.raises(EncodeError, match=r"^message_id: 256 bytes do not fit"):
            made.encode_with_message_id(b"x" * 256)
        assert BasicProperties.decode(made.encode_with_message_id(b"x" * 255)).message_id == "x" * 255


# -- as a value -------------------------------------------------------------------------------------------


def test_equality() -> None:
    """Q-17: the same properties; False for foreign types, where others fail with AttributeError."""
    assert copy.copy(FULL) == FULL
    assert FULL.replace(priority=1) != FULL
    for foreign in (None, "text", 5, object(), FULL.as_dict()):
        assert foreign != FULL
        assert not foreign == FULL  # noqa: SIM201  # both operators
    assert BasicProperties(content_type="") != NO_PROPERTIES


def test_properties_are_hashable_without_headers() -> None:
    """They can be keys of caches; a dict among them cannot."""
    assert {FULL.replace(headers=None): 1}[FULL.replace(headers=None)] == 1
    with pytest.raises(TypeError):
        hash(FULL)


@pytest.mark.parametrize("name", BasicProperties.NAMES)
def test_properties_are_read_only(name: str) -> None:
    """They are shared between messages: no property can be assigned or deleted."""
    with pytest.raises(AttributeError):
        setattr(FULL, name, None)
    with pytest.raises(AttributeError):
        delattr(FULL, name)
    assert getattr(FULL, name) is not None
    assert not hasattr(FULL, "__dict__")


def test_replace() -> None:
    """A copy; None makes a property absent; what is not a property is a TypeError that names it."""
    changed = FULL.replace(priority=9, headers=None)
    assert (changed.priority, changed.headers, changed.app_id) == (9, None, "app")
    assert FULL.priority == 0
    with pytest.raises(TypeError, match="prioriy"):
        FULL.replace(prioriy=1)
    with pytest.raises(TypeError, match="prioriy"):
        BasicProperties(prioriy=1)  # type: ignore[call-arg]


def test_copies_and_pickles() -> None:
    """Properties travel to worker processes."""
    for twin in (copy.deepcopy(FULL), pickle.loads(pickle.dumps(FULL))):
        assert twin == FULL
        assert twin.encode() == FULL.encode()
    assert copy.deepcopy(FULL).headers is not FULL.headers


def test_repr_shows_what_is_present() -> None:
    """Q-16: in wire order, long values cut, and it never fails."""
    assert repr(NO_PROPERTIES) == "BasicProperties()"
    assert repr(BasicProperties(app_id="a", priority=0)) == "BasicProperties(priority=0, app_id='a')"

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    deep: Any = None
    for _ in range(5000):
        deep = [deep]
    for headers in ({"k" * 500: "v" * 10**6}, {"a": Broken()}, {"a": deep}, {str(n): n for n in range(10_000)}):
        made = BasicProperties(headers=headers, message_id="i\n" * 1000)
        assert len(repr(made)) < 1000
        assert "\n" not in repr(made)


def test_undecodable_properties_keep_the_octets_and_the_reason() -> None:
    """R20: the message can be rejected, counted, looked at; the octets are not in the repr."""
    octets = b"\x80\x00\x05secret"
    with pytest.raises(RemoteProtocolError) as caught:
        BasicProperties.decode(octets)
    made = UndecodableProperties(octets, caught.value)
    assert made.raw == octets
    assert made.error is caught.value
    assert "secret" not in repr(made)
    assert "9 bytes: " in repr(made)


def test_what_was_received_is_kept_as_octets_for_whoever_passes_it_on() -> None:
    """Also with headers, whose encoding need not be ours; what was made here was not received (R34)."""
    octets = b"\x20\x00" + (8).to_bytes(4, "big") + b"\x01at\x02\x01bt\x07"
    decoded = BasicProperties.decode(octets)
    assert decoded.headers == {"a": True, "b": True}
    assert decoded.received == octets
    assert decoded.encode() != octets
    assert decoded.replace(priority=1).received is None
    assert BasicProperties.decode(FULL.encode()).received == FULL.encode()
    assert FULL.received is None

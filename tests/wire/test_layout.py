"""From a declaration to a codec: the decorator, the written source, and the plain codec behind it."""

from __future__ import annotations

import re
import sys
from dataclasses import field, fields

import pytest

from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire import compiler
from txmsg.wire.layout import (
    METHODS,
    Bit,
    Long,
    LongLong,
    LongStr,
    LongText,
    Method,
    Octet,
    SecretLongStr,
    SecretLongText,
    Short,
    ShortStr,
    Table,
    method,
)
from txmsg.wire.methods.senders import BOTH, CLIENT
from txmsg.wire.tables import TableLimits

#: A class that the specification does not have.
CLASS = 999


@method(CLASS, 1, sent_by=CLIENT)
class Everything(Method):
    """All kinds of arguments, in an order that makes every kind of seam between them."""

    first: Octet = 1
    name: ShortStr = "n"
    b0: Bit = False
    b1: Bit = True
    b2: Bit = False
    b3: Bit = False
    b4: Bit = False
    b5: Bit = False
    b6: Bit = False
    b7: Bit = False
    b8: Bit = True
    short: Short = 2
    octets: LongStr = b"\x00\xff"
    other: ShortStr = "ö"
    table: Table = field(default_factory=dict)
    long: Long = 3
    longlong: LongLong = 4
    text: LongText = "t"
    secret: SecretLongStr = b"hunter2"
    secret_text: SecretLongText = "hunter2"
    lonely: Bit = False


@method(CLASS, 2, sent_by=CLIENT)
class Ask(Method):
    """A method that has a reply."""


@method(CLASS, 3, sent_by=BOTH, replies_to=Ask)
class AskOk(Method):
    """The reply."""

    answer: Short = 0


#: Not left in the registry, where other tests look for the methods of the specification.
REGISTERED = [METHODS.pop((CLASS, number)) for number in (1, 2, 3)]

EXPECTED = (
    b"\x03\xe7\x00\x01"  # class, method
    b"\x01" + b"\x01n"  # first, name
    b"\x02\x01"  # b0 to b7, b8
    b"\x00\x02"  # short
    b"\x00\x00\x00\x02\x00\xff"  # octets
    b"\x02\xc3\xb6"  # other
    b"\x00\x00\x00\x00"  # table
    b"\x00\x00\x00\x03" + b"\x00\x00\x00\x00\x00\x00\x00\x04"  # long, longlong
    b"\x00\x00\x00\x01t" + b"\x00\x00\x00\x07hunter2" * 2 + b"\x00"  # text, secrets, lonely
)


def test_every_kind_of_argument() -> None:
    """R-66: the fast codec and the plain one agree octet for octet; a ninth bit begins a new octet."""
    made = Everything()
    assert made.encode() == EXPECTED
    assert Method.encode(made) == EXPECTED
    assert Everything.decode(EXPECTED) == made
    assert Method.decode.__func__(Everything, EXPECTED) == made  # type: ignore[attr-defined]


def test_the_first_bit_is_the_lowest() -> None:
    """R-66: bits are packed from the lowest, and each one is decoded to its own argument."""
    at = EXPECTED.index(b"\x02\x01\x00\x02")
    for bit in range(9):
        values = {f"b{n}": n == bit for n in range(9)}
        octets = Everything(**values).encode()  # type: ignore[arg-type]
        assert int.from_bytes(octets[at : at + 2], "little") == 1 << bit
        back = Everything.decode(octets)
        assert {name: getattr(back, name) for name in values} == values
        assert Method.encode(back) == octets


def test_bits_that_are_not_declared_are_ignored() -> None:
    """Z2: the exception for methods: they are dropped when it is encoded again."""
    changed = EXPECTED.replace(b"\x02\x01\x00\x02", b"\x02\xff\x00\x02")[:-1] + b"\xfe"
    assert Everything.decode(changed) == Everything()


def test_the_declaration_becomes_a_slotted_dataclass() -> None:
    """Architecture 3: fields in the specification's order, no __dict__, a fresh table for each instance."""
    made, twin = Everything(), Everything()
    assert [spec.name for spec in fields(made)][:2] == ["first", "name"]
    assert not hasattr(made, "__dict__")
    made.table["a"] = 1
    assert twin.table == {}
    assert made != twin
    assert made != object()
    assert [Everything, Ask, AskOk] == REGISTERED
    assert Everything.NAME == "test_layout.everything"


def test_secrets_are_not_shown() -> None:
    """C3.2: neither in repr, nor in an error about them."""
    made = Everything(secret=b"swordfish", secret_text="swordfish", name="x" * 5000)
    assert "swordfish" not in repr(made)
    assert "secret=***" in repr(made)
    assert len(repr(made)) < 600
    with pytest.raises(EncodeError, match="secret: expected bytes, got str") as caught:
        Everything(secret="swordfish").encode()  # type: ignore[arg-type]
    assert "swordfish" not in str(caught.value)


@pytest.mark.parametrize(
    ("argument", "value", "text"),
    [
        ("first", 256, "256 is out of range, 0 to 255"),
        ("first", -1, "-1 is out of range, 0 to 255"),
        ("short", 2**16, "out of range, 0 to 65535"),
        ("long", 2**32, "out of range, 0 to 4294967295"),
        ("longlong", 2**64, "out of range, 0 to 18446744073709551615"),
        ("longlong", 1.0, "expected an int, got float"),
        ("short", "1", "expected an int, got str"),
        ("long", None, "expected an int, got NoneType"),
        ("name", None, "expected a str, got NoneType"),
        ("name", b"n", "expected a str, got bytes"),
        ("name", "n" * 256, "256 bytes of UTF-8 do not fit a short string"),
        ("other", "\ud800", "lone surrogates"),
        ("b1", "no", "expected a bool, got str"),
        ("b1", None, "expected a bool, got NoneType"),
        ("b1", 2, "expected a bool, got int"),
        ("lonely", [], "expected a bool, got list"),
        ("octets", "text", "expected bytes, got str"),
        ("octets", 5, "expected bytes, got int"),
        ("text", b"octets", "expected a str, got bytes"),
        ("table", None, "expected a dict, got NoneType"),
        ("table", {"a": object()}, "no kind of field for object"),
    ],
)
def test_what_cannot_be_encoded_is_named(argument: str, value: object, text: str) -> None:
    """Q-21, R21: method, argument, and what was expected; nothing else gets out, and nothing chained."""
    made = Everything()
    setattr(made, argument, value)
    with pytest.raises(EncodeError, match=rf"^test_layout\.everything\.{argument}.*{text}") as caught:
        made.encode()
    assert caught.value.__context__ is None


def test_encoding_an_unset_argument_is_an_error() -> None:
    """A deleted slot is a mistake that the plain codec reports as Python does."""
    made = Everything()
    del made.name
    with pytest.raises(AttributeError):
        made.encode()


@pytest.mark.parametrize("cut", range(4, len(EXPECTED)))
def test_a_cut_anywhere_is_refused(cut: int) -> None:
    """R18, Z4: missing octets are 501, or 502 in the table; both codecs say the same."""
    with pytest.raises(RemoteProtocolError) as fast:
        Everything.decode(EXPECTED[:cut])
    with pytest.raises(RemoteProtocolError) as plain:
        Method.decode.__func__(Everything, EXPECTED[:cut])  # type: ignore[attr-defined]
    assert fast.value.reply_code in (501, 502)
    assert str(fast.value).startswith("test_layout.everything.")
    assert str(fast.value) == str(plain.value)
    with pytest.raises(RemoteProtocolError):
        Everything.decode(EXPECTED, 4, cut)


@pytest.mark.parametrize("more", [b"\x00", b"more", b"\xce" * 300])
def test_octets_left_over_are_refused(more: bytes) -> None:
    """F32: trailing octets are 501 and counted."""
    with pytest.raises(RemoteProtocolError, match=f"{len(more)} octets after the last argument") as caught:
        Everything.decode(EXPECTED + more)
    assert caught.value.reply_code == 501


def test_decoding_inside_a_larger_buffer() -> None:
    """Architecture 4.3: arguments can be decoded where they are, and not beyond their end."""
    buffer = b"head" + EXPECTED + b"tail"
    assert Everything.decode(buffer, 8, 4 + len(EXPECTED)) == Everything()


def test_the_limits_reach_the_tables() -> None:
    """R19: the connection's limits hold for the tables in methods."""
    octets = Everything(table={"a": [1, 2, 3]}).encode()
    assert Everything.decode(octets, 4, len(octets), TableLimits(2, 4)).table == {"a": [1, 2, 3]}
    with pytest.raises(RemoteProtocolError, match="more entries") as caught:
        Everything.decode(octets, 4, len(octets), TableLimits(2, 3))
    assert caught.value.reply_code == 502


def test_an_id_is_given_once() -> None:
    """Two declarations with one id are a mistake of ours, found on import."""

    class Twin(Method):
        pass

    with pytest.raises(TypeError, match=r"^test_layout\.twin: 60,60 is basic\.deliver already$"):
        method(60, 60, sent_by=BOTH)(Twin)
    assert METHODS[60, 60].NAME == "basic.deliver"


def test_replies_are_declared_by_the_reply() -> None:
    """A method is synchronous because something replies to it."""

    assert (True, (AskOk,)) == (Ask.SYNCHRONOUS, Ask.REPLIES)
    assert (AskOk.SYNCHRONOUS, AskOk.REPLIES) == (False, ())
    assert AskOk.NAME == "test_layout.ask-ok"
    assert repr(AskOk(5)) == "test_layout.AskOk(answer=5)"
    assert repr(Ask()) == "test_layout.Ask()"


def test_runs_of_fixed_size_are_one_struct() -> None:
    """Architecture 3: the number of calls is what makes the codec fast; this pins the shape of the source."""
    made = METHODS[60, 60]
    namespace: dict[str, object] = {}
    encoder = "\n".join(compiler._encoder(made, namespace))
    decoder = "\n".join(compiler._decoder(made, namespace))
    assert len(re.findall(r"\bpack\d+\(", encoder)) == 3
    assert len(re.findall(r"\bunpack\d+\(", decoder)) == 1


def test_the_written_functions_look_like_methods() -> None:
    """help() and tracebacks name them."""
    made = METHODS[60, 60]
    assert made.encode.__qualname__ == "Deliver.encode"
    assert made.decode.__module__ == "txmsg.wire.methods.basic"
    assert "payload of a method frame" in str(made.encode.__doc__)
    assert sys.modules[made.__module__].Deliver is made

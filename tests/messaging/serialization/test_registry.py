"""The registry: names, types, raw bodies, and who decodes what."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txmsg.errors import (
    ConfigurationError,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    SerializationError,
    SerializerNotInstalled,
    TxmsgError,
)
from txmsg.messaging import (
    Accept,
    AcceptList,
    SerializerRegistry,
    default_serializers,
    disable_insecure_serializers,
    dumps,
    enable_insecure_serializers,
    loads,
)
from txmsg.messaging.serialization import register, serializers, unregister

YAML = "application/x-yaml"


@pytest.fixture
def registry() -> SerializerRegistry:
    return default_serializers()


def accepted(registry: SerializerRegistry, names: Accept) -> set[str]:
    checked = registry.accept(names)
    assert checked is not None
    return set(checked)


def upper(registry: SerializerRegistry, **options: Any) -> None:
    """A serializer of one's own."""
    registry.register("upper", str.upper, lambda body: body.decode().lower(), "application/x-upper", **options)


# -- what there is


def test_names_and_types(registry: SerializerRegistry) -> None:
    """Kombu J1, J2, J8: the built-in ones, looked up both ways."""
    types = {"json": "application/json", "yaml": YAML, "msgpack": "application/x-msgpack"}
    assert registry.name_to_type == types
    assert registry.type_to_name == {content_type: name for name, content_type in types.items()}
    for name, encoding in (("json", "utf-8"), ("yaml", "utf-8"), ("msgpack", "binary")):
        assert registry.dumps({}, name)[:2] == (types[name], encoding)


def test_without_serializer() -> None:
    """Kombu J2, J3: octets and text stay as they are, all else is JSON; a serializer that is named is used."""
    assert dumps(b"\xff") == ("application/data", "binary", b"\xff")
    assert dumps(memoryview(b"\xff")) == ("application/data", "binary", b"\xff")
    assert dumps("ä") == ("text/plain", "utf-8", "ä".encode())
    value: Any
    for value in ({}, [], 0, None, False, 1.5):
        assert dumps(value) == ("application/json", "utf-8", json.dumps(value).encode())
    assert dumps("a", "json").body == b'"a"'
    assert loads(dumps(b"a", "json").body, "application/json") == b"a"


def test_raw() -> None:
    """Kombu J1, J2, J24: octets or text, and nothing else."""
    assert dumps(b"a", "raw") == ("application/data", "binary", b"a")
    assert dumps("ä", "raw") == ("application/data", "utf-8", "ä".encode())
    assert dumps("ä", "text") == ("text/plain", "utf-8", "ä".encode())
    for value, name in (({}, "raw"), (None, "raw"), (b"a", "text"), ("\ud800", "raw"), ("\ud800", None)):
        with pytest.raises(EncodeError):
            dumps(value, name)


def test_register(registry: SerializerRegistry) -> None:
    """Kombu J5, J6: one of one's own, in one direction or both; forgotten again."""
    upper(registry)
    assert registry.dumps("text", "upper") == ("application/x-upper", "utf-8", b"TEXT")
    assert registry.loads(b"TEXT", "application/x-upper", accept=["upper"]) == "text"
    upper(registry, content_encoding="utf-16-le")
    assert registry.dumps("a", "upper").body == b"A\0"
    registry.unregister("upper")
    for call in (
        lambda: registry.dumps("text", "upper"),
        lambda: registry.unregister("upper"),
        lambda: registry.accept(["upper"]),
        lambda: registry.enable("upper"),
    ):
        with pytest.raises(SerializerNotInstalled, match="'upper'"):
            call()
    registry.register("out", str.upper, None, "application/x-out")
    assert registry.dumps("a", "out").body == b"A"
    assert registry.loads(b"A", "application/x-out", "utf-8", accept=["out"]) == "A"
    registry.register("in", None, bytes.lower, "application/x-in")
    assert registry.loads(b"A", "application/x-in", accept=["in"]) == b"a"
    with pytest.raises(SerializerNotInstalled):
        registry.dumps("a", "in")


def test_register_anew(registry: SerializerRegistry) -> None:
    """Kombu J5: the same name again replaces the old one, its type too."""
    upper(registry)
    registry.enable("upper")
    registry.register("upper", str.upper, None, "application/x-upper-2")
    assert registry.name_to_type["upper"] == "application/x-upper-2"
    assert "application/x-upper" not in registry.type_to_name
    upper(registry)
    with pytest.raises(ContentDisallowed):  # the switch belonged to the old one
        registry.loads(b"A", "application/x-upper")


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("raw", "a/b"),
        ("text", "a/b"),
        ("x", "application/data"),
        ("x", "Text/Plain"),
        ("a/b", "a/b"),
        ("", "a/b"),
        ("x", "y"),
    ],
)
def test_names_that_cannot_be(registry: SerializerRegistry, name: str, content_type: str) -> None:
    """What every accept list lets through cannot become a deserializer (kombu J28)."""
    with pytest.raises(ConfigurationError):
        registry.register(name, None, bytes, content_type)


def test_default(registry: SerializerRegistry) -> None:
    """Kombu J16: the default can be another."""
    assert registry.default == "json"
    registry.set_default("msgpack")
    assert registry.dumps([]).content_type == "application/x-msgpack"
    with pytest.raises(SerializerNotInstalled):
        registry.set_default("nothing")


def test_the_global_registry() -> None:
    """Kombu J5, J6: functions of the module are those of one registry."""
    register("upper", str.upper, None, "application/x-upper")
    try:
        assert serializers.dumps("a", "upper").body == b"A"
        with pytest.raises(SerializerNotInstalled):
            default_serializers().dumps("a", "upper")
    finally:
        unregister("upper")


# -- errors


def test_errors(registry: SerializerRegistry) -> None:
    """Kombu J14, T1, T2: EncodeError and DecodeError, with the cause; one root for all."""

    def broken(value: Any) -> Any:
        raise KeyError("why")

    registry.register("broken", broken, broken, "application/x-broken")
    with pytest.raises(EncodeError, match="KeyError") as encoding:
        registry.dumps(1, "broken")
    with pytest.raises(DecodeError, match="KeyError") as decoding:
        registry.loads(b"1", "application/x-broken", accept=["broken"])
    assert isinstance(encoding.value.__cause__, KeyError)
    assert isinstance(decoding.value.__cause__, KeyError)
    for kind in (EncodeError, DecodeError, ContentDisallowed, SerializerNotInstalled):
        assert issubclass(kind, SerializationError)
        assert issubclass(kind, TxmsgError)
    assert not issubclass(ContentDisallowed, DecodeError)


def test_a_value_json_cannot_say() -> None:
    """Kombu J14: the type is named."""
    with pytest.raises(EncodeError, match="JSON has no object"):
        dumps(object())


# -- who decodes what

#: content type -> whether it passes with: no list, [], ["json"], ["yaml"]
TABLE: dict[str | None, tuple[bool, bool, bool, bool]] = {
    "application/json": (True, False, True, False),
    "Application/JSON; charset=utf-8": (True, False, True, False),
    YAML: (False, False, False, True),
    "APPLICATION/X-YAML;x=y": (False, False, False, True),
    "application/x-msgpack": (False, False, False, False),
    "application/x-python-serialize": (False, False, False, False),
    "application/data": (True, True, True, True),
    "application/text": (True, True, True, True),
    "text/plain": (True, True, True, True),
    "": (True, True, True, True),
    None: (True, True, True, True),
    "image/png": (True, False, False, False),
}


@pytest.mark.parametrize(("content_type", "passes"), TABLE.items())
def test_accept(registry: SerializerRegistry, content_type: str | None, passes: tuple[bool, ...]) -> None:
    """C5.1, kombu J4, J9, J12, J28, H10, CN1, CN2: the table of who decodes what."""
    for accept, expected in zip((None, [], ["json"], ["yaml"]), passes, strict=True):
        for call in (
            lambda accept=accept: registry.check(content_type, accept),
            lambda accept=accept: registry.loads(b"1", content_type, "utf-8", accept=accept),
        ):
            if expected:
                call()
            else:
                with pytest.raises(ContentDisallowed):
                    call()


def test_accept_names(registry: SerializerRegistry) -> None:
    """Kombu J13, CN22: names, types, or one of them; unknown names are refused where the list is made."""
    assert accepted(registry, ["json", YAML, "raw"]) == {"application/json", YAML, "application/data"}
    assert accepted(registry, "json") == {"application/json"}
    assert accepted(registry, "Application/JSON") == {"application/json"}
    assert accepted(registry, ()) == set()
    assert registry.accept(None) is None
    checked = registry.accept(["yaml"])
    assert isinstance(checked, AcceptList)
    assert registry.accept(checked) is checked
    for wrong in ("jsn", ["json", "jsn"], ["j", "s", "o", "n"]):
        with pytest.raises(SerializerNotInstalled, match="no serializer"):
            registry.accept(wrong)
    assert registry.loads(b"\xff", "image/png", "binary", accept=["image/png"]) == b"\xff"


def test_switches(registry: SerializerRegistry) -> None:
    """Kombu J7, J10, J11: by name or type, for receivers without a list; senders do not care."""
    for name in ("yaml", YAML):
        registry.enable(name)
        assert registry.loads(b"a: 1", YAML) == {"a": 1}
        registry.disable(name)
        with pytest.raises(ContentDisallowed):
            registry.loads(b"a: 1", YAML)
        assert registry.loads(b"a: 1", YAML, force=True) == {"a": 1}
    enable_insecure_serializers(registry=registry)
    assert registry.loads(b"a: 1", YAML) == {"a": 1}
    assert registry.loads(b"\x01", "application/x-msgpack") == 1
    disable_insecure_serializers(registry=registry)
    with pytest.raises(ContentDisallowed):
        registry.loads(b"\x01", "application/x-msgpack")
    assert registry.loads(b"1", "application/json") == 1
    disable_insecure_serializers(["msgpack"], registry)
    assert registry.loads(b"\x01", "application/x-msgpack") == 1
    with pytest.raises(ContentDisallowed):
        registry.loads(b"1", "application/json")
    assert registry.dumps(1, "json").body == b"1"
    with pytest.raises(SerializerNotInstalled):
        enable_insecure_serializers(["nothing"], registry)


def test_neither_bypasses_the_other(registry: SerializerRegistry) -> None:
    """Kombu J12: an accept list counts alone, whatever is enabled for all, or forced."""
    registry.enable("yaml")
    for force in (False, True):
        with pytest.raises(ContentDisallowed):
            registry.loads(b"a: 1", YAML, accept=["json"], force=force)
    registry.disable("json")
    assert registry.loads(b"1", "application/json", accept=["json"]) == 1


def test_registering_enables_nothing(registry: SerializerRegistry) -> None:
    """C5.1, kombu J9: a new serializer has to be accepted, too."""
    upper(registry)
    with pytest.raises(ContentDisallowed, match=r"upper \(application/x-upper\)"):
        registry.loads(b"A", "application/x-upper")


def test_only_accepted(registry: SerializerRegistry) -> None:
    """C5.2: what has to be named by an accept list is not enabled in any other way."""
    upper(registry)
    registry.enable("upper")
    upper(registry, only_accepted=True)
    for force in (False, True):
        with pytest.raises(ContentDisallowed):
            registry.loads(b"A", "application/x-upper", force=force)
    with pytest.raises(ConfigurationError):
        disable_insecure_serializers(["upper"], registry)


# -- bodies that nothing deserializes


@pytest.mark.parametrize(
    ("content_type", "encoding", "expected"),
    [
        (None, None, b"\xc3\xa4"),
        ("", "", b"\xc3\xa4"),
        (None, "utf-8", "ä"),
        ("application/data", None, b"\xc3\xa4"),
        ("application/data", "binary", b"\xc3\xa4"),
        ("application/data", "Binary", b"\xc3\xa4"),
        ("application/data", "ascii-8bit", b"\xc3\xa4"),
        ("application/data", "UTF-8", "ä"),
        ("application/text", None, "ä"),
        ("text/plain", None, "ä"),
        ("text/plain", "latin-1", "Ã¤"),
        ("text/plain; charset=iso-8859-1", None, "Ã¤"),
        ('text/html; charset="Windows-1252"', "", "Ã¤"),
        ("image/png", "binary", b"\xc3\xa4"),
        ("image/png", None, b"\xc3\xa4"),
        ("application/x-unknown", "utf-8", "ä"),
    ],
)
def test_raw_bodies(content_type: str | None, encoding: str | None, expected: bytes | str) -> None:
    """Kombu I11, J4, J24, J27: octets, or text by charset; the message says which."""
    for wrap in (bytes, bytearray, memoryview):
        value = loads(wrap(b"\xc3\xa4"), content_type, encoding)
        assert value == expected
        assert type(value) is type(expected)


def test_empty_bodies() -> None:
    """Kombu H27: of raw octets and text they are values, of JSON a DecodeError."""
    assert loads(b"") == b""
    assert loads(b"", "text/plain", "utf-8") == ""
    assert loads("", "text/plain") == ""
    with pytest.raises(DecodeError):
        loads(b"", "application/json")


@pytest.mark.parametrize(
    "charset",
    [
        "bz2",
        "zlib_codec",
        "rot13",
        "hex",
        "base64",
        "uu",
        "quopri",
        "idna",
        "punycode",
        "unicode_escape",
        "raw_unicode_escape",
        *["undefined", "utf-7", "nothing", "../../x", "a" * 10**5, "utf-8\0", "cp9999", "mbcs", "encodings", "ä"],
    ],
)
def test_charsets_that_are_none(charset: str) -> None:
    """C4.1, C5.3: a charset chosen by a stranger is no way to a decompressor, nor to quadratic cost."""
    with pytest.raises(DecodeError, match="unknown charset"):
        loads(b"abc", "text/plain", charset)


@given(
    octets=st.binary(max_size=30),
    content_type=st.sampled_from(list(TABLE)) | st.text(max_size=20) | st.binary(max_size=9),
    encoding=st.none()
    | st.text(max_size=12)
    | st.sampled_from(["utf-8", "utf-16", "ascii", "big5", "iso2022_jp", "hz"]),
)
def test_totality(octets: bytes, content_type: Any, encoding: str | None) -> None:
    """Z4: any octets under any type and charset are a value or one typed error."""
    for accept in (None, [], ["json", "yaml", "msgpack"]):
        try:
            loads(octets, content_type, encoding, accept=accept)
        except SerializationError as error:
            assert isinstance(error, DecodeError | ContentDisallowed)


def test_what_a_peer_says_is_clipped() -> None:
    """C3.3: a type in an error forges no log line."""
    with pytest.raises(ContentDisallowed) as raised:
        loads(b"", "x/y\n" + "z" * 10**6, accept=[])
    assert len(str(raised.value)) < 300
    assert "\n" not in str(raised.value)


# -- other packages


class Entry:
    """An installed package's announcement."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value

    def load(self) -> Any:
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


def test_entry_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kombu J25: other packages' serializers are found when an unknown one is asked for; broken ones harm none."""
    asked: list[str] = []
    entries = [
        Entry("upper", (str.upper, bytes.lower, "application/x-upper", "utf-8")),
        Entry("short", (str.upper, bytes.lower, "application/x-short")),
        Entry("json", (str.upper, bytes.lower, "application/x-other-json")),
        Entry("thief", (str.upper, bytes.lower, "Application/JSON")),
        Entry("raw", (str.upper, bytes.lower, "application/x-raw")),
        Entry("broken", ImportError("no libx")),
        Entry("wrong", 5),
    ]

    def entry_points(*, group: str) -> list[Entry]:
        asked.append(group)
        return entries

    monkeypatch.setattr("txmsg.messaging.serialization.registry.entry_points", entry_points)
    registry = default_serializers()
    assert registry.loads(registry.dumps([1]).body, "application/json") == [1]
    assert asked == []
    assert registry.dumps("a", "upper").body == b"A"
    assert registry.loads(b"A", "application/x-short", accept=["short"]) == b"a"
    assert registry.dumps(1, "json").body == b"1"
    assert registry.name_to_type["json"] == "application/json"
    with pytest.raises(ContentDisallowed):
        registry.loads(b"A", "application/x-upper")
    with pytest.raises(SerializerNotInstalled, match="no libx"):
        registry.accept(["broken"])
    for name in ("wrong", "thief"):
        with pytest.raises(SerializerNotInstalled, match="cannot be loaded"):
            registry.dumps("a", name)
    assert registry.loads(b'"A"', "application/json") == "A"
    assert asked == ["txmsg.serializers"]
    for call in (
        lambda other: other.dumps("a", "upper"),
        lambda other: other.accept(["upper"]),
        lambda other: other.loads(b"A", "application/x-upper", accept=["application/x-upper"]),
    ):
        call(default_serializers())
    with pytest.raises(SerializerNotInstalled):
        SerializerRegistry(None).dumps("a", "upper")


def test_an_entry_point_of_a_real_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Kombu J25, example 23: through the metadata of an installed package."""
    (tmp_path / "shouting.py").write_text(
        "def lower(body):\n    return bytes(body).decode().lower()\n"
        'UPPER = (str.upper, lower, "application/x-shout", "utf-8")\n'
    )
    metadata = tmp_path / "shouting-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[txmsg.serializers]\nshout = shouting:UPPER\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    registry = default_serializers()
    assert registry.dumps("hey", "shout") == ("application/x-shout", "utf-8", b"HEY")
    assert registry.loads(b"HEY", "application/x-shout", accept=["shout"]) == "hey"

"""Which serializers there are, by name and by content type, and which of them a receiver lets run.

Rules, in the order in which they apply to a message that came (kombu J9, J12, J13, J28; C5.1):

1. The decision falls on the content type, before any octet of the body is looked at.  No content type is raw octets.
2. Raw octets and plain text always pass: nothing deserializes them.
3. With an accept list, what is on it passes and nothing else does; an empty one lets no deserializer run.
4. Without one, JSON passes, and what :func:`enable_insecure_serializers` added; pickle never does.
5. A type that nobody registered is data like a picture: it passes without an accept list, and stays octets or text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from txmsg.errors import (
    ConfigurationError,
    ContentDisallowed,
    DecodeError,
    EncodeError,
    SerializationError,
    SerializerNotInstalled,
    clip,
)
from txmsg.messaging.serialization.media_types import (
    BINARY_ENCODINGS,
    RAW_TYPE,
    TEXT_TYPE,
    TRUSTED_TYPES,
    MediaType,
    decode_text,
    parse_media_type,
)

__all__ = ["ENTRY_POINTS", "Accept", "AcceptList", "Encoded", "SerializerRegistry"]

#: Packages announce serializers in this group; each entry is a tuple of the arguments of `register` after the name.
ENTRY_POINTS: Final = "txmsg.serializers"

_PICKLE: Final = ("pickle", "application/x-python-serialize")

#: Names that need no registering, because nothing is done to the body.
_RAW_NAMES: Final = {"raw": RAW_TYPE, "text": TEXT_TYPE}


class Encoded(NamedTuple):
    """A serialized value: what goes into the properties content_type and content_encoding, and the octets."""

    content_type: str
    content_encoding: str
    body: bytes


class AcceptList(frozenset[str]):
    """Content types that a receiver takes: what :meth:`SerializerRegistry.accept` has checked."""

    __slots__ = ()


#: What can be given as an accept list: names or content types, one of them, a checked list, or None for the default.
Accept = str | Iterable[str] | AcceptList | None


class _Encoder(NamedTuple):
    content_type: str
    content_encoding: str
    function: Callable[[Any], bytes | str]


class SerializerRegistry:
    """Serializers by name, decoders by content type.

    An empty one knows raw octets and text; `txmsg.messaging.serialization.default_serializers` makes one with JSON,
    yaml and msgpack.  `group`: of the entry points that are asked about names and types not known; None: none.
    """

    def __init__(self, group: str | None = ENTRY_POINTS) -> None:
        self._encoders: dict[str, _Encoder] = {}
        self._decoders: dict[str, Callable[[bytes], Any]] = {}
        self._types: dict[str, str] = {}
        self._enabled: set[str] = set()
        #: Types that no switch for all can enable: an accept list has to name them.
        self._only_accepted: set[str] = set()
        self._broken: dict[str, str] = {}
        self._default = ""
        self._group = group

    # -- what there is

    @property
    def name_to_type(self) -> Mapping[str, str]:
        """The content type of each name that is registered."""
        return MappingProxyType(self._types)

    @property
    def type_to_name(self) -> Mapping[str, str]:
        """The name of each content type that is registered."""
        return MappingProxyType({content_type: name for name, content_type in self._types.items()})

    def register(
        self,
        name: str,
        encoder: Callable[[Any], bytes | str] | None,
        decoder: Callable[[bytes], Any] | None,
        content_type: str,
        content_encoding: str = "utf-8",
        *,
        only_accepted: bool = False,
    ) -> None:
        """Add a serializer, or replace the one of that name.  Receivers do not decode it until they accept it.

        encoder -- a value to octets, or to a str, which is encoded as `content_encoding`; None: only for receiving.
        decoder -- octets to a value; None: only for sending.
        content_encoding: str -- a charset, or "binary".
        only_accepted: bool -- it cannot be enabled for all: an accept list has to name it.

        What they raise becomes EncodeError and DecodeError.  Raises ConfigurationError for "raw" and "text" and their
        types, which are what every accept list lets through.
        """
        content_type = parse_media_type(content_type).name
        if name in _RAW_NAMES or content_type in TRUSTED_TYPES or not name or "/" in name or "/" not in content_type:
            raise ConfigurationError(f"no serializer can have the name {name!r} and the type {content_type!r}")
        self._forget(name)
        if encoder is not None:
            self._encoders[name] = _Encoder(content_type, content_encoding, encoder)
        self._decoders.pop(content_type, None)
        if decoder is not None:
            self._decoders[content_type] = decoder
        self._types[name] = content_type
        if only_accepted:
            self._only_accepted.add(content_type)
            self._enabled.discard(content_type)
        else:
            self._only_accepted.discard(content_type)

    def unregister(self, name: str) -> None:
        """Forget a serializer; SerializerNotInstalled if there is none of that name."""
        if name not in self._types:
            raise self._missing(name)
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._encoders.pop(name, None)
        content_type = self._types.pop(name, None)
        if content_type is not None and content_type not in self._types.values():
            self._decoders.pop(content_type, None)
            self._enabled.discard(content_type)
            self._only_accepted.discard(content_type)

    @property
    def default(self) -> str:
        """The name of the serializer for values that are neither str nor bytes."""
        return self._default

    def set_default(self, name: str) -> None:
        """Change it; SerializerNotInstalled if `name` cannot encode."""
        self._encoder(name)
        self._default = name

    # -- what receivers without an accept list take

    def enable(self, name: str) -> None:
        """Let receivers without an accept list decode a name or content type.

        SerializerNotInstalled for an unknown name; ConfigurationError for what an accept list has to name (pickle).
        """
        content_type = self._type_of(name)
        if content_type in self._only_accepted or content_type in _PICKLE:
            raise ConfigurationError(f"{name} cannot be enabled for all receivers: give accept=[{name!r}] to yours")
        self._enabled.add(content_type)

    def disable(self, name: str) -> None:
        """Keep receivers without an accept list from decoding a name or content type; an unknown type is fine."""
        self._enabled.discard(self._type_of(name))

    def disable_all(self, allowed: Iterable[str] = ()) -> None:
        """Keep receivers without an accept list from decoding anything but `allowed`."""
        types = {self._type_of(name) for name in allowed}
        self._enabled &= types
        for content_type in types - self._enabled:
            self.enable(content_type)

    # -- accept lists

    def accept(self, names: Accept) -> AcceptList | None:
        """Check what a receiver is to take: names, content types, or one of them; None: the default.

        SerializerNotInstalled for a name that is not known.  A content type need not be: its bodies stay octets.
        """
        if names is None or isinstance(names, AcceptList):
            return names
        if isinstance(names, str):
            names = [names]
        return AcceptList(self._type_of(name) for name in names)

    def check(self, content_type: str | None, accept: Accept = None) -> None:
        """Raise ContentDisallowed if a message of this type is not to be decoded.  The body plays no part in it."""
        self._check(parse_media_type(content_type).name, self.accept(accept))

    def _check(self, name: str, accept: AcceptList | None) -> None:
        if name in TRUSTED_TYPES:
            return
        if accept is not None:
            allowed = name in accept
        else:
            allowed = name in self._enabled or (self._decoder(name) is None and name not in _PICKLE)
        if not allowed:
            called = next((known for known, kind in self._types.items() if kind == name), "")
            what = f"{called} ({name})" if called else clip(name)
            raise ContentDisallowed(f"refusing to decode a body of type {what}: it is not accepted")

    # -- both ways

    def dumps(self, data: Any, serializer: str | None = None) -> Encoded:
        """Serialize a value.

        serializer: str | None -- a name, which is used for str and bytes, too.  None: bytes stay as they are
        (application/data), str becomes text (text/plain), and all else goes through the default, JSON.

        EncodeError: not a value this serializer can carry.  SerializerNotInstalled.
        """
        if not serializer:
            if isinstance(data, bytes | bytearray | memoryview):
                return Encoded(RAW_TYPE, "binary", bytes(data))
            if isinstance(data, str):
                return Encoded(TEXT_TYPE, "utf-8", _utf8(data))
            serializer = self._default
        elif serializer in _RAW_NAMES:
            return _raw(data, _RAW_NAMES[serializer])
        content_type, content_encoding, encode = self._encoder(serializer)
        try:
            body = encode(data)
            if isinstance(body, str):
                body = body.encode("utf-8" if content_encoding in BINARY_ENCODINGS else content_encoding)
            elif type(body) is not bytes:
                body = bytes(memoryview(body))
            return Encoded(content_type, content_encoding, body)
        except SerializationError:
            raise
        except Exception as error:
            # A TypeError names a type; the texts of others may show the value.
            why = f": {clip(str(error))}" if isinstance(error, TypeError) else ""
            raise EncodeError(f"{serializer} cannot carry this: {type(error).__name__}{why}") from error

    def loads(
        self,
        data: bytes | bytearray | memoryview | str,
        content_type: str | None = None,
        content_encoding: str | None = None,
        accept: Accept = None,
        force: bool = False,
    ) -> Any:
        """The value of a body.

        content_type, content_encoding -- of the message's properties.  Parameters and case of the type do not matter.
        accept -- see :meth:`accept`.   force: bool -- without an accept list: decode what is not enabled, too, except
        for what an accept list has to name.

        ContentDisallowed: not accepted.  DecodeError: not what its type says.  SerializerNotInstalled: a library is
        missing.  Nothing else is raised, whatever the octets are.
        """
        media_type = parse_media_type(content_type)
        name = media_type.name
        if not (force and accept is None and name not in self._only_accepted and name not in _PICKLE):
            self._check(name, self.accept(accept))
        decoder = None if name in TRUSTED_TYPES else self._decoder(name)
        if decoder is None:
            return data if isinstance(data, str) else _as_it_is(bytes(data), media_type, content_encoding)
        try:
            return decoder(data.encode("utf-8") if isinstance(data, str) else bytes(data))
        except SerializationError:
            raise
        except Exception as error:
            raise DecodeError(f"a body that is not {clip(name)}: {type(error).__name__}") from error

    # -- looking up

    def _type_of(self, name: str) -> str:
        if "/" in name:
            return parse_media_type(name).name
        content_type = _RAW_NAMES.get(name) or self._types.get(name)
        if content_type is None and self._load_entry_points():
            content_type = self._types.get(name)
        if content_type is None:
            raise self._missing(name)
        return content_type

    def _encoder(self, name: str) -> _Encoder:
        encoder = self._encoders.get(name)
        if encoder is None and self._load_entry_points():
            encoder = self._encoders.get(name)
        if encoder is None:
            raise self._missing(name)
        return encoder

    def _decoder(self, content_type: str) -> Callable[[bytes], Any] | None:
        decoder = self._decoders.get(content_type)
        if decoder is None and self._load_entry_points():
            decoder = self._decoders.get(content_type)
        return decoder

    def _load_entry_points(self) -> bool:
        """Register what other packages announce, once; what is registered already stays.  Whether anything was done."""
        if self._group is None:
            return False
        group, self._group = self._group, None
        for entry in entry_points(group=group):
            if entry.name in self._types:
                continue
            try:
                encoder, decoder, content_type, *encoding = entry.load()
                if parse_media_type(content_type).name in self._types.values():
                    raise ValueError("its content type is another serializer's")
                self.register(entry.name, encoder, decoder, content_type, *encoding)
            except Exception as error:  # of a stranger's package, which must not stop those who do not use it
                self._broken[entry.name] = f"{type(error).__name__}: {error}"
        return True

    def _missing(self, name: str) -> SerializerNotInstalled:
        shown = clip(str(name))
        if name in _PICKLE:
            return SerializerNotInstalled("pickle has to be asked for: see txmsg.messaging.register_pickle")
        if name in self._broken:
            return SerializerNotInstalled(f"the serializer {shown!r} cannot be loaded: {clip(self._broken[name])}")
        return SerializerNotInstalled(f"no serializer {shown!r} is registered")


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"a text that is not Unicode: a lone surrogate at {error.start}") from None


def _raw(data: Any, content_type: str) -> Encoded:
    if isinstance(data, str):
        return Encoded(content_type, "utf-8", _utf8(data))
    if content_type == RAW_TYPE and isinstance(data, bytes | bytearray | memoryview):
        return Encoded(content_type, "binary", bytes(data))
    raise EncodeError(f"a {type(data).__name__} cannot be sent as {content_type}")


def _as_it_is(body: bytes, media_type: MediaType, content_encoding: str | None) -> bytes | str:
    """Octets, or the text they are in the charset that the message names."""
    charset = (content_encoding or media_type.charset).lower()
    if not charset and (media_type.name.startswith("text/") or media_type.name == "application/text"):
        charset = "utf-8"
    if not charset or charset in BINARY_ENCODINGS:
        return body
    return decode_text(body, charset)

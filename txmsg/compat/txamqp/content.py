"""Content: a message's body and properties, as txamqp has them.

A property has one name and three spellings, because the XML files of AMQP 0-8, 0-9 and 0-9-1 differ:
`content["delivery mode"]`, `content["delivery-mode"]` and `content["delivery_mode"]` are the same here, for what is
sent and for what has come.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from twisted.logger import Logger

from txmsg.amqp import BasicProperties, UndecodableProperties
from txmsg.errors import EncodeError, clip

__all__ = [
    "Content",
    "ContentReader",
    "Properties",
    "as_text",
    "native_properties",
    "received_content",
    "with_text_keys",
]

_log = Logger(namespace="txmsg.compat.txamqp")

#: "delivery-mode" -> "delivery_mode".
_NAMES = {name.replace("_", "-"): name for name in BasicProperties.NAMES}
_SPELLINGS = tuple(_NAMES.items())

#: Properties that were sent lately, by their items: an object that is sent again has its encoding with it.
_known: dict[tuple[Any, ...], BasicProperties] = {}


def _key(name: str) -> str:
    return name.replace(" ", "-").replace("_", "-") if isinstance(name, str) else name


def as_text(value: Any) -> Any:
    """A short string as text: txamqp takes bytes for it as well.  What is not UTF-8 stays, and cannot be sent."""
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else value
    except UnicodeDecodeError:
        return value


def with_text_keys(table: Any) -> Any:
    """A table whose own keys may be bytes, as with txamqp."""
    if isinstance(table, Mapping) and any(isinstance(key, bytes) for key in table):
        return {as_text(key): value for key, value in table.items()}
    return table


class Properties(dict[str, Any]):
    """A dict of properties, which finds each of them under any spelling of its name."""

    def __init__(self, given: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), **more: Any) -> None:
        super().__init__()
        if given or more:
            self.update(given, **more)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(_key(name))

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(_key(name), value)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(_key(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_key(name) if isinstance(name, str) else name)

    def get(self, name: str, default: Any = None) -> Any:
        """As dict has it."""
        return super().get(_key(name), default)

    def pop(self, name: str, *default: Any) -> Any:
        """As dict has it."""
        return super().pop(_key(name), *default)

    def setdefault(self, name: str, default: Any = None) -> Any:
        """As dict has it."""
        return super().setdefault(_key(name), default)

    def update(self, given: Any = (), /, **more: Any) -> None:
        """As dict has it."""
        for name, value in dict(given, **more).items():
            self[name] = value

    def copy(self) -> Properties:
        """As dict has it."""
        return Properties(self)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Mapping) and not isinstance(other, Properties):
            other = Properties(other)
        return super().__eq__(other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None


class Content:
    """A body and its properties.

    body: str or bytes -- str is sent as UTF-8.  Of what has come it is a str where it is valid UTF-8, else bytes, as
        with txamqp; `body.encode()` gives back the very bytes.
    children: list -- always empty: the protocol has dropped them.
    properties: dict -- by name, in any spelling; also `content["delivery mode"] = 2`.
    """

    def __init__(self, body: Any = "", children: Any = None, properties: Any = None) -> None:
        self.body = body
        self.children = [] if children is None else children
        self.properties = Properties() if properties is None else properties

    def size(self) -> int:
        """The length of the body: octets of bytes, characters of a str."""
        return len(self.body)

    def weight(self) -> int:
        """The number of children."""
        return len(self.children)

    def __getitem__(self, name: str) -> Any:
        return self.properties[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.properties[name] = value

    def __delitem__(self, name: str) -> None:
        del self.properties[name]

    def __repr__(self) -> str:
        return f"<Content {len(self.body)} {type(self.body).__name__}, properties={clip(repr(dict(self.properties)))}>"


def native_properties(content: Any) -> BasicProperties | None:
    """The properties of a Content as ours; None where there are none.

    What is no property of the protocol is logged and left out, as txamqp does.  EncodeError for children.  Bytes are as
    good as text for short strings and for the keys of headers.
    """
    if content.children:
        raise EncodeError("AMQP 0-9-1 has no content with children")
    if not content.properties:
        return None
    key: tuple[Any, ...] | None
    try:
        key = tuple(content.properties.items())
        known = _known.get(key)
    except TypeError:  # headers
        key = known = None
    if known is not None:
        return known
    found: dict[str, Any] = {}
    for name, value in content.properties.items():
        native = _NAMES.get(_key(name))
        if native is None:
            _log.warn("unknown message property {name!r}; it is not sent", name=clip(str(name)))
        elif value is not None:
            found[native] = with_text_keys(value) if native == "headers" else as_text(value)
    made = BasicProperties(**found)
    # True equals 1, and is not to be found in its place.
    if key is not None and len(found) == len(key) and all(type(value) in (str, int) for value in found.values()):
        if len(_known) >= 256:
            _known.clear()
        _known[key] = made
    return made


class ContentReader:
    """Makes Contents of what comes; messages in a row often share their properties, which are then read once."""

    def __init__(self) -> None:
        self._last: BasicProperties | UndecodableProperties | None = None
        self._found: dict[str, Any] = {}

    def read(self, properties: BasicProperties | UndecodableProperties, body: bytes) -> Content:
        """What has come as a Content.  Properties that cannot be decoded are left out."""
        text: str | bytes
        try:
            text = body.decode("utf-8")
        except UnicodeDecodeError:
            text = body
        if properties is not self._last:
            self._found = _by_name(properties)
            # With headers it is for this message alone.
            self._last = None if "headers" in self._found else properties
        content = Content(text)
        dict.update(content.properties, self._found)
        return content


def _by_name(properties: BasicProperties | UndecodableProperties) -> dict[str, Any]:
    if not isinstance(properties, BasicProperties):
        return {}
    values = ((spelling, getattr(properties, name)) for spelling, name in _SPELLINGS)
    return {spelling: value for spelling, value in values if value is not None}


def received_content(properties: BasicProperties | UndecodableProperties, body: bytes) -> Content:
    """One message's content; see ContentReader."""
    return ContentReader().read(properties, body)

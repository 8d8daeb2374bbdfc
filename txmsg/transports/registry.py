"""From the scheme of a URL to the transport that serves it, imported on first use.

Looked up in this order: what the program registered, the transports of txmsg with the other names that Kombu has for
them (``pyamqp``, ``librabbitmq``: ``amqp``), and the entry points of the group
``txmsg.transports`` (name: the scheme; value: a :class:`~txmsg.abc.MessagingTransport` or a callable that makes one).
So another distribution can bring a transport, but cannot take ``amqps://`` away from ours.

A scheme with a ``+`` (``redis+socket://``) that is not known itself is looked up by the part before it.

Invariant: one transport object for each entry, made at its first use: everybody who says ``memory://`` meets.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from txmsg.abc import MessagingTransport
from txmsg.errors import ConfigurationError, clip

__all__ = ["ENTRY_POINT_GROUP", "register", "transport_for", "transport_names", "unregister"]

#: The group of entry points in which other distributions bring transports.
ENTRY_POINT_GROUP: Final = "txmsg.transports"

#: scheme -> "module:attribute"; the attribute is a callable that makes the transport.
_BUILT_IN: Final = {
    "amqp": "txmsg.transports.amqp:AMQPTransport",
    "amqps": "txmsg.transports.amqp:AMQPTransport",
    "memory": "txmsg.transports.memory:MemoryTransport",
    # Kombu's names for its clients of the same protocol.
    "librabbitmq": "txmsg.transports.amqp:AMQPTransport",
    "pyamqp": "txmsg.transports.amqp:AMQPTransport",
}

#: Where no name is given.
_DEFAULT: Final = "amqp"

#: Where a transport is: "package.module:Attribute", or with a dot in place of the colon.
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?::[A-Za-z_]\w*)?", re.ASCII)

#: RFC 3986 section 3.1.
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")

#: What a transport has, as :class:`~txmsg.abc.MessagingTransport` says.
_MEMBERS: Final = ("schemes", "default_ports", "exchange_types", "guarantees", "connect")

#: What register() was given: a transport, a callable that makes one, or "module:attribute".
_registered: dict[str, object] = {}
#: The transports made so far, by where they come from; with that, for an id means something while its object lives.
_made: dict[object, tuple[object, MessagingTransport]] = {}


def register(scheme: str, transport: MessagingTransport | Callable[[], MessagingTransport] | str) -> None:
    """Let `scheme` be served by `transport`, in place of whatever served it before.

    transport: the object; or a callable that makes it, or where that is ("package.module:Attribute"), used at the first
    URL with this scheme.  ConfigurationError for what is no scheme.
    """
    if not isinstance(scheme, str) or not _SCHEME.fullmatch(scheme):
        raise ConfigurationError(f"a scheme is a letter and then letters, digits and +.-, not {clip(repr(scheme))}")
    unregister(scheme)
    _registered[scheme.lower()] = transport


def unregister(scheme: str) -> None:
    """Forget what was registered for `scheme`; a transport of txmsg's own that it hid is back."""
    transport = _registered.pop(scheme.lower(), None)
    if not any(other is transport for other in _registered.values()):
        _made.pop(_key(transport), None)


def transport_names() -> list[str]:
    """All the schemes that are known, in order."""
    return sorted({*_registered, *_BUILT_IN, *_entry_points()})


def transport_for(
    source: str | MessagingTransport | Callable[[], MessagingTransport] | None,
) -> MessagingTransport:
    """The transport for `source`.

    source: a URL ("amqp://localhost"), a scheme alone ("memory"), where a transport is ("package.module:Attribute" or
        "package.module.Attribute"), a transport, or a callable that makes one.  "" and None are "amqp".

    ConfigurationError for a scheme nobody serves, with the nearest that is known, and for a transport that cannot be
    imported or is none.  A URL, which may hold a password, is in no error.
    """
    if source is None or source == "":
        source = _DEFAULT
    if isinstance(source, str):
        scheme = _scheme_of(source)
        found = _find(scheme) if scheme else None
        if found is None and _DOTTED.fullmatch(source):
            scheme, found = source, source
    else:
        scheme, found = type(source).__name__, source
        if not callable(source) and not isinstance(source, MessagingTransport):
            raise ConfigurationError(f"a transport is named by a URL or a scheme, not by {type(source).__name__}")
    del source
    if not scheme:
        raise ConfigurationError("a URL starts with its scheme, as in amqp://host/vhost")
    if found is None:
        raise ConfigurationError(_unknown(scheme))
    key = _key(found)
    if key not in _made:
        _made[key] = (found, _make(scheme, found))
    return _made[key][1]


def _key(source: object) -> object:
    """What two schemes with one transport have in common."""
    return source if isinstance(source, str) else id(source) if not isinstance(source, EntryPoint) else source.value


def _scheme_of(url: str) -> str:
    """The scheme of a URL, or a scheme alone; "" where there is none."""
    scheme, colon, _ = url.partition(":")
    if not colon and not _SCHEME.fullmatch(url):
        return ""
    return scheme.lower() if _SCHEME.fullmatch(scheme) else ""


def _find(scheme: str) -> object | None:
    for name in dict.fromkeys((scheme, scheme.partition("+")[0])):
        if name in _registered:
            return _registered[name]
        if name in _BUILT_IN:
            return _BUILT_IN[name]
        brought = _entry_points().get(name)
        if brought is not None:
            return brought
    return None


def _entry_points() -> dict[str, EntryPoint]:
    return {point.name.lower(): point for point in entry_points(group=ENTRY_POINT_GROUP)}


def _unknown(scheme: str) -> str:
    names = transport_names()
    near = difflib.get_close_matches(scheme, names, n=1)
    hint = f"; did you mean {near[0]}://?" if near else ""
    return f"no transport serves {clip(scheme, 40)}://{hint} (there are {', '.join(names)})"


def _make(scheme: str, source: object) -> MessagingTransport:
    if isinstance(source, MessagingTransport) and not isinstance(source, type):
        return source
    load: Callable[[], Any]
    if isinstance(source, str):
        load = partial(_attribute, source)
    elif isinstance(source, EntryPoint):
        load = source.load
    else:
        load = partial(_same, source)
    try:
        made = load()
        if isinstance(made, type) or (callable(made) and not isinstance(made, MessagingTransport)):
            made = made()
    except Exception as error:
        raise ConfigurationError(
            f"the transport for {scheme}:// cannot be made: {type(error).__name__}: {clip(str(error))}"
        ) from error
    if not isinstance(made, MessagingTransport):
        missing = ", ".join(name for name in _MEMBERS if not hasattr(made, name))
        raise ConfigurationError(
            f"what there is for {scheme}:// is no transport: {type(made).__name__} has no {missing}"
        )
    return made


def _attribute(where: str) -> Any:
    module, colon, name = where.partition(":")
    if not colon and _DOTTED.fullmatch(where):
        module, _, name = where.rpartition(".")
    elif not colon or not name:
        raise ConfigurationError(f'{clip(where)!r} is not of the form "package.module:Attribute"')
    return getattr(import_module(module), name)


def _same(value: Any) -> Any:
    return value

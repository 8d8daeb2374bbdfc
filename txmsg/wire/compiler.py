"""Writes the fast codecs of the declared methods and of the properties, as Python source, once on import.

It is the technique of `dataclasses` itself.  Runs of arguments of fixed size, together with the length octet of
the short string that follows them, become one :class:`struct.Struct`.  For basic.deliver this is written::

    def encode(self):
        try:
            v0 = self.consumer_tag.encode("utf-8", "surrogateescape")
            v1 = self.exchange.encode("utf-8", "surrogateescape")
            v2 = self.routing_key.encode("utf-8", "surrogateescape")
            return b"".join((pack0(60, 60, len(v0)), v0,
                             pack1(self.delivery_tag, bits2[(self.redelivered, )], len(v1)), v1,
                             pack3(len(v2)), v2))
        except Exception:
            pass
        return plain_encode(self)

    def decode(data, at=4, end=None, limits=default_limits):
        start, end = at, len(data) if end is None else end
        try:
            size = data[at]; at += 1
            stop = at + size; consumer_tag = data[at:stop].decode("utf-8", "surrogateescape"); at = stop
            delivery_tag, bits1, size = unpack0(data, at); at += 10
            redelivered = bits1 & 1 == 1
            ...
            if at == end:
                return cls(consumer_tag, delivery_tag, redelivered, exchange, routing_key)
        except failures:
            pass
        return plain_decode(data, start, end, limits)

Why one comparison at the end is enough: the offset only grows, so if it ends at `end` no argument has reached
beyond it; a slice beyond it is short and harmless, and a short string is 255 octets at most.  Long strings and
tables are read by the functions that check their length first.  Whatever does not end there is read again by the
plain decoder of `txmsg.wire.layout`, which finds the words for what is wrong.  Likewise on encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from txmsg.wire.primitives import LENGTH_OCTET
from txmsg.wire.tables import DEFAULT_TABLE_LIMITS, TableLimits, decode_table, encode_table

if TYPE_CHECKING:
    from txmsg.wire.layout import Argument, Method

__all__ = ["compile_codec", "compile_properties", "groups"]

_Encode: TypeAlias = Callable[[Any, bytes | None], bytes]
_Decode: TypeAlias = Callable[[Any, bytes, TableLimits], Any]

_FORMATS: Final = {"octet": "B", "short": "H", "long": "I", "longlong": "Q"}


@cache
def groups(arguments: tuple[Argument, ...]) -> tuple[tuple[Argument, ...], ...]:
    """The arguments one by one, but consecutive bits, up to eight, together: they share an octet."""
    grouped: list[tuple[Argument, ...]] = []
    for argument in arguments:
        joins = argument.kind == "bit" and grouped and grouped[-1][0].kind == "bit" and len(grouped[-1]) < 8
        if joins:
            grouped[-1] += (argument,)
        else:
            grouped.append((argument,))
    return tuple(grouped)


def compile_codec(
    made: type[Method], encode_argument: Callable[..., bytes], decode_argument: Callable[..., tuple[Any, int]]
) -> None:
    """Give the method class `made` its fast `encode` and `decode`; what it has until then becomes the fallback."""
    namespace: dict[str, Any] = {
        "cls": made,
        "plain_encode": made.encode,
        "plain_decode": made.decode,
        "encode_argument": encode_argument,
        "decode_argument": decode_argument,
        "encode_table": encode_table,
        "decode_table": decode_table,
        "default_limits": DEFAULT_TABLE_LIMITS,
        "failures": (IndexError, struct.error),
    }
    source = "\n".join([*_encoder(made, namespace), *_decoder(made, namespace)])
    exec(compile(source, f"<the codec of {made.NAME}>", "exec"), namespace)  # noqa: S102  # only names of ours
    for name in ("encode", "decode"):
        namespace[name].__doc__ = getattr(made, name).__doc__
        namespace[name].__qualname__ = f"{made.__qualname__}.{name}"
        namespace[name].__module__ = made.__module__
    made.encode = namespace["encode"]  # type: ignore[method-assign]
    made.decode = staticmethod(namespace["decode"])  # type: ignore[method-assign]


def _bind(namespace: dict[str, Any], prefix: str, value: object) -> str:
    """Put `value` into the namespace of the source under a name of its own."""
    name = f"{prefix}{len(namespace)}"
    namespace[name] = value
    return name


def _encoder(made: type[Method], namespace: dict[str, Any]) -> Iterable[str]:
    steps: list[str] = []
    parts: list[str] = []
    formats, values = "HH", [str(made.CLASS_ID), str(made.METHOD_ID)]

    def flush() -> None:
        nonlocal formats, values
        if formats:
            pack = struct.Struct(">" + formats).pack
            if all(value.isdigit() for value in values):
                parts.append(repr(pack(*map(int, values))))
            else:
                parts.append(f"{_bind(namespace, 'pack', pack)}({', '.join(values)})")
        formats, values = "", []

    for group in groups(made.ARGUMENTS):
        first, kind = group[0], group[0].kind
        if kind in _FORMATS:
            formats += _FORMATS[kind]
            values.append(f"self.{first.name}")
        elif kind == "bit":
            # The octet is looked up by the bools together; what is not a bool is not found.
            octets = {bits: sum(bit << i for i, bit in enumerate(bits)) for bits in _combinations(len(group))}
            key = "".join(f"self.{bit.name}, " for bit in group)
            formats += "B"
            values.append(f"{_bind(namespace, 'bits', octets)}[({key})]")
        elif kind == "shortstr":
            local = f"v{len(steps)}"
            steps.append(f'{local} = self.{first.name}.encode("utf-8", "surrogateescape")')
            formats += "B"
            values.append(f"len({local})")
            flush()
            parts.append(local)
        else:
            flush()
            encode = f"encode_argument({kind!r}, " if kind != "table" else "encode_table("
            parts.append(f"{encode}self.{first.name}, {first.where!r})")
    flush()
    result = parts[0] if len(parts) == 1 else f'b"".join(({", ".join(parts)}))'
    yield "def encode(self):"
    if not made.ARGUMENTS:
        yield f"    return {result}"
        return
    yield "    try:"
    yield from (f"        {step}" for step in steps)
    yield f"        return {result}"
    yield "    except Exception:"
    yield "        pass"
    yield "    return plain_encode(self)"


def _combinations(count: int) -> list[tuple[bool, ...]]:
    """All tuples of `count` bools, the one whose bits count n (the first bit is the lowest) at index n."""
    return [tuple(reversed(bits)) for bits in product((False, True), repeat=count)]


def _decoder(made: type[Method], namespace: dict[str, Any]) -> Iterable[str]:
    steps: list[str] = []
    formats, targets, after = "", [], []  # type: tuple[str, list[str], list[str]]

    def flush() -> None:
        nonlocal formats, targets, after
        if formats in ("B", "BB"):  # indexing is cheaper than unpacking up to here
            steps.extend(f"{target} = data[at + {i}]" for i, target in enumerate(targets))
            steps.append(f"at += {len(targets)}")
        elif formats:
            unpack = struct.Struct(">" + formats)
            name = _bind(namespace, "unpack", unpack.unpack_from)
            steps.append(f"{''.join(f'{target}, ' for target in targets)} = {name}(data, at)")
            steps.append(f"at += {unpack.size}")
        steps.extend(after)
        formats, targets, after = "", [], []

    for group in groups(made.ARGUMENTS):
        name, kind = group[0].name, group[0].kind
        if kind in _FORMATS:
            formats += _FORMATS[kind]
            targets.append(name)
        elif kind == "bit":
            octet = f"bits{len(targets)}"
            formats += "B"
            targets.append(octet)
            if len(group) == 1:
                after.append(f"{name} = {octet} & 1 == 1")
            else:
                flags = _bind(namespace, "flags", _combinations(len(group)))
                after.append(f"{', '.join(bit.name for bit in group)} = {flags}[{octet} & {2 ** len(group) - 1}]")
        elif kind == "shortstr":
            formats += "B"
            targets.append("size")
            flush()
            steps.append("stop = at + size")
            steps.append(f'{name} = data[at:stop].decode("utf-8", "surrogateescape")')
            steps.append("at = stop")
        else:
            flush()
            steps.append("if at > end: raise IndexError")
            decode = f"decode_argument({kind!r}, " if kind != "table" else "decode_table("
            steps.append(f"{name}, at = {decode}data, at, end, {group[0].where!r}, limits)")
    flush()
    names = ", ".join(argument.name for argument in made.ARGUMENTS)
    yield "def decode(data, at=4, end=None, limits=default_limits):"
    yield "    start, end = at, len(data) if end is None else end"
    yield "    try:"
    yield from (f"        {step}" for step in steps)
    yield "        if at == end:"
    yield f"            return cls({names})"
    yield "    except failures:"
    yield "        pass"
    yield "    return plain_decode(data, start, end, limits)"


def compile_properties(layout: Iterable[tuple[int, str, str]], template_name: str) -> tuple[_Encode, _Decode]:
    """The fast codec of a property list: `layout` says (flag, name, kind) of each property in wire order.

    encode(properties, octets) -- `octets`, when not None, stand in for the property `template_name`, encoded.
    decode(cls, data, limits) -- an instance of `cls` with every slot set.

    Both raise anything at all for what is unusual; then the plain functions are asked.  A property is in the slot
    that has its name after an underscore.
    """
    namespace: dict[str, Any] = {
        "length_octet": LENGTH_OCTET,
        "octet_of": dict(enumerate(LENGTH_OCTET)),  # a tuple would take -1
        "pack_u64": struct.Struct(">Q").pack,
        "unpack_u64": struct.Struct(">Q").unpack_from,
        "encode_table": encode_table,
        "decode_table": decode_table,
    }
    writers = {
        "shortstr": 'octets = value.encode("utf-8", "surrogateescape"); add(length_octet[len(octets)]); add(octets)',
        "octet": "add(octet_of[value])",
        "longlong": "add(pack_u64(value))",
        "table": "add(encode_table(value, {name!r}))",
    }
    readers = {
        "shortstr": "first = at + 1; at = first + data[at]; "
        'made.{slot} = data[first:at].decode("utf-8", "surrogateescape")',
        "octet": "made.{slot} = data[at]; at += 1",
        "longlong": "made.{slot} = unpack_u64(data, at)[0]; at += 8",
        "table": "made.{slot}, at = decode_table(data, at, end, {name!r}, limits)",
    }
    encode = ["def encode(properties, template):", "    flags, parts = 0, [b'']", "    add = parts.append"]
    decode = [
        "def decode(cls, data, limits):",
        "    flags, at, end = data[0] << 8 | data[1], 2, len(data)",
        "    made = cls.__new__(cls)",
    ]
    known = 0
    for flag, name, kind in layout:
        known |= flag
        if name == template_name:
            encode += [
                "    if template is not None:",
                f"        flags |= {flag}; add(length_octet[len(template)]); add(template)",
                f"    value = properties._{name} if template is None else None",
            ]
        else:
            encode.append(f"    value = properties._{name}")
        encode += ["    if value is not None:", f"        flags |= {flag}; {writers[kind].format(name=name)}"]
        decode += [
            f"    if flags & {flag}:",
            f"        {readers[kind].format(slot='_' + name, name=name)}",
            f"    else: made._{name} = None",
        ]
    encode += ["    parts[0] = flags.to_bytes(2, 'big')", "    return b''.join(parts)"]
    decode += [f"    if at != end or flags & {0xFFFF & ~known}: raise IndexError", "    return made"]
    exec(compile("\n".join(encode + decode), "<the codec of properties>", "exec"), namespace)  # noqa: S102
    return namespace["encode"], namespace["decode"]

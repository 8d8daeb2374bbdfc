"""What a program led to, as lines that can be compared.

Generated names are numbered in the order in which they appear, and moments are left out.  All else is as it came:
texts, kinds of values, the order of headers.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from txmsg.wire.field_values import Timestamp
from txmsg.wire.layout import Method
from txmsg.wire.properties import BasicProperties

__all__ = ["Names", "Record", "all_differences", "differences", "show_method", "show_properties", "show_value"]

_GENERATED = re.compile(r"amq\.(?:gen|ctag)-[A-Za-z0-9_-]{22}|amq\.rabbitmq\.reply-to\.[A-Za-z0-9+/=._-]{40,}")


class Names:
    """Generated names to numbers."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def replace(self, text: str) -> str:
        """`text` with a number for each."""
        return _GENERATED.sub(self._number, text)

    def _number(self, found: re.Match[str]) -> str:
        name = found[0]
        kind = name.partition("-")[0] if name[:7] in ("amq.gen", "amq.cta") else "amq.rabbitmq.reply-to"
        return self._known.setdefault(name, f"<{kind} {len(self._known) + 1}>")


@dataclass(slots=True)
class Record:
    """What came of one step.

    title: str -- the step.  lines: list of str -- what the clients saw, and what changed in the queues.
    choices: list of str -- what the step meant where that depends on an order that is the broker's to choose.  Where
        these differ there is nothing to compare any more.
    """

    title: str
    lines: list[str] = field(default_factory=list)
    choices: list[str] = field(default_factory=list)


def show_value(value: Any, name: str = "") -> str:
    """A field value with its kind."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key!r}: {show_value(item, key)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(show_value(item) for item in value) + "]"
    if name == "time" and isinstance(value, Timestamp):
        return "<time>"
    return repr(value)


def show_properties(properties: BasicProperties) -> str:
    """Those that are there."""
    return " ".join(f"{name}={show_value(value)}" for name, value in properties.as_dict().items())


def show_method(method: Method) -> str:
    """A method with all its arguments."""
    arguments = ", ".join(f"{each.name}={getattr(method, each.name)!r}" for each in method.ARGUMENTS)
    return f"{method.NAME}({arguments})"


def differences(expected: Sequence[Record], actual: Sequence[Record]) -> str:
    """A readable account of the first step that differs, with what led to it; "" if there is none."""
    path: list[str] = []
    for one, other in zip(expected, actual, strict=True):
        path.append(f"  {one.title}")
        if one.choices != other.choices:
            return ""
        if one.lines != other.lines:
            diff = list(difflib.ndiff(one.lines, other.lines))
            return "\n".join([*path[-30:], "    (- RabbitMQ, + embedded)", *("    " + line.rstrip() for line in diff)])
        path += [f"      {line}" for line in one.lines]
    return ""


def all_differences(expected: Sequence[Record], actual: Sequence[Record]) -> str:
    """Every step that differs, without what led to it: for programs whose steps have little to do with each other."""
    found: list[str] = []
    for one, other in zip(expected, actual, strict=True):
        if one.choices != other.choices:
            found.append(f"{one.title}\n    - {one.choices}\n    + {other.choices}")
        if one.lines != other.lines:
            diff = (line.rstrip() for line in difflib.ndiff(one.lines, other.lines) if line[0] in "-+")
            found.append("\n    ".join([one.title, *diff]))
    return "\n".join(found)

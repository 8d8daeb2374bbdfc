"""The kinds of values that the broker's settings have: how a text from a command line or variable becomes one.

Invariant: what is not of a kind is refused with a ValueError whose text begins "must be" and says what it was.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from txmsg.errors import clip

__all__ = ["Address", "Choice", "Flag", "Kind", "ListenAddress", "Number", "Size", "Text"]

#: What may stand behind a number of octets; powers of 1024, as in RabbitMQ's settings.
UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([kmgt]?)(?:i?b)?", re.IGNORECASE)
_ON: Final = ("1", "true", "yes", "on")
_OFF: Final = ("0", "false", "no", "off")


class Address(NamedTuple):
    """Where to listen: an IP address and a port; port 0 is any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect to it."""
        return ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Kind(Protocol):
    """How the values of a setting are read."""

    def from_text(self, text: str) -> object:
        """The value; ValueError if it is none, with a text that begins "must be"."""


@dataclass(frozen=True, slots=True)
class Text:
    """Any text but the empty one."""

    def from_text(self, text: str) -> str:
        """The text itself."""
        if not text or "\0" in text:
            raise ValueError("must be a text that is not empty")
        return text


@dataclass(frozen=True, slots=True)
class Choice:
    """One of a few words."""

    words: tuple[str, ...]

    def from_text(self, text: str) -> str:
        """The word."""
        if text not in self.words:
            raise ValueError(f"must be {' or '.join(self.words)}, not {clip(text, 40)!r}")
        return text


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no; an option without a value, a variable with one."""

    def from_text(self, text: str) -> bool:
        """true or false, 1 or 0, yes or no, on or off."""
        word = text.lower()
        if word in _ON:
            return True
        if word in _OFF:
            return False
        raise ValueError(f"must be true or false, not {clip(text, 40)!r}")


@dataclass(frozen=True, slots=True)
class Number:
    """An integer, or with `whole=False` any finite number, from `minimum` to `maximum`."""

    minimum: float
    maximum: float
    whole: bool = True

    def from_text(self, text: str) -> int | float:
        """The number."""
        noun = "an integer" if self.whole else "a number"
        expectation = f"must be {noun} from {self.minimum:.10g} to {self.maximum:.10g}"
        try:
            value: int | float = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(f"{expectation}, not {clip(text, 40)!r}") from None
        # Written so that NaN, which compares false with everything, is refused too.
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{expectation}, not {clip(text, 40)}")
        return value


@dataclass(frozen=True, slots=True)
class Size:
    """A number of octets, with an optional unit: `65536`, `64k`, `16MiB`, `1g`; units are powers of 1024."""

    minimum: int
    maximum: int = 1 << 40

    def from_text(self, text: str) -> int:
        """The number of octets."""
        match = _SIZE.fullmatch(text.strip())
        if match is None:
            raise ValueError(f"must be a number of bytes, such as 16MiB, not {clip(text, 40)!r}")
        value = int(match[1]) * UNITS[match[2].lower()]
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"must be from {self.minimum} to {self.maximum} bytes, not {clip(text, 40)}")
        return value


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """HOST:PORT; the host is an IP address (an IPv6 one in brackets) or `localhost`, which means 127.0.0.1."""

    def from_text(self, text: str) -> Address:
        """The address."""
        host, colon, port = text.rpartition(":")
        if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
            raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:5672 or [::1]:5672, not {clip(text, 60)!r}")
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if ":" in host and bare is host:
            raise ValueError(f"must have an IPv6 address in brackets, such as [::1]:5672, not {clip(text, 60)!r}")
        if bare == "localhost":
            bare = "127.0.0.1"
        try:
            return Address(str(ipaddress.ip_address(bare)), int(port))
        except ValueError:
            raise ValueError(
                f"must name an IP address (0.0.0.0 is all of this machine's), not the host {clip(bare, 60)!r}"
            ) from None

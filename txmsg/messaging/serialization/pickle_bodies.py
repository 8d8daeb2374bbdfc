"""Pickle, for those who must: it has to be asked for twice, and then loads only classes that were listed.

Python's pickle runs whatever its author likes (C5.2, R27).  So it is not among the serializers until
:func:`register_pickle` puts it there with an allow-list, and is not decoded until an accept list names it, whatever is
enabled for all.  The allow-list stops calls of anything else; each class on it can be built with arguments, and be
given a state, of a stranger's choice: list plain values only.
"""

from __future__ import annotations

import collections
import datetime
import decimal
import io
import os
import pickle
import pickletools
from collections.abc import Iterable
from typing import Any, Final

from txmsg.errors import BodyTooLarge, ConfigurationError, DecodeError, clip

__all__ = ["ALWAYS_ALLOWED", "MAX_SIZE", "PickleSerializer"]

#: Octets of a body that is taken, unless set: 1 MiB.
MAX_SIZE = 2**20

#: Classes that may always be built; those that cannot be changed from a pickle, because they are written in C.
ALWAYS_ALLOWED: Final[tuple[type, ...]] = (
    datetime.date,
    datetime.datetime,
    datetime.time,
    datetime.timedelta,
    datetime.timezone,
    decimal.Decimal,
    collections.OrderedDict,
    set,
    frozenset,
    complex,
)

#: Ways to name things outside the pickle that no list covers, and to make objects of old-style classes.
_REFUSED: Final = frozenset({"EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "INST", "OBJ", "NEXT_BUFFER", "BYTEARRAY8"})
_PUTS: Final = frozenset({"PUT", "BINPUT", "LONG_BINPUT"})


def _no_octets() -> bytes:
    return b""


def _latin_1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise DecodeError("a pickle with octets in a way that Python does not write")
    return text.encode("latin-1")


#: Protocols up to 2 have no code for bytes, and name these two, of which we have our own.
_OLD_BYTES: Final = {
    ("_codecs", "encode"): _latin_1,
    ("__builtin__", "bytes"): _no_octets,
    ("builtins", "bytes"): _no_octets,
}


class _Unpickler(pickle.Unpickler):  # built with a list of what it may find
    def __init__(self, body: bytes, allowed: dict[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(body))
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        """Only what is listed; nothing is imported."""
        found = self._allowed.get((module, name))
        if found is None:
            raise DecodeError(f"a pickle of {clip(f'{module}.{name}')!r}, which is not on its allow-list")
        return found


class PickleSerializer:
    """Values to pickle and back.

    allowed -- the classes that may come back, beside :data:`ALWAYS_ALLOWED` and what pickle has codes for (None, bool,
        numbers, str, bytes, list, tuple, dict, set).
    protocol: int -- that is written; unless given, the environment's PICKLE_PROTOCOL, or 4.
    max_size: int -- octets of a body that is taken.
    """

    def __init__(self, allowed: Iterable[type] = (), protocol: int | None = None, max_size: int = MAX_SIZE) -> None:
        self._allowed: dict[tuple[str, str], Any] = dict(_OLD_BYTES)
        for kind in (*ALWAYS_ALLOWED, *allowed):
            if not isinstance(kind, type):
                raise ConfigurationError(f"the allow-list of pickle has classes, not {type(kind).__name__}")
            self._allowed[kind.__module__, kind.__qualname__] = kind
        # How protocols up to 2 call the module of built-ins.
        self._allowed |= {
            ("__builtin__", name): kind for (module, name), kind in list(self._allowed.items()) if module == "builtins"
        }
        self.protocol = _protocol() if protocol is None else protocol
        if not isinstance(self.protocol, int) or not 0 <= self.protocol <= pickle.HIGHEST_PROTOCOL:
            raise ConfigurationError(f"a pickle protocol is from 0 to {pickle.HIGHEST_PROTOCOL}")
        self.max_size = max_size

    def encode(self, value: Any) -> bytes:
        """The octets of a value; raises what pickle raises."""
        return pickle.dumps(value, protocol=self.protocol)

    def decode(self, body: bytes) -> Any:
        """The value of some octets.  DecodeError, also for a class that is not listed; BodyTooLarge."""
        if len(body) > self.max_size:
            raise BodyTooLarge(f"a pickle of {len(body)} octets, above {self.max_size}", self.max_size)
        try:
            _check(body)
            return _Unpickler(body, self._allowed).load()
        except DecodeError:
            raise
        except Exception as error:
            raise DecodeError(f"a body that is not a pickle: {type(error).__name__}") from None


def _check(body: bytes) -> None:
    """Look at the codes before any of them is run."""
    for code, argument, _ in pickletools.genops(body):
        if code.name in _REFUSED:
            raise DecodeError(f"a pickle with the code {code.name}, which is not accepted")
        # The C unpickler makes room for as many objects as the index says.
        if code.name in _PUTS and not 0 <= int(argument or 0) <= len(body):
            raise DecodeError("a pickle that counts more objects than it has octets")


def _protocol() -> int:
    text = os.environ.get("PICKLE_PROTOCOL", "4")
    try:
        return int(text)
    except ValueError:
        raise ConfigurationError("the environment's PICKLE_PROTOCOL is not a number") from None

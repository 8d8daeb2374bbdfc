"""YAML by PyYAML's safe loader only, with limits (C5.2, C5.3).

PyYAML is an extra (txmsg[yaml]), loaded on first use.  Its cost is what is bounded: 4 kB of "[" take more than a
second and end with RecursionError, and a few lines of merge keys ("<<: [*a, *a]", each level of the one before)
become gigabytes.  So the body is small, the depth is counted while it is read, and merge keys, which no dumper writes,
are refused.  Aliases are kept: they are how a value that is there twice is written.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from txmsg.errors import BodyTooLarge, DecodeError, EncodeError, SerializerNotInstalled

__all__ = ["MAX_DEPTH", "MAX_SIZE", "YAMLSerializer"]

#: Octets of a body that is taken, unless set: 64 KiB.
MAX_SIZE = 64 * 2**10
#: Sequences and mappings within each other.
MAX_DEPTH = 64


def _yaml() -> Any:
    try:
        return importlib.import_module("yaml")
    except ImportError:
        raise SerializerNotInstalled("the serializer yaml needs PyYAML: install txmsg[yaml]") from None


@cache
def _loader_class() -> Any:
    """A safe loader that counts levels and refuses merge keys."""
    safe_loader: Any = _yaml().SafeLoader

    class BoundedLoader(safe_loader):  # type: ignore[misc]
        depth = 0
        max_depth = MAX_DEPTH

        def compose_sequence_node(self, anchor: Any) -> Any:
            return self._deeper(super().compose_sequence_node, anchor)

        def compose_mapping_node(self, anchor: Any) -> Any:
            return self._deeper(super().compose_mapping_node, anchor)

        def _deeper(self, compose: Any, anchor: Any) -> Any:
            self.depth += 1
            if self.depth > self.max_depth:
                raise DecodeError(f"YAML nested deeper than {self.max_depth} levels")
            node = compose(anchor)
            self.depth -= 1
            return node

        def flatten_mapping(self, node: Any) -> None:
            if any(key.tag == "tag:yaml.org,2002:merge" for key, _ in node.value):
                raise DecodeError("YAML with a merge key, which is not accepted")
            super().flatten_mapping(node)

    return BoundedLoader


class YAMLSerializer:
    """Values to YAML and back; `max_size`: octets of a body that is taken, `max_depth`: levels."""

    def __init__(self, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> None:
        self.max_size = max_size
        self.max_depth = max_depth

    def encode(self, value: Any) -> bytes:
        """The octets of a value.  EncodeError for what YAML's own types cannot say; SerializerNotInstalled."""
        yaml = _yaml()
        try:
            text: str = yaml.safe_dump(value)
        except yaml.YAMLError as error:
            # Not chained: it shows the value.
            kind = type(error.args[-1]).__name__ if error.args else "value"
            raise EncodeError(f"YAML has no {kind}") from None
        return text.encode("utf-8")

    def decode(self, body: bytes) -> Any:
        """The value of some octets.  DecodeError, BodyTooLarge, SerializerNotInstalled."""
        if len(body) > self.max_size:
            raise BodyTooLarge(f"YAML of {len(body)} octets, above {self.max_size}", self.max_size)
        loader_class = _loader_class()
        try:
            loader = loader_class(body)
            loader.max_depth = self.max_depth
            try:
                return loader.get_single_data()
            finally:
                loader.dispose()
        except DecodeError:
            raise
        except Exception as error:
            # Not chained: PyYAML's errors quote the line.
            mark = getattr(error, "problem_mark", None)
            where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
            raise DecodeError(f"a body that is not YAML: {type(error).__name__}{where}") from None

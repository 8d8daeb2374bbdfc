"""Serializers of one's own, switched on and off.  (A package that brings one, example 23, is in
tests/messaging/serialization/test_registry.py.)"""

from __future__ import annotations

import json
from functools import cached_property
from typing import Any

import pytest

from txmsg.errors import ContentDisallowed
from txmsg.messaging import default_serializers, dumps, loads
from txmsg.transports.memory import MemoryTransport
from txmsg.transports.registry import transport_for


def test_buffers() -> None:
    """Example 24: a decoder is handed octets, whatever they came in."""
    registry = default_serializers()
    registry.register("mine", lambda value: json.dumps(value).encode(), json.loads, "application/x-mine", "binary")
    body = registry.dumps({"a": 1}, "mine").body
    for given in (body, bytearray(body), memoryview(body)):
        assert registry.loads(given, "application/x-mine", "binary", accept=["mine"]) == {"a": 1}


def test_json_method() -> None:
    """Example 36: an object says itself what it is in JSON."""

    class Person:
        def __init__(self, name: str) -> None:
            self.name = name

        def __json__(self) -> dict[str, Any]:
            return {"name": self.name}

    encoded = dumps({"who": Person("Ada")}, "json")
    assert loads(encoded.body, encoded.content_type) == {"who": {"name": "Ada"}}


@pytest.mark.parametrize("name", ["yaml", "application/x-yaml"])
def test_disabled(name: str) -> None:
    """Example 43: decoding is switched off and on by name or by type."""
    registry = default_serializers()
    body = registry.dumps({"a": 1}, "yaml").body
    registry.enable(name)
    assert registry.loads(body, "application/x-yaml") == {"a": 1}
    registry.disable(name)
    with pytest.raises(ContentDisallowed):
        registry.loads(body, "application/x-yaml")


def test_by_name() -> None:
    """Example 33: a class by its path, where a transport is asked for; a property that is computed once."""
    for path in ("txmsg.transports.memory:MemoryTransport", "txmsg.transports.memory.MemoryTransport"):
        assert isinstance(transport_for(path), MemoryTransport)

    class Once:
        count = 0

        @cached_property
        def value(self) -> int:
            self.count += 1
            return self.count

    once = Once()
    assert (once.value, once.value) == (1, 1)

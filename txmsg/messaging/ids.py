"""uuid: an id that nobody else has."""

from __future__ import annotations

from uuid import uuid4

__all__ = ["uuid"]


def uuid() -> str:
    """A random id (RFC 9562, version 4), for instance for `correlation_id` or the name of a reply queue."""
    return str(uuid4())

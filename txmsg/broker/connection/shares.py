"""Shares: what each connection holds of something that is limited for all of them together (R36).

A limit for each connection is none for the broker, as there may be hundreds of them.  And a limit for all of them that
refuses whoever comes last is one that a hostile client fills up, and leaves the others to hit.  So the one that holds
most has to go.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Shares"]

_Owner = TypeVar("_Owner", bound=Hashable)


class Shares(Generic[_Owner]):
    """Bytes by owner.

    limit: int -- bytes of all owners together.
    total: int -- those there are.
    """

    __slots__ = ("_by_owner", "limit", "total")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._by_owner: dict[_Owner, int] = {}

    def add(self, owner: _Owner, count: int) -> _Owner | None:
        """`count` more bytes for `owner`; if all have too much now: who has most, of equals the one that came first."""
        self.total += count
        self._by_owner[owner] = self._by_owner.get(owner, 0) + count
        if self.total <= self.limit:
            return None
        return max(self._by_owner, key=self._by_owner.__getitem__)

    def remove(self, owner: _Owner, count: int | None = None) -> None:
        """`count` bytes of `owner` are free again; all it has if no count is given."""
        held = self._by_owner.get(owner, 0)
        left = 0 if count is None else held - count
        self.total -= held - left
        if left:
            self._by_owner[owner] = left
        else:
            self._by_owner.pop(owner, None)

    def of(self, owner: _Owner) -> int:
        """What `owner` has."""
        return self._by_owner.get(owner, 0)

    def __len__(self) -> int:
        return len(self._by_owner)

    def __repr__(self) -> str:
        return f"<Shares: {self.total} of {self.limit} bytes, {len(self)} owners>"

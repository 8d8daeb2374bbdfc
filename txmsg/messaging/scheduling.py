"""Cycles: whose turn it is among several.

Invariants: a cycle never invents or loses an item; and a :class:`FairCycle` asks no resource twice before it has asked
each of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

from txmsg.errors import ConfigurationError, QueueEmpty, clip

__all__ = ["FairCycle", "cycle_by_name", "priority_cycle", "round_robin_cycle", "sorted_cycle"]

T = TypeVar("T")
R = TypeVar("R")


class FairCycle(Generic[T, R]):
    """Get from many resources, each in its turn.

    fun -- called as `fun(resource, callback)` for one resource; raises one of `predicate` when it has nothing.
    resources -- what there is, in order.   predicate -- an exception class, or a tuple of them; QueueEmpty by default.
    """

    def __init__(
        self,
        fun: Callable[..., R],
        resources: Iterable[T],
        predicate: type[Exception] | tuple[type[Exception], ...] = QueueEmpty,
    ) -> None:
        self.fun = fun
        self.resources: list[T] = list(resources)
        self.predicate = predicate
        self._position = 0

    def get(self, callback: Any = None) -> R:
        """What `fun` returns for the next resource that has something.

        Raises `predicate` when none has, and each was asked once; QueueEmpty (or the first of `predicate`) when there
        are no resources.  Any other error of `fun` is raised as it is, and it is the next one's turn.
        """
        error: Exception | None = None
        for _ in range(len(self.resources)):
            if not self.resources:
                break  # `fun` has closed it
            resource = self._next()
            try:
                return self.fun(resource, callback)
            except self.predicate as found:
                error = found
        if error is None:
            kind = self.predicate[0] if isinstance(self.predicate, tuple) else self.predicate
            raise kind("there are no resources to get from")
        raise error

    def _next(self) -> T:
        # `resources` may have become shorter.
        position = self._position % len(self.resources)
        self._position = position + 1
        return self.resources[position]

    def close(self) -> None:
        """Forget the resources: `get` finds none."""
        self.resources = []

    def __repr__(self) -> str:
        return f"<FairCycle {min(self._position, len(self.resources))} of {len(self.resources)}>"


class round_robin_cycle(Generic[T]):  # noqa: N801 - the name it is known by
    """Items in an order that changes with their use: what was used goes to the end.

    items -- in the order to begin with.
    """

    def __init__(self, items: Iterable[T] = ()) -> None:
        self.items: list[T] = list(items)

    def update(self, items: Iterable[T]) -> None:
        """Have these items from now on."""
        self.items[:] = items

    def consume(self, count: int) -> Sequence[T]:
        """The next `count` items, or all if there are fewer; the order stays as it is."""
        return self.items[:count]

    def rotate(self, last_used: T) -> T:
        """Put the item that was used at the end, where one is there that is equal; returns it."""
        try:
            self.items.remove(last_used)
        except ValueError:
            return last_used
        self.items.append(last_used)
        return last_used

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.items!r})"


class priority_cycle(round_robin_cycle[T]):  # noqa: N801 - the name it is known by
    """Items in an order that does not change: the first is asked first, always."""

    def rotate(self, last_used: T) -> T:
        """Nothing changes; returns the item."""
        return last_used


class sorted_cycle(priority_cycle[T]):  # noqa: N801 - the name it is known by
    """Items in the order of their sorting."""

    def consume(self, count: int) -> Sequence[T]:
        """The `count` items that sort first, in that order."""
        return sorted(self.items)[:count]  # type: ignore[type-var]  # whoever sorts them has what can be sorted


_CYCLES: Final[dict[str, type[round_robin_cycle[Any]]]] = {
    "priority": priority_cycle,
    "round_robin": round_robin_cycle,
    "sorted": sorted_cycle,
}


def cycle_by_name(name: str) -> type[round_robin_cycle[Any]]:
    """The class of a cycle, from "round_robin", "priority" or "sorted"; ConfigurationError for another name."""
    try:
        return _CYCLES[name]
    except KeyError:
        raise ConfigurationError(f"there is no cycle {clip(name)!r}: {', '.join(_CYCLES)}") from None

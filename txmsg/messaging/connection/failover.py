"""Failover: which URL is tried next.

The first URL is the one that is used first.  When it cannot be reached, the strategy says which is next: "round-robin"
takes them in the order of the list, again and again; "shuffle" takes each once in a random order, then each once in
another.  A strategy of your own is a callable that is given the list and returns an iterator of URLs, or an iterator.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import cycle
from typing import Final

from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.connection.hidden import HiddenText

__all__ = ["Failover", "FailoverStrategy", "round_robin", "shuffle"]

#: The name of a strategy, a callable from the list of URLs to an iterable of URLs, or an iterator of URLs.
FailoverStrategy = str | Callable[[list[str]], Iterable[str]] | Iterator[str]


def round_robin(urls: Sequence[str]) -> Iterator[str]:
    """In the order of the list, without end."""
    return cycle(urls)


def shuffle(urls: Sequence[str]) -> Iterator[str]:
    """All of them in a random order, then all of them in another, without end."""
    order = list(urls)
    while order:
        random.shuffle(order)
        yield from tuple(order)


_STRATEGIES: Final[dict[str, Callable[[Sequence[str]], Iterator[str]]]] = {
    "round-robin": round_robin,
    "shuffle": shuffle,
}


class Failover:
    """The URLs of one connection, and the one that is used now.

    urls: list -- in the order they were given; the first is used first.   present: the one in use.
    ConfigurationError for a strategy that there is not.
    """

    def __init__(self, urls: Sequence[HiddenText], strategy: FailoverStrategy = "round-robin") -> None:
        self.urls = list(urls)
        self.present = self.urls[0]
        self._make: Callable[[list[str]], Iterable[str]] | None = None
        self._order: Iterator[str] | None = None
        self._is_first = True
        if isinstance(strategy, str):
            if strategy not in _STRATEGIES:
                known = " and ".join(_STRATEGIES)
                raise ConfigurationError(f"there is no failover strategy {clip(strategy, 40)!r}; there are {known}")
            self._make = _STRATEGIES[strategy]
        elif isinstance(strategy, Iterator):
            self._order = strategy
        elif callable(strategy):
            self._make = strategy
        else:
            raise ConfigurationError(
                f"failover_strategy is a name, a callable or an iterator, not {type(strategy).__name__}"
            )
        self._is_own = not isinstance(strategy, str)

    @property
    def has_others(self) -> bool:
        """Whether there is another URL to go to."""
        return self._is_own or len(self.urls) > 1

    def next(self) -> HiddenText:
        """Go to the URL that the strategy says; the present one where there is no other."""
        if self.has_others:
            found = self._draw()
            if self._is_first and found == self.present:
                found = self._draw()  # most orders begin with the URL that has just been tried
            self._is_first = False
            self.present = HiddenText(found)
        return self.present

    def _draw(self) -> str:
        for _ in range(2):
            if self._order is None and self._make is not None:
                self._order = iter(self._make(list(self.urls)))
            found = None if self._order is None else next(self._order, None)
            if found is not None:
                return found
            if self._make is None:
                break
            self._order = None
        return self.present

    def completes_cycle(self, retries: int) -> bool:
        """Whether each URL has had its turn when that many retries have failed (0: only the first attempt)."""
        return (retries + 1) % len(self.urls) == 0

"""Topic exchanges: a message goes where the binding key, a pattern of words, matches its routing key.

AMQP 0-9-1 section 3.1.3.3: words are separated by dots, `*` stands for one word and `#` for any number of them.
As RabbitMQ reads it, a word may be empty, the empty key has no words, `#` may stand anywhere and more than once,
and every other character is itself.

Binding keys without wildcards are looked up as they are.  The others are a tree over words, walked with the set of
all places that can be reached so far, so the cost grows with the words of the key and the places reached, not with
the number of bindings, and no pattern can make it explode.  No regular expression is ever made of a key.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.exchanges.exchange import Destination, Destinations, Exchange, Headers

if TYPE_CHECKING:
    from txmsg.broker.bindings import Binding

__all__ = ["TopicExchange", "is_pattern", "words_of"]

ONE: Final = "*"
ANY: Final = "#"


def words_of(key: str) -> list[str]:
    """The words of a routing key or a binding key; the empty key has none."""
    return key.split(".") if key else []


def is_pattern(words: list[str]) -> bool:
    """Whether a binding key has wildcards."""
    return ONE in words or ANY in words


def _canonical(words: list[str]) -> Iterator[str]:
    """The same pattern with the fewest `#`: `#.#` is `#`, and `#.*` is `*.#`."""
    pending = False
    for word in words:
        if word == ANY:
            pending = True
        elif word == ONE:
            yield word
        else:
            if pending:
                yield ANY
                pending = False
            yield word
    if pending:
        yield ANY


class _Place:
    """A place in the tree: what may come next, and where patterns that end here lead."""

    __slots__ = ("destinations", "is_any", "one", "rest", "words")

    def __init__(self, *, is_any: bool) -> None:
        self.words: dict[str, _Place] = {}
        self.one: _Place | None = None
        self.rest: _Place | None = None
        self.is_any = is_any  # reached by `#`: any word leads back to itself
        self.destinations = Destinations()

    @property
    def is_empty(self) -> bool:
        return not self.destinations and not self.words and self.one is None and self.rest is None

    def next(self, word: str) -> _Place | None:
        """The place behind a word of a pattern."""
        if word == ONE:
            return self.one
        return self.rest if word == ANY else self.words.get(word)

    def grow(self, word: str) -> _Place:
        """A new place behind a word of a pattern."""
        place = _Place(is_any=word == ANY)
        if word == ONE:
            self.one = place
        elif word == ANY:
            self.rest = place
        else:
            self.words[word] = place
        return place

    def prune(self, word: str) -> None:
        """Drop the place behind a word of a pattern."""
        if word == ONE:
            self.one = None
        elif word == ANY:
            self.rest = None
        else:
            del self.words[word]


class TopicExchange(Exchange):
    """A topic exchange."""

    type = "topic"
    __slots__ = ("_by_key", "_root")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by_key: dict[str, Destinations] = {}
        self._root = _Place(is_any=False)

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet."""
        super().add(binding, destination)
        words = words_of(binding.routing_key)
        if not is_pattern(words):
            self._by_key.setdefault(binding.routing_key, Destinations()).count_in(destination)
            return
        place = self._root
        for word in _canonical(words):
            place = place.next(word) or place.grow(word)
        place.destinations.count_in(destination)

    def remove(self, binding: Binding) -> None:
        """Remove a binding that is there."""
        destination = self.bindings[binding]
        super().remove(binding)
        words = words_of(binding.routing_key)
        if not is_pattern(words):
            destinations = self._by_key[binding.routing_key]
            destinations.count_out(destination)
            if not destinations:
                del self._by_key[binding.routing_key]
            return
        path: list[tuple[_Place, str]] = []
        place = self._root
        for word in _canonical(words):
            path.append((place, word))
            following = place.next(word)
            assert following is not None, "a binding that is there has its places"
            place = following
        place.destinations.count_out(destination)
        while path and place.is_empty:
            place, word = path.pop()
            place.prune(word)

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """The destinations whose binding key matches."""
        same = self._by_key.get(routing_key)
        if self._root.is_empty:
            return same or ()
        found: dict[Destination, int] = dict(same) if same else {}
        for place in self._reached(words_of(routing_key)):
            found.update(place.destinations)
        return found

    def _reached(self, words: list[str]) -> Collection[_Place]:
        """The places where a walk along `words` may end, each once."""
        places: dict[_Place, None] = {self._root: None}
        if self._root.rest is not None:
            places[self._root.rest] = None  # `#` may stand for no word
        for word in words:
            reached: dict[_Place, None] = {}
            for place in places:
                if place.is_any:
                    reached[place] = None
                for following in (place.words.get(word), place.one):
                    if following is not None:
                        reached[following] = None
                        if following.rest is not None:
                            reached[following.rest] = None
            if not reached:
                return ()
            places = reached
        return places

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
from txmsg.broker.faults import too_many_patterns
from txmsg.broker.vhost.footprint import WORD

if TYPE_CHECKING:
    from txmsg.broker.vhost.bindings import Binding

__all__ = ["TopicExchange", "is_pattern", "words_of"]

ONE: Final = "*"
ANY: Final = "#"

#: Places looked at for one message.  Only who binds thousands of patterns that all match the same long key gets
#: there; some ten milliseconds, in which nobody else is served.
MAX_STEPS: Final = 100_000


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
    """A place in the tree: what may come next, and where patterns that end here lead.

    There may be a million of them, so most of what they could have is None until it is needed.
    """

    __slots__ = ("destinations", "is_any", "one", "rest", "words")

    def __init__(self, *, is_any: bool) -> None:
        self.words: dict[str, _Place] | None = None
        self.one: _Place | None = None
        self.rest: _Place | None = None
        self.is_any = is_any  # reached by `#`: any word leads back to itself
        self.destinations: Destinations | None = None

    @property
    def is_empty(self) -> bool:
        return not self.destinations and not self.words and self.one is None and self.rest is None

    def next(self, word: str) -> _Place | None:
        """The place behind a word of a pattern."""
        if word == ONE:
            return self.one
        if word == ANY:
            return self.rest
        return self.words.get(word) if self.words else None

    def set(self, word: str, place: _Place | None) -> None:
        """Put a place behind a word of a pattern, or take away the one that is there."""
        if word == ONE:
            self.one = place
        elif word == ANY:
            self.rest = place
        elif place is None:
            assert self.words is not None
            del self.words[word]
        elif self.words is None:
            self.words = {word: place}
        else:
            self.words[word] = place


class TopicExchange(Exchange):
    """A topic exchange."""

    type = "topic"
    __slots__ = ("_by_key", "_root", "steps")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._by_key: dict[str, Destinations] = {}
        self._root = _Place(is_any=False)
        self.steps = 0

    def cost_of(self, binding: Binding) -> int:
        """The octets that a binding takes, about, with the places of its pattern."""
        words = words_of(binding.routing_key)
        return super().cost_of(binding) + (WORD * len(words) if is_pattern(words) else 0)

    def add(self, binding: Binding, destination: Destination) -> None:
        """Add a binding that is not there yet."""
        super().add(binding, destination)
        words = words_of(binding.routing_key)
        if not is_pattern(words):
            self._by_key.setdefault(binding.routing_key, Destinations()).count_in(destination)
            return
        place = self._root
        for word in _canonical(words):
            following = place.next(word)
            if following is None:
                following = _Place(is_any=word == ANY)
                place.set(word, following)
            place = following
        if place.destinations is None:
            place.destinations = Destinations()
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
        assert place.destinations is not None
        place.destinations.count_out(destination)
        while path and place.is_empty:
            place, word = path.pop()
            place.set(word, None)

    def route(self, routing_key: str, headers: Headers | None) -> Collection[Destination]:
        """The destinations whose binding key matches; Fault 506 if it costs too much to find out."""
        same = self._by_key.get(routing_key)
        if self._root.is_empty:
            return same or ()
        found: dict[Destination, int] = dict(same) if same else {}
        for place in self._reached(words_of(routing_key)):
            if place.destinations:
                found.update(place.destinations)
        return found

    def _reached(self, words: list[str]) -> Collection[_Place]:
        """The places where a walk along `words` may end, each once."""
        places: dict[_Place, None] = {self._root: None}
        if self._root.rest is not None:
            places[self._root.rest] = None  # `#` may stand for no word
        steps = 0
        for word in words:
            steps += len(places)
            if steps > MAX_STEPS:
                raise too_many_patterns(self.name, self.vhost.name)
            reached: dict[_Place, None] = {}
            for place in places:
                if place.is_any:
                    reached[place] = None
                if place.words is not None and (following := place.words.get(word)) is not None:
                    reached[following] = None
                    if following.rest is not None:
                        reached[following.rest] = None
                if (following := place.one) is not None:
                    reached[following] = None
                    if following.rest is not None:
                        reached[following.rest] = None
            places = reached
            if not reached:
                break
        self.steps = steps
        return places

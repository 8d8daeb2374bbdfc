"""Which nodes a request is for: those it lists, those whose names match a pattern, or all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Final

from txmsg.errors import ConfigurationError, clip

__all__ = ["MATCHERS", "Matcher", "destination_of", "is_addressed", "pattern_of"]

#: Called with the name of a node and a pattern.
Matcher = Callable[[str, str], bool]

#: Longer patterns match nothing.  A node's name is short, but a regular expression need not be harmless for that.
_LONGEST_PATTERN: Final = 1000


def _regex(name: str, pattern: str) -> bool:
    return re.match(pattern, name) is not None


#: The matchers by their names on the wire, which are Kombu's.  "glob": as for files, of the whole name (`fnmatch`);
#: "pcre": a regular expression of Python's `re`, from the beginning of the name.
MATCHERS: Final[Mapping[str, Matcher]] = MappingProxyType({"glob": fnmatchcase, "pcre": _regex})


def is_addressed(hostname: str, request: Mapping[str, Any], matchers: Mapping[str, Matcher] = MATCHERS) -> bool:
    """Whether a request, as it came, is for the node of that name.

    The destination comes first, then the pattern (a glob unless it says otherwise).  What is malformed, or cannot be
    matched here, is for nobody: better none than all.
    """
    destination = request.get("destination")
    if destination:
        return isinstance(destination, list | tuple) and hostname in destination
    pattern = request.get("pattern")
    if not pattern:
        return True
    matcher = request.get("matcher") or "glob"
    matches = matchers.get(matcher) if isinstance(matcher, str) else None
    if matches is None or not isinstance(pattern, str) or len(pattern) > _LONGEST_PATTERN:
        return False
    try:
        return bool(matches(hostname, pattern))
    except (re.error, RecursionError, OverflowError):
        return False


def destination_of(destination: Any) -> list[str]:
    """A list of names of nodes to send.  ConfigurationError: it is none, or empty, which would mean all of them."""
    if isinstance(destination, str) or not isinstance(destination, list | tuple | set | frozenset):
        raise ConfigurationError(f"destination is {clip(repr(destination))}: give a list of names of nodes")
    names = list(destination)
    if not names:
        raise ConfigurationError("destination is empty, which would reach every node: use abcast or multi_call for all")
    for name in names:
        if not isinstance(name, str):
            raise ConfigurationError(f"destination has {clip(repr(name))} in it: give names of nodes")
    return names


def pattern_of(pattern: Any, matcher: Any, matchers: Mapping[str, Matcher]) -> tuple[str | None, str | None]:
    """A pattern and the name of its matcher to send; None: no pattern.  ConfigurationError: they cannot be used."""
    if pattern is None:
        return None, None
    if not isinstance(pattern, str) or not pattern or len(pattern) > _LONGEST_PATTERN:
        raise ConfigurationError(f"pattern is {clip(repr(pattern))}: give a str of 1 to {_LONGEST_PATTERN} characters")
    if not isinstance(matcher, str) or matcher not in matchers:
        known = ", ".join(sorted(matchers))
        raise ConfigurationError(f"matcher is {clip(repr(matcher))}: give one of {known}")
    if matcher == "pcre":
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ConfigurationError(f"pattern is no regular expression: {clip(str(error))}") from None
    return pattern, matcher

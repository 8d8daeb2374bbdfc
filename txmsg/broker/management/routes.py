"""Which function answers which path.

A path is given as RabbitMQ documents it, `queues/{vhost}/{name}/get`; what stands in braces becomes an argument,
already percent-decoded, so that a slash within it is no separator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from txmsg.broker.management.visitors import Level

__all__ = ["Found", "Handler", "Route", "Routes", "route"]

Handler = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, whom to call, and who may.

    handler: called with the Call and what stood for the braces.
    """

    method: str
    path: tuple[str, ...]
    handler: Handler
    level: Level

    def match(self, segments: Sequence[str]) -> list[str] | None:
        """What stands for the braces; None if the path is another one."""
        if len(segments) != len(self.path):
            return None
        arguments = []
        for expected, segment in zip(self.path, segments, strict=True):
            if expected.startswith("{"):
                arguments.append(segment)
            elif expected != segment:
                return None
        return arguments


def route(method: str, path: str, level: Level = Level.MANAGEMENT) -> Callable[[Handler], Handler]:
    """Mark a function as the handler of a path; may be given several times."""

    def mark(handler: Handler) -> Handler:
        made = Route(method, tuple(path.split("/")), handler, level)
        handler.__dict__.setdefault("routes", []).append(made)
        return handler

    return mark


@dataclass(frozen=True, slots=True)
class Found:
    """What there is for a path: the route, if the method is one of `methods`, and what stood for the braces."""

    methods: frozenset[str]
    route: Route | None
    arguments: Sequence[str]


class Routes:
    """All routes; those with fewer braces are tried first, so that `users/bulk-delete` is not a user."""

    def __init__(self, modules: Iterable[object]) -> None:
        found = [
            made
            for module in modules
            for value in vars(module).values()
            if callable(value) and getattr(value, "__module__", None) == getattr(module, "__name__", "")
            for made in getattr(value, "routes", ())
        ]
        self._routes: dict[int, list[Route]] = {}
        for made in sorted(found, key=lambda made: sum(part.startswith("{") for part in made.path)):
            self._routes.setdefault(len(made.path), []).append(made)

    def find(self, method: str, segments: Sequence[str]) -> Found | None:
        """What there is for the path; None if there is nothing.  HEAD is a GET whose body is not sent."""
        wanted = "GET" if method == "HEAD" else method
        methods: set[str] = set()
        chosen: tuple[Route, list[str]] | None = None
        for candidate in self._routes.get(len(segments), ()):
            arguments = candidate.match(segments)
            if arguments is None:
                continue
            methods.add(candidate.method)
            if chosen is None and candidate.method == wanted:
                chosen = candidate, arguments
        if not methods:
            return None
        if "GET" in methods:
            methods.add("HEAD")
        methods.add("OPTIONS")
        made, given = chosen if chosen is not None else (None, [])
        return Found(frozenset(methods), made, given)

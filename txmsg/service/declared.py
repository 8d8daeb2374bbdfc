"""Handlers that say themselves what they consume: queues, accept list, serializer, limits.

    @consumes(Queue("orders", Exchange("shop", "topic"), "order.*"), accept=["json"], prefetch_count=10)
    def handle(body, message): ...

`twistd txmsg-consumer --app package.module` runs every such handler of a module; `--handler` one of them.  What is not
said here is what the service's settings say.  Invariant: what is wrong with a declaration by itself is a
ConfigurationError where it is written.

Importing this module does not import :mod:`txmsg.messaging`.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

from txmsg.errors import ConfigurationError, clip
from txmsg.service.settings import SETTINGS_BY_NAME

if TYPE_CHECKING:
    from txmsg.messaging.entities import Queue

__all__ = ["ON_DECODE_ERROR", "DeclaredConsumer", "consumes", "declaration_of", "declarations_in"]

#: What may become of a message whose body cannot be decoded or is not accepted.
ON_DECODE_ERROR = ("reject", "requeue", "dead_letter", "keep")

#: Where `consumes` leaves the declaration on a handler.
_MARK = "__txmsg_consumer__"

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

#: Fields that are settings of the service, too, and their names there.
_SETTINGS: Mapping[str, str] = {
    "prefetch_count": "prefetch",
    **{
        name: name
        for name in (
            *("concurrency", "threads", "dedupe_window", "exclusive", "consumer_tag"),
            *("on_failure", "retry_delays", "dead_letter", "requeue_delay"),
        )
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeclaredConsumer:
    """One handler with what it consumes.

    handler: called as handler(body, message); with a parameter `producer` it is given one.  Or "package.module:name".
    queues: :class:`txmsg.messaging.Queue`, or names of queues that exist.
    accept: serializers or media types that may be decoded; None: JSON, text and octets.
    accept_compression: compressions that may be undone; None: zlib and gzip.
    serializer, compression: what the producer uses where it is told nothing else; None: JSON, and none.
    on_decode_error: "reject" (default), "requeue" (after `requeue_delay`, as often as it takes), "dead_letter" (to that
        queue), "keep" (unsettled until the service stops), or a callable that is given (message, error) and is a
        handler for such messages.
    declare: whether queues, exchanges and bindings are declared; else they must exist.

    The others are the service's settings of these names (prefetch_count: `prefetch`, 0 is unlimited); None: as there.
    With several queues `prefetch_count` is for each of them, and there can be no `retry_delays` or `dead_letter`.
    """

    handler: Callable[..., Any] | str
    queues: tuple[Queue | str, ...]
    accept: str | Iterable[str] | None = None
    accept_compression: str | Iterable[str] | None = None
    serializer: str | None = None
    compression: str | None = None
    on_decode_error: str | Callable[..., Any] = "reject"
    declare: bool = True
    prefetch_count: int | None = None
    concurrency: int | None = None
    threads: int | None = None
    dedupe_window: int | None = None
    exclusive: bool | None = None
    consumer_tag: str | None = None
    on_failure: str | None = None
    retry_delays: Iterable[float] | None = None
    dead_letter: str | None = None
    requeue_delay: float | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: object) -> None:
            object.__setattr__(self, name, value)

        if not callable(self.handler) and not isinstance(self.handler, str):
            raise ConfigurationError(f"a handler is a callable, not {_kind(self.handler)}")
        given: Any = self.queues
        put("queues", tuple(given) if isinstance(given, (list, tuple)) else (given,))
        if not self.queues:
            raise ConfigurationError("a consumer needs a queue")
        for queue in self.queues:
            if not queue or not isinstance(queue if isinstance(queue, str) else getattr(queue, "name", None), str):
                raise ConfigurationError(f"a consumer's queue is a Queue or a name, not {_kind(queue)}")
        for name in ("accept", "accept_compression"):
            names = getattr(self, name)
            if names is not None and not isinstance(names, str):
                put(name, tuple(names))
        if not callable(self.on_decode_error) and self.on_decode_error not in ON_DECODE_ERROR:
            raise ConfigurationError(
                f"on_decode_error is a callable or one of {', '.join(ON_DECODE_ERROR)}, not "
                f"{clip(str(self.on_decode_error), 40)!r}"
            )
        if not isinstance(self.declare, bool):
            raise ConfigurationError(f"declare is True or False, not {_kind(self.declare)}")
        if self.retry_delays is not None:
            put("retry_delays", tuple(self.retry_delays))
        for name, setting in _SETTINGS.items():
            value = getattr(self, name)
            if value is not None and (name, value) != ("prefetch_count", 0):
                try:
                    SETTINGS_BY_NAME[setting].kind.check(list(value) if isinstance(value, tuple) else value)
                except ValueError as error:
                    raise ConfigurationError(f"{name} {error}") from None

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of the service that it has its own word on."""
        return {setting: getattr(self, name) for name, setting in _SETTINGS.items() if getattr(self, name) is not None}

    def __repr__(self) -> str:
        queues = ", ".join(clip(queue if isinstance(queue, str) else queue.name) for queue in self.queues)
        handler = self.handler if isinstance(self.handler, str) else getattr(self.handler, "__qualname__", self.handler)
        return f"<DeclaredConsumer of {queues} with {handler}>"


def _kind(value: object) -> str:
    return "an empty name" if value == "" else f"a {type(value).__name__}"


def consumes(*queues: Queue | str, **details: Any) -> Callable[[HandlerT], HandlerT]:
    """Declare a handler; `queues` and `details` are those of :class:`DeclaredConsumer`.

    The handler stays as it is, so that a test can call it.  A class is called once, without arguments, when the service
    starts, and its instance is the handler.  ConfigurationError for what cannot be used.
    """
    known = [field.name for field in fields(DeclaredConsumer) if field.name != "handler"]
    for name in details:
        if name not in known:
            raise ConfigurationError(f"a consumer has no {clip(name)!r}; known are: {', '.join(known)}")
    if queues and "queues" in details:
        raise ConfigurationError("give the queues once: before the other arguments, or as queues=[...]")
    given = details.pop("queues", queues)

    def declare(handler: HandlerT) -> HandlerT:
        declared = DeclaredConsumer(handler=handler, queues=given, **details)
        try:
            setattr(handler, _MARK, declared)
        except AttributeError:
            raise ConfigurationError(
                f"a {type(handler).__name__} cannot be decorated: use DeclaredConsumer(handler=..., queues=...)"
            ) from None
        return handler

    return declare


def declaration_of(candidate: object) -> DeclaredConsumer | None:
    """The declaration that something is, or carries; None if neither."""
    if isinstance(candidate, DeclaredConsumer):
        return candidate
    found = getattr(candidate, _MARK, None)
    return found if isinstance(found, DeclaredConsumer) else None


def declarations_in(app: object) -> list[DeclaredConsumer]:
    """All declarations of a module, in the order of its names; of a list or tuple; or the one of a handler.

    ConfigurationError if there is none.
    """
    if isinstance(app, types.ModuleType):
        candidates: list[object] = list(vars(app).values())
    elif isinstance(app, (list, tuple)):
        candidates = list(app)
        for candidate in candidates:
            if declaration_of(candidate) is None:
                raise ConfigurationError(f"a {type(candidate).__name__} in it is no declared handler (@consumes)")
    else:
        candidates = [app]
    found = {id(declared): declared for each in candidates if (declared := declaration_of(each)) is not None}
    if not found:
        raise ConfigurationError("it has no declared handler: decorate one with @consumes(...)")
    return list(found.values())

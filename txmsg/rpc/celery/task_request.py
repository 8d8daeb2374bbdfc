"""Task messages inwards: what is to be run, or why it cannot be (celery D-01 to F-12, N-01 to N-14).

The invariant: for any properties, headers and body there is a TaskRequest or a BadTask, and nothing is raised.  A
worker never dies of a message, nor hands one back that would come again for ever: bad ones are rejected, and answered
with FAILURE where an id and a reply queue are known.  The content type is looked at before the body.
Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Any, Final

from txmsg.errors import ContentDisallowed, DecodeError, SerializationError, clip
from txmsg.messaging.compression import DEFAULT_LIMITS, DecompressionLimits
from txmsg.messaging.serialization import Accept, decode_body, serializers
from txmsg.rpc.celery.message import HEADERS, TaskMessage, build_task
from txmsg.rpc.celery.reprs import bounded_repr
from txmsg.rpc.celery.signature import Embed, read_embed
from txmsg.rpc.celery.times import Time, read_time

__all__ = ["BadTask", "TaskRequest", "build_retry", "parse_task"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task that can be run; all times are aware and in UTC.

    task_id, name: str.   args: list.   kwargs: dict.   embed -- what goes on after it.
    reply_to: str | None -- the queue for results; None: nobody wants one.
    correlation_id: str -- for its results; the sender's, or else the id (A-05).
    eta, expires: datetime | None.   time_limit, soft_time_limit: seconds or None.   retries: int.
    ignore_result: bool | None -- None: as the task has it (L-03).
    headers -- all that came, those of the sender's own among them.   protocol: int -- 2 or 1.
    """

    task_id: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    embed: Embed = field(default_factory=Embed)
    reply_to: str | None = None
    correlation_id: str = ""
    eta: datetime | None = None
    expires: datetime | None = None
    retries: int = 0
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    group_id: str | None = None
    group_index: int | None = None
    root_id: str | None = None
    parent_id: str | None = None
    shadow: str | None = None
    origin: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: tuple[str, ...] = ()
    stamps: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    headers: Mapping[str, Any] = field(default_factory=dict)
    protocol: int = 2

    @property
    def own_headers(self) -> dict[str, Any]:
        """The headers that are not Celery's: the sender's own (E-19)."""
        return {key: value for key, value in self.headers.items() if key not in HEADERS}

    def is_expired(self, now: datetime) -> bool:
        """Whether it is not to be run any more; `now` is aware (K-09)."""
        return self.expires is not None and now > self.expires

    def __repr__(self) -> str:
        # Arguments can be secrets.
        return f"<TaskRequest {clip(self.name, 100)!r} {clip(self.task_id, 60)} retries={self.retries}>"


@dataclass(frozen=True, slots=True, kw_only=True)
class BadTask:
    """A message that no task can be run for, and what to do with it.

    reason: str -- for the log.
    exc_type, exc_module, exc_args -- the failure to answer with, under the names that Celery's clients know.
    rejected: bool -- reject it, without requeue; False: ack it.
    task_id, name, reply_to, correlation_id -- as far as they are known.   ignore_result: bool | None.
    """

    reason: str
    exc_type: str
    exc_module: str
    exc_args: tuple[Any, ...]
    rejected: bool = True
    task_id: str | None = None
    name: str | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    ignore_result: bool | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group_id: str | None = None

    @property
    def is_answered(self) -> bool:
        """Whether its sender gets a FAILURE: an id and a reply queue are known, and results are not ignored."""
        return self.task_id is not None and self.reply_to is not None and self.ignore_result is not True

    @property
    def data(self) -> dict[str, Any]:
        """The exception, as a result message carries it."""
        return {"exc_type": self.exc_type, "exc_message": list(self.exc_args), "exc_module": self.exc_module}


#: Octets of a name that goes into a property.
_SHORT: Final = 255
#: Seconds of a time limit; not a number, infinity and what no float can say are above it.
_LONGEST: Final = 1e9
#: What the header retries can count to, when the task is sent once more.
_MOST_RETRIES: Final = 2**31 - 2

#: Headers that route a message, delay it, or tell where it has been.
_OF_BROKERS: Final = frozenset({"CC", "BCC", "x-delay", "x-death"})

_CELERY: Final = "celery.exceptions"
_KOMBU: Final = "kombu.exceptions"


class _Bad(Exception):
    """Ends the reading of a message."""

    def __init__(
        self, exc_type: str, text: str, exc_module: str = _CELERY, rejected: bool = True, argument: Any = ...
    ) -> None:
        super().__init__(text)
        self.exc_type = exc_type
        self.text = text
        self.exc_module = exc_module
        self.rejected = rejected
        self.argument = text if argument is ... else argument


def parse_task(
    body: bytes,
    properties: Mapping[str, Any],
    *,
    accept: Accept = ("json",),
    accept_compression: frozenset[str] | None = None,
    limits: DecompressionLimits = DEFAULT_LIMITS,
    naive: tzinfo = UTC,
) -> TaskRequest | BadTask:
    """What a message asks for.

    body, properties -- as they came; the headers are among the properties, by AMQP's names.
    accept, accept_compression, limits -- as for a Consumer; only JSON, zlib and gzip unless others are named.
    naive -- the zone of times that name none, UTC.

    Nothing is raised for what a message holds; SerializerNotInstalled for an unknown name in `accept`.
    """
    accepted = serializers.accept(accept)
    known: dict[str, Any] = {}
    try:
        found = properties.get("headers")
        headers = dict(found) if isinstance(found, Mapping) else {}
        known["reply_to"] = _text(properties.get("reply_to"), _SHORT)
        known["correlation_id"] = _text(properties.get("correlation_id"), _SHORT)
        if "task" in headers:
            known.update(_ids(headers))
            _check_ids(headers)
            value = _decode(body, properties, headers, accepted, accept_compression, limits)
            return _protocol_2(value, headers, properties, known, naive)
        value = _decode(body, properties, headers, accepted, accept_compression, limits)
        if not isinstance(value, Mapping) or "task" not in value:
            raise _Bad("InvalidTaskError", "not a task message: no task in the headers, nor in the body")
        known.update(_ids(value))
        _check_ids(value)
        return _protocol_1(value, headers, properties, known, naive)
    except _Bad as bad:
        return BadTask(
            reason=bad.text,
            exc_type=bad.exc_type,
            exc_module=bad.exc_module,
            exc_args=(bad.argument,),
            rejected=bad.rejected,
            **known,
        )


def _decode(
    body: bytes,
    properties: Mapping[str, Any],
    headers: Mapping[str, Any],
    accept: Accept,
    accept_compression: frozenset[str] | None,
    limits: DecompressionLimits,
) -> Any:
    content_type, encoding = properties.get("content_type"), properties.get("content_encoding")
    compression = headers.get("compression")
    if compression is not None and not isinstance(compression, str):
        raise _Bad("DecodeError", f"the header compression is a {type(compression).__name__}", _KOMBU)
    try:
        return decode_body(
            body,
            # Without one it is read as JSON, if that is accepted (N-03).
            content_type=content_type if isinstance(content_type, str) and content_type else "application/json",
            content_encoding=encoding if isinstance(encoding, str) else None,
            compression=compression,
            accept=accept,
            accept_compression=accept_compression,
            limits=limits,
        )
    except ContentDisallowed as error:
        raise _Bad("ContentDisallowed", str(error), _KOMBU) from None
    except SerializationError as error:
        raise _Bad("DecodeError", str(error), _KOMBU) from None


# -- ids -----------------------------------------------------------------------------------------


def _ids(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What an answer needs."""
    ignore_result = fields.get("ignore_result")
    return {
        "task_id": _text(fields.get("id"), _SHORT),
        "name": _text(fields.get("task")),
        "ignore_result": bool(ignore_result) if isinstance(ignore_result, bool | int) else None,
        "root_id": _text(fields.get("root_id")),
        "parent_id": _text(fields.get("parent_id")),
        "group_id": _text(fields.get("group")) or _text(fields.get("taskset")),
    }


def _check_ids(fields: Mapping[str, Any]) -> None:
    if _text(fields.get("id"), _SHORT) is None:
        raise _Bad("InvalidTaskError", "a task without an id that can be answered to")
    name = fields.get("task")
    if _text(name) is None:
        shown = name if name is None or isinstance(name, str) else clip(bounded_repr(name))
        raise _Bad("NotRegistered", f"a task without a name: {shown!r}", argument=shown)


def _text(value: Any, limit: int | None = None) -> str | None:
    """A text that can be sent on; JSON can hold lone surrogates, and a property 255 octets."""
    if not isinstance(value, str) or not value:
        return None
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        return None
    return value if limit is None or size <= limit else None


# -- the two protocols ---------------------------------------------------------------------------


def _protocol_2(
    value: Any, headers: Mapping[str, Any], properties: Mapping[str, Any], known: Mapping[str, Any], naive: tzinfo
) -> TaskRequest:
    if isinstance(value, Mapping):
        # The header `task` and an object: a mixture, as some clients in other languages send it.
        if "args" not in value:
            raise _Bad("InvalidTaskError", "the body of a task is an object without args")
        # What a task of protocol 1 has in its body counts where the headers do not say it.
        fields = {**value, **headers}
        return _request(headers, value.get("args"), value.get("kwargs", {}), value, fields, properties, known, naive)
    if not isinstance(value, list | tuple) or len(value) != 3:
        what = f"{len(value)} elements" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
        raise _Bad("InvalidTaskError", f"the body of a task is [args, kwargs, embed], not {what}")
    args, kwargs, embed = value
    return _request(headers, args, kwargs, embed, headers, properties, known, naive)


def _protocol_1(
    value: Mapping[str, Any],
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
    known: Mapping[str, Any],
    naive: tzinfo,
) -> TaskRequest:
    fields = {**value, "group": value.get("group") or value.get("taskset")}
    args, kwargs = value.get("args", []), value.get("kwargs", {})
    return _request(headers, args, kwargs, value, fields, properties, known, naive, protocol=1)


def _request(
    headers: Mapping[str, Any],
    args: Any,
    kwargs: Any,
    after: Any,
    fields: Mapping[str, Any],
    properties: Mapping[str, Any],
    known: Mapping[str, Any],
    naive: tzinfo,
    protocol: int = 2,
) -> TaskRequest:
    if not isinstance(args, list | tuple):
        raise _wrong_type(f"the args of a task are a list, not {type(args).__name__}")
    if not isinstance(kwargs, Mapping):
        raise _wrong_type(f"the kwargs of a task are an object, not {type(kwargs).__name__}")
    if not all(isinstance(key, str) for key in kwargs):
        raise _wrong_type("the keys of a task's kwargs are texts")
    hard, soft = _time_limits(fields.get("timelimit"))
    stamps, stamped = fields.get("stamps"), fields.get("stamped_headers")
    try:
        return TaskRequest(
            task_id=known["task_id"],
            name=known["name"],
            args=list(args),
            kwargs=dict(kwargs),
            embed=read_embed(after),
            reply_to=known["reply_to"],
            correlation_id=known["correlation_id"] or known["task_id"],
            eta=read_time(fields.get("eta"), "eta", naive),
            expires=read_time(fields.get("expires"), "expires", naive),
            retries=_retries(fields.get("retries")),
            time_limit=hard,
            soft_time_limit=soft,
            ignore_result=known["ignore_result"],
            group_id=known["group_id"],
            group_index=_count(fields.get("group_index")),
            root_id=known["root_id"],
            parent_id=known["parent_id"],
            shadow=_text(fields.get("shadow")),
            origin=_text(fields.get("origin")),
            argsrepr=_text(fields.get("argsrepr")),
            kwargsrepr=_text(fields.get("kwargsrepr")),
            replaced_task_nesting=_count(fields.get("replaced_task_nesting")) or 0,
            stamped_headers=tuple(map(str, stamped)) if isinstance(stamped, list | tuple) else (),
            stamps=dict(stamps) if isinstance(stamps, Mapping) else {},
            priority=_count(properties.get("priority")) or 0,
            headers=dict(headers),
            protocol=protocol,
        )
    except DecodeError as error:
        raise _Bad("InvalidTaskError", str(error), rejected=False) from None


def _wrong_type(text: str) -> _Bad:
    return _Bad("TypeError", text, "builtins", rejected=False)


def _retries(value: Any) -> int:
    if value is None:
        return 0
    count = _count(value)
    if count is None or count > _MOST_RETRIES:
        raise DecodeError(f"retries is an int from 0, not {bounded_repr(value, 60)}")
    return count


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _time_limits(value: Any) -> tuple[float | None, float | None]:
    """The hard one, and the soft one; 0 is none."""
    if value is None or value == []:
        return None, None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _Bad("InvalidTaskError", "timelimit is [hard, soft]", rejected=False)
    for seconds in value:
        if seconds is None:
            continue
        if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not 0 <= seconds <= _LONGEST:
            raise _Bad("InvalidTaskError", "a time limit is a number of seconds", rejected=False)
    hard, soft = value
    if hard and soft and soft > hard:
        soft = None  # it could never be over, nor be sent again
    return hard or None, soft or None


# -- once more -----------------------------------------------------------------------------------


def build_retry(
    request: TaskRequest,
    *,
    args: list[Any] | tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    countdown: float | None = None,
    eta: Time | None = None,
    expires: Time | None = None,
    now: datetime | None = None,
    **options: Any,
) -> TaskMessage:
    """The message that runs a task once more (K-01).

    It keeps the id, the root, where results go, what follows, and the sender's own headers, but for those that brokers
    act upon (C6.2); `retries` is one more, and its parent is itself.

    args, kwargs, expires -- None: as they were.   countdown, eta, options -- as for
    :func:`txmsg.rpc.celery.message.build_task`, whose errors it raises.
    """
    same = args is None and kwargs is None
    made: dict[str, Any] = {
        "task_id": request.task_id,
        "protocol": request.protocol,
        "reply_to": request.reply_to or "",
        "correlation_id": request.correlation_id,
        "countdown": countdown,
        "eta": eta,
        "expires": request.expires if expires is None else expires,
        "now": now,
        "priority": min(request.priority, 255),
        "retries": request.retries + 1,
        "time_limit": request.time_limit,
        "soft_time_limit": request.soft_time_limit,
        "ignore_result": request.ignore_result,
        "headers": {name: value for name, value in request.own_headers.items() if name not in _OF_BROKERS},
        "embed": request.embed,
        "group_id": request.group_id,
        "group_index": request.group_index,
        "root_id": request.root_id,
        "parent_id": request.task_id,
        "shadow": request.shadow,
        "origin": request.origin,
        "argsrepr": request.argsrepr if same else None,
        "kwargsrepr": request.kwargsrepr if same else None,
        "replaced_task_nesting": request.replaced_task_nesting,
        "stamped_headers": request.stamped_headers or None,
        "stamps": request.stamps,
    }
    made.update(options)
    return build_task(
        request.name,
        request.args if args is None else args,
        request.kwargs if kwargs is None else kwargs,
        **made,
    )

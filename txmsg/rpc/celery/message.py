"""Task messages outwards: protocol 2 (Celery 4 and 5) and protocol 1 (3.1) (celery D-01 to F-12).

    properties  content_type, content_encoding, correlation_id = id, reply_to, delivery_mode, priority, expiration
    headers     task, id, eta, expires, retries, timelimit [hard, soft], ...; protocol 1 has them in the body
    body        [args, kwargs, embed]; protocol 1: one object

The invariant: what a worker could not read is not sent, but a ConfigurationError or an EncodeError (K-07): a
message without an id, without a content type or with a body of two elements would crash a worker for ever.
Pure: no Twisted, no I/O.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from uuid import uuid4

from txmsg.errors import ConfigurationError, EncodeError, clip
from txmsg.messaging.serialization import encode_body
from txmsg.rpc.celery.reprs import REPR_LIMIT, bounded_repr
from txmsg.rpc.celery.signature import Embed, Signature, read_embed
from txmsg.rpc.celery.times import Time, expiration, time_after

__all__ = ["HEADERS", "TaskMessage", "build_task", "task_from_signature"]

#: The headers that are Celery's own; those of users have other names.
HEADERS: Final = frozenset(
    {
        "lang",
        "task",
        "id",
        "shadow",
        "eta",
        "expires",
        "group",
        "group_index",
        "retries",
        "timelimit",
        "root_id",
        "parent_id",
        "argsrepr",
        "kwargsrepr",
        "origin",
        "ignore_result",
        "replaced_task_nesting",
        "stamped_headers",
        "stamps",
        "compression",
    }
)

#: Octets of a name that goes into a property.
_SHORT: Final = 255
#: Seconds of a time limit.
_LONGEST: Final = 1e9


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """A task message that can be published as it is.

    task_id, name: str.   body: bytes.
    properties -- by AMQP's names, as a transport's channel takes them: `expiration` is milliseconds as a str, and
    `headers` are in it.
    expires: datetime | None -- in UTC; nobody answers after it (K-10).
    """

    task_id: str
    name: str
    # Not in the repr: arguments can be secrets.
    body: bytes = field(repr=False)
    properties: Mapping[str, Any] = field(repr=False)
    expires: datetime | None = None

    @property
    def headers(self) -> Mapping[str, Any]:
        """The headers, also among the properties."""
        headers: Mapping[str, Any] = self.properties["headers"]
        return headers


def build_task(
    name: str,
    args: Iterable[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    task_id: str | None = None,
    protocol: int = 2,
    reply_to: str = "",
    correlation_id: str | None = None,
    countdown: float | None = None,
    eta: Time | None = None,
    expires: Time | None = None,
    now: datetime | None = None,
    priority: int = 0,
    persistent: bool = True,
    retries: int = 0,
    time_limit: float | None = None,
    soft_time_limit: float | None = None,
    ignore_result: bool | None = None,
    headers: Mapping[str, Any] | None = None,
    embed: Embed | None = None,
    group_id: str | None = None,
    group_index: int | None = None,
    root_id: str | None = None,
    parent_id: str | None = None,
    shadow: str | None = None,
    origin: str | None = None,
    argsrepr: str | None = None,
    kwargsrepr: str | None = None,
    replaced_task_nesting: int = 0,
    stamped_headers: Iterable[str] | None = None,
    stamps: Mapping[str, Any] | None = None,
    serializer: str = "json",
    compression: str | None = None,
) -> TaskMessage:
    """A task message.

    name: str -- of the task, as its worker has registered it.   args, kwargs -- a list and a mapping.
    task_id: str | None -- None: a new UUID.   protocol: int -- 2, or 1 for workers of Celery 3.1.
    reply_to: str -- the queue for results.   correlation_id -- None: the task's id.
    countdown: seconds; eta, expires: seconds from now, timedelta, datetime (naive: UTC) or ISO 8601.  A countdown
    that is not 0 wins over an eta.   now: datetime | None -- None: the clock's.
    priority: int -- 0 to 255.   persistent: bool -- delivery_mode 2.   retries: int -- how often it was tried.
    time_limit, soft_time_limit: seconds; workers kill, or interrupt, a task after them.
    ignore_result: bool | None -- None: as the task has it.   headers -- of your own.
    embed -- callbacks, errbacks, what is left of a chain.   group_id, group_index, root_id (None: its own id),
    parent_id, shadow (a name for logs), origin, replaced_task_nesting, stamped_headers, stamps -- as Celery has them.
    argsrepr, kwargsrepr: str -- what a worker logs of the arguments; None: their repr, cut.  Say "***" for secrets.
    serializer: str -- "json".   compression: str | None -- a name, for instance "gzip" (which is zlib's format).

    ConfigurationError: something that a worker could not read.  EncodeError: a value that the serializer cannot carry.
    SerializerNotInstalled, CodecNotInstalled.
    """
    _name("the name of a task", name, limit=None)
    task_id = str(uuid4()) if task_id is None else _name("a task's id", task_id)
    positional, named = _arguments(args, kwargs)
    if protocol not in (1, 2):
        raise ConfigurationError(f"the protocol of task messages is 2 or 1, not {protocol!r}")
    if not isinstance(reply_to, str) or len(reply_to.encode("utf-8", "replace")) > _SHORT:
        raise ConfigurationError("reply_to is the name of a queue")
    now = datetime.now(UTC) if now is None else now
    if countdown:
        due: datetime | None = time_after(countdown, "countdown", now)
    else:
        due = None if eta is None else time_after(eta, "eta", now)
    ends = None if expires is None else time_after(expires, "expires", now)
    _integer("priority", priority, 255)
    _integer("retries", retries, 2**31 - 2)
    limits = _time_limits(time_limit, soft_time_limit)
    own = dict(headers or {})
    _own_headers(own)
    after = Embed() if embed is None else embed
    fields = {
        "eta": due.isoformat() if due is not None else None,
        "expires": ends.isoformat() if ends is not None else None,
        "group": group_id,
        "group_index": group_index,
        "retries": retries,
        "timelimit": limits,
    }
    if protocol == 1:
        table = own
        content: Any = _body_of_protocol_1(task_id, name, positional, named, fields, after)
    else:
        table = {
            "lang": "py",
            "task": name,
            "id": task_id,
            "shadow": shadow,
            **fields,
            "root_id": root_id or task_id,
            "parent_id": parent_id,
            "argsrepr": bounded_repr(tuple(positional)) if argsrepr is None else argsrepr[:REPR_LIMIT],
            "kwargsrepr": bounded_repr(named) if kwargsrepr is None else kwargsrepr[:REPR_LIMIT],
            "origin": _origin(os.getpid()) if origin is None else origin,
            "ignore_result": ignore_result,
            "replaced_task_nesting": replaced_task_nesting,
            "stamped_headers": None if stamped_headers is None else list(stamped_headers),
            "stamps": dict(stamps or {}),
            **own,
        }
        content = [positional, named, after.as_data()]
    encoded = encode_body(content, serializer=serializer, compression=compression)
    if encoded.compression is not None:
        table["compression"] = encoded.compression
    properties: dict[str, Any] = {
        "content_type": encoded.content_type,
        "content_encoding": encoded.content_encoding,
        "headers": table,
        "correlation_id": task_id if correlation_id is None else correlation_id,
        "reply_to": reply_to,
        "delivery_mode": 2 if persistent else 1,
        "priority": priority,
    }
    if ends is not None and (left := expiration(ends, now)) is not None:
        properties["expiration"] = left
    return TaskMessage(task_id, name, encoded.body, properties, ends)


def _body_of_protocol_1(
    task_id: str, name: str, args: list[Any], kwargs: dict[str, Any], fields: Mapping[str, Any], embed: Embed
) -> dict[str, Any]:
    if embed.chain:
        raise ConfigurationError("protocol 1 has no place for a chain: its next task is a callback there")
    after = embed.as_data()
    return {
        "task": name,
        "id": task_id,
        "args": args,
        "kwargs": kwargs,
        **fields,
        "utc": True,
        "callbacks": after["callbacks"],
        "errbacks": after["errbacks"],
        "taskset": fields["group"],
        "chord": after["chord"],
    }


# -- what is checked -----------------------------------------------------------------------------


def _name(what: str, value: object, limit: int | None = _SHORT) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{what} is a str that is not empty, not {bounded_repr(value, 60)}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigurationError(f"{what} is no Unicode: a lone surrogate in it") from None
    if limit is not None and size > limit:
        raise ConfigurationError(f"{what} has {limit} octets at most, not {size}")
    return value


def _arguments(args: Iterable[Any] | None, kwargs: Mapping[str, Any] | None) -> tuple[list[Any], dict[str, Any]]:
    if args is not None and not isinstance(args, list | tuple):
        raise ConfigurationError(f"the args of a task are a list or a tuple, not {type(args).__name__}")
    if kwargs is not None and not (isinstance(kwargs, Mapping) and all(isinstance(name, str) for name in kwargs)):
        raise ConfigurationError("the kwargs of a task are a mapping with names as keys")
    return list(args or ()), dict(kwargs or {})


def _integer(what: str, value: object, highest: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= highest:
        raise ConfigurationError(f"{what} is an int from 0 to {highest}, not {bounded_repr(value, 60)}")


def _time_limits(hard: float | None, soft: float | None) -> list[float | None]:
    """[hard, soft]: the hard one first (E-10)."""
    for what, value in (("time_limit", hard), ("soft_time_limit", soft)):
        if value is None:
            continue
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _LONGEST:
            raise ConfigurationError(
                f"{what} is a number of seconds from 0 to {_LONGEST:.0f}, not {bounded_repr(value, 60)}"
            )
    if hard and soft and soft > hard:
        raise ConfigurationError(f"soft_time_limit ({soft}) is above time_limit ({hard})")
    return [hard, soft]


def _own_headers(headers: Mapping[str, Any]) -> None:
    for key in headers:
        if not isinstance(key, str):
            raise ConfigurationError(f"the name of a header is a str, not {type(key).__name__}")
        if key in HEADERS:
            raise ConfigurationError(f"the header {key!r} is Celery's own: give the argument for it")


@cache
def _origin(pid: int) -> str:
    return f"gen{pid}@{socket.gethostname()}"


# -- from signatures -----------------------------------------------------------------------------

#: Options of a signature that go into its message under the names that they have here.
_OPTIONS: Final = (
    "task_id",
    "countdown",
    "eta",
    "expires",
    "retries",
    "time_limit",
    "soft_time_limit",
    "ignore_result",
    "headers",
    "group_id",
    "group_index",
    "root_id",
    "parent_id",
    "shadow",
    "origin",
    "argsrepr",
    "kwargsrepr",
    "serializer",
    "compression",
    "priority",
    "stamped_headers",
)


def task_from_signature(signature: Signature, *, embed: Embed | None = None, **options: Any) -> TaskMessage:
    """The message of one task of a signature, sent now.

    embed -- None: what the signature's own options say (link, link_error, chain, chord).
    options -- of :func:`build_task`; they win over the signature's.  Where it is sent is not here: that is in the
    signature's `queue`, `exchange` and `routing_key`.

    ConfigurationError: an option that cannot be sent, or several tasks in one signature.  DecodeError: what it links
    is no signature.  EncodeError, SerializerNotInstalled, CodecNotInstalled.
    """
    if signature.kind in ("group", "chain", "chord"):
        raise ConfigurationError(f"a {signature.kind} is no single task: send its members")
    given = signature.options
    made: dict[str, Any] = {name: given[name] for name in _OPTIONS if given.get(name) is not None}
    if signature.reply_to is not None:
        made["reply_to"] = signature.reply_to
    if "delivery_mode" in given:
        made["persistent"] = given["delivery_mode"] not in (1, "transient")
    names = given.get("stamped_headers")
    if isinstance(names, list | tuple):
        made["stamps"] = {str(name): given[name] for name in names if name in given}
    if embed is None:
        embed = read_embed(
            {
                "callbacks": given.get("link"),
                "errbacks": given.get("link_error"),
                "chain": given.get("chain"),
                "chord": given.get("chord"),
            }
        )
    made.update(options)
    try:
        return build_task(signature.task, signature.args, signature.kwargs, embed=embed, **made)
    except (TypeError, AttributeError, ValueError) as error:
        # What a stranger has put into the options: the checks of build_task are for their usual types.
        if isinstance(error, ConfigurationError | EncodeError):
            raise
        raise ConfigurationError(f"the signature of {clip(signature.task)!r} has odd options: {error}") from error

"""Result messages, both ways (celery H-01 to H-10, O-01 to O-15).

    {"task_id", "status", "result", "traceback", "children", "date_done"} and, if there are any, group_id, parent_id

Outwards: what any client of Celery accepts; never a FAILURE without its exception (J-08).  Inwards: what any worker
of 3.1 to 5.7 sends; what cannot be read is an UnreadableResult, which says whose it would have been.
The invariant: a result belongs to the task that its body names, and only without that to its correlation id (O-05).
Pure: no reactor, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from twisted.python.failure import Failure

from txmsg.errors import ConfigurationError, DecodeError, EncodeError, RemoteError, SerializationError
from txmsg.messaging.compression import DEFAULT_LIMITS, DecompressionLimits
from txmsg.messaging.serialization import Accept, decode_body, encode_body
from txmsg.rpc.celery.failures import exception_data, read_exception, traceback_text
from txmsg.rpc.celery.states import (
    EXCEPTION_STATES,
    FAILURE,
    IGNORED,
    PENDING,
    PROPAGATE_STATES,
    READY_STATES,
    REJECTED,
    REVOKED,
    SUCCESS,
)
from txmsg.rpc.celery.times import read_time

__all__ = ["Child", "ResultMessage", "TaskResult", "UnreadableResult", "build_result", "parse_result"]

#: Levels of children that are read; more than that is no honest worker's.
_MAX_DEPTH: Final = 32
#: How many are read.
_MAX_CHILDREN: Final = 10_000
#: Keys that only workers with `result_extended` send (H-09).
_EXTENDED: Final = ("name", "args", "kwargs", "worker", "retries", "queue")


class UnreadableResult(DecodeError):
    """A result message that cannot be read; `__cause__`: what was found.

    task_id, correlation_id: str | None -- whose result it would be, as far as that is known.
    """

    def __init__(self, message: str, task_id: str | None = None, correlation_id: str | None = None) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.correlation_id = correlation_id

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.args[0], self.task_id, self.correlation_id), self.__dict__)


@dataclass(frozen=True, slots=True)
class Child:
    """A task, or a group, that a task has sent.

    task_id: str -- of the task, or of the group.   parent: Child | None.
    members: tuple | None -- the tasks of a group; None: it is a task.
    """

    task_id: str
    parent: Child | None = None
    members: tuple[Child, ...] | None = None

    def as_data(self) -> list[Any]:
        """[[id, parent], null], or [[id, parent], [member, ...]] for a group (H-05)."""
        members = None if self.members is None else [member.as_data() for member in self.members]
        return [[self.task_id, None if self.parent is None else self.parent.as_data()], members]


# -- outwards ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ResultMessage:
    """A result message that can be published as it is, to the default exchange with `reply_to` as the routing key.

    state: str -- FAILURE where the result of a SUCCESS could not be encoded.
    body: bytes.   properties -- by AMQP's names, as a transport's channel takes them.
    """

    task_id: str
    state: str
    # Not in the repr: results can be secrets.
    body: bytes = field(repr=False)
    properties: Mapping[str, Any] = field(repr=False)


def build_result(
    task_id: str,
    state: str,
    result: Any = None,
    *,
    correlation_id: str | None = None,
    traceback: str | None = None,
    children: Iterable[Child] = (),
    now: datetime | None = None,
    group_id: str | None = None,
    parent_id: str | None = None,
    extended: Mapping[str, Any] | None = None,
    persistent: bool = False,
    serializer: str = "json",
    compression: str | None = None,
) -> ResultMessage:
    """A result message.

    task_id: str -- the id in the task's header.   correlation_id -- of the request; None: the task's id (A-05).
    state: str -- of :mod:`txmsg.rpc.celery.states`, or one's own, which is not final.
    result -- the value; in RETRY, FAILURE and REVOKED the exception, a Failure with it, or the data of one.
    traceback: str | None -- None: what the exception has.   children -- what the task has sent.
    now: datetime | None -- aware, for `date_done`; None: the clock's.   group_id, parent_id -- of the request.
    extended -- name, args, kwargs, worker, retries, queue, for `result_extended`.
    persistent: bool -- delivery_mode 2; results are transient by default (A-04).

    A SUCCESS whose value cannot be encoded becomes a FAILURE that says so (J-11): look at `state`.
    EncodeError: another state's value cannot be.   ConfigurationError: a state that is never sent, or no exception
    where there must be one.   SerializerNotInstalled, CodecNotInstalled.
    """
    if not isinstance(task_id, str) or not task_id:
        raise ConfigurationError("a result has the id of its task")
    if not isinstance(state, str) or not state or state in (PENDING, REJECTED, IGNORED):
        raise ConfigurationError(f"{state!r} is no state to send")
    if state in EXCEPTION_STATES:
        result, traceback = _exception(result, traceback, state, serializer)
    done = (datetime.now(UTC) if now is None else now).astimezone(UTC) if state in READY_STATES else None
    content: dict[str, Any] = {
        "task_id": task_id,
        "status": state,
        "result": result,
        "traceback": traceback,
        "children": [child.as_data() for child in children],
        "date_done": None if done is None else done.isoformat(),
    }
    if group_id:
        content["group_id"] = group_id
    if parent_id:
        content["parent_id"] = parent_id
    if extended:
        content.update((key, extended.get(key)) for key in _EXTENDED)
    try:
        encoded = encode_body(content, serializer=serializer, compression=compression)
    except EncodeError as error:
        if state == SUCCESS:
            state = content["status"] = FAILURE
            content["result"] = exception_data(error)
        elif state not in EXCEPTION_STATES or not extended:
            raise
        for key in ("args", "kwargs"):
            content.pop(key, None)
        encoded = encode_body(content, serializer=serializer, compression=compression)
    properties = {
        "content_type": encoded.content_type,
        "content_encoding": encoded.content_encoding,
        "headers": {} if encoded.compression is None else {"compression": encoded.compression},
        "delivery_mode": 2 if persistent else 1,
        # Whatever the task's was (N-16).
        "priority": 0,
        "correlation_id": correlation_id or task_id,
    }
    return ResultMessage(task_id, state, encoded.body, properties)


def _exception(result: Any, traceback: str | None, state: str, serializer: str) -> tuple[dict[str, Any], str | None]:
    if isinstance(result, BaseException | Failure):
        return exception_data(result, serializer), traceback_text(result) if traceback is None else traceback
    if isinstance(result, Mapping) and isinstance(result.get("exc_type"), str) and "exc_message" in result:
        return dict(result), traceback
    raise ConfigurationError(f"the result of {state} is an exception, not {type(result).__name__}")


# -- inwards -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    """What a worker says of a task.

    task_id: str -- of the body, or else the correlation id.   state: str.
    value -- the result; of a custom state what its task says; None in the states that carry an exception.
    error: RemoteError | None -- in RETRY, FAILURE and REVOKED (a TaskRevoked); all of it is data.
    traceback: str | None.   children: tuple.   date_done: datetime | None, in UTC.
    extended -- all other keys, those of `result_extended` among them.   correlation_id: str | None.
    """

    task_id: str
    state: str
    value: Any = None
    error: RemoteError | None = None
    traceback: str | None = None
    children: tuple[Child, ...] = ()
    date_done: datetime | None = None
    group_id: str | None = None
    parent_id: str | None = None
    correlation_id: str | None = None
    extended: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_ready(self) -> bool:
        """Whether it is final."""
        return self.state in READY_STATES

    @property
    def raises(self) -> bool:
        """Whether it ends the wait with its error."""
        return self.state in PROPAGATE_STATES

    def __repr__(self) -> str:
        return f"<TaskResult {self.state[:40]!r} of {self.task_id[:60]!r}>"


_KEYS: Final = {"task_id", "status", "result", "traceback", "children", "date_done", "group_id", "parent_id"}


def parse_result(
    body: bytes,
    properties: Mapping[str, Any],
    *,
    accept: Accept = ("json",),
    accept_compression: frozenset[str] | None = None,
    limits: DecompressionLimits = DEFAULT_LIMITS,
) -> TaskResult:
    """What a result message says.

    body, properties -- as they came.   accept, accept_compression, limits -- as for a Consumer.

    UnreadableResult: it cannot be read, or its content type is not accepted; nothing else is raised for what a
    message holds.   SerializerNotInstalled: an unknown name in `accept`.
    """
    correlation_id = _text(properties.get("correlation_id"))
    headers = properties.get("headers")
    compression = headers.get("compression") if isinstance(headers, Mapping) else None
    content_type, encoding = properties.get("content_type"), properties.get("content_encoding")
    if compression is not None and not isinstance(compression, str):
        raise UnreadableResult("a result whose header compression is no text", None, correlation_id)
    try:
        value = decode_body(
            body,
            # Celery's client breaks at one without a type (O-08); ours reads it as JSON, if that is accepted.
            content_type=content_type if isinstance(content_type, str) and content_type else "application/json",
            content_encoding=encoding if isinstance(encoding, str) else None,
            compression=compression,
            accept=accept,
            accept_compression=accept_compression,
            limits=limits,
        )
    except SerializationError as error:
        raise UnreadableResult(f"a result that cannot be read: {error}", None, correlation_id) from error
    if not isinstance(value, Mapping):
        text = f"a result is an object, not {type(value).__name__}"
        raise UnreadableResult(text, None, correlation_id)
    task_id = _text(value.get("task_id"))
    owner = task_id or correlation_id
    state = _text(value.get("status"))
    if state is None or "result" not in value or owner is None:
        missing = "a status" if state is None else "a task_id" if owner is None else "a result"
        raise UnreadableResult(f"a result message without {missing}", task_id, correlation_id)
    result, traceback = value["result"], _text(value.get("traceback"))
    failure = None
    if state in EXCEPTION_STATES:
        failure, result = read_exception(result, traceback, revoked=state == REVOKED), None
    return TaskResult(
        task_id=owner,
        state=state,
        value=result,
        error=failure,
        traceback=traceback,
        children=_children(value.get("children")),
        date_done=_time(value.get("date_done")),
        group_id=_text(value.get("group_id")),
        parent_id=_text(value.get("parent_id")),
        correlation_id=correlation_id,
        extended={key: found for key, found in value.items() if key not in _KEYS},
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _time(value: Any) -> datetime | None:
    """4.4 sends it without an offset, in UTC; what is no time is not worth a result."""
    try:
        return read_time(value, "date_done")
    except DecodeError:
        return None


def _children(value: Any) -> tuple[Child, ...]:
    return _ChildReader().many(value, 0)


class _ChildReader:
    """Reads H-05's, so many of them and so deep; what is odd is left out.

    YAML's aliases make billions of a few lines, or a list that contains itself.
    """

    def __init__(self) -> None:
        self._left = _MAX_CHILDREN

    def many(self, value: Any, depth: int) -> tuple[Child, ...]:
        """The children in a list."""
        if not isinstance(value, list | tuple) or depth > _MAX_DEPTH:
            return ()
        made = []
        for found in value:
            if self._left <= 0:
                break
            child = self.one(found, depth)
            if child is not None:
                made.append(child)
        return tuple(made)

    def one(self, value: Any, depth: int) -> Child | None:
        """One child; None: it is none."""
        self._left -= 1
        if not isinstance(value, list | tuple) or len(value) != 2 or depth > _MAX_DEPTH or self._left < 0:
            return None
        this, members = value
        task_id, parent = this if isinstance(this, list | tuple) and len(this) == 2 else (this, None)
        if not isinstance(task_id, str) or not task_id:
            return None
        return Child(
            task_id,
            self.one(parent, depth + 1),
            None if members is None else self.many(members, depth + 1),
        )

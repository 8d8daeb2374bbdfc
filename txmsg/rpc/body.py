"""What requests and replies look like; docs/rpc.md says it for those who write the other side in another language.

A request is an object with `method`, `args`, `kwargs` and `deadline` (seconds since 1970, absent: none).  A reply is
an object with one key: `result`, `progress` (more replies follow), or `error`, an object with `exc_type`,
`exc_message`, `exc_module`, `exc_args` and `traceback`.

The invariant: an error is data on both sides.  Nothing that a message names is looked up, imported or called (R27),
but for the functions that a server has registered.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from twisted.python.failure import Failure

from txmsg.errors import DecodeError, EncodeError, RemoteError, clip
from txmsg.messaging.serialization import Accept, Encoded, decode_body, serializers

__all__ = [
    "ERROR",
    "PROGRESS",
    "RESULT",
    "Request",
    "decode_reply",
    "encode_error",
    "encode_reply",
    "encode_request",
    "error_data",
    "read_error",
    "read_request",
    "text_of",
]

#: The keys of a reply.
RESULT: Final = "result"
PROGRESS: Final = "progress"
ERROR: Final = "error"

#: Characters of a text in an error that is sent.
_TEXT_LIMIT: Final = 10_000
_TRACEBACK_LIMIT: Final = 100_000
#: Arguments of an exception that are sent.
_ARGS_LIMIT: Final = 100


class Request(NamedTuple):
    """What is to be called.

    method: str.   args: list.   kwargs: dict.
    deadline: float | None -- seconds since 1970; who comes later need not run it.
    """

    method: str
    args: list[Any]
    kwargs: dict[str, Any]
    deadline: float | None


def encode_request(
    method: str, args: Any, kwargs: Mapping[str, Any] | None, deadline: float | None, serializer: str
) -> Encoded:
    """A request as octets; EncodeError for arguments that the serializer cannot carry, or no server can take."""
    if not isinstance(method, str) or not method:
        raise EncodeError(f"a method is called by its name, a str, and not by {type(method).__name__}")
    if not isinstance(args, list | tuple):
        raise EncodeError(f"the args of a call are a list or a tuple, not {type(args).__name__}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise EncodeError(f"the kwargs of a call are a mapping, not {type(kwargs).__name__}")
    request: dict[str, Any] = {"method": method, "args": args, "kwargs": kwargs or {}}
    if deadline is not None:
        request["deadline"] = deadline
    return serializers.dumps(request, serializer)


def read_request(value: Any) -> Request:
    """Check what a request's body holds.  DecodeError."""
    if not isinstance(value, dict):
        raise DecodeError(f"a request is an object, not {type(value).__name__}")
    method, args, kwargs = value.get("method"), value.get("args", []), value.get("kwargs", {})
    deadline = value.get("deadline")
    if not isinstance(method, str) or not method:
        raise DecodeError("a request names its method")
    if not isinstance(args, list | tuple):
        raise DecodeError(f"the args of a request are a list, not {type(args).__name__}")
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise DecodeError("the kwargs of a request are an object")
    if deadline is not None and not _is_number(deadline):
        raise DecodeError("the deadline of a request is a number of seconds")
    return Request(method, list(args), kwargs, deadline)


def _is_number(value: object) -> bool:
    # An int may be too large for isfinite, and compares with any time.
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and isfinite(value)))


def encode_reply(kind: str, value: Any, serializer: str) -> Encoded:
    """A result or a progress state as octets; EncodeError for a value that the serializer cannot carry."""
    return serializers.dumps({kind: value}, serializer)


def encode_error(error: BaseException | Failure, serializer: str, *, traceback: bool = False) -> Encoded:
    """An error as octets: never fails, for what cannot be carried is left out.   traceback: bool -- send it, too."""
    data = error_data(error, traceback=traceback)
    try:
        return encode_reply(ERROR, data, serializer)
    except EncodeError:
        return encode_reply(ERROR, {**data, "exc_args": [], "exc_message": ascii(data["exc_message"])}, serializer)


def error_data(error: BaseException | Failure, *, traceback: bool = False) -> dict[str, Any]:
    """An exception as simple values: its class by name, its text, its arguments where they are simple, too."""
    failure = error if isinstance(error, Failure) else None
    value: Any = error.value if isinstance(error, Failure) else error
    if isinstance(value, RemoteError):  # of a call that the handler has made: as it came
        return {
            "exc_type": value.exc_type,
            "exc_message": value.message,
            "exc_module": value.exc_module,
            "exc_args": list(value.exc_args),
            "traceback": value.remote_traceback if traceback else "",
        }
    text = ""
    if traceback:
        failure = failure or Failure(value, type(value), value.__traceback__)
        text = failure.getTraceback()[-_TRACEBACK_LIMIT:]
    return {
        "exc_type": type(value).__name__,
        "exc_message": text_of(value)[:_TEXT_LIMIT],
        "exc_module": type(value).__module__,
        "exc_args": [_simple(argument) for argument in value.args[:_ARGS_LIMIT]],
        "traceback": text,
    }


def text_of(value: object) -> str:
    """Its text; never fails, whatever its class does."""
    try:
        return str(value)
    except Exception:  # of somebody's __str__
        return f"<{type(value).__name__} without a text>"


def _simple(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    return value[:_TEXT_LIMIT] if isinstance(value, str) else f"<{type(value).__name__}>"


def decode_reply(
    body: bytes, content_type: str | None, content_encoding: str | None, accept: Accept
) -> tuple[str, Any]:
    """Which kind of reply it is, and its value: for `error` a RemoteError.

    DecodeError, ContentDisallowed, SerializerNotInstalled.
    """
    value = decode_body(body, content_type=content_type, content_encoding=content_encoding, accept=accept)
    if not isinstance(value, dict) or len(value) != 1:
        raise DecodeError("a reply is an object with one key")
    for kind, found in value.items():
        if kind in (RESULT, PROGRESS):
            return kind, found
        if kind == ERROR:
            return kind, read_error(found)
        raise DecodeError(f"a reply has a result, a progress or an error, not {clip(str(kind), 40)!r}")
    raise AssertionError("one key")


def read_error(value: Any) -> RemoteError:
    """What :func:`error_data` made, as an exception of ours.  DecodeError."""
    if not isinstance(value, dict):
        raise DecodeError(f"the error of a reply is an object, not {type(value).__name__}")
    name = value.get("exc_type")
    if not isinstance(name, str) or not name:
        raise DecodeError("the error of a reply names its type")
    args = value.get("exc_args")
    return RemoteError(
        name,
        _str(value.get("exc_message")),
        _str(value.get("exc_module")),
        tuple(args) if isinstance(args, list | tuple) else (),
        _str(value.get("traceback")),
    )


def _str(value: object) -> str:
    return value if isinstance(value, str) else ""

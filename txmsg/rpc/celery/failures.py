"""Exceptions as the data that Celery's JSON carries, both ways (celery J-01 to J-15; R27).

    {"exc_type": qualified name, "exc_message": [arguments], "exc_module": module}

The invariant: nothing is imported, looked up or called because of a message.  What comes is a RemoteError with names,
simple values and texts in it; classes of one's own are used only where the caller lists them.
Pure: of Twisted only Failure, for its traceback text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from twisted.python.failure import Failure

from txmsg.errors import EncodeError, RemoteError, SerializationError
from txmsg.errors.rpc import TaskRevoked
from txmsg.messaging.serialization import serializers
from txmsg.rpc.celery.reprs import bounded_repr

__all__ = ["ExceptionClasses", "exception_data", "read_exception", "traceback_text"]

#: Characters of the text that stands for an argument that cannot be sent.
_REPR_LIMIT: Final = 1024
#: Characters of a traceback that is sent; its end says most.
_TRACEBACK_LIMIT: Final = 100_000
#: Characters of a text that is made of the arguments.
_TEXT_LIMIT: Final = 10_000


class ExceptionClasses:
    """Classes of one's own that failures may become, by the names that messages give to them.

    classes -- of exceptions; each is found by its module and qualified name, and by its bare name in that module (4.3
    sends only that).  Builtins are not in it unless they are listed.   TypeError: what is no exception class.
    """

    def __init__(self, classes: Iterable[type[Exception]] = ()) -> None:
        self._classes: dict[tuple[str, str], type[Exception]] = {}
        for kind in classes:
            if not (isinstance(kind, type) and issubclass(kind, Exception)):
                raise TypeError(f"an exception class is wanted, not {kind!r}")
            self._classes[kind.__module__, kind.__name__] = kind
            self._classes[kind.__module__, kind.__qualname__] = kind

    def make(self, error: RemoteError) -> Exception:
        """An exception of the listed class with the arguments that came, and `error` as its cause.

        `error` itself, where the class is not listed or does not take these arguments.
        """
        kind = self._classes.get((error.exc_module, error.exc_type))
        if kind is None:
            return error
        try:
            made = kind(*error.exc_args)
        except Exception:  # of the class, for arguments that a stranger chose
            return error
        made.__cause__ = error
        return made


# -- outwards ------------------------------------------------------------------------------------


def exception_data(error: BaseException | Failure, serializer: str = "json") -> dict[str, Any]:
    """An exception as Celery's clients rebuild it.

    Arguments that the serializer cannot carry are their repr.  A RemoteError is passed on as it came; EncodeError and
    its like go under the names that Kombu has for them, so that a client of Celery knows them.
    """
    value: Any = error.value if isinstance(error, Failure) else error
    if isinstance(value, RemoteError):
        module: str | None = value.exc_module or None
        return {"exc_type": value.exc_type, "exc_message": _sendable(value.exc_args, serializer), "exc_module": module}
    kind = type(value)
    if isinstance(value, SerializationError):
        name = "EncodeError" if isinstance(value, EncodeError) else "DecodeError"
        return {"exc_type": name, "exc_message": [str(value)], "exc_module": "kombu.exceptions"}
    module = kind.__module__
    return {
        "exc_type": _text(kind.__qualname__),
        "exc_message": _sendable(_arguments(value), serializer),
        "exc_module": _text(module) if isinstance(module, str) else None,
    }


def _arguments(error: BaseException) -> tuple[Any, ...]:
    """Those of an exception; of a class that hides them, or makes something else of them: its repr."""
    try:
        return tuple(error.args)
    except Exception:  # of somebody's class
        return (_repr(error),)


def _sendable(args: Iterable[Any], serializer: str) -> list[Any]:
    return [argument if _can_be_sent(argument, serializer) else _repr(argument) for argument in args]


def _can_be_sent(value: Any, serializer: str) -> bool:
    try:
        serializers.dumps(value, serializer)
    except SerializationError:
        return False
    return True


def _repr(value: Any) -> str:
    try:
        text = repr(value)[:_REPR_LIMIT]
    except Exception:  # of somebody's __repr__
        return f"<{type(value).__name__}>"
    return _text(text)


def _text(text: str) -> str:
    """Without lone surrogates, which cannot be sent."""
    return text.encode("utf-8", "backslashreplace").decode()


def traceback_text(error: BaseException | Failure | None) -> str | None:
    """Python's traceback, ending with the exception's line; None: it was never raised here, or cannot be shown.

    Of a RemoteError: the text that came.
    """
    failure = error if isinstance(error, Failure) else None
    value = error.value if isinstance(error, Failure) else error
    if isinstance(value, RemoteError) and value.remote_traceback:
        return value.remote_traceback
    if failure is None:
        if value is None or value.__traceback__ is None:
            return None
        failure = Failure(value, type(value), value.__traceback__)
    try:
        text: str = failure.getTraceback()[-_TRACEBACK_LIMIT:]
    except Exception:  # of a class whose __module__ is no text, for instance
        return None
    return _text(text)


# -- inwards -------------------------------------------------------------------------------------


def read_exception(value: Any, traceback: Any = None, *, revoked: bool = False) -> RemoteError:
    """What `result` holds in RETRY, FAILURE and REVOKED, from any worker of 3.1 to 5.7.

    Whatever it holds, this gives a RemoteError (`revoked`: a TaskRevoked), and raises nothing: 3.1 sends one text and
    no module, strange workers send null or a text, and pickle's exceptions never get here.
    """
    trace = traceback if isinstance(traceback, str) else ""
    make = TaskRevoked if revoked else RemoteError
    if not isinstance(value, Mapping):
        if value is None:
            return make("Exception", "", "", (), trace)
        text = value if isinstance(value, str) else bounded_repr(value)
        return make("Exception", text, "", (text,), trace)
    name, module, message = value.get("exc_type"), value.get("exc_module"), value.get("exc_message")
    if not isinstance(name, str) or not name:
        name, module = "Exception", ""
        if message is None:
            message = bounded_repr(value)
    if isinstance(message, list | tuple):
        args = tuple(message)
    else:
        args = () if message is None else (message,)
    return make(name, _message(args), module if isinstance(module, str) else "", args, trace)


def _message(args: tuple[Any, ...]) -> str:
    """What str() of an exception with these arguments is."""
    if not args:
        return ""
    only = args[0] if len(args) == 1 else args
    if isinstance(only, str):
        return only
    if isinstance(only, list | tuple | dict):
        return bounded_repr(only, _TEXT_LIMIT)
    try:
        return str(only)
    except ValueError:  # an int with more digits than Python writes
        return bounded_repr(only)

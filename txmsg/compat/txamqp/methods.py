"""The channel's methods by name: `queue_declare(...)`, `basic_publish(...)`, one for each of the protocol's.

Arguments are positional in the order of the protocol, `ticket` first, or by keyword.  What one of txamqp's XML files
calls otherwise is understood too: `reserved_1` and its kind are ignored, `no_wait` is nowait, `filter` is arguments.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from txmsg.compat.txamqp.content import with_text_keys
from txmsg.compat.txamqp.spec import SPEC, Method, pythonize

__all__ = ["MethodsByName", "bind", "values_of"]

_ALIASES: Final = {"no_wait": "nowait", "filter": "arguments"}


def bind(method: Method, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[list[Any], Any]:
    """The values of all fields in their order, and the content; TypeError for an argument that does not exist."""
    names = list(method.fields.bypyname)
    allowed = [*names, "content"] if method.content else names
    if len(args) > len(allowed):
        raise TypeError(f"{method.python_name}() takes {len(allowed)} arguments, not {len(args)}")
    given: dict[str, Any] = dict(zip(allowed, args, strict=False))
    for name, value in kwargs.items():
        actual = name if name in allowed else _ALIASES.get(name, name)
        if actual in given:
            raise TypeError(f"{method.python_name}() has two values for {name!r}")
        if actual in allowed:
            given[actual] = value
        elif not name.startswith("reserved_") and name not in ("ticket", "insist", "capabilities", "out_of_band"):
            raise TypeError(f"{method.python_name}() has no argument {name!r}; there are {', '.join(allowed)}")
    content = given.pop("content", None)
    return [given.get(name, field.default) for name, field in method.fields.bypyname.items()], content


def values_of(method: Method, args: Any) -> dict[str, Any]:
    """The values by name, as the protocol wants them; None is the default, anything is a bit."""
    values: dict[str, Any] = {}
    for (name, field), value in zip(method.fields.bypyname.items(), args, strict=True):
        if value is None:
            value = field.default
        if field.type == "bit":
            value = bool(value)
        elif field.type == "shortstr" and isinstance(value, bytes):
            value = value.decode("utf-8")
        elif field.type == "table":
            value = with_text_keys(dict(value))
        values[name] = value
    return values


def _method(method: Method) -> Callable[..., Deferred[Any]]:
    def call(self: Any, *args: Any, **kwargs: Any) -> Deferred[Any]:
        values, content = bind(method, args, kwargs)
        if method.content:
            return self.invoke(method, values, content)  # type: ignore[no-any-return]
        return self.invoke(method, values)  # type: ignore[no-any-return]

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", kind)]
    parameters += [
        inspect.Parameter(name, kind, default=field.default) for name, field in method.fields.bypyname.items()
    ]
    if method.content:
        parameters.append(inspect.Parameter("content", kind, default=None))
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__name__ = method.python_name
    call.__qualname__ = f"MethodsByName.{method.python_name}"
    replies = " or ".join(f"{reply.klass.name}.{reply.name}" for reply in method.responses)
    call.__doc__ = f"Send {method.klass.name}.{method.name}" + (f"; fires with {replies}." if replies else ".")
    return call


class MethodsByName:
    """One method for each of the protocol's that a client may send; made from `txmsg.compat.txamqp.spec`.

    All return a Deferred, which fires with the reply as a Message; with None where no reply comes.
    """

    def invoke(self, method: Method, args: Any, content: Any = None) -> Deferred[Any]:
        """Send a method with all its values in order."""
        raise NotImplementedError

    if TYPE_CHECKING:  # the methods are made below

        def __getattr__(self, name: str) -> Callable[..., Deferred[Any]]: ...


for _klass in SPEC.classes:
    for _each in _klass.methods:
        setattr(MethodsByName, f"{pythonize(_klass.name)}_{pythonize(_each.name)}", _method(_each))

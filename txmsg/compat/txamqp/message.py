"""Message: a method that has come from the broker, with its fields by name and its content.

What txamqp's calls fire with, what delegates are handed, and what its exceptions carry.
"""

from __future__ import annotations

from typing import Any

from txmsg.compat.txamqp.spec import SPEC, Method
from txmsg.errors import clip
from txmsg.wire.methods import Method as WireMethod

__all__ = ["Message", "closing_message", "message_of"]

_OWN = frozenset({"method", "fields", "content"})


class Message:
    """A method with its fields, which are attributes (`message.delivery_tag`) and items (`message[1]`).

    method: Method -- `message.method.name` is "deliver", `message.method.klass.name` is "basic".
    fields: list -- the values in the protocol's order.
    content: Content | None -- of basic.deliver, basic.get-ok and basic.return.
    """

    method: Method
    fields: list[Any]
    content: Any

    def __init__(self, method: Method, fields: Any, content: Any = None) -> None:
        self.__dict__.update(method=method, fields=list(fields), content=content)

    def __len__(self) -> int:
        return len(self.fields)

    def _index(self, index: int) -> int:
        if index < 0:
            index += len(self)
        if not 0 <= index <= len(self.fields):
            raise IndexError(index)
        return index

    def __getitem__(self, index: int) -> Any:
        index = self._index(index)
        return self.content if index == len(self.fields) else self.fields[index]

    def __setitem__(self, index: int, value: Any) -> None:
        index = self._index(index)
        if index == len(self.fields):
            self.content = value
        else:
            self.fields[index] = value

    def _field(self, name: str) -> int:
        # During unpickling and copying there is no method yet.
        method: Method | None = self.__dict__.get("method")
        field = None if method is None else method.fields.bypyname.get(name)
        if method is None or field is None:
            raise AttributeError(name)
        return method.fields.index(field)

    def __getattr__(self, name: str) -> Any:
        place = self._field(name)  # first: while there is no method there are no fields either
        return self.fields[place]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _OWN:
            self.__dict__[name] = value
        else:
            self.fields[self._field(name)] = value

    def __repr__(self) -> str:
        names = self.method.fields.bypyname
        fields = ", ".join(f"{name}={clip(repr(value))}" for name, value in zip(names, self.fields, strict=False))
        content = "" if self.content is None else f", content={self.content!r}"
        return f"{self.method.klass.name}.{self.method.name}({fields}{content})"

    __str__ = __repr__


def message_of(made: WireMethod, content: Any = None) -> Message:
    """A method of the wire as a Message."""
    method = SPEC.classes.byid[made.CLASS_ID].methods.byid[made.METHOD_ID]
    return Message(method, [getattr(made, argument.name) for argument in made.ARGUMENTS], content)


def closing_message(klass: str, reply_code: int, reply_text: str, class_id: int = 0, method_id: int = 0) -> Message:
    """The broker's channel.close or connection.close (`klass` "channel" or "connection")."""
    return Message(SPEC.method(f"{klass}.close"), [reply_code, reply_text, class_id, method_id])

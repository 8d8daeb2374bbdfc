"""The protocol as data, in txamqp's shape: classes, methods and fields by name, made from `txmsg.wire.methods`.

txamqp reads this from an XML file that the program names.  Here it is built in: AMQP 0-9-1 with RabbitMQ's extensions,
and class access of AMQP 0-8 and 0-9, whose tickets RabbitMQ ignores.  `load` keeps the name of the file and no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Generic, TypeVar

from twisted.logger import Logger

from txmsg.amqp import BasicProperties
from txmsg.wire.methods import METHODS
from txmsg.wire.methods import Method as WireMethod
from txmsg.wire.methods.basic import Publish

__all__ = [
    "DEFAULT_SPEC",
    "SPEC",
    "Class",
    "Field",
    "Method",
    "Spec",
    "SpecContainer",
    "load",
    "load_string",
    "method_named",
    "pythonize",
]

_log = Logger(namespace="txmsg.compat.txamqp")

#: What stands for the file where the program names none.
DEFAULT_SPEC: Final = "amqp0-9-1 (built in)"

#: What a field of each type has where a call leaves it out: txamqp's defaults, which go by type only.
_DEFAULTS: Final[dict[str, Any]] = {
    "bit": False,
    "shortstr": "",
    "longstr": "",
    "table": {},
    "octet": 0,
    "short": 0,
    "long": 0,
    "longlong": 0,
}

_KEYWORDS: Final = {"global": "global_", "return": "return_"}

_T = TypeVar("_T", bound="Field | Method | Class")


def pythonize(name: str) -> str:
    """A name of the protocol as one of Python's: "consumer-tag" is consumer_tag, "return" is return_."""
    made = str(name).replace(" ", "_").replace("-", "_")
    return _KEYWORDS.get(made, made)


class SpecContainer(Generic[_T]):
    """Things of the protocol in their order.

    items: list;   byname, bypyname: dict by "consumer-tag" and by "consumer_tag";   byid: dict by number.
    """

    def __init__(self) -> None:
        self.items: list[_T] = []
        self.byname: dict[str, _T] = {}
        self.bypyname: dict[str, _T] = {}
        self.byid: dict[int, _T] = {}
        self.indexes: dict[_T, int] = {}

    def add(self, item: _T) -> None:
        """Append a thing."""
        self.indexes[item] = len(self.items)
        self.items.append(item)
        self.byname[item.name] = item
        self.bypyname[pythonize(item.name)] = item
        self.byid[item.id] = item

    def index(self, item: _T) -> int:
        """Where it stands; ValueError if it is none of these."""
        try:
            return self.indexes[item]
        except KeyError:
            raise ValueError(item) from None

    def __iter__(self) -> Iterator[_T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class Field:
    """An argument of a method, or a property of a content.

    name: str -- "consumer-tag".   id: int -- its place.   type: str -- "shortstr", "bit" ...   default -- by type.
    """

    def __init__(self, name: str, id: int, type: str) -> None:
        self.name = name
        self.id = id
        self.type = type
        self.default = _DEFAULTS.get(type, 0)

    def __repr__(self) -> str:
        return f"<Field {self.name}: {self.type}>"


class Method:
    """One method of the protocol.

    klass: Class.   name: str -- "get-ok".   id: int.   fields: SpecContainer of Field.
    content: bool -- a content follows.   synchronous: bool -- somebody waits for one of `responses`.
    response: bool -- it is the answer to another method.
    made -- the class in txmsg.wire.methods; None for what only AMQP 0-8 and 0-9 have.
    """

    def __init__(
        self, klass: Class, name: str, id: int, made: type[WireMethod] | None = None, content: bool = False
    ) -> None:
        self.klass = klass
        self.name = name
        self.id = id
        self.made = made
        self.content = content
        self.fields: SpecContainer[Field] = SpecContainer()
        self.responses: list[Method] = []
        self.response = False
        self.synchronous = made is not None and made.SYNCHRONOUS
        self.python_name = pythonize(klass.name) + "_" + pythonize(name)

    def __repr__(self) -> str:
        return f"<Method {self.klass.name}.{self.name}>"

    __str__ = __repr__


class Class:
    """One class of the protocol: name: str -- "basic".   id: int.   fields: its content's properties.   methods."""

    def __init__(self, name: str, id: int) -> None:
        self.name = name
        self.id = id
        self.fields: SpecContainer[Field] = SpecContainer()
        self.methods: SpecContainer[Method] = SpecContainer()

    def __repr__(self) -> str:
        return f"<Class {self.name}>"


class Spec:
    """The whole protocol.   major, minor: int.   file: str -- what `load` was given.   classes: SpecContainer."""

    def __init__(self, classes: SpecContainer[Class], file: str = DEFAULT_SPEC) -> None:
        self.major = 0
        self.minor = 9
        self.file = file
        self.classes = classes

    def method(self, name: str) -> Method:
        """The method with a name such as "queue.declare"; KeyError if there is none."""
        klass, _, method = name.partition(".")
        return self.classes.byname[klass].methods.byname[method]

    parse_method = method

    def __repr__(self) -> str:
        return f"<Spec {self.major}-{self.minor} {self.file!r}>"


_TYPES: Final = {"longtext": "longstr"}

_PROPERTY_TYPES: Final = {"headers": "table", "delivery_mode": "octet", "priority": "octet", "timestamp": "longlong"}


def _classes() -> SpecContainer[Class]:
    classes: SpecContainer[Class] = SpecContainer()
    made_of: dict[type[WireMethod], Method] = {}
    for (class_id, method_id), made in sorted(METHODS.items()):
        class_name, _, method_name = made.NAME.partition(".")
        if class_name not in classes.byname:
            classes.add(Class(class_name, class_id))
        klass = classes.byname[class_name]
        method = Method(klass, method_name, method_id, made, made.HAS_CONTENT)
        for number, argument in enumerate(made.ARGUMENTS):
            name = argument.name.rstrip("_").replace("_", "-")
            method.fields.add(Field(name, number, _TYPES.get(argument.kind, argument.kind)))
        klass.methods.add(method)
        made_of[made] = method
    for made, method in made_of.items():
        method.responses = [made_of[reply] for reply in made.REPLIES]
        for reply in method.responses:
            reply.response = True
    for number, name in enumerate(BasicProperties.NAMES):
        kind = _PROPERTY_TYPES.get(name, "shortstr")
        classes.byid[Publish.CLASS_ID].fields.add(Field(name.replace("_", "-"), number, kind))
    classes.add(_access())
    return classes


def _access() -> Class:
    access = Class("access", 30)
    request, request_ok = Method(access, "request", 10), Method(access, "request-ok", 11)
    for number, name in enumerate(("realm", "exclusive", "passive", "active", "write", "read")):
        request.fields.add(Field(name, number, "bit" if number else "shortstr"))
    request_ok.fields.add(Field("ticket", 0, "short"))
    request.responses.append(request_ok)
    request_ok.response = True
    access.methods.add(request)
    access.methods.add(request_ok)
    return access


#: The protocol, built once.
SPEC: Final = Spec(_classes())


def method_named(name: str) -> Method:
    """The method with a name such as "queue.declare"; KeyError if there is none."""
    return SPEC.method(name)


def load(specfile: str) -> Spec:
    """The protocol; the file is not read, and need not exist.  `specfile` is kept as `file`."""
    if specfile != DEFAULT_SPEC:
        _log.debug("the AMQP specification {file!r} is not read: the protocol is built in", file=specfile)
    return Spec(SPEC.classes, specfile)


def load_string(specfilestr: str, specfilename: str | None = None) -> Spec:
    """The protocol; the text is not read."""
    return load(DEFAULT_SPEC if specfilename is None else specfilename)

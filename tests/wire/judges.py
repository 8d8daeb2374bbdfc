"""Three other libraries' codecs behind one interface, so that tests can have our octets judged by them.

pamqp, py-amqp and pika are needed by the tests only.  What each of them is known to read otherwise than we do is
listed in `tests.wire.test_judges`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import amqp.basic_message
import amqp.serialization
import pamqp.commands
import pamqp.decode
import pamqp.encode
import pamqp.header
import pika.data
import pika.spec

from txmsg.wire.layout import Method
from txmsg.wire.properties import BasicProperties
from txmsg.wire.tables import Timestamp

__all__ = ["JUDGES", "PAMQP", "PIKA", "PY_AMQP", "Judge", "Pamqp", "Pika", "PyAmqp", "plain"]


class Judge:
    """Another library's codec, as functions from plain values to octets and back.

    A table's values are plain when they are bool, int, float, Decimal, str, bytes, datetime, list, dict, None.
    """

    name: str

    def encode_table(self, table: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def read_table(self, octets: bytes) -> tuple[dict[str, Any], int]:
        """The table at the beginning of `octets`, and where the judge believes it to end."""
        raise NotImplementedError

    def decode_table(self, octets: bytes) -> dict[str, Any]:
        """The table that `octets` are."""
        table, used = self.read_table(octets)
        assert used == len(octets)
        return table

    def encode_properties(self, values: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def decode_properties(self, octets: bytes) -> dict[str, Any]:
        raise NotImplementedError

    def encode_arguments(self, made: type[Method], values: dict[str, Any]) -> bytes:
        raise NotImplementedError

    def decode_arguments(self, made: type[Method], octets: bytes) -> dict[str, Any]:
        raise NotImplementedError


class Pamqp(Judge):
    name = "pamqp"
    _renamed = {"type": "message_type"}
    _argument = {"type": "exchange_type"}

    def encode_table(self, table: dict[str, Any]) -> bytes:
        return pamqp.encode.field_table(_mapped(table, bytes, bytearray))

    def read_table(self, octets: bytes) -> tuple[dict[str, Any], int]:
        used, table = pamqp.decode.field_table(octets)
        return _mapped(table, bytearray, bytes), used

    def encode_properties(self, values: dict[str, Any]) -> bytes:
        made = pamqp.commands.Basic.Properties(**{self._renamed.get(k, k): v for k, v in values.items()})
        return pamqp.header.ContentHeader(properties=made).marshal()[12:]

    def decode_properties(self, octets: bytes) -> dict[str, Any]:
        header = pamqp.header.ContentHeader()
        header.unmarshal(struct.pack(">HHQ", 60, 0, 0) + octets)
        found = {name: getattr(header.properties, self._renamed.get(name, name)) for name in BasicProperties.NAMES}
        # It does not tell an absent cluster_id from an empty one.
        return {
            name: value for name, value in found.items() if value is not None and (name, value) != ("cluster_id", "")
        }

    def encode_arguments(self, made: type[Method], values: dict[str, Any]) -> bytes:
        theirs = pamqp.commands.INDEX_MAPPING[made.CLASS_ID << 16 | made.METHOD_ID]
        text = {self._argument.get(k, k): v.decode() if isinstance(v, bytes) else v for k, v in values.items()}
        return bytes(theirs(**text).marshal())

    def decode_arguments(self, made: type[Method], octets: bytes) -> dict[str, Any]:
        theirs = pamqp.commands.INDEX_MAPPING[made.CLASS_ID << 16 | made.METHOD_ID]()
        theirs.unmarshal(octets)
        return {spec.name: getattr(theirs, self._argument.get(spec.name, spec.name)) for spec in made.ARGUMENTS}


class PyAmqp(Judge):
    name = "py-amqp"
    _format = {
        "octet": "o",
        "short": "B",
        "long": "l",
        "longlong": "L",
        "bit": "b",
        "shortstr": "s",
        "longstr": "S",
        "longtext": "S",
        "table": "F",
    }

    def format_of(self, made: type[Method]) -> str:
        """Its own notation for the arguments of a method."""
        return "".join(self._format[argument.kind] for argument in made.ARGUMENTS)

    def encode_table(self, table: dict[str, Any]) -> bytes:
        return bytes(amqp.serialization.dumps("F", (table,)))

    def read_table(self, octets: bytes) -> tuple[dict[str, Any], int]:
        (table,), used = amqp.serialization.loads("F", octets, 0)
        return table, used

    def encode_properties(self, values: dict[str, Any]) -> bytes:
        renamed = {"application_headers" if name == "headers" else name: value for name, value in values.items()}
        return bytes(amqp.basic_message.Message("", **renamed)._serialize_properties())

    def decode_properties(self, octets: bytes) -> dict[str, Any]:
        found, used = amqp.serialization.decode_properties_basic(octets, 0)
        assert used == len(octets)
        return {"headers" if name == "application_headers" else name: value for name, value in found.items()}

    def encode_arguments(self, made: type[Method], values: dict[str, Any]) -> bytes:
        return bytes(amqp.serialization.dumps(self.format_of(made), [values[spec.name] for spec in made.ARGUMENTS]))

    def decode_arguments(self, made: type[Method], octets: bytes) -> dict[str, Any]:
        found, used = amqp.serialization.loads(self.format_of(made), octets, 0)
        assert used == len(octets)
        return dict(zip((argument.name for argument in made.ARGUMENTS), found, strict=True))


class Pika(Judge):
    name = "pika"
    _argument = {("basic.qos", "global_"): "global_qos"}

    def _name(self, made: type[Method], name: str) -> str:
        return self._argument.get((made.NAME, name), name)

    def encode_table(self, table: dict[str, Any]) -> bytes:
        pieces: list[bytes] = []
        pika.data.encode_table(pieces, table)
        return b"".join(pieces)

    def read_table(self, octets: bytes) -> tuple[dict[str, Any], int]:
        table, used = pika.data.decode_table(octets, 0)
        return table, used

    def encode_properties(self, values: dict[str, Any]) -> bytes:
        return b"".join(pika.spec.BasicProperties(**values).encode())

    def decode_properties(self, octets: bytes) -> dict[str, Any]:
        made = pika.spec.BasicProperties()
        made.decode(octets)
        found = {name: getattr(made, name) for name in BasicProperties.NAMES}
        return {name: value for name, value in found.items() if value is not None}

    def encode_arguments(self, made: type[Method], values: dict[str, Any]) -> bytes:
        theirs = pika.spec.methods[made.CLASS_ID << 16 | made.METHOD_ID]
        return b"".join(theirs(**{self._name(made, name): value for name, value in values.items()}).encode())

    def decode_arguments(self, made: type[Method], octets: bytes) -> dict[str, Any]:
        theirs = pika.spec.methods[made.CLASS_ID << 16 | made.METHOD_ID]()
        theirs.decode(octets)
        return {argument.name: getattr(theirs, self._name(made, argument.name)) for argument in made.ARGUMENTS}


PAMQP, PY_AMQP, PIKA = Pamqp(), PyAmqp(), Pika()
JUDGES: list[Judge] = [PAMQP, PY_AMQP, PIKA]


def _mapped(value: Any, old: type, new: Callable[[Any], Any]) -> Any:
    """`value` with every `old` inside it made `new`."""
    if isinstance(value, dict):
        return {key: _mapped(inner, old, new) for key, inner in value.items()}
    if isinstance(value, list):
        return [_mapped(inner, old, new) for inner in value]
    return new(value) if isinstance(value, old) else value


def plain(value: Any) -> Any:
    """Moments as seconds: we decode timestamps as ints, judges as datetimes, py-amqp as naive ones."""

    def seconds(moment: datetime) -> int:
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())

    return _mapped(_mapped(value, datetime, seconds), Timestamp, int)

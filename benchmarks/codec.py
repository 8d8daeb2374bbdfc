"""How long encoding and decoding take: our codec beside pamqp's and pika's, in one run.

Run it as ``python benchmarks/codec.py`` with ``pip install pamqp pika``; no broker and no network are used.  Every
case is first checked (all libraries must decode the octets that were encoded), then timed in turns, so that a
change of the processor's clock hits all of them; the best turn counts.  Times are microseconds for one operation,
in parentheses how many times ours it is.
"""

from __future__ import annotations

import argparse
import platform
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file: what is beside this folder must be importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import pamqp.commands
import pamqp.decode
import pamqp.encode
import pamqp.header
import pika.data
import pika.spec

from txmsg.wire.methods import METHODS, basic, decode_method, queue
from txmsg.wire.properties import BasicProperties
from txmsg.wire.tables import decode_table, encode_table

LIBRARIES = ("txmsg", "pamqp", "pika")

#: As in a task queue: who, where, how often, and what is nested in it.
HEADERS: dict[str, Any] = {
    "lang": "py",
    "task": "shop.orders.confirm",
    "id": "0b6b3b0c-4c3b-4a3e-9c55-0f8f9a0f3c11",
    "retries": 3,
    "eta": None,
    "timelimit": [None, 300],
    "x-death": [{"count": 2, "reason": "rejected", "queue": "orders", "exchange": "", "routing-keys": ["orders"]}],
}

PROPERTIES: dict[str, Any] = {
    "content_type": "application/json",
    "delivery_mode": 2,
    "priority": 0,
    "correlation_id": "0b6b3b0c-4c3b-4a3e-9c55-0f8f9a0f3c11",
    "reply_to": "amq.gen-6q3oSZp8Q2Yt",
    "message_id": "8c4a9d1e-7e57-4e3c-a1c8-2b6f3d9a5b77",
    "app_id": "shop",
}


@dataclass
class Case:
    """One thing to encode and to decode: library -> the operation."""

    name: str
    encode: dict[str, Callable[[], object]] = field(default_factory=dict)
    decode: dict[str, Callable[[], object]] = field(default_factory=dict)


def method_case(name: str, class_id: int, method_id: int, values: dict[str, Any]) -> Case:
    """A method, made once with `values`: what is timed is its encoding, and its decoding from octets."""
    index = class_id << 16 | method_id
    ours = METHODS[class_id, method_id](**values)
    pamqp_class: Any = pamqp.commands.INDEX_MAPPING[index]
    theirs_pamqp, theirs_pika = pamqp_class(**values), pika.spec.methods[index](**values)
    payload = ours.encode()
    arguments = payload[4:]

    def decode_pamqp() -> object:
        made = pamqp_class()
        made.unmarshal(arguments)
        return made

    def decode_pika() -> object:
        return pika.spec.methods[index]().decode(arguments)

    for found in (decode_method(payload), decode_pamqp(), decode_pika()):
        assert {argument: getattr(found, argument) for argument in values} == values, (name, found)
    assert theirs_pamqp.marshal() == b"".join(theirs_pika.encode()) == arguments, name
    return Case(
        name,
        {"txmsg": ours.encode, "pamqp": theirs_pamqp.marshal, "pika": lambda: b"".join(theirs_pika.encode())},
        {"txmsg": lambda: decode_method(payload), "pamqp": decode_pamqp, "pika": decode_pika},
    )


def table_case(name: str, table: dict[str, Any]) -> Case:
    """A field table."""
    octets = encode_table(table)

    def encode_pika() -> bytes:
        pieces: list[bytes] = []
        pika.data.encode_table(pieces, table)
        return b"".join(pieces)

    case = Case(
        name,
        {"txmsg": lambda: encode_table(table), "pamqp": lambda: pamqp.encode.field_table(table), "pika": encode_pika},
        {
            "txmsg": lambda: decode_table(octets, 0, len(octets))[0],
            "pamqp": lambda: pamqp.decode.field_table(octets)[1],
            "pika": lambda: pika.data.decode_table(octets, 0)[0],
        },
    )
    for library, decode in case.decode.items():
        assert decode() == table, library
    return case


def properties_case(name: str, values: dict[str, Any], *, made_once: bool = False) -> Case:
    """Message properties; what is timed is making them and encoding them, or only encoding the same again."""
    octets = BasicProperties(**values).encode()
    header = b"\x00\x3c" + b"\x00" * 10 + octets
    ours, theirs_pika = BasicProperties(**values), pika.spec.BasicProperties(**values)
    theirs_pamqp = pamqp.commands.Basic.Properties(**values)

    def decode_pamqp() -> object:
        made = pamqp.header.ContentHeader()
        made.unmarshal(header)
        return made.properties

    def decode_pika() -> object:
        return pika.spec.BasicProperties().decode(octets)

    for found in (BasicProperties.decode(octets), decode_pamqp(), decode_pika()):
        assert {property_: getattr(found, property_) for property_ in values} == values, name
    if made_once:
        return Case(
            name,
            {"txmsg": ours.encode, "pamqp": theirs_pamqp.marshal, "pika": lambda: b"".join(theirs_pika.encode())},
        )
    return Case(
        name,
        {
            "txmsg": lambda: BasicProperties(**values).encode(),
            "pamqp": lambda: pamqp.commands.Basic.Properties(**values).marshal(),
            "pika": lambda: b"".join(pika.spec.BasicProperties(**values).encode()),
        },
        {"txmsg": lambda: BasicProperties.decode(octets), "pamqp": decode_pamqp, "pika": decode_pika},
    )


def cases() -> list[Case]:
    """What is timed, from the commonest on."""
    return [
        method_case(
            "Basic.Deliver",
            *(basic.Deliver.CLASS_ID, basic.Deliver.METHOD_ID),
            {
                "consumer_tag": "ctag1.6q3oSZp8Q2Yt",
                "delivery_tag": 123_456,
                "redelivered": False,
                "exchange": "orders",
                "routing_key": "orders.europe.confirmed",
            },
        ),
        method_case(
            "Basic.Publish",
            *(basic.Publish.CLASS_ID, basic.Publish.METHOD_ID),
            {"exchange": "orders", "routing_key": "orders.europe.confirmed", "mandatory": True},
        ),
        method_case(
            "Basic.Ack",
            *(basic.Ack.CLASS_ID, basic.Ack.METHOD_ID),
            {"delivery_tag": 123_456, "multiple": True},
        ),
        method_case(
            "Queue.Declare",
            *(queue.Declare.CLASS_ID, queue.Declare.METHOD_ID),
            {"queue": "orders", "durable": True, "arguments": {"x-max-length": 2**20, "x-queue-type": "quorum"}},
        ),
        table_case("headers table", HEADERS),
        properties_case("properties", PROPERTIES),
        properties_case("properties, same again", PROPERTIES, made_once=True),
        properties_case("properties + headers", {**PROPERTIES, "headers": HEADERS}),
    ]


def timed(operations: dict[str, Callable[[], object]], turns: int, seconds: float) -> dict[str, float]:
    """Microseconds for one call of each operation: the best of `turns` turns of about `seconds` each."""
    timers = {library: timeit.Timer(operation) for library, operation in operations.items()}
    numbers = {}
    for library, timer in timers.items():
        number, taken = timer.autorange()
        numbers[library] = max(1, int(number * seconds / taken))
    best = dict.fromkeys(timers, float("inf"))
    for _ in range(turns):
        for library, timer in timers.items():
            best[library] = min(best[library], timer.timeit(numbers[library]) / numbers[library] * 1e6)
    return best


def main(arguments: list[str] | None = None) -> None:
    """Time all cases and print the table."""
    parser = argparse.ArgumentParser(description="Encoding and decoding times, in microseconds.")
    parser.add_argument("--turns", type=int, default=5, help="turns for each operation; the best counts (default 5)")
    parser.add_argument("--seconds", type=float, default=0.1, help="length of a turn (default 0.1)")
    options = parser.parse_args(arguments)
    versions = ", ".join(f"{library} {version(library)}" for library in LIBRARIES[1:])
    print(f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}; {versions}")
    print(f"{'':32}" + "".join(f"{library:>20}" for library in LIBRARIES))
    for case in cases():
        for action, operations in (("encode", case.encode), ("decode", case.decode)):
            if not operations:
                continue
            result = timed(operations, options.turns, options.seconds)
            row = ""
            for library in LIBRARIES:
                times = f"({result[library] / result['txmsg']:.1f}x)"
                row += f"{result[library]:>12.2f} {times:>7}"
            print(f"{action} {case.name:25}{row}")


if __name__ == "__main__":
    main()

"""The 64 methods: ids, names, arguments and octets, against another library's; and any octets at all."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pamqp.commands
import pamqp.common
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import (
    ALL_METHODS,
    method_payloads,
    methods,
    mutated,
    same_value,
    table_octets,
    unencodable,
)
from txmsg.errors import EncodeError, RemoteProtocolError
from txmsg.wire import methods as methods_package
from txmsg.wire.constants import Role
from txmsg.wire.layout import Method
from txmsg.wire.methods import (
    METHODS,
    basic,
    channel,
    confirm,
    connection,
    decode_method,
    exchange,
    method_name,
    queue,
    tx,
)

PAMQP: dict[tuple[int, int], Any] = {
    divmod(index, 1 << 16): made for index, made in pamqp.commands.INDEX_MAPPING.items()
}

#: Our names for what pamqp calls otherwise.
RENAMED = {"type": "exchange_type"}

by_name = pytest.mark.parametrize("made", ALL_METHODS, ids=lambda made: made.NAME)


def values_of(made: Method) -> dict[str, Any]:
    return {argument.name: getattr(made, argument.name) for argument in made.ARGUMENTS}


def test_there_are_64_methods_and_no_class_30() -> None:
    """R-01 to R-68: those of another library, access left out, update-secret with them."""
    assert len(METHODS) == 64
    assert set(METHODS) == set(PAMQP)
    assert 30 not in {class_id for class_id, _ in METHODS}
    assert METHODS[10, 70] is connection.UpdateSecret


@by_name
def test_a_method_is_declared_as_another_library_has_it(made: type[Method]) -> None:
    """R-01 to R-68: name, arguments in order, their types, whether it is synchronous, and its replies."""
    theirs = PAMQP[made.CLASS_ID, made.METHOD_ID]
    assert made.NAME.replace("-", "") == theirs.name.lower()
    assert [RENAMED.get(argument.name, argument.name) for argument in made.ARGUMENTS] == list(theirs.__slots__)
    kinds = [argument.kind.replace("longtext", "longstr") for argument in made.ARGUMENTS]
    assert kinds == [getattr(theirs, f"_{name}") for name in theirs.__slots__]
    assert made.SYNCHRONOUS is theirs.synchronous
    replies = [reply.NAME.replace("-", "") for reply in made.REPLIES]
    assert replies == [name.lower() for name in getattr(theirs, "valid_responses", [])]


@by_name
def test_defaults_are_those_of_the_specification(made: type[Method]) -> None:
    """R-01 to R-68: an argument without a default there is 0, "" or an empty table here."""
    theirs = inspect.signature(PAMQP[made.CLASS_ID, made.METHOD_ID].__init__).parameters
    empty = {"shortstr": "", "longtext": "", "longstr": b"", "table": {}, "bit": False}
    for argument in made.ARGUMENTS:
        default = theirs[RENAMED.get(argument.name, argument.name)].default
        # pamqp: "0" for two reserved strings, and "" for octets.
        if default is None or argument.name in ("out_of_band", "channel_id", "response"):
            default = empty.get(argument.kind, 0)
        assert argument.default == default
        assert getattr(made(), argument.name) == default


# pamqp warns about basic.recover-async, which the specification deprecates.
@pytest.mark.filterwarnings("ignore:This command is deprecated")
@by_name
def test_the_octets_are_those_of_another_library(made: type[Method]) -> None:
    """R-66: with every argument set, so that a swapped pair or a shifted bit shows."""
    samples: dict[str, Any] = {
        "octet": 7,
        "short": 300,
        "long": 70_000,
        "longlong": 2**40,
        "table": {"a": True, "b": "c"},
    }
    values = {
        argument.name: samples.get(argument.kind, argument.name if argument.kind != "longstr" else b"octets")
        for argument in made.ARGUMENTS
    }
    bits = [argument.name for argument in made.ARGUMENTS if argument.kind == "bit"]
    # pamqp insists on the reserved values.
    values |= {
        name: made().__getattribute__(name)
        for name in ("ticket", "capabilities", "insist", "known_hosts", "out_of_band", "cluster_id", "virtual_host")
        if name in values
    }
    if made is channel.OpenOk:
        values["channel_id"] = "0"
    if made is channel.Open:
        values["out_of_band"] = "0"
    for chosen in [*bits, None]:
        values |= {name: name == chosen for name in bits if name != "insist"}
        ours = made(**values)
        texts = {name: value.decode() if isinstance(value, bytes) else value for name, value in values.items()}
        theirs = PAMQP[made.CLASS_ID, made.METHOD_ID](**{RENAMED.get(name, name): texts[name] for name in texts})
        assert ours.encode()[4:] == theirs.marshal()
        again = PAMQP[made.CLASS_ID, made.METHOD_ID]()
        again.unmarshal(ours.encode()[4:])
        assert {name: getattr(again, RENAMED.get(name, name)) for name in values} == texts
        assert decode_method(ours.encode()) == ours


@by_name
def test_contents_follow_four_methods(made: type[Method]) -> None:
    """R-65: publish, return, deliver and get-ok."""
    assert made.HAS_CONTENT is (made in (basic.Publish, basic.Return, basic.Deliver, basic.GetOk))


@by_name
def test_a_reply_is_sent_by_the_peer(made: type[Method]) -> None:
    """Section 1: who may send what; a reply comes from the other side, and carries -ok or -empty in its name."""
    assert made.SENT_BY
    for reply in made.REPLIES:
        assert {role.peer for role in made.SENT_BY} == reply.SENT_BY
        assert reply.NAME.endswith(("-ok", "-empty"))
        assert reply.CLASS_ID == made.CLASS_ID
        assert not reply.SYNCHRONOUS


def test_who_sends_what() -> None:
    """Section 1, and RabbitMQ's extensions: both sides send close, flow, cancel, ack and nack."""
    both = {made.NAME for made in ALL_METHODS if {Role.CLIENT, Role.SERVER} == made.SENT_BY}
    assert both == {
        *("connection.close", "connection.close-ok", "channel.close", "channel.close-ok"),
        *("channel.flow", "channel.flow-ok", "basic.cancel", "basic.cancel-ok", "basic.ack", "basic.nack"),
    }
    server = {made.NAME for made in ALL_METHODS if {Role.SERVER} == made.SENT_BY and not made.NAME.endswith("-ok")}
    assert server == {
        *("connection.start", "connection.secure", "connection.tune", "connection.blocked", "connection.unblocked"),
        *("basic.return", "basic.deliver", "basic.get-empty"),
    }
    answers = {made.NAME for made in ALL_METHODS if {Role.CLIENT} == made.SENT_BY and made.NAME.endswith("-ok")}
    assert answers == {"connection.start-ok", "connection.secure-ok", "connection.tune-ok"}


@given(methods())
def test_methods_come_back(made: Method) -> None:
    """Z1: decode(encode(m)) == m for any arguments that AMQP can carry; the fast and the plain codec agree."""
    octets = made.encode()
    assert Method.encode(made) == octets
    back = decode_method(octets)
    assert type(back) is type(made)
    assert same_value(values_of(back), values_of(made))
    assert back.encode() == octets


@given(method_payloads())
def test_payloads_come_back(octets: bytes) -> None:
    """Z2: encode(decode(b)) == b for what a peer may send."""
    assert decode_method(octets).encode() == octets


@given(st.binary(max_size=60) | mutated(method_payloads()))
def test_any_payload_gives_a_method_or_one_error(octets: bytes) -> None:
    """Z4, F32: RemoteProtocolError with 501, 502 or 540 and nothing else; what is accepted encodes again."""
    try:
        made = decode_method(octets)
    except RemoteProtocolError as error:
        assert error.reply_code in (501, 502, 540)
        assert str(error)
    else:
        again = decode_method(made.encode())
        assert same_value(values_of(again), values_of(made))


@given(st.sampled_from(ALL_METHODS).flatmap(lambda made: st.tuples(st.just(made), st.binary(max_size=80))))
def test_any_arguments_after_any_ids(case: tuple[type[Method], bytes]) -> None:
    """Z4: each method's own decoder meets octets that were not made for it."""
    made, octets = case
    payload = made.CLASS_ID.to_bytes(2, "big") + made.METHOD_ID.to_bytes(2, "big") + octets
    try:
        assert type(decode_method(payload)) is made
    except RemoteProtocolError as error:
        assert str(error).startswith(made.NAME)
        assert len(str(error)) < 500


@given(st.data())
def test_any_value_is_encoded_or_named(data: st.DataObject) -> None:
    """Z4, Q-21: one wrong argument among good ones; the error names it, and the method can be used again."""
    made = data.draw(methods(*(made for made in ALL_METHODS if made.ARGUMENTS)))
    argument = data.draw(st.sampled_from(made.ARGUMENTS))
    good = getattr(made, argument.name)
    setattr(made, argument.name, data.draw(unencodable()))
    try:
        decode_method(made.encode())
    except EncodeError as error:
        assert str(error).startswith(argument.where)
    setattr(made, argument.name, good)
    made.encode()


@pytest.mark.parametrize("ids", [(30, 10), (30, 11), (0, 0), (10, 9), (40, 41), (60, 61), (65535, 65535)])
def test_an_unknown_method_is_540(ids: tuple[int, int]) -> None:
    """F32: class 30 too; 40,41 is not exchange.unbind-ok."""
    payload = ids[0].to_bytes(2, "big") + ids[1].to_bytes(2, "big") + b"arguments"
    with pytest.raises(RemoteProtocolError, match=f"no method {ids[1]} in class {ids[0]}") as caught:
        decode_method(payload)
    assert caught.value.reply_code == 540
    assert method_name(*ids) == ""


@pytest.mark.parametrize("size", range(4))
def test_cut_ids_are_501(size: int) -> None:
    """F32: a method frame must at least say which method it is."""
    with pytest.raises(RemoteProtocolError, match=f"a method frame of {size} octets") as caught:
        decode_method(b"\x00\x0a\x00\x0a"[:size])
    assert caught.value.reply_code == 501


@given(table_octets(), st.integers(0, 255))
def test_an_unknown_kind_in_a_method_is_502(octets: bytes, kind: int) -> None:
    """Q-21, S-31: a fault in a table of a method is a syntax error of the connection."""
    if chr(kind) in "tbBsUuIilLfdDTSxAFV":
        return
    body = octets[4:] + b"\x01k" + bytes((kind,))
    payload = queue.Declare(queue="q").encode()[:-4] + len(body).to_bytes(4, "big") + body
    with pytest.raises(RemoteProtocolError, match=r"^queue\.declare\.arguments") as caught:
        decode_method(payload)
    assert caught.value.reply_code == 502


def test_names() -> None:
    """The specification's spelling, also for errors that only have the ids."""
    assert method_name(50, 10) == "queue.declare"
    assert method_name(60, 100) == "basic.recover-async"
    assert queue.DeclareOk.NAME == "queue.declare-ok"


def test_repr_shows_what_was_set_and_no_secret() -> None:
    """C3.2: SASL responses and tokens are not shown; the mechanism is."""
    assert repr(queue.Declare(queue="q", durable=True)) == "queue.Declare(queue='q', durable=True)"
    for made in (
        connection.StartOk(mechanism="PLAIN", response=b"\0guest\0hunter2"),
        connection.SecureOk(response=b"hunter2"),
        connection.UpdateSecret(new_secret="hunter2", reason="expiry"),
    ):
        assert "hunter2" not in repr(made)
        assert "***" in repr(made)


@by_name
def test_methods_can_be_copied_and_pickled(made: type[Method]) -> None:
    """They are plain records."""
    one = made()
    assert copy.copy(one) == one
    assert pickle.loads(pickle.dumps(one)) == one


def test_each_module_exports_its_methods() -> None:
    """One module for each AMQP class, and nothing missing from __all__."""
    modules = (basic, channel, confirm, connection, exchange, queue, tx)
    exported = {getattr(module, name) for module in modules for name in module.__all__}
    assert exported == set(ALL_METHODS)
    for made in ALL_METHODS:
        assert made.__doc__
        assert made.__module__ == f"{methods_package.__name__}.{made.NAME.partition('.')[0]}"

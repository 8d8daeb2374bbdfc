"""The vocabulary: kinds, their order in the tuples, and the rare events."""

from __future__ import annotations

import pytest

from tests.wire.peers import ConnectionPair
from txmsg.errors import RemoteProtocolError
from txmsg.wire import events
from txmsg.wire.events import (
    ACK,
    DELIVER,
    GET_OK,
    KIND_NAMES,
    NACK,
    PUBLISH,
    RETURN,
    Event,
    MethodReceived,
    ProtocolFailure,
    ProtocolHeaderReceived,
)
from txmsg.wire.layout import Method
from txmsg.wire.methods import METHODS, basic
from txmsg.wire.properties import BasicProperties

PROPERTIES = BasicProperties(message_id="m")


def heard(method: Method, *, by_server: bool = False) -> Event:
    """The event for a method with the content (PROPERTIES, b"body")."""
    pair = ConnectionPair()
    sender, receiver = (pair.client, pair.server) if by_server else (pair.server, pair.client)
    (event,) = receiver.receive(b"".join(sender.send_content(1, method, PROPERTIES, b"body")))
    return event


def test_kinds_are_distinct_and_named_as_methods() -> None:
    """A kind is looked up by its number in logs and dispatch tables."""
    kinds = [DELIVER, GET_OK, RETURN, PUBLISH, ACK, NACK]
    assert sorted(KIND_NAMES) == sorted(set(kinds))
    assert set(KIND_NAMES.values()) <= {method.NAME for method in METHODS.values()}


def test_deliver() -> None:
    """The order of a delivery's elements is the one documented."""
    event = heard(basic.Deliver("ct", 7, True, "e", "k"))
    assert event == (DELIVER, 1, "ct", 7, True, "e", "k", PROPERTIES, b"body")


def test_get_ok() -> None:
    """The order of a basic.get's reply is the one documented."""
    assert heard(basic.GetOk(7, True, "e", "k", 3)) == (GET_OK, 1, 7, True, "e", "k", 3, PROPERTIES, b"body")


def test_return() -> None:
    """The order of a returned message's elements is the one documented."""
    event = heard(basic.Return(312, "NO_ROUTE", "e", "k"))
    assert event == (RETURN, 1, 312, "NO_ROUTE", "e", "k", PROPERTIES, b"body")


@pytest.mark.parametrize(("mandatory", "immediate"), [(True, False), (False, True)])
def test_publish(mandatory: bool, immediate: bool) -> None:
    """The order of a publish's elements is the one documented."""
    event = heard(basic.Publish(0, "e", "k", mandatory, immediate), by_server=True)
    assert event == (PUBLISH, 1, "e", "k", mandatory, immediate, PROPERTIES, b"body")


@pytest.mark.parametrize("multiple", [False, True])
@pytest.mark.parametrize("requeue", [False, True])
def test_acknowledgements(multiple: bool, requeue: bool) -> None:
    """Ack and nack are tuples, whichever side sends them; reject, which is rare, is a method."""
    pair = ConnectionPair()
    for sender, receiver in ((pair.client, pair.server), (pair.server, pair.client)):
        assert receiver.receive(sender.encode_ack(1, 5, multiple)) == [(ACK, 1, 5, multiple)]
        assert receiver.receive(sender.encode_nack(1, 6, multiple, requeue)) == [(NACK, 1, 6, multiple, requeue)]
    reject = basic.Reject(7, requeue)
    assert pair.server.receive(pair.client.encode_reject(1, 7, requeue)) == [MethodReceived(1, reject)]


def test_rare_events_show_themselves() -> None:
    """What is logged is readable."""
    assert "queue='q'" in repr(MethodReceived(1, basic.Get(queue="q")))
    assert "(0, 9, 1)" in repr(ProtocolHeaderReceived(b"AMQP\x00\x00\x09\x01", (0, 9, 1)))
    assert "bad" in repr(ProtocolFailure(RemoteProtocolError("bad", 501)))


def test_all_is_exported() -> None:
    """The names in the interface are there."""
    for name in ("DELIVER", "GET_OK", "RETURN", "PUBLISH", "ACK", "NACK", "Event", "ContentEvent"):
        assert name in events.__all__

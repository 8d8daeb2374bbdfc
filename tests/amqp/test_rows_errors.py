"""The errors as users catch them: one root, the families, what each one tells, and what is worth trying again."""

from __future__ import annotations

import copy
import pickle

import pytest
from twisted.python.failure import Failure

from txmsg import errors
from txmsg.errors import (
    ChannelClosed,
    ChannelError,
    ConnectionClosed,
    ConnectionLost,
    TxmsgError,
    channel_error,
    connection_error,
)

ALL = [value for name in errors.__all__ if isinstance(value := getattr(errors, name), type)]

#: How each class is made; those that are not here take one text.
ARGUMENTS: dict[str, tuple[object, ...]] = {
    "ConsumerCancelled": ("ctag", "client", "q"),
    "PublishReturned": (312, "NO_ROUTE", "x", "key"),
    "OperationTimeout": ("queue.declare", True),
    "LocalProtocolError": ("why", 503),
    "RemoteProtocolError": ("why", 505),
    "BacklogLimitExceeded": ("task", 1000),
}

#: Rows of errors: what has to be caught by what, so that `except` clauses mean what they seem to.
FAMILIES: list[tuple[str, str, str]] = [
    ("S-02", "ConnectionLost", "ConnectionClosed"),
    ("S-03", "ConnectionWrongState", "ConnectionClosed"),
    ("S-04", "ConnectionLost", "ConnectionClosed"),
    ("S-05", "IncompatibleProtocol", "ConnectionLost"),
    ("S-06", "NoCommonMechanism", "AuthenticationFailed"),
    ("S-07", "AuthenticationFailed", "ConnectionClosed"),
    ("S-08", "VirtualHostRefused", "ConnectionClosed"),
    ("S-09", "ChannelLimitReached", "ChannelError"),
    ("S-10", "ConnectionWrongState", "ConnectionClosed"),
    ("S-12", "ConnectionForced", "ConnectionClosed"),
    ("S-14", "ConnectionBlockedTimeout", "ConnectionLost"),
    ("S-15", "HeartbeatTimeout", "ConnectionLost"),
    ("S-17", "ChannelWrongState", "ChannelClosed"),
    ("S-19", "NotFound", "ChannelClosed"),
    ("S-21", "DuplicateConsumerTag", "ChannelError"),
    ("S-22", "ConsumerCancelled", "ChannelError"),
    ("S-23", "PublishReturned", "PublishFailed"),
    ("S-24", "PublishNacked", "PublishFailed"),
    ("S-25", "ChannelNumberInUse", "ValueError"),
    ("S-26", "RemoteProtocolError", "ProtocolError"),
    ("S-28", "IncompatibleProtocol", "ConnectionClosed"),
    ("S-32", "EncodeError", "ValueError"),
    ("S-33", "NotImplementedByPeer", "ConnectionClosed"),
    ("S-37", "EncodeError", "TxmsgError"),
    ("R2", "Overloaded", "NotSent"),
    ("R2", "PublishTimeout", "PublishUnconfirmed"),
    ("C1.2", "PeerVerificationFailed", "TLSFailed"),
]

#: Codes of RabbitMQ's closes, and whether trying again with nothing changed by hand can help.
CHANNEL_CODES = {311: False, 403: False, 404: False, 405: False, 406: False, 313: True}
CONNECTION_CODES = {
    **dict.fromkeys((320, 506, 541), True),
    **dict.fromkeys((402, 501, 502, 503, 504, 505, 530, 540), False),
}


def make(kind: type[BaseException]) -> BaseException:
    """An instance, as the library makes it."""
    return kind(*ARGUMENTS.get(kind.__name__, ("why it happened",)))


def test_one_root() -> None:
    """S-01, S-16, S-34: everything is a TxmsgError, and no error of ours stands beside it."""
    for kind in ALL:
        assert issubclass(kind, TxmsgError), kind
    assert not issubclass(ChannelClosed, ConnectionClosed)
    assert not issubclass(ConnectionClosed, ChannelClosed)
    assert not issubclass(ChannelError, ChannelClosed), "a call that failed has not closed the channel"


@pytest.mark.parametrize(("row", "name", "base"), FAMILIES)
def test_families(row: str, name: str, base: str) -> None:
    """S-02 to S-10, S-12, S-14, S-15, S-17, S-19, S-21 to S-26, S-28, S-32, S-33, S-37: each in its family."""
    bases = {kind.__name__ for kind in getattr(errors, name).__mro__}
    assert base in bases, row


@pytest.mark.parametrize("code", CHANNEL_CODES)
def test_channel_codes(code: int) -> None:
    """S-18, S-19, W-74, peers 22: code, text, method and who closed are there, and whether to try again."""
    error = channel_error(code, "SAID - so", class_id=50, method_id=10, method_name="queue.declare")
    assert isinstance(error, ChannelClosed)
    assert (error.reply_code, error.reply_text, error.initiator) == (code, "SAID - so", "server")
    assert (error.class_id, error.method_id) == (50, 10)
    assert error.recoverable is CHANNEL_CODES[code]
    for part in (str(code), "SAID - so", "queue.declare", "server"):
        assert part in str(error)


@pytest.mark.parametrize("code", CONNECTION_CODES)
def test_connection_codes(code: int) -> None:
    """S-11, S-12, S-33, W-81, peers 22: the same for a connection; a code of its own class or not."""
    error = connection_error(code, "SAID - so")
    assert isinstance(error, ConnectionClosed)
    assert not isinstance(error, ConnectionLost), "a close with a code is no lost socket"
    assert (error.reply_code, error.reply_text, error.initiator) == (code, "SAID - so", "server")
    assert error.recoverable is CONNECTION_CODES[code]


def test_closed_by_ourselves() -> None:
    """S-13, S-20: the initiator tells our own close from the broker's."""
    for kind in (ConnectionClosed, ChannelClosed):
        error = kind("Normal shutdown", 200, initiator="client")
        assert (error.reply_code, error.reply_text, error.initiator) == (200, "Normal shutdown", "client")
        assert "closed by the client" in str(error)


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_says_whether_to_try_again(kind: type[TxmsgError]) -> None:
    """peers 22: `recoverable` is on all of them, so that a retry loop needs no table."""
    assert isinstance(kind.recoverable, bool)


@pytest.mark.parametrize(
    ("name", "recoverable"),
    [
        ("ConnectionLost", True),
        ("ConnectFailed", True),
        ("HeartbeatTimeout", True),
        ("OperationTimeout", True),
        ("PublishUnconfirmed", True),
        ("NotSent", True),
        ("AuthenticationFailed", False),
        ("VirtualHostRefused", False),
        ("PeerVerificationFailed", False),
        ("ConfigurationError", False),
        ("EncodeError", False),
        ("PublishReturned", False),
    ],
)
def test_what_is_worth_trying_again(name: str, recoverable: bool) -> None:
    """peers 22, R12: a lost link is; a refused login, name or argument is not."""
    assert getattr(errors, name).recoverable is recoverable


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind is not errors.ProtocolError], ids=lambda k: k.__name__)
def test_pickled_copied_and_in_a_failure(kind: type[BaseException]) -> None:
    """S-40: pickle, copy and Failure keep class, text and attributes."""
    error = make(kind)
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is kind
        assert str(other) == str(error)
        assert vars(other) == vars(error)
    assert str(error) in Failure(error).getErrorMessage()


def test_who_cancelled() -> None:
    """O-10, S-22: the text says whether the broker or the client ended the consumer."""
    assert "cancelled by the server" in str(errors.ConsumerCancelled("t", "server", "q"))
    assert "cancelled by the client" in str(errors.ConsumerCancelled("t", "client", "q"))


def test_what_a_peer_says_is_made_harmless() -> None:
    """C3.3: reply texts are cut and cannot forge a log line."""
    error = connection_error(320, "bye\nERROR forged\x1b[0m" + "x" * 10_000)
    assert str(error).isprintable()
    assert len(str(error)) < 400

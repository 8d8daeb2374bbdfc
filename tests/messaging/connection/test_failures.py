"""Tests of the errors of the messaging layer, and of what can be cured by another attempt."""

from __future__ import annotations

import pickle

import pytest

from txmsg import errors
from txmsg.errors import OperationalError, TxmsgError
from txmsg.messaging import (
    channel_errors,
    connection_errors,
    is_recoverable,
    recoverable_channel_errors,
    recoverable_connection_errors,
)

#: What Kombu calls them, and what they are here.
NAMES = {
    "NotBoundError": errors.NotBoundError,
    "MessageStateError": errors.MessageStateError,
    "TimeoutError": errors.OperationTimeout,
    "LimitExceeded": errors.LimitExceeded,
    "ConnectionLimitExceeded": errors.ConnectionLimitExceeded,
    "ChannelLimitExceeded": errors.ChannelLimitExceeded,
    "SerializerNotInstalled": errors.SerializerNotInstalled,
    "ContentDisallowed": errors.ContentDisallowed,
    "EncodeError": errors.EncodeError,
    "DecodeError": errors.DecodeError,
    "OperationalError": errors.OperationalError,
    "InconsistencyError": errors.InconsistencyError,
    "MessageNacked": errors.PublishNacked,
}


def test_names() -> None:
    """kombu T1, T2: each of Kombu's errors has its own, below one root."""
    for name, kind in NAMES.items():
        assert issubclass(kind, TxmsgError), name
    assert issubclass(errors.ConnectionLimitExceeded, errors.LimitExceeded)
    assert issubclass(errors.ChannelLimitExceeded, errors.LimitExceeded)
    assert issubclass(errors.PoolClosed, errors.PoolError)
    assert issubclass(errors.MessageStateError, errors.AlreadySettled)


def test_refused_publish() -> None:
    """kombu T4: a nack is an error of its own, which can be retried."""
    assert issubclass(errors.PublishNacked, errors.PublishFailed)
    assert is_recoverable(errors.PublishNacked("no"))


def test_by_reply_code() -> None:
    """kombu T3: the class, the code, the text and the method of an error that the broker gave."""
    error = errors.channel_error(404, "no queue", method_name="queue.declare")
    assert type(error) is errors.NotFound
    assert (error.reply_code, error.reply_text, error.method_name) == (404, "no queue", "queue.declare")
    forced = errors.connection_error(320, "bye")
    assert type(forced) is errors.ConnectionForced
    assert isinstance(error, channel_errors)
    assert isinstance(forced, connection_errors)
    assert not isinstance(forced, channel_errors)


def test_operational_error() -> None:
    """The last error is its cause, and stays so when it travels."""
    cause = errors.ConnectFailed("refused")
    error = OperationalError("gave up", cause)
    assert error.cause is error.__cause__ is cause
    assert str(error) == "gave up: ConnectFailed: refused"
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), type(again.cause)) == (str(error), errors.ConnectFailed)
    foreign = pickle.loads(pickle.dumps(OperationalError("gave up", KeyError("x"))))
    assert isinstance(foreign.cause, TxmsgError)
    assert str(OperationalError("gave up")) == "gave up"


@pytest.mark.parametrize(
    "error",
    [
        errors.ConnectFailed("no"),
        errors.ConnectTimeout("no"),
        errors.ConnectionLost("no"),
        errors.HeartbeatTimeout("no"),
        errors.ConnectionForced("no"),
        errors.NotSent("no"),
        errors.PublishUnconfirmed("no"),
    ],
)
def test_recoverable_connection_errors(error: TxmsgError) -> None:
    """kombu A38: after these one connects again."""
    assert is_recoverable(error)
    assert isinstance(error, recoverable_connection_errors)
    assert isinstance(error, connection_errors)


@pytest.mark.parametrize(
    "error", [errors.OperationTimeout("no"), errors.ConsumerCancelled(), errors.PublishNacked("no")]
)
def test_recoverable_channel_errors(error: TxmsgError) -> None:
    """kombu A38: these may pass on the same connection."""
    assert is_recoverable(error)
    assert isinstance(error, recoverable_channel_errors)


@pytest.mark.parametrize(
    "error",
    [
        errors.AuthenticationFailed("no"),
        errors.VirtualHostRefused("no"),
        errors.AccessRefused("no"),
        errors.NotFound("no"),
        errors.PreconditionFailed("no"),
        errors.EncodeError("no"),
        errors.ConfigurationError("no"),
    ],
)
def test_not_recoverable(error: TxmsgError) -> None:
    """kombu B9: these are never retried, and are in none of the tuples that say so."""
    assert not is_recoverable(error)
    assert not isinstance(error, recoverable_connection_errors + recoverable_channel_errors)


def test_finer_than_its_class() -> None:
    """kombu A38: a certificate that is refused is a lost connection, and no attempt cures it."""
    assert isinstance(errors.TLSFailed("no"), errors.ConnectionLost)
    assert not is_recoverable(errors.TLSFailed("no"))
    assert not is_recoverable(KeyError())

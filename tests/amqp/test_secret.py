"""txmsg.amqp.secret, and C3.1: a password given anywhere is to be found nowhere."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from txmsg.amqp import connect
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import AMQPlainCredentials, ExternalCredentials, PlainCredentials, choose_mechanism
from txmsg.amqp.secret import Secret, SecretBytes
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import ConfigurationError

CANARY = "c4n4ry-Xyzzy"


def verbose_text(failure: Failure) -> str:
    """Everything a failure can be made to print, local variables included."""
    error = failure.value
    chain = ""
    while error is not None:
        chain += f"{error!r} {error} {vars(error)} {getattr(error, '__notes__', '')}"
        error = error.__cause__ or error.__context__
    return failure.getTraceback(detail="verbose", elideFrameworkCode=False) + chain


def failure_of(call: Callable[[], Any]) -> Failure:
    """The failure of a call, with all local variables of the frames below this one."""
    try:
        call()
    except Exception:
        failure = Failure(captureVars=True)
    else:
        raise AssertionError("it did not fail")
    # This frame and the lambda belong to the test, whose constants are not locals.
    return failure


class TestSecret:
    @pytest.mark.parametrize(
        "show",
        [repr, str, lambda s: f"{s}", lambda s: f"{s!r}", lambda s: f"{s:>40}", ascii],
        ids=["repr", "str", "format", "format r", "format spec", "ascii"],
    )
    @pytest.mark.parametrize("secret", [Secret(CANARY), SecretBytes(CANARY.encode())], ids=["text", "bytes"])
    def test_is_not_shown(self, secret: object, show: Callable[[object], str]) -> None:
        """C3.1: no way of turning it into text shows it."""
        assert CANARY not in show(secret)
        assert "***" in show(secret)

    def test_inside_other_objects(self) -> None:
        """C3.1: nor inside lists, dicts and exceptions."""
        holder = [Secret(CANARY), {"password": Secret(CANARY)}, SecretBytes(CANARY.encode())]
        assert CANARY not in f"{holder} {ValueError(*holder)!r}"

    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    @pytest.mark.parametrize("secret", [Secret(CANARY), SecretBytes(CANARY.encode())], ids=["text", "bytes"])
    def test_pickle(self, secret: object, protocol: int) -> None:
        """C3.1: it is refused, and the refusal does not show it."""
        with pytest.raises(TypeError) as caught:
            pickle.dumps({"a": secret}, protocol)
        assert CANARY not in str(caught.value)

    def test_reveal(self) -> None:
        secret = Secret("pä55")
        assert secret.reveal() == "pä55"
        assert secret.reveal_bytes() == "pä55".encode()
        assert type(secret.reveal_bytes()) is SecretBytes
        assert Secret(secret).reveal() == "pä55"

    def test_bytes_are_bytes(self) -> None:
        """The codec takes them as they are, and only there they become plain."""
        secret = SecretBytes(b"\0u\0p")
        assert b"".join([b"<", secret, b">"]) == b"<\0u\0p>"
        assert (len(secret), bytearray(secret), secret == b"\0u\0p") == (4, bytearray(b"\0u\0p"), True)
        assert type(secret.reveal()) is bytes
        assert secret.reveal() == b"\0u\0p"

    def test_equality_and_truth(self) -> None:
        assert Secret("a") == Secret("a")
        assert Secret("a") != Secret("b")
        assert Secret("a") != "a"
        assert hash(Secret("a")) == hash(Secret("a"))
        assert bool(Secret("a"))
        assert not Secret("")

    def test_copies_are_the_same_object(self) -> None:
        for secret in (Secret(CANARY), SecretBytes(b"x")):
            assert copy.copy(secret) is secret
            assert copy.deepcopy([secret])[0] is secret

    def test_cannot_be_changed(self) -> None:
        secret = Secret("a")
        with pytest.raises(AttributeError):
            secret._text = "b"
        with pytest.raises(AttributeError):
            del secret._text
        assert not hasattr(secret, "__dict__")

    @pytest.mark.parametrize(
        "value", [CANARY.encode(), 5, None, CANARY + "\ud800"], ids=["bytes", "int", "none", "surrogate"]
    )
    def test_not_a_text(self, value: Any) -> None:
        """C3.1: what is no text is refused without showing it, local variables included."""
        failure = failure_of(lambda: Secret(value))
        assert failure.check(ConfigurationError)
        assert CANARY not in without_the_test(verbose_text(failure))


def without_the_test(text: str) -> str:
    """`text` without the stanzas of this file's and pytest's own frames, whose variables are the test's."""
    kept, skip = [], False
    for line in text.splitlines():
        if ": " in line and ".py:" in line and not line.startswith((" ", "\t")):
            skip = any(part in line for part in (__file__.rpartition("/")[2], "/_pytest/", "/pluggy/", "/pytest/"))
        if not skip:
            kept.append(line)
    return "\n".join(kept)


#: Every way to give a password, a pass phrase or a URL and to get an error for it.
MISTAKES: dict[str, Callable[[], Any]] = {
    "url: no scheme": lambda: ConnectionParameters.from_url(f"user:{CANARY}@host"),
    "url: scheme": lambda: ConnectionParameters.from_url(f"{CANARY}://user:p@host"),
    "url: white space": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@host \n"),
    "url: slash in the password": lambda: ConnectionParameters.from_url(f"amqp://user:x/{CANARY}@host"),
    "url: slash behind the password": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}/x@host"),
    "url: question mark in the password": lambda: ConnectionParameters.from_url(f"amqp://user:x?{CANARY}=1@host"),
    "url: hash in the password": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}#{CANARY}@host"),
    "url: at in the password": lambda: ConnectionParameters.from_url(f"amqp://user:x@{CANARY}@host"),
    "url: colon in the password": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}:{CANARY}@host"),
    "url: password without a user": lambda: ConnectionParameters.from_url(f"amqp://:{CANARY}@host"),
    "url: bad percent": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}%zz@host"),
    "url: not UTF-8": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}%ff@host"),
    "url: lone surrogate": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}%ed%a0%80@host"),
    "url: NUL": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}%00@host"),
    "url: port": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@host:99999"),
    "url: host, port is the password": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}"),
    "url: bracket": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@[::1"),
    "url: vhost": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@host/a/b"),
    "url: key": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@host?nope=1"),
    "url: password in the query": lambda: ConnectionParameters.from_url(f"amqps://u:p@host?password={CANARY}"),
    "url: unknown key's value": lambda: ConnectionParameters.from_url(f"amqps://u:p@host?token={CANARY}"),
    "url: key without value": lambda: ConnectionParameters.from_url(f"amqp://user:{CANARY}@host?heartbeat"),
    "url: external": lambda: ConnectionParameters.from_url(f"amqps://u:{CANARY}@host?auth_mechanism=external"),
    "url: tls file": lambda: ConnectionParameters.from_url(f"amqps://u:{CANARY}@host?cacertfile=/nonexistent/ca.pem"),
    "url: client_properties": lambda: ConnectionParameters.from_url(f'amqp://u:p@h?client_properties={{"a":"{CANARY}"'),
    "url: bytes": lambda: ConnectionParameters.from_url(f"amqp://u:{CANARY}@h".encode()),  # type: ignore[arg-type]
    "url: in a list of keywords": lambda: ConnectionParameters.from_url(f"amqp://u:{CANARY}@h", hartbeat=1),
    "url: bad override": lambda: ConnectionParameters.from_url(f"amqp://u:{CANARY}@h", heartbeat=-1),
    "url: tls override": lambda: ConnectionParameters.from_url(f"amqps://u:{CANARY}@h", tls=None),
    "url as host": lambda: ConnectionParameters(url=f"amqp://u:{CANARY}@h"),  # type: ignore[call-arg]
    "url, positional": lambda: ConnectionParameters(f"amqp://u:{CANARY}@h"),  # type: ignore[call-arg]
    "unknown keyword": lambda: ConnectionParameters(password=CANARY),  # type: ignore[call-arg]
    "replace, unknown keyword": lambda: ConnectionParameters().replace(password=CANARY),
    "credentials as a pair": lambda: ConnectionParameters(credentials=("user", CANARY)),  # type: ignore[arg-type]
    "credentials as text": lambda: ConnectionParameters(credentials=f"user:{CANARY}"),  # type: ignore[arg-type]
    "bytes as password": lambda: PlainCredentials("user", CANARY.encode()),  # type: ignore[arg-type]
    "NUL in the password": lambda: PlainCredentials("user", CANARY + "\0"),
    "lone surrogate in the password": lambda: AMQPlainCredentials("user", CANARY + "\ud800"),
    "bad user": lambda: PlainCredentials("", CANARY),
    "user is a number": lambda: PlainCredentials(5, CANARY),  # type: ignore[arg-type]
    "pass phrase without a key": lambda: TLSOptions(key_password=CANARY),
    "pass phrase in bytes": lambda: TLSOptions(key_password=CANARY.encode()),  # type: ignore[arg-type]
    "misspelt pass phrase": lambda: TLSOptions(key_pasword=CANARY),  # type: ignore[call-arg]
    "no common mechanism": lambda: choose_mechanism(
        PlainCredentials("user", CANARY), "EXTERNAL", is_tls=True, has_client_certificate=False, host="h"
    ),
    "plaintext": lambda: choose_mechanism(
        PlainCredentials("user", CANARY), "PLAIN", is_tls=False, has_client_certificate=False, host="h"
    ),
    "a challenge for PLAIN": lambda: PlainCredentials("user", CANARY).respond(b"once more?"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_canary_in_errors(name: str) -> None:
    """C3.1: no error shows the secret, neither in its text, its chain, nor the local variables on its way."""
    failure = failure_of(MISTAKES[name])
    text = without_the_test(verbose_text(failure))
    assert CANARY not in text
    assert CANARY not in str(failure.value)
    assert "ConfigurationError" in text or "NoCommonMechanism" in text or "AuthenticationFailed" in text


@pytest.mark.parametrize(
    "target",
    [f"amqp://user:{CANARY}@broker.example", f"amqp://user:{CANARY}@host:x", [f"amqp://u:{CANARY}%@h"]],
    ids=["plaintext refused", "bad port", "list"],
)
def test_canary_in_connect(target: Any) -> None:
    """C3.1: nor does what connect() fails with, with Deferred debugging (and so variables) on."""
    failures: list[Failure] = []
    Deferred.debug = True
    try:
        connect(target).addErrback(failures.append)
    finally:
        Deferred.debug = False
    assert failures[0].check(ConfigurationError)
    assert CANARY not in without_the_test(verbose_text(failures[0]))


def test_canary_in_reprs() -> None:
    """C3.1, B-19: what holds a password or a pass phrase shows neither."""
    parameters = ConnectionParameters.from_url(
        f"amqps://user:{CANARY}@broker.example/v", connection_name="me", client_properties={"token": CANARY}
    )
    shown = [
        repr(parameters),
        str(parameters),
        parameters.as_url(),
        f"{parameters}",
        repr(parameters.credentials),
        repr(PlainCredentials("user", CANARY)),
        repr(AMQPlainCredentials("user", CANARY)),
        repr(PlainCredentials("user", CANARY).response()),
        repr(AMQPlainCredentials("user", CANARY).response()),
        repr(ExternalCredentials()),
    ]
    assert CANARY not in " ".join(shown)
    assert "user:***@" in repr(parameters)

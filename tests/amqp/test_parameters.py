"""txmsg.amqp.parameters: rows B-01 to B-23 of the connection parameters, and C2.1, C2.2."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
from twisted.internet.defer import Deferred, succeed
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txmsg.amqp.parameters import TCP_OPTIONS, ConnectionParameters
from txmsg.amqp.sasl import AMQPlainCredentials, Credentials, ExternalCredentials, PlainCredentials
from txmsg.amqp.tls import TLSOptions
from txmsg.errors import ConfigurationError

USER = PlainCredentials("user", "password")


def refusal(**parameters: Any) -> str:
    """The text with which these parameters are refused."""
    with pytest.raises(ConfigurationError) as caught:
        ConnectionParameters(**parameters)
    assert isinstance(caught.value, ValueError)
    # A verbose traceback shows the refused object too: that must work, whatever was given.
    try:
        ConnectionParameters(**parameters)
    except ConfigurationError:
        Failure(captureVars=True).getTraceback(detail="verbose")
    return str(caught.value)


#: Row -> parameter, values that are taken, values that are refused, a word of what the refusal says is allowed.
ROWS: list[tuple[str, str, list[Any], list[Any], str]] = [
    ("B-01", "host", ["localhost", "127.0.0.1", "::1", "a.localhost"], [], ""),
    (
        "B-01",
        "host",
        [],
        [5, None, "", "a b", "a/b", "a,b", "[::1]", "h\n", "\ud800", b"localhost", "x" * 256],
        "host",
    ),
    ("B-02", "port", [1, 5673, 65535], [0, 65536, -1, "5672", 5672.0, True], "1 to 65535"),
    ("B-03", "virtual_host", ["/", "", "a/b", "ü"], [None, 5, b"/", "v" * 256, "a\0b", "\ud800"], "virtual_host"),
    (
        "B-04",
        "credentials",
        [USER, ExternalCredentials(), lambda: USER],
        [5, "u:p", ("u", "p"), {}],
        "PlainCredentials",
    ),
    ("B-05", "channel_max", [1, 2047, 65535], [0, 65536, -1, "1", 1.0, None, True], "1 to 65535"),
    ("B-06", "frame_max", [4096, 131072], [4095, 131073, 0, "4096", None], "4096 to 131072"),
    (
        "B-07",
        "heartbeat",
        [None, 0, 1, 65535, lambda proposed: proposed],
        [-1, 65536, 1.5, "30", True],
        "0 to 65535",
    ),
    ("B-08", "tls", [None, TLSOptions()], [True, False, {}, {"ca": "x"}, "ca.pem"], "TLSOptions"),
    ("B-09", "connection_attempts", [1, 10], [0, -1, 1.5, None, "2", True], "1"),
    ("B-10", "retry_delay", [0, 0.5, 2, 60], [-1, "2", None, float("nan"), float("inf"), True], "seconds"),
    ("B-11", "connect_timeout", [None, 0.1, 10], [0, -1, "10", float("nan"), float("inf"), 1e9, True], "seconds"),
    ("B-12", "stack_timeout", [None, 0.1, 15], [0, -1, "15", float("nan"), True], "seconds"),
    ("B-13", "locale", ["en_US", "pt_BR"], ["", None, 5, b"en_US", "x" * 256], "locale"),
    ("B-14", "blocked_connection_timeout", [None, 0, 0.5, 60], [-1, "5", float("nan"), True], "from 0"),
    (
        "B-15",
        "client_properties",
        [None, {}, {"a": {"b": 1}}],
        [5, "a", [("a", 1)], {5: 1}, {"x" * 256: 1}],
        "client_p",
    ),
    (
        "B-16",
        "tcp_options",
        [None, {}, dict.fromkeys(TCP_OPTIONS, 5)],
        [5, "a", {"TCP_KEEPIDL": 1}, {"TCP_KEEPIDLE": "1"}, {"TCP_KEEPIDLE": -1}, {"TCP_KEEPIDLE": None}],
        "tcp_options",
    ),
    ("", "connection_name", [None, "me"], ["", 5, "x" * 256], "connection_name"),
    ("R11", "handshake_timeout", [0.1, 10], [0, -1, None, "10", float("nan"), True], "seconds"),
    ("R30", "close_timeout", [0.1, 10], [0, -1, None, "10", float("nan"), True], "seconds"),
    ("", "operation_timeout", [None, 0.1], [0, -1, "10", True], "seconds"),
    ("", "confirm_timeout", [None, 0.1], [0, -1, "10", True], "seconds"),
    ("", "default_prefetch_count", [0, 1, 65535], [-1, 65536, None, 1.5], "0 to 65535"),
    ("R19", "max_message_size", [1, 2**40], [0, -1, None, 1.5], "1"),
    ("R6", "outbox_max_messages", [1, 10**9], [0, -1, None, 1.5], "1"),
    ("R6", "outbox_max_bytes", [1, 2**40], [0, -1, None, 1.5], "1"),
    ("R24", "read_high_water_messages", [1], [0, None], "1"),
    ("R24", "read_high_water_bytes", [1], [0, None], "1"),
    ("C1.8", "allow_plaintext_auth", [True, False], [1, 0, None, "yes"], "True or False"),
]


def taken() -> Iterator[Any]:
    for row, name, good, _, _ in ROWS:
        for value in good:
            yield pytest.param(name, value, id=f"{row} {name}={value!r:.30}")


def refused() -> Iterator[Any]:
    for row, name, _, bad, allowed in ROWS:
        for value in bad:
            yield pytest.param(name, value, allowed, id=f"{row} {name}={value!r:.30}")


@pytest.mark.parametrize(("name", "value"), list(taken()))
def test_taken(name: str, value: Any) -> None:
    """B-01 to B-16: what is allowed is kept as given."""
    assert getattr(ConnectionParameters(**{name: value}), name) == value


@pytest.mark.parametrize(("name", "value", "allowed"), list(refused()))
def test_refused(name: str, value: Any, allowed: str) -> None:
    """B-01 to B-16, B-22: a ConfigurationError names the parameter and says what is allowed."""
    text = refusal(**{name: value})
    assert name in text
    assert allowed in text


def test_refusal_says_what_was_given() -> None:
    """The text has the value, cut and in printable characters."""
    assert refusal(frame_max=4095) == "frame_max must be from 4096 to 131072, not 4095"
    assert "'\\x1b[31m'" in refusal(heartbeat="\x1b[31m")
    assert len(refusal(heartbeat="9" * 1000)) < 200


def test_every_row_is_there() -> None:
    """Each parameter there is has a row above."""
    assert {f.name for f in dataclasses.fields(ConnectionParameters)} == {name for _, name, *_ in ROWS}


def test_defaults() -> None:
    """B-01 to B-16, W-41: the defaults."""
    p = ConnectionParameters()
    assert (p.host, p.port, p.virtual_host, p.credentials, p.tls) == ("localhost", 5672, "/", None, None)
    assert (p.channel_max, p.frame_max, p.heartbeat, p.locale) == (2047, 131072, None, "en_US")
    assert (p.connection_attempts, p.retry_delay, p.connect_timeout, p.stack_timeout) == (1, 2.0, 10.0, 15.0)
    assert (p.blocked_connection_timeout, p.client_properties, p.tcp_options) == (None, None, None)
    assert (p.handshake_timeout, p.operation_timeout, p.confirm_timeout, p.close_timeout) == (10.0, 30.0, 30.0, 10.0)
    assert (p.max_message_size, p.outbox_max_messages, p.outbox_max_bytes) == (16 << 20, 100_000, 64 << 20)
    assert (p.default_prefetch_count, p.allow_plaintext_auth, p.connection_name) == (200, False, None)


def test_port_follows_tls() -> None:
    """B-02, W-12: 5672, or 5671 with TLS, unless one was given; replace() keeps to that."""
    plain, tls = ConnectionParameters(), ConnectionParameters(tls=TLSOptions())
    assert (plain.port, tls.port, ConnectionParameters(tls=TLSOptions(), port=5672).port) == (5672, 5671, 5672)
    assert plain.replace(tls=TLSOptions()).port == 5671
    assert tls.replace(tls=None).port == 5672
    assert ConnectionParameters(port=7000).replace(tls=TLSOptions()).port == 7000
    assert plain.replace(heartbeat=5).port == 5672


def test_seconds_are_floats() -> None:
    """B-11: numbers of seconds are kept as float."""
    p = ConnectionParameters(
        connect_timeout=3, stack_timeout=4, retry_delay=0, blocked_connection_timeout=0, close_timeout=1
    )
    values = (p.connect_timeout, p.stack_timeout, p.retry_delay, p.blocked_connection_timeout, p.close_timeout)
    assert [(type(v), v) for v in values] == [(float, 3.0), (float, 4.0), (float, 0.0), (float, 0.0), (float, 1.0)]


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("hartbeat", "heartbeat"), ("vhost", "virtual_host"), ("heartbeat_interval", "heartbeat"), ("Host", "host")],
)
def test_unknown_keyword(given: str, nearest: str) -> None:
    """B-17, B-24: an unknown keyword is named, with the nearest known one."""
    text = refusal(**{given: 1})
    assert given in text
    assert given == "vhost" or f"did you mean {nearest!r}" in text


def test_unknown_keyword_with_nothing_near() -> None:
    """B-17, B-25, B-26: also when nothing looks like it."""
    assert refusal(backpressure_detection=True).endswith("has no parameter 'backpressure_detection'")
    assert "'ssl'" in refusal(ssl=True)


def test_keywords_only() -> None:
    """A URL in the wrong place gets a hint, and is not shown."""
    for wrong in (
        lambda: ConnectionParameters("amqp://u:secret@h"),  # type: ignore[call-arg]
        lambda: ConnectionParameters(host="amqp://u:secret@h"),
        lambda: ConnectionParameters(host="u:secret@h"),
    ):
        with pytest.raises(ConfigurationError, match="from_url") as caught:
            wrong()
        assert "secret" not in str(caught.value)


def test_frozen() -> None:
    """B-18: no attribute can be set, known or not."""
    p = ConnectionParameters()
    for name in ("heartbeat", "hearbeat"):
        with pytest.raises(AttributeError):
            setattr(p, name, 5)
    assert not hasattr(p, "__dict__")
    assert p.heartbeat is None


def test_repr() -> None:
    """B-19: it shows where to and what differs from the defaults, and no password."""
    p = ConnectionParameters(credentials=PlainCredentials("ü/x", "s3cret"), host="::1", virtual_host="a/b", heartbeat=5)
    assert repr(p) == "<ConnectionParameters amqp://%C3%BC%2Fx:***@[::1]:5672/a%2Fb, heartbeat=5>"
    assert ConnectionParameters(virtual_host="").as_url() == "amqp://localhost:5672/"
    assert ConnectionParameters(tls=TLSOptions()).as_url() == "amqps://localhost:5671/%2F"
    assert repr(ConnectionParameters(credentials=lambda: USER)) == "<ConnectionParameters amqp://localhost:5672/%2F>"


def test_equality() -> None:
    """B-20: everything counts."""
    base: dict[str, Any] = {"credentials": USER, "client_properties": {"a": 1}}
    same = ConnectionParameters(**base)
    assert ConnectionParameters(**base) == same
    assert hash(ConnectionParameters(**base)) == hash(same)
    for change in (
        {"host": "other.localhost"},
        {"virtual_host": "v"},
        {"credentials": PlainCredentials("user", "other")},
        {"credentials": AMQPlainCredentials("user", "password")},
        {"client_properties": {"a": 2}},
        {"heartbeat": 1},
        {"tls": TLSOptions()},
    ):
        assert ConnectionParameters(**(base | change)) != same


def test_client_properties_are_copied() -> None:
    """B-15, W-91: later changes of the dict that was given change nothing."""
    given = {"capabilities": {"a": True}}
    p = ConnectionParameters(client_properties=given)
    given["capabilities"]["a"] = False
    given["b"] = {}
    assert p.client_properties == {"capabilities": {"a": True}}
    options = {"TCP_KEEPIDLE": 5}
    q = ConnectionParameters(tcp_options=options)
    options.clear()
    assert q.tcp_options == {"TCP_KEEPIDLE": 5}


def test_replace() -> None:
    """B-21: a changed copy; the original stays."""
    p = ConnectionParameters(credentials=USER, heartbeat=7)
    q = p.replace(heartbeat=8, virtual_host="v")
    assert (q.heartbeat, q.virtual_host, q.credentials, p.heartbeat, p.virtual_host) == (8, "v", USER, 7, "/")
    with pytest.raises(ConfigurationError, match="did you mean 'heartbeat'"):
        p.replace(hartbeat=1)
    with pytest.raises(ConfigurationError, match="frame_max"):
        p.replace(frame_max=1)


def test_tcp_options_name_the_nearest() -> None:
    """B-16: a misspelt option."""
    assert "did you mean 'TCP_KEEPIDLE'" in refusal(tcp_options={"TCP_KEEP_IDLE": 1})


class CredentialsTests(SynchronousTestCase):
    """get_credentials()."""

    def test_default_is_for_this_machine(self) -> None:
        """C2.1, C-04: guest/guest for loopback hosts when nothing was given."""
        for host in ("localhost", "LOCALHOST", "127.0.0.1", "127.8.9.10", "::1", "x.localhost", "::ffff:127.0.0.1"):
            found = self.successResultOf(ConnectionParameters(host=host).get_credentials())
            self.assertEqual(found, PlainCredentials("guest", "guest"))

    def test_default_is_not_for_others(self) -> None:
        """C2.1: for any other host missing credentials are an error, which says how to give them."""
        for host in ("broker.example", "10.0.0.1", "128.0.0.1", "::2", "localhost.example.org", "notlocalhost"):
            text = refusal(host=host)
            self.assertIn("PlainCredentials", text)
            self.assertIn(host, text)
        with self.assertRaises(ConfigurationError):
            ConnectionParameters().replace(host="broker.example")
        with self.assertRaises(ConfigurationError):
            ConnectionParameters(tls=TLSOptions(), host="broker.example")

    def test_given(self) -> None:
        """B-04, X-02: the object given, at any host."""
        p = ConnectionParameters(host="broker.example", credentials=USER)
        self.assertIs(self.successResultOf(p.get_credentials()), USER)

    def test_callable_is_asked_each_time(self) -> None:
        """C2.2: at each connect anew, and nothing is kept."""
        tokens = iter(["first", "second"])
        p = ConnectionParameters(credentials=lambda: PlainCredentials("user", next(tokens)))
        self.assertEqual(self.successResultOf(p.get_credentials()), PlainCredentials("user", "first"))
        self.assertEqual(self.successResultOf(p.get_credentials()), PlainCredentials("user", "second"))

    def test_callable_may_answer_later(self) -> None:
        """C2.2: with a Deferred, or as a coroutine."""
        later: Deferred[Credentials] = Deferred()
        waiting = ConnectionParameters(credentials=lambda: later).get_credentials()
        self.assertNoResult(waiting)
        later.callback(USER)
        self.assertIs(self.successResultOf(waiting), USER)

        async def ask() -> Credentials:
            return await succeed(USER)

        self.assertIs(self.successResultOf(ConnectionParameters(credentials=ask).get_credentials()), USER)

    def test_a_class_is_a_callable(self) -> None:
        """A class that makes credentials is no credentials."""
        p = ConnectionParameters(credentials=ExternalCredentials)
        self.assertEqual(self.successResultOf(p.get_credentials()), ExternalCredentials())

    def test_callable_fails(self) -> None:
        """Its error is the Deferred's."""

        def fail() -> Credentials:
            raise LookupError("no token")

        self.failureResultOf(ConnectionParameters(credentials=fail).get_credentials(), LookupError)

    def test_callable_returns_nonsense(self) -> None:
        """A wrong answer is a ConfigurationError that does not show it."""
        wrong: Any = lambda: ("user", "s3cret")  # noqa: E731
        failure = self.failureResultOf(ConnectionParameters(credentials=wrong).get_credentials(), ConfigurationError)
        self.assertNotIn("s3cret", str(failure.value))
        self.assertIn("tuple", str(failure.value))

    def test_cancelling(self) -> None:
        """Cancelling cancels what the callable waits for."""
        cancelled: list[object] = []
        later: Deferred[Credentials] = Deferred(cancelled.append)
        waiting = ConnectionParameters(credentials=lambda: later).get_credentials()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(len(cancelled), 1)

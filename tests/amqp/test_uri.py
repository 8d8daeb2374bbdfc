"""txmsg.amqp.uri: rows C-01 to C-27, RabbitMQ's examples, and Z8 as properties."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.certificates import shared_authority
from txmsg.amqp import uri
from txmsg.amqp.parameters import ConnectionParameters
from txmsg.amqp.sasl import AMQPlainCredentials, ExternalCredentials, PlainCredentials
from txmsg.errors import ConfigurationError


def parsed(url: str, **overrides: Any) -> ConnectionParameters:
    return ConnectionParameters.from_url(url, **overrides)


def refusal(url: Any, **overrides: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        ConnectionParameters.from_url(url, **overrides)
    error = caught.value
    assert isinstance(error, ValueError)
    assert error.__cause__ is None
    assert error.__context__ is None
    return str(error)


def parts(url: str) -> tuple[Any, ...]:
    """User, password, host, port and virtual host of a URL; None where it has none."""
    found = uri.parse(url)
    assert isinstance(found, dict), found
    user = found.get("credentials")
    name, password = (user.username, user.password.reveal()) if user else (None, None)
    return name, password, found["host"], found.get("port"), found["virtual_host"]


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        # The appendix of RabbitMQ's URI specification.
        ("amqp://user:pass@host:10000/vhost", ("user", "pass", "host", 10000, "vhost")),
        ("amqp://user%61:%61pass@ho%61st:10000/v%2fhost", ("usera", "apass", "hoast", 10000, "v/host")),
        ("amqp://", (None, None, "localhost", None, "/")),
        ("amqp://user:pass@", ("user", "pass", "localhost", None, "/")),
        ("amqp://host", (None, None, "host", None, "/")),
        ("amqp://:10000", (None, None, "localhost", 10000, "/")),
        ("amqp:///vhost", (None, None, "localhost", None, "vhost")),
        ("amqp://host/%2f", (None, None, "host", None, "/")),
        ("amqp://[::1]", (None, None, "::1", None, "/")),
        # There the empty virtual host, here "/", as in pika (C-06).
        ("amqp://host/", (None, None, "host", None, "/")),
        # C-05
        ("amqp://h/%2F", (None, None, "h", None, "/")),
        ("amqp://h/%2Fv", (None, None, "h", None, "/v")),
        ("amqp://h/a%2Fb", (None, None, "h", None, "a/b")),
        ("amqp://h/v", (None, None, "h", None, "v")),
        ("amqp://h/%C3%BC", (None, None, "h", None, "ü")),
        ("amqp://h/ü", (None, None, "h", None, "ü")),
        # C-07, C-08
        ("amqp://u%40d:p%3Aw@h", ("u@d", "p:w", "h", None, "/")),
        ("amqp://u+d:p+w@h/v+w", ("u+d", "p+w", "h", None, "v+w")),
        ("amqp://u:@h", ("u", "", "h", None, "/")),
        ("amqp://u:%2F%3F%23%40%3A%25@h", ("u", "/?#@:%", "h", None, "/")),
        # C-09
        ("AMQP://H", (None, None, "h", None, "/")),
        ("amqp://[::1]:5/v", (None, None, "::1", 5, "v")),
        ("amqp://u:p@[2001:DB8::1]:5/v", ("u", "p", "2001:db8::1", 5, "v")),
        ("amqp://[fe80::1%25eth0]", (None, None, "fe80::1%eth0", None, "/")),
        # C-10: an empty port is none, as in RFC 3986
        ("amqp://h:/v", (None, None, "h", None, "v")),
        ("amqp://h:00080", (None, None, "h", 80, "/")),
        # C-26
        ("amqp://h/v#fragment", (None, None, "h", None, "v")),
        ("amqp://h/v?heartbeat=5#fragment", (None, None, "h", None, "v")),
        ("amqp://h?heartbeat=5", (None, None, "h", None, "/")),
        ("amqp://h/v?", (None, None, "h", None, "v")),
    ],
)
def test_parts(url: str, expected: tuple[Any, ...]) -> None:
    """C-01 to C-10, C-26: what is read where."""
    assert parts(url) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("amqp://guest:guest@localhost:5672/%2F", ("guest", "localhost", 5672, "/", False, None)),
        ("amqp://www-data:rabbit_pwd@rabbit1/web_messages", ("www-data", "rabbit1", 5672, "web_messages", False, None)),
        ("amqps://www-data:rabbit_pwd@rabbit1/web_messages", ("www-data", "rabbit1", 5671, "web_messages", True, None)),
        ("amqps://www-data:rabbit_pwd@rabbit1/some?heartbeat=30", ("www-data", "rabbit1", 5671, "some", True, 30)),
        ("AmQpS://u:p@h", ("u", "h", 5671, "/", True, None)),
        ("amqps://u:p@h:5672", ("u", "h", 5672, "/", True, None)),
    ],
)
def test_worked_urls(url: str, expected: tuple[Any, ...]) -> None:
    """C-02, C-03, C-27, W-55: scheme, default port and the documented URLs."""
    p = parsed(url)
    assert isinstance(p.credentials, PlainCredentials)
    assert (p.credentials.username, p.host, p.port, p.virtual_host, p.tls is not None, p.heartbeat) == expected


def test_nothing_given() -> None:
    """C-04, W-37, W-55: everything missing means localhost, the virtual host "/", and guest by C2.1."""
    assert parsed("amqp://") == ConnectionParameters()


@pytest.mark.parametrize(
    "url", ["amqp://broker.example", "amqps://broker.example/v", "amqp://10.1.2.3:5672", "amqp://[2001:db8::1]"]
)
def test_credentials_are_needed(url: str) -> None:
    """C2.1: a URL without credentials is for this machine only."""
    assert "no credentials" in refusal(url)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "amqp://"),
        ("localhost", "amqp://"),
        ("localhost:5672", "amqp://"),
        ("//localhost", "amqp://"),
        ("amqp:/localhost", "amqp://"),
        ("http://localhost", "not http://"),
        ("https://localhost", "not https://"),
        ("redis://localhost", "not redis://"),
        ("://localhost", "amqp://"),
        (" amqp://localhost", "white space"),
        ("amqp://localhost\n", "white space"),
        ("amqp://local\thost", "white space"),
        ("amqp://local\0host", "white space"),
        ("amqp://h/v w", "white space"),
        ("amqp://h/a/b", "%2F"),
        ("amqp://h//", "%2F"),
        ("amqp://h//v", "%2F"),
        ("amqp://u@h", "no password"),
        ("amqp://u%3Ap@h", "no password"),
        ("amqp://@h", "user name"),
        ("amqp://:@/", "user name"),
        ("amqp://:p@h", "user name"),
        ("amqp://u:p:q@h", "%3A"),
        ("amqp://u:p@q@h", "%40"),
        ("amqp://u:p/q@h", "%2F"),
        ("amqp://u:p?q@h", "%3F"),
        ("amqp://u:p#q@h", "%23"),
        ("amqp://h/a@b", "%40"),
        ("amqp://u%:p@h", "%25"),
        ("amqp://u:%p@h", "%25"),
        ("amqp://u:p%4@h", "%25"),
        ("amqp://h/%zz", "%25"),
        ("amqp://h/%ff", "UTF-8"),
        ("amqp://u%ff:p@h", "UTF-8"),
        ("amqp://u:p%c3%28@h", "UTF-8"),
        ("amqp://h:x", "1 to 65535"),
        ("amqp://h:0", "1 to 65535"),
        ("amqp://h:65536", "1 to 65535"),
        ("amqp://h:-1", "1 to 65535"),
        ("amqp://h:+1", "1 to 65535"),
        ("amqp://h:5_6", "1 to 65535"),
        ("amqp://h:٣", "1 to 65535"),
        ("amqp://h:1:2", "brackets"),
        ("amqp://::1", "brackets"),
        ("amqp://[::1", "brackets"),
        ("amqp://::1]", "brackets"),
        ("amqp://[h]", "brackets"),
        ("amqp://h%3A1", "brackets"),
        ("amqp://[::1]x", "brackets"),
        ("amqp://a,b", "host"),
        ("amqp://a%2Fb", "host"),
        ("amqp://a%00b", "host"),
        ("amqp://h/a%00b", "virtual_host"),
        ("amqp://h/" + "v" * 256, "255"),
        (None, "str"),
        (b"amqp://h", "str"),
        (5, "str"),
    ],
)
def test_refused(url: Any, says: str) -> None:
    """C-02, C-06, C-08, C-10, W-13: a URL that cannot be meant is refused, with what to write."""
    assert says in refusal(url, credentials=PlainCredentials("u", "p"))


@pytest.mark.parametrize(
    ("query", "name", "value"),
    [
        ("channel_max=1", "channel_max", 1),
        ("frame_max=4096", "frame_max", 4096),
        ("heartbeat=0", "heartbeat", 0),
        ("heartbeat=60", "heartbeat", 60),
        ("heartbeat=", "heartbeat", None),
        ("channel_max=", "channel_max", 2047),
        ("locale=pt_BR", "locale", "pt_BR"),
        ("connection_name=a+b%2Bc", "connection_name", "a b+c"),
        ('client_properties={"a":{"b":[1,null]}}', "client_properties", {"a": {"b": [1, None]}}),
        ('tcp_options={"TCP_KEEPIDLE":60}', "tcp_options", {"TCP_KEEPIDLE": 60}),
        ("connection_attempts=3", "connection_attempts", 3),
        ("retry_delay=0.5", "retry_delay", 0.5),
        ("socket_timeout=2.5", "connect_timeout", 2.5),
        ("connect_timeout=3", "connect_timeout", 3.0),
        ("connection_timeout=10000", "connect_timeout", 10.0),
        ("stack_timeout=20", "stack_timeout", 20.0),
        ("handshake_timeout=4", "handshake_timeout", 4.0),
        ("blocked_connection_timeout=0", "blocked_connection_timeout", 0.0),
        ("operation_timeout=9", "operation_timeout", 9.0),
        ("confirm_timeout=9", "confirm_timeout", 9.0),
        ("close_timeout=9", "close_timeout", 9.0),
        ("max_message_size=1000", "max_message_size", 1000),
        ("allow_plaintext_auth=true", "allow_plaintext_auth", True),
        ("allow_plaintext_auth=false", "allow_plaintext_auth", False),
    ],
)
def test_query(query: str, name: str, value: Any) -> None:
    """C-11 to C-22: each key sets its parameter."""
    assert getattr(parsed(f"amqp://localhost/v?{query}"), name) == value


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("channel_max=x", "channel_max must be a whole number, not 'x'"),
        ("channel_max=-1", "channel_max"),
        ("channel_max=65536", "1 to 65535"),
        ("channel_max=1.5", "channel_max"),
        ("channel_max=1_0", "channel_max"),
        ("channel_max=٣", "channel_max"),
        ("frame_max=4095", "4096 to 131072"),
        ("frame_max=131073", "4096 to 131072"),
        ("frame_max=" + "9" * 30, "frame_max"),
        ("heartbeat=-1", "heartbeat"),
        ("heartbeat=65536", "65535"),
        ("heartbeat=none", "heartbeat"),
        ("heartbeat", "no value"),
        ("locale=", "locale"),
        ("connection_attempts=0", "connection_attempts"),
        ("retry_delay=-1", "retry_delay"),
        ("retry_delay=nan", "retry_delay"),
        ("retry_delay=inf", "retry_delay"),
        ("retry_delay=1e3", "retry_delay"),
        ("socket_timeout=0", "connect_timeout"),
        ("connection_timeout=10", "milliseconds"),
        ("stack_timeout=0", "stack_timeout"),
        ("blocked_connection_timeout=x", "blocked_connection_timeout"),
        ("client_properties={'a':1}", "JSON"),
        ("client_properties=[1]", "JSON"),
        ("client_properties=" + "[" * 100_000, "JSON"),
        ('tcp_options={"TCP_KEEPIDL":1}', "did you mean 'TCP_KEEPIDLE'"),
        ("allow_plaintext_auth=1", "true or false"),
        ("nope=1", "unknown query key 'nope'"),
        ("hartbeat=1", "did you mean 'heartbeat'"),
        ("Heartbeat=1", "did you mean 'heartbeat'"),
        ("heart%62eat=1&heartbeat=2", "twice"),
        ("heartbeat=1&heartbeat=1", "'heartbeat' is given twice"),
        ("heartbeat=&heartbeat=1", "twice"),
        ("connect_timeout=1&socket_timeout=2", "connect_timeout twice"),
        ("heartbeat_interval=1", "use heartbeat"),
        ("backpressure_detection=t", "blocks"),
        ("ssl_options={}", "cacertfile"),
        ("host=evil", "unknown"),
        ("port=1", "unknown"),
        ("virtual_host=v", "unknown"),
        ("credentials=x", "unknown"),
        ("tls=x", "unknown"),
        ("=1", "unknown"),
        ("&heartbeat=1", "unknown"),
        ("heartbeat=1&", "unknown"),
        ("heartbeat=1;channel_max=5", "heartbeat"),
        ("heartbeat=%", "%25"),
        ("heartbeat=%ff", "UTF-8"),
        ("auth_mechanism=", "auth_mechanism"),
        ("auth_mechanism=gssapi", "plain, amqplain or external"),
        ("auth_mechanism=plain", "user:password@"),
        ("cacertfile=/ca.pem", "amqps://"),
        ("verify=verify_peer", "amqps://"),
    ],
)
def test_query_refused(query: str, says: str) -> None:
    """C-11 to C-25: a bad value names its key and the value, an unknown or repeated key itself (with the nearest)."""
    assert says in refusal(f"amqp://localhost/v?{query}")


class TestTLS:
    """C-17, D-02 and the TLS keys of RabbitMQ."""

    def test_verified_without_any_key(self) -> None:
        """D-02, C1.1: amqps:// verifies with the platform's CAs, under the host's name."""
        tls = parsed("amqps://u:p@Broker.example").tls
        assert tls is not None
        assert (tls.ca_file, tls.server_name, tls.name_for("broker.example")) == (None, None, "broker.example")

    def test_keys(self) -> None:
        """C-17, W-71: cacertfile, certfile, keyfile, server_name_indication, verify."""
        authority = shared_authority()
        client = authority.issue("client")
        query = urlencode(
            {
                "cacertfile": authority.certificate_file,
                "certfile": client.certificate_file,
                "keyfile": client.key_file,
                "server_name_indication": "broker.example",
                "verify": "verify_peer",
            }
        )
        tls = parsed(f"amqps://u:p@h?{query}").tls
        assert tls is not None
        assert (tls.ca_file, tls.cert_file) == (str(authority.certificate_file), str(client.certificate_file))
        assert (tls.key_file, tls.server_name) == (str(client.key_file), "broker.example")

    @pytest.mark.parametrize(
        ("query", "says"),
        [
            ("verify=verify_none", "verify_none does not exist"),
            ("verify=none", "verify_peer"),
            ("verify=", "verify is empty"),
            ("cacertfile=", "cacertfile is empty"),
            ("cacertfile=/nonexistent/ca.pem", "/nonexistent/ca.pem"),
            ("certfile=/nonexistent/c.pem", "/nonexistent/c.pem"),
            ("keyfile=/nonexistent/k.pem", "cert_file"),
            ("server_name_indication=disable", "disabled"),
            ("server_name_indication=a/b", "server_name"),
            ("fail_if_no_peer_cert=true", "not used here"),
            ("password=s3cret", "key_password"),
            ("verify_hostname=false", "unknown"),
            ("insecure=true", "unknown"),
            ("auth_mechanism=external", "certfile"),
        ],
    )
    def test_refused(self, query: str, says: str) -> None:
        """C1.1, C-17: what would weaken the check, or cannot be read."""
        who = "" if query == "auth_mechanism=external" else "u:p@"
        text = refusal(f"amqps://{who}localhost?{query}")
        assert says in text
        assert "s3cret" not in text

    def test_external(self) -> None:
        """E-06, C1.8: auth_mechanism=external needs amqps:// and a certificate, and takes no user."""
        client = shared_authority().issue("client")
        query = urlencode(
            {"certfile": client.certificate_file, "keyfile": client.key_file, "auth_mechanism": "EXTERNAL"}
        )
        assert parsed(f"amqps://h?{query}").credentials == ExternalCredentials()
        assert "certificate" in refusal(f"amqps://u:p@h?{query}")
        assert "amqps://" in refusal("amqp://h?auth_mechanism=external")

    def test_amqplain(self) -> None:
        """E-09: auth_mechanism=amqplain."""
        assert parsed("amqp://u:p@h?auth_mechanism=amqplain").credentials == AMQPlainCredentials("u", "p")
        assert parsed("amqp://u:p@h?auth_mechanism=plain").credentials == PlainCredentials("u", "p")


def test_overrides() -> None:
    """Keywords win over the URL, are checked like it, and TLS cannot be taken away."""
    p = parsed("amqp://u:p@h/v?heartbeat=5", heartbeat=6, client_properties={"a": 1})
    assert (p.heartbeat, p.client_properties, p.virtual_host) == (6, {"a": 1}, "v")
    assert parsed("amqp://h", credentials=PlainCredentials("a", "b")).host == "h"
    assert parsed("amqp://localhost", virtual_host="").virtual_host == ""
    assert "did you mean 'heartbeat'" in refusal("amqp://localhost", hartbeat=6)
    assert "amqps://" in refusal("amqps://u:p@h", tls=None)


# -- Z8 --------------------------------------------------------------------------------------------

#: What a name or a password can hold: anything but NUL and surrogates, delimiters above all.
words = st.text(
    st.one_of(
        st.sampled_from("@:/?#%&=+;[]!$'()*, \n\t\\\"<>\x1b\u202eü€\U0001f600"),
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    ),
    max_size=40,
)
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,10}){0,3}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
)


def url_of(scheme: str, user: str, password: str, host: str, port: int | None, vhost: str) -> str:
    where = f"[{host}]" if ":" in host else host
    where += "" if port is None else f":{port}"
    return f"{scheme}://{quote(user, safe='')}:{quote(password, safe='')}@{where}/{quote(vhost, safe='')}"


@given(
    user=words.filter(bool),
    password=words,
    host=hosts,
    port=st.none() | st.integers(1, 65535),
    vhost=words.filter(bool),
    query=st.fixed_dictionaries(
        {},
        optional={
            "heartbeat": st.integers(0, 65535),
            "channel_max": st.integers(1, 65535),
            "connection_name": words.filter(bool),
            "client_properties": st.dictionaries(words, st.integers() | words, max_size=3).map(json.dumps),
        },
    ),
)
def test_round_trip(user: str, password: str, host: str, port: int | None, vhost: str, query: dict[str, Any]) -> None:
    """Z8: what was percent-encoded comes out as it was, whatever it is."""
    assume(len(vhost.encode()) <= 255 and len(str(query.get("connection_name", "")).encode()) <= 255)
    url = url_of("amqp", user, password, host, port, vhost)
    p = ConnectionParameters.from_url(f"{url}?{urlencode(query)}" if query else url)
    assert p.credentials == PlainCredentials(user, password)
    assert (p.host, p.port, p.virtual_host) == (host, port or 5672, vhost)
    assert (p.heartbeat, p.channel_max) == (query.get("heartbeat"), query.get("channel_max", 2047))
    assert p.connection_name == query.get("connection_name")
    # As it is shown, it is a URL again, of the same but for the password.
    q = ConnectionParameters.from_url(p.as_url())
    assert (q.host, q.port, q.virtual_host) == (p.host, p.port, p.virtual_host)
    assert q.credentials == PlainCredentials(user, "***")


@given(value=words.filter(bool))
def test_a_value_stays_in_its_place(value: str) -> None:
    """Z8, GO-2026-6493: an encoded value cannot become a second parameter, host or path."""
    assume(len(value.encode()) <= 255)
    p = ConnectionParameters.from_url(f"amqp://localhost/v?connection_name={quote(value, safe='')}&heartbeat=7")
    assert (p.connection_name, p.heartbeat) == (value, 7)
    assert dict.fromkeys(["host", "virtual_host", "tls", "credentials"]) | {
        "host": p.host,
        "virtual_host": p.virtual_host,
        "tls": p.tls,
        "credentials": p.credentials,
    } == {"host": "localhost", "virtual_host": "v", "tls": None, "credentials": None}


#: Pieces out of which something like a URL can be put together.
SIGNS = ["://", "//", "/", "@", ":", "?", "&", "=", "#", "%", "%2F", "%00", "%ff", "[", "]", "::1", ";", "+", "-1"]
NAMES = ["amqp", "amqps", "localhost", "user", "heartbeat", "cacertfile", "verify", "verify_none", "5672"]
pieces = st.lists(st.sampled_from(SIGNS) | st.sampled_from(NAMES) | st.text(max_size=5), max_size=15).map("".join)


@given(url=pieces)
def test_anything_is_parsed_or_refused(url: str) -> None:
    """Z8, Z4: any text gives parameters or a ConfigurationError, and never anything else."""
    for text in (url, "amqp://" + url, "amqps://u:p@h" + url):
        found = uri.parse(text)
        assert isinstance(found, dict | ConfigurationError)
        assert "cannot be read (" not in str(found), "an exception nobody expected was hidden"


@given(before=pieces, between=pieces, after=pieces)
def test_no_error_shows_the_password(before: str, between: str, after: str) -> None:
    """Z8, C3.1: wherever a password's delimiters were forgotten, no error shows it."""
    canary = "c4n4ry"
    for url in (
        f"amqp://{before}:{canary}{between}@{after}",
        f"amqp://user:{before}{canary}@{between}/{after}",
        f"amqps://user:{canary}{before}@host{between}?{after}",
    ):
        found = uri.parse(url)
        if isinstance(found, ConfigurationError):
            assert canary not in str(found)
            assert found.__traceback__ is None
            assert found.__context__ is None
        else:
            try:
                p = ConnectionParameters(**found)
            except ConfigurationError as error:
                assert canary not in str(error)
            else:
                assert canary not in repr(p)

"""txmsg.amqp.sasl: rows E-01 to E-11, and C1.8."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import HostnameAddress, IPv4Address, IPv6Address, UNIXAddress

from txmsg.amqp.sasl import (
    AMQPlainCredentials,
    Credentials,
    ExternalCredentials,
    PlainCredentials,
    choose_mechanism,
    host_of_peer,
    is_loopback,
)
from txmsg.amqp.secret import Secret, SecretBytes
from txmsg.errors import AuthenticationFailed, ConfigurationError, NoCommonMechanism
from txmsg.wire.tables import decode_table

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=300)


class Challenged:
    """A mechanism of a user's own, with rounds of challenges (RABBIT-CR-DEMO)."""

    mechanism = "RABBIT-CR-DEMO"

    def __init__(self) -> None:
        self.asked: list[bytes] = []

    def response(self) -> bytes:
        return b"user"

    def respond(self, challenge: bytes) -> bytes:
        self.asked.append(challenge)
        return b"My password is ..."


class Keyed(Challenged):
    """A mechanism that sends no secret."""

    mechanism = "SCRAM-SHA-256"
    is_safe_in_plaintext = True


def choose(credentials: Any, offered: str = "AMQPLAIN PLAIN EXTERNAL", **facts: Any) -> tuple[str, bytes]:
    arguments: dict[str, Any] = {"is_tls": False, "has_client_certificate": False, "host": "localhost"} | facts
    return choose_mechanism(credentials, offered, **arguments)


class TestResponses:
    def test_plain(self) -> None:
        """E-01, E-02: NUL user NUL password, in UTF-8."""
        credentials = PlainCredentials("üser", Secret("pä:ss"))
        assert credentials.mechanism == "PLAIN"
        assert credentials.response() == b"\0\xc3\xbcser\0p\xc3\xa4:ss"
        assert (credentials.username, credentials.password) == ("üser", Secret("pä:ss"))
        assert PlainCredentials("u", "").response() == b"\0u\0"

    @given(user=texts.filter(bool), password=texts)
    def test_plain_can_be_taken_apart(self, user: str, password: str) -> None:
        """E-02: for any text the three parts are what was given."""
        assert PlainCredentials(user, password).response().split(b"\0") == [b"", user.encode(), password.encode()]

    @given(user=texts.filter(bool), password=texts)
    def test_amqplain(self, user: str, password: str) -> None:
        """E-09: a field table of LOGIN and PASSWORD without its length."""
        response = AMQPlainCredentials(user, password).response()
        whole = len(response).to_bytes(4, "big") + response
        assert decode_table(whole, 0, len(whole))[0] == {"LOGIN": user, "PASSWORD": password}

    def test_amqplain_octets(self) -> None:
        """E-09: the octets, as RabbitMQ wants them."""
        assert AMQPlainCredentials("u", "pw").response() == b"\x05LOGINS\0\0\0\x01u\x08PASSWORDS\0\0\0\x02pw"
        assert AMQPlainCredentials("u", "pw").mechanism == "AMQPLAIN"

    def test_external(self) -> None:
        """E-06: the identity is the certificate's, so the response is empty."""
        assert (ExternalCredentials().mechanism, ExternalCredentials().response()) == ("EXTERNAL", b"")

    def test_responses_are_not_shown(self) -> None:
        """C3.1: the octets go to the wire and not into a log."""
        for credentials in (PlainCredentials("u", "pw"), AMQPlainCredentials("u", "pw")):
            assert type(credentials.response()) is SecretBytes

    @pytest.mark.parametrize(
        "credentials", [PlainCredentials("u", "p"), AMQPlainCredentials("u", "p"), ExternalCredentials()]
    )
    def test_no_second_round(self, credentials: Credentials) -> None:
        """E-08, F41: a challenge to a mechanism that has no answer ends the login."""
        with pytest.raises(AuthenticationFailed, match=credentials.mechanism) as caught:
            credentials.respond(b"again?")
        assert caught.value.initiator == "client"

    @pytest.mark.parametrize("user", ["", "a\0b", "\ud800", None, 5, b"u"])
    def test_bad_user(self, user: Any) -> None:
        """E-01: a user name that cannot be sent is refused at once."""
        with pytest.raises(ConfigurationError, match="username"):
            PlainCredentials(user, "p")

    @pytest.mark.parametrize("password", ["a\0b", "\ud800", None, 5, b"p"])
    def test_bad_password(self, password: Any) -> None:
        """E-01: so is a password."""
        with pytest.raises(ConfigurationError, match="password"):
            PlainCredentials("u", password)

    def test_equality(self) -> None:
        """B-20: by class, user and password."""
        assert PlainCredentials("u", "p") == PlainCredentials("u", Secret("p"))
        assert PlainCredentials("u", "p") != PlainCredentials("u", "q")
        assert PlainCredentials("u", "p") != PlainCredentials("v", "p")
        assert PlainCredentials("u", "p") != AMQPlainCredentials("u", "p")
        assert ExternalCredentials() == ExternalCredentials()
        assert ExternalCredentials() != PlainCredentials("u", "p")
        assert len({PlainCredentials("u", "p"), PlainCredentials("u", "p"), ExternalCredentials()}) == 2


class TestChoice:
    def test_whole_words(self) -> None:
        """E-03: PLAIN is not found inside AMQPLAIN."""
        assert choose(PlainCredentials("u", "p"), "AMQPLAIN PLAIN") == ("PLAIN", b"\0u\0p")
        for offered in ("AMQPLAIN", "PLAINER", "XPLAIN", "plain", "", "AMQPLAIN,PLAIN"):
            with pytest.raises(NoCommonMechanism):
                choose(PlainCredentials("u", "p"), offered)

    def test_no_common_mechanism(self) -> None:
        """E-04, F40: it names both sides, and no secret was made."""

        class Watched(PlainCredentials):
            def response(self) -> SecretBytes:
                raise AssertionError("asked for the secret")

        with pytest.raises(NoCommonMechanism) as caught:
            choose(Watched("u", "p"), "EXTERNAL GSSAPI")
        assert "'EXTERNAL GSSAPI'" in str(caught.value)
        assert "PLAIN" in str(caught.value)
        assert isinstance(caught.value, AuthenticationFailed)
        assert not caught.value.recoverable
        with pytest.raises(ConfigurationError):
            choose(Watched("u", "p"), host="broker.example")

    def test_the_brokers_list_is_not_trusted(self) -> None:
        """C3.3: what the broker offers is cut and made printable in the error."""
        with pytest.raises(NoCommonMechanism) as caught:
            choose(PlainCredentials("u", "p"), "\x1b[31m\n" + "X" * 100_000)
        assert "\x1b" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        ("is_tls", "has_certificate", "host", "allow"),
        list(
            itertools.product(*[[False, True]] * 2, ["localhost", "127.0.0.1", "::1", "broker.example"], [False, True])
        ),
    )
    def test_matrix(self, is_tls: bool, has_certificate: bool, host: str, allow: bool) -> None:
        """C1.8: EXTERNAL only over TLS with a certificate; a password only over TLS, to this machine, or if allowed."""
        facts: dict[str, Any] = {
            "is_tls": is_tls,
            "has_client_certificate": has_certificate,
            "host": host,
            "allow_plaintext_auth": allow,
        }
        may_send_password = is_tls or host != "broker.example" or allow
        for credentials in (PlainCredentials("u", "p"), AMQPlainCredentials("u", "p"), Challenged()):
            offered = f"X {credentials.mechanism}"
            if may_send_password:
                assert choose(credentials, offered, **facts)[0] == credentials.mechanism
            else:
                with pytest.raises(ConfigurationError, match="allow_plaintext_auth=True"):
                    choose(credentials, offered, **facts)
        assert choose(Keyed(), "SCRAM-SHA-256", **facts) == ("SCRAM-SHA-256", b"user")
        if is_tls and has_certificate:
            assert choose(ExternalCredentials(), **facts) == ("EXTERNAL", b"")
        else:
            with pytest.raises(ConfigurationError, match="client certificate"):
                choose(ExternalCredentials(), **facts)

    def test_default_is_not_to_allow(self) -> None:
        """C1.8: nobody has to ask for the safe way."""
        with pytest.raises(ConfigurationError, match=r"broker\.example"):
            choose(PlainCredentials("u", "p"), host="broker.example")

    def test_own_mechanism(self) -> None:
        """E-07, E-08: any object of the right shape will do, and its answers are its own."""
        own = Challenged()
        assert isinstance(own, Credentials)
        assert choose(own, "PLAIN RABBIT-CR-DEMO") == ("RABBIT-CR-DEMO", b"user")
        assert own.respond(b"Please tell me your password") == b"My password is ..."

    @pytest.mark.parametrize("wrong", [None, ("u", "p"), "u:p", object(), PlainCredentials])
    def test_not_credentials(self, wrong: Any) -> None:
        """E-01: anything else is refused."""
        with pytest.raises(ConfigurationError, match="mechanism"):
            choose(wrong)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("LocalHost", True),
        ("localhost.", True),
        ("a.b.localhost", True),
        ("127.0.0.1", True),
        ("127.255.1.2", True),
        ("::1", True),
        ("::1%lo", True),
        ("::ffff:127.0.0.1", True),
        ("localhost.example", False),
        ("mylocalhost", False),
        ("127.0.0.1.example", False),
        ("128.0.0.1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("", False),
    ],
)
def test_is_loopback(host: str, expected: bool) -> None:
    """C2.1, C1.8: what counts as this machine."""
    assert is_loopback(host) is expected


@pytest.mark.parametrize(
    ("peer", "host", "expected"),
    [
        (UNIXAddress("/run/rabbitmq.sock"), "broker.example", "localhost"),
        (IPv4Address("TCP", "127.0.0.1", 5672), "broker.example", "localhost"),
        (IPv6Address("TCP", "::1", 5672), "broker.example", "localhost"),
        (IPv4Address("TCP", "10.0.0.9", 5672), "broker.example", "broker.example"),
        (IPv4Address("TCP", "10.0.0.9", 5672), "localhost", "10.0.0.9"),
        (IPv6Address("TCP", "2001:db8::1", 5672), "::1", "2001:db8::1"),
        (HostnameAddress(b"x", 1), "localhost", "localhost"),
    ],
)
def test_host_of_peer(peer: Any, host: str, expected: str) -> None:
    """C1.8: the other end of the stream counts, not what the parameters call it: a tunnel is local, a lie is not."""
    assert host_of_peer(peer, host) == expected

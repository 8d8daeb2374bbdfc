"""Logging in: the SASL mechanisms PLAIN, AMQPLAIN and EXTERNAL, and the choice among them.

A broker offers mechanisms in connection.start; the client names one in start-ok and sends its first response with it
(AMQP 0-9-1 sections 1.4.2.2 and 1.4.2.3; https://www.rabbitmq.com/docs/access-control#mechanisms).

Invariant (C1.8): nothing secret leaves before it is certain that the broker offers the mechanism and that the stream
may carry it: a password goes over TLS or to this very machine, anything else only if `allow_plaintext_auth=True`.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeGuard, runtime_checkable

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

from txmsg.amqp.secret import REDACTED, Secret, SecretBytes
from txmsg.errors import AuthenticationFailed, ConfigurationError, NoCommonMechanism, clip
from txmsg.wire.tables import encode_table

__all__ = [
    "AMQPlainCredentials",
    "Credentials",
    "CredentialsSource",
    "ExternalCredentials",
    "PlainCredentials",
    "choose_mechanism",
    "default_credentials",
    "host_of_peer",
    "is_credentials",
    "is_loopback",
    "may_cross_a_network",
    "plaintext_refusal",
]


@runtime_checkable
class Credentials(Protocol):
    """What a way to log in must have: write a class like this to add a mechanism of your own.

    `choose_mechanism` treats every mechanism but EXTERNAL as one that sends a secret in the clear.  A class whose
    mechanism does not (a challenge and a keyed answer, say) has an attribute `is_safe_in_plaintext = True`.
    """

    @property
    def mechanism(self) -> str:
        """The SASL name as the broker offers it, such as "PLAIN"."""

    def response(self) -> bytes:
        """Return what goes with start-ok; best as a :class:`txmsg.amqp.secret.SecretBytes`."""

    def respond(self, challenge: bytes) -> bytes | Awaitable[bytes]:
        """Answer one connection.secure challenge, at once or later; raise to give up."""


#: Credentials, or a callable that is asked for them anew at each connect (C2.2) and may answer later.
CredentialsSource = Credentials | Callable[[], Credentials | Awaitable[Credentials]]


class _NoChallenge:
    """The mechanisms that end with the first response."""

    __slots__ = ()
    mechanism: str

    def respond(self, challenge: bytes) -> bytes:
        """Refuse: the broker must not ask again."""
        raise AuthenticationFailed(
            f"the broker sent a challenge, but SASL {self.mechanism} has no answer to one", 0, initiator="client"
        )


class PlainCredentials(_NoChallenge):
    """A user name and a password, sent as PLAIN (RFC 4616): what RabbitMQ offers unless told otherwise.

    username: str -- not empty; the user's name in the broker.
    password: str or Secret -- may be empty; for OAuth 2 the token.

    ConfigurationError for what PLAIN cannot carry.  The password is not shown by repr().
    """

    __slots__ = ("_password", "_username")
    mechanism = "PLAIN"

    def __init__(self, username: str, password: str | Secret) -> None:
        problem = ""
        secret: Secret | None = None
        try:
            secret = Secret(password)
        except ConfigurationError as error:
            problem = f"password: {error}"
        del password  # the locals of a frame that raises can be printed (C3.1)
        problem = problem or _username_problem(username)
        if not problem and secret is not None and "\0" in secret.reveal():
            problem = "password: it must not hold a NUL character"
        if problem or secret is None:
            raise ConfigurationError(problem)
        self._username = username
        self._password = secret

    @property
    def username(self) -> str:
        """The user's name."""
        return self._username

    @property
    def password(self) -> Secret:
        """The password, as a Secret."""
        return self._password

    def response(self) -> SecretBytes:
        """Return NUL user NUL password, in UTF-8."""
        return SecretBytes(b"\0%b\0%b" % (self._username.encode("utf-8"), self._password.reveal_bytes()))

    def __repr__(self) -> str:
        user = getattr(self, "_username", "")  # "": shown half-made, in a traceback
        return f"{type(self).__name__}({clip(user)!r}, {REDACTED})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PlainCredentials):
            return NotImplemented
        same_user = self.mechanism == other.mechanism and self._username == other._username
        return self._password == other._password and same_user

    def __hash__(self) -> int:
        return hash((self.mechanism, self._username, self._password))


class AMQPlainCredentials(PlainCredentials):
    """A user name and a password, sent as AMQPLAIN: RabbitMQ's older form, a field table (same arguments)."""

    __slots__ = ()
    mechanism = "AMQPLAIN"

    def response(self) -> SecretBytes:
        """Return the table {LOGIN, PASSWORD} without its length."""
        return SecretBytes(encode_table({"LOGIN": self._username, "PASSWORD": self._password.reveal()})[4:])


class ExternalCredentials(_NoChallenge):
    """No secret of ours: the broker takes the user from the client certificate of the TLS connection (EXTERNAL).

    Needs RabbitMQ's plug-in rabbitmq_auth_mechanism_ssl, and TLSOptions with a client certificate.
    """

    __slots__ = ()
    mechanism = "EXTERNAL"
    is_safe_in_plaintext = True

    def response(self) -> bytes:
        """Return nothing: the certificate has said it."""
        return b""

    def __repr__(self) -> str:
        return "ExternalCredentials()"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) or NotImplemented

    def __hash__(self) -> int:
        return hash(type(self))


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine: "localhost", a name below it (RFC 6761), or a loopback address."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def choose_mechanism(
    credentials: Credentials,
    offered: str,
    *,
    is_tls: bool,
    has_client_certificate: bool,
    host: str,
    allow_plaintext_auth: bool = False,
) -> tuple[str, bytes]:
    """Return (mechanism, first response), or raise before anything secret is made.

    offered: the broker's list, names with spaces between; they are compared whole, so AMQPLAIN is no PLAIN (E-03).
    is_tls, has_client_certificate: of the stream.
    host: whom it goes to; a unix socket counts as "localhost".

    NoCommonMechanism when the broker does not offer it.  ConfigurationError when the stream may not carry it: EXTERNAL
    without TLS and a client certificate; any other mechanism without TLS to another machine, unless
    `allow_plaintext_auth` (C1.8).
    """
    if not is_credentials(credentials):
        raise ConfigurationError(
            "credentials must have mechanism, response() and respond(), as PlainCredentials has; "
            f"{type(credentials).__name__} has not"
        )
    mechanism = credentials.mechanism
    if mechanism not in offered.split():
        raise NoCommonMechanism(
            f"the broker offers the SASL mechanisms {clip(offered, 100)!r}, and the credentials need {mechanism}",
            0,
            initiator="client",
        )
    if mechanism == "EXTERNAL" and not (is_tls and has_client_certificate):
        raise ConfigurationError(
            "ExternalCredentials need TLS with a client certificate: TLSOptions(cert_file=..., key_file=...)"
        )
    if not (is_tls or allow_plaintext_auth or is_loopback(host) or may_cross_a_network(credentials)):
        raise ConfigurationError(plaintext_refusal(host))
    return mechanism, credentials.response()


def may_cross_a_network(credentials: object) -> bool:
    """Say whether these may go without TLS: no secret is sent, or they are a callable whose answer will tell."""
    if is_credentials(credentials):
        return getattr(credentials, "is_safe_in_plaintext", False) is True
    return callable(credentials)


def is_credentials(value: object) -> TypeGuard[Credentials]:
    """Say whether `value` has what :class:`Credentials` asks for, and is no class that only makes them."""
    return isinstance(value, Credentials) and not isinstance(value, type)


def host_of_peer(peer: IAddress, host: str) -> str:
    """Return whom a stream really goes to, for `choose_mechanism`: "localhost" for a unix socket or a loopback address.

    Through an endpoint of the user's own, `host` can be anything: if it says "this machine" and the stream's other end
    does not, the address of the other end counts.
    """
    if isinstance(peer, UNIXAddress):
        return "localhost"
    if isinstance(peer, IPv4Address | IPv6Address):
        if is_loopback(peer.host):
            return "localhost"
        return peer.host if is_loopback(host) else host
    return host


def plaintext_refusal(host: str) -> str:
    """Return the text of the error for a password that would cross a network in the clear."""
    return (
        f"refusing to send the password to {clip(host)!r} without TLS: use amqps:// (TLSOptions), "
        "or allow_plaintext_auth=True if every machine on the way may read it"
    )


def default_credentials(host: str) -> PlainCredentials:
    """Return guest/guest for this machine (C2.1); ConfigurationError for any other."""
    if not is_loopback(host):
        raise ConfigurationError(
            f"no credentials for {clip(host)!r}: the default user guest is for this machine only; "
            "give credentials=PlainCredentials(user, password), or user:password@ in the URL"
        )
    return PlainCredentials("guest", "guest")


def _username_problem(username: Any) -> str:
    """Return what is wrong with a user name, "" for nothing."""
    if not isinstance(username, str):
        return f"username must be a str, not {type(username).__name__}"
    if not username or "\0" in username:
        return "username must not be empty nor hold a NUL character"
    try:
        username.encode("utf-8")
    except UnicodeEncodeError:
        return "username must be valid Unicode"
    return ""

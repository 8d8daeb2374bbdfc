"""What a connection is asked to be: every setting of a client connection, checked when it is made.

Invariants: a ConnectionParameters never changes, also not by what the broker answers: requested and negotiated values
are kept apart, so one object serves any number of connections (B-21).  It shows no secret.  What cannot be used is a
ConfigurationError that names the parameter, what was given and what is allowed.

Ranges: AMQP 0-9-1 sections 1.4.2.5 (tune) and 4.2.5; https://www.rabbitmq.com/docs/networking
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, maybeDeferred

from txmsg.amqp import uri
from txmsg.amqp.sasl import Credentials, CredentialsSource, default_credentials, is_credentials
from txmsg.amqp.secret import REDACTED, Secret
from txmsg.amqp.tls import TLSOptions
from txmsg.amqp.validation import flag, host_name, integer, nearest, refuse_unknown, seconds, shown, text, unchangeable
from txmsg.errors import ConfigurationError

__all__ = ["TCP_OPTIONS", "ConnectionParameters"]

#: The names that `tcp_options` may have (B-16).
TCP_OPTIONS = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")

_PORTS = {False: 5672, True: 5671}
_MIB = 1024 * 1024
_NO_LIMIT = 2**63 - 1


@unchangeable
@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionParameters:
    """All settings of a connection; keyword-only, checked at once, never changed.  Times are in seconds.

    Where to: `host` (name or IP address; default "localhost"), `port` (default 5672, with TLS 5671),
    `virtual_host` (default "/").
    Who: `credentials`, or a callable that returns them (or a Deferred or awaitable of them) and is asked anew at each
    connect; None: guest/guest, for a host that is this machine only.  `allow_plaintext_auth`: let a password cross a
    network without TLS (default False).
    TLS: `tls`, a TLSOptions; None: plain TCP.

    Proposed to the broker, which may want less: `channel_max` (1 to 65535, default 2047), `frame_max` (4096 to 131072
    bytes, default 131072), `heartbeat` (0 to 65535 s, 0 for none; None, the default: what the broker proposes; or a
    callable from the broker's proposal to the value).
    Told to the broker: `locale` ("en_US"), `client_properties` (a dict laid over ours key by key; a copy is kept),
    `connection_name` (shown by its management tools).

    Time limits: `connect_timeout` (name lookup and TCP, 10), `handshake_timeout` (TLS, and again the AMQP handshake,
    10), `stack_timeout` (all of that together, in `connect()`, 15), `operation_timeout` (a channel method's reply, 30),
    `confirm_timeout` (30), `close_timeout` (10), `blocked_connection_timeout` (how long the broker may block us; 0 not
    at all).  None is "no limit" for connect_, stack_, operation_, confirm_ and blocked_connection_timeout, and the
    default of the last.
    First connect: `connection_attempts` (1) with `retry_delay` (2) between them, in `connect()`.

    Bounds: `max_message_size` (bytes of a message we take, 16 MiB), `outbox_max_messages` (100,000) and
    `outbox_max_bytes` (64 MiB, where each counts 1.5 KiB more) for publishes that wait, `default_prefetch_count` (200;
    0: no limit), and `read_high_water_messages` (2,000) and `read_high_water_bytes` (16 MiB): more pauses reading.
    Sockets: `tcp_options`, a dict of TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT (s, s, number) and TCP_USER_TIMEOUT (ms);
    what the platform does not have is left out.

    ConfigurationError for anything else, with the nearest name for an unknown parameter.
    """

    host: str = "localhost"
    port: int = None  # type: ignore[assignment]  # None becomes the scheme's port; read, it is a number
    virtual_host: str = "/"
    credentials: CredentialsSource | None = None
    tls: TLSOptions | None = None
    channel_max: int = 2047
    frame_max: int = 131072
    heartbeat: int | Callable[[int], int] | None = None
    locale: str = "en_US"
    client_properties: Mapping[str, Any] | None = field(default=None, hash=False)
    connection_name: str | None = None
    connect_timeout: float | None = 10.0
    handshake_timeout: float = 10.0
    stack_timeout: float | None = 15.0
    operation_timeout: float | None = 30.0
    confirm_timeout: float | None = 30.0
    close_timeout: float = 10.0
    blocked_connection_timeout: float | None = None
    connection_attempts: int = 1
    retry_delay: float = 2.0
    max_message_size: int = 16 * _MIB
    outbox_max_messages: int = 100_000
    outbox_max_bytes: int = 64 * _MIB
    default_prefetch_count: int = 200
    read_high_water_messages: int = 2000
    read_high_water_bytes: int = 16 * _MIB
    allow_plaintext_auth: bool = False
    tcp_options: Mapping[str, int] | None = field(default=None, hash=False)

    def __new__(cls, *args: Any, **parameters: Any) -> ConnectionParameters:
        """Refuse a misspelt name with the nearest right one; the values may be secret, so they are gone before."""
        names = list(parameters)
        is_url = bool(args) or any(sign in str(parameters.get("host")) for sign in ("://", "@"))
        del args, parameters
        if is_url:
            raise ConfigurationError("ConnectionParameters takes keywords; for a URL there is from_url(url)")
        refuse_unknown(cls.__name__, names, cls.__slots__)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        host_name("host", self.host)
        text("virtual_host", self.virtual_host, empty=True)
        text("locale", self.locale)
        if self.connection_name is not None:
            text("connection_name", self.connection_name)
        if self.tls is not None and not isinstance(self.tls, TLSOptions):
            raise ConfigurationError(f"tls must be a TLSOptions (tls=TLSOptions()) or None, not {shown(self.tls)}")
        self._check_credentials()
        self._check_numbers()
        self._set("client_properties", _properties(self.client_properties))
        self._set("tcp_options", _tcp_options(self.tcp_options))

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_credentials(self) -> None:
        flag("allow_plaintext_auth", self.allow_plaintext_auth)
        if self.credentials is None:
            default_credentials(self.host)
        elif not is_credentials(self.credentials) and not callable(self.credentials):
            raise ConfigurationError(  # not shown: it may be a (user, password) pair
                "credentials must be PlainCredentials(user, password) or the like, or a callable that returns them, "
                f"not {type(self.credentials).__name__}"
            )

    def _check_numbers(self) -> None:
        port = _PORTS[self.tls is not None] if self.port is None else self.port
        self._set("port", integer("port", port, 1, 65535))
        integer("channel_max", self.channel_max, 1, 65535)
        integer("frame_max", self.frame_max, 4096, 131072)
        if self.heartbeat is not None and not callable(self.heartbeat):
            integer("heartbeat", self.heartbeat, 0, 65535)
        for name in ("handshake_timeout", "close_timeout"):
            self._set(name, seconds(name, getattr(self, name)))
        for name in ("connect_timeout", "stack_timeout", "operation_timeout", "confirm_timeout"):
            if getattr(self, name) is not None:
                self._set(name, seconds(name, getattr(self, name)))
        if self.blocked_connection_timeout is not None:
            limit = seconds("blocked_connection_timeout", self.blocked_connection_timeout, zero=True)
            self._set("blocked_connection_timeout", limit)
        integer("connection_attempts", self.connection_attempts, 1, 1_000_000)
        self._set("retry_delay", seconds("retry_delay", self.retry_delay, zero=True))
        integer("default_prefetch_count", self.default_prefetch_count, 0, 65535)
        for name in (
            "max_message_size",
            "outbox_max_messages",
            "outbox_max_bytes",
            "read_high_water_messages",
            "read_high_water_bytes",
        ):
            integer(name, getattr(self, name), 1, _NO_LIMIT)

    @classmethod
    def from_url(cls, url: str | Secret, **overrides: Any) -> ConnectionParameters:
        """Return the parameters that an amqp:// or amqps:// URL describes (see `txmsg.amqp.uri`).

        overrides: parameters that are not taken from the URL, such as tls or client_properties; they win.
        ConfigurationError, without a trace of the password, for a URL that cannot be used.
        """
        found = uri.parse(url)
        del url  # the locals of a frame that raises can be printed (C3.1)
        if isinstance(found, ConfigurationError):
            raise found
        if "tls" in overrides and "tls" in found and overrides["tls"] is None:
            raise ConfigurationError("the URL says amqps://, so tls must not be None")
        return cls(**(found | overrides))

    def replace(self, **changes: Any) -> ConnectionParameters:
        """Return a copy with some parameters changed; a port that was the default follows `tls`."""
        if "tls" in changes and "port" not in changes and self.port == _PORTS[self.tls is not None]:
            changes["port"] = None
        names = list(changes)
        if not set(names) <= set(self.__slots__):
            del changes
            refuse_unknown(type(self).__name__, names, self.__slots__)
        return type(self)(**({f.name: getattr(self, f.name) for f in dataclasses.fields(self)} | changes))

    def get_credentials(self) -> Deferred[Credentials]:
        """Ask for the credentials of one connect: a Deferred, because a callable may need time (C2.2).

        guest/guest when none were given; ConfigurationError if a callable returns something else.
        """
        source = self.credentials
        if source is None:
            return maybeDeferred(default_credentials, self.host)
        if is_credentials(source):
            return maybeDeferred(lambda: source)
        assert callable(source)
        asked: Deferred[Any] = maybeDeferred(_ask, source)
        return asked.addCallback(_checked)

    def as_url(self) -> str:
        """Return scheme, user, host, port and virtual host as a URL for people to read; the password is `***`.

        The empty virtual host is shown as a bare slash, as in RabbitMQ's URI specification; "/" is "%2F".
        """
        user = getattr(self.credentials, "username", None)
        who = f"{_quoted(user)}:{REDACTED}@" if isinstance(user, str) else ""
        host = str(self.host)
        where = f"[{host}]" if ":" in host else _quoted(host)
        scheme = "amqp" if self.tls is None else "amqps"
        return f"{scheme}://{who}{where}:{self.port}/{_quoted(self.virtual_host)}"

    def __repr__(self) -> str:
        """Return the URL and what differs from the defaults, without secrets."""
        hidden = {"host", "port", "virtual_host", "credentials", "client_properties"}
        others = "".join(
            f", {f.name}={getattr(self, f.name)!r}"
            for f in dataclasses.fields(self)
            if f.name not in hidden and getattr(self, f.name) != f.default
        )
        return f"<ConnectionParameters {self.as_url()}{others}>"


def _quoted(value: object) -> str:
    """Percent-encode whatever it is: a refused object is shown too, in a traceback."""
    return quote(str(value), safe="", errors="replace")


def _ask(source: Callable[[], Credentials | Awaitable[Credentials]]) -> Any:
    """Call a source of credentials; an awaitable becomes a Deferred."""
    answer = source()
    if isinstance(answer, Awaitable) and not isinstance(answer, Deferred):

        async def wait() -> Credentials:
            return await answer

        return Deferred.fromCoroutine(wait())
    return answer


def _checked(credentials: object) -> Credentials:
    if not is_credentials(credentials):
        raise ConfigurationError(
            f"the credentials callable must return PlainCredentials(...) or the like, not {type(credentials).__name__}"
        )
    return credentials


def _properties(given: object) -> dict[str, Any] | None:
    """Return our own copy of client_properties."""
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"client_properties must be a dict or None, not {type(given).__name__}")
    for key in given:
        text("client_properties: each key", key, empty=True)
    return copy.deepcopy(dict(given))


def _tcp_options(given: object) -> dict[str, int] | None:
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"tcp_options must be a dict or None, not {shown(given)}")
    for key, value in given.items():
        if key not in TCP_OPTIONS:
            raise ConfigurationError(
                f"tcp_options has no {shown(key)}{nearest(str(key), TCP_OPTIONS)}; there are {', '.join(TCP_OPTIONS)}"
            )
        integer(f"tcp_options[{key!r}]", value, 0, 2**31 - 1)
    return dict(given)

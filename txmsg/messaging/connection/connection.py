"""Connection: where a broker is and how to talk to it, as a cheap object that connects when it is needed.

What it is made of: `url` (URLs taken apart), `settings` (URL, keywords and defaults together), `failover` (which URL is
next), `connecting` (the life of the connection itself), `ensuring` (trying again), `capabilities` and `shortcuts`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from txmsg.abc import MessagingTransport
from txmsg.errors import ConfigurationError, ConnectionClosed
from txmsg.messaging.connection.failover import Failover, FailoverStrategy
from txmsg.messaging.connection.failures import (
    channel_errors,
    connection_errors,
    recoverable_channel_errors,
    recoverable_connection_errors,
)
from txmsg.messaging.connection.hidden import MASK, HiddenText
from txmsg.messaging.connection.settings import (
    BrokerSettings,
    retry_options,
    scheme_for,
    transport_options,
    transport_url,
)
from txmsg.messaging.connection.shortcuts import Shortcuts
from txmsg.messaging.connection.url import BrokerURL, host_and_port, parse_url, split_urls
from txmsg.messaging.entities.declaring import DeclarationCache
from txmsg.transports.registry import transport_for

if TYPE_CHECKING:
    from typing import Self

__all__ = ["BrokerConnection", "Connection"]


class Connection(Shortcuts):
    """A way to a broker.  Nothing is opened before it is needed, or `connect()` is called.

    hostname: a URL (``amqp://user:password@host:port/vhost?heartbeat=10``), several with ``;`` between them or in a
        list, or the name of a host, "localhost".
    userid, password, virtual_host, port: for what the URL does not say.
    ssl: True, or a mapping with ca_certs, certfile, keyfile, server_hostname; or what the transport takes as its
        option "tls" (`txmsg.amqp.TLSOptions`).  The server's certificate is verified, always.
    transport: the transport where the URL names none: "amqp" (the default), "memory", an alias, "package.module:Class",
        a class or an object.
    connect_timeout: seconds until one attempt must have succeeded, with TLS and login; None: no limit.
    transport_options: settings of the transport that are in no URL, and max_retries, interval_start, interval_step,
        interval_max for connecting.
    login_method: the SASL mechanism: "PLAIN", "AMQPLAIN", "EXTERNAL"; None: as the transport has it.
    uri_prefix: is put before the scheme, with a "+".
    heartbeat: seconds, rounded up to whole ones; 0: none; None: as the transport has it (amqp: what the broker wants).
    failover_strategy, alternates: see :mod:`txmsg.messaging.connection.failover`; more URLs.
    insist: not used: a relic of AMQP 0-8.
    reactor: None takes the installed one.   name: of the connection, in logs.

    ConfigurationError for what cannot be used, with the nearest right name; it shows no URL.
    """

    connection_errors = connection_errors
    channel_errors = channel_errors
    recoverable_connection_errors = recoverable_connection_errors
    recoverable_channel_errors = recoverable_channel_errors

    def __init__(
        self,
        hostname: str | Iterable[str] | None = "localhost",
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        port: int | None = None,
        insist: bool = False,
        ssl: Any = False,
        transport: Any = None,
        connect_timeout: float | None = 5,
        transport_options: Mapping[str, Any] | None = None,
        login_method: str | None = None,
        uri_prefix: str | None = None,
        heartbeat: float | None = None,
        failover_strategy: FailoverStrategy = "round-robin",
        alternates: str | Iterable[str] | None = None,
        *,
        reactor: Any = None,
        name: str = "",
    ) -> None:
        super().__init__(reactor)
        urls = split_urls(hostname or "localhost") + (split_urls(alternates) if alternates else [])
        del hostname, alternates
        self.name = name
        if transport_options is not None and not isinstance(transport_options, Mapping):
            problem = f"transport_options are a mapping, not {type(transport_options).__name__}"
        elif password is not None and not isinstance(password, str):
            problem = f"password is a str, not {type(password).__name__}"
        else:
            problem = ""
        if problem:
            del password, urls, ssl, transport_options  # the locals of a frame that raises can be printed
            raise ConfigurationError(problem)
        self.transport_options: dict[str, Any] = dict(transport_options or {})
        self.uri_prefix = uri_prefix
        self.failover_strategy = failover_strategy
        self._given_transport = transport
        self._keywords: dict[str, Any] = {
            "userid": userid,
            "password": None if password is None else HiddenText(password),
            "virtual_host": virtual_host,
            "port": port,
            "ssl": ssl,
            "connect_timeout": connect_timeout,
            "heartbeat": heartbeat,
            "login_method": login_method,
        }
        del password, ssl, transport_options
        #: What was declared over this connection.
        self.declared_entities = DeclarationCache()
        self._known: dict[str, tuple[BrokerSettings, MessagingTransport]] = {}
        self._failover = Failover(urls, failover_strategy)
        #: The URLs that the transport was given, for it to come back at.
        self._offered: list[HiddenText] = []
        for url in urls:
            self._check(url)

    # -- where to ----------------------------------------------------------------------------------

    def _check(self, text: HiddenText) -> tuple[BrokerSettings, MessagingTransport]:
        """What a URL means, and its transport; every mistake in it is found here."""
        found = self._known.get(text)
        if found is not None:
            return found
        try:
            url, transport = self._read(text)
            settings = BrokerSettings.of(url, self._keywords)
            transport_url(settings, transport)
        except ConfigurationError as error:
            problem = str(error)
        else:
            self._known[text] = (settings, transport)
            return settings, transport
        raise ConfigurationError(problem)  # anew: the frames of the other one hold the parts of the URL

    def _read(self, text: HiddenText) -> tuple[BrokerURL, MessagingTransport]:
        if "://" in text:
            url = parse_url(text)
            if self.uri_prefix and not url.scheme.startswith(f"{self.uri_prefix}+"):
                url = parse_url(HiddenText(f"{self.uri_prefix}+{text}"))
            return url, transport_for(f"{url.scheme}://")
        transport = transport_for(self._given_transport or "amqp")
        given = self._given_transport
        scheme = (
            given.lower() if isinstance(given, str) and given.lower() in transport.schemes else transport.schemes[0]
        )
        if text.count(":") > 1 and not text.startswith("["):
            return BrokerURL(scheme, hostname=str.__str__(text)), transport  # an IPv6 address
        host, port = host_and_port(text)
        return BrokerURL(scheme, hostname=host, port=port), transport

    @property
    def settings(self) -> BrokerSettings:
        """What is said of the present URL."""
        return self._check(self._failover.present)[0]

    @property
    def transport(self) -> MessagingTransport:
        """What the scheme of the present URL selects."""
        return self._check(self._failover.present)[1]

    def transport_urls(self) -> Sequence[str]:
        """The present URL for the transport, with everything in it, and those of the same transport behind it."""
        transport = self.transport
        present = self._failover.present  # which a strategy of the application's may have from elsewhere
        others = (url for url in self._failover.urls if url != present)
        self._offered = [present, *(url for url in others if self._check(url)[1] is transport)]
        return [transport_url(*self._check(url)) for url in self._offered]

    def is_at(self, number: int) -> None:
        """The connection has come back at the URL with this number, of those that `transport_urls` gave for it: that is
        the present one from now on."""
        if 0 <= number < len(self._offered):
            self._failover.present = self._offered[number]

    def transport_settings(self) -> Mapping[str, Any]:
        """The options for the transport."""
        return transport_options(self.settings, self.transport_options)

    def retry_settings(self) -> Mapping[str, Any]:
        """The retry policy among the transport options."""
        return retry_options(self.transport_options)

    def connect_limit(self) -> float | None:
        """Seconds that one attempt may take."""
        return self.settings.connect_timeout

    def host_count(self) -> int:
        """How many URLs it can connect to."""
        return len(self._failover.urls)

    def forget_declared(self) -> None:
        """What was declared may be gone."""
        self.declared_entities.clear()

    # -- other hosts -------------------------------------------------------------------------------

    @property
    def alternates(self) -> list[str]:
        """All URLs, the first included, without their passwords."""
        return [self._check(url)[0].url.as_uri() for url in self._failover.urls]

    def maybe_switch_next(self) -> None:
        """Let the next attempt go to the next URL; of no effect where there is one only, and while the connection is
        one that comes back by itself: that knows the others."""
        if not self.is_recovering:
            self._failover.next()

    def completes_cycle(self, retries: int) -> bool:
        """Whether all URLs have had their turn when that many retries have failed."""
        return self._failover.completes_cycle(retries)

    def switch(self, url: str | Iterable[str]) -> Deferred[None]:
        """Point it at another URL, or another list of them: closes it, and does not connect.

        One of its own URLs becomes the present one, and the list stays.  Fires when it is closed.
        """
        urls = split_urls(url)
        del url
        if len(urls) == 1 and urls[0] in self._failover.urls:
            self._failover.present = urls[0]
        else:
            failover = Failover(urls, self.failover_strategy)
            for other in urls:
                self._check(other)
            self._failover = failover
        self._is_closed = False
        return self.end(ConnectionClosed("the connection was pointed elsewhere", 200, initiator="client"))

    # -- what it says of itself --------------------------------------------------------------------

    def _default(self, name: str) -> Any:
        return getattr(self.transport, "url_defaults", {}).get(name)

    @property
    def hostname(self) -> str | None:
        """Of the present URL; the transport's default where it names none."""
        return self.settings.url.hostname or self._default("hostname")

    @property
    def port(self) -> int | None:
        """Of the present URL; else the default of its scheme, None where there are no ports."""
        settings, transport = self._check(self._failover.present)
        return settings.url.port or transport.default_ports.get(scheme_for(settings, transport))

    @property
    def host(self) -> str:
        """hostname:port."""
        name = self.hostname or ""
        where = f"[{name}]" if ":" in name else name
        return where if self.port is None else f"{where}:{self.port}"

    @property
    def userid(self) -> str | None:
        """The user; None where none is named: then it is as the transport has it."""
        return self.settings.url.userid

    @property
    def password(self) -> str | None:
        """The password: a str whose `repr()` does not show it."""
        return self.settings.url.password

    @property
    def virtual_host(self) -> str:
        """The virtual host; "/" where none is named."""
        named = self.settings.url.virtual_host
        return (self._default("virtual_host") or "/") if named is None else named

    @property
    def ssl(self) -> Any:
        """What was given for TLS; True where the scheme says it, False without TLS."""
        settings, transport = self._check(self._failover.present)
        if settings.ssl:
            return settings.ssl
        scheme = scheme_for(settings, transport)
        return scheme.endswith("s") and scheme[:-1] in transport.schemes

    @property
    def login_method(self) -> str | None:
        """The SASL mechanism; None: as the transport has it."""
        return self.settings.login_method

    @property
    def connect_timeout(self) -> float | None:
        """Seconds that one attempt may take; None: no limit."""
        return self.settings.connect_timeout

    @property
    def heartbeat(self) -> float | None:
        """Seconds between heartbeats as asked for; see `get_heartbeat_interval`."""
        return self.settings.heartbeat

    def as_uri(self, include_password: bool = False, mask: str = MASK) -> str:
        """The present URL, with the defaults of the transport, and `mask` for the password.

        include_password: with the password and everything else, to connect with.
        """
        url = self.settings.url
        userid, password = url.userid, url.password
        if userid is None and password is None:
            userid, password = self._default("userid"), self._default("password")
        whole = replace(
            url,
            hostname=self.hostname,
            port=self.port,
            userid=userid,
            password=None if password is None else HiddenText(password),
            virtual_host=self._default("virtual_host") if url.virtual_host is None else url.virtual_host,
        )
        return whole.as_uri(include_password, mask)

    def info(self) -> dict[str, Any]:
        """All settings, with the defaults of the transport, as what JSON can hold.  The password is masked."""
        ssl = self.ssl
        return {
            "hostname": self.hostname,
            "userid": self.userid or self._default("userid"),
            "password": None if self.password is None and self._default("password") is None else MASK,
            "virtual_host": self.virtual_host,
            "port": self.port,
            "ssl": dict(ssl) if isinstance(ssl, Mapping) else bool(ssl),
            "transport": self.settings.url.scheme,
            "connect_timeout": self.connect_timeout,
            "transport_options": {key: _plain(value) for key, value in self.transport_options.items()},
            "login_method": self.login_method,
            "uri_prefix": self.uri_prefix,
            "heartbeat": self.heartbeat,
            "failover_strategy": _plain(self.failover_strategy),
            "alternates": self.alternates,
        }

    def eqhash(self) -> Hashable:
        """Equal for connections that were made with the same settings; the name does not count."""
        values = [*self._failover.urls, *sorted(self._arguments().items(), key=lambda item: item[0])]
        return tuple(HiddenText(value if isinstance(value, str) else _key(value)) for value in values)

    def _arguments(self) -> dict[str, Any]:
        return {
            **self._keywords,
            "transport": self._given_transport,
            "transport_options": self.transport_options,
            "uri_prefix": self.uri_prefix,
            "failover_strategy": self.failover_strategy,
            "reactor": self._reactor,
        }

    # -- others like it ----------------------------------------------------------------------------

    def clone(self, **changes: Any) -> Self:
        """Another connection, not connected, with the same settings, but for `changes`: arguments of the class."""
        urls = list(self._failover.urls)
        urls.sort(key=lambda url: url != self._failover.present)
        return type(self)(**{"hostname": urls, "name": self.name, **self._arguments(), **changes})

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled are the settings, the password too, but neither the reactor nor what is open."""
        arguments = {**self._arguments(), "hostname": [str(url) for url in self._failover.urls], "name": self.name}
        del arguments["reactor"]
        return (_remake, (type(self), arguments))

    def __repr__(self) -> str:
        failover = getattr(self, "_failover", None)
        if failover is None:
            return f"<Connection (not made) at {id(self):#x}>"  # among the locals of a constructor that raises
        name = f" {self.name!r}" if self.name else ""
        known = self._known.get(failover.present)
        return f"<Connection{name} {known[0].url if known else '(not known)'} at {id(self):#x}>"


#: The name it had in carrot, and in the first versions of Kombu.
BrokerConnection = Connection


def _remake(cls: Callable[..., Connection], arguments: dict[str, Any]) -> Connection:
    return cls(**arguments)


def _plain(value: object) -> Any:
    """Something that JSON can hold, in place of any object."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return type(value).__name__


def _key(value: object) -> str:
    """The same text for equal settings; other objects are equal to themselves only."""
    if isinstance(value, tuple):
        return f"({', '.join(_key(each) for each in value)})"
    if isinstance(value, list):
        return f"[{', '.join(_key(each) for each in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(sorted(f"{_key(key)}: {_key(each)}" for key, each in value.items())) + "}"
    if isinstance(value, str):
        return f"'{str.__str__(value)!s}'"
    if value is None or isinstance(value, (bool, int, float)):
        return repr(value)
    return f"<{type(value).__name__} {id(value):#x}>"

"""BrokerSettings: what a URL, keywords and defaults together say about one broker; and the URL a transport is given.

What the URL says wins over a keyword, a keyword over the transport's own default.  There is no other default: a
transport that has no users is not given one called guest.

The transport gets everything in one URL, in its own scheme, each part percent-encoded.  TLS is the scheme with the "s"
(amqps); the rest is written as RabbitMQ's URI query parameters are: heartbeat, cacertfile, certfile, keyfile,
server_name_indication (https://www.rabbitmq.com/docs/uri-query-parameters), and connect_timeout and stack_timeout in
seconds.  What a URL cannot say are options: `virtual_host`, `login_method` and `tls`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from txmsg.abc import MessagingTransport
from txmsg.errors import ConfigurationError, clip
from txmsg.messaging.connection.hidden import HiddenText
from txmsg.messaging.connection.url import BrokerURL

__all__ = [
    "BrokerSettings",
    "retry_options",
    "scheme_for",
    "tls_options",
    "transport_options",
    "transport_url",
    "url_options",
]

#: The options of a URL that are read here: name -> how; those of Kombu, and of pika where they are the same thing.
_OWN: Final = ("connect_timeout", "heartbeat", "login_method", "ssl")
_RETRY: Final = frozenset({"max_retries", "interval_start", "interval_step", "interval_max", "timeout"})

#: AMQP has 16 bits for it.
_MAX_HEARTBEAT: Final = 65535

#: Keys of the `ssl` mapping (Python's and Kombu's words) -> query keys of the URL.
_TLS_KEYS: Final = {
    "ca_certs": "cacertfile",
    "cacertfile": "cacertfile",
    "certfile": "certfile",
    "keyfile": "keyfile",
    "server_hostname": "server_name_indication",
    "server_name_indication": "server_name_indication",
    "cert_reqs": "",
}

#: What is meant by requiring a certificate: ssl.CERT_REQUIRED and its spellings.
_REQUIRED: Final = ("2", "required", "cert_required", "verifymode.cert_required")


@dataclass(frozen=True)
class BrokerSettings:
    """How one broker is reached.

    url: BrokerURL -- with the keywords in it, without the options that are read here.
    heartbeat: float | None -- seconds, 0 for none; None: as the transport has it.
    connect_timeout: float | None -- seconds for everything until it is connected; None: no limit.
    login_method: str | None -- the SASL mechanism.
    ssl: bool, a mapping of files, or an object that only the transport knows.
    """

    url: BrokerURL
    heartbeat: float | None = None
    connect_timeout: float | None = 5.0
    login_method: str | None = None
    ssl: Any = field(default=False, repr=False)

    @classmethod
    def of(cls, url: BrokerURL, keywords: Mapping[str, Any]) -> BrokerSettings:
        """Lay a URL over the keywords of a Connection: hostname, userid, password, virtual_host, port, ssl,
        connect_timeout, heartbeat, login_method.  ConfigurationError for values that are none."""
        options = dict(url.options)
        own = {key: options.pop(key) for key in _OWN if key in options}
        files = {key[4:]: options.pop(key) for key in list(options) if key.startswith("ssl_")}
        password = url.password
        if password is None and (url.userid is None or keywords.get("userid") in (None, url.userid)):
            password = keywords.get("password")  # which belongs to the user of the keywords, not to another one
        merged = BrokerURL(
            scheme=url.scheme,
            hostname=url.hostname or keywords.get("hostname"),
            port=url.port or _port(keywords.get("port")),
            userid=url.userid or _text("userid", keywords.get("userid")),
            password=None if password is None else HiddenText(password),
            virtual_host=_text("virtual_host", keywords.get("virtual_host"))
            if url.virtual_host is None
            else url.virtual_host,
            options=options,
        )
        tls = _tls(keywords.get("ssl", False))
        if "ssl" in own:
            is_wanted = _flag("ssl", own["ssl"])
            tls = (tls or True) if is_wanted else False
        if files:
            tls = {**(tls if isinstance(tls, Mapping) else {}), **files}
        return cls(
            url=merged,
            heartbeat=_seconds("heartbeat", own.get("heartbeat", keywords.get("heartbeat"))),
            connect_timeout=_seconds("connect_timeout", own.get("connect_timeout", keywords.get("connect_timeout"))),
            login_method=own.get("login_method", keywords.get("login_method")),
            ssl=tls,
        )


def _flag(name: str, value: str) -> bool:
    text = value.lower()
    if text in ("1", "true", "yes", "on"):
        return True
    if text in ("0", "false", "no", "off", ""):
        return False
    raise ConfigurationError(f"{name} is true or false, not {clip(value, 40)!r}")


def _tls(value: Any) -> Any:
    """Flags as bool; what is more than a flag, as it is."""
    if isinstance(value, str):
        return _flag("ssl", value)
    if isinstance(value, int):
        return _flag("ssl", str(value))
    return value


def _text(name: str, value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise ConfigurationError(f"{name} is a str, not {type(value).__name__}")


def _port(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        value = int(value[:6])
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 65535:
        return value
    raise ConfigurationError("the port must be a number from 1 to 65535")


def _seconds(name: str, value: object) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            number = float(value)
        except ValueError:
            number = -1.0
        if math.isfinite(number) and number >= 0:
            return number
    raise ConfigurationError(f"{name} is a number of seconds, not {clip(repr(value), 40)}")


# -- for the transport ----------------------------------------------------------------------------


def scheme_for(settings: BrokerSettings, transport: MessagingTransport) -> str:
    """The scheme of the URL for the transport: its own name for an alias, with an "s" for TLS.

    ConfigurationError where TLS is asked of a transport that has none.
    """
    scheme, schemes = settings.url.scheme, transport.schemes
    if scheme not in schemes and "+" not in scheme:
        scheme = schemes[0]
    if settings.ssl is False or settings.ssl is None:
        return scheme
    if f"{scheme}s" in schemes:
        return f"{scheme}s"
    if scheme.endswith("s") and scheme[:-1] in schemes:
        return scheme
    raise ConfigurationError(f"{clip(scheme, 40)}:// has no TLS, but ssl is given")


def transport_url(settings: BrokerSettings, transport: MessagingTransport) -> HiddenText:
    """The URL that the transport is given.

    ConfigurationError for an option that the transport does not have, with the nearest that there is, and for a
    setting that it cannot be told.
    """
    url = settings.url
    known = url_options(transport)
    if known is not None:
        for key in url.options:
            if key not in known:
                raise ConfigurationError(_unknown(key, [*known, *_OWN]))
    scheme = scheme_for(settings, transport)
    options = {**_settings_options(settings, known), **url.options}
    options = {**tls_options(settings.ssl), **options}
    whole = BrokerURL(
        scheme=scheme,
        hostname=url.hostname,
        port=url.port,
        userid=url.userid,
        password=url.password,
        virtual_host=url.virtual_host or None,
        options=options,
    )
    return HiddenText(whole.as_uri(include_password=True))


def _settings_options(settings: BrokerSettings, known: frozenset[str] | None) -> dict[str, str]:
    options: dict[str, str] = {}
    if settings.login_method is not None and known is not None and "auth_mechanism" not in known:
        raise ConfigurationError(f"{settings.url.scheme}:// has no login methods")
    if settings.heartbeat is not None and settings.heartbeat > _MAX_HEARTBEAT:
        raise ConfigurationError(f"heartbeat can be {_MAX_HEARTBEAT} s at most")
    if settings.heartbeat is not None and (known is None or "heartbeat" in known):
        options["heartbeat"] = str(math.ceil(settings.heartbeat))
    if settings.connect_timeout and known is not None:
        for key in ("connect_timeout", "stack_timeout"):
            if key in known:
                options[key] = f"{settings.connect_timeout:.10g}"
    return options


def url_options(transport: MessagingTransport) -> frozenset[str] | None:
    """The query keys that the transport has; None: it does not say."""
    known = getattr(transport, "url_options", None)
    return None if known is None else frozenset(known)


def _unknown(key: str, known: list[str]) -> str:
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"there is no option {clip(key, 40)!r}{hint}"


def _are_in_url(ssl: object) -> bool:
    return isinstance(ssl, Mapping) and all(key in _TLS_KEYS for key in ssl)


def tls_options(ssl: object) -> dict[str, str]:
    """A mapping in the words of Python's `ssl` and of Kombu, as query options of a URL; none if it says more than that.

    ConfigurationError for `cert_reqs` that would not verify the server.
    """
    options: dict[str, str] = {}
    if not isinstance(ssl, Mapping):
        return options
    required = ssl.get("cert_reqs")
    if required is not None and str(getattr(required, "value", required)).lower() not in _REQUIRED:
        raise ConfigurationError(
            "cert_reqs: the server's certificate is always verified; name the CA that issued it with ca_certs"
        )
    for key, value in ssl.items() if _are_in_url(ssl) else ():
        if value is not None and _TLS_KEYS[key]:
            options[_TLS_KEYS[key]] = str(value)
    return options


def transport_options(settings: BrokerSettings, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options for the transport's `connect`: what is in no URL, without the names of the retry policy."""
    found = {key: value for key, value in options.items() if key not in _RETRY}
    if settings.url.virtual_host == "":
        found.setdefault("virtual_host", "")  # which in a URL would be none at all
    if settings.login_method is not None:
        found.setdefault("login_method", settings.login_method)
    if settings.ssl and settings.ssl is not True and not _are_in_url(settings.ssl):
        found.setdefault("tls", settings.ssl)
    return found


def retry_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The retry policy that is among the options of a transport; kombu B20."""
    return {key: value for key, value in options.items() if key in _RETRY}

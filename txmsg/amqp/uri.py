"""AMQP URLs: `amqp[s]://user:password@host:port/vhost?key=value&key=value`.

The form is RabbitMQ's URI specification (https://www.rabbitmq.com/docs/uri-spec), the keys are those of its "URI query
parameters" and of pika; see `KEYS`.  What this parser decides where they differ or say nothing:

- No path, and a path of one bare slash, are the virtual host "/", as in every Python client; RabbitMQ's specification
  makes the latter the empty virtual host, which a URL cannot name here: use `virtual_host=""`.
- User, password, host and virtual host are percent-decoded, as UTF-8, where "+" is itself; in the query it is a space.
- Nothing is guessed: an unknown or repeated key, a second path segment, a user without a password, an "@" beyond the
  authority (a password that was not percent-encoded), white space are errors.  A fragment is ignored.

Invariant (C3.1, Z8): no error shows or carries any part of the URL that could hold the password.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

from txmsg.amqp.sasl import AMQPlainCredentials, Credentials, ExternalCredentials, PlainCredentials
from txmsg.amqp.secret import Secret
from txmsg.amqp.tls import TLSOptions
from txmsg.amqp.validation import host_name, nearest, shown
from txmsg.errors import ConfigurationError

__all__ = ["KEYS", "TLS_KEYS", "parse"]


def _integer(key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,19}", value, re.ASCII):
        raise ConfigurationError(f"{key} must be a whole number, not {shown(value)}")
    return int(value)


def _number(key: str, value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,19}(\.[0-9]{1,19})?", value, re.ASCII):
        raise ConfigurationError(f"{key} must be a number of seconds, not {shown(value)}")
    return float(value)


def _milliseconds(key: str, value: str) -> float:
    given = _integer(key, value)
    if given < 100:
        raise ConfigurationError(
            f"{key} is in milliseconds, as RabbitMQ has it, and {given} is too short; for seconds use connect_timeout"
        )
    return given / 1000


def _flag(key: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise ConfigurationError(f"{key} must be true or false, not {shown(value)}")
    return value == "true"


def _string(key: str, value: str) -> str:
    return value


def _json(key: str, value: str) -> dict[str, Any]:
    found: Any = None
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(value)
    if not isinstance(found, dict):
        raise ConfigurationError(f'{key} must be a JSON object such as {{"name":1}}')
    return found


#: Query keys that set a parameter: key -> (parameter, how it is read).  An empty number is as none (C-15).
KEYS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "channel_max": ("channel_max", _integer),
    "frame_max": ("frame_max", _integer),
    "heartbeat": ("heartbeat", _integer),
    "locale": ("locale", _string),
    "client_properties": ("client_properties", _json),
    "connection_name": ("connection_name", _string),
    "connection_timeout": ("connect_timeout", _milliseconds),
    "connect_timeout": ("connect_timeout", _number),
    "socket_timeout": ("connect_timeout", _number),
    "handshake_timeout": ("handshake_timeout", _number),
    "stack_timeout": ("stack_timeout", _number),
    "operation_timeout": ("operation_timeout", _number),
    "confirm_timeout": ("confirm_timeout", _number),
    "close_timeout": ("close_timeout", _number),
    "blocked_connection_timeout": ("blocked_connection_timeout", _number),
    "connection_attempts": ("connection_attempts", _integer),
    "retry_delay": ("retry_delay", _number),
    "max_message_size": ("max_message_size", _integer),
    "tcp_options": ("tcp_options", _json),
    "allow_plaintext_auth": ("allow_plaintext_auth", _flag),
}

#: Query keys about TLS: key -> name in TLSOptions.
TLS_KEYS = {
    "cacertfile": "ca_file",
    "certfile": "cert_file",
    "keyfile": "key_file",
    "server_name_indication": "server_name",
    "verify": "",
}

_MECHANISMS: dict[str, type[PlainCredentials]] = {"plain": PlainCredentials, "amqplain": AMQPlainCredentials}

#: Keys that other clients have, with what to do instead.
_OTHERS = {
    "ssl_options": "use cacertfile, certfile, keyfile and server_name_indication",
    "ssl": "the scheme says it: amqps://",
    "fail_if_no_peer_cert": "a client always wants the server's certificate",
    "password": "a pass phrase does not belong into a URL; use TLSOptions(key_password=...)",
    "heartbeat_interval": "use heartbeat",
    "backpressure_detection": "txmsg tells when the broker blocks the connection",
}


def parse(url: str | Secret) -> dict[str, Any] | ConfigurationError:
    """Return the arguments for ConnectionParameters that are in `url`, or the error to raise.

    It is returned, not raised, because an exception keeps the local variables of every frame it passes, and a verbose
    traceback prints them: the caller forgets the URL before it raises.
    """
    try:
        if not isinstance(url, str | Secret):
            return ConfigurationError(f"the URL must be a str, not {type(url).__name__}")
        return _parse(url.reveal() if isinstance(url, Secret) else url)
    except ConfigurationError as error:
        text = str(error)
    except Exception as error:  # not expected; and what it says may quote the URL
        text = f"it cannot be read ({type(error).__name__})"
    return ConfigurationError(f"the AMQP URL cannot be used: {text}")


def _parse(url: str) -> dict[str, Any]:
    if not url.isprintable() or " " in url:
        raise ConfigurationError("it holds white space or a control character")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in ("amqp", "amqps"):
        known = scheme if separator and scheme in ("http", "https", "amqp+ssl", "pyamqp", "memory", "redis") else ""
        raise ConfigurationError("it must begin with amqp:// or amqps://" + (f", not {known}://" if known else ""))
    rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    if "@" in path or "@" in query or "@" in url.partition("#")[2]:
        raise ConfigurationError(
            "there is an @ behind the host: in the password, / must be written %2F, ? %3F and # %23, elsewhere @ is %40"
        )
    userinfo, at, address = authority.rpartition("@")
    if "@" in userinfo:
        raise ConfigurationError("there are two @ before the path: in a user name or password, @ is written %40")
    found: dict[str, Any] = {}
    found["host"], port = _host_and_port(address)
    if port:
        found["port"] = port
    found["virtual_host"] = _virtual_host(path)
    options = _query(query)
    tls = {key: options.pop(key) for key in TLS_KEYS if key in options}
    mechanism = options.pop("auth_mechanism", None)
    _set_parameters(found, options)
    if scheme == "amqps":
        found["tls"] = _tls_options(tls)
    elif tls:
        raise ConfigurationError(f"{next(iter(tls))} is about TLS: the scheme must be amqps://")
    credentials = _credentials(userinfo if at else None, mechanism)
    if credentials is not None:
        found["credentials"] = credentials
    if isinstance(credentials, ExternalCredentials) and not (scheme == "amqps" and found["tls"].cert_file):
        raise ConfigurationError("auth_mechanism=external needs amqps:// with certfile and keyfile")
    return found


def _decoded(what: str, value: str) -> str:
    """Percent-decode one part, strictly.  The error does not show it."""
    if re.search(r"%(?![0-9A-Fa-f]{2})", value):
        raise ConfigurationError(f"there is a % without two hexadecimal digits in the {what}: % itself is %25")
    try:
        return unquote_to_bytes(value).decode("utf-8")
    except UnicodeDecodeError:
        pass
    raise ConfigurationError(f"the {what} is not UTF-8 when it is percent-decoded")


def _host_and_port(address: str) -> tuple[str, int]:
    """Return host ("localhost" if there is none) and port (0 if there is none)."""
    match = re.fullmatch(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::([^:]*))?", address)
    if match is None:
        raise ConfigurationError("the host and port cannot be read: an IPv6 address is written in brackets, [::1]:5672")
    host, port = match[1], match[2] or ""
    if port and not (re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) and 1 <= int(port) <= 65535):
        raise ConfigurationError("the port must be a number from 1 to 65535")  # not shown: it may be a password
    host = _decoded("host", host).lower()
    if host.startswith("["):
        host = host[1:-1]
        if ":" not in host:
            raise ConfigurationError("there is no IPv6 address in the brackets")
    elif ":" in host:
        raise ConfigurationError("an IPv6 address is written in brackets, [::1]:5672")
    return (host_name("host", host) if host else "localhost"), int(port or 0)


def _virtual_host(path: str) -> str:
    if "/" in path:
        raise ConfigurationError(
            "the path must be the virtual host alone: a / in its name is written %2F, "
            "so the virtual host / is /%2F (or nothing)"
        )
    return _decoded("virtual host", path) or "/"


def _query(query: str) -> dict[str, str]:
    """Return the query's keys and decoded values; each key once."""
    options: dict[str, str] = {}
    known = [*KEYS, *TLS_KEYS, "auth_mechanism"]
    for pair in query.split("&") if query else ():
        key, separator, value = pair.partition("=")
        key = _decoded("query", key.replace("+", " "))
        if key in _OTHERS:
            raise ConfigurationError(f"the query key {key!r} is not used here: {_OTHERS[key]}")
        if key not in known:
            raise ConfigurationError(f"unknown query key {shown(key)}{nearest(key, known)}")
        if not separator:
            raise ConfigurationError(f"the query key {key!r} has no value")
        if key in options:
            raise ConfigurationError(f"the query key {key!r} is given twice")
        options[key] = _decoded(f"query key {key!r}", value.replace("+", " "))
    return options


def _set_parameters(found: dict[str, Any], options: dict[str, str]) -> None:
    for key, value in options.items():
        parameter, read = KEYS[key]
        if value == "" and read in (_integer, _number, _milliseconds):
            continue
        if parameter in found:
            raise ConfigurationError(f"the query says {parameter} twice (as {key!r} the second time)")
        found[parameter] = read(key, value)


def _tls_options(given: dict[str, str]) -> TLSOptions:
    for key, value in given.items():
        if not value:
            raise ConfigurationError(f"{key} is empty")
    verify = given.pop("verify", "verify_peer")
    if verify == "verify_none":
        raise ConfigurationError(
            "verify_none does not exist here: the server's certificate is always verified; "
            "name the CA that issued it with cacertfile"
        )
    if verify != "verify_peer":
        raise ConfigurationError(f"verify must be verify_peer, not {shown(verify)}")
    if given.get("server_name_indication") == "disable":
        raise ConfigurationError("server_name_indication cannot be disabled; leave it out to verify the host's name")
    arguments: dict[str, Any] = {TLS_KEYS[key]: value for key, value in given.items()}
    return TLSOptions(**arguments)


def _credentials(userinfo: str | None, mechanism: str | None) -> Credentials | None:
    """Return the credentials of the URL, None if it has none."""
    name = "plain" if mechanism is None else mechanism.lower()
    if name == "external":
        if userinfo is not None:
            raise ConfigurationError("auth_mechanism=external takes the user from the certificate: leave out user@")
        return ExternalCredentials()
    if name not in _MECHANISMS:
        raise ConfigurationError(f"auth_mechanism must be plain, amqplain or external, not {shown(mechanism)}")
    if userinfo is None:
        if mechanism is None:
            return None
        raise ConfigurationError(f"auth_mechanism={name} needs user:password@ before the host")
    user, colon, password = userinfo.partition(":")
    if not user:
        raise ConfigurationError("the user name before the @ is empty")
    if not colon:
        raise ConfigurationError("there is a user but no password: write user:password@ (user:@ for an empty one)")
    if ":" in password:
        raise ConfigurationError("there are two colons before the @: in a password, : is written %3A")
    return _MECHANISMS[name](_decoded("user name", user), Secret(_decoded("password", password)))

"""The options of ``amqp://`` and ``amqps://``: what `connect(url, options=...)` takes besides the URL.

They hold for the URL and for its alternates, and win over what a URL says.

- Every field of :class:`~txmsg.amqp.ConnectionParameters` but where to (`host`, `port`) and how often
  (`connection_attempts`, `retry_delay`): `heartbeat`, `connect_timeout`, `frame_max`, `client_properties`,
  `credentials`, `virtual_host`, `connection_name` ...
- `ssl`, or `tls`: True, TLSOptions, or a mapping: `ca_certs`, `certfile`, `keyfile`, `password` (of the key),
  `server_hostname`, `cert_reqs` and the names of TLSOptions.  The broker is always verified.  False or None: the URL
  decides.
- `login_method`: "PLAIN", "AMQPLAIN" or "EXTERNAL", for the user of the URL.
- `backoff`: a Backoff, or a mapping of its fields: the waits between rounds over the hosts after a loss.
- `order` ("listed"; or "shuffle"), `attempt_timeout` (10 s), `recovery_timeout` (60 s), `max_attempts` and
  `recovery_limit` (None: it never gives up), `endpoint`: as for :class:`~txmsg.amqp.ReconnectingConnection`.
- `resubscribe_limit` (300 s; None: for ever): how long a consumer tries to come back when its queue is gone.
- `on_blocked(reason)`, `on_unblocked()`: called when the broker takes no publishes, and when it does again.
- `confirm_publish`: True or False; publishes are confirmed either way.

Invariant: what cannot be used is a ConfigurationError that names the option and shows no secret.
"""

from __future__ import annotations

import dataclasses
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from txmsg.amqp import (
    AMQPlainCredentials,
    Backoff,
    ConnectionParameters,
    ExternalCredentials,
    PlainCredentials,
    ReconnectingConnection,
    RecoveryState,
    StateChange,
    TLSOptions,
    uri,
)
from txmsg.amqp.recovery.hosts import check_plaintext
from txmsg.errors import ConfigurationError, clip
from txmsg.transports.options import check_options

__all__ = ["Settings", "settings_of"]

#: Fields of ConnectionParameters that are no options.
_NOT_HERE: Final = ("host", "port", "connection_attempts", "retry_delay")
_PARAMETERS: Final = tuple(
    field.name for field in dataclasses.fields(ConnectionParameters) if field.name not in _NOT_HERE
)
_RECOVERY: Final = ("order", "attempt_timeout", "recovery_timeout", "max_attempts", "recovery_limit", "endpoint")
_CALLBACKS: Final = ("on_blocked", "on_unblocked")
_OWN: Final = ("ssl", "tls", "login_method", "backoff", "resubscribe_limit", "confirm_publish")

#: Options that Kombu's transports have, with what there is instead.
_OTHERS: Final = {
    "read_timeout": "heartbeat finds a peer that is silent, operation_timeout limits the wait for a reply",
    "write_timeout": "heartbeat finds a peer that takes nothing, confirm_timeout limits a publish",
    "socket_settings": "use tcp_options",
    "connection_attempts": "connect() makes one attempt; max_retries is the messaging layer's",
    "retry_delay": "use backoff for the waits after a loss",
    "host": "the URL says it",
    "port": "the URL says it",
}

_MECHANISMS: Final = {"PLAIN": PlainCredentials, "AMQPLAIN": AMQPlainCredentials}

#: Names in Python's `ssl` and in other clients -> names of TLSOptions.
_TLS_NAMES: Final = {
    "ca_certs": "ca_file",
    "cafile": "ca_file",
    "cacertfile": "ca_file",
    "cadata": "ca_data",
    "certfile": "cert_file",
    "keyfile": "key_file",
    "password": "key_password",
    "server_hostname": "server_name",
    "server_name_indication": "server_name",
}
_TLS_FIELDS: Final = tuple(field.name for field in dataclasses.fields(TLSOptions))
_TLS_OTHERS: Final = {
    "ssl_version": "use minimum_version",
    "ciphers": "they are Twisted's",
    "cert_reqs": "the broker is always verified: name the CA that issued its certificate with ca_certs",
    "check_hostname": "the broker's name is always verified: leave it out, or give server_hostname",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a URL, its alternates and the options come to.

    targets: of the URL, then of the alternates.   recovery: for ReconnectingConnection.
    resubscribe_limit: for the consumers.   on_blocked, on_unblocked: callables, or None.
    """

    targets: list[ConnectionParameters]
    recovery: dict[str, Any]
    resubscribe_limit: float | None
    on_blocked: Callable[[str], object] | None
    on_unblocked: Callable[[], object] | None

    def watch(self, connection: ReconnectingConnection) -> None:
        """Have the callbacks called; what they raise is logged there."""
        on_blocked, on_unblocked = self.on_blocked, self.on_unblocked

        def changed(change: StateChange) -> None:
            if change.new is RecoveryState.BLOCKED:
                if on_blocked is not None:
                    on_blocked(str(change.reason or ""))
            elif change.old is RecoveryState.BLOCKED and on_unblocked is not None:
                on_unblocked()

        if on_blocked is not None or on_unblocked is not None:
            connection.add_state_callback(changed)


def settings_of(urls: Sequence[object], options: Mapping[str, Any] | None) -> Settings | ConfigurationError:
    """Return the settings, or the error; it is not raised, because frames keep their locals (C3.1).

    urls: the URL, then its alternates.
    """
    try:
        return _settings(urls, options)
    except ConfigurationError as error:
        text = str(error)
    return ConfigurationError(text)


def _settings(urls: Sequence[object], options: Mapping[str, Any] | None) -> Settings:
    for name in options if isinstance(options, Mapping) else ():
        if name in _OTHERS:
            raise ConfigurationError(f"amqp:// has no option {name!r}: {_OTHERS[name]}")
    given = check_options("amqp://", options, {*_PARAMETERS, *_RECOVERY, *_CALLBACKS, *_OWN})
    if not isinstance(given.pop("confirm_publish", True), bool):
        raise ConfigurationError("confirm_publish must be True or False; publishes are confirmed either way")
    callbacks = {name: given.pop(name, None) for name in _CALLBACKS}
    for name, callback in callbacks.items():
        if callback is not None and not callable(callback):
            raise ConfigurationError(f"{name} must be callable, not {type(callback).__name__}")
    recovery = {"order": "listed"} | {name: given.pop(name) for name in _RECOVERY if name in given}
    recovery["backoff"] = _backoff(given.pop("backoff", None))
    limit = given.pop("resubscribe_limit", 300.0)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0):
        raise ConfigurationError("resubscribe_limit must be a number of seconds from 0 on, or None")
    login_method = given.pop("login_method", None)
    tls = _tls(given)
    targets = [_target(url, given, tls, login_method) for url in urls]
    if recovery.get("endpoint") is None:
        for target in targets:
            check_plaintext(target)
    return Settings(
        targets=targets,
        recovery=recovery,
        resubscribe_limit=limit,
        on_blocked=callbacks["on_blocked"],
        on_unblocked=callbacks["on_unblocked"],
    )


def _target(url: object, given: dict[str, Any], tls: TLSOptions | None, login_method: object) -> ConnectionParameters:
    if isinstance(url, str):
        scheme, colon, rest = url.partition(":")
        if scheme.lower() in ("pyamqp", "librabbitmq"):
            url = f"amqp{colon}{rest}"
    found = uri.parse(url)  # type: ignore[arg-type]  # it says what it takes
    if isinstance(found, ConfigurationError):
        raise found
    found |= given
    if tls is not None:
        found["tls"] = tls
    if login_method is not None:
        found["credentials"] = _credentials(found.get("credentials"), login_method)
    return ConnectionParameters(**found)


def _credentials(found: Any, login_method: object) -> Any:
    """The credentials of a URL, for another mechanism."""
    method = login_method.upper() if isinstance(login_method, str) else ""
    if method == "EXTERNAL":
        return ExternalCredentials()
    if method not in _MECHANISMS:
        raise ConfigurationError(
            f"login_method must be PLAIN, AMQPLAIN or EXTERNAL, not {clip(repr(login_method), 40)}; for another one "
            "give credentials"
        )
    if found is None:
        found = PlainCredentials("guest", "guest")
    if not isinstance(found, PlainCredentials):
        raise ConfigurationError(f"login_method {method} needs a user name and a password")
    return _MECHANISMS[method](found.username, found.password)


def _backoff(given: object) -> Backoff | None:
    if given is None or isinstance(given, Backoff):
        return given
    if not isinstance(given, Mapping):
        raise ConfigurationError(f"backoff must be a Backoff or a mapping, not {type(given).__name__}")
    fields = check_options("backoff", given, [field.name for field in dataclasses.fields(Backoff)])
    return Backoff(**fields)


def _tls(given: dict[str, Any]) -> TLSOptions | None:
    """Take `ssl` and `tls` out of the options; None: the URL decides."""
    said = [value for value in (given.pop("ssl", None), given.pop("tls", None)) if value not in (None, False)]
    if len(said) > 1:
        raise ConfigurationError("give only one of ssl and tls")
    if not said or isinstance(said[0], TLSOptions):
        return said[0] if said else None
    if said[0] is True:
        return TLSOptions()
    if not isinstance(said[0], Mapping):
        raise ConfigurationError(f"ssl must be True, a mapping or TLSOptions, not {type(said[0]).__name__}")
    options = dict(said[0])
    if options.get("cert_reqs") in (ssl.CERT_REQUIRED, "CERT_REQUIRED", "required"):
        del options["cert_reqs"]
    if options.get("check_hostname") is True:
        del options["check_hostname"]
    for name in options:
        if name in _TLS_OTHERS:
            raise ConfigurationError(f"ssl: {name} is not used here: {_TLS_OTHERS[name]}")
    options = check_options("ssl", options, [*_TLS_FIELDS, *_TLS_NAMES])
    renamed: dict[str, Any] = {}
    for name, value in options.items():
        field = _TLS_NAMES.get(name, name)
        if field in renamed:
            raise ConfigurationError(f"ssl says {field} twice (as {name!r} the second time)")
        if value is not None:
            renamed[field] = value
    return TLSOptions(**renamed)

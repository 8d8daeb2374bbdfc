"""The configuration of the consumer service: option before environment before file before default.

Pure: reads the files it is told to and returns a frozen :class:`ConsumerConfig`, or raises one
:class:`~txmsg.service.settings.SettingError` that says what to change.  Invariants: a credential is
never required on the command line, never appears in a message or a repr, and the user and password of a
URL that was overridden are never sent to the URL that overrode it.
"""

from __future__ import annotations

import math
import os
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from txmsg.amqp.secret import Secret
from txmsg.errors import clip
from txmsg.service.declared import DeclaredConsumer
from txmsg.service.exit_codes import ExitCode
from txmsg.service.settings import (
    SETTINGS,
    SETTINGS_BY_NAME,
    UNLIMITED,
    SettingError,
    nearest_name,
    split_urls,
)

__all__ = ["ConsumerConfig", "load_config"]

#: Where the broker is when nobody says.
DEFAULT_URL = "amqp://localhost"

#: A password file longer than this many bytes is surely not one.
_PASSWORD_FILE_LIMIT = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerConfig:
    """What the service is to do; see docs/consumer-service.md for each key.

    queue and handler; or app, the module with declared handlers; or consumers, those of the file's [[consumer]] tables.
    url: one or several with ";" between them; may hold users and passwords.  username, password: both or none; they
    replace those of the URLs.  paths: absolute or relative to the current directory.
    prefetch: 0 means unlimited.  Times are in seconds; a limit that is None is none, but for refused_limit, where it
    is 0 until the service has consumed for the first time, and 300 from then on.  dead_letter: "" is QUEUE.dead.
    rpc, celery: names of servers and of tasks that are run, too, or instead.  connection_given: where it was said how
    to connect, "" if nowhere but in the environment.  warnings: lines to log at start.
    """

    queue: str = ""
    handler: str = ""
    app: str = ""
    consumers: tuple[DeclaredConsumer, ...] = ()
    rpc: tuple[str, ...] = ()
    celery: tuple[str, ...] = ()
    url: str | Secret = field(default=DEFAULT_URL, repr=False)
    username: str | None = None
    password: Secret | None = None
    tls_ca: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    heartbeat: int | None = None
    connection_name: str | None = None
    allow_plaintext_auth: bool = False
    host_order: str = "shuffle"
    start_limit: float | None = 60.0
    recovery_limit: float | None = None
    refused_limit: float | None = None
    resubscribe_limit: float | None = 300.0
    attempt_timeout: float = 10.0
    backoff_initial: float = 0.5
    backoff_maximum: float = 30.0
    declare: bool = False
    durable: bool = True
    auto_delete: bool = False
    queue_arguments: Mapping[str, Any] = field(default_factory=dict)
    bind: tuple[tuple[str, str], ...] = ()
    prefetch: int = 20
    concurrency: int = 1
    consumer_tag: str = ""
    exclusive: bool = False
    dedupe_window: int = 0
    threads: int = 0
    on_failure: str = "requeue_once"
    retry_delays: tuple[float, ...] = ()
    dead_letter: str = ""
    publish_timeout: float = 30.0
    requeue_delay: float = 1.0
    drain: float = 30.0
    connection_given: str = field(default="", compare=False)
    warnings: tuple[str, ...] = ()

    @property
    def has_handlers(self) -> bool:
        """Whether there is a handler to run; False where there are servers only."""
        return bool(self.handler or self.app or self.consumers)

    def __post_init__(self) -> None:
        if isinstance(self.url, str) and "@" in self.url:
            object.__setattr__(self, "url", Secret(self.url))


class _Given(NamedTuple):
    """One value and where it came from; the source with the higher rank wins."""

    value: Any
    rank: int
    label: str

    def __repr__(self) -> str:
        return f"<value from {self.label}>"  # never the value: a verbose traceback prints local variables


_FILE, _ENVIRONMENT, _OPTION = 1, 2, 3

#: What the values of an option that was given several times become; without an entry a tuple.
_COLLECT: Mapping[str, Callable[[Any], Any]] = {
    "queue_arguments": dict,
    "url": ";".join,
    "rpc": lambda items: tuple(chain.from_iterable(items)),
    "celery": lambda items: tuple(chain.from_iterable(items)),
}

#: How the queue is to be; declared handlers say it themselves.
_OF_A_QUEUE = ("declare", "durable", "auto_delete", "queue_arguments", "bind")

#: What has no effect without a handler.
_OF_A_HANDLER = (
    *("queue", *_OF_A_QUEUE, "prefetch", "concurrency", "consumer_tag", "exclusive", "dedupe_window", "threads"),
    *("on_failure", "retry_delays", "dead_letter", "requeue_delay", "publish_timeout"),
)

#: What says how to connect.
_OF_THE_CONNECTION = (
    *("url", "host_order", "username", "password", "password_file", "tls_ca", "tls_cert", "tls_key", "heartbeat"),
    *("connection_name", "allow_plaintext_auth"),
)

#: The limits that are none when they say so.
_LIMITS = ("start_limit", "recovery_limit", "refused_limit", "resubscribe_limit")


def _refuse(label: str, problem: object, rank: int) -> SettingError:
    code = ExitCode.USAGE if rank == _OPTION else ExitCode.CONFIGURATION
    return SettingError(f"{label}: {problem}", code)


def _read_options(options: Mapping[str, Any], given: dict[str, _Given]) -> None:
    """`options` maps setting names to text, to a list of texts, or to a bool for flags."""
    for setting in SETTINGS:
        value = options.get(setting.name)
        if value is None:
            continue
        label = f"option --{setting.option}"
        try:
            if isinstance(value, bool):
                parsed: Any = setting.kind.check(value)
            elif setting.is_list:
                items = tuple(setting.kind.from_text(text) for text in ([value] if isinstance(value, str) else value))
                parsed = _COLLECT.get(setting.name, tuple)(items)
            else:
                parsed = setting.kind.from_text(value)
        except ValueError as error:
            raise _refuse(label, error, _OPTION) from None
        if setting.is_path:
            parsed = os.path.abspath(parsed)
        given[setting.name] = _Given(parsed, _OPTION, label)


def _read_environment(environ: Mapping[str, str], given: dict[str, _Given]) -> None:
    for setting in SETTINGS:
        text = environ.get(setting.environment) if setting.environment else None
        # An empty variable is how a shell or a unit file unsets one; only the password may be empty.
        if text is None or (not text and setting.name != "password"):
            continue
        label = f"environment variable {setting.environment}"
        value = os.path.abspath(text) if setting.is_path else text
        _keep(given, setting.name, _Given(value, _ENVIRONMENT, label))


def _read_file(path: str, given: dict[str, _Given]) -> None:
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except OSError as error:
        raise SettingError(f"option --config: cannot read {path!r}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # tomllib's texts give line and column and at most the one offending character.
        raise SettingError(f"{path} is not valid TOML: {clip(str(error))}") from None
    except RecursionError:
        raise SettingError(f"{path} is nested too deeply") from None
    tables = document.pop("consumer", None)
    if tables is not None:
        # Only here: it leads to the messaging layer.
        from txmsg.service.tables import declared_by

        given["consumers"] = _Given(declared_by(tables, path), _FILE, f"[[consumer]] in {path}")
    for name, value in document.items():
        setting = SETTINGS_BY_NAME.get(name)
        if setting is None:
            hint = nearest_name(name.replace("-", "_"), ["consumer", *SETTINGS_BY_NAME])
            raise SettingError(f"unknown key {clip(name)!r} in {path}; {hint}")
        label = f"key {name!r} in {path}"
        try:
            parsed = setting.kind.check(value)
        except ValueError as error:
            raise _refuse(label, error, _FILE) from None
        if setting.is_path:
            parsed = str(Path(path).absolute().parent / parsed)
        _keep(given, name, _Given(parsed, _FILE, label))


def _keep(given: dict[str, _Given], name: str, candidate: _Given) -> None:
    if name not in given or given[name].rank < candidate.rank:
        given[name] = candidate


def _readable_by_others(path: str) -> bool:
    return bool(os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH))


def _read_password_file(source: _Given, warnings: list[str]) -> str:
    path = source.value
    try:
        with open(path, "rb") as file:
            content = file.read(_PASSWORD_FILE_LIMIT + 1)
        if _readable_by_others(path):
            warnings.append(f"password file {path} can be read by others: chmod 600 it")
    except OSError as error:
        raise _refuse(source.label, f"cannot read {path!r}: {error.strerror}", source.rank) from None
    line = content.split(b"\n", 1)[0].rstrip(b"\r")
    if not line or len(content) > _PASSWORD_FILE_LIMIT:
        raise _refuse(source.label, f"{path!r} does not begin with a line that is a password", source.rank)
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise _refuse(source.label, f"the password in {path!r} is not valid UTF-8", source.rank) from None


def _split_url(url: str) -> tuple[str, str | None, str | None]:
    """The URL without its user information, the user name and the password, None where absent.

    Only to know who has given what: whether the URL is a good one is for ConnectionParameters to say.
    """
    scheme, separator, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    information, at, host = authority.rpartition("@")
    if not at:
        return url, None, None
    username, colon, password = information.partition(":")
    return f"{scheme}{separator}{host}{slash}{path}", unquote(username), unquote(password) if colon else None


def _pick(*candidates: _Given | None) -> _Given | None:
    """The candidate of the highest rank; among equals the first named."""
    best: _Given | None = None
    for candidate in candidates:
        if candidate is not None and (best is None or candidate.rank > best.rank):
            best = candidate
    return best


def _credentials(
    given: dict[str, _Given], warnings: list[str], config_path: str | None
) -> tuple[str, str | None, Secret | None]:
    url = given.get("url", _Given(DEFAULT_URL, 0, "the default URL"))
    parts = [_split_url(each) for each in split_urls(url.value)]
    bare = ";".join(part[0] for part in parts)
    url_user = next((part[1] for part in parts if part[1]), None)
    url_password = next((part[2] for part in parts if part[2] is not None), None)
    if url_password and url.rank == _OPTION:
        warnings.append("the password in --url can be seen in the list of processes: use TXMSG_PASSWORD_FILE instead")
    stored, file = given.get("password"), given.get("password_file")
    if stored and file and stored.rank == file.rank:
        raise _refuse(stored.label, f"give this or {file.label}, not both", stored.rank)
    in_url = None if url_password is None else url._replace(value=url_password)
    user = _pick(given.get("username"), None if not url_user else url._replace(value=url_user))
    password = _pick(stored, file, in_url)
    in_config = any(item is not None and item.rank == _FILE for item in (stored, in_url))
    if config_path and in_config and _readable_by_others(config_path):
        warnings.append(f"{config_path} holds a password and can be read by others: chmod 600 it")
    if user is None and password is None:
        return bare, None, None
    if user is not None and password is not None and user.label == password.label == url.label:
        return url.value, None, None
    if url.label in (user.label if user else "", password.label if password else "") and len(parts) > 1:
        # The other half would be sent to hosts that it is not for.
        raise _refuse(url.label, "several URLs with users of their own need their passwords in them", url.rank)
    if user is None:
        assert password is not None
        raise _refuse(password.label, "a password without a user name: set username too", password.rank)
    if password is None:
        raise _refuse(
            user.label,
            "a user name without a password: set TXMSG_PASSWORD, TXMSG_PASSWORD_FILE or password_file",
            user.rank,
        )
    secret = _read_password_file(password, warnings) if password is file else password.value
    return bare, user.value, Secret(secret)


def _check_declared(given: dict[str, _Given]) -> None:
    """There is something to run, and only one word on how."""
    declared = given.get("app") or given.get("consumers")
    if declared is None:
        if "handler" not in given:
            _check_servers(given)
        return
    for name in ("handler", "queue", *_OF_A_QUEUE, "consumer_tag", "exclusive", "dead_letter"):
        if name in given:
            raise _refuse(given[name].label, f"has no effect with {declared.label}: say it there", given[name].rank)


def _check_servers(given: dict[str, _Given]) -> None:
    """Without a handler: there are servers, and nothing is said about a handler."""
    servers = given.get("rpc") or given.get("celery")
    if servers is None or not any(given[name].value for name in ("rpc", "celery") if name in given):
        instead = "or --app, --rpc, --celery; or these or [[consumer]] in a file given with --config"
        raise SettingError(f"--handler is required ({instead})", ExitCode.USAGE)
    for name in _OF_A_HANDLER:
        if name in given:
            raise _refuse(
                given[name].label, f"is for a handler, and has no effect with {servers.label}", given[name].rank
            )


def load_config(options: Mapping[str, Any], environ: Mapping[str, str]) -> ConsumerConfig:
    """The configuration for `options` (setting names and "config", as text) and the environment.

    Raises :class:`SettingError`, whose traceback holds no local variable with a secret (C3.1).
    """
    try:
        return _load(options, environ)
    except SettingError as error:
        refusal = SettingError(str(error), error.exit_code)
    del options, environ
    raise refusal


def _load(options: Mapping[str, Any], environ: Mapping[str, str]) -> ConsumerConfig:
    given: dict[str, _Given] = {}
    warnings: list[str] = []
    _read_options(options, given)
    _read_environment(environ, given)
    config_path = options.get("config")
    if config_path is not None:
        _read_file(config_path, given)
    _check_declared(given)
    url, username, password = _credentials(given, warnings, config_path)
    explicit = [given[name].label for name in _OF_THE_CONNECTION if name in given and given[name].rank != _ENVIRONMENT]
    credential_names = {"url", "username", "password", "password_file"}
    plain = {name: item.value for name, item in given.items() if name not in credential_names}
    _check_together(given)
    threads = plain.get("threads", 0)
    concurrency = plain.setdefault("concurrency", threads or 1)
    for name in _LIMITS:
        if plain.get(name) == UNLIMITED:
            plain[name] = math.inf if name == "refused_limit" else None
    if plain.get("retry_delays"):
        plain.setdefault("on_failure", "retry")
    prefetch = plain.get("prefetch", max(20, 2 * concurrency))
    plain["prefetch"] = 0 if prefetch == UNLIMITED else min(prefetch, 65535)
    if 0 < plain["prefetch"] < concurrency:
        warnings.append(f"prefetch {prefetch} is below concurrency {concurrency}: only {prefetch} handlers can be busy")
    return ConsumerConfig(
        url=url,
        username=username,
        password=password,
        connection_given=explicit[0] if explicit else "",
        warnings=tuple(warnings),
        **plain,
    )


def _check_together(given: dict[str, _Given]) -> None:
    """Settings that make sense only together."""
    cert, key = given.get("tls_cert"), given.get("tls_key")
    if key is not None and cert is None:
        raise _refuse(key.label, "a key without a certificate: set tls_cert too", key.rank)
    url = given["url"].value if "url" in given else DEFAULT_URL
    if not all(each.lower().startswith("amqps:") for each in split_urls(url)):
        for name in ("tls_ca", "tls_cert"):
            if name in given:
                raise _refuse(given[name].label, "needs a URL that begins with amqps://", given[name].rank)
    policy, delays = given.get("on_failure"), given.get("retry_delays")
    has_delays = delays is not None and bool(delays.value)
    if policy is not None and policy.value == "retry" and not has_delays:
        raise _refuse(policy.label, "needs retry_delays, such as [1, 10, 60]", policy.rank)
    if has_delays and delays is not None and policy is not None and policy.value != "retry":
        raise _refuse(delays.label, f"has no effect with on_failure {policy.value!r}: leave that out", delays.rank)
    if "dead_letter" in given and not has_delays:
        letter = given["dead_letter"]
        raise _refuse(letter.label, "has no effect without retry_delays", letter.rank)
    threads, concurrency = given.get("threads"), given.get("concurrency")
    if threads is not None and concurrency is not None and 0 < threads.value < concurrency.value:
        raise _refuse(
            concurrency.label,
            f"must not be above the number of threads ({threads.value}), each of which runs one handler",
            concurrency.rank,
        )
    for name in ("durable", "auto_delete", "queue_arguments"):
        if name in given and not ("declare" in given and given["declare"].value):
            raise _refuse(given[name].label, "has no effect without declare", given[name].rank)

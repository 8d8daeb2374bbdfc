"""Every setting of the consumer service, once: name, kind, default, help.

The command line, the TOML file, the checks and the documentation all follow this table.  Invariant: a
value that is not of its setting's kind is refused with a line that names where it came from, what it
must be and what it is; the value of a secret is never repeated.

TOML: https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from txmsg.errors import ConfigurationError, clip
from txmsg.service.exit_codes import ExitCode

__all__ = [
    "SETTINGS",
    "SETTINGS_BY_NAME",
    "UNLIMITED",
    "Kind",
    "Setting",
    "SettingError",
    "Text",
    "Texts",
    "nearest_name",
    "split_urls",
]

#: What a limit must say, by name, to be none.
UNLIMITED = "unlimited"

#: Where one of several URLs ends, as :class:`txmsg.amqp.ReconnectingConnection` has it.
_URL_DIVIDER = re.compile(r";(?=\s*(?:amqps?://|$))")


def split_urls(text: str) -> list[str]:
    """The single URLs of "url;url"."""
    return [url.strip() for url in _URL_DIVIDER.split(text) if url.strip()] or [text]


def nearest_name(name: str, known: list[str]) -> str:
    """A hint for an unknown name: the nearest known one, or all of them when none is near."""
    near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    return f"known are: {', '.join(sorted(known))}"


class SettingError(ConfigurationError):
    """A setting that cannot be used; `exit_code` is 64 when it was typed on the command line, else 78."""

    def __init__(self, message: str, exit_code: int = ExitCode.CONFIGURATION) -> None:
        super().__init__(message)
        self.exit_code = int(exit_code)


class Kind(Protocol):
    """How the values of a setting are read.  Both raise ValueError with a text that begins "must be"."""

    def from_text(self, text: str) -> Any:
        """The value for an option's or environment variable's text."""

    def check(self, value: Any) -> Any:
        """The value for what a TOML file holds."""


def _type_name(value: object) -> str:
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a float", list: "an array", dict: "a table"}
    return names.get(type(value), f"a {type(value).__name__}")


@dataclass(frozen=True, slots=True)
class Text:
    """A string; `choices` lists the allowed ones when not empty."""

    choices: tuple[str, ...] = ()
    may_be_empty: bool = False

    def from_text(self, text: str) -> str:
        """See Kind."""
        return self.check(text)

    def check(self, value: Any) -> str:
        """See Kind."""
        if not isinstance(value, str):
            raise ValueError(f"must be a string, not {_type_name(value)}")
        if not value and not self.may_be_empty:
            raise ValueError("must not be empty")
        if self.choices and value not in self.choices:
            raise ValueError(f"must be one of {', '.join(self.choices)}, not {clip(value, 40)!r}")
        return value


@dataclass(frozen=True, slots=True)
class Texts:
    """A string, or several in an array; the value is a tuple."""

    def from_text(self, text: str) -> tuple[str, ...]:
        """See Kind."""
        return self.check(text)

    def check(self, value: Any) -> tuple[str, ...]:
        """See Kind."""
        items = value if isinstance(value, list) else [value]
        for item in items:
            if not isinstance(item, str):
                raise ValueError(f"must be a string or an array of strings, not {_type_name(item)}")
        return tuple(items)


@dataclass(frozen=True, slots=True)
class _Number:
    """An integer, or with `whole=False` any finite number, from `minimum` to `maximum`; `word` is also allowed."""

    minimum: float
    maximum: float
    whole: bool = True
    word: str = ""

    @property
    def _expectation(self) -> str:
        noun = "an integer" if self.whole else "a number"
        alternative = f" or {self.word!r}" if self.word else ""
        return f"must be {noun} from {self.minimum:g} to {self.maximum:g}{alternative}"

    def from_text(self, text: str) -> int | float | str:
        if self.word and text == self.word:
            return text
        try:
            value: int | float = int(text) if self.whole else float(text)
        except ValueError:
            raise ValueError(f"{self._expectation}, not {clip(text, 40)!r}") from None
        return self._in_range(value)

    def check(self, value: Any) -> int | float | str:
        if self.word and value == self.word:
            return self.word
        if isinstance(value, bool) or not isinstance(value, int if self.whole else (int, float)):
            raise ValueError(f"{self._expectation}, not {_type_name(value)}")
        return self._in_range(value)

    def _in_range(self, value: int | float) -> int | float:
        # Written so that NaN, which compares false with everything, is refused too.
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{self._expectation}, not {value}")
        return value if self.whole else float(value)


@dataclass(frozen=True, slots=True)
class _Flag:
    """true or false; on the command line `--name` and `--no-name`."""

    def from_text(self, text: str) -> bool:
        raise ValueError("must be given without a value")

    def check(self, value: Any) -> bool:
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {_type_name(value)}")
        return value


@dataclass(frozen=True, slots=True)
class _Urls:
    """A URL, or several: one string with ";" between them, or an array; the value is the one string."""

    def from_text(self, text: str) -> str:
        if not text:
            raise ValueError("must not be empty")
        return text

    def check(self, value: Any) -> str:
        items = value if isinstance(value, list) else [value]
        if not items:
            raise ValueError("must not be empty")
        for item in items:
            if not isinstance(item, str):
                raise ValueError(f"must be a string or an array of strings, not {_type_name(item)}")
        return ";".join(self.from_text(item) for item in items)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Up to `most` numbers, each of `kind`."""

    kind: _Number
    most: int

    def from_text(self, text: str) -> float:
        return float(self.kind.from_text(text))

    def check(self, value: Any) -> tuple[float, ...]:
        if not isinstance(value, list):
            raise ValueError(f"must be an array of numbers, not {_type_name(value)}")
        if len(value) > self.most:
            raise ValueError(f"must have at most {self.most} numbers, not {len(value)}")
        return tuple(float(self.kind.check(item)) for item in value)


@dataclass(frozen=True, slots=True)
class _Bindings:
    """A list of EXCHANGE:KEY; the key may be empty and may hold colons, the exchange may not."""

    def from_text(self, text: str) -> tuple[str, str]:
        exchange, colon, key = text.partition(":")
        if not exchange or not colon:
            raise ValueError(f"must be EXCHANGE:KEY (the key may be empty), not {clip(text, 80)!r}")
        return exchange, key

    def check(self, value: Any) -> tuple[tuple[str, str], ...]:
        if not isinstance(value, list):
            raise ValueError(f"must be an array of strings EXCHANGE:KEY, not {_type_name(value)}")
        for item in value:
            if not isinstance(item, str):
                raise ValueError(f"must be an array of strings EXCHANGE:KEY, but one of them is {_type_name(item)}")
        return tuple(self.from_text(item) for item in value)


@dataclass(frozen=True, slots=True)
class _Arguments:
    """The table of optional arguments of queue.declare, such as x-dead-letter-exchange."""

    def from_text(self, text: str) -> tuple[str, str | int | bool]:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise ValueError(f"must be NAME=VALUE, not {clip(text, 80)!r}")
        if value in ("true", "false"):
            return name, value == "true"
        if re.fullmatch(r"-?[0-9]{1,18}", value):
            return name, int(value)
        return name, value

    def check(self, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            raise ValueError(f"must be a table, not {_type_name(value)}")
        return dict(value)


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting.

    name: the TOML key; the option is the same with dashes.  kind: how it is read.  help: one sentence.
    metavar: what the help shows for the value.  environment: the variable that also sets it, "" if none.
    is_option: False for what must not be on a command line.  is_list: the option may be repeated.
    is_path: a relative one is relative to the file it stands in.  is_secret: never repeated in a message.
    """

    name: str
    kind: Kind
    help: str
    metavar: str = ""
    environment: str = ""
    is_option: bool = True
    is_list: bool = False
    is_path: bool = False
    is_secret: bool = False

    @property
    def option(self) -> str:
        """The option's name without the two dashes."""
        return self.name.replace("_", "-")

    @property
    def is_flag(self) -> bool:
        """It is given without a value."""
        return isinstance(self.kind, _Flag)


SETTINGS: tuple[Setting, ...] = (
    Setting(
        "url",
        _Urls(),
        "The broker: amqp://host/vhost, amqps:// for TLS; may be repeated, for several hosts.",
        "URL",
        "TXMSG_URL",
        is_list=True,
        is_secret=True,
    ),
    Setting(
        "host_order",
        Text(choices=("shuffle", "listed")),
        "The order in which several hosts are tried: shuffle (default) or listed.",
        "ORDER",
    ),
    Setting("username", Text(), "The user to log in as.", "NAME", "TXMSG_USERNAME"),
    Setting(
        "password",
        Text(may_be_empty=True),
        "The user's password.",
        environment="TXMSG_PASSWORD",
        is_option=False,
        is_secret=True,
    ),
    Setting(
        "password_file",
        Text(),
        "A file whose first line is the password.",
        "FILE",
        "TXMSG_PASSWORD_FILE",
        is_path=True,
    ),
    Setting(
        "tls_ca", Text(), "PEM file of the authorities that may sign the broker's certificate.", "FILE", is_path=True
    ),
    Setting("tls_cert", Text(), "PEM file of our client certificate.", "FILE", is_path=True),
    Setting("tls_key", Text(), "PEM file of the client certificate's key.", "FILE", is_path=True),
    Setting("heartbeat", _Number(0, 65535), "Seconds between heartbeats; 0 asks for none.", "SECONDS"),
    Setting("connection_name", Text(), "The name that the broker's management shows for us.", "NAME"),
    Setting(
        "allow_plaintext_auth", _Flag(), "Send the password without TLS to another machine: all on the way can read it."
    ),
    Setting(
        "start_limit",
        _Number(0, 86400, whole=False, word=UNLIMITED),
        "Seconds until the first message could come, then it gives up; default 60; 0: one attempt at each host.",
        "SECONDS",
    ),
    Setting(
        "recovery_limit",
        _Number(1, 31_536_000, whole=False, word=UNLIMITED),
        "Seconds that a later outage is borne; default unlimited.",
        "SECONDS",
    ),
    Setting(
        "refused_limit",
        _Number(0, 31_536_000, whole=False, word=UNLIMITED),
        "Seconds for which a refused login, virtual host or certificate is borne; default 0 at the start, 300 later.",
        "SECONDS",
    ),
    Setting(
        "resubscribe_limit",
        _Number(0, 31_536_000, whole=False, word=UNLIMITED),
        "Seconds for which it tries to consume again when its queue has gone; default 300.",
        "SECONDS",
    ),
    Setting(
        "attempt_timeout",
        _Number(0.1, 3600, whole=False),
        "Seconds that an attempt to connect to one host may take; default 10.",
        "SECONDS",
    ),
    Setting(
        "backoff_initial",
        _Number(0.01, 3600, whole=False),
        "The longest first wait between two attempts, in seconds; it doubles; default 0.5.",
        "SECONDS",
    ),
    Setting(
        "backoff_maximum",
        _Number(0.01, 86400, whole=False),
        "The longest wait between two attempts, in seconds; default 30.",
        "SECONDS",
    ),
    Setting("queue", Text(), "The queue to consume from.", "NAME"),
    Setting("declare", _Flag(), "Declare the queue if it does not exist."),
    Setting("durable", _Flag(), "Declare the queue durable (default)."),
    Setting("auto_delete", _Flag(), "Declare the queue auto-delete."),
    Setting(
        "queue_arguments",
        _Arguments(),
        "Optional argument of the declaration, such as x-dead-letter-exchange=dlx; may be repeated.",
        "NAME=VALUE",
        is_list=True,
    ),
    Setting("bind", _Bindings(), "Bind the queue to an exchange; may be repeated.", "EXCHANGE:KEY", is_list=True),
    Setting(
        "prefetch",
        _Number(1, 65535, word=UNLIMITED),
        "Unsettled messages that the broker may give us; default the larger of 20 and twice the concurrency.",
        "N",
    ),
    Setting(
        "concurrency",
        _Number(1, 65535),
        "Handlers at work at once; default the number of threads, or 1.",
        "N",
    ),
    Setting("consumer_tag", Text(), "The consumer tag; default: the broker makes one.", "TAG"),
    Setting("exclusive", _Flag(), "Refuse other consumers of the queue."),
    Setting(
        "dedupe_window",
        _Number(0, 10_000_000),
        "Remember so many message ids, and keep copies from the handler; 0 (default): none.",
        "N",
    ),
    Setting("handler", Text(), "The callable that is given each message.", "MODULE:CALLABLE"),
    Setting("app", Text(), "The module whose declared handlers (@consumes) are run, instead of --handler.", "MODULE"),
    Setting(
        "rpc",
        Texts(),
        "An RPCServer that is run, or a function that makes one of a connection; may be repeated.",
        "MODULE:SERVER",
        is_list=True,
    ),
    Setting(
        "celery",
        Texts(),
        "Tasks that are run for clients of Celery, or a CeleryWorker, or a function that makes one; may be repeated.",
        "MODULE:TASKS",
        is_list=True,
    ),
    Setting("threads", _Number(0, 1000), "Run the handler in this many threads; 0 (default): in the reactor.", "N"),
    Setting(
        "on_failure",
        Text(choices=("requeue_once", "reject", "retry")),
        "What to do with a message whose handler failed: requeue_once (default), reject, or retry with retry-delays.",
        "POLICY",
    ),
    Setting(
        "retry_delays",
        _Numbers(_Number(0.001, 2_592_000, whole=False), 20),
        "Seconds that a failed message waits at the broker before the next try; one for each try, may be repeated.",
        "SECONDS",
        is_list=True,
    ),
    Setting(
        "dead_letter",
        Text(),
        "The queue for messages that fail after all retries; default: QUEUE.dead.",
        "NAME",
    ),
    Setting(
        "publish_timeout",
        _Number(0.1, 3600, whole=False),
        "Seconds that a publish by the handler may take in all, over outages too; default 30.",
        "SECONDS",
    ),
    Setting(
        "requeue_delay",
        _Number(0, 3600, whole=False),
        "Seconds that a failed message is held before it goes back; default 1.",
        "SECONDS",
    ),
    Setting(
        "drain",
        _Number(0, 86400, whole=False),
        "Seconds that handlers at work are given to finish at SIGTERM or SIGINT; default 30.",
        "SECONDS",
    ),
)

SETTINGS_BY_NAME: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}

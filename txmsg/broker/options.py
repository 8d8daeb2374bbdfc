"""Every setting of `twistd txmsg-broker`, once: name, kind, help; and how a command line becomes a configuration.

The command line, the environment and the documentation follow :data:`SETTINGS`.  An option wins over its environment
variable (`TXMSG_BROKER_` and the name), that over the default.  Pure: nothing is opened here.

Invariants: whatever can be known to be wrong without a socket or a file is a :class:`OptionError` that says what to
change; no setting takes a password, so that none can be seen in the list of processes.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from txmsg.broker.kinds import Address, Choice, Flag, Kind, ListenAddress, Number, Size, Text
from txmsg.broker.limits import BrokerLimits
from txmsg.errors import ConfigurationError, clip

__all__ = ["DEFAULT_LISTEN", "SETTINGS", "BrokerConfig", "OptionError", "Setting", "load_options", "nearest_option"]

#: Where the broker listens when nobody says; the second only where the machine has IPv6.
DEFAULT_LISTEN: Final = (Address("127.0.0.1", 5672), Address("::1", 5672))

_MIB: Final = 1 << 20


class OptionError(ConfigurationError):
    """A setting that cannot be used; `on_command_line` says whether it was typed there."""

    def __init__(self, message: str, *, on_command_line: bool = False) -> None:
        super().__init__(message)
        self.on_command_line = on_command_line


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting.

    limit: the field of BrokerLimits that it sets; empty for those of BrokerConfig itself.
    is_list: may be given several times; in the environment, separated by commas or white space.
    is_path: relative to the current directory; made absolute, because a daemon may leave that.
    """

    name: str
    kind: Kind
    help: str
    metavar: str = ""
    limit: str = ""
    is_list: bool = False
    is_path: bool = False

    @property
    def option(self) -> str:
        """Its name on the command line, without the dashes before it."""
        return self.name.replace("_", "-")

    @property
    def environment(self) -> str:
        """Its environment variable."""
        return f"TXMSG_BROKER_{self.name.upper()}"

    @property
    def is_flag(self) -> bool:
        """Whether it is an option without a value."""
        return isinstance(self.kind, Flag)


def _limit(name: str, limit: str, kind: Kind, help: str, metavar: str = "N") -> Setting:
    default: Any = getattr(BrokerLimits(), limit)
    shown = f"{default // _MIB}MiB" if isinstance(kind, Size) and default % _MIB == 0 else f"{default:g}"
    return Setting(name=name, kind=kind, help=f"{help}; default {shown}.", metavar=metavar, limit=limit)


_COUNT: Final = Number(1, 1_000_000)

#: In the order in which the help shows them.
SETTINGS: Final[tuple[Setting, ...]] = (
    Setting(
        name="listen",
        kind=ListenAddress(),
        help="Listen there for AMQP; may be repeated. Default 127.0.0.1:5672 and [::1]:5672.",
        metavar="HOST:PORT",
        is_list=True,
    ),
    Setting(
        name="tls_listen",
        kind=ListenAddress(),
        help="Listen there for AMQP over TLS (the usual port is 5671); may be repeated.",
        metavar="HOST:PORT",
        is_list=True,
    ),
    Setting(
        name="tls_cert",
        kind=Text(),
        help="PEM file of our certificate and what signed it.",
        metavar="FILE",
        is_path=True,
    ),
    Setting(
        name="tls_key", kind=Text(), help="PEM file of its key; default: in --tls-cert.", metavar="FILE", is_path=True
    ),
    Setting(
        name="tls_ca",
        kind=Text(),
        help="PEM file of the authorities that client certificates must come from.",
        metavar="FILE",
        is_path=True,
    ),
    Setting(
        name="tls_verify",
        kind=Choice(("required", "optional")),
        help="Whether clients must show a certificate, with --tls-ca: required (default) or optional.",
        metavar="WHEN",
    ),
    Setting(
        name="allow_remote_plaintext",
        kind=Flag(),
        help="Let --listen and --management name addresses that other machines reach; passwords and messages can "
        "then be read on the network.",
    ),
    Setting(
        name="data_dir",
        kind=Text(),
        help="Keep durable queues and persistent messages in this directory. Without it everything is in memory.",
        metavar="DIR",
        is_path=True,
    ),
    Setting(
        name="users", kind=Text(), help="TOML file of the users and their permissions.", metavar="FILE", is_path=True
    ),
    Setting(
        name="definitions",
        kind=Text(),
        help="RabbitMQ definitions (JSON) to have at start: users, vhosts, exchanges, queues, bindings.",
        metavar="FILE",
        is_path=True,
    ),
    Setting(
        name="management",
        kind=ListenAddress(),
        help="Serve the management HTTP API there (RabbitMQ has it on port 15672).",
        metavar="HOST:PORT",
    ),
    Setting(name="strict_4", kind=Flag(), help="Refuse what RabbitMQ 4 refuses."),
    _limit(
        "max_memory",
        "broker_bytes",
        Size(_MIB),
        "Bytes that all queues may hold; beyond, publishers are blocked",
        "SIZE",
    ),
    _limit(
        "max_queue_memory",
        "queue_bytes",
        Size(64 << 10),
        "Bytes that one queue may hold; beyond, publishes to it are refused",
        "SIZE",
    ),
    _limit("max_message_size", "max_message_size", Size(1, 1 << 29), "Bytes of a message's body", "SIZE"),
    _limit("max_connections", "connections", _COUNT, "Connections"),
    _limit("max_connections_per_address", "connections_per_address", _COUNT, "Connections from one address"),
    _limit("max_unauthenticated", "unauthenticated", _COUNT, "Connections that have not logged in yet"),
    _limit("max_channels", "channels", Number(1, 65535), "Channels of a connection"),
    _limit("max_consumers", "consumers_per_channel", _COUNT, "Consumers of a channel"),
    _limit("max_unacked", "unacked_per_channel", _COUNT, "Deliveries of a channel without an ack"),
    _limit("max_queues", "queues", _COUNT, "Queues of a virtual host"),
    _limit("max_exchanges", "exchanges", _COUNT, "Exchanges of a virtual host, besides the standard ones"),
    _limit("max_bindings", "bindings", Number(1, 10_000_000), "Bindings of a virtual host"),
    _limit(
        "max_declared_memory",
        "topology_bytes",
        Size(_MIB),
        "Bytes that everything declared in a virtual host may take",
        "SIZE",
    ),
    _limit(
        "max_write_buffer",
        "write_buffer",
        Size(256 << 10),
        "Bytes that may wait for a client that does not read; beyond, it is dropped",
        "SIZE",
    ),
    _limit("frame_max", "frame_max", Size(4096, 1 << 20), "Bytes of a frame, as offered to clients", "SIZE"),
    _limit(
        "heartbeat",
        "heartbeat",
        Number(0, 65535),
        "Seconds between heartbeats, as offered to clients; 0 for none",
        "SECONDS",
    ),
    _limit(
        "handshake_timeout",
        "handshake_timeout",
        Number(0.1, 3600, whole=False),
        "Seconds that a client may take to log in",
        "SECONDS",
    ),
    _limit(
        "acknowledgement_timeout",
        "acknowledgement_timeout",
        Number(0, 1_000_000_000, whole=False),
        "Seconds that a delivery may stay without an ack; 0 for any time",
        "SECONDS",
    ),
)

_LIMITS: Final = {setting.name: setting.limit for setting in SETTINGS if setting.limit}


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """What `twistd txmsg-broker` is to run; see docs/broker.md for each setting.

    listen: empty for the default addresses, unless there is a `tls_listen`.  tls_verify: "required" or "optional".
    data_dir: None for a broker in memory.
    """

    listen: tuple[Address, ...] = ()
    tls_listen: tuple[Address, ...] = ()
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_ca: str | None = None
    tls_verify: str = "required"
    allow_remote_plaintext: bool = False
    data_dir: str | None = None
    users: str | None = None
    definitions: str | None = None
    management: Address | None = None
    strict_4: bool = False
    limits: BrokerLimits = field(default_factory=BrokerLimits)

    @property
    def uses_default_addresses(self) -> bool:
        """Whether nobody said where to listen."""
        return not self.listen and not self.tls_listen


def load_options(given: Mapping[str, Any], environ: Mapping[str, str]) -> BrokerConfig:
    """The configuration for `given` and the environment.

    :param given: setting names to text, to a list of texts (`is_list`), to True (flags); None where not given.
    :raises OptionError: when something cannot be used.
    """
    values: dict[str, Any] = {}
    labels: dict[str, tuple[str, bool]] = {}
    for setting in SETTINGS:
        typed = given.get(setting.name)
        variable = environ.get(setting.environment)
        if typed is not None and typed != []:
            source = f"option --{setting.option}"
            values[setting.name] = True if typed is True else _parse(setting, typed, source, on_command_line=True)
        elif variable:  # an empty one is how a shell or a unit file unsets it
            source = f"environment variable {setting.environment}"
            texts = re.split(r"[\s,]+", variable.strip(" ,")) if setting.is_list else variable
            values[setting.name] = _parse(setting, texts, source, on_command_line=False)
        else:
            continue
        labels[setting.name] = (source, source.startswith("option"))
    limits = {_LIMITS[name]: values.pop(name) for name in list(values) if name in _LIMITS}
    try:
        config = BrokerConfig(**values, limits=replace(BrokerLimits(), **limits))
    except ConfigurationError as error:
        raise OptionError(str(error)) from None
    _check_together(config, labels)
    return config


def _parse(setting: Setting, value: str | Sequence[str], source: str, *, on_command_line: bool) -> Any:
    try:
        if setting.is_list:
            return tuple(setting.kind.from_text(text) for text in value)
        assert isinstance(value, str)
        parsed = setting.kind.from_text(value)
    except ValueError as error:
        raise OptionError(f"{source}: {error}", on_command_line=on_command_line) from None
    return os.path.abspath(str(parsed)) if setting.is_path else parsed


def _check_together(config: BrokerConfig, labels: Mapping[str, tuple[str, bool]]) -> None:
    """Settings that make sense only together."""

    def refuse(name: str, problem: str) -> OptionError:
        source, on_command_line = labels[name]
        return OptionError(f"{source}: {problem}", on_command_line=on_command_line)

    if config.tls_listen and not config.tls_cert:
        raise refuse("tls_listen", "needs a certificate: set --tls-cert too")
    for name in ("tls_cert", "tls_key", "tls_ca"):
        if name in labels and not config.tls_listen:
            raise refuse(name, "has no effect without --tls-listen")
    if "tls_verify" in labels and not config.tls_ca:
        raise refuse("tls_verify", "has no effect without --tls-ca")
    plain = [("listen", address) for address in config.listen]
    if config.management is not None:
        plain.append(("management", config.management))
    for name, address in plain:
        if not address.is_loopback and not config.allow_remote_plaintext:
            instead = "use --tls-listen, or " if name == "listen" else ""
            raise refuse(
                name,
                f"{address} can be reached from other machines, and what is sent there can be read on the way: "
                f"{instead}set --allow-remote-plaintext if that is meant",
            )
    if config.limits.queue_bytes > config.limits.broker_bytes and "max_queue_memory" in labels:
        raise refuse("max_queue_memory", "must not be above --max-memory")


def nearest_option(name: str) -> str:
    """A hint for an option that does not exist: the nearest one, or where to find them all."""
    near = difflib.get_close_matches(name.lower(), [setting.option for setting in SETTINGS], n=1, cutoff=0.6)
    return f"did you mean --{near[0]}?" if near else "see twistd txmsg-broker --help"


# A limit's name that BrokerLimits does not have would be found by the first user only.
assert set(_LIMITS.values()) <= {entry.name for entry in fields(BrokerLimits)}, clip(str(_LIMITS))

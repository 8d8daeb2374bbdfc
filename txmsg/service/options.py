"""The command line of `twistd txmsg-consumer`.

Made from the table in :mod:`txmsg.service.settings`.  Everything that can be known to be wrong without a
broker is found here, before `twistd` forks: one line on standard error, exit code 64 or 78.  (A
`usage.UsageError` would make `twistd` print its whole help, on standard output, and exit 1.)
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.python import usage

from txmsg import __version__
from txmsg.errors import ConfigurationError
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.connection import connection_targets
from txmsg.service.exit import ProcessExit, say
from txmsg.service.exit_codes import ExitCode
from txmsg.service.plan import ConsumerPlan, plan_consumers
from txmsg.service.servers import ServerPlan, plan_servers
from txmsg.service.settings import SETTINGS, SettingError, nearest_name

__all__ = ["ConsumerOptions"]

_FLAGS = [s for s in SETTINGS if s.is_option and s.is_flag]
_LISTS = [s for s in SETTINGS if s.is_option and s.is_list]
_VALUES = [s for s in SETTINGS if s.is_option and not s.is_flag and not s.is_list]


class ConsumerOptions(usage.Options):
    """Parses the options, reads the file and the environment, imports the handler.

    After `parseOptions`: `settings` is the ConsumerConfig, `plans` and `servers` what it is to do, with the handlers,
    `process_exit` what holds the exit code.  `environ` is where the environment variables are looked up.
    """

    synopsis = "[options]"
    longdesc = (
        "Consumes an AMQP 0-9-1 queue and calls a Python function for each message, or runs RPC servers and Celery "
        "tasks. Every option but --config can also "
        "stand in the TOML file, with underscores for dashes. The password comes from TXMSG_PASSWORD, from a file or "
        "from the URL."
    )
    optFlags = [
        *([s.option, None, s.help] for s in _FLAGS),
        *([f"no-{s.option}", None, f"The opposite of --{s.option}, where the file has it."] for s in _FLAGS),
    ]
    optParameters = [
        ["config", "c", None, "A TOML file with the same settings."],
        *([s.option, None, None, s.help] for s in _VALUES),
    ]
    environ: Mapping[str, str] = os.environ
    settings: ConsumerConfig
    plans: list[ConsumerPlan]
    servers: list[ServerPlan]
    process_exit: ProcessExit

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for setting in _LISTS:
            self[setting.name] = []

    def opt_url(self, value: str) -> None:
        """The broker: amqp://host/vhost, amqps:// for TLS; may be repeated, for several hosts."""
        self["url"].append(value)

    def opt_retry_delays(self, value: str) -> None:
        """Seconds that a failed message waits at the broker before the next try; may be repeated."""
        self["retry_delays"].append(value)

    def opt_rpc(self, value: str) -> None:
        """An RPCServer, MODULE:SERVER, or a function that makes one of a connection; may be repeated."""
        self["rpc"].append(value)

    def opt_celery(self, value: str) -> None:
        """Tasks for clients of Celery, MODULE:TASKS, or a CeleryWorker, or a function of it; may be repeated."""
        self["celery"].append(value)

    def opt_bind(self, value: str) -> None:
        """Bind the queue to an exchange, as EXCHANGE:KEY; may be repeated."""
        self["bind"].append(value)

    def opt_queue_arguments(self, value: str) -> None:
        """An argument of the declaration, as NAME=VALUE; may be repeated."""
        self["queue_arguments"].append(value)

    def opt_password(self, _value: str) -> NoReturn:
        """Refused, as it could be seen in the list of processes: set TXMSG_PASSWORD or --password-file."""
        # Without this, getopt would take it for an abbreviation of --password-file, and the error show its value.
        raise usage.UsageError("--password would be seen in the list of processes: set TXMSG_PASSWORD instead")

    def opt_version(self) -> NoReturn:
        """Print the version and exit."""
        print(f"txmsg {__version__}")  # noqa: T201 - what was asked for
        raise SystemExit(0)

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse; what is wrong with the command line ends the process with code 64."""
        try:
            super().parseOptions(options)  # type: ignore[no-untyped-call]
        except usage.UsageError as error:
            _give_up(_improve(str(error)), ExitCode.USAGE)

    def parseArgs(self, *arguments: str) -> None:
        """Refuse words that belong to no option."""
        if arguments:
            raise usage.UsageError(f"unexpected argument {arguments[0]!r}: everything is given by options")

    def postOptions(self) -> None:
        """Check everything together, and import the handler."""
        self.process_exit = ProcessExit()
        self.process_exit.register()
        try:
            self.settings = load_config(self._given(), self.environ)
            connection_targets(self.settings)
            self.plans = plan_consumers(self.settings) if self.settings.has_handlers else []
            self.servers = plan_servers(self.settings)
        except SettingError as error:
            _give_up(str(error), error.exit_code)
        except ConfigurationError as error:
            _give_up(str(error), ExitCode.CONFIGURATION)

    def _given(self) -> dict[str, Any]:
        """What stood on the command line, by the names of the settings."""
        given: dict[str, Any] = {"config": self["config"]}
        for setting in _FLAGS:
            on, off = self[setting.option], self[f"no-{setting.option}"]
            if on and off:
                raise usage.UsageError(f"--{setting.option} and --no-{setting.option} contradict each other")
            given[setting.name] = True if on else False if off else None
        for setting in _VALUES:
            given[setting.name] = self[setting.option]
        for setting in _LISTS:
            given[setting.name] = self[setting.name] or None
        return given


def _improve(problem: str) -> str:
    """getopt's words for an unknown option, with the nearest known one."""
    words = problem.split()
    if problem.startswith("option --") and problem.endswith("not recognized"):
        known = ["config", *(s.option for s in SETTINGS if s.is_option), *(f"no-{s.option}" for s in _FLAGS)]
        name = words[1].removeprefix("--").removesuffix(",")
        return f"unknown option --{name}; {nearest_name(name, known)}"
    return problem


def _give_up(problem: str, code: int) -> NoReturn:
    say(f"{problem} (exit code {int(code)})")
    sys.exit(int(code))

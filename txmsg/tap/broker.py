"""What `twistd` loads for `txmsg-broker`: the command line and the service.

The settings are the table in :mod:`txmsg.broker.options`.  What can be known to be wrong before anything listens is
found here, before `twistd` forks: one line on standard error, exit code 64 or 78.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from twisted.python import usage

from txmsg import __version__
from txmsg.broker.exit_codes import ExitCode
from txmsg.broker.options import SETTINGS, BrokerConfig, OptionError, load_options, nearest_option
from txmsg.broker.service import BrokerService
from txmsg.errors import ConfigurationError
from txmsg.service.exit import ProcessExit, say

__all__ = ["Options", "makeService"]

PROGRAM = "txmsg-broker"

_FLAGS = [s for s in SETTINGS if s.is_flag]
_LISTS = [s for s in SETTINGS if s.is_list]
_VALUES = [s for s in SETTINGS if not s.is_flag and not s.is_list]


class Options(usage.Options):
    """Parses the options and the environment, and reads the files they name.

    After `parseOptions`: `config` is the BrokerConfig, `service` the BrokerService that will run it, `process_exit`
    what holds the exit code.  `environ` is where the environment variables are looked up.
    """

    synopsis = "[options]"
    longdesc = (
        "Runs an AMQP 0-9-1 broker that answers as RabbitMQ 3 does. Every option can also be an environment variable: "
        "TXMSG_BROKER_ and its name in capitals, with underscores for dashes. Without --users and --definitions there "
        "is the user guest with the password guest, from this machine only."
    )
    optFlags = [[s.option, None, s.help] for s in _FLAGS]
    optParameters = [[s.option, None, None, s.help] for s in _VALUES]
    environ: Mapping[str, str] = os.environ
    config: BrokerConfig
    service: BrokerService
    process_exit: ProcessExit

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        for setting in _LISTS:
            self[setting.name] = []

    def opt_listen(self, value: str) -> None:
        """Listen there for AMQP, as HOST:PORT; may be repeated. Default 127.0.0.1:5672 and [::1]:5672."""
        self["listen"].append(value)

    def opt_tls_listen(self, value: str) -> None:
        """Listen there for AMQP over TLS, as HOST:PORT (the usual port is 5671); may be repeated."""
        self["tls_listen"].append(value)

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
        """Check everything together, and read the files."""
        self.process_exit = ProcessExit(program=PROGRAM)
        self.process_exit.register()
        try:
            self.config = load_options(self._given(), self.environ)
            self.service = BrokerService(self.config)
        except OptionError as error:
            _give_up(str(error), ExitCode.USAGE if error.on_command_line else ExitCode.CONFIGURATION)
        except ConfigurationError as error:
            _give_up(str(error), ExitCode.CONFIGURATION)

    def _given(self) -> dict[str, Any]:
        """What stood on the command line, by the names of the settings."""
        given: dict[str, Any] = {setting.name: self[setting.name] for setting in _LISTS}
        given |= {setting.name: self[setting.option] for setting in _VALUES}
        given |= {setting.name: True for setting in _FLAGS if self[setting.option]}
        return given


def makeService(options: Options) -> BrokerService:
    """The service for parsed `options`, wired to the process: its end is the process's end and exit code."""
    # The reactor that twistd's --reactor chose is installed by now; importing it earlier would choose for it.
    from twisted.internet import reactor

    options.process_exit.watch(options.service, reactor)
    return options.service


def _improve(problem: str) -> str:
    """getopt's words for an unknown option, with the nearest known one."""
    words = problem.split()
    if problem.startswith("option --") and problem.endswith("not recognized"):
        name = words[1].removeprefix("--").removesuffix(",")
        return f"unknown option --{name}; {nearest_option(name)}"
    return problem


def _give_up(problem: str, code: int) -> NoReturn:
    say(f"{problem} (exit code {int(code)})", PROGRAM)
    sys.exit(int(code))

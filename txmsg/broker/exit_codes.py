"""The exit codes of `twistd txmsg-broker`; where the consumer service has the same case, it is the same number.

The table is public (docs/broker.md): process supervisors decide by it whether to restart.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

__all__ = ["BrokerOutcome", "ExitCode"]


class ExitCode(enum.IntEnum):
    """The published exit codes."""

    OK = 0
    """Stopped on request."""
    START = 11
    """Something unexpected at start; the log has the traceback."""
    LISTEN = 14
    """An address to listen on is in use, not ours, or not allowed."""
    USAGE = 64
    """The command line cannot be understood."""
    DATA = 74
    """The data directory cannot be used, or what was to be kept could not be written."""
    UNFINISHED = 75
    """Stopped on request, but not everything could be closed in time."""
    CONFIGURATION = 78
    """A setting, or a file that one names, cannot be used."""


@dataclass(frozen=True, slots=True)
class BrokerOutcome:
    """How the broker ended: the process's exit code, one line, and how much was cut short."""

    exit_code: int
    line: str
    unfinished: int = 0

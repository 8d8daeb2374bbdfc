"""The command `txmsg`.

    txmsg migrate FILE...       which lines use pika's Twisted adapter or txamqp, and what the native form is

The long-running programs are twistd's: `twistd txmsg-consumer`, `twistd txmsg-broker`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from txmsg import __version__
from txmsg.migrate import run

__all__ = ["main"]

_EPILOG = "Exit status: 0 nothing is left to move, 1 something is, 2 a file or folder could not be read."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="txmsg", description="Tools of txmsg.")
    parser.add_argument("--version", action="version", version=f"txmsg {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    migrate = commands.add_parser(
        "migrate",
        help="report what uses pika's Twisted adapter or txamqp",
        description="Report the lines that use pika's Twisted adapter or txamqp, with the native form.",
        epilog=_EPILOG,
    )
    migrate.add_argument("paths", nargs="+", metavar="FILE", help="a Python file, or a folder with some")
    migrate.add_argument(
        "--all-files",
        action="store_true",
        help="look for channel methods also in files that import neither library",
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments` (default: those of the process); returns the exit status."""
    given = _parser().parse_args(arguments)
    try:
        code = run(given.paths, sys.stdout, sys.stderr, all_files=given.all_files)
        sys.stdout.flush()
    except BrokenPipeError:  # `txmsg migrate . | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code


if __name__ == "__main__":
    sys.exit(main())

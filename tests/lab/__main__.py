"""Runs rows, each in a process of its own, prints a JSON line for each, and a table at the end.

    python -m tests.lab [--long] [--write] [row ...]

--long: all rows, with many more runs of each.   --write: put the lines into docs/reliability.jsonl and its table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from typing import TextIO

from tests.lab import table
from tests.lab.catalogue import ROWS
from tests.lab.rows import Row, chosen
from txmsg.testing.disruption import Report
from txmsg.testing.rabbitmq import RabbitMQMissing, find_rabbitmq_server

__all__ = ["main", "run_here", "run_row"]


def run_here(name: str, client: str, is_long: bool) -> Report:
    """Run a row in this process; AssertionError if it is not as it must be."""
    row = ROWS[name]
    report = row.run(is_long, client)
    report = replace(report, extra={"harness": row.harness} | report.extra)
    if report.peak_rss is None:
        report = replace(report, peak_rss=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if client == "txmsg":
        report.check()
    return report


def run_row(row: Row, client: str, is_long: bool) -> Report | None:
    """Run a row in a process of its own, which is ended at its limit; None if it failed, with the reason printed."""
    command = [sys.executable, "-m", "tests.lab", "--here", "--client", client, *(["--long"] * is_long), row.name]
    limit = row.limit * (12 if is_long and row.harness == "SIM" else 1)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        _say(f"{row.name} {client}: not done within {limit:g} s", sys.stderr)
        return None
    if process.returncode:
        _say(f"{row.name} {client}: failed", sys.stderr)
        return None
    return Report.from_json(output.splitlines()[-1])


def _say(text: str, where: TextIO | None = None) -> None:
    stream = sys.stdout if where is None else where
    stream.write(text + "\n")
    stream.flush()


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("rows", nargs="*", help="F1, or F1:SIM; none: the quick ones")
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--client", action="append", default=[], help="txmsg, pika, aio-pika; none: all that can")
    parser.add_argument("--here", action="store_true", help="one row in this process")
    return parser.parse_args(given)


def main(given: list[str]) -> int:
    """Run what is asked for; 1 if a row failed."""
    options = _arguments(given)
    if options.here:
        _say(run_here(options.rows[0], options.client[0], options.long).as_json())
        return 0
    try:
        find_rabbitmq_server()
    except RabbitMQMissing as error:
        _say(f"only the simulated rows: {error}", sys.stderr)
        rows = [row for row in chosen(options.rows, options.long) if row.harness == "SIM"]
    else:
        rows = chosen(options.rows, options.long)
    reports, failed = [], []
    for row in rows:
        for client in row.clients:
            if options.client and client not in options.client:
                continue
            began = time.monotonic()
            report = run_row(row, client, options.long)
            _say(f"{row.name} {client}: {time.monotonic() - began:.1f} s", sys.stderr)
            if report is None:
                failed.append(f"{row.name} {client}")
                continue
            _say(report.as_json())
            reports.append(report)
            if options.write:
                table.write([report])
    _say(table.table_of(reports))
    _say(f"{len(reports)} rows are as promised, {len(failed)} failed{': ' if failed else ''}{', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

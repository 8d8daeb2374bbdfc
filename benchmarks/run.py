"""The runner: every (client, operation, size) in a process of its own, round by round, on one broker.

Within a round all clients do the same task one after the other, and their order turns from round to
round, so that whatever else the machine does meets all of them alike.  A client whose run fails, or that is
not installed, is left out by name; nothing is left out silently.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from benchmarks import rabbitmqc
from benchmarks.broker import broker_url
from benchmarks.plan import CLIENTS, OPERATIONS, SIZES, message_count
from benchmarks.report import DOCS, ROOT, environment_lines, replace_block, result_tables, target_table
from benchmarks.results import Row, rows_of, save_rows, targets_of
from benchmarks.task import URL_VARIABLE, Task

__all__ = ["main"]

RESULTS = ROOT / "benchmarks" / "results.json"
QUEUE = "txmsg.benchmark"
#: A run takes a few seconds; one that takes this long hangs.
RUN_LIMIT = 180.0
MAX_ROUNDS = 25


class RunFailed(Exception):
    """A measured program failed, hung, or lost messages; the text says which and how."""


class Comparison:
    """The clients that can run here, and their measurements so far."""

    def __init__(self, url: str, clients: Sequence[str], directory: Path) -> None:
        self.url = url
        self.runs: list[Row] = []
        self.left_out: dict[str, str] = {}
        self._c_program: Path | None = None
        for name in clients:
            if not CLIENTS[name].is_installed:
                self.left_out[name] = f"{CLIENTS[name].distribution} is not installed"
            elif CLIENTS[name].module is None:
                try:
                    self._c_program = rabbitmqc.build(directory)
                except rabbitmqc.Unavailable as reason:
                    self.left_out[name] = str(reason)
        self.clients = [name for name in clients if name not in self.left_out]

    @property
    def c_version(self) -> str | None:
        """The version of the C library, if its row is there."""
        return rabbitmqc.library_version() if self._c_program else None

    def measure(self, client: str, task: Task) -> Row:
        """Run one process and read its line.

        :raises RunFailed: if there is no such line, or bytes are missing.
        """
        module = CLIENTS[client].module
        if module is None:
            assert self._c_program is not None
            command = rabbitmqc.command(self._c_program, task)
        else:
            arguments = {"queue": task.queue, "operation": task.operation.name, "size": task.size, "count": task.count}
            command = [sys.executable, "-m", module, *(f"--{key}={value}" for key, value in arguments.items())]
        environment = {**os.environ, URL_VARIABLE: self.url, **rabbitmqc.credentials(self.url)}
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=RUN_LIMIT, check=False
            )
        except subprocess.TimeoutExpired:
            raise RunFailed(f"no result within {RUN_LIMIT:.0f} s") from None
        if done.returncode or not done.stdout:
            raise RunFailed(f"exit {done.returncode}: {(done.stderr.strip().splitlines() or ['no output'])[-1]}")
        result = json.loads(done.stdout.splitlines()[-1])
        if task.operation.consumes and result["received_bytes"] != task.count * task.size:
            raise RunFailed(f"received {result['received_bytes']} of {task.count * task.size} bytes")
        return Row(
            client,
            task.operation.name,
            task.size,
            task.count / result["seconds"],
            1e6 * result["cpu_seconds"] / task.count,
        )

    def drop(self, client: str, reason: str) -> None:
        """Leave a client out from now on, with what it did so far."""
        self.left_out[client] = reason
        self.clients.remove(client)
        self.runs = [row for row in self.runs if row.client != client]


def run_round(comparison: Comparison, options: argparse.Namespace, number: int) -> None:
    """Measure every operation and size once for every client."""
    from benchmarks.queue import MeasuredQueue

    queue = MeasuredQueue(comparison.url, QUEUE)
    turn = number % max(1, len(comparison.clients))
    for operation in options.operations:
        for size in options.sizes:
            for client in [*comparison.clients[turn:], *comparison.clients[:turn]]:
                task = Task(
                    comparison.url, QUEUE, OPERATIONS[operation], size, message_count(size, quick=options.quick)
                )
                queue.purge()
                if task.operation.consumes:
                    queue.fill(task.count, size)
                try:
                    row = comparison.measure(client, task)
                    if (left := queue.settled_count()) != task.expected_messages:
                        raise RunFailed(f"{left} messages in the queue afterwards, not {task.expected_messages}")
                except RunFailed as failure:
                    print(f"round {number + 1}: {client} is left out: {operation}, {size} B: {failure}", flush=True)
                    comparison.drop(client, f"{operation}, {size} B: {failure}")
                    continue
                comparison.runs.append(row)
                print(
                    f"round {number + 1}: {operation:17} {size:6} B  {client:13}"
                    f"{row.rate_per_s:10,.0f}/s {row.cpu_us_per_message:9.2f} us",
                    flush=True,
                )
    queue.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; 0 if every client that is installed gave its numbers, 1 otherwise."""
    options = read_options(arguments)
    if not CLIENTS["py-amqp"].is_installed:
        print("the peers are not installed: pip install -e '.[bench]'", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="txmsg-bench-") as directory, broker_url() as url:
        from benchmarks.queue import MeasuredQueue

        comparison = Comparison(url, options.clients, Path(directory))
        installed = list(comparison.clients)
        queue = MeasuredQueue(url, QUEUE)
        broker = queue.broker_version
        queue.fill(message_count(SIZES[0], quick=options.quick), SIZES[0])  # warms the broker up
        queue.close()
        for number in range(options.rounds):
            run_round(comparison, options, number)
        environment = environment_lines(broker, comparison.c_version, options.rounds)
    rows = in_order(rows_of(comparison.runs))
    targets = targets_of(rows)
    tables, verdicts = result_tables(rows, comparison.runs), target_table(targets)
    left_out = "".join(f"- {name} is left out: {reason}\n" for name, reason in comparison.left_out.items())
    print(f"\n{environment}\n{left_out}\n{tables}\n\n### Targets\n\n{verdicts}")
    if options.json:
        save_rows(rows, options.json)
    if is_complete(options, comparison):
        save_rows(rows, RESULTS)
        replace_block(DOCS, "environment", f"{environment}\n{left_out}")
        replace_block(DOCS, "results", tables)
        replace_block(DOCS, "targets", verdicts)
        print(f"\nwritten: {RESULTS.relative_to(ROOT)}, {DOCS.relative_to(ROOT)}")
    else:
        print("\nnot a whole run: benchmarks/results.json and docs/benchmarks.md were left alone")
    return 0 if comparison.clients == installed else 1


def in_order(rows: Sequence[Row]) -> list[Row]:
    """The rows in the order of the plan, whatever the order of the first round was."""
    clients, operations = list(CLIENTS), list(OPERATIONS)
    return sorted(rows, key=lambda row: (operations.index(row.operation), row.size, clients.index(row.client)))


def is_complete(options: argparse.Namespace, comparison: Comparison) -> bool:
    """Whether this run may replace the published numbers: everything but a missing C compiler was measured."""
    return (
        not options.quick
        and options.operations == list(OPERATIONS)
        and options.sizes == list(SIZES)
        and all(name in comparison.clients for name, client in CLIENTS.items() if client.module)
    )


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--clients", type=_choice(CLIENTS), default=list(CLIENTS), help="comma separated names")
    parser.add_argument("--operations", type=_choice(OPERATIONS), default=list(OPERATIONS))
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3, help=f"1 to {MAX_ROUNDS}, default 3")
    parser.add_argument("--quick", action="store_true", help="one round of few messages, to see that all works")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    options = parser.parse_args(arguments)
    if options.quick:
        options.rounds = 1
    if not 1 <= options.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds is 1 to {MAX_ROUNDS}")
    return options


def _choice(known: Collection[str]) -> Callable[[str], list[str]]:
    """A reader of comma separated names that must be among `known`; the order of `known` is kept."""

    def read(text: str) -> list[str]:
        wanted = text.split(",")
        if unknown := [name for name in wanted if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not among {', '.join(known)}")
        return [name for name in known if name in wanted]

    return read

"""Real rows: a client in a process of its own, a broker (or several), and what is done to them.

This side has no reactor, but for the proxy's in a thread: it starts, kills, waits, and counts at the end.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.lab.recorder import StateTimes, replay
from tests.lab.workload import Settings
from txmsg.testing.disruption import DisruptionProxy, QueueChecker, Report
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["Child", "Proxied", "Run", "listening_since", "proxied", "restart", "run"]

ROOT = Path(__file__).resolve().parents[2]


class Child:
    """A client that runs the workload.   prefix: what goes before its command, such as `ip netns exec name`.

    lines: list -- the events so far.   process: Popen.
    """

    def __init__(self, client: str, settings: Settings, prefix: tuple[str, ...] = ()) -> None:
        self.client = client
        self.lines: list[list[Any]] = []
        self._changed = threading.Condition()
        command = [*prefix, sys.executable, "-m", "tests.lab.child", client, json.dumps(dataclasses.asdict(settings))]
        path = os.pathsep.join(filter(None, [str(Path.cwd()), os.environ.get("PYTHONPATH")]))
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, PYTHONPATH=path),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                with contextlib.suppress(json.JSONDecodeError):  # the last one of a process that was killed
                    self.lines.append(json.loads(line))
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def command(self, line: str) -> None:
        """Tell it something."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def wait_for(self, condition: Callable[[], bool], limit: float, what: str) -> None:
        """Wait until the lines say so; AssertionError after `limit` seconds, or if the process is gone."""
        end = time.monotonic() + limit
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0 or (self.process.poll() is not None and not self._reader.is_alive()):
                    last = [line for line in self.lines if line[0] in ("state", "error", "note")][-8:]
                    raise AssertionError(f"{self.client}: not {what} within {limit:g} s; last: {last}")
                self._changed.wait(min(left, 0.5))

    def count(self, kind: str, after: float = 0.0) -> int:
        """How many events of a kind there are."""
        return sum(line[0] == kind and line[1] >= after for line in self.lines)

    def confirmed(self, after: float = 0.0) -> int:
        """How many confirms there are."""
        return sum(line[0] == "ended" and line[3] == "confirmed" and line[1] >= after for line in self.lines)

    def publishes_again(self, since: float, limit: float = 60.0) -> None:
        """Wait until fifty messages were confirmed since then."""
        self.wait_for(lambda: self.confirmed(since) > 50, limit, "publishing again")

    def stop(self, limit: float) -> None:
        """Let it come to its end."""
        self.command("stop")
        self.wait_for(lambda: self.count("done") > 0, limit, "done")
        self.process.wait(20)
        self._reader.join(5)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()
        self._reader.join(5)
        self.lines.append(["killed", time.monotonic()])

    def close(self) -> None:
        """End it, if it is there."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
        self._reader.join(5)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


class Run:
    """One real run: children, faults, and the report.

    faults: list of (began, healed), in monotonic seconds.
    """

    def __init__(self, fault: str, client: str) -> None:
        self.fault = fault
        self.client = client
        self.faults: list[tuple[float, float]] = []
        self.children: list[Child] = []
        self.times = StateTimes()
        self.confirms: list[float] = []

    def start(self, settings: Settings, limit: float = 60.0, prefix: tuple[str, ...] = (), handled: int = 20) -> Child:
        """Start a client, and wait until it has handled some messages.   prefix: goes before its command."""
        child = Child(self.client, settings, prefix)
        self.children.append(child)
        child.wait_for(lambda: child.count("started") > 0, limit, "started")
        child.wait_for(lambda: child.count("handled") >= handled, limit, "under way")
        return child

    def report(self, *, drained: dict[str, list[str]] | None = None, **extra: Any) -> Report:
        """What came of it.  Call it when the children are done.   drained: ids that were left, by queue."""
        checker = QueueChecker(self.fault, client=self.client)
        for child in self.children:
            times, confirms = replay(child.lines, checker)
            self.times.steps += times.steps
            self.confirms += confirms
            done = [line[2] for line in child.lines if line[0] == "done"]
            if done:
                checker.measured(peak_rss=done[0].get("peak_rss"), longest_stall=done[0].get("longest_stall"))
                extra |= {name: value for name, value in done[0].items() if name == "dropped"}
        for queue, ids in (drained or {}).items():
            checker.drained(ids, queue=queue)
        self.times.tell(checker, self.faults)
        extra["reconnects"] = self.times.reconnects()
        extra["longest_confirm_gap"] = round(self.longest_gap(), 2)
        return dataclasses.replace(checker.report(), extra=extra)

    def longest_gap(self) -> float:
        """The longest time between two confirms."""
        found = sorted(self.confirms)
        return max((later - earlier for earlier, later in itertools.pairwise(found)), default=0.0)

    def close(self) -> None:
        """End what is left."""
        for child in self.children:
            child.close()


@contextlib.contextmanager
def run(fault: str, client: str) -> Iterator[Run]:
    """A run that leaves nothing behind."""
    made = Run(fault, client)
    try:
        yield made
    finally:
        made.close()


def _listens(port: int) -> bool:
    """Whether something listens on the port; seen without a connection of our own."""
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(path).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[1].endswith(f":{port:04X}"):
                return True
    return False


def listening_since(port: int, limit: float = 90.0, *, is_up: bool = True) -> float:
    """Wait until something listens on the port (or nothing does any more); when that was."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if _listens(port) is is_up:
            return time.monotonic()
        time.sleep(0.02)
    raise AssertionError(f"{'nothing' if is_up else 'something'} listens on port {port} for {limit:g} s")


def restart(node: RabbitMQNode) -> float:
    """Start a node that is down; returns the moment at which it listened."""
    failures: list[BaseException] = []
    # Its processes die one after the other: the old listener may still be there.
    listening_since(node.port, is_up=False)

    def start() -> None:
        try:
            node.start()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    up = listening_since(node.port)
    thread.join(120)
    if failures:
        raise failures[0]
    return up


class Proxied:
    """A proxy that runs in a thread; `call` does something to it there."""

    def __init__(self, host: str, port: int) -> None:
        from twisted.internet import reactor as installed

        self._reactor: Any = installed
        self._thread = threading.Thread(target=self._reactor.run, args=(False,), daemon=True)
        self._thread.start()
        self.proxy = DisruptionProxy(host, port, reactor=self._reactor)
        self.call(self.proxy.start)

    def call(self, what: Callable[[], Any]) -> Any:
        """Call it in the reactor's thread, and wait for its result."""
        from twisted.internet.threads import blockingCallFromThread

        return blockingCallFromThread(self._reactor, what)

    def close(self) -> None:
        """End it."""
        self.call(self.proxy.stop)
        self._reactor.callFromThread(self._reactor.stop)
        self._thread.join(10)


@contextlib.contextmanager
def proxied(host: str, port: int) -> Iterator[Proxied]:
    """A proxy before a broker; once in a process, for a reactor cannot be started again."""
    made = Proxied(host, port)
    try:
        yield made
    finally:
        made.close()

"""Memory: `python -m benchmarks.memory` watches a consumer and two publishers and says whether they stay in bounds.

The consumer takes 100,000 messages of 64 KiB with a prefetch of 100: its resident set has to stay flat.  The
publishers publish without ever waiting into a connection that has stopped reading: what the process grows by
has to stay within the outbox's bound.  The broker is the one of the benchmarks; between it and the
publisher stands a forwarder that stops.  Exit status 1 if a bound was broken.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any
from urllib.parse import urlsplit

from benchmarks.broker import broker_url
from benchmarks.memory_tasks import BODY_SIZE
from benchmarks.report import DOCS, ROOT, replace_block
from benchmarks.task import URL_VARIABLE
from txmsg.testing.ports import free_ports

__all__ = ["ConsumerMemory", "PublisherMemory", "measure_consumer", "measure_publisher"]

MIB = 1024 * 1024
MESSAGES = 100_000
#: What a flat resident set may move by: the prefetched bodies (100 of 64 KiB) and the allocator's slack.
FLAT_WITHIN = 16 * MIB
#: What a publisher may grow by beyond its outbox: the transport's buffer, the socket's, objects per message.
BEYOND_OUTBOX = 32 * MIB
#: The forwarder passes this much from the client and then reads no more.
FORWARDED_BYTES = 256 * 1024
LIMIT = 900.0


@dataclass(frozen=True, slots=True)
class ConsumerMemory:
    """The consumer's resident set, in bytes, sampled over the run; the first sample is before any message."""

    messages: int
    samples: Sequence[int]

    @property
    def settled(self) -> int:
        """The resident set after the first tenth of the messages."""
        return self.samples[len(self.samples) // 10]

    @property
    def growth(self) -> int:
        """The median of the last tenth, less the median of the tenth after the first one."""
        tenth = max(1, len(self.samples) // 10)
        return int(median(self.samples[-tenth:]) - median(self.samples[tenth : 2 * tenth]))

    @property
    def is_flat(self) -> bool:
        """Whether it neither grew nor ever rose beyond the allowance."""
        return self.growth <= FLAT_WITHIN // 4 and max(self.samples) - self.settled <= FLAT_WITHIN

    def __str__(self) -> str:
        return (
            f"consumer, prefetch 100, {self.messages:,} messages of 64 KiB: resident set {_mib(self.samples[0])} "
            f"at first, {_mib(self.settled)} after a tenth, {_mib(self.samples[-1])} at last, "
            f"{_mib(max(self.samples))} at most"
        )


@dataclass(frozen=True, slots=True)
class PublisherMemory:
    """How a publisher that never waits grew, in bytes, against a connection that stopped reading."""

    title: str
    size: int
    max_bytes: int
    before: int
    highest: int
    held: int
    refused: int

    @property
    def growth(self) -> int:
        """Highest resident set less the one before the first publish."""
        return self.highest - self.before

    @property
    def is_bounded(self) -> bool:
        """Whether it refused what did not fit, and stayed within the bound."""
        return self.refused > 0 and self.growth <= self.max_bytes + BEYOND_OUTBOX

    def __str__(self) -> str:
        return (
            f"{self.title}, {self.size:,} B: {self.held:,} held, {self.refused:,} refused (Overloaded), grew by "
            f"{_mib(self.growth)} (outbox {_mib(self.max_bytes)}, allowed {_mib(self.max_bytes + BEYOND_OUTBOX)})"
        )


class StoppingForwarder:
    """A TCP forwarder for one connection that stops reading from the client after some bytes.

    The other direction goes on, so that the client sees a live broker that has stopped to take anything.
    """

    def __init__(self, host: str, port: int, limit: int) -> None:
        self._target, self._limit = (host, port), limit
        self._listener = socket.create_server(("127.0.0.1", free_ports(1)[0]))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            client, _ = self._listener.accept()
            server = socket.create_connection(self._target)
            self._sockets += [client, server]
            threading.Thread(target=self._copy, args=(server, client, None), daemon=True).start()
            self._copy(client, server, self._limit)
        except OSError:
            return  # closed

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, left: int | None) -> None:
        try:
            while left is None or left > 0:
                data = source.recv(65536 if left is None else min(left, 65536))
                if not data:
                    return
                sink.sendall(data)
                left = None if left is None else left - len(data)
        except OSError:
            return  # closed

    def close(self) -> None:
        for each in self._sockets:
            each.close()


def measure_consumer(url: str, messages: int = MESSAGES) -> ConsumerMemory:
    """Feed and watch the consumer."""
    with _queue(url) as queue:
        feeder = _start("feeder", url, queue=queue, count=messages)
        try:
            result = _finish(_start("consumer", url, queue=queue, count=messages))
            _finish(feeder)
        finally:
            feeder.kill()
    if result["received_bytes"] != messages * BODY_SIZE:
        raise RuntimeError(f"the consumer received {result['received_bytes']} bytes")
    return ConsumerMemory(messages, result["samples"])


def measure_publisher(url: str, *, size: int, confirm: bool, max_bytes: int = 64 * MIB) -> PublisherMemory:
    """Watch a publisher that offers four times as much as its outbox takes, by bytes or by messages."""
    parts = urlsplit(url)
    max_messages = 100_000
    count = 4 * min(max_messages, max_bytes // size)
    with _queue(url) as queue:
        forwarder = StoppingForwarder(parts.hostname or "localhost", parts.port or 5672, FORWARDED_BYTES)
        try:
            through = parts._replace(netloc=f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{forwarder.port}").geturl()
            options = {"count": count, "size": size, "max-messages": max_messages, "max-bytes": max_bytes}
            result = _finish(_start("publisher", through, *(["--confirm"] if confirm else []), queue=queue, **options))
        finally:
            forwarder.close()
    title = "confirmed publisher that never waits" if confirm else "publisher that never waits"
    return PublisherMemory(
        title, size, max_bytes, result["before"], result["highest"], result["held"], result["refused"]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all, print a line each; `--write` puts them into docs/benchmarks.md."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES, help="for the consumer, default 100,000")
    parser.add_argument("--write", action="store_true", help="put the lines into docs/benchmarks.md")
    options = parser.parse_args(arguments)
    lines: list[str] = []
    all_good = True
    with broker_url() as url:
        for size, confirm in ((BODY_SIZE, False), (BODY_SIZE, True), (100, False), (100, True)):
            publisher = measure_publisher(url, size=size, confirm=confirm)
            all_good &= publisher.is_bounded
            lines.append(f"{publisher}: {'within' if publisher.is_bounded else '**beyond**'} its bound")
            print(lines[-1], flush=True)
        consumer = measure_consumer(url, options.messages)
        all_good &= consumer.is_flat
        lines.append(f"{consumer}: {'flat' if consumer.is_flat else '**not flat**'}")
        print(lines[-1], flush=True)
    if options.write:
        replace_block(DOCS, "memory", "\n".join(f"- {line}" for line in lines))
    return 0 if all_good else 1


@contextmanager
def _queue(url: str) -> Iterator[str]:
    """A queue for one measurement, declared and deleted by a process of its own."""
    name = "txmsg.benchmark.memory"
    _finish(_start("declare", url, queue=name, count=0))
    try:
        yield name
    finally:
        _finish(_start("delete", url, queue=name, count=0))


def _start(task: str, url: str, *flags: str, **options: str | int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "benchmarks.memory_tasks", task, *flags]
    command += [f"--{name}={value}" for name, value in options.items()]
    environment = {**os.environ, URL_VARIABLE: url}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    try:
        output, _ = process.communicate(timeout=LIMIT)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"a measured process failed: exit {process.returncode}")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


if __name__ == "__main__":
    sys.exit(main())

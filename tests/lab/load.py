"""Rows of load with a real RabbitMQ node: backlogs, blocked brokers, many in flight, large messages, a long soak."""

from __future__ import annotations

import contextlib
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pika

from tests.lab import driver
from tests.lab.process import confirmed, promised, rss, settings
from tests.lab.rows import row
from tests.lab.workload import Settings, queue_name
from txmsg.testing.disruption import Report
from txmsg.testing.rabbitmq import RabbitMQNode

__all__: list[str] = []

MIB = 2**20


def _watched(child: driver.Child, seconds: float, every: float = 0.5) -> list[int]:
    """The resident memory of a client, for so long."""
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.append(rss(child.process.pid))
        time.sleep(every)
    return found


@row(
    "F50",
    "REAL",
    "consumers that are five times too slow, and a growing backlog",
    "memory grows by less than 8 MiB",
    is_quick=False,
    limit=1200,
)
def slow_consumer(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F50", client) as run:
        # 64 KiB each, a second per prefetch of 20: the backlog is in the broker, and stays there.
        child = run.start(
            settings(node, size=65536, handling=2.0, every=0.01, prefetch=20, window=20, quiet=1.0, publish_timeout=60)
        )
        time.sleep(10)
        found = _watched(child, 600 if is_long else 20)
        grown = max(found[len(found) // 2 :]) - max(found[: len(found) // 2])
        child.command("pause")
        backlog = node.queue_depth(queue_name(0)) + node.queue_depth(queue_name(1))
        # It would take an hour to handle: what is left is looked at in the broker.
        child.command("stop")
        child.wait_for(lambda: child.count("done") > 0, 90, "done")
        left = _drained(node)
        report = run.report(drained=left, backlog=backlog, grown_mib=round(grown / MIB, 1))
        if grown > 8 * MIB:
            raise AssertionError(f"the memory grew by {grown / MIB:.1f} MiB: {[each // MIB for each in found]}")
        return confirmed(report)


def _drained(node: RabbitMQNode) -> dict[str, list[str]]:
    """What is left in the queues, in order, by queue."""
    connection = pika.BlockingConnection(pika.URLParameters(node.url))
    channel = connection.channel()
    found: dict[str, list[str]] = {}
    for name in (queue_name(0), queue_name(1)):
        ids = found[name] = []
        while True:
            method, _, body = channel.basic_get(name, auto_ack=True)
            if method is None:
                break
            ids.append(body.decode().strip())
    connection.close()
    return found


@row(
    "F51",
    "REAL",
    "a publisher 50 times too fast for a blocked broker",
    "memory grows by less than 96 MiB, then none",
    is_quick=False,
    limit=900,
)
def blocked_broker(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F51", client) as run:
        child = run.start(settings(node, size=4096, every=0.001, window=5000, publish_timeout=900))
        before = rss(child.process.pid)
        with node.alarm("memory"):
            time.sleep(20)
            full = rss(child.process.pid)
            found = _watched(child, 300 if is_long else 10)
        up = time.monotonic()
        child.publishes_again(up)
        child.stop(120)
        grown, still = max(found) - before, max(found) - full
        report = run.report(grown_mib=round(grown / MIB, 1), still_growing_mib=round(still / MIB, 1))
        # Two publishers of 5,000 messages of 4 KiB and what each costs: 55 MiB, and 32 more by R6.
        if grown > 96 * MIB or still > 16 * MIB:
            raise AssertionError(f"the memory grew by {grown / MIB:.1f} MiB, and is still by {still / MIB:.1f}")
        return confirmed(report)


@row("F52", "PROXY", "10,000 publishes in flight, then cut", "all confirmed after recovery, which takes at most 2 s")
def in_flight(is_long: bool, client: str) -> Report:
    return _cut_in_flight("F52", client, on_loss="resend")


@row("F52b", "PROXY", 'the same with `on_loss="fail"`', "all have failed within 2 s of detection", is_quick=False)
def in_flight_failing(is_long: bool, client: str) -> Report:
    return _cut_in_flight("F52b", client, on_loss="fail")


def _cut_in_flight(fault: str, client: str, *, on_loss: Literal["resend", "fail"]) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run(fault, client) as run:
        child = run.start(
            settings(
                proxy.proxy, on_loss=on_loss, every=0.001, burst=200, window=10_000, publishers=1, queues=1, size=100
            )
        )
        hold = proxy.call(lambda: proxy.proxy.blackhole("to_client"))
        child.wait_for(lambda: _outstanding(child) >= 10_000, 60, "10,000 in flight")
        child.command("pause")
        time.sleep(0.5)
        flying = _outstanding(child)
        began = time.monotonic()
        proxy.call(proxy.proxy.reset_all)
        proxy.call(hold.stop)
        run.faults.append((began, began))
        child.wait_for(lambda: _outstanding(child) == 0, 60, "all confirmed")
        ended = max(line[1] for line in child.lines if line[0] == "ended")
        child.wait_for(lambda: _both_ready(child, began, 100_000), 20, "ready again")
        child.stop(60)
        if on_loss == "resend":
            ready = min(
                line[1]
                for line in child.lines
                if line[0] == "state" and line[2:4] == ["publishing", "ready"] and line[1] > began
            )
            report = run.report(in_flight=flying, all_confirmed_after_ready=round(ended - ready, 2))
            return promised(confirmed(report), recovery=2.0)
        lost = min(line[1] for line in child.lines if line[0] == "state" and line[3] == "lost" and line[1] > began)
        report = run.report(in_flight=flying, all_failed_after_detection=round(max(0.0, ended - lost), 2))
        if report.unconfirmed < flying or ended - lost > 2:
            raise AssertionError(f"not all of {flying} failed within 2 s: {report}")
        return report


def _outstanding(child: driver.Child) -> int:
    return child.count("attempt") - child.count("ended")


@row(
    "F53",
    "REAL",
    "messages of 100 MB in and out, with heartbeat 4",
    "no reconnect; peak RSS at most 6 times the size",
    is_quick=False,
)
def large(is_long: bool, client: str) -> Report:
    size = 100_000_000
    with RabbitMQNode() as node, driver.run("F53", client) as run:
        target = f"{node.url}?max_message_size={2 * size}"
        made = Settings(targets=(target,), publishers=1, queues=1, messages=3, size=size, window=1, prefetch=1)
        child = run.start(made, 120, handled=3)
        child.stop(60)
        report = confirmed(run.report(size_mib=round(size / MIB)))
        if run.times.count("lost"):
            raise AssertionError(f"a connection was lost: {run.times.steps}")
        # One process does both: what it publishes, what is written of it, what has come, and the body made of that.
        if report.peak_rss is None or report.peak_rss > 6 * size:
            raise AssertionError(f"the peak was {report.peak_rss} octets")
        return report


@row(
    "F58",
    "PROXY",
    "soak: a random fault every 2 to 5 s, for 2 min (30 min)",
    "all confirmed",
    is_quick=False,
    limit=3000,
)
def soak(is_long: bool, client: str) -> Report:
    seed = 58
    chosen = random.Random(seed)
    names: list[str] = []
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F58", client) as run:
        child = run.start(through(proxy, publish_timeout=300, quiet=300, handling=0.01))
        end = time.monotonic() + (1800 if is_long else 120)
        while time.monotonic() < end:
            name = chosen.choice(
                ["reset", "close", "stall", "blackhole", "latency", "refuse", "freeze", "force", "kill"]
            )
            names.append(name)
            _strike(name, node, proxy, chosen)
            time.sleep(chosen.uniform(2, 5))
        up = time.monotonic()
        child.publishes_again(up, 120)
        child.stop(600)
        report = confirmed(run.report(faults=len(names)))
        return replace(report, seed=seed)


def through(proxy: driver.Proxied, **others: Any) -> Settings:
    """The settings for a client behind the proxy."""
    return settings(proxy.proxy, **others)


def _strike(name: str, node: RabbitMQNode, proxy: driver.Proxied, chosen: random.Random) -> None:
    lasting = chosen.uniform(0.1, 4.0)
    made = proxy.proxy
    if name == "reset":
        proxy.call(made.reset_all)
    elif name == "close":
        proxy.call(made.close_all)
    elif name == "force":
        node.close_all_connections("the lab wants it")
    elif name == "kill":
        node.kill()
        time.sleep(lasting)
        driver.restart(node)
    elif name == "freeze":
        node.pause()
        time.sleep(2 * lasting)
        node.resume()
    else:
        start = {
            "stall": made.stall,
            "blackhole": made.blackhole,
            "refuse": made.refuse,
            "latency": lambda: made.latency(0.1, jitter=0.1),
        }[name]
        fault = proxy.call(start)
        time.sleep(lasting)
        if name == "blackhole":
            proxy.call(made.reset_all)  # its streams have gaps now
        proxy.call(fault.stop)


@row(
    "R31",
    "PROXY",
    "1,000 forced reconnects, with all that is on them",
    "RSS grows by less than 5 MiB",
    is_quick=False,
    limit=900,
)
def reconnects(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("R31", client) as run:
        child = run.start(through(proxy, backoff={"initial": 0.0, "maximum": 0.0}, every=0.02))

        def reconnect(times: int) -> None:
            for _ in range(times):
                before = child.lines[-1][1] if child.lines else 0.0
                proxy.call(proxy.proxy.reset_all)
                child.wait_for(partial(_both_ready, child, before), 20, "ready again")

        reconnect(200)
        began = rss(child.process.pid)
        reconnect(800 if not is_long else 3000)
        grown = rss(child.process.pid) - began
        child.stop(60)
        report = confirmed(run.report(grown_mib=round(grown / MIB, 2)))
        if grown > 5 * MIB:
            raise AssertionError(f"the memory grew by {grown / MIB:.2f} MiB")
        return report


def _both_ready(child: driver.Child, after: float, last: int = 400) -> bool:
    """Whether both connections were ready after that moment; only the last lines are looked at."""
    ready = {line[2] for line in child.lines[-last:] if line[0] == "state" and line[3] == "ready" and line[1] > after}
    return ready >= {"publishing", "consuming"}


@row(
    "F55", "REAL", "the disk of RabbitMQ is full", "what was confirmed is there when it has room again", is_quick=False
)
def disk_full(is_long: bool, client: str) -> Report:
    with small_disk(96) as disk, driver.run("F55", client) as run:
        node = RabbitMQNode(settings={"disk_free_limit.absolute": "1B"})
        with on(disk):
            node.start()
        with node:
            # Handlers are too slow for it, so the queues grow until there is no room.
            child = run.start(
                settings(node, size=100_000, handling=2.0, every=0.05, prefetch=5, publish_timeout=300, quiet=1.0)
            )
            stuck = _until_stuck(child, 90)
            child.command("pause")
            time.sleep(1)
            began = time.monotonic()
            node.kill()
            resize(disk, 1024)
            up = driver.restart(node)
            run.faults.append((began, up))
            child.wait_for(lambda: _outstanding(child) == 0, 90, "all confirmed")
            child.command("stop")
            child.wait_for(lambda: child.count("done") > 0, 120, "done")
            return confirmed(run.report(drained=_drained(node), confirmed_when_full=stuck))


def _until_stuck(child: driver.Child, limit: float) -> int:
    """Wait until nothing was confirmed for five seconds; how many were."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        before = child.confirmed()
        time.sleep(5)
        if child.confirmed() == before:
            return before
    raise AssertionError(f"the disk is not full within {limit:g} s")


@contextlib.contextmanager
def small_disk(size: int) -> Iterator[Path]:
    """A file system of so many MiB (needs root)."""
    place = Path(tempfile.mkdtemp(prefix="txmsg-lab-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(place)], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)
        place.rmdir()


def resize(place: Path, size: int) -> None:
    """Give it so many MiB."""
    subprocess.run(["mount", "-o", f"remount,size={size}m", str(place)], check=True)


@contextlib.contextmanager
def on(place: Path) -> Iterator[None]:
    """Temporary folders are made there, meanwhile."""
    before, tempfile.tempdir = tempfile.tempdir, str(place)
    try:
        yield
    finally:
        tempfile.tempdir = before

"""Rows of processes with a real RabbitMQ node: killed, stopped, alarmed, told to close; and clients that are killed."""

from __future__ import annotations

import os
import resource
import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import driver
from tests.lab.rows import row
from tests.lab.workload import Settings, queue_name
from txmsg.testing.disruption import Report, Timing
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["promised"]

ALL = ("txmsg", "pika", "aio-pika")


def promised(report: Report, *, detection: tuple[float, float] | None = None, recovery: float | None = None) -> Report:
    """The report, if txmsg's figures are within the limits; else AssertionError."""
    if report.client != "txmsg":
        return report
    if detection is not None:
        low, high = detection
        found = report.detection
        if found.p50 is None or found.max is None or not (low <= found.p50 and found.max <= high):
            raise AssertionError(f"found after {found} s, not between {low:g} and {high:g} s")
    if recovery is not None and (report.recovery.max is None or report.recovery.max > recovery):
        raise AssertionError(f"recovery took {report.recovery} s, more than {recovery:g} s")
    return report


def confirmed(report: Report) -> Report:
    """The report, if txmsg has got all messages confirmed; else AssertionError."""
    if report.client == "txmsg" and report.confirmed != report.sent:
        raise AssertionError(f"{report.sent - report.confirmed} of {report.sent} are not confirmed: {report}")
    return report


def with_a_password(node: RabbitMQNode, **others: Any) -> Settings:
    """The settings for one node, with a password that must not be in the log."""
    password = secrets.token_hex(12)
    node.add_user("lab", password)
    return Settings(targets=(node.url_for(user="lab", password=password),), **others)


def settings(node: Any, **others: Any) -> Settings:
    """The settings for one node."""
    return Settings(targets=(node.url,), **others)


@row(
    "F1", "REAL", "kill -9 of RabbitMQ, and a restart", "all confirmed; recovery at most 2 s after the listener",
    clients=ALL,
)  # fmt: skip
def kill(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F1", client) as run:
        child = run.start(with_a_password(node))
        for number in range(3 if is_long else 1):
            # A connection that lasts less than `reset_after` is no stable one, and the next outage no new one.
            time.sleep(31 if number else 1)
            began = time.monotonic()
            node.kill()
            time.sleep(1)
            up = driver.restart(node)
            run.faults.append((began, up))
            child.publishes_again(up)
        time.sleep(1)
        child.stop(120)
        return confirmed(promised(run.report(restarts=len(run.faults)), recovery=2.0))


@row("F1d", "REAL", "the same with a window that drops duplicates", "0 duplicates reach a handler", is_quick=False)
def kill_without_duplicates(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F1d", client) as run:
        child = run.start(settings(node, window_size=100_000))
        for number in range(2):
            time.sleep(31 if number else 1)
            began = time.monotonic()
            node.kill()
            up = driver.restart(node)
            run.faults.append((began, up))
            child.publishes_again(up)
        child.stop(120)
        report = confirmed(promised(run.report(restarts=2), recovery=2.0))
        if report.duplicates:
            raise AssertionError(f"{report.duplicates} duplicates reached a handler")
        return report


@row("F2", "REAL", "SIGSTOP of RabbitMQ for 24 s", "found between 8 and 9 s (heartbeat 4); all confirmed", clients=ALL)
def freeze(is_long: bool, client: str) -> Report:
    # The peers need longer than 3 T to find it: for the comparison it lasts longer for all.
    lasting = 24.0
    with RabbitMQNode() as node, driver.run("F2", client) as run:
        child = run.start(settings(node))
        time.sleep(2)
        began = time.monotonic()
        node.pause()
        time.sleep(lasting)
        node.resume()
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up)
        child.stop(120)
        # 8 s after the last octet, which came at most a message or so before.
        return confirmed(promised(run.report(), detection=(7.9, 9.0), recovery=12.0))


@row("F3", "REAL", "SIGSTOP of RabbitMQ for 3 s, less than T", "no reconnect")
def short_freeze(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F3", client) as run:
        child = run.start(settings(node))
        for _ in range(2):
            node.pause()
            time.sleep(3)
            node.resume()
            time.sleep(2)
        child.stop(60)
        return confirmed(_without_loss(run))


def _without_loss(run: driver.Run, **extra: Any) -> Report:
    report = run.report(**extra)
    if run.times.count("lost"):
        raise AssertionError(f"a connection was lost: {run.times.steps}")
    return report


@row("F23", "REAL", "kill -9 of the client, in handlers and publishes", "what was confirmed is handled by the next one")
def kill_client(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F23", client) as run:
        generations = 10 if is_long else 3
        for generation in range(generations):
            name = f"g{generation}p"
            child = run.start(settings(node, name=name, handling=0.05, every=0.002, window=500, size=500))
            time.sleep(1)
            if generation < generations - 1:
                child.kill()
                # Until the broker has seen it, it holds what was being handled.
                time.sleep(0.5)
        time.sleep(2)
        child.stop(120)
        # Order: what the dead had in their hands is delivered again, behind nothing of the same publisher.
        return run.report(killed=generations - 1)


@row(
    "F25",
    "REAL",
    "the application blocks the reactor for 1.5 and 3 heartbeats",
    "we drop no live connection",
    is_quick=False,
)
def blocked_reactor(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F25", client) as run:
        child = run.start(settings(node))
        for seconds in (6, 12):
            child.command(f"block {seconds}")
            time.sleep(seconds + 3)
        child.stop(60)
        report = confirmed(run.report())
        if any(why == "HeartbeatTimeout" for *_, why in run.times.steps):
            raise AssertionError(f"a live connection was declared dead: {run.times.steps}")
        return report


@row(
    "F26",
    "REAL",
    "no file descriptors left while connections are closed",
    "back within 2 s of having some",
    is_quick=False,
)
def no_descriptors(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F26", client) as run:
        child = run.start(settings(node, backoff={"maximum": 1.5}))
        pid = child.process.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))
        free = set(range(highest)) - {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        began = time.monotonic()
        # Below those in use: the sockets that are closed leave room for none.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, usual[1]))
        node.close_all_connections()
        time.sleep(5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up)
        child.stop(60)
        return confirmed(promised(run.report(free_before=len(free)), recovery=2.0))


@row("F30", "REAL", "rabbitmqctl close_all_connections, again and again", "recovery at most 2 s")
def forced(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F30", client) as run:
        child = run.start(with_a_password(node))
        for _ in range(10 if is_long else 3):
            began = time.monotonic()
            node.close_all_connections("the lab wants it")
            up = time.monotonic()
            # It takes a second or so to run rabbitmqctl: the loss comes somewhere in it.
            run.faults.append((began, began))
            child.publishes_again(up)
            time.sleep(1)
        child.stop(60)
        report = confirmed(promised(run.report(), recovery=2.0))
        return replace(report, detection=Timing())  # of rabbitmqctl, mostly


def handled_again(handled: Callable[[], int]) -> bool:
    """Whether the messages of a new queue arrive."""
    return handled() > 20


@row("F36", "REAL", "the queues are deleted under their consumers", "declared and consumed again within 2 s")
def deleted_queue(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F36", client) as run:
        child = run.start(settings(node))
        gaps = []
        for number in (0, 1, 0) if is_long else (0, 1):
            child.command("pause")
            time.sleep(0.5)  # what is in a queue that is deleted is lost: that is what deleting means
            node.rabbitmqctl("delete_queue", queue_name(number))
            deleted = time.monotonic()
            time.sleep(2)
            child.command("resume")
            wanted = queue_name(number)

            def handled(wanted: str = wanted, deleted: float = deleted) -> int:
                return sum(line[0] == "handled" and line[1] > deleted and line[3] == wanted for line in child.lines)

            child.wait_for(partial(handled_again, handled), 30, "consuming again")
            first = min(
                line[1] for line in child.lines if line[0] == "handled" and line[1] > deleted and line[3] == wanted
            )
            gaps.append(first - deleted - 2)
        child.stop(60)
        report = _without_loss(run, consuming_again=round(max(gaps), 2))
        if max(gaps) > 2:
            raise AssertionError(f"it took {max(gaps):.2f} s until the new queue was consumed")
        return confirmed(report)


@row("F37", "REAL", "memory and disk alarms, both at once", "consumers go on; nothing fails; no reconnect")
def alarms(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F37", client) as run:
        child = run.start(settings(node))
        with node.alarm("memory"):
            time.sleep(2)
            with node.alarm("disk"):
                time.sleep(6 if is_long else 2)
            time.sleep(1)
        up = time.monotonic()
        child.publishes_again(up)
        child.stop(60)
        report = confirmed(_without_loss(run))
        if not run.times.count("blocked"):
            raise AssertionError("nobody was told of the alarm")
        return report


@row(
    "F27", "REAL", "a hundred clients, and RabbitMQ restarts", "all are back within 5 s of the listener", is_quick=False
)
def herd(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.run("F27", client) as run:
        child = run.start(settings(node, others=98))
        began = time.monotonic()
        node.kill()
        up = driver.restart(node)
        run.faults.append((began, up))
        child.publishes_again(up)
        time.sleep(5)
        tried = sorted(
            line[1] for line in child.lines if line[0] == "state" and line[3] == "connecting" and line[1] > began
        )
        peak = max(sum(at <= other < at + 1 for other in tried) for at in tried)
        child.stop(60)
        report = confirmed(promised(run.report(attempts_per_second_peak=peak), recovery=5.0))
        if peak >= 300:
            raise AssertionError(f"{peak} attempts within a second")
        return report


def rss(pid: int) -> int:
    """The resident memory of a process, in octets."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

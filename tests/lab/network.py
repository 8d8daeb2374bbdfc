"""Rows of networks: the proxy before a real RabbitMQ node, hosts that speak something else, namespaces."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from tests.lab import driver, namespaces
from tests.lab.process import confirmed, promised, settings
from tests.lab.rows import Tally, row
from tests.lab.workload import Settings
from txmsg.testing.disruption import Report
from txmsg.testing.disruption.frames import Direction
from txmsg.testing.rabbitmq import RabbitMQNode

__all__: list[str] = []


def through(proxy: driver.Proxied, **others: Any) -> Settings:
    """The settings for a client behind the proxy."""
    return settings(proxy.proxy, **others)


@row(
    "F4",
    "PROXY",
    "RST after so many octets, both ways, at 20 places",
    "all confirmed; recovery at most 4 s",
    is_quick=False,
    limit=900,
)
def reset(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F4", client) as run:
        child = run.start(through(proxy))
        for number in range(100 if is_long else 20):
            # Each of the connections to come meets its end somewhere in its handshake, its recovery or after it.
            direction: Direction = "to_broker" if number % 2 else "to_client"
            position = 40 + number * (37 if is_long else 97)
            cut = proxy.call(partial(proxy.proxy.cut, "rst", direction, after_bytes=position))
            began = time.monotonic()
            proxy.call(proxy.proxy.reset_all)
            run.faults.append((began, began))
            child.publishes_again(began + 0.5)
            proxy.call(cut.stop)
        child.stop(60)
        # A connection that is cut again in its recovery needs another round.
        return confirmed(promised(run.report(), recovery=4.0))


@row("F7", "PROXY", "one octet per chunk, for 10 s", "no reconnect; all confirmed", is_quick=False)
def trickle(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F7", client) as run:
        child = run.start(through(proxy, every=0.1))
        slicer = proxy.call(lambda: proxy.proxy.slicer(1))
        time.sleep(10)
        proxy.call(slicer.stop)
        child.stop(60)
        report = confirmed(run.report())
        if run.times.count("lost"):
            raise AssertionError(f"a connection was lost: {run.times.steps}")
        return report


@row(
    "F8", "PROXY", "half-open: octets vanish both ways, healed after 10 s", "found between 8 and 9 s",
    clients=("txmsg", "pika", "aio-pika"), is_quick=False,
)  # fmt: skip
def black_hole(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F8", client) as run:
        child = run.start(through(proxy))
        time.sleep(1)
        hole = proxy.call(proxy.proxy.blackhole)
        began = time.monotonic()
        # Those who need longer than 10 s to see it: what was connected stays dead, new connections are fine.
        time.sleep(10)
        dead = list(proxy.proxy.connections)
        for connection in dead:
            proxy.call(connection.swallow)
        proxy.call(hole.stop)
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up, 90)
        child.stop(120)
        return confirmed(promised(run.report(), detection=(7.9, 9.0), recovery=11.5))


@row("F9", "PROXY", "one way: nothing comes back from the broker", "found between 8 and 9 s")
def one_way(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F9", client) as run:
        child = run.start(through(proxy))
        time.sleep(1)
        hole = proxy.call(lambda: proxy.proxy.blackhole("to_client"))
        began = time.monotonic()
        time.sleep(9)
        proxy.call(proxy.proxy.reset_all)
        proxy.call(hole.stop)
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up)
        child.stop(60)
        return confirmed(promised(run.report(), detection=(7.9, 9.0), recovery=2.0))


@row(
    "F14",
    "PROXY",
    "flapping for 20 s (60 s): 200 ms up, 200 ms down",
    "recovery at most 2 s (32 s); all confirmed",
    is_quick=False,
)
def flapping(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F14", client) as run:
        child = run.start(through(proxy, publish_timeout=120))
        began = time.monotonic()
        for _ in range(150 if is_long else 50):
            refusal = proxy.call(proxy.proxy.refuse)
            proxy.call(proxy.proxy.reset_all)
            time.sleep(0.2)
            proxy.call(refusal.stop)
            time.sleep(0.2)
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up)
        tried = [line[1] for line in child.lines if line[0] == "state" and line[3] == "connecting"]
        peak = max(sum(at <= other < at + 1 for other in tried) for at in tried)
        child.stop(120)
        return confirmed(promised(run.report(attempts_per_second_peak=peak), recovery=32 if is_long else 2.0))


@row("F21", "PROXY", "bandwidth 0 for 6 s, then 8 kB/s", "no publish fails; bounded memory", is_quick=False)
def bandwidth(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F21", client) as run:
        child = run.start(through(proxy, size=1000, publish_timeout=180))
        none = proxy.call(lambda: proxy.proxy.bandwidth(0))
        time.sleep(6)
        proxy.call(none.stop)
        slow = proxy.call(lambda: proxy.proxy.bandwidth(8000))
        time.sleep(60 if is_long else 20)
        proxy.call(slow.stop)
        child.stop(180)
        return confirmed(run.report())


@row("F22", "PROXY", "the end of each stream comes 5 s late", "recovery at most 2 s", is_quick=False)
def slow_close(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node, driver.proxied(node.host, node.port) as proxy, driver.run("F22", client) as run:
        child = run.start(through(proxy))
        proxy.call(lambda: proxy.proxy.slow_close(5))
        began = time.monotonic()
        node.close_all_connections("the lab wants it")
        run.faults.append((began, began))
        child.publishes_again(time.monotonic())
        stopping = time.monotonic()
        child.stop(60)
        return confirmed(promised(run.report(stop_seconds=round(time.monotonic() - stopping, 1)), recovery=2.0))


#: What speaks at a port where no RabbitMQ is.
_SPEAKERS: dict[str, Callable[[socket.socket], object]] = {
    "silent": lambda peer: threading.Event().wait(30),
    "AMQP 0-9": lambda peer: peer.sendall(b"AMQP\x00\x00\x09\x00"),
    "HTTP": lambda peer: peer.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "closes": lambda peer: peer.close(),
}


def _echo(peer: socket.socket) -> None:
    while data := peer.recv(4096):
        peer.sendall(data)


@contextlib.contextmanager
def speaking(speak: Callable[[socket.socket], object]) -> Iterator[int]:
    """Something else than a broker that listens; its port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve(peer: socket.socket) -> None:
            with peer, contextlib.suppress(OSError):
                speak(peer)

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield server.getsockname()[1]
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)


def _behind(node: RabbitMQNode, fault: str, client: str, speak: Callable[[socket.socket], object]) -> Report:
    """A wrong host before the right one."""
    with speaking(speak) as port, driver.run(fault, client) as run:
        targets = (f"amqp://guest:guest@127.0.0.1:{port}/%2F", node.url)
        child = run.start(Settings(targets=targets))
        began, first = (
            min(line[1] for line in child.lines if line[0] == "state" and line[3] == state)
            for state in ("connecting", "ready")
        )
        child.stop(60)
        return confirmed(run.report(first_ready=round(first - began, 2)))


@row("F10", "REAL", "the first host is silent, or speaks AMQP 0-9, HTTP, or nothing", "the next one within 10.5 s")
def wrong_host(is_long: bool, client: str) -> Report:
    tally, firsts = Tally(), dict[str, float]()
    with RabbitMQNode() as node:
        for name, speak in _SPEAKERS.items():
            report = _behind(node, "F10", client, speak)
            firsts[name] = report.extra["first_ready"]
            tally.add(report)
            if firsts[name] > (10.5 if name == "silent" else 2):
                raise AssertionError(f"{name}: the next host took {firsts[name]} s")
    return tally.report(first_ready=firsts)


@row("F11", "REAL", "the first host is an echo server", "the next one at once")
def echo_host(is_long: bool, client: str) -> Report:
    with RabbitMQNode() as node:
        report = _behind(node, "F11", client, _echo)
    if report.extra["first_ready"] > 2:
        raise AssertionError(f"the next host took {report.extra['first_ready']} s")
    return report


@row("F13", "REAL", "network namespaces: the link is down for 12 s", "found between 8 and 9 s", is_quick=False)
def link_down(is_long: bool, client: str) -> Report:
    # The node stays in the ordinary namespace; the client reaches it over the virtual link, through a relay.
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(namespaces.pair())
        node = stack.enter_context(RabbitMQNode())
        run = stack.enter_context(driver.run("F13", client))
        port = stack.enter_context(pair.relay(node.port))
        url = f"amqp://guest:guest@{pair.near}:{port}/%2F?allow_plaintext_auth=true"
        child = run.start(Settings(targets=(url,)), prefix=pair.prefix)
        time.sleep(1)
        began = time.monotonic()
        pair.down()
        time.sleep(12)
        pair.up()
        up = time.monotonic()
        run.faults.append((began, up))
        child.publishes_again(up)
        child.stop(60)
        return confirmed(promised(run.report(), detection=(7.9, 9.0), recovery=12.0))

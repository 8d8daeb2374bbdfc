"""Three real RabbitMQ nodes that form a cluster, each a private node as in `txmsg.testing.RabbitMQNode`.

The nodes need one port mapper (epmd) and one cookie.  https://www.rabbitmq.com/docs/clustering and
https://www.rabbitmq.com/docs/quorum-queues.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

from tests.lab import driver
from txmsg.testing.ports import free_ports
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["Cluster", "cluster"]

_SIZE = 3


class _Member(RabbitMQNode):
    """A node that uses the port mapper and the cookie of its cluster."""

    def __init__(self, epmd_port: int, cookie: str) -> None:
        super().__init__(boot_timeout=120)
        self._cluster_port = epmd_port
        self._cookie = cookie

    def _prepare(self) -> None:
        super()._prepare()
        self._epmd_port = self._cluster_port
        cookie = self.directory / "home" / ".erlang.cookie"
        cookie.unlink()
        cookie.write_text(self._cookie)
        cookie.chmod(0o400)


class Cluster:
    """The three nodes.   nodes: list of RabbitMQNode."""

    def __init__(self) -> None:
        [self._port] = free_ports(1)
        cookie = secrets.token_hex(20)
        self.nodes: list[RabbitMQNode] = [_Member(self._port, cookie) for _ in range(_SIZE)]
        self._epmd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the nodes and join them."""
        # Of its own: one that belongs to a node dies with it, and the others are not found any more.
        self._epmd = subprocess.Popen(
            [shutil.which("epmd") or "epmd", "-port", str(self._port), "-address", "127.0.0.1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        first, *others = self.nodes
        self.at_once([node.start for node in self.nodes])
        for node in others:  # one after the other: two that join at once get in each other's way
            node.rabbitmqctl("stop_app")
            node.rabbitmqctl("join_cluster", first.name)
            node.rabbitmqctl("start_app")
            driver.listening_since(node.port)

    def close(self) -> None:
        """End them all."""
        for node in self.nodes:
            with contextlib.suppress(Exception):
                node.resume()
            node.close()
        if self._epmd is not None:
            self._epmd.kill()
            self._epmd.wait()

    @staticmethod
    def at_once(calls: list[Callable[[], object]]) -> None:
        """Make calls in threads, and wait for all of them; the first failure is raised."""
        failures: list[BaseException] = []

        def run(call: Callable[[], object]) -> None:
            try:
                call()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(180)
        if failures:
            raise failures[0]

    def urls(self, first: RabbitMQNode | None = None) -> tuple[str, ...]:
        """The URLs, that of `first` in front."""
        rest = [node.url for node in self.nodes if node is not first]
        return (*((first.url,) if first is not None else ()), *rest)

    def leader_of(self, queue: str) -> RabbitMQNode:
        """The node that leads a quorum queue."""
        for node in self.nodes:
            if node.is_running:
                listing = node.rabbitmqctl("list_queues", "--no-table-headers", "name", "leader", timeout=30)
                found = re.search(rf"^{re.escape(queue)}\t(\S+)$", listing, re.MULTILINE)
                if found:
                    return next(each for each in self.nodes if each.name == found.group(1))
        raise AssertionError(f"nobody leads {queue}")

    def wait_until_whole(self, limit: float = 90.0) -> None:
        """Wait until all nodes say that all are running."""
        end = time.monotonic() + limit
        while time.monotonic() < end:
            with contextlib.suppress(Exception):
                if all(self._sees_all(node) for node in self.nodes):
                    return
            time.sleep(0.5)
        raise AssertionError("the cluster is not whole")

    def _sees_all(self, node: RabbitMQNode) -> bool:
        return int(node.eval("length(rabbit_nodes:all_running())")) == _SIZE


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """A cluster that is up, for the length of a `with` block."""
    made = Cluster()
    try:
        made.start()
        yield made
    finally:
        made.close()

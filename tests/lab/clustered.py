"""Rows of a cluster of three RabbitMQ nodes with quorum queues: nodes that die, freeze, and come back."""

from __future__ import annotations

import time
from typing import Any

from tests.lab import driver
from tests.lab.cluster import Cluster, cluster
from tests.lab.process import confirmed, promised
from tests.lab.rows import row
from tests.lab.workload import Settings, queue_name
from txmsg.testing.disruption import Report
from txmsg.testing.rabbitmq import RabbitMQNode

__all__: list[str] = []

_LIMIT = 600.0


def _settings(nodes: Cluster, first: RabbitMQNode | None = None, **others: Any) -> Settings:
    return Settings(targets=nodes.urls(first), quorum=True, publishers=1, queues=1, **others)


def _led(nodes: Cluster, run: driver.Run, connected_to_leader: bool) -> tuple[driver.Child, RabbitMQNode]:
    """Start the client, connected to the queue's leader or to another node; returns it, and the leader.

    The leader of a new queue is the node that declares it, as a rule; so the client connects to the first node, and the
    leadership goes elsewhere, if it is to.
    """
    first = nodes.nodes[0]
    child = run.start(_settings(nodes, first), 120)
    leader = nodes.leader_of(queue_name(0))
    if connected_to_leader != (leader is first):
        other = first if connected_to_leader else nodes.nodes[1]
        first.eval(
            f"rabbit_quorum_queue:transfer_leadership(element(2, rabbit_amqqueue:lookup("
            f'rabbit_misc:r(<<"/">>, queue, <<"{queue_name(0)}">>))), \'{other.name}\')'
        )
        time.sleep(2)
        leader = nodes.leader_of(queue_name(0))
    if connected_to_leader != (leader is first):
        raise AssertionError(f"the leader is {leader.name}")
    return child, leader


@row(
    "F16", "CLUSTER", "kill -9 of a quorum queue's leader, another than ours", "publishes go on: no reconnect",
    is_quick=False, limit=_LIMIT,
)  # fmt: skip
def leader_killed(is_long: bool, client: str) -> Report:
    with cluster() as nodes, driver.run("F16", client) as run:
        child, leader = _led(nodes, run, connected_to_leader=False)
        time.sleep(1)
        leader.kill()
        killed = time.monotonic()
        child.publishes_again(killed)
        time.sleep(3)
        child.stop(120)
        report = confirmed(run.report())
        if run.times.count("lost"):
            raise AssertionError(f"a connection was lost: {run.times.steps}")
        return report


@row(
    "F17", "CLUSTER", "SIGSTOP of a quorum queue's leader for 20 s, another than ours", "publishes go on",
    is_quick=False, limit=_LIMIT,
)  # fmt: skip
def leader_frozen(is_long: bool, client: str) -> Report:
    with cluster() as nodes, driver.run("F17", client) as run:
        child, leader = _led(nodes, run, connected_to_leader=False)
        time.sleep(1)
        leader.pause()
        stopped = time.monotonic()
        child.publishes_again(stopped, 90)
        time.sleep(max(0.0, 20 - (time.monotonic() - stopped)))
        leader.resume()
        time.sleep(5)
        child.stop(180)
        return confirmed(run.report())


@row(
    "F18", "CLUSTER", "kill -9 of the node we are connected to, which leads", "failover: one attempt, at most 2 s",
    is_quick=False, limit=_LIMIT, clients=("txmsg", "pika", "aio-pika"),
)  # fmt: skip
def our_node_killed(is_long: bool, client: str) -> Report:
    with cluster() as nodes, driver.run("F18", client) as run:
        child, leader = _led(nodes, run, connected_to_leader=True)
        time.sleep(1)
        began = time.monotonic()
        leader.kill()
        run.faults.append((began, began))
        try:
            child.publishes_again(began + 0.5, 30)
        except AssertionError:
            if client == "txmsg":  # aio-pika has one host only
                raise
        attempts = [
            sum(line[0] == "state" and line[2] == name and line[3] == "connecting" and line[1] > began
                for line in child.lines)
            for name in ("publishing", "consuming")
        ]  # fmt: skip
        time.sleep(2)
        child.stop(120)
        report = promised(run.report(attempts=max(attempts)), recovery=2.0)
        if client == "txmsg" and max(attempts) > 1:
            raise AssertionError(f"{attempts} attempts")
        # RabbitMQ 3.10 refuses all publishes of a channel whose first one came between the leader's death and the
        # election of the next.  Until the publisher opens it anew, after a second, they are nacked: the first ones are
        # copies of what was in flight, and of these nobody knows (unconfirmed).
        refused = report.nacked + (report.unconfirmed if report.nacked else 0)
        if client == "txmsg" and report.confirmed + refused != report.sent:
            raise AssertionError(f"neither confirmed nor refused: {report}")
        return report


@row(
    "F19", "CLUSTER", "minority: two of three nodes are stopped, one comes back", "unconfirmed until then; none lost",
    is_quick=False, limit=_LIMIT,
)  # fmt: skip
def minority(is_long: bool, client: str) -> Report:
    with cluster() as nodes, driver.run("F19", client) as run:
        first, second, third = nodes.nodes
        child = run.start(_settings(nodes, first, publish_timeout=15.0), 120)
        began = time.monotonic()
        Cluster.at_once([second.kill, third.kill])
        time.sleep(25)  # longer than the deadline: those of now end with PublishTimeout
        during = child.confirmed(began + 1)
        up = driver.restart(second)
        child.publishes_again(up, 90)
        time.sleep(2)
        child.stop(180)
        report = run.report(confirmed_in_minority=during)
        if during > 5:
            raise AssertionError(f"{during} publishes were confirmed without a majority")
        if not report.unconfirmed:
            raise AssertionError("no publish met its deadline")
        return report


@row(
    "F20", "CLUSTER", "rolling restart of all three nodes under load", "all confirmed", is_quick=False, limit=_LIMIT,
)  # fmt: skip
def rolling(is_long: bool, client: str) -> Report:
    with cluster() as nodes, driver.run("F20", client) as run:
        child = run.start(_settings(nodes, every=0.005, window=200), 120)
        for node in nodes.nodes:
            began = time.monotonic()
            node.stop()
            driver.restart(node)
            nodes.wait_until_whole()
            child.publishes_again(began)
            time.sleep(2)
        child.stop(180)
        return confirmed(run.report())

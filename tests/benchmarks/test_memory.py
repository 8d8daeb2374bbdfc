"""The memory promises of the client, measured on processes of their own against a real RabbitMQ."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.memory import ConsumerMemory, PublisherMemory, measure_consumer, measure_publisher
from benchmarks.memory_tasks import BODY_SIZE
from txmsg.testing.rabbitmq import RabbitMQMissing, RabbitMQNode, find_rabbitmq_server

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def node_url() -> Iterator[str]:
    """A private node, or a skip where RabbitMQ is not installed."""
    try:
        find_rabbitmq_server()
    except RabbitMQMissing as reason:
        pytest.skip(str(reason))
    with RabbitMQNode(schedulers=None) as node:
        yield node.url


def test_growth_is_not_flat() -> None:
    """The verdict notices a slow leak, a single high, and accepts a plateau."""
    flat = [30 * MIB, *[44 * MIB] * 100]
    assert ConsumerMemory(1000, flat).is_flat
    assert not ConsumerMemory(1000, [*flat[:-1], 70 * MIB]).is_flat
    assert not ConsumerMemory(1000, [30 * MIB + step * 100_000 for step in range(101)]).is_flat


def test_a_publisher_that_refuses_nothing_is_not_bounded() -> None:
    """Staying small proves nothing if everything was taken by the socket."""
    assert PublisherMemory("", 100, 64 * MIB, 30 * MIB, 90 * MIB, 5, 5).is_bounded
    assert not PublisherMemory("", 100, 64 * MIB, 30 * MIB, 90 * MIB, 10, 0).is_bounded
    assert not PublisherMemory("", 100, 64 * MIB, 30 * MIB, 127 * MIB, 5, 5).is_bounded


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_consumer_stays_flat_over_100_000_messages(node_url: str) -> None:
    """Prefetch 100, bodies of 64 KiB: the resident set neither grows nor jumps."""
    found = measure_consumer(node_url)
    assert found.is_flat, str(found)


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("confirm", [False, True], ids=["plain", "confirmed"])
@pytest.mark.parametrize("size", [BODY_SIZE, 100])
def test_a_publisher_stays_within_its_outbox(node_url: str, size: int, confirm: bool) -> None:
    """Against a connection that stopped reading, memory is bounded and the rest fails with Overloaded."""
    found = measure_publisher(node_url, size=size, confirm=confirm)
    assert found.is_bounded, str(found)

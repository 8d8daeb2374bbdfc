"""AMQPStorm, and its client of the management API."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = pytest.mark.long

amqpstorm: Any = pytest.importorskip("amqpstorm", reason="amqpstorm is not installed (pip install 'txmsg[foreign]')")
management: Any = pytest.importorskip("amqpstorm.management")


@pytest.fixture
def channel(managed_broker: tuple[int, int]) -> Iterator[Any]:
    with (
        amqpstorm.Connection("127.0.0.1", "guest", "guest", port=managed_broker[0]) as connection,
        connection.channel() as channel,
    ):
        yield channel


def test_messages(channel: Any) -> None:
    """R34: confirms, a payload as large as frame_max, get, consume, nack, cancel, dead letters."""
    channel.confirm_deliveries()
    channel.queue.declare("storm.dead", exclusive=True)
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "storm.dead"}
    channel.queue.declare("storm", exclusive=True, arguments=dead)
    channel.exchange.declare("storm.x", "topic", auto_delete=True)
    channel.queue.bind("storm", "storm.x", "a.#")
    large = "x" * 300_000
    assert channel.basic.publish(large, "a.b", "storm.x", {"headers": {"n": [1, None]}, "correlation_id": "c"})
    message = channel.basic.get("storm", auto_decode=True)
    assert (message.body, message.properties["headers"], message.correlation_id) == (large, {"n": [1, None]}, "c")
    message.nack(requeue=True)
    channel.basic.qos(1)
    channel.basic.consume(queue="storm", consumer_tag="t")
    for message in channel.build_inbound_messages(break_on_empty=True):
        assert message.redelivered
        message.reject(requeue=False)
    channel.basic.cancel("t")
    (death,) = channel.basic.get("storm.dead", no_ack=True).properties["headers"]["x-death"]
    assert (death["reason"], death["queue"]) == ("rejected", "storm")


def test_returns_transactions_and_errors(channel: Any) -> None:
    """R34: 312, tx, 404 with its text; the connection goes on."""
    connection = channel._connection
    with connection.channel() as confirming:
        confirming.confirm_deliveries()
        with pytest.raises(amqpstorm.AMQPMessageError, match="NO_ROUTE"):
            confirming.basic.publish("lost", "nobody", mandatory=True)
    channel.queue.declare("storm.tx", exclusive=True)
    for end, expected in ((channel.tx.rollback, 0), (channel.tx.commit, 1)):
        channel.tx.select()
        channel.basic.publish("x", "storm.tx")
        end()
        assert channel.queue.declare("storm.tx", passive=True)["message_count"] == expected
    with pytest.raises(amqpstorm.AMQPChannelError, match="NOT_FOUND - no queue 'none' in vhost '/'"):
        channel.queue.declare("none", passive=True)
    with connection.channel() as other:
        assert other.is_open


def test_management(managed_broker: tuple[int, int], channel: Any) -> None:
    """R34: what is declared there is there for AMQP, and the other way round."""
    api = management.ManagementApi(f"http://127.0.0.1:{managed_broker[1]}", "guest", "guest", timeout=20)
    assert api.aliveness_test("/")["status"] == "ok"
    assert api.whoami()["name"] == "guest"
    api.queue.declare("by.api", durable=True)
    api.exchange.declare("x.api", "fanout")
    api.queue.bind("by.api", "x.api", "", "/")
    channel.basic.publish("one", "", "x.api")
    (message,) = api.basic.get("by.api", requeue=False)
    assert message.body == "one"
    assert [binding["source"] for binding in api.queue.bindings("by.api")] == ["", "x.api"]
    api.basic.publish("two", "by.api")
    assert channel.basic.get("by.api", no_ack=True).body == "two"
    assert len(api.connection.list()) == 1
    assert len(api.channel.list()) == 1
    api.user.create("storm", "secret", tags="monitoring")
    api.user.set_permission("storm", "/", configure_regex="^$")
    assert api.user.get("storm")["tags"] in ("monitoring", ["monitoring"])
    api.user.delete("storm")
    api.virtual_host.create("storm")
    assert api.virtual_host.get("storm")["name"] == "storm"
    api.virtual_host.delete("storm")
    with pytest.raises(management.ApiError, match=r"404|NOT-FOUND"):
        api.queue.get("none")
    api.queue.delete("by.api")
    api.exchange.delete("x.api")

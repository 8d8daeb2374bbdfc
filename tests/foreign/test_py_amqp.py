"""py-amqp, what it can do: exchanges, confirms, returns, settlement, tx, dead letters, headers, sizes, errors."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Iterator
from typing import Any

import amqp
import pytest

from txmsg.testing import BrokerProcess

pytestmark = pytest.mark.long


@pytest.fixture
def connection(shared_broker: BrokerProcess) -> Iterator[Any]:
    vhost = shared_broker.add_vhost()
    with amqp.Connection(f"127.0.0.1:{shared_broker.port}", virtual_host=vhost, confirm_publish=True) as connection:
        yield connection


def declare(channel: Any, name: str = "q", **arguments: Any) -> None:
    table = {key.replace("_", "-"): value for key, value in arguments.items()}
    channel.queue_declare(name, auto_delete=False, arguments=table)


def test_exchanges(connection: Any) -> None:
    """R34: direct, fanout, topic, headers, exchange to exchange, and what is unbound."""
    channel = connection.channel()
    kinds = ("direct", "fanout", "topic", "headers")
    for kind in kinds:
        channel.exchange_declare(f"x.{kind}", kind, auto_delete=False)
        declare(channel, f"q.{kind}")
        match = {"x-match": "any", "a": 1, "b": "two"} if kind == "headers" else None
        channel.queue_bind(f"q.{kind}", f"x.{kind}", "a.*.c", arguments=match)
    channel.exchange_bind("x.fanout", "x.direct", "all")
    channel.basic_publish(amqp.Message("1"), "x.direct", "a.*.c")
    channel.basic_publish(amqp.Message("2"), "x.direct", "all")
    channel.basic_publish(amqp.Message("3"), "x.topic", "a.b.c")
    channel.basic_publish(amqp.Message("4", application_headers={"b": "two"}), "x.headers")
    bodies = {kind: channel.basic_get(f"q.{kind}", no_ack=True).body for kind in kinds}
    assert bodies == {"direct": "1", "fanout": "2", "topic": "3", "headers": "4"}
    channel.queue_unbind("q.topic", "x.topic", "a.*.c")
    channel.basic_publish(amqp.Message("5"), "x.topic", "a.b.c")
    assert channel.basic_get("q.topic") is None


def test_settlement_and_prefetch(connection: Any) -> None:
    """R34: prefetch, ack, reject with requeue, recover, redelivered, cancel."""
    channel = connection.channel()
    declare(channel)
    for number in range(4):
        channel.basic_publish(amqp.Message(str(number)), routing_key="q")
    channel.basic_qos(0, 2, False)
    got: list[Any] = []
    tag = channel.basic_consume("q", callback=got.append)
    while len(got) < 2:
        connection.drain_events(timeout=10)
    channel.basic_ack(got[0].delivery_tag)
    channel.basic_reject(got[1].delivery_tag, requeue=True)
    while len(got) < 4:
        connection.drain_events(timeout=10)
    assert [(m.body, m.delivery_info["redelivered"]) for m in got] in (
        [("0", False), ("1", False), ("2", False), ("1", True)],
        [("0", False), ("1", False), ("1", True), ("2", False)],
    )
    channel.basic_cancel(tag)
    channel.basic_recover(requeue=True)
    assert [channel.basic_get("q", no_ack=True).body for _ in range(3)] == ["1", "2", "3"]


def test_return_and_transactions(shared_broker: BrokerProcess) -> None:
    """R34: a mandatory message that nobody takes; tx.commit and tx.rollback."""
    vhost = shared_broker.add_vhost()
    with amqp.Connection(f"127.0.0.1:{shared_broker.port}", virtual_host=vhost) as connection:
        channel = connection.channel()
        returned: list[Any] = []
        channel.events["basic_return"].add(lambda *told: returned.append(told))
        channel.basic_publish(amqp.Message("lost"), routing_key="nobody", mandatory=True)
        declare(channel)
        assert [(told[0].reply_code, *told[1:3]) for told in returned] == [(312, "", "nobody")]
        channel.tx_select()
        channel.basic_publish(amqp.Message("undone"), routing_key="q")
        channel.tx_rollback()
        channel.basic_publish(amqp.Message("done"), routing_key="q")
        assert channel.basic_get("q") is None
        channel.tx_commit()
        assert channel.basic_get("q").body == "done"
        channel.tx_commit()


def test_dead_letters_and_priority(connection: Any) -> None:
    """R34: a time to live of nothing, x-death as py-amqp reads it; priorities."""
    channel = connection.channel()
    declare(channel, "dead")
    declare(channel, "brief", x_message_ttl=0, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    declare(channel, "urgent", x_max_priority=9)
    channel.basic_publish(amqp.Message("old"), routing_key="brief")
    (death,) = channel.basic_get("dead", no_ack=True).headers["x-death"]
    assert isinstance(death.pop("time"), datetime.datetime)
    assert death == {"count": 1, "reason": "expired", "queue": "brief", "exchange": "", "routing-keys": ["brief"]}
    for priority in (1, 5, 3):
        channel.basic_publish(amqp.Message(str(priority), priority=priority), routing_key="urgent")
    assert [channel.basic_get("urgent", no_ack=True).body for _ in range(3)] == ["5", "3", "1"]


def test_properties_and_size(connection: Any) -> None:
    """R34: headers of every type it has, all properties, a body of three frames."""
    channel = connection.channel()
    declare(channel)
    when = datetime.datetime(2020, 1, 2, 3, 4, 5)
    headers = {
        "bool": True, "int": -5, "long": 1 << 40, "float": 1.5, "text": "ä", "none": None, "time": when,
        "decimal": decimal.Decimal("1.25"), "list": [1, "x", {"y": [None]}], "table": {"deep": {"er": 1}},
    }  # fmt: skip
    body = bytes(range(256)) * 1200
    properties = {"content_type": "a/b", "correlation_id": "c", "reply_to": "r", "message_id": "m", "type": "t"}
    channel.basic_publish(amqp.Message(body, application_headers=headers, **properties), routing_key="q")
    message = channel.basic_get("q", no_ack=True)
    assert message.body == body
    assert message.headers == headers
    assert {name: message.properties[name] for name in properties} == properties


def test_errors(connection: Any) -> None:
    """R34: codes and texts as RabbitMQ gives them."""
    vhost = connection.virtual_host

    def refused(error: type[Exception], text: str, call: str, *arguments: Any, **options: Any) -> None:
        channel = connection.channel()
        with pytest.raises(error, match=text):
            getattr(channel, call)(*arguments, **options)

    declare(connection.channel())
    refused(amqp.NotFound, f"NOT_FOUND - no exchange 'none' in vhost '{vhost}'", "exchange_declare", "none", "", True)
    text = f"PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost '{vhost}'"
    refused(amqp.PreconditionFailed, text, "queue_declare", "q", durable=True, auto_delete=False)
    text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'"
    refused(amqp.AccessRefused, text, "queue_declare", "amq.mine")
    assert connection.connected

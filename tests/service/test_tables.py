"""The [[consumer]] tables of the configuration file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from txmsg.messaging.entities import Exchange, Queue
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.settings import SettingError

WHOLE = """
drain = 5
concurrency = 4

[[consumer]]
handler = "shop.tasks:handle"
queue = "orders"
exchange = "shop"
exchange_type = "topic"
routing_key = ["order.*", "refund.*"]
bind = ["amq.direct:x"]
durable = false
auto_delete = true
queue_arguments = { x-max-length = 5 }
accept = ["json", "msgpack"]
accept_compression = "bzip2"
serializer = "json"
compression = "zlib"
on_decode_error = "dead_letter"
prefetch = "unlimited"
concurrency = 2
retry_delays = [1, 10]
dead_letter = "orders.failed"

[[consumer]]
handler = "shop.tasks:other"
queue = "others"
declare = false
prefetch = 7
"""


def load(tmp_path: Path, text: str, **options: Any) -> ConsumerConfig:
    path = tmp_path / "service.toml"
    path.write_text(text)
    return load_config({"config": str(path), **options}, {})


def refused(tmp_path: Path, text: str, **options: Any) -> str:
    with pytest.raises(SettingError) as caught:
        load(tmp_path, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key(tmp_path: Path) -> None:
    """Issue: a handler declared with its queue, exchange, serializer and accept list in TOML."""
    config = load(tmp_path, WHOLE)
    assert (config.drain, config.concurrency, config.queue, config.handler) == (5, 4, "", "")
    first, second = config.consumers
    (queue,) = first.queues
    assert isinstance(queue, Queue)
    assert (queue.name, queue.durable, queue.auto_delete) == ("orders", False, True)
    assert queue.queue_arguments == {"x-max-length": 5}
    shop = Exchange("shop", "topic")
    assert [(each.exchange, each.routing_key) for each in queue.bindings] == [
        (Exchange("amq.direct", no_declare=True), "x"),
        (shop, "order.*"),
        (shop, "refund.*"),
    ]
    assert (first.handler, first.accept, first.accept_compression) == (
        "shop.tasks:handle",
        ("json", "msgpack"),
        ("bzip2",),
    )
    assert (first.serializer, first.compression, first.on_decode_error) == ("json", "zlib", "dead_letter")
    assert first.settings == {
        "prefetch": 0,
        "concurrency": 2,
        "retry_delays": (1.0, 10.0),
        "dead_letter": "orders.failed",
    }
    assert (second.declare, second.settings) == (False, {"prefetch": 7})


TABLE = '[[consumer]]\nhandler = "a:b"\nqueue = "q"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "consumer = 1",
            "key 'consumer' in",
        ),
        ("consumer = []", "must be tables, each under a line [[consumer]]"),
        ("[consumer]\nqueue = 'q'", "must be tables, each under a line [[consumer]]"),
        ("[[consumers]]\nqueue = 'q'", "did you mean 'consumer'?"),
        ('[[consumer]]\nhandler = "a:b"', "[[consumer]] 1 in"),
        ('[[consumer]]\nhandler = "a:b"', "key 'queue' is required"),
        ('[[consumer]]\nqueue = "q"', "key 'handler' is required"),
        (TABLE + TABLE + "prefetch_count = 1", "unknown key 'prefetch_count' of [[consumer]] 2 in"),
        (TABLE + "prefetch_count = 1", "did you mean 'prefetch'?"),
        (TABLE + "prefetch = 0", "key 'prefetch' of [[consumer]] 1 in"),
        (TABLE + "accept = [1]", "must be a string or an array of strings, not an integer"),
        (TABLE + 'on_decode_error = "drop"', "must be one of reject, requeue, dead_letter, keep, not 'drop'"),
        (TABLE + 'exchange_type = "topic"', "key 'exchange_type' of"),
        (TABLE + 'exchange = "e"\nrouting_key = []', "must not be empty"),
        (TABLE + 'routing_key = "k"', "has no effect without exchange"),
        (TABLE + 'declare = false\nexchange = "e"', "has no effect with declare = false"),
        (TABLE + "queue_arguments = { x-expires = -1 }\ndrain = 3", "unknown key 'drain'"),
        ('queue = "q"\n' + TABLE, "key 'queue' in"),
        ("exclusive = true\n" + TABLE, "has no effect with [[consumer]] in"),
    ],
)
def test_one_line_for_what_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    """It names the key, the table and the file."""
    line = refused(tmp_path, text)
    assert expected in line
    assert "service.toml" in line


def test_an_option_against_an_app(tmp_path: Path) -> None:
    assert refused(tmp_path, 'app = "tasks"\n', queue="q").startswith("option --queue: has no effect with key 'app'")
    assert load(tmp_path, 'app = "tasks"\n' + TABLE).app == "tasks"

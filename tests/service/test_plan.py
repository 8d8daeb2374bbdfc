"""What the service's consumers are to do, from settings and declarations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from txmsg.errors import ConfigurationError
from txmsg.messaging.entities import Exchange, Queue
from txmsg.service.config import ConsumerConfig
from txmsg.service.declared import DeclaredConsumer, consumes
from txmsg.service.plan import ConsumerPlan, plan_consumers
from txmsg.service.settings import SettingError

CONFIG = ConsumerConfig(prefetch=20, concurrency=1)


def handle(body: Any, message: Any) -> None:
    pass


def producing(body: Any, message: Any, producer: Any) -> None:
    pass


async def coroutine(body: Any, message: Any) -> None:
    pass


def generator(body: Any, message: Any) -> Iterator[None]:
    yield


class AsyncGenerator:
    async def __call__(self, body: Any, message: Any) -> AsyncIterator[None]:
        yield


def plan(config: ConsumerConfig = CONFIG, **details: Any) -> ConsumerPlan:
    (found,) = plan_consumers(
        config, consumers=[DeclaredConsumer(**{"handler": handle, "queues": ("jobs",), **details})]
    )
    return found


def refused(config: ConsumerConfig = CONFIG, **details: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        plan(config, **details)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_plain_handler() -> None:
    (found,) = plan_consumers(replace(CONFIG, queue="work", declare=True), print)
    assert (found.handler, found.queues, found.declares, found.publishes) == (print, (), True, False)


def test_a_plain_handler_that_would_not_run() -> None:
    """R22: a generator is made, and nothing of it runs: that is no success."""

    def handler(delivery: Any) -> Iterator[None]:
        yield

    with pytest.raises(ConfigurationError, match="inlineCallbacks"):
        plan_consumers(replace(CONFIG, queue="work"), handler)


def test_several_queues_share_the_concurrency() -> None:
    """The prefetch count is for each of them."""
    assert plan(queues=("a", "b"), concurrency=4, prefetch_count=2).config.concurrency == 4


def test_a_plain_handler_needs_a_queue() -> None:
    with pytest.raises(SettingError, match="--queue is required") as caught:
        plan_consumers(CONFIG, print)
    assert caught.value.exit_code == 64


def test_the_settings_hold_where_a_declaration_says_nothing() -> None:
    config = replace(CONFIG, prefetch=30, concurrency=3, requeue_delay=2.5, retry_delays=(1.0,), on_failure="retry")
    found = plan(config).config
    assert (found.prefetch, found.concurrency, found.requeue_delay, found.retry_delays) == (30, 3, 2.5, (1.0,))
    found = plan(config, prefetch_count=7, concurrency=2, requeue_delay=1, retry_delays=[5]).config
    assert (found.prefetch, found.concurrency, found.requeue_delay, found.retry_delays) == (7, 2, 1, (5.0,))


def test_what_follows_from_another() -> None:
    """As for the settings of the service themselves."""
    found = plan(threads=8).config
    assert (found.threads, found.concurrency, found.prefetch) == (8, 8, 20)
    assert plan(concurrency=50).config.prefetch == 100
    assert plan(retry_delays=[1]).config.on_failure == "retry"
    config = replace(CONFIG, retry_delays=(1.0,), on_failure="retry")
    found = plan(config, on_failure="reject").config
    assert (found.on_failure, found.retry_delays) == ("reject", ())


def test_what_takes_a_connection_for_publishing() -> None:
    assert not plan().publishes
    assert plan(handler=producing).needs_publisher
    assert plan(retry_delays=[1]).publishes
    policy = plan(on_decode_error="dead_letter").dead_letter
    assert policy is not None
    assert (policy.dead_letter, policy.limit) == ("jobs.dead", 0)


def test_what_is_declared() -> None:
    """A name is a queue that exists; `declare=False` holds for each queue, and changes none of them."""
    orders = Queue("orders", Exchange("shop"), "order")
    assert not plan().declares
    assert plan(queues=(orders,)).declares
    found = plan(queues=(orders,), declare=False)
    assert not found.declares
    assert found.queues[0].no_declare
    assert not orders.no_declare


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"queues": (object.__new__(type("Thing", (), {"name": "x"})),)}, "is a Queue or a name, not a Thing"),
        ({"queues": (Queue("q", no_ack=True),)}, "queue 'q' has no_ack: what is not handled yet would be lost"),
        ({"accept": ["jsn"]}, "jsn"),
        ({"serializer": "jsn"}, "jsn"),
        ({"compression": "zlip"}, "zlip"),
        ({"accept_compression": "zlip"}, "zlip"),
        ({"queues": ("a", "b"), "retry_delays": [1]}, "those of one queue"),
        ({"queues": ("a", "b"), "on_decode_error": "dead_letter"}, "those of one queue"),
        ({"queues": (Queue(),), "retry_delays": [1]}, "need a queue with a name"),
        ({"queues": ("a", "b"), "consumer_tag": "t"}, "one consumer tag is for one queue"),
        ({"on_failure": "retry"}, "needs retry_delays"),
        ({"on_failure": "reject", "retry_delays": [1]}, "no effect with on_failure 'reject'"),
        ({"dead_letter": "dead"}, "no effect without retry_delays or on_decode_error"),
        ({"concurrency": 3, "prefetch_count": 2}, "cannot be reached with prefetch 2"),
        ({"serializer": "json"}, "the handler has no parameter 'producer'"),
        ({"compression": "zlib"}, "the handler has no parameter 'producer'"),
        ({"handler": generator}, "has a yield in it"),
        ({"handler": AsyncGenerator()}, "has a yield in it"),
        ({"on_decode_error": generator}, "has a yield in it"),
        ({"threads": 2, "concurrency": 3}, "must not be above the number of threads (2)"),
        ({"threads": 2, "handler": coroutine}, "an async def handler runs in the reactor"),
        ({"handler": lambda body: None}, "cannot be called with body, message: too many positional arguments"),
        ({"handler": lambda body, message, publisher: None}, "cannot be called with body, message: missing a required"),
        ({"on_decode_error": lambda message: None}, "cannot be called with message, error: too many"),
        ({"threads": 2, "on_decode_error": coroutine}, "an async def handler runs in the reactor"),
    ],
)
def test_what_does_not_go_together(details: dict[str, Any], expected: str) -> None:
    """Bad configuration is one clear line, which names the consumer."""
    text = refused(**details)
    assert expected in text
    assert text.startswith("DeclaredConsumer of ")


def test_a_class_is_called_once() -> None:
    made: list[object] = []

    @consumes("q")
    class Handler:
        def __init__(self) -> None:
            made.append(self)

        def __call__(self, body: Any, message: Any) -> None:
            pass

    plan_consumers(CONFIG, consumers=[Handler])
    assert len(made) == 1


def test_one_handler_or_several_consumers() -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        plan_consumers(CONFIG, print, [consumes("q")(handle)])


MODULE = """
from txmsg.service import consumes

@consumes("a")
def first(body, message): ...

@consumes("b")
def second(body, message): ...

@consumes("c")
class Third:
    def __call__(self, body, message): ...

def plain(body, message): ...

some = [second, first]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"declared_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def queues(**settings: Any) -> list[str]:
    return [found.config.queue for found in plan_consumers(replace(CONFIG, **settings))]


def test_an_app(module: str) -> None:
    """Issue: `--app package.module`, or something in it; with [[consumer]] tables, these come first."""
    assert queues(app=module) == ["a", "b", "c"]
    assert queues(app=f"{module}:some") == ["b", "a"]
    assert queues(app=f"{module}:second") == ["b"]
    table = DeclaredConsumer(handler=f"{module}:plain", queues=("t",))
    assert queues(app=f"{module}:second", consumers=(table,)) == ["t", "b"]


@pytest.mark.parametrize(
    ("app", "expected"),
    [
        ("{}:plain", "it has no declared handler: decorate one with @consumes(...)"),
        ("{}:secnd", "has no 'secnd'; did you mean 'second'?"),
        ("nowhere", "app 'nowhere': there is no module 'nowhere'"),
        ("not a module", "app 'not a module' must look like package.module or package.module:name"),
        ("math", "app 'math': it has no declared handler"),
    ],
)
def test_an_app_that_cannot_be_used(module: str, app: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        queues(app=app.format(module))
    assert expected in str(caught.value)


def test_a_declared_handler_by_name(module: str) -> None:
    """`--handler` names one; what it declares itself cannot be said again."""
    assert queues(handler=f"{module}:first") == ["a"]
    assert queues(handler=f"{module}:Third") == ["c"]
    for name, value in (("queue", "q"), ("declare", True), ("bind", (("e", "k"),))):
        with pytest.raises(SettingError, match=f"^{name}: has no effect, as handler .* declares its queues itself"):
            queues(handler=f"{module}:first", **{name: value})

"""Handlers that declare what they consume: decorated, and collected from modules."""

from __future__ import annotations

import types
from typing import Any

import pytest

from tests.test_structure import loaded_by
from txmsg.errors import ConfigurationError
from txmsg.messaging.entities import Exchange, Queue
from txmsg.service.declared import DeclaredConsumer, consumes, declaration_of, declarations_in

ORDERS = Queue("orders", Exchange("shop", "topic"), "order.*")


def handle(body: Any, message: Any) -> Any:
    return body


def refused(**details: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        DeclaredConsumer(**{"handler": handle, "queues": (ORDERS,), **details})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_handler_stays_as_it_is() -> None:
    """Issue: a handler declared with its queues, accept list and serializer in Python."""

    @consumes(ORDERS, "jobs", accept=["json"], serializer="json", prefetch_count=10)
    def decorated(body: Any, message: Any) -> str:
        return f"{body} handled"

    assert decorated(1, None) == "1 handled"
    declared = declaration_of(decorated)
    assert declared is not None
    assert (declared.queues, declared.accept, declared.serializer) == ((ORDERS, "jobs"), ("json",), "json")
    assert declared.settings == {"prefetch": 10}
    assert declared.handler is decorated
    assert "orders, jobs with" in repr(declared)


def test_queues_by_name() -> None:
    for given in ([ORDERS], (ORDERS,), ORDERS):
        declared = declaration_of(consumes(queues=given)(lambda body, message: None))
        assert declared is not None
        assert declared.queues == (ORDERS,)


def test_a_class() -> None:
    @consumes("jobs")
    class Handler:
        def __call__(self, body: Any, message: Any) -> None:
            pass

    declared = declaration_of(Handler)
    assert declared is not None
    assert declared.handler is Handler


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({"handler": None}, "a handler is a callable, not a NoneType"),
        ({"queues": ()}, "a consumer needs a queue"),
        ({"queues": (1,)}, "is a Queue or a name, not a int"),
        ({"queues": ("",)}, "is a Queue or a name, not an empty name"),
        ({"on_decode_error": "drop"}, "one of reject, requeue, dead_letter, keep, not 'drop'"),
        ({"declare": "yes"}, "declare is True or False, not a str"),
        ({"prefetch_count": -1}, "prefetch_count must be an integer from 1 to 65535"),
        ({"concurrency": 0}, "concurrency must be an integer from 1"),
        ({"on_failure": "hope"}, "on_failure must be one of requeue_once, reject, retry"),
        ({"retry_delays": [0]}, "retry_delays must be a number from 0.001"),
        ({"requeue_delay": "1"}, "requeue_delay must be a number"),
    ],
)
def test_what_is_wrong_by_itself(details: dict[str, Any], expected: str) -> None:
    assert expected in refused(**details)


def test_unlimited_prefetch() -> None:
    assert DeclaredConsumer(handler=handle, queues=("q",), prefetch_count=0).settings == {"prefetch": 0}


def test_mistakes_in_the_decorator() -> None:
    with pytest.raises(ConfigurationError, match="a consumer has no 'prefetch'; known are: queues, accept"):
        consumes("q", prefetch=1)
    with pytest.raises(ConfigurationError, match="give the queues once"):
        consumes("q", queues=["q"])
    with pytest.raises(ConfigurationError, match="a consumer needs a queue"):
        consumes()(handle)
    with pytest.raises(ConfigurationError, match="cannot be decorated: use DeclaredConsumer"):
        consumes("q")([].append)


def test_what_a_module_declares() -> None:
    """In the order of the module; a handler with two names is one."""
    module = types.ModuleType("tasks")
    first, second = consumes("a")(lambda body, message: None), consumes("b")(lambda body, message: None)
    third = DeclaredConsumer(handler=handle, queues=("c",))
    vars(module).update(first=first, other=3, second=second, again=first, third=third)
    assert [declared.queues for declared in declarations_in(module)] == [("a",), ("b",), ("c",)]
    assert [declared.queues for declared in declarations_in([second, third])] == [("b",), ("c",)]
    assert [declared.queues for declared in declarations_in(first)] == [("a",)]
    with pytest.raises(ConfigurationError, match="decorate one with @consumes"):
        declarations_in(types.ModuleType("empty"))
    with pytest.raises(ConfigurationError, match="a function in it is no declared handler"):
        declarations_in([first, handle])


def test_the_messaging_layer_is_loaded_for_those_who_use_it() -> None:
    """A service with a plain handler does without it."""
    loaded = loaded_by("import txmsg.service, txmsg.tap.consumer")
    assert "txmsg.service.declared" in loaded
    assert not {module for module in loaded if module.startswith("txmsg.messaging")}

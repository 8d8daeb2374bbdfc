"""The examples in docs/testing.md and docs/transports.md do what the pages say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from tests.cases import ReactorTestCase
from tests.source import ROOT
from tests.testing.test_process import run_pytest
from txmsg import errors, testing
from txmsg.broker.script import Script
from txmsg.testing.faults import Faults
from txmsg.transports import transport_for, unregister

_BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    """The Python examples of a page."""
    return _BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


def names() -> dict[str, Any]:
    """What the examples use without importing it."""
    known: dict[str, Any] = {"Clock": Clock, "DeferredList": DeferredList, "TestCase": TestCase}
    for module in (errors, testing):
        known.update({name: getattr(module, name) for name in module.__all__})
    return known


def defined_by(block: str) -> dict[str, Any]:
    """The functions and classes that an example defines."""
    namespace = names()
    before = set(namespace)
    exec(compile(block, "docs", "exec"), namespace)
    return {name: value for name, value in namespace.items() if name not in before and name != "__builtins__"}


class TestingPageTests(ReactorTestCase):
    """docs/testing.md."""

    async def test_functions(self) -> None:
        """Each function without fixtures passes as it stands there."""
        functions: list[Callable[[], Any]] = [
            value
            for block in blocks("testing.md")
            if "class " not in block
            for value in defined_by(block).values()
            if inspect.isfunction(value) and not inspect.signature(value).parameters
        ]
        self.assertGreaterEqual(len(functions), 10)
        for function in functions:
            with self.subTest(function=function.__name__):
                result = function()
                if inspect.iscoroutine(result):
                    await Deferred.fromCoroutine(result)

    def test_the_mixin(self) -> Deferred[None]:
        """The test case for trial passes."""
        [block] = [block for block in blocks("testing.md") if "BrokerMixin" in block]
        [case] = defined_by(block).values()
        test = case("test_jobs_are_handled")
        ready: Deferred[Any] = test.setUp()
        ready.addCallback(lambda _: Deferred.fromCoroutine(test.test_jobs_are_handled()))
        return ready.addBoth(lambda result: test.broker.stop().addCallback(lambda _: result))

    def test_every_fault_is_in_the_table(self) -> None:
        """And the table names none that is not there."""
        page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
        named = set(re.findall(r"^\| `(\w+)\(", page, re.MULTILINE))
        there = {name for name in vars(Faults) if not name.startswith("_")}
        asked_by_the_broker = {name for name in vars(Script) if not name.startswith("_")}
        self.assertEqual(named, there - asked_by_the_broker - {"active", "clear", "unblock"})


class TransportsPageTests(ReactorTestCase):
    """docs/transports.md."""

    async def test_examples(self) -> None:
        """They run as they stand there, inside a coroutine; but for the broker's address and certificate."""
        self.addCleanup(transport_for("memory").reset)  # type: ignore[attr-defined]
        self.addCleanup(unregister, "carrier+pigeon")
        broker = testing.EmbeddedBroker(listen=True)
        self.addCleanup(broker.stop)
        await broker.start()
        for block in blocks("transports.md"):
            block = re.sub(r"amqp://shop:secret@rabbit-\d", broker.url, block)
            block = re.sub(r'"ssl": {.*?}, ', "", block)
            indented = "".join(f"    {line}\n" for line in block.splitlines())
            namespace: dict[str, Any] = {}
            exec(compile(f"async def run():\n{indented}    return locals()", "docs", "exec"), namespace)
            there = await Deferred.fromCoroutine(namespace["run"]())
            if "connection" in there:
                await there["connection"].close()


def test_the_fixture(tmp_path: Path) -> None:
    """The example with `txmsg_broker_url` passes under pytest."""
    [block] = [block for block in blocks("testing.md") if "txmsg_broker_url" in block]
    printed = run_pytest(tmp_path, "import pika\n\n" + block)
    assert "1 passed" in printed, printed

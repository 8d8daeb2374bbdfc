"""The examples in docs/disruption.md do what the page says."""

from __future__ import annotations

import inspect
import re
from typing import Any

from twisted.internet.defer import Deferred

from tests.cases import ReactorTestCase
from tests.source import ROOT
from tests.testing.test_documentation import blocks
from txmsg import amqp, errors, testing
from txmsg.testing import disruption
from txmsg.testing.disruption import DisruptionProxy, Simulation
from txmsg.testing.disruption.checker import QueueChecker
from txmsg.testing.disruption.report import MUST_BE_ZERO, Report
from txmsg.testing.disruption.rules import FrameRules


def public(value: type) -> set[str]:
    """The methods of a class that are for users."""
    return {name for name, member in vars(value).items() if inspect.isfunction(member) and not name.startswith("_")}


class DisruptionPageTests(ReactorTestCase):
    """docs/disruption.md."""

    page = (ROOT / "docs" / "disruption.md").read_text(encoding="utf-8")

    async def test_functions(self) -> None:
        """Each passes as it stands there."""
        found = 0
        for block in blocks("disruption.md"):
            namespace: dict[str, Any] = {"Deferred": Deferred}
            for module in (amqp, errors, testing, disruption):
                namespace.update({name: getattr(module, name) for name in module.__all__})
            exec(compile(block, "docs", "exec"), namespace)
            for name, function in namespace.items():
                if name.startswith("test_"):
                    found += 1
                    with self.subTest(function=name):
                        result = function()
                        if inspect.iscoroutine(result):
                            await Deferred.fromCoroutine(result)
        self.assertEqual(found, 8)

    def test_every_fault_is_named(self) -> None:
        """None is forgotten on the page."""
        for_others = {"accepted", "connection_over", "connected", "connect_delay", "editor", "start", "stop"}
        words = set(re.findall(r"\w+", self.page))
        for value in (DisruptionProxy, FrameRules, QueueChecker):
            self.assertEqual(public(value) - for_others - words - {"unfired", "unhandled_error", "secret_seen"}, set())
        unnamed = public(Simulation) - for_others - words
        self.assertEqual(unnamed, {"note", "settle", "timers"})

    def test_every_count_is_named(self) -> None:
        """And whether it must be 0."""
        rows = [line for line in self.page.splitlines() if line.startswith("| `")]
        strict = {name for row in rows if "must be 0" in row for name in re.findall(r"`(\w+)`", row)}
        self.assertEqual(strict, set(MUST_BE_ZERO))
        self.assertEqual(strict - set(Report.__dataclass_fields__), set())

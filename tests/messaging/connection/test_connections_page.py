"""The examples of docs/messaging-connections.md run, one after another."""

from __future__ import annotations

import ast
import inspect
import re
from typing import Any

from tests.cases import ReactorTestCase
from tests.source import ROOT
from txmsg.transports.memory import MemoryTransport
from txmsg.transports.registry import transport_for


class PageTests(ReactorTestCase):
    """The page."""

    async def test_examples(self) -> None:
        """Each block, with the names of those before it."""
        transport = transport_for("memory")
        assert isinstance(transport, MemoryTransport)
        self.addCleanup(transport.reset)
        text = (ROOT / "docs" / "messaging-connections.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        names: dict[str, Any] = {}
        for block in blocks:
            code = compile(block, "the page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(code, names)
            if inspect.iscoroutine(outcome):
                await outcome
        self.assertGreater(len(blocks), 5)

"""The examples in the pages on messaging run, one after another, each with the names of those before it.

Those of docs/messaging.md, the first page, are in tests/test_first_steps.py, and those of docs/messaging-consuming.md,
which need somebody who sends, in tests/messaging/consuming/test_consuming_page.py.
"""

from __future__ import annotations

import ast
import inspect
import re
import secrets
from typing import Any

from tests.cases import ReactorTestCase
from tests.source import ROOT
from txmsg.messaging import Connection, pools
from txmsg.transports.memory import MemoryTransport
from txmsg.transports.registry import transport_for


class PageTests(ReactorTestCase):
    """Over ``memory://``, whatever broker a page names."""

    async def run_page(self, page: str, *replaced: tuple[str, str]) -> None:
        """All Python blocks of docs/`page`.md."""
        transport = transport_for("memory")
        assert isinstance(transport, MemoryTransport)
        self.addCleanup(transport.reset)
        url = f"memory://{secrets.token_hex(4)}"
        names: dict[str, Any] = {"print": lambda *values: None, "__name__": page}
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        for block in blocks:
            for old, new in (*replaced, (r"amqps?://[^\"]*example[^\"]*|amqp://(localhost)?(?=\")", url)):
                block = re.sub(old, new, block)
            if isinstance(names.get("connection"), Connection):
                await names["connection"].connect()  # a block before has closed it
            code = compile(block, f"{page}.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            outcome = eval(code, names)
            if inspect.iscoroutine(outcome):
                await outcome
        self.assertGreater(len(blocks), 0)
        await pools.reset()
        for value in names.values():
            if isinstance(value, Connection):
                await value.close()

    async def test_connections(self) -> None:
        """Where to, and what it says of itself."""
        await self.run_page("messaging-connections")

    async def test_entities(self) -> None:
        """A queue that is declared, got from, bound and remembered."""
        await self.run_page("messaging-entities")

    async def test_publishing(self) -> None:
        """Publishes, with a policy too."""
        await self.run_page("messaging-publishing")

    async def test_pools(self) -> None:
        """Of connections, producers, and others."""
        await self.run_page("messaging-pools")

    async def test_simple(self) -> None:
        """Put and got."""
        await self.run_page("messaging-simple")

    async def test_pidbox(self) -> None:
        """A node and a mailbox; the page's second node is not there."""
        await self.run_page("messaging-pidbox", ("timeout=[15]", "timeout=0.1"))

    async def test_retrying(self) -> None:
        """Policies."""
        await self.run_page("messaging-retrying")

    async def test_workers(self) -> None:
        """Workers are defined, and none is started."""
        await self.run_page("messaging-workers")

    async def test_serialization(self) -> None:
        """By producer and consumer, and by hand."""
        await self.run_page("serialization")

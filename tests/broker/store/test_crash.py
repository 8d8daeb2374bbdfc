"""kill -9 of a real broker process under confirmed load (F56, R35)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.broker.crash_rounds import CrashRounds
from tests.cases import ReactorTestCase


class CrashTests(ReactorTestCase):
    """Every confirmed persistent message is there after a kill, in order, and none is served as new twice."""

    timeout = 100

    async def crash(self, seed: int, rounds: int) -> CrashRounds:
        """Rounds that went well."""
        ran = CrashRounds(Path(self.mktemp()), seed)
        ran.directory.parent.mkdir(parents=True, exist_ok=True)
        await ran.run(rounds)
        self.assertEqual(ran.problems, [], f"seed {seed}")
        return ran

    async def test_kill(self) -> None:
        """Killed twice."""
        ran = await self.crash(35, 2)
        self.assertGreater(len(ran.confirmed), 300)

    @pytest.mark.long
    async def test_many_kills(self) -> None:
        """Killed fifty times."""
        for seed in range(10):
            await self.crash(seed, 5)

    test_many_kills.timeout = 600  # type: ignore[attr-defined]

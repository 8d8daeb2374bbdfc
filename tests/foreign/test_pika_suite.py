"""pika's own acceptance tests, unchanged: TXMSG_PIKA_CHECKOUT names a checkout (docs/foreign-clients.md)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CHECKOUT = os.environ.get("TXMSG_PIKA_CHECKOUT", "")


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.skipif(not CHECKOUT, reason="TXMSG_PIKA_CHECKOUT does not name a checkout of pika")
def test_acceptance() -> None:
    """R34: the only failures are those that docs/foreign-clients.md explains."""
    python = os.environ.get("TXMSG_PIKA_PYTHON", sys.executable)
    script = [sys.executable, str(ROOT / "scripts" / "foreign_suites.py"), "--pika", CHECKOUT, "--python", python]
    done = subprocess.run(
        script,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

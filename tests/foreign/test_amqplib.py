"""npm's amqplib.  This test downloads it from the npm registry, unless TXMSG_AMQPLIB names a node_modules with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed"),
]

SCRIPT = Path(__file__).parent / "amqplib_smoke.js"


@pytest.fixture(scope="module")
def node_modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with amqplib in it."""
    given = os.environ.get("TXMSG_AMQPLIB")
    if given:
        return Path(given)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed, and TXMSG_AMQPLIB does not name a node_modules with amqplib")
    folder = tmp_path_factory.mktemp("npm")
    command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder), "amqplib"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=90, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("npm cannot download amqplib: no answer in 90 s")
    if done.returncode:
        pytest.skip(f"npm cannot download amqplib: {done.stderr.strip()[-300:]}")
    return folder / "node_modules"


def test_amqplib(vhost_url: str, node_modules: Path) -> None:
    """R34: what amqplib_smoke.js does."""
    done = subprocess.run(
        ["node", str(SCRIPT), vhost_url],
        env=os.environ | {"NODE_PATH": str(node_modules)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr

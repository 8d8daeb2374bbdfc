"""A worker of the real Celery in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

__all__ = ["WorkerProcess"]

_ROOT = Path(__file__).parents[2]
#: Seconds that it may take to start.
_PATIENCE = 60.0


class WorkerProcess:
    """``celery worker`` with the tasks of tests.celery.tasks.

    url -- of the broker.   queue -- what it consumes.   pool -- "solo": in the one process; "prefork".
    """

    def __init__(self, url: str, queue: str = "celery", pool: str = "solo") -> None:
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        command = [sys.executable, "-m", "celery", "-A", "tests.celery.tasks", "worker", "--pool", pool]
        command += ["-c", "1", "-Q", queue, "-l", "INFO", "-n", f"{queue}@%h"]
        command += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        environment = {
            **os.environ,
            "TEST_BROKER": url,
            "TEST_QUEUE": queue,
            "PYTHONPATH": str(_ROOT),
            "C_FORCE_ROOT": "1",
            "PYTHONWARNINGS": "ignore",
        }
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def log(self) -> str:
        """What it has said."""
        return os.pread(self._log.fileno(), 2**20, 0).decode("utf-8", "replace")

    def wait(self) -> WorkerProcess:
        """Until it is ready; RuntimeError with its log if it is not."""
        end = time.monotonic() + _PATIENCE
        while " ready." not in self.log():
            if self._process.poll() is not None or time.monotonic() > end:
                log = self.log()
                self.close()
                raise RuntimeError(f"the worker did not start: {log}")
            time.sleep(0.05)
        return self

    def kill(self) -> None:
        """kill -9, the whole group."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(10)

    def close(self) -> None:
        """End it."""
        self.kill()
        self._log.close()

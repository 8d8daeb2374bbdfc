"""Our worker in a process of its own, which a test can kill; both halves are here: the process runs this file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

__all__ = ["TxmsgWorkerProcess"]

_ROOT = Path(__file__).parents[2]


class TxmsgWorkerProcess:
    """Runs a task `stuck`, with late acks, which never ends; ready once it has been made.

    url -- of the broker.   queue -- what it consumes.
    """

    def __init__(self, url: str, queue: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.celery.worker_process", url, queue],
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.line()

    def line(self) -> str:
        """The next thing that it says."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the worker has ended")
        return line.strip()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(10)

    def close(self) -> None:
        """End it."""
        self.kill()
        if self._process.stdout is not None:
            self._process.stdout.close()


def main() -> None:
    """Run the worker until the process is killed, or for a minute."""
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred

    from txmsg.rpc.celery.worker import CeleryWorker

    reactor: Any = installed

    def say(text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()

    worker = CeleryWorker(sys.argv[1], queues=[sys.argv[2]])

    @worker.task(name="stuck", acks_late=True)
    def stuck() -> Deferred[None]:
        say("running")
        return Deferred()

    worker.start().addCallbacks(lambda _: say("ready"), lambda failure: reactor.stop())
    reactor.callLater(60, reactor.stop)
    reactor.run()


if __name__ == "__main__":
    main()

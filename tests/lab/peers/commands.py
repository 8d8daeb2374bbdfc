"""The commands of standard input, for the other clients."""

from __future__ import annotations

import os
import sys
import threading

__all__ = ["Commands"]


class Commands:
    """Reads them in a thread.   stopping: Event -- to come to an end.   paused: Event -- not to publish."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.paused = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                self.stopping.set()
            elif line.strip() == "pause":
                self.paused.set()
            elif line.strip() == "resume":
                self.paused.clear()
        os._exit(1)

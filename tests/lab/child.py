"""The workload in a process of its own: python -m tests.lab.child CLIENT SETTINGS, events on standard output.

On standard input come commands, a line each: "pause", "resume" (publishing), "block 6" (stop the whole process from
within for so many seconds, as an application does that computes), "stop" (come to an end).  When standard input ends,
so does the process.  The last event is "done", with the figures of the process.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import threading
import time
from typing import Any
from urllib.parse import urlsplit

from tests.lab.recorder import LineRecorder
from tests.lab.workload import Settings

__all__ = ["main", "settings_of"]

#: How often the reactor is looked at, in seconds.
_TICK = 0.01


def settings_of(text: str) -> Settings:
    """The settings in a JSON object."""
    given: dict[str, Any] = json.loads(text)
    given["targets"] = tuple(given["targets"])
    return Settings(**given)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _run_txmsg(settings: Settings, recorder: LineRecorder) -> None:
    from twisted.internet import reactor as installed
    from twisted.internet.defer import Deferred
    from twisted.internet.task import LoopingCall
    from twisted.logger import LogLevel, formatEvent, globalLogPublisher
    from twisted.python.failure import Failure

    from tests.lab.workload import Workload

    reactor: Any = installed
    window = None
    if settings.window_size:
        from txmsg.amqp import DuplicateWindow

        window = DuplicateWindow(settings.window_size)
    workload = Workload(settings, recorder, reactor, window=window)
    stalls = [0.0]
    last = [time.monotonic()]

    passwords = {urlsplit(target).password for target in settings.targets} - {None, "", "guest"}

    def observe(event: dict[str, Any]) -> None:
        shown = f"{formatEvent(event)} {event.get('log_failure', '')}"
        if any(password in shown for password in passwords if password):
            recorder.write("secret", str(event.get("log_namespace", "the log")))
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            failure = event.get("log_failure")
            text = f"{event.get('log_format', '')} {failure.value!r}" if failure else str(event.get("log_format", ""))
            if not any(part in text for part in settings.expected):
                recorder.write("error", text)

    def tick() -> None:
        now = time.monotonic()
        stalls.append(max(stalls.pop(), now - last[0] - _TICK))
        last[0] = now

    def block(seconds: float) -> None:
        time.sleep(seconds)
        last[0] = time.monotonic()  # this one is not the library's

    def finished(outcome: Any) -> None:
        if isinstance(outcome, Failure):
            recorder.write("error", f"the workload failed: {outcome.value!r}")
        gc.collect()
        figures = {"peak_rss": _peak(), "longest_stall": round(stalls[0], 4), "stale": workload.stale}
        if window is not None:
            figures["dropped"] = window.dropped
        recorder.write("done", figures)
        reactor.stop()

    def command(line: str) -> None:
        name, _, value = line.partition(" ")
        if name == "block":
            block(float(value))
        elif name == "pause":
            workload.is_paused = True
        elif name == "resume":
            workload.is_paused = False
        elif name == "stop":
            workload.stop_publishing()
            Deferred.fromCoroutine(workload.finish()).addBoth(finished)

    def commands() -> None:
        for line in sys.stdin:
            reactor.callFromThread(command, line.strip())
        if reactor.running:
            os._exit(1)  # whoever started it is gone

    def started(outcome: Any) -> None:
        if isinstance(outcome, Failure):
            finished(outcome)
        else:
            recorder.write("started")

    observer: Any = observe
    globalLogPublisher.addObserver(observer)
    threading.Thread(target=commands, daemon=True).start()
    looping = LoopingCall(tick)
    looping.start(_TICK, now=False)
    Deferred.fromCoroutine(workload.start()).addBoth(started)
    reactor.run()


def main(arguments: list[str]) -> None:
    """Run it."""
    client, given = arguments
    settings = settings_of(given)
    # What the process prints by accident must not come between the events.
    events = os.dup(1)
    os.dup2(2, 1)
    recorder = LineRecorder(events)
    if client == "txmsg":
        _run_txmsg(settings, recorder)
    else:
        from tests.lab.peers import commands

        if client == "pika":
            from tests.lab.peers import pika_peer as peer
        else:
            from tests.lab.peers import aio_pika_peer as peer  # type: ignore[no-redef]
        peer.run(settings, recorder, commands.Commands())
        recorder.write("done", {"peak_rss": _peak()})


if __name__ == "__main__":
    main(sys.argv[1:])

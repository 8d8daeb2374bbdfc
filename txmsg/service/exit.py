"""How `twistd` comes to exit with a service's code, and what the signals do.

`twistd` knows two ends: 0 when the reactor stopped, or death by the signal that stopped it (Twisted's
reactor notes a SIGTERM or SIGINT that it handles, and `twistd` then sends the same signal to itself).
Neither can carry a code, and an exception out of the reactor is printed and swallowed
(`twisted.application.app.runReactorWithLogging`).  So

- the signals are taken by handlers of ours, installed once the reactor runs: first, drain; second, cut
  the drain short; third, exit at once;
- a code other than 0 is given to the operating system by a function registered with :mod:`atexit`, which
  runs when `twistd` is done: the log is closed and the pid file removed.  It is registered before the
  handler's module is imported, so that exit functions of the user's code still run before it.

Python runs that function after all other threads but daemon ones have ended.  Invariant: the process
ends, also when a thread does not: past the drain deadline a watchdog gives it `GRACE` seconds.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger

from txmsg.service.exit_codes import ExitCode

__all__ = ["GRACE", "EndingService", "HowItEnded", "ProcessExit", "say"]

#: Seconds that the process is given to end by itself after every other limit has passed.
GRACE = 5.0


class HowItEnded(Protocol):
    """The end of a service: :class:`txmsg.service.exit_codes.Outcome` is one."""

    @property
    def exit_code(self) -> int:
        """For the process."""

    @property
    def line(self) -> str:
        """What happened and what to change, in one line."""

    @property
    def unfinished(self) -> int:
        """How much was cut short; while it is not 0, a thread may keep the process."""


class EndingService(Protocol):
    """A service that ends by itself, or when it is stopped, and says how."""

    @property
    def stop_limit(self) -> float:
        """Seconds within which a stop ends."""

    def when_finished(self) -> Deferred[Any]:
        """A Deferred that fires with how it ended (:class:`HowItEnded`)."""

    def stop_now(self) -> object:
        """Cut an orderly stop short."""


def say(line: str, program: str = "txmsg-consumer") -> None:
    """Print one line on the real standard error, also when twistd's log has taken `sys.stderr`."""
    stream = sys.__stderr__
    # Closed or broken: the log has the line too.
    with contextlib.suppress(OSError, ValueError):
        if stream is not None:
            print(f"{program}: {line}", file=stream, flush=True)


class ProcessExit:
    """Holds the exit code of this process.

    exit_process: what ends the process at once with a code; a test gives its own.
    program: what the line on standard error begins with.
    """

    _log = Logger()

    def __init__(self, exit_process: Callable[[int], object] = os._exit, *, program: str = "txmsg-consumer") -> None:
        self.exit_code: int = ExitCode.OK
        self.program = program
        self._exit_process = exit_process
        #: Counts the signals.  One call of C code, so that a signal within a signal's handler cannot come between.
        self._signals = itertools.count(1)
        self._service: EndingService | None = None
        self._reactor: Any = None
        self._watchdog: threading.Timer | None = None

    def register(self) -> None:
        """Make Python's own end use the code; call it before the handler is imported."""
        atexit.register(self.at_exit)

    def watch(self, service: EndingService, reactor: Any) -> None:
        """Stop `reactor` when `service` ends, with the service's code; take over SIGTERM and SIGINT."""
        self._service = service
        self._reactor = reactor
        service.when_finished().addCallback(self._finished)
        reactor.callWhenRunning(self._take_signals)

    # -- the end --------------------------------------------------------------------------------------

    def _finished(self, outcome: HowItEnded) -> None:
        self.exit_code = outcome.exit_code
        if outcome.exit_code != ExitCode.OK:
            say(f"{outcome.line} (exit code {int(outcome.exit_code)})", self.program)
        if outcome.unfinished:
            self._watch_for(GRACE)
        self._reactor.callWhenRunning(self._stop_reactor)

    def _stop_reactor(self) -> None:
        # Already stopping, when a signal was the reason of the end.
        with contextlib.suppress(ReactorNotRunning):
            self._reactor.stop()

    def _watch_for(self, seconds: float) -> None:
        """End the process in `seconds` if it has not ended by then."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._watchdog = threading.Timer(seconds, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def _give_up(self) -> None:
        self._leave(self.exit_code or ExitCode.DRAIN_DEADLINE)

    def at_exit(self) -> None:
        """What atexit calls: give the operating system our code, if there is one."""
        if self.exit_code != ExitCode.OK:
            self._leave(self.exit_code)

    def _leave(self, code: int) -> None:
        """End the process without Python's own ending, having written what that would have written."""
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            # Closed, a full disk, or the write that a signal interrupted.
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                if stream is not None:
                    stream.flush()
        self._exit_process(int(code))

    # -- signals --------------------------------------------------------------------------------------

    def _take_signals(self) -> None:
        signal.signal(signal.SIGTERM, self._signalled)
        # A shell starts background jobs with SIGINT ignored: that is to stay so.
        if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            signal.signal(signal.SIGINT, self._signalled)

    def _signalled(self, number: int, _frame: object) -> None:
        assert self._service is not None
        number_of_signals = next(self._signals)
        if number_of_signals == 1:
            # Not left to the reactor: a handler may be blocking it.
            self._watch_for(self._service.stop_limit + GRACE)
        elif number_of_signals >= 3:
            self._leave(ExitCode.DRAIN_DEADLINE)
        self._reactor.callFromThread(self._stop_requested, signal.Signals(number).name, number_of_signals)

    def _stop_requested(self, name: str, count: int) -> None:
        assert self._service is not None
        if count == 1:
            self._log.info("{name}: stopping", name=name)
            self._stop_reactor()
        else:
            self._log.warn("{name} again: not waiting any longer", name=name)
            self._service.stop_now()

"""How the process ends: codes, signals, the watchdog; without ending this one."""

from __future__ import annotations

import io
import itertools
import signal
import sys
import threading

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning

from tests.service.simulated import ServiceCase
from txmsg.service import exit as exit_module
from txmsg.service.exit import ProcessExit


class ExitTestCase(ServiceCase):
    def setUp(self) -> None:
        super().setUp()
        self.reactor = self.clock
        self.stops = 0
        self.reactor.stop = self.count_stop
        self.reactor.callFromThread = lambda call, *args: self.reactor.callLater(0, call, *args)
        self.left: list[int] = []
        self.has_left = threading.Event()
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        self.make(lambda delivery: Deferred(), drain=5.0, start_limit=0.0)
        self.exit = ProcessExit(self.leave)
        self.exit.watch(self.service, self.reactor)
        self.addCleanup(self.cancel_watchdog)
        self.addCleanup(self.end_service)

    def count_stop(self) -> None:
        self.stops += 1

    def end_service(self) -> None:
        self.service.stopService()
        self.service.stop_now()
        self.simulation.advance(1)

    def cancel_watchdog(self) -> None:
        if self.exit._watchdog is not None:
            self.exit._watchdog.cancel()

    def leave(self, code: int) -> None:
        self.left.append(code)
        self.has_left.set()

    def consuming(self) -> None:
        """The service started, with one handler that does not end."""
        self.service.startService()
        self.publish(b"1")
        self.simulation.advance(1)

    def failing(self) -> None:
        """The service started without a broker."""
        self.simulation.run_until(self.simulation.broker.stop())
        self.service.startService()
        self.simulation.advance(1)

    def signal(self, number: int = signal.SIGTERM) -> None:
        signal.raise_signal(number)
        self.reactor.advance(0)


class CodeTests(ExitTestCase):
    def test_a_failed_start(self) -> None:
        """R33: the line on standard error, the reactor stopped, the code at the end of the process."""
        self.failing()
        (line,) = self.stderr.getvalue().splitlines()
        self.assertTrue(line.startswith("txmsg-consumer: cannot connect to amqp://localhost:5672/%2F: "))
        self.assertTrue(line.endswith("(exit code 14)"))
        self.assertEqual((self.stops, self.left), (1, []))
        self.exit.at_exit()
        self.assertEqual(self.left, [14])

    def test_success_is_left_to_python(self) -> None:
        self.service.startService()
        self.simulation.run_until(self.service.stopService())
        self.exit.at_exit()
        self.assertEqual((self.left, self.stderr.getvalue()), ([], ""))

    def test_a_reactor_that_stops_already(self) -> None:
        def stop() -> None:
            raise ReactorNotRunning

        self.reactor.stop = stop
        self.failing()
        self.assertEqual(self.exit.exit_code, 14)

    def test_closed_streams_do_not_change_the_code(self) -> None:
        self.stderr.close()
        self.failing()
        self.exit.at_exit()
        self.assertEqual(self.left, [14])

    def test_no_standard_error_at_all(self) -> None:
        self.patch(sys, "__stderr__", None)
        exit_module.say("nobody hears")
        self.exit._leave(3)
        self.assertEqual(self.left, [3])


class SignalTests(ExitTestCase):
    def test_the_first_signal_stops_the_reactor_and_no_more(self) -> None:
        """Drain.  twistd would otherwise die by the signal instead of exiting 0."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.exit._signals = itertools.count(1)
            self.signal(number)
        self.assertEqual((self.stops, self.left), (2, []))
        self.assertIn("SIGTERM: stopping", self.logged.text)
        self.assertIn("SIGINT: stopping", self.logged.text)

    def test_the_second_cuts_the_drain_short(self) -> None:
        self.consuming()
        self.signal()
        self.service.stopService()  # what the reactor's stop leads to
        self.simulation.advance(1)
        self.assertEqual(len(self.simulation.open_links()), 1)
        self.signal()
        self.simulation.advance(1)
        self.assertEqual(self.simulation.open_links(), [])
        self.assertEqual(self.exit.exit_code, 75)
        self.assertIn("SIGTERM again", self.logged.text)

    def test_a_signal_within_the_first_ones_handler(self) -> None:
        """Two supervisors at once: the first signal still stops, the second still cuts short."""
        self.patch(self.exit, "_watch_for", lambda seconds: signal.raise_signal(signal.SIGTERM))
        self.signal()
        self.assertIn("SIGTERM: stopping", self.logged.text)
        self.assertEqual(self.logged.text.count("SIGTERM again"), 1)
        self.assertEqual(self.stops, 1)

    def test_the_third_ends_the_process(self) -> None:
        """Also when the reactor is blocked: nothing is left to it."""
        self.consuming()
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        self.assertEqual(self.left, [75])

    def test_an_ignored_sigint_stays_ignored(self) -> None:
        """A shell starts background jobs so."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        ProcessExit(self.leave).watch(self.service, self.reactor)
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)
        self.assertNotEqual(signal.getsignal(signal.SIGTERM), signal.SIG_DFL)

    def test_the_watchdog_is_set_at_the_first_signal(self) -> None:
        """A handler that blocks the reactor cannot keep the process: drain, two closes, and the grace."""
        self.signal()
        assert self.exit._watchdog is not None
        self.assertTrue(self.exit._watchdog.daemon)
        self.assertEqual(self.exit._watchdog.interval, 5.0 + 2 * 10.0 + exit_module.GRACE)

    def test_the_watchdog_ends_the_process(self) -> None:
        self.patch(exit_module, "GRACE", 0.01)
        self.consuming()
        self.service.stopService()
        self.simulation.advance(6)
        self.assertTrue(self.has_left.wait(10))
        self.assertEqual(self.left, [75])

    def test_a_watchdog_without_a_code_says_75(self) -> None:
        self.exit._give_up()
        self.assertEqual(self.left, [75])


def test_say_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "__stderr__", stream)
    exit_module.say("hello")
    assert stream.getvalue() == "txmsg-consumer: hello\n"
    assert capsys.readouterr().err == ""

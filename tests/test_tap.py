"""The twistd plug-in: found, and wired."""

from __future__ import annotations

import atexit
import io
import signal
import subprocess
import sys
from typing import Any

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from tests.service.fakes import ClockReactor
from txmsg import __version__
from txmsg.broker import exit_codes
from txmsg.broker.kinds import Address
from txmsg.broker.options import SETTINGS
from txmsg.broker.service import BrokerService
from txmsg.service.consumer import ConsumerService
from txmsg.service.serving import ServerService
from txmsg.service.together import ServiceGroup
from txmsg.tap import broker as broker_tap
from txmsg.tap import consumer as tap


def patch_reactor(case: SynchronousTestCase, reactor: object) -> None:
    """What `from twisted.internet import reactor` gives during a test."""
    from twisted.internet import reactor as real  # installs it, so that there is something to patch

    from twisted import internet

    assert real is not None
    case.patch(internet, "reactor", reactor)


class TapTests(SynchronousTestCase):
    def test_twistd_finds_it(self) -> None:
        """`twistd txmsg-consumer` exists, and its words are those of txmsg.tap.consumer."""
        (plugin,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "txmsg-consumer"]
        self.assertIs(plugin.options, tap.Options)
        self.assertIs(plugin.makeService, tap.makeService)

    def test_the_plugin_module_imports_nothing_of_ours(self) -> None:
        """Every twistd on the machine loads it, also those that never use it."""
        code = "import twisted.plugins.txmsg_plugin, sys; print([m for m in sys.modules if m.startswith('txmsg')])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout, "[]\n")

    def test_the_options_install_no_reactor(self) -> None:
        """twistd --reactor must still be able to choose."""
        code = "import txmsg.tap.consumer as t, sys; t.Options(); print('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout, "False\n")

    def test_make_service(self) -> None:
        """The service has the parsed settings; its end stops the reactor and leaves its code."""
        reactor = ClockReactor()
        patch_reactor(self, reactor)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        options = tap.Options()
        options.environ = {}
        options.parseOptions(["--queue", "work", "--handler", "math:floor"])
        self.addCleanup(atexit.unregister, options.process_exit.at_exit)
        service = tap.makeService(options)
        self.assertIsInstance(service, ConsumerService)
        assert isinstance(service, ConsumerService)
        self.assertIs(service.config, options.settings)
        service.stopService()
        self.assertEqual((reactor.stops, options.process_exit.exit_code), (1, 0))

    def test_make_services(self) -> None:
        """Issue 7: several kinds in one process are one service; a server alone is one by itself."""
        reactor = ClockReactor()
        patch_reactor(self, reactor)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        servers = ["--rpc", "tests.service.test_servers:made", "--celery", "tests.service.test_servers:tasks"]
        for arguments, kinds in (
            (servers[:2], [ServerService]),
            (servers, [ServerService, ServerService]),
            (["--queue", "work", "--handler", "math:floor", *servers], [ConsumerService, ServerService, ServerService]),
        ):
            with self.subTest(arguments):
                options = tap.Options()
                options.environ = {}
                options.parseOptions(arguments)
                self.addCleanup(atexit.unregister, options.process_exit.at_exit)
                service = tap.makeService(options)
                members = service.members if isinstance(service, ServiceGroup) else [service]
                self.assertEqual([type(member) for member in members], kinds)
                before = reactor.stops
                service.stopService()  # type: ignore[no-untyped-call,unused-ignore]
                self.assertEqual((reactor.stops, options.process_exit.exit_code), (before + 1, 0))

    def test_servers_install_no_reactor(self) -> None:
        """What is made of them before twistd has chosen one opens nothing."""
        code = (
            "import txmsg.tap.consumer as t, sys; o = t.Options(); o.environ = {}; "
            "o.parseOptions(['--rpc', 'tests.service.test_servers:made', '--celery', 'tests.service.test_servers:tasks'"
            "]); print('twisted.internet.reactor' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout, "False\n")


class BrokerTapTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.stderr = io.StringIO()
        self.patch(sys, "__stderr__", self.stderr)

    def parse(self, *arguments: str, **environ: str) -> broker_tap.Options:
        options = broker_tap.Options()
        options.environ = environ
        try:
            options.parseOptions(list(arguments))
        finally:
            if hasattr(options, "process_exit"):
                atexit.unregister(options.process_exit.at_exit)
        return options

    def refused(self, *arguments: str, **environ: str) -> tuple[int, str]:
        """The exit code, and the one line on standard error."""
        with self.assertRaises(SystemExit) as caught:
            self.parse(*arguments, **environ)
        (line,) = self.stderr.getvalue().splitlines()
        self.stderr.truncate(0)
        self.stderr.seek(0)
        self.assertTrue(line.startswith("txmsg-broker: "))
        self.assertTrue(line.endswith(f"(exit code {caught.exception.code})"))
        return caught.exception.code, line

    def test_twistd_finds_it(self) -> None:
        """Issue: `twistd txmsg-broker`."""
        (plugin,) = [maker for maker in getPlugins(IServiceMaker) if maker.tapname == "txmsg-broker"]
        self.assertIs(plugin.options, broker_tap.Options)
        self.assertIs(plugin.makeService, broker_tap.makeService)

    def test_the_options_install_no_reactor(self) -> None:
        """twistd --reactor must still be able to choose."""
        code = "import txmsg.tap.broker as t, sys; t.Options(); print('twisted.internet.reactor' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
        self.assertEqual(done.stdout, "False\n")

    def test_the_options_of_the_issue(self) -> None:
        """Issue: --listen, --data-dir and so on; options before the environment."""
        options = self.parse(
            *("--listen", "127.0.0.1:1", "--listen=[::1]:2", "--data-dir", "/tmp/x", "--strict-4"),
            *("--management", "localhost:3", "--max-memory", "64m", "--heartbeat=7"),
            TXMSG_BROKER_HEARTBEAT="9",
            TXMSG_BROKER_FRAME_MAX="8k",
        )
        config = options.config
        self.assertEqual(config.listen, (Address("127.0.0.1", 1), Address("::1", 2)))
        self.assertEqual((config.data_dir, config.strict_4), ("/tmp/x", True))
        self.assertEqual(config.management, Address("127.0.0.1", 3))
        limits = config.limits
        self.assertEqual((limits.broker_bytes, limits.heartbeat, limits.frame_max), (64 << 20, 7, 8192))
        self.assertIs(options.service.config, config)

    def test_each_setting_is_an_option(self) -> None:
        text = str(broker_tap.Options())
        for setting in SETTINGS:
            self.assertIn(f"--{setting.option}", text)

    def test_refused(self) -> None:
        """R33: one line that says what to change; 64 for the command line, 78 for the rest."""
        for arguments, environ, code, said in (
            (["--lisen", "x"], {}, 64, "unknown option --lisen; did you mean --listen?"),
            (["here"], {}, 64, "unexpected argument 'here'"),
            (["--listen", "5672"], {}, 64, "option --listen: must be HOST:PORT"),
            (["--listen", "0.0.0.0:5672"], {}, 64, "--allow-remote-plaintext"),
            ([], {"TXMSG_BROKER_LISTEN": "5672"}, 78, "environment variable TXMSG_BROKER_LISTEN: must be HOST:PORT"),
            (["--users", "/none"], {}, 78, "cannot read the users file '/none'"),
            (["--definitions", "/none"], {}, 78, "cannot read the definitions '/none'"),
            (["--tls-listen", "127.0.0.1:1", "--tls-cert", "/none"], {}, 78, "/none"),
        ):
            with self.subTest(arguments=arguments):
                found, line = self.refused(*arguments, **environ)
                self.assertEqual(found, code)
                self.assertIn(said, line)

    def test_version(self) -> None:
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        with self.assertRaises(SystemExit) as caught:
            self.parse("--version")
        self.assertEqual((caught.exception.code, output.getvalue()), (0, f"txmsg {__version__}\n"))

    def test_make_service(self) -> None:
        """Its end stops the reactor and leaves its code."""
        reactor: Any = ClockReactor()
        patch_reactor(self, reactor)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        options = self.parse("--listen", "127.0.0.1:0")
        service = broker_tap.makeService(options)
        self.assertIsInstance(service, BrokerService)
        service._end(exit_codes.BrokerOutcome(exit_codes.ExitCode.DATA, "the disk is full"))
        self.assertEqual((reactor.stops, options.process_exit.exit_code), (1, 74))
        self.assertIn("txmsg-broker: the disk is full (exit code 74)", self.stderr.getvalue())

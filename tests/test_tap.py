"""The twistd plug-in: found, and wired."""

from __future__ import annotations

import atexit
import signal
import subprocess
import sys

from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
from twisted.trial.unittest import SynchronousTestCase

from tests.service.fakes import ClockReactor
from twisted import internet
from txmsg.service.consumer import ConsumerService
from txmsg.tap import consumer as tap


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
        self.patch(internet, "reactor", reactor)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        options = tap.Options()
        options.environ = {}
        options.parseOptions(["--queue", "work", "--handler", "math:floor"])
        self.addCleanup(atexit.unregister, options.process_exit.at_exit)
        service = tap.makeService(options)
        self.assertIsInstance(service, ConsumerService)
        self.assertIs(service.config, options.settings)
        service.stopService()
        self.assertEqual((reactor.stops, options.process_exit.exit_code), (1, 0))

"""Run pika's own tests of its Twisted adapter with our classes in their place, and print the counts.

    python scripts/foreign_pika_twisted.py CHECKOUT

CHECKOUT is a checkout of https://github.com/pika/pika; nothing of it is copied or changed.  The pika that is installed
has its `pika.adapters.twisted_connection` patched, for this process, with TwistedProtocolConnection, TwistedChannel,
ClosableDeferredQueue and ReceivedMessage of `txmsg.compat.pika`.  Two of the file's classes test objects that only
pika's adapter has (its timer handle and its subclass of pika's core connection); they are left out.

Many tests put a mock in the place of the pika channel or connection below, and look at how that is called; that is
not how the drop-in works.  Those are EXPECTED to fail, each for one of the REASONS.  The exit status is 0 if exactly
those fail.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pika.adapters.twisted_connection as adapter
import pytest

from txmsg.compat import pika as ours

TESTS = "tests/acceptance/twisted_adapter_tests.py"

#: Test classes about what only pika's adapter has.
NOT_OURS = "TwistedConnectionAdapterTestCase or TimerHandleTestCase"

REASONS = {
    "channel": "hands TwistedChannel a mock of pika's core channel and looks at, or plays, that channel's callbacks",
    "registers": "looks into private registers (_calls, _consumers), or calls or looks for a private method",
    "connection": "puts a mock in the place of the private _impl and plays its callbacks, or calls private ones",
    "get": "wants a second basic_get to raise; here it is a call like any other",
}

EXPECTED: dict[str, str] = {
    "TwistedChannelTestCase.test_add_on_return_callback": "channel",
    "TwistedChannelTestCase.test_basic_cancel": "registers",
    "TwistedChannelTestCase.test_basic_cancel_no_consumer": "channel",
    "TwistedChannelTestCase.test_basic_consume": "channel",
    "TwistedChannelTestCase.test_basic_consume_errback_on_close": "registers",
    "TwistedChannelTestCase.test_basic_consume_while_closed": "registers",
    "TwistedChannelTestCase.test_basic_get": "channel",
    "TwistedChannelTestCase.test_basic_get_empty": "registers",
    "TwistedChannelTestCase.test_basic_get_twice": "get",
    "TwistedChannelTestCase.test_basic_publish": "channel",
    "TwistedChannelTestCase.test_basic_publish_closed": "registers",
    "TwistedChannelTestCase.test_basic_qos": "channel",
    "TwistedChannelTestCase.test_basic_recover": "channel",
    "TwistedChannelTestCase.test_callback_deferred": "channel",
    "TwistedChannelTestCase.test_confirm_delivery": "registers",
    "TwistedChannelTestCase.test_confirm_delivery_multiple": "registers",
    "TwistedChannelTestCase.test_confirm_delivery_nacked": "registers",
    "TwistedChannelTestCase.test_confirm_delivery_returned": "registers",
    "TwistedChannelTestCase.test_confirm_delivery_returned_nacked": "registers",
    "TwistedChannelTestCase.test_consumer_cancelled_by_broker": "registers",
    "TwistedChannelTestCase.test_delivery_confirmation_errback_on_close": "registers",
    "TwistedChannelTestCase.test_on_close": "registers",
    "TwistedChannelTestCase.test_passthrough": "channel",
    "TwistedChannelTestCase.test_queue_delete": "registers",
    "TwistedChannelTestCase.test_wrapped_method": "channel",
    "TwistedChannelTestCase.test_wrapped_method_multiple_args": "channel",
    "TwistedChannelTestCase.test_wrapped_method_while_closed": "registers",
    "TwistedProtocolConnectionTestCase.test_channel": "connection",
    "TwistedProtocolConnectionTestCase.test_channel_errback_if_connection_closed": "connection",
}


class Counting:
    """A pytest plug-in that notes how each test ended."""

    def __init__(self) -> None:
        self.passed: list[str] = []
        self.failed: list[str] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note it."""
        if report.when == "call":
            (self.passed if report.passed else self.failed).append(report.nodeid.split("::", 1)[1].replace("::", "."))


def run(checkout: Path) -> Counting:
    """Run the tests."""
    for name in ours.__all__:
        setattr(adapter, name, getattr(ours, name))
    counting = Counting()
    pytest.main(
        [
            *(
                "-q",
                "--no-header",
                "--tb=no",
                "-rN",
                "-W",
                "ignore",
                "-p",
                "no:cacheprovider",
                "--import-mode=importlib",
            ),
            *("-c", "/dev/null", f"--rootdir={checkout}", "-k", f"not ({NOT_OURS})", str(checkout / TESTS)),
        ],
        plugins=[counting],
    )
    return counting


def main() -> int:
    """Run, print, compare."""
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / TESTS).exists():
        print(__doc__)
        return 2
    counting = run(Path(sys.argv[1]).resolve())
    surprising = sorted(set(counting.failed) ^ set(EXPECTED))
    print(f"{len(counting.passed)} passed, {len(counting.failed)} failed, of which {len(EXPECTED)} were expected to")
    for name in counting.failed:
        reason = EXPECTED.get(name)
        print(f"  {name}: {'NOT EXPECTED' if reason is None else REASONS[reason]}")
    for name in surprising:
        print(f"surprising: {name}")
    return 1 if surprising or not counting.passed else 0


if __name__ == "__main__":
    sys.exit(main())

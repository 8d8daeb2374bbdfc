"""What every test run needs before the first test is imported.

* The reactor named by ``TXMSG_TEST_REACTOR`` (default, asyncio, poll, select, epoll) is installed: it must
  happen before anything imports ``twisted.internet.reactor``, which is why it is done here, at the top.
* Hypothesis profiles: ``TXMSG_HYPOTHESIS_PROFILE=long`` runs many more examples (``make test-long``).
* Tests marked ``long`` run only when ``-m long`` (or ``--run-long``) asks for them, and may take an hour each.
* The private RabbitMQ node, if a test started it, is closed at the end, whatever ends the run.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Iterator

import hypothesis
import pytest

#: Seconds that a test marked ``long`` may take, however the run was started; the others have pyproject.toml's.
LONG_TIMEOUT = 3600

REACTORS = ("default", "asyncio", "poll", "select", "epoll")


def _install_reactor(name: str) -> None:
    """Install the reactor a test run was asked for."""
    if name not in REACTORS:
        raise pytest.UsageError(f"TXMSG_TEST_REACTOR={name}: use one of {', '.join(REACTORS)}")
    if "twisted.internet.reactor" in sys.modules:
        raise pytest.UsageError("a reactor was installed before tests/conftest.py could choose one")
    if name == "asyncio":
        import asyncio

        from twisted.internet import asyncioreactor

        loop = asyncio.new_event_loop()
        # An open loop's sockets would be reported as leaked when the interpreter ends.
        atexit.register(loop.close)
        asyncioreactor.install(loop)
    elif name == "poll":
        from twisted.internet import pollreactor

        pollreactor.install()
    elif name == "select":
        from twisted.internet import selectreactor

        selectreactor.install()
    elif name == "epoll":
        from twisted.internet import epollreactor

        epollreactor.install()


# A shell starts background jobs with SIGINT ignored, and children inherit that.  The service respects it, so the tests
# of its signals need the usual state, however the run was started.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_install_reactor(os.environ.get("TXMSG_TEST_REACTOR") or "default")

# Deadlines measure the machine, not the code; slow examples on a busy machine are not a failure.
_PATIENT = [hypothesis.HealthCheck.too_slow]
hypothesis.settings.register_profile("default", deadline=None, suppress_health_check=_PATIENT)
hypothesis.settings.register_profile("long", deadline=None, suppress_health_check=_PATIENT, max_examples=5000)
hypothesis.settings.load_profile(os.environ.get("TXMSG_HYPOTHESIS_PROFILE") or "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--run-long``."""
    parser.addoption("--run-long", action="store_true", help="run the tests marked long, too")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is marked ``long`` unless it was asked for."""
    if config.getoption("--run-long") or "long" in (config.getoption("-m") or ""):
        for item in items:
            if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
                item.add_marker(pytest.mark.timeout(LONG_TIMEOUT))
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


def pytest_report_header() -> str:
    """Say which reactor runs: the same suite runs on several."""
    from twisted.internet import reactor

    return f"reactor: {type(reactor).__module__}.{type(reactor).__name__}"


@pytest.fixture(scope="session", autouse=True)
def _close_rabbitmq() -> Iterator[None]:
    """Close the private RabbitMQ node at the end of the run, if a test has started it."""
    yield
    from tests.rabbitmq import close_shared_node

    close_shared_node()

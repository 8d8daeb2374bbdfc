"""Run other projects' own test suites, unchanged, against the embedded broker (or, for comparison, a RabbitMQ).

    python scripts/foreign_suites.py --pika ~/src/pika --py-amqp ~/src/py-amqp --python ~/venv/bin/python
    python scripts/foreign_suites.py --on rabbitmq --pika ~/src/pika

Each option names a checkout of that project; nothing is downloaded and nothing in it is changed.  --python is an
interpreter that has pytest and what the suites import (docs/foreign-clients.md lists it); by default the one that runs
this.  The suites want the broker's usual ports on loopback, 5672, 5671 and 15672.  Where the system lets us (Linux,
`unshare`), all happens in a network of its own, so that these ports are free and no test reaches further.

The last line of each suite has its sums.  The exit status is 1 if a test fails that is not in KNOWN.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from txmsg.errors import TxmsgError
from txmsg.testing.rabbitmq import NodeTLS, RabbitMQNode

ROOT: Final = Path(__file__).resolve().parent.parent
#: What the suites expect, and cannot be told otherwise.
AMQP_PORT, TLS_PORT, MANAGEMENT_PORT = 5672, 5671, 15672
#: Seconds that the broker's start, and that one suite may take.
PATIENCE, SUITE_PATIENCE = 30.0, 900.0
#: Set in the process that has a network of its own.
_ALONE: Final = "TXMSG_FOREIGN_SUITES_ALONE"

#: Tests that fail for a reason that docs/foreign-clients.md gives: parts of their names.
KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "pika": ("TestInvalidExchangeTypeRaisesConnectionClosed",),
    "amqpstorm": ("test_api_cluster_name",),
    "aiormq": ("test_big_message", "test_bad_channel"),
    "amqplib": ("serverProperties",),
}


@dataclass(frozen=True, slots=True)
class Suite:
    """One project's suite.

    arguments: what pytest gets, if `program` is empty.
    program: another test runner that prints TAP (node).
    environment: variables that point the suite at the broker.
    tls: certificate authority, certificate and key of the server, if the suite brings some.
    """

    name: str
    arguments: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    tls: tuple[str, str, str] | None = None


_URL: Final = f"amqp://guest:guest@127.0.0.1:{AMQP_PORT}/%2F"

SUITES: Final = (
    Suite("pika", ("tests/acceptance",)),
    # Its TLS tests need certificates that only its container has, and a server on the Internet.
    Suite("py-amqp", ("t/integration", "-k", "not tls")),
    Suite(
        "amqpstorm",
        ("amqpstorm/tests/functional", "--ignore", "amqpstorm/tests/functional/ssl"),
        environment={
            "AMQP_HOST": "127.0.0.1",
            "AMQP_USERNAME": "guest",
            "AMQP_PASSWORD": "guest",
            "AMQP_URI": _URL,
            "AMQP_HTTP_URL": f"http://127.0.0.1:{MANAGEMENT_PORT}",
        },
    ),
    Suite(
        "aiormq",
        ("tests",),
        environment={"AMQP_URL": _URL},
        tls=("tests/certs/ca.pem", "tests/certs/server.pem", "tests/certs/server.key"),
    ),
    # Only the files that meet a broker, or a socket: the others need a generator of values that is not installed.
    Suite(
        "amqplib",
        program=("node", "--test", "--test-reporter=tap", "--test-timeout=30000", "--test-concurrency=1"),
        arguments=("test/channel_api.test.js", "test/callback_api.test.js", "test/connect.test.js"),
        environment={"URL": f"amqp://127.0.0.1:{AMQP_PORT}"},
    ),
)


class Failed(Exception):
    """Something cannot be done; the text is the one line to show."""


# -- a network of one's own


def alone() -> None:
    """Start again in a network of its own, if the system lets us; returns if it does not, or if we are there."""
    if os.environ.get(_ALONE):
        _loopback_up()
        return
    unshare = shutil.which("unshare")
    if unshare is None:
        return
    command = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--net", "--map-root-user"]
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode == 0:
        own = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
        os.execve(unshare, [*command, *own], os.environ | {_ALONE: "1"})


def _loopback_up() -> None:
    """Linux: netdevice(7), SIOCGIFFLAGS and SIOCSIFFLAGS; a new network has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack_from("h", fcntl.ioctl(control, 0x8913, request), 16)[0]
        fcntl.ioctl(control, 0x8914, struct.pack("16sh22x", b"lo", flags | 1))


# -- brokers


def listens(port: int) -> bool:
    """Whether somebody listens on a port of this machine."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 5):
        return True
    return False


@contextlib.contextmanager
def embedded(tls: NodeTLS | None, folder: Path) -> Iterator[str]:
    """`twistd txmsg-broker` on the usual ports; yields what to call it."""
    arguments = ["--listen", f"127.0.0.1:{AMQP_PORT}", "--listen", f"[::1]:{AMQP_PORT}"]
    arguments += ["--management", f"127.0.0.1:{MANAGEMENT_PORT}"]
    if tls is not None:
        arguments += ["--tls-listen", f"127.0.0.1:{TLS_PORT}", "--tls-cert", str(tls.certificate)]
        arguments += ["--tls-key", str(tls.key), "--tls-ca", str(tls.ca), "--tls-verify", "optional"]
    twistd = "import sys; sys.argv[0] = 'twistd'; from twisted.scripts.twistd import run; run()"
    log = folder / "broker.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", twistd, "-n", "--pidfile=", "txmsg-broker", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (listens(AMQP_PORT) and listens(MANAGEMENT_PORT)):
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failed(f"the broker does not listen:\n{log.read_text()}")
            time.sleep(0.05)
        yield "the embedded broker"
        if process.poll() is not None:
            raise Failed(f"the broker ended:\n{log.read_text()}")
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for line in log.read_text(errors="replace").splitlines():
            if "Traceback" in line or "[critical]" in line:
                print(f"the broker's log: {line}")


@contextlib.contextmanager
def rabbitmq(tls: NodeTLS | None, folder: Path) -> Iterator[str]:
    """A private RabbitMQ node that listens on the usual ports, too; yields what to call it."""
    settings = {
        "listeners.tcp.2": f"127.0.0.1:{AMQP_PORT}",
        "listeners.tcp.3": f"::1:{AMQP_PORT}",
        "management.tcp.ip": "127.0.0.1",
        "management.tcp.port": str(MANAGEMENT_PORT),
    }
    if tls is not None:
        settings["listeners.ssl.2"] = f"127.0.0.1:{TLS_PORT}"
    with RabbitMQNode(tls=tls, settings=settings, plugins=["rabbitmq_management"]) as node:
        deadline = time.monotonic() + PATIENCE
        while not listens(MANAGEMENT_PORT):
            if time.monotonic() > deadline:
                raise Failed("RabbitMQ's management API does not listen")
            time.sleep(0.1)
        yield f"RabbitMQ {node.rabbitmqctl('version').strip()}"


BROKERS: Final[dict[str, Callable[[NodeTLS | None, Path], contextlib.AbstractContextManager[str]]]] = {
    "broker": embedded,
    "rabbitmq": rabbitmq,
}


# -- suites


@dataclass(slots=True)
class Sums:
    """How the tests of a suite ended; `failures`: the names of those that failed."""

    passed: int = 0
    skipped: int = 0
    failures: list[str] = field(default_factory=list)


def run_pytest(suite: Suite, checkout: Path, python: str, folder: Path, more: list[str]) -> Sums:
    """Run a suite with pytest, with nothing of the project's own reports and coverage."""
    report = folder / "report.xml"
    command = [python, "-m", "pytest", "-p", "no:cacheprovider", "--override-ini", "addopts=", "-q", "--tb=short"]
    # -B: the checkout stays as it is.
    command.insert(1, "-B")
    _run([*command, f"--junit-xml={report}", *suite.arguments, *more], suite, checkout)
    if not report.exists():
        raise Failed(f"{suite.name}: pytest wrote no report")
    sums = Sums()
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            sums.failures.append(f"{case.get('classname')}.{case.get('name')}")
        elif case.find("skipped") is not None:
            sums.skipped += 1
        else:
            sums.passed += 1
    return sums


def run_tap(suite: Suite, checkout: Path, more: list[str]) -> Sums:
    """Run a suite whose program prints TAP, and read that; groups of tests are not counted."""
    output = _run([*suite.program, *more, *suite.arguments], suite, checkout, keep=True)
    sums = Sums(int(_sum(output, "pass")), int(_sum(output, "skipped")))
    lines = output.splitlines()
    for number, line in enumerate(lines):
        found = re.match(r" *not ok \d+ - (.*)", line)
        if found and not any(
            "type: 'suite'" in after or "subtestsFailed" in after for after in lines[number : number + 8]
        ):
            sums.failures.append(found[1])
            print("\n".join(lines[number : number + 14]))
    return sums


def _sum(output: str, word: str) -> str:
    found = re.search(rf"^# {word} (\d+)$", output, re.MULTILINE)
    if found is None:
        raise Failed(f"no line '# {word}' in:\n{output[-2000:]}")
    return found[1]


def _run(command: list[str], suite: Suite, checkout: Path, *, keep: bool = False) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=checkout,
            env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | suite.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if keep else None,
            stderr=subprocess.STDOUT if keep else None,
            text=True,
            timeout=SUITE_PATIENCE,
            check=False,
        )
    except FileNotFoundError as error:
        raise Failed(f"{suite.name}: {error.filename} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Failed(f"{suite.name}: not done in {SUITE_PATIENCE:.0f} s") from None
    return done.stdout or ""


def run_suite(suite: Suite, checkout: Path, on: str, python: str, more: list[str]) -> bool:
    """Run one suite on a new broker; whether it ended as it should."""
    if not checkout.is_dir():
        raise Failed(f"{suite.name}: {checkout} is no folder")
    tls = None if suite.tls is None else NodeTLS(**_tls_files(suite.tls, checkout))
    with tempfile.TemporaryDirectory(prefix="txmsg-foreign-") as name:
        folder = Path(name)
        with BROKERS[on](tls, folder) as broker:
            print(f"--- {suite.name} on {broker}", flush=True)
            started = time.monotonic()
            sums = (
                run_tap(suite, checkout, more) if suite.program else run_pytest(suite, checkout, python, folder, more)
            )
            seconds = time.monotonic() - started
    known = [name for name in sums.failures if any(part in name for part in KNOWN.get(suite.name, ()))]
    for name in sums.failures:
        print(f"{suite.name}: failed: {name}{' (known)' if name in known else ''}")
    print(
        f"{suite.name} on {broker}: {sums.passed} passed, {sums.skipped} skipped,"
        f" {len(sums.failures)} failed ({len(known)} known) in {seconds:.0f} s",
        flush=True,
    )
    return len(known) == len(sums.failures) and sums.passed > 0


def _tls_files(files: tuple[str, str, str], checkout: Path) -> dict[str, Path]:
    return {key: checkout / file for key, file in zip(("ca", "certificate", "key"), files, strict=True)}


def main() -> int:
    """Read the arguments, run the suites they name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--on", choices=sorted(BROKERS), default="broker", help="what to test (default: broker)")
    parser.add_argument("--python", default=sys.executable, help="the interpreter for the suites in Python")
    for suite in SUITES:
        parser.add_argument(f"--{suite.name}", type=Path, metavar="CHECKOUT", help=f"a checkout of {suite.name}")
    parser.add_argument("more", nargs="*", metavar="ARGUMENT", help="after --: more arguments for the test runner")
    options = parser.parse_args()
    wanted = [(suite, path) for suite in SUITES if (path := getattr(options, suite.name.replace("-", "_")))]
    if not wanted:
        parser.error("name at least one checkout")
    alone()
    try:
        taken = [port for port in (AMQP_PORT, TLS_PORT, MANAGEMENT_PORT) if listens(port)]
        if taken:
            raise Failed(f"somebody listens on port {', '.join(map(str, taken))} of this machine already")
        results = [run_suite(suite, path.resolve(), options.on, options.python, options.more) for suite, path in wanted]
    except (Failed, TxmsgError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())

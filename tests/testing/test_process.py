"""The embedded broker in a process of its own, and the fixtures that use it, with clients that block."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, NackError

from txmsg.testing import BrokerProcess, BrokerProcessFailed

ROOT = Path(__file__).resolve().parents[2]


def connect(url: str) -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(url))


def test_a_blocking_client() -> None:
    """Users, virtual hosts, a look into queues; at the end nothing is left of it."""
    with BrokerProcess() as broker:
        assert str(broker.port) in repr(broker)
        assert broker.start() is broker
        with connect(broker.url) as connection:
            channel = connection.channel()
            channel.queue_declare("q")
            channel.basic_publish("", "q", b"\x00\xff")
            method, _, body = channel.basic_get("q")
            assert (body, broker.depth("q")) == (b"\x00\xff", (0, 1))
            channel.basic_nack(method.delivery_tag)
            channel.queue_declare("q", passive=True)
            assert broker.bodies("q") == [b"\x00\xff"]
        broker.add_user("worker", "se/cret", virtual_host=broker.add_vhost("jobs/1"), configure="^$")
        url = broker.url_for(user="worker", password="se/cret", virtual_host="jobs/1")
        with connect(url) as connection, pytest.raises(ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().queue_declare("q")
        process = broker._process
    assert process is not None
    assert process.poll() == 0
    assert "not running" in repr(broker)
    with pytest.raises(BrokerProcessFailed, match="call start"):
        broker.depth("q")


def test_faults() -> None:
    """Set, counted and stopped from here."""
    with BrokerProcess() as broker:
        with connect(broker.url) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            with broker.fault("nack", times=None) as refused:
                for _ in range(2):
                    with pytest.raises(NackError):
                        channel.basic_publish("", "q", b"")
                assert refused.count == 2
            channel.basic_publish("", "q", b"")
        broker.fault("refuse")
        with pytest.raises(AMQPConnectionError):
            connect(broker.url)
        broker.clear_faults()
        connect(broker.url).close()
        for wrong in ("_set", "no_such_fault"):
            with pytest.raises(BrokerProcessFailed, match="AttributeError"):
                broker.fault(wrong)
        with pytest.raises(BrokerProcessFailed, match="NoSuchEntity: there is no queue 'q'"):
            broker.depth("q")


def test_a_broker_that_cannot_start() -> None:
    """The error holds what the process said."""
    with pytest.raises(BrokerProcessFailed, match="no_such_setting"):
        BrokerProcess(no_such_setting=1).start()


def test_a_broker_that_has_died() -> None:
    """It is noticed at the next command; it can be closed, and started again."""
    broker = BrokerProcess().start()
    try:
        assert broker._process is not None
        broker._process.kill()
        broker._process.wait()
        with pytest.raises(BrokerProcessFailed, match="has ended"):
            broker.add_vhost()
        assert not broker.is_running
    finally:
        broker.close()
    broker.close()


def test_it_is_started_again() -> None:
    """One that has died leaves nothing behind, not even open pipes."""
    with BrokerProcess() as broker:
        first = broker._process
        assert first is not None
        first.kill()
        first.wait()
        assert broker.start().is_running
        assert first.stdin is not None
        assert first.stdin.closed
        broker.add_vhost()


def test_an_answer_that_comes_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that was given up, here while the broker's process is stopped, leaves the next one its own answer."""
    with BrokerProcess() as broker:
        assert broker._process is not None
        broker._process.send_signal(signal.SIGSTOP)
        try:
            monkeypatch.setattr("txmsg.testing.process._PATIENCE", 0.05)
            for _ in range(2):
                with pytest.raises(BrokerProcessFailed, match="did not answer within"):
                    broker.add_vhost("late")
        finally:
            broker._process.send_signal(signal.SIGCONT)
        monkeypatch.undo()
        with connect(broker.url) as connection:
            connection.channel().queue_declare("q")
        assert broker.depth("q") == (0, 0)


def test_a_command_that_there_is_not() -> None:
    """It is refused; the process goes on."""
    with BrokerProcess() as broker:
        with pytest.raises(BrokerProcessFailed, match="AttributeError"):
            broker.call("no_such_command")
        broker.add_vhost()


def test_it_does_not_outlive_its_parent() -> None:
    """However that ends."""
    program = (
        "import os, signal; from txmsg.testing import BrokerProcess; b = BrokerProcess().start();"
        "print(b._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    pid = int(done.stdout)
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and " Z " in Path(f"/proc/{pid}/stat").read_text():
            return  # it has ended, and nobody has asked yet how
        subprocess.run(["sleep", "0.05"], check=True)
    raise AssertionError(f"process {pid} is still there")


def run_pytest(folder: Path, text: str, *arguments: str) -> str:
    """Run pytest on a file of tests, as a user would, and return what it prints."""
    (folder / "test_it.py").write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "txmsg.pytest_plugin", "-p", "no:cacheprovider", *arguments],
        cwd=folder,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_url_fixture(tmp_path: Path) -> None:
    """Two tests share a process and meet nothing of each other."""
    printed = run_pytest(
        tmp_path,
        """
        import pika, pytest

        @pytest.mark.parametrize("n", [1, 2])
        def test_alone(txmsg_broker_url, txmsg_broker_process, n):
            connection = pika.BlockingConnection(pika.URLParameters(txmsg_broker_url))
            channel = connection.channel()
            assert channel.queue_declare("q").method.message_count == 0
            channel.basic_publish("", "q", b"x")
            connection.close()
            txmsg_broker_process.fault("refuse")
        """,
    )
    assert "2 passed" in printed, printed


def test_the_url_fixture_after_others(tmp_path: Path) -> None:
    """Neither a fault that another test left, nor a process that it killed, is met by the next one."""
    printed = run_pytest(
        tmp_path,
        """
        import pika

        def test_leaves_a_fault(txmsg_broker_process):
            txmsg_broker_process.fault("refuse")

        def test_kills(txmsg_broker_url, txmsg_broker_process):
            pika.BlockingConnection(pika.URLParameters(txmsg_broker_url)).close()
            txmsg_broker_process._process.kill()
            txmsg_broker_process._process.wait()

        def test_connects(txmsg_broker_url):
            pika.BlockingConnection(pika.URLParameters(txmsg_broker_url)).close()
        """,
    )
    assert "3 passed" in printed, printed


def test_the_other_fixtures(tmp_path: Path) -> None:
    """On a clock, and on a reactor that nobody but the fixture turns."""
    printed = run_pytest(
        tmp_path,
        """
        def test_on_a_clock(txmsg_clock_broker):
            broker, clock = txmsg_clock_broker, txmsg_clock_broker.reactor
            connecting = broker.connect()
            clock.advance(0)
            opening = connecting.result.channel()
            clock.advance(0)
            opening.result.queue_declare("q", arguments={"x-message-ttl": 60_000})
            clock.advance(0)
            broker.publish("", "q", b"x")
            assert broker.queue("q").depth == 1
            clock.advance(61)
            assert broker.queue("q").depth == 0

        def test_in_process(txmsg_broker):
            from twisted.internet import reactor

            clients = []
            txmsg_broker.connect().addCallback(clients.append)
            for _ in range(500):
                reactor.iterate(0.01)
                if clients:
                    break
            assert clients[0].is_open
            assert len(txmsg_broker.connections) == 1
        """,
    )
    assert "2 passed" in printed, printed

"""BrokerProcess: the embedded broker in a process of its own, for clients that block.

A blocking client (pika, Kombu, py-amqp) and the reactor cannot share a thread, so the broker runs beside the test:

    with BrokerProcess() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))

It starts in about half a second.  Commands go to it as lines of JSON over its standard input, one answer line with
the command's number for each.  Invariants: it never outlives the process that started it: it ends when its standard
input does; no command gets the answer to another one, also not to one that was given up (by a time limit of the test).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self
from urllib.parse import quote

from txmsg.errors import TxmsgError

__all__ = ["BrokerProcess", "BrokerProcessFailed", "RemoteFault"]

_HOST: Final = "127.0.0.1"
#: Seconds that an answer may take.
_PATIENCE: Final = 30.0
#: Characters of the child's standard error that an error shows.
_SHOWN: Final = 2000


class BrokerProcessFailed(TxmsgError):
    """The broker's process did not start, ended, or could not do what it was asked; the text says what it said."""


class RemoteFault:
    """A fault set in a :class:`BrokerProcess`; also a context manager, which stops it."""

    def __init__(self, process: BrokerProcess, number: int) -> None:
        self._process = process
        self._number = number

    @property
    def count(self) -> int:
        """How often it has happened."""
        return int(self._process.call("fault_count", number=self._number))

    def stop(self) -> None:
        """Let everything be as usual again."""
        self._process.call("stop_fault", number=self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


class BrokerProcess:
    """An embedded broker in a process of its own, listening on 127.0.0.1; also a context manager.

    start_timeout: float -- seconds that the start may take.
    settings -- keyword arguments of EmbeddedBroker that JSON can carry: strict_4, data_dir, record_published.

    All methods block, and may be called from any thread.
    """

    host = _HOST

    def __init__(self, *, start_timeout: float = 30.0, **settings: Any) -> None:
        self.port = 0
        self._timeout = start_timeout
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._lock = threading.Lock()
        #: The number of the last command; what has come of answers that is no whole line yet.
        self._number = 0
        self._received = bytearray()

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> BrokerProcess:
        """Start it, and wait until it listens.  BrokerProcessFailed.  Nothing happens if it runs."""
        if self.is_running:
            return self
        self.close()  # what is left of one that has died
        self._number = 0
        self._received.clear()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from txmsg.testing.process_child import main; main()", json.dumps(self._settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=dict(os.environ, PYTHONPATH=path),
            start_new_session=True,  # Ctrl-C is for the tests, which then end it
        )
        try:
            self.port = int(self._answer(self._timeout)["port"])
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        """End it; nothing of it is left.  Closing twice is fine."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None
            assert process.stdout is not None
            with contextlib.suppress(OSError):
                process.stdin.close()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<BrokerProcess {f'on port {self.port}' if self.is_running else 'not running'}>"

    # -- using it ----------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The URL for any client: user guest, virtual host "/"."""
        return self.url_for()

    def url_for(self, *, user: str = "guest", password: str = "guest", virtual_host: str = "/") -> str:
        """The URL for somebody else, or another virtual host, given as it is."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@{_HOST}:{self.port}/{quote(virtual_host, safe='')}"

    def add_vhost(self, name: str | None = None) -> str:
        """Add a virtual host in which guest may do everything; returns its name, made up if None was given."""
        name = f"test-{secrets.token_hex(6)}" if name is None else name
        self.call("add_vhost", name=name)
        return name

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; connections to it are closed."""
        self.call("delete_vhost", name=name)

    def add_user(self, name: str, password: str, *, virtual_host: str = "/", **permissions: str) -> None:
        """Add a user; permissions: configure, write, read, as regular expressions."""
        self.call("add_user", name=name, password=password, virtual_host=virtual_host, **permissions)

    def depth(self, queue: str, *, virtual_host: str = "/") -> tuple[int, int]:
        """How many messages of a queue are ready, and how many unacked.  BrokerProcessFailed if it is not there."""
        ready, unacked = self.call("depth", queue=queue, virtual_host=virtual_host)
        return ready, unacked

    def bodies(self, queue: str, *, virtual_host: str = "/") -> list[bytes]:
        """The bodies of the messages that are ready."""
        return [body.encode("latin-1") for body in self.call("bodies", queue=queue, virtual_host=virtual_host)]

    def fault(self, name: str, **arguments: Any) -> RemoteFault:
        """Set a fault: `fault("nack", queue="jobs")` is `EmbeddedBroker.faults.nack(queue="jobs")`."""
        return RemoteFault(self, int(self.call("fault", name=name, arguments=arguments)))

    def clear_faults(self) -> None:
        """Stop all faults."""
        self.call("clear_faults")

    def call(self, command: str, **arguments: Any) -> Any:
        """Have a command done; BrokerProcessFailed with its error."""
        with self._lock:
            process = self._process
            if process is None:
                raise BrokerProcessFailed("the broker's process is not running: call start() first")
            assert process.stdin is not None
            self._number += 1
            try:
                process.stdin.write(json.dumps([self._number, command, arguments]).encode("ascii") + b"\n")
                process.stdin.flush()
            except OSError:
                raise BrokerProcessFailed(f"the broker's process has ended{self._last_words()}") from None
            return self._answer(_PATIENCE)["result"]

    def _answer(self, timeout: float) -> dict[str, Any]:
        """The answer to the last command; those to earlier ones, for which nobody waits any more, are dropped."""
        end = time.monotonic() + timeout
        while True:
            answer: dict[str, Any] = json.loads(self._line(end, timeout))
            if answer["number"] == self._number:
                break
        if "error" in answer:
            raise BrokerProcessFailed(answer["error"])
        return answer

    def _line(self, end: float, timeout: float) -> bytes:
        process = self._process
        assert process is not None
        assert process.stdout is not None
        received = self._received
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in received:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise BrokerProcessFailed(f"the broker's process did not answer within {timeout:g} s")
                data = os.read(process.stdout.fileno(), 65536)
                if not data:
                    raise BrokerProcessFailed(f"the broker's process has ended{self._last_words()}")
                received += data
        line, _, rest = received.partition(b"\n")
        received[:] = rest
        return bytes(line)

    def _last_words(self) -> str:
        if self._errors is None:
            return ""
        self._errors.seek(0)
        text = self._errors.read().decode("utf-8", "replace").strip()
        return f":\n{text[-_SHOWN:]}" if text else ""

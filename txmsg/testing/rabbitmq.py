"""A private RabbitMQ node for tests and demonstrations.

:class:`RabbitMQNode` runs the ``rabbitmq-server`` that is installed on this machine as a node of its own: its
own temporary folder, ports, Erlang cookie and Erlang port mapper, bound to loopback.  It needs no privilege,
touches no other node, and leaves nothing behind.

Invariant: the node never outlives the process that started it.  Everything runs in one process group whose
leader waits on a pipe from us; when that pipe closes, for whatever reason (``kill -9`` included), the leader
kills the group.

The environment variables are those of https://www.rabbitmq.com/configure.html#supported-environment-variables
and the settings those of https://www.rabbitmq.com/configure.html#config-items.

All methods block (booting takes about 7 s, a ``rabbitmqctl`` call 0.6 s); call them from a thread where the
reactor has to run meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from txmsg.errors import TxmsgError
from txmsg.testing.ports import free_ports

__all__ = ["NodeFailed", "NodeTLS", "RabbitMQMissing", "RabbitMQNode", "find_rabbitmq_server"]

#: Where Debian's package has the script itself.
DEBIAN_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"

_HOST = "127.0.0.1"
_PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
#: rabbitmqctl is an Erlang node too and needs a port; calls made at once need several.
_CTL_PORTS = 8
_START_ATTEMPTS = 3
#: How long a paused node's threads may take to stop.
_STOP_SECONDS = 10.0

# $1 is epmd, $2 is rabbitmq-server, $3 the file for what they print.  The group ends when the server ends, and
# when our end of standard input closes.  (A background command's own standard input is /dev/null.)
_LEADER = """
"$1" -port "$ERL_EPMD_PORT" -address 127.0.0.1 >>"$3" 2>&1 &
("$2" >>"$3" 2>&1; kill -9 0) &
read -r _
kill -9 0
"""


class RabbitMQMissing(TxmsgError):
    """No ``rabbitmq-server`` is installed here; the text says what to do."""


class NodeFailed(TxmsgError):
    """The node did not start, or a ``rabbitmqctl`` command failed; the text holds the end of its output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeTLS:
    """The files of a node's TLS listeners, all PEM.

    :ivar ca: the authorities that client certificates must come from.
    :ivar certificate: the node's certificate (chain).
    :ivar key: its private key, without a pass phrase.
    """

    ca: Path
    certificate: Path
    key: Path


def find_rabbitmq_server() -> Path:
    """Return the path of the installed ``rabbitmq-server`` script.

    The environment variable ``TXMSG_RABBITMQ_SERVER`` comes first, then Debian's place, then ``PATH``.  Debian's
    ``/usr/sbin/rabbitmq-server`` is passed over: it is a wrapper that changes to the user ``rabbitmq``.

    :raises RabbitMQMissing: if there is none.
    """
    candidates = [os.environ.get("TXMSG_RABBITMQ_SERVER"), DEBIAN_SERVER, shutil.which("rabbitmq-server")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK) and Path(candidate).resolve().name == "rabbitmq-server":
            return Path(candidate)
    raise RabbitMQMissing("rabbitmq-server is not installed (on Debian: apt-get install rabbitmq-server)")


def _find_epmd() -> Path:
    found = shutil.which("epmd")
    if found:
        return Path(found)
    for candidate in sorted(Path("/usr/lib/erlang").glob("erts-*/bin/epmd")):
        return candidate
    raise RabbitMQMissing("epmd (part of Erlang) is not installed")


class RabbitMQNode:
    """One private RabbitMQ node, also a context manager: entering starts it, leaving closes it.

    The user ``guest`` with the password ``guest`` may do everything in the virtual host ``/``.  Offered are the
    mechanisms PLAIN, AMQPLAIN and, on the TLS ports, EXTERNAL with the certificate's common name as user name.

    :ivar name: the Erlang node name.
    :ivar host: the address it listens on.
    :ivar port: the port for plain AMQP.
    :ivar tls_port: the port for AMQP over TLS where a client certificate is verified if there is one; 0 without TLS.
    :ivar mtls_port: the port for AMQP over TLS where a client certificate is required; 0 without TLS.
    :ivar directory: everything the node writes lies under this folder.
    """

    host = _HOST

    def __init__(
        self,
        *,
        tls: NodeTLS | None = None,
        settings: Mapping[str, str] | None = None,
        plugins: Sequence[str] = (),
        schedulers: int | None = 1,
        boot_timeout: float = 60.0,
    ) -> None:
        """Prepare a node; nothing is started or written yet.

        :param tls: the certificates of the TLS listeners; ``None`` for plain AMQP only.
        :param settings: more lines of ``rabbitmq.conf``, key to value.
        :param plugins: plug-ins to enable besides ``rabbitmq_auth_mechanism_ssl`` (which TLS brings).
        :param schedulers: Erlang scheduler threads.  One is enough for tests and keeps a busy machine usable;
            ``None`` leaves it to Erlang (one per core), as an installed broker runs.
        :param boot_timeout: how long one start may take, in seconds.
        """
        self.name = f"txmsg-{secrets.token_hex(4)}@localhost"
        self.port = self.tls_port = self.mtls_port = 0
        self.directory = Path()
        self._tls = tls
        self._settings = dict(settings or {})
        self._plugins = list(plugins)
        self._schedulers = schedulers
        self._boot_timeout = boot_timeout
        self._dist_port = self._epmd_port = self._ctl_port = 0
        self._server = Path()
        self._leader: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"running on port {self.port}" if self.is_running else "not running"
        return f"<RabbitMQNode {self.name} {state}>"

    def __enter__(self) -> RabbitMQNode:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def is_running(self) -> bool:
        """Whether the node's processes are there (:meth:`pause` does not change this)."""
        return self._leader is not None and self._leader.poll() is None

    @property
    def url(self) -> str:
        """The AMQP URL of the virtual host ``/``, for the user ``guest``."""
        return self.url_for()

    def url_for(self, *, user: str = "guest", password: str = "guest", virtual_host: str = "/") -> str:
        """Return the AMQP URL for somebody else, or another virtual host, given as it is."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@{self.host}:{self.port}/{quote(virtual_host, safe='')}"

    # -- life

    def start(self) -> None:
        """Start the node and wait until it answers an AMQP client.

        After :meth:`stop` or :meth:`kill` it starts again on the same ports with what it had on disk.

        :raises RabbitMQMissing: if RabbitMQ is not installed.
        :raises NodeFailed: if it does not answer in time.
        """
        if self.is_running:
            return
        if self.port:
            self._boot()
            return
        self._server, epmd = find_rabbitmq_server(), _find_epmd()
        self._epmd = epmd
        for attempt in range(1, _START_ATTEMPTS + 1):
            self._prepare()
            try:
                self._boot()
            except NodeFailed as error:
                self.close()
                # Another process may have taken a port between our look and the node's.
                if attempt == _START_ATTEMPTS or "eaddrinuse" not in str(error):
                    raise
            else:
                return

    def stop(self) -> None:
        """Stop the node in good order; durable queues and persistent messages are there after :meth:`start`."""
        if not self.is_running:
            return
        os.kill(self._beam_pid(), signal.SIGTERM)
        self._wait_for_end(30.0)

    def kill(self) -> None:
        """Kill the node at once, as a power cut would (what the kernel has in its caches stays)."""
        if self._leader is not None:
            self._wait_for_end(0.0)

    def close(self) -> None:
        """Kill the node and remove its folder.  Can be called at any time, and again."""
        self.kill()
        if self.port:
            self.port = self.tls_port = self.mtls_port = 0
            shutil.rmtree(self.directory, ignore_errors=True)

    def pause(self) -> None:
        """Freeze the node (SIGSTOP): its connections stay open and nothing answers.

        Returns when every thread of it has stopped: a node that is busy may answer for a while after the signal.

        :raises NodeFailed: if one still runs after 10 s.
        """
        pid = self._beam_pid()
        os.kill(pid, signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_SECONDS
        while any(state not in "TZX" for state in _thread_states(pid)):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGCONT)
                raise NodeFailed(f"{self.name} did not stop within {_STOP_SECONDS:g} s of SIGSTOP")
            time.sleep(0.005)

    def resume(self) -> None:
        """Let a paused node go on."""
        os.kill(self._beam_pid(), signal.SIGCONT)

    # -- what an administrator does

    def rabbitmqctl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> str:
        """Run ``rabbitmqctl --silent`` with ``arguments`` on this node and return what it prints.

        :param stdin: text for its standard input (passwords go there, not on the command line).
        :param timeout: limit in seconds.
        :raises NodeFailed: if it exits with an error or takes too long.
        """
        command = [str(self._server.parent / "rabbitmqctl"), "--silent", "--node", self.name, *arguments]
        try:
            done = subprocess.run(
                command,
                env=self._environment(),
                cwd=self.directory,
                input=stdin if stdin is not None else "",
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise NodeFailed(f"rabbitmqctl {arguments[0]} took more than {timeout} s") from error
        if done.returncode:
            raise NodeFailed(f"rabbitmqctl {arguments[0]}: exit {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def eval(self, expression: str) -> str:
        """Evaluate an Erlang expression (without the final full stop) on the node; return the printed value."""
        return self.rabbitmqctl("eval", expression + ".").strip()

    def add_user(
        self,
        name: str,
        password: str | None = None,
        *,
        virtual_host: str | None = "/",
        permissions: tuple[str, str, str] = (".*", ".*", ".*"),
    ) -> None:
        """Add a user.

        :param password: ``None`` makes a user who cannot log in by password, only by certificate (EXTERNAL).
        :param virtual_host: where to give ``permissions``; ``None`` gives none anywhere.
        :param permissions: configure, write and read, as regular expressions.
        """
        self.rabbitmqctl("add_user", name, stdin=(password or secrets.token_hex(16)) + "\n")
        if password is None:
            self.rabbitmqctl("clear_password", name)
        if virtual_host is not None:
            self.set_permissions(name, virtual_host, *permissions)

    def delete_user(self, name: str) -> None:
        """Delete a user; the connections they have are closed by the broker."""
        self.rabbitmqctl("delete_user", name)

    def add_vhost(self, name: str, *, user: str | None = "guest") -> None:
        """Add a virtual host and, unless ``user`` is ``None``, let that user do everything in it."""
        self.rabbitmqctl("add_vhost", name)
        if user is not None:
            self.set_permissions(user, name)

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it; connections to it are closed."""
        self.rabbitmqctl("delete_vhost", name)

    def set_permissions(
        self, user: str, virtual_host: str, configure: str = ".*", write: str = ".*", read: str = ".*"
    ) -> None:
        """Set what ``user`` may configure, write and read in ``virtual_host``, as regular expressions."""
        self.rabbitmqctl("set_permissions", "--vhost", virtual_host, user, configure, write, read)

    def queue_depth(self, queue: str, virtual_host: str = "/") -> int:
        """Return how many messages ``queue`` holds, ready and unacknowledged together.

        :raises KeyError: if there is no such queue.
        """
        listing = self.rabbitmqctl("list_queues", "--vhost", virtual_host, "--no-table-headers", "name", "messages")
        depths = dict(line.rsplit("\t", 1) for line in listing.splitlines() if "\t" in line)
        return int(depths[queue])

    def close_all_connections(self, reason: str = "closed by the test") -> None:
        """Have the broker close every connection (320, CONNECTION_FORCED) and give ``reason`` as its text."""
        self.rabbitmqctl("close_all_connections", reason)

    @contextlib.contextmanager
    def alarm(self, resource: str = "memory") -> Iterator[None]:
        """Hold a resource alarm (``memory`` or ``disk``) for the length of a ``with`` block.

        Publishing connections are then blocked: https://www.rabbitmq.com/connection-blocked.html
        """
        alarm = f"{{resource_limit, {resource}, node()}}"
        self.eval(f"rabbit_alarm:set_alarm({{{alarm}, []}})")
        try:
            yield
        finally:
            self.eval(f"rabbit_alarm:clear_alarm({alarm})")

    def log(self) -> str:
        """Return what the node has logged and printed so far."""
        files = [*sorted(self.directory.glob("log/*.log")), self.directory / "console.log"]
        return "\n".join(path.read_text(errors="replace") for path in files if path.exists())

    # -- how

    def _prepare(self) -> None:
        """Choose ports and write the files the node is started from."""
        self.directory = Path(tempfile.mkdtemp(prefix="txmsg-rabbitmq-"))
        self.port, self._dist_port, self._epmd_port, self._ctl_port, *tls_ports = free_ports(6)
        home = self.directory / "home"
        home.mkdir()
        cookie = home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(20))
        cookie.chmod(0o400)  # Erlang refuses one that others may read
        settings = {
            "listeners.tcp.1": f"{_HOST}:{self.port}",
            "auth_mechanisms.1": "PLAIN",
            "auth_mechanisms.2": "AMQPLAIN",
            "log.file.level": "info",
            # Alarms are raised where a test asks for them, not because the machine is small.
            "disk_free_limit.absolute": "1MB",
            "vm_memory_high_watermark.absolute": "2GB",
        }
        plugins = list(self._plugins)
        if self._tls is not None:
            self.tls_port, self.mtls_port = tls_ports
            plugins.append("rabbitmq_auth_mechanism_ssl")
            settings |= {
                "listeners.ssl.1": f"{_HOST}:{self.tls_port}",
                "ssl_options.cacertfile": str(self._tls.ca),
                "ssl_options.certfile": str(self._tls.certificate),
                "ssl_options.keyfile": str(self._tls.key),
                "ssl_options.verify": "verify_peer",
                "ssl_options.fail_if_no_peer_cert": "false",
                "auth_mechanisms.3": "EXTERNAL",
                "ssl_cert_login_from": "common_name",
            }
        settings |= self._settings
        config = "".join(f"{key} = {value}\n" for key, value in settings.items())
        (self.directory / "rabbitmq.conf").write_text(config)
        (self.directory / "enabled_plugins").write_text(f"[{','.join(plugins)}].\n")

    def _environment(self) -> dict[str, str]:
        """The environment of the node and of rabbitmqctl: nothing of another node's settings is inherited."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("RABBITMQ_", "ERL_", "NOTIFY_SOCKET"))}
        at = self.directory
        return inherited | {
            "HOME": str(at / "home"),
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": _HOST,
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_DIST_PORT": str(self._dist_port),
            "RABBITMQ_CONFIG_FILE": str(at / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_MNESIA_BASE": str(at / "mnesia"),
            "RABBITMQ_LOG_BASE": str(at / "log"),
            "RABBITMQ_PID_FILE": str(at / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(at / "enabled_plugins"),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S {self._schedulers}" if self._schedulers else "",
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self._ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self._ctl_port + _CTL_PORTS),
        }

    def _boot(self) -> None:
        console = str(self.directory / "console.log")
        self._leader = subprocess.Popen(
            ["/bin/sh", "-c", _LEADER, "sh", str(self._epmd), str(self._server), console],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        deadline = time.monotonic() + self._boot_timeout
        while not _speaks_amqp(self.port):
            if self._leader.poll() is not None:
                raise NodeFailed(f"the node ended while starting: {self.log()[-3000:]}")
            if time.monotonic() > deadline:
                self.kill()
                raise NodeFailed(f"the node did not answer within {self._boot_timeout} s: {self.log()[-3000:]}")
            time.sleep(0.1)
        if self._tls is not None:
            # The settings file knows one set of TLS options for all listeners; the stricter one is added by hand.
            self.eval(
                "{ok, Options} = application:get_env(rabbit, ssl_options),"
                "Strict = lists:keystore(fail_if_no_peer_cert, 1, Options, {fail_if_no_peer_cert, true}),"
                f'ok = rabbit_networking:start_ssl_listener({{"{_HOST}", {self.mtls_port}}}, Strict, 1)'
            )

    def _beam_pid(self) -> int:
        return int((self.directory / "pid").read_text())

    def _wait_for_end(self, seconds: float) -> None:
        """Give the group that long to end by itself, then kill it, and collect the leader."""
        leader = self._leader
        assert leader is not None
        assert leader.stdin is not None
        try:
            leader.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(leader.pid, signal.SIGKILL)
            leader.wait()
        leader.stdin.close()
        self._leader = None


def _thread_states(pid: int) -> Iterator[str]:
    """The state letter of each thread of a process: ``T`` is stopped, ``Z`` and ``X`` are dead.

    It is the third field of ``stat`` (proc(5)).
    """
    for status in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # The second field, the name in parentheses, may have spaces.
            yield status.read_text().rpartition(")")[2].split()[0]


def _speaks_amqp(port: int) -> bool:
    """Whether a broker answers our protocol header with a method frame (connection.start)."""
    try:
        with socket.create_connection((_HOST, port), timeout=5.0) as probe:
            probe.sendall(_PROTOCOL_HEADER)
            return probe.recv(1) == b"\x01"
    except OSError:
        return False

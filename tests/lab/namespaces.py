"""A network namespace for a client, joined to ours by a virtual link that can be taken down (needs root).

https://man7.org/linux/man-pages/man8/ip-netns.8.html.  The namespace, its link and its addresses are ours alone and
gone at the end.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator

__all__ = ["Pair", "pair", "why_none"]


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def why_none() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if shutil.which("ip") is None:
        return "there is no ip command (on Debian: apt-get install iproute2)"
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    name = f"lab-{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except subprocess.CalledProcessError as error:
        return f"network namespaces are not allowed here: {error.stderr.decode().strip()}"
    return ""


class Pair:
    """A namespace and its link.   name: str.   near, far: str -- our address and that of the namespace."""

    def __init__(self) -> None:
        token = secrets.token_hex(3)
        number = secrets.randbelow(250) + 1
        self.name = f"lab-{token}"
        self.near, self.far = f"10.213.{number}.1", f"10.213.{number}.2"
        self._link, self._peer = f"labn{token}", f"labf{token}"

    def make(self) -> None:
        """Make it."""
        _ip("netns", "add", self.name)
        _ip("link", "add", self._link, "type", "veth", "peer", "name", self._peer)
        _ip("link", "set", self._peer, "netns", self.name)
        _ip("addr", "add", f"{self.near}/30", "dev", self._link)
        _ip("link", "set", self._link, "up")
        for arguments in (("addr", "add", f"{self.far}/30", "dev", self._peer), ("link", "set", self._peer, "up")):
            _ip("-n", self.name, *arguments)
        _ip("-n", self.name, "link", "set", "lo", "up")

    def close(self) -> None:
        """Remove it."""
        for arguments in (("link", "del", self._link), ("netns", "del", self.name)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip(*arguments)

    def down(self) -> None:
        """Take the link down at our end: what is sent is lost, and nobody is told."""
        _ip("link", "set", self._link, "down")

    def up(self) -> None:
        """Put it up again."""
        _ip("link", "set", self._link, "up")

    @property
    def prefix(self) -> tuple[str, ...]:
        """What goes before a command that is to run in the namespace."""
        return ("ip", "netns", "exec", self.name)

    @contextlib.contextmanager
    def relay(self, port: int) -> Iterator[int]:
        """Let the namespace reach a port of our loopback; the port on `near`."""
        with socket.create_server((self.near, 0)) as server:

            def pump(source: socket.socket, target: socket.socket) -> None:
                with contextlib.suppress(OSError):
                    while data := source.recv(65536):
                        target.sendall(data)
                for end in (source, target):
                    with contextlib.suppress(OSError):
                        end.shutdown(socket.SHUT_RDWR)

            def accept() -> None:
                with contextlib.suppress(OSError):
                    while True:
                        front, _ = server.accept()
                        try:
                            back = socket.create_connection(("127.0.0.1", port), 5)
                        except OSError:
                            front.close()
                            continue
                        back.settimeout(None)
                        for ends in ((front, back), (back, front)):
                            threading.Thread(target=pump, args=ends, daemon=True).start()

            threading.Thread(target=accept, daemon=True).start()
            yield server.getsockname()[1]
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """A namespace with its link, for the length of a `with` block."""
    made = Pair()
    try:
        made.make()
        yield made
    finally:
        made.close()

"""DataDirectory: who may read the data, and that one broker works on it (C7.4)."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

from tests.broker.store_cases import StoreTestCase
from txmsg.broker.store import DataDirectoryInUse, DataDirectoryRefused, StoreError
from txmsg.broker.store.directory import DataDirectory
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import TxmsgError


class DataDirectoryTests(StoreTestCase):
    """The stat test of C7.4."""

    def refused(self, path: Path) -> str:
        """The text that a start with `path` fails with."""
        store = self.make(path)
        return str(self.failureResultOf(store.load(_Nowhere()), DataDirectoryRefused).value)

    def test_modes(self) -> None:
        """0700 and 0600, whatever the umask is; also where they had been opened wider."""
        before = os.umask(0)
        try:
            host = self.start()
            host.queue()
            self.commit(host)
        finally:
            os.umask(before)
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        names = {path.name: path.stat().st_mode & 0o777 for path in self.directory.iterdir()}
        self.assertEqual(names, dict.fromkeys(("broker.db", "broker.db-wal", "broker.db-shm", "lock"), 0o600))
        self.stop(host)
        self.directory.chmod(0o755)
        (self.directory / "broker.db").chmod(0o644)
        self.start()
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)
        self.assertEqual({path.stat().st_mode & 0o777 for path in self.directory.iterdir()}, {0o600})

    def test_empty_directory(self) -> None:
        """An empty one of ours is taken."""
        self.directory.mkdir()
        self.start()
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o700)

    def test_directory_with_other_things(self) -> None:
        """A folder that is used for something else is left as it is."""
        self.directory.mkdir(mode=0o755)
        (self.directory / "letters").touch()
        self.assertIn("letters", self.refused(self.directory))
        self.assertEqual(self.directory.stat().st_mode & 0o777, 0o755)
        self.assertEqual([path.name for path in self.directory.iterdir()], ["letters"])

    def test_not_a_directory(self) -> None:
        """A file, and a place whose parent is missing."""
        self.directory.touch()
        self.assertIn("not a directory", self.refused(self.directory))
        missing = self.directory.with_name("missing")
        self.assertIn(f"there is no {str(missing)!r} to make it in; make that", self.refused(missing / "data"))

    def test_links(self) -> None:
        """A file of ours that is a link is refused: it may lead anywhere."""
        for name in ("broker.db", "lock", "broker.db-wal"):
            self.directory.mkdir()
            victim = self.directory.with_name("victim")
            victim.write_bytes(b"precious")
            (self.directory / name).symlink_to(victim)
            self.assertIn(name, self.refused(self.directory))
            self.assertEqual(victim.read_bytes(), b"precious")
            (self.directory / name).unlink()
            self.directory.rmdir()

    def test_another_owner(self) -> None:
        """A directory, or a file in it, of another user is refused."""
        self.directory.mkdir()
        me = os.geteuid()
        self.patch(os, "geteuid", lambda: me + 1)
        self.assertIn(f"another user (uid {me})", self.refused(self.directory))
        self.patch(os, "geteuid", lambda: me)
        host = self.start()
        self.stop(host)
        directory = DataDirectory(self.directory)
        self.patch(os, "geteuid", lambda: me + 1)
        self.patch(DataDirectory, "_make", lambda self: None)
        self.assertIn("broker.db belongs to another user", str(self.assertRaises(DataDirectoryRefused, directory.open)))

    def test_read_only(self) -> None:
        """F56: a directory that nothing can be written to is refused at the start, a new one and one with data."""
        self.stop(self.start())
        before = (self.directory / "broker.db").read_bytes()

        def refuse(*arguments: object, **options: object) -> None:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

        self.patch(Path, "chmod", refuse)
        self.patch(Path, "mkdir", refuse)
        self.assertIn("Read-only", self.refused(self.directory.with_name("new")))
        self.patch(Path, "mkdir", _there)
        self.assertIn("Read-only", self.refused(self.directory))
        self.assertEqual((self.directory / "broker.db").read_bytes(), before)

    def test_two_brokers(self) -> None:
        """The second is refused while the first is there, and leaves it alone."""
        host = self.start()
        host.queue()
        host.publish(b"1")
        second = self.make()
        failure = self.failureResultOf(second.load(_Nowhere()), DataDirectoryInUse)
        self.assertIn(str(self.directory), str(failure.value))
        self.assertEqual(self.commit(host), ["kept"])
        self.stop(host)
        self.assertEqual(self.start().kept_bodies(), [b"1"])

    def test_another_process(self) -> None:
        """The lock holds between processes, and ends with the process."""
        program = (
            "import sys; from txmsg.broker.store.directory import DataDirectory;"
            "DataDirectory(sys.argv[1]).open(); print('locked', flush=True); sys.stdin.read()"
        )
        with subprocess.Popen(
            [sys.executable, "-c", program, str(self.directory)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as other:
            assert other.stdout is not None
            self.assertEqual(other.stdout.readline(), b"locked\n")
            self.failureResultOf(self.make().load(_Nowhere()), DataDirectoryInUse)
            other.kill()
        self.start()

    def test_errors_are_ours(self) -> None:
        """Each is a TxmsgError."""
        for kind in (DataDirectoryInUse, DataDirectoryRefused):
            self.assertTrue(issubclass(kind, StoreError))
            self.assertTrue(issubclass(kind, TxmsgError))

    def test_repr(self) -> None:
        """Says where, and whether it is open."""
        directory = DataDirectory(self.directory)
        self.assertNotIn("open", repr(directory))
        directory.open()
        self.addCleanup(directory.close)
        self.assertIn("open", repr(directory))


def _there(*arguments: object, **options: object) -> None:
    raise FileExistsError


class _Nowhere:
    """Nothing is restored into it."""

    vhosts: dict[str, VirtualHost] = {}

    def add_vhost(self, name: str) -> VirtualHost:
        raise AssertionError(name)

"""The data directory: who may see it, and that only one broker works in it.

C7.4: the directory has mode 0700 and its files 0600; what belongs to another user, or is reached through a link, is
refused.  One process: a lock of the kernel's (flock) on a file of its own, which ends with the process however that
ends, so there is no stale lock to remove.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from txmsg.broker.store.errors import DataDirectoryInUse, DataDirectoryRefused

__all__ = ["DATABASE", "DataDirectory"]

DATABASE = "broker.db"
_LOCK = "lock"
#: SQLite's write-ahead log and its index, and the journal it makes the tables with; they get the mode of the database.
_FILES = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", f"{DATABASE}-journal", _LOCK)


class DataDirectory:
    """The directory at `path`, made where it is missing (its parent must be there).

    :raises DataDirectoryRefused: from :meth:`open`: another owner, a link, something else in it, no permission.
    :raises DataDirectoryInUse: from :meth:`open`: another broker has it open.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(os.fspath(path)))
        self.database = self.path / DATABASE
        self.write_ahead_log = self.path / f"{DATABASE}-wal"
        self.rollback_journal = self.path / f"{DATABASE}-journal"
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<DataDirectory {str(self.path)!r}{'' if self._lock is None else ', open'}>"

    def open(self) -> None:
        """Check and lock it; blocks for a moment."""
        try:
            self._make()
            self._check_files()
            self._take_lock()
            self._make_database()
        except OSError as error:
            self.close()
            raise DataDirectoryRefused(f"the data directory {str(self.path)!r} cannot be used: {error}") from None
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """Give the lock back; can be called again."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def sync(self) -> None:
        """Make the names of new files safe, too."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _refused(self, why: str) -> DataDirectoryRefused:
        return DataDirectoryRefused(f"the data directory {str(self.path)!r} is refused: {why}")

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700)
        except FileNotFoundError:
            raise self._refused(f"there is no {str(self.path.parent)!r} to make it in; make that first") from None
        except FileExistsError:
            status = self.path.stat()
            if not stat.S_ISDIR(status.st_mode):
                raise self._refused("it is not a directory") from None
            self._check_owner(status, "it")
            others = sorted(entry.name for entry in self.path.iterdir())
            if others and DATABASE not in others and set(others) - set(_FILES):
                # Its mode is about to be changed, which nobody expects of a folder that holds other things.
                raise self._refused(f"it holds other things ({others[0]!r}); give one that is empty or new") from None
        else:
            parent = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        self.path.chmod(0o700)

    def _check_owner(self, status: os.stat_result, what: str) -> None:
        if status.st_uid != os.geteuid():
            raise self._refused(f"{what} belongs to another user (uid {status.st_uid})")

    def _check_files(self) -> None:
        for name in _FILES:
            file = self.path / name
            try:
                status = file.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(status.st_mode):
                raise self._refused(f"{name} is a link, or not a file")
            self._check_owner(status, name)
            file.chmod(0o600)

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryInUse(
                f"another broker uses the data directory {str(self.path)!r}; stop it, or give another directory"
            ) from None

    def _make_database(self) -> None:
        """An empty file is an empty database to SQLite; made here for its mode, whatever the umask is."""
        try:
            os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        self.sync()

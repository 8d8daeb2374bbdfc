"""What can go wrong with the broker's data directory.  R35: what was not kept is never confirmed."""

from __future__ import annotations

from txmsg.errors import TxmsgError

__all__ = [
    "DataDirectoryInUse",
    "DataDirectoryRefused",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "StoreTooNew",
]


class StoreError(TxmsgError):
    """The root of what the store raises; the text names the directory and says what to do."""


class DataDirectoryRefused(StoreError):
    """The directory, or a file in it, is not one that the broker can trust: another owner, a link, other content."""


class DataDirectoryInUse(StoreError):
    """Another broker works in the directory."""


class StoreTooNew(StoreError):
    """The database was written by a later version of txmsg."""


class StoreDamaged(StoreError):
    """The file is not a database of the broker, or so damaged that nothing can be read."""


class StoreClosed(StoreError):
    """The store was closed, or never opened, when it was asked to keep something."""


class StoreFailed(StoreError):
    """What was told could not be written.

    `recoverable`: True while the disk is full: everything is kept in memory and written again once a second.
    False after any other error of the disk: nothing more is written until the broker is started again.
    """

    def __init__(self, message: str, *, recoverable: bool) -> None:
        super().__init__(message)
        self.recoverable = recoverable  # type: ignore[misc]

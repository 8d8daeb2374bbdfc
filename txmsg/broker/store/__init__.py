"""What makes the broker's durable things survive its end: one SQLite database in a directory of its own.

`store` is what the broker sees; `batch` collects what happened since the last commit, `database` writes it in one
transaction, `records` are the rows, `restoring` reads them back at the start, `directory` guards the files.
docs/durability.md says what is promised.
"""

from txmsg.broker.store.errors import (
    DataDirectoryInUse,
    DataDirectoryRefused,
    StoreClosed,
    StoreDamaged,
    StoreError,
    StoreFailed,
    StoreTooNew,
)
from txmsg.broker.store.report import Damage, LoadReport
from txmsg.broker.store.store import SQLiteStore
from txmsg.broker.store.worker import InlineWorker, ThreadWorker

__all__ = [
    "Damage",
    "DataDirectoryInUse",
    "DataDirectoryRefused",
    "InlineWorker",
    "LoadReport",
    "SQLiteStore",
    "StoreClosed",
    "StoreDamaged",
    "StoreError",
    "StoreFailed",
    "StoreTooNew",
    "ThreadWorker",
]

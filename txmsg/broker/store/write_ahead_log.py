"""A look at SQLite's write-ahead log before SQLite reads it.

SQLite takes the log up to the first frame whose checksum is wrong and forgets the rest without a word
(https://www.sqlite.org/fileformat2.html#the_write_ahead_log).  After a kill that is right: the rest is what had not
been committed.  But when a bit in the middle has changed, whole commits are behind it, and that must be said.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from txmsg.broker.store.report import Damage

__all__ = ["LogInspection"]

#: Words of four octets.  magic, version, page size, checkpoint number, two salts, two checksums
_HEADER = struct.Struct(">8I")
#: page, pages of the database after a commit (else 0), two salts, two checksums
_FRAME = struct.Struct(">6I")
_NO_COMMIT = bytes(4)


def _is_sound(header: bytes) -> bool:
    """Whether the checksum at the header's end is that of the six words before it."""
    if len(header) < _HEADER.size:
        return False
    order = ">" if header[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", header[:24])
    first = second = 0
    for at in (0, 2, 4):
        first = (first + words[at] + second) & 0xFFFFFFFF
        second = (second + words[at + 1] + first) & 0xFFFFFFFF
    return struct.unpack(">2I", header[24:]) == (first, second)


@dataclass(slots=True)
class LogInspection:
    """The frames of a log that belong together: for each, whether it ends a commit."""

    commits: list[bool] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path, page_size: int) -> LogInspection:
        """Look at the heads of the frames in the file at `path`, which may be missing.

        No checksum but the header's is checked: SQLite does that.
        """
        found = cls()
        try:
            log = path.open("rb")
        except FileNotFoundError:
            return found
        with log:
            end = os.fstat(log.fileno()).st_size
            header = log.read(_HEADER.size)
            salts = header[16:24] if _is_sound(header) else None
            while log.tell() + _FRAME.size + page_size <= end:
                frame = log.read(_FRAME.size)
                if salts is None:  # the header is damaged: what the first frame belongs to counts
                    salts = frame[8:16]
                if frame[8:16] != salts:
                    break  # left over from before the last checkpoint
                found.commits.append(frame[4:8] != _NO_COMMIT)
                log.seek(page_size, 1)
        return found

    def damage(self, frames: int) -> list[Damage]:
        """What is to be said when SQLite has read `frames` of them."""
        lost = sum(self.commits[frames:])
        if not lost:
            return []
        return [Damage(f"the write-ahead log is damaged behind frame {frames}: {lost} commits after it are lost")]

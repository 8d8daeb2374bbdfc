"""Programs written by hand, and those that have failed once."""

from __future__ import annotations

from typing import Final

from tests.conformance.differential.fixed import endings, exchanges, kept, messages, octets, queues, replies
from tests.conformance.differential.steps import Program

__all__ = ["PROGRAMS"]

PROGRAMS: Final[tuple[Program, ...]] = tuple(
    program for each in (queues, exchanges, messages, endings, replies, octets, kept) for program in each.PROGRAMS
)

"""Makes a failing program short: steps are left out as long as it goes on failing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.conformance.differential.steps import Program

__all__ = ["shrink"]


def shrink(program: Program, fails: Callable[[Program], bool], *, tries: int = 200) -> Program:
    """The shortest program found with at most `tries` runs."""
    size = max(len(program.steps) // 2, 1)
    while tries > 0:
        at = 0
        found = False
        while at < len(program.steps) and tries > 0:
            shorter = replace(program, steps=program.steps[:at] + program.steps[at + size :])
            tries -= 1
            if shorter.steps and fails(shorter):
                program, found = shorter, True
            else:
                at += size
        if size == 1 and not found:
            break
        size = max(size // 2, 1)
    return program

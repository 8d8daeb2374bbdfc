"""Look for programs that the two brokers treat differently: `python -m tests.conformance.differential FIRST COUNT`.

A count of 0 means the fixed programs.
"""

from __future__ import annotations

import sys
import time

from tests.conformance.differential.brokers import EmbeddedProcess, RabbitMQ
from tests.conformance.differential.fixed import PROGRAMS as FIXED
from tests.conformance.differential.generator import random_program
from tests.conformance.differential.player import compare
from tests.conformance.differential.program_source import program_source
from tests.conformance.differential.shrinking import shrink
from tests.conformance.differential.transcript import all_differences, differences
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["main"]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(first: int, count: int) -> int:
    """Run the programs of seeds from `first`; how many differ."""
    failed = 0
    started = time.monotonic()
    with RabbitMQNode() as node, RabbitMQ(node) as rabbitmq, EmbeddedProcess() as embedded:
        for program in FIXED if not count else map(random_program, range(first, first + count)):
            how = differences if count else all_differences
            difference = compare(program, rabbitmq.account, embedded.account, how)
            if difference:
                failed += 1
                if not count:
                    _say(difference)
                    continue
                short = shrink(
                    program, lambda shorter: bool(compare(shorter, rabbitmq.account, embedded.account)), tries=120
                )
                _say(f"==== {program.name}")
                _say(program_source(short))
                _say(compare(short, rabbitmq.account, embedded.account) or f"not again:\n{difference}")
    _say(f"{count} programs, {failed} differ, in {time.monotonic() - started:.1f} s")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(int(sys.argv[1]), int(sys.argv[2])) else 0)

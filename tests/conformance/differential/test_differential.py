"""R34, F33: programs that RabbitMQ and the embedded broker have to answer alike, to the letter.

Those written by hand, a fixed number of random ones, and with `make test-long` thousands.  A program that fails is
printed as a regression test that can be kept; `python -m tests.conformance.differential SEED 1` makes it short.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import rabbitmq
from tests.conformance.differential.brokers import EmbeddedProcess, RabbitMQ
from tests.conformance.differential.fixed import PROGRAMS
from tests.conformance.differential.generator import random_program
from tests.conformance.differential.player import compare, play
from tests.conformance.differential.program_source import program_source
from tests.conformance.differential.steps import Program
from tests.conformance.differential.transcript import Record, all_differences, differences

#: Random programs of `make test`; those of `make test-long` come after them.
_SOME = 40
_MANY = 4000


class Brokers:
    """Both of them."""

    def __init__(self, rabbitmq: RabbitMQ, embedded: EmbeddedProcess) -> None:
        self.rabbitmq = rabbitmq
        self.embedded = embedded

    def compare(self, program: Program, how: Callable[[list[Record], list[Record]], str] = differences) -> str:
        """Where they differ; "" if they do not.

        A program may try a second time: it can meet a moment that is RabbitMQ's to choose, and times to live are real
        ones.  A difference that matters is there again.
        """
        for _ in range(2):
            difference = compare(program, self.rabbitmq.account, self.embedded.account, how)
            if not difference:
                return ""
        return difference

    def check_random(self, seed: int) -> str:
        """Why the program of that number failed, with its source; "" if it did not."""
        program = random_program(seed)
        difference = self.compare(program)
        return f"{program_source(program)}\n{difference}" if difference else ""


@pytest.fixture(scope="module")
def brokers() -> Iterator[Brokers]:
    """The shared node, and an embedded broker in a process of its own."""
    reason = rabbitmq.why_no_rabbitmq()
    if reason:
        pytest.skip(reason)
    with RabbitMQ(rabbitmq.shared_node()) as node, EmbeddedProcess() as embedded:
        yield Brokers(node, embedded)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_written_by_hand(program: Program, brokers: Brokers) -> None:
    """R34: what was measured, and what once differed."""
    assert not brokers.compare(program, all_differences)


def test_random(brokers: Brokers) -> None:
    """R34: short random programs, always the same ones."""
    for seed in range(_SOME):
        assert not brokers.check_random(seed)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_random(brokers: Brokers) -> None:
    """R34: many more."""
    failed = [why for seed in range(_SOME, _SOME + _MANY) if (why := brokers.check_random(seed))]
    assert not failed, "\n\n".join(failed)


def test_a_difference_is_seen(brokers: Brokers) -> None:
    """The comparison itself: other programs give other transcripts, the same one the same again."""
    one, other = PROGRAMS[0], PROGRAMS[1]
    first = play(one, brokers.embedded.account)
    assert not all_differences(first, play(one, brokers.embedded.account))
    count = min(len(first), len(other.steps))
    assert all_differences(first[:count], play(other, brokers.embedded.account)[:count])

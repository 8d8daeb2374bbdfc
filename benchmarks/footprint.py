"""`python -m benchmarks.footprint`: the memory of a broker that holds many small messages in one queue.

Broker and publisher are processes of their own; the messages are transient, of 100 bytes, and the publisher waits for
its confirms.  Printed is the broker's resident set before and after, from /proc; both of the embedded broker and of
RabbitMQ, which writes a long queue to disk whatever it is told.  Exit status 1 if the embedded broker takes more than
WANTED.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.embedded import EMBEDDED, RABBITMQ, RunningBroker, fill, running_brokers

__all__ = ["main"]

MIB = 1024 * 1024
MESSAGES = 1_000_000
#: Bytes of resident set for MESSAGES.
WANTED = 1024 * MIB


def resident(broker: RunningBroker) -> int:
    """Its resident set in bytes."""
    for line in Path(f"/proc/{broker.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {broker.pid} has no resident set")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.footprint", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--only", choices=[EMBEDDED, RABBITMQ])
    options = parser.parse_args(arguments)
    names = [options.only] if options.only else [EMBEDDED, RABBITMQ]
    is_good = True
    print(f"| {options.messages:,} messages of {options.size} B | before | after | bytes a message |")
    print("| --- | ---: | ---: | ---: |")
    with running_brokers(names, memory=4 * WANTED) as brokers:
        for broker in brokers:
            before = resident(broker)
            fill(broker, options.messages, options.size)
            after = resident(broker)
            each = (after - before) / options.messages
            print(f"| {broker.name} | {before / MIB:,.0f} MiB | {after / MIB:,.0f} MiB | {each:,.0f} |", flush=True)
            if broker.name == EMBEDDED and options.messages >= MESSAGES:
                is_good = after < WANTED
                print(f"wanted: below {WANTED // MIB:,} MiB", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())

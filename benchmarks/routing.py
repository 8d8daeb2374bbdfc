"""`python -m benchmarks.routing`: what routing to one of many topic bindings costs, beside one of ten.

The model alone: an exchange of the type topic in a virtual host, bindings to ten queues, so that these cost the same in
both cases, and messages of 100 bytes for routing keys that one binding each matches.  `new key` is the way through the
bindings, with no key asked for twice; `known key` the way through the cache of routes.  `words` are bindings `a.b.N`,
`stars` are `*.b.N`, `hashes` are `N.#`.  Printed is CPU time for one publish, the fastest of several rounds taken in
turns.  Exit status 1 if one of 10,000 costs twice as much as one of 10.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from twisted.internet.task import Clock

from txmsg.broker.limits import BrokerLimits
from txmsg.broker.message import Message
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.wire.properties import BasicProperties

__all__ = ["main"]

FEW, MANY = 10, 10_000
#: Times as much as with FEW bindings.
WANTED = 2.0
PUBLISHES = 5_000
BODY = b"x" * 100
PROPERTIES = BasicProperties(delivery_mode=1)

#: Name -> the pattern of a binding, and the n-th routing key that it matches.
PATTERNS: dict[str, tuple[Callable[[int], str], Callable[[int, int], str]]] = {
    "words": (lambda binding: f"a.b.{binding}", lambda binding, _: f"a.b.{binding}"),
    "stars": (lambda binding: f"*.b.{binding}", lambda binding, n: f"k{n}.b.{binding}"),
    "hashes": (lambda binding: f"{binding}.#", lambda binding, n: f"{binding}.k.{n}"),
}


def make(pattern: Callable[[int], str], bindings: int) -> VirtualHost:
    """A virtual host with so many bindings to FEW queues."""
    vhost = VirtualHost(clock=Clock(), limits=BrokerLimits(bindings=bindings + 1))
    vhost.declare_exchange("x", "topic")
    for number in range(bindings):
        vhost.bind_queue(vhost.declare_queue(f"q{number % FEW}").name, "x", pattern(number))
    return vhost


def keys_for(key: Callable[[int, int], str], bindings: int, start: int) -> list[str]:
    """Routing keys over all the bindings."""
    return [key((number * 7919) % bindings, start + number) for number in range(PUBLISHES)]


def cost(vhost: VirtualHost, keys: Sequence[str], *, forget: bool) -> float:
    """CPU microseconds of one publish; `forget`: as if no key had been asked for before."""
    messages = [(key, Message.published("x", key, PROPERTIES, BODY)) for key in keys]
    publish, forget_all = vhost.publish, vhost.routes.forget
    spent = 0.0
    begun = time.process_time()
    for number, (key, message) in enumerate(messages):
        if forget and not number % FEW:  # within ten publishes no key comes twice
            spent -= time.process_time()
            forget_all()
            spent += time.process_time()
        publish("x", key, message, PROPERTIES)
    spent = time.process_time() - begun - spent
    for queue in vhost.queues.values():
        queue.purge()
    return 1e6 * spent / len(keys)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.routing", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    worst = 0.0
    print(f"| CPU us for a publish | 1 of {FEW} | 1 of {MANY:,} | ratio |\n| --- | ---: | ---: | ---: |")
    for name, (pattern, key) in PATTERNS.items():
        hosts = {bindings: make(pattern, bindings) for bindings in (FEW, MANY)}
        for forget, title in ((True, "new key"), (False, "known key")):
            found: dict[int, list[float]] = {FEW: [], MANY: []}
            for turn in range(options.rounds):
                for bindings, vhost in hosts.items():
                    # Known keys are few, as the cache holds few.
                    start = turn * PUBLISHES
                    keys = keys_for(key, bindings, start)
                    if not forget:
                        keys = (keys[:500] * (PUBLISHES // 500 + 1))[:PUBLISHES]
                    found[bindings].append(cost(vhost, keys, forget=forget))
            few, many = min(found[FEW]), min(found[MANY])
            worst = max(worst, many / few)
            print(f"| {name}, {title} | {few:.2f} | {many:.2f} | {many / few:.2f} |", flush=True)
    print(f"\nworst {worst:.2f}, wanted below {WANTED:.0f}: {'met' if worst < WANTED else 'not met'}")
    return 0 if worst < WANTED else 1


if __name__ == "__main__":
    sys.exit(main())

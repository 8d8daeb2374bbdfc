"""The one broker of a run: the one that TXMSG_BENCH_URL names, or a private RabbitMQ started for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.task import URL_VARIABLE
from txmsg.testing.rabbitmq import RabbitMQNode

__all__ = ["broker_url"]


@contextmanager
def broker_url() -> Iterator[str]:
    """Give the URL of the broker to measure on; a node started for it is gone afterwards.

    The private node has Erlang's default number of schedulers, one per core, as an installed broker has.
    """
    url = os.environ.get(URL_VARIABLE)
    if url:
        yield url
        return
    with RabbitMQNode(schedulers=None, settings={"vm_memory_high_watermark.absolute": "4GB"}) as node:
        yield node.url

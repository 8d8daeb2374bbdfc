"""The one private RabbitMQ node that a test run shares.

It is started by the first test that wants it and closed by ``conftest.py`` at the end of the run.  (Should the
run be killed, the node ends by itself: see :mod:`txmsg.testing.rabbitmq`.)
"""

from __future__ import annotations

import functools

from tests.certificates import shared_authority
from txmsg.errors import TxmsgError
from txmsg.testing.rabbitmq import NodeTLS, RabbitMQMissing, RabbitMQNode, find_rabbitmq_server


class _Shared:
    """What has been started so far: at most one node, or the reason why there is none."""

    node: RabbitMQNode | None = None
    failure: TxmsgError | None = None


@functools.cache
def why_no_rabbitmq() -> str:
    """Why tests against RabbitMQ are to be skipped; empty when it is installed."""
    try:
        find_rabbitmq_server()
    except RabbitMQMissing as error:
        return str(error)
    return ""


def node_tls() -> NodeTLS:
    """The TLS files of the shared node: ``localhost``, 127.0.0.1 and ::1, from the tests' own authority."""
    authority = shared_authority()
    server = authority.issue("rabbitmq", dns=["localhost"], ip=["127.0.0.1", "::1"])
    return NodeTLS(ca=authority.certificate_file, certificate=server.certificate_file, key=server.key_file)


def shared_node() -> RabbitMQNode:
    """Return the running shared node, starting it when it is wanted for the first time.

    A test that stopped it need not start it again.  A node that failed to start once is not tried for every
    test: the first error is raised again.
    """
    if _Shared.failure is not None:
        raise _Shared.failure
    if _Shared.node is None:
        _Shared.node = RabbitMQNode(tls=node_tls())
    try:
        _Shared.node.start()
    except TxmsgError as error:
        _Shared.failure = error
        close_shared_node()
        raise
    return _Shared.node


def close_shared_node() -> None:
    """Kill the shared node, if there is one, and remove its files."""
    node, _Shared.node = _Shared.node, None
    if node is not None:
        node.close()

"""AMQPTransport: from an ``amqp://`` or ``amqps://`` URL to a connection that is ready, in one attempt.

Invariants: a failed or cancelled attempt leaves no socket, no timer and no connection that comes back later; no error
shows a part of a URL that could hold a password.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.python.failure import Failure

from txmsg.abc import Guarantees
from txmsg.amqp import ReconnectingConnection, uri
from txmsg.errors import ConfigurationError
from txmsg.transports.amqp.connection import AMQPConnection
from txmsg.transports.amqp.settings import Settings, settings_of

__all__ = ["AMQPTransport"]


class AMQPTransport:
    """The transport of ``amqp://`` and ``amqps://``; a :class:`~txmsg.abc.MessagingTransport`.

    `pyamqp://` and `librabbitmq://`, as Kombu has them, are `amqp://`.
    """

    schemes = ("amqp", "amqps")
    default_ports: Mapping[str, int] = MappingProxyType({"amqp": 5672, "amqps": 5671})
    #: What the query of a URL may say; the options say the rest.
    url_options = frozenset({*uri.KEYS, *uri.TLS_KEYS, "auth_mechanism"})
    #: What a URL means that does not say so.
    url_defaults: Mapping[str, str] = MappingProxyType(
        {"hostname": "localhost", "userid": "guest", "password": "guest", "virtual_host": "/"}
    )
    exchange_types = frozenset({"direct", "fanout", "topic", "headers"})
    guarantees = Guarantees(
        delivery="at-least-once",
        is_ordered=True,
        survives_restart=True,
        redelivery_timeout=None,
        has_heartbeats=True,
    )

    def connect(
        self,
        url: str,
        *,
        reactor: Any = None,
        alternates: Sequence[str] = (),
        options: Mapping[str, Any] | None = None,
    ) -> Deferred[AMQPConnection]:
        """Connect and log in, to the host of `url` (all addresses of its name are tried); later it comes back.

        alternates: hosts that it may come back to, too.   options: :mod:`txmsg.transports.amqp.settings`.

        Fails with ConfigurationError before anything is sent, and with what :func:`txmsg.amqp.connect` fails with.
        Cancelling the Deferred gives the attempt up.
        """
        settings = settings_of([url, *alternates], options)
        del url, alternates, options  # they may hold passwords, and the locals of a frame can be printed (C3.1)
        if isinstance(settings, ConfigurationError):
            return fail(settings)
        return _connect(settings, reactor)


def _connect(settings: Settings, reactor: Any) -> Deferred[AMQPConnection]:
    try:
        connection = ReconnectingConnection(settings.targets[0], reactor=reactor, **settings.recovery)
    except ConfigurationError as error:
        return fail(error)
    closing: list[Deferred[None]] = []
    result: Deferred[AMQPConnection] = Deferred(lambda cancelled: closing.append(connection.close(0)))
    settings.watch(connection)

    def ready(found: ReconnectingConnection) -> None:
        if not result.called:
            if len(settings.targets) > 1:
                found.add_targets(settings.targets[1:])
            result.callback(AMQPConnection(found, settings.resubscribe_limit))

    def failed(failure: Failure) -> None:
        if not result.called:
            result.errback(failure)

    connection.start(once=True).addCallbacks(ready, failed)
    return result

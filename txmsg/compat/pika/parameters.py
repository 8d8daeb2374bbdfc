"""pika's connection parameters as ours.

Only what pika's Twisted adapter uses of them counts: not the socket's side (host, port, TLS, attempts), which Twisted
has, but virtual host, credentials, tuning and time limits.  What pika does not have is switched off: no prefetch
unless asked for, no time limit for a reply or a confirm, no bound on what waits to be sent.  What pika's adapter has
and does not apply, works: `stack_timeout` limits the handshake.
"""

from __future__ import annotations

from typing import Any

import pika
from pika import spec

from txmsg.amqp import ConnectionParameters, Credentials, ExternalCredentials, PlainCredentials
from txmsg.errors import ConfigurationError

__all__ = ["native_credentials", "native_parameters"]

_NO_LIMIT = 2**62

#: A month, the longest time that our parameters take: for "no limit" where they insist on one, and for longer ones.
_LONGEST = 31 * 86400.0

_TCP_OPTIONS = frozenset({"TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT"})


class _OtherCredentials:
    """Credentials of another class: of an application that has put it among `pika.credentials.VALID_TYPES`."""

    #: The application decides, as it did with pika.
    is_safe_in_plaintext = True

    def __init__(self, credentials: Any) -> None:
        self._credentials = credentials

    @property
    def mechanism(self) -> str:
        """The name of the SASL mechanism."""
        return str(self._credentials.TYPE)

    def response(self) -> bytes:
        """What goes with connection.start-ok."""
        _, response = self._credentials.response_for(spec.Connection.Start(mechanisms=self.mechanism))
        return response.encode("utf-8") if isinstance(response, str) else bytes(response or b"")

    def respond(self, challenge: bytes) -> bytes:
        """No credentials of pika's answer a challenge."""
        raise ConfigurationError("pika's credentials cannot answer a challenge of the broker")


def native_credentials(credentials: Any) -> Credentials:
    """Our credentials for pika's."""
    if type(credentials) is pika.PlainCredentials:
        return PlainCredentials(credentials.username, credentials.password)
    if type(credentials) is pika.credentials.ExternalCredentials:
        return ExternalCredentials()
    return _OtherCredentials(credentials)


def native_parameters(parameters: Any, connection: object) -> ConnectionParameters:
    """Our ConnectionParameters for pika's, which stay as they are.

    connection: what a `heartbeat` callable is given first.
    """
    heartbeat = parameters.heartbeat
    if callable(heartbeat):
        callback = heartbeat
        heartbeat = lambda proposed: callback(connection, proposed)  # noqa: E731
    elif isinstance(heartbeat, bool):
        heartbeat = int(heartbeat)
    if isinstance(heartbeat, int):
        heartbeat = min(heartbeat, 65535)
    tcp_options = parameters.tcp_options
    blocked_timeout = parameters.blocked_connection_timeout
    settings: dict[str, Any] = {
        "virtual_host": parameters.virtual_host,
        "credentials": native_credentials(parameters.credentials),
        "channel_max": parameters.channel_max,
        "frame_max": parameters.frame_max,
        "heartbeat": heartbeat,
        "locale": parameters.locale,
        "client_properties": parameters.client_properties,
        "handshake_timeout": _LONGEST if parameters.stack_timeout is None else min(parameters.stack_timeout, _LONGEST),
        "operation_timeout": None,
        "confirm_timeout": None,
        "blocked_connection_timeout": None if blocked_timeout is None else min(blocked_timeout, _LONGEST),
        "default_prefetch_count": 0,
        "read_high_water_messages": _NO_LIMIT,
        "read_high_water_bytes": _NO_LIMIT,
        "max_message_size": 2**31,
        "outbox_max_messages": _NO_LIMIT,
        "outbox_max_bytes": _NO_LIMIT,
        # As it was with pika: whether the stream is TLS is for whoever made it.
        "allow_plaintext_auth": True,
        "tcp_options": {name: value for name, value in (tcp_options or {}).items() if name in _TCP_OPTIONS} or None,
    }
    try:
        return ConnectionParameters(host=parameters.host, port=parameters.port, **settings)
    except ConfigurationError:
        # Perhaps a host or port that we would not take; they are not used.  If it is something else, it says so.
        return ConnectionParameters(**settings)

"""Connection: where a broker is and how to talk to it, as a cheap object that connects when it is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from txmsg.abc import MessagingTransport
from txmsg.messaging.connecting import ConnectionLife
from txmsg.messaging.entities.declaring import DeclarationCache
from txmsg.messaging.failures import (
    channel_errors,
    connection_errors,
    recoverable_channel_errors,
    recoverable_connection_errors,
)
from txmsg.transports.registry import transport_for

__all__ = ["Connection"]


class Connection(ConnectionLife):
    """A way to a broker.  Nothing is opened before it is needed, or `connect()` is called."""

    connection_errors = connection_errors
    channel_errors = channel_errors
    recoverable_connection_errors = recoverable_connection_errors
    recoverable_channel_errors = recoverable_channel_errors

    def __init__(
        self,
        hostname: str = "localhost",
        userid: str | None = None,
        password: str | None = None,
        virtual_host: str | None = None,
        port: int | None = None,
        *,
        transport_options: Mapping[str, Any] | None = None,
        heartbeat: float = 0,
        reactor: Any = None,
        name: str = "",
    ) -> None:
        super().__init__(reactor)
        self._url = hostname
        if "://" not in hostname:
            user = f"{quote(userid, '')}:{quote(password or '', '')}@" if userid else ""
            where = f"{hostname}:{port}" if port else hostname
            self._url = f"amqp://{user}{where}" + (f"/{quote(virtual_host, '')}" if virtual_host else "")
        self.transport_options = dict(transport_options or {})
        self.heartbeat = heartbeat
        self.name = name
        #: What was declared over this connection.
        self.declared_entities = DeclarationCache()

    @property
    def transport(self) -> MessagingTransport:
        """What the scheme of the URL selects.  ConfigurationError if nothing serves it."""
        return transport_for(self._url)

    def transport_urls(self) -> Sequence[str]:
        """The present URL, with everything in it."""
        return [self._url]

    def transport_settings(self) -> Mapping[str, Any] | None:
        """The options for the transport."""
        return None

    def forget_declared(self) -> None:
        """What was declared may be gone."""
        self.declared_entities.clear()

    def as_uri(self) -> str:
        """The URL without the password."""
        scheme, _, rest = self._url.partition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}"

    def __repr__(self) -> str:
        return f"<Connection {self.as_uri()} at {id(self):#x}>"

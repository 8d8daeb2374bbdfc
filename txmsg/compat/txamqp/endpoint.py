"""AMQEndpoint: from an AMQP URI to an authenticated AMQClient.

As in RabbitMQ's URI specification user, password and virtual host may be percent-encoded, and amqps:// is TLS that
verifies the server under the name in the URI.  https://www.rabbitmq.com/docs/uri-spec
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, wrapClientTLS
from twisted.python.failure import Failure

from txmsg.amqp import TLSOptions
from txmsg.compat.txamqp.protocol import AMQClient
from txmsg.errors import clip

__all__ = ["AMQEndpoint"]

#: What may stand behind the "?" of a URI.
_OPTIONS = {"heartbeat": int, "timeout": float, "auth_mechanism": str, "username": str, "password": str}


class AMQEndpoint:
    """Connects an AMQFactory's client and logs in.

    reactor.   host: str.   port: int.   username, password: str.   vhost: str.   heartbeat: int -- seconds, 0 for none.
    auth_mechanism: "AMQPLAIN" or "PLAIN".   timeout: seconds for TCP.   tls: TLSOptions | None.
    """

    def __init__(
        self,
        reactor: Any,
        host: str,
        port: int | str,
        username: str = "",
        password: str = "",
        vhost: str = "/",
        heartbeat: int = 0,
        auth_mechanism: str = "AMQPLAIN",
        timeout: float = 30,
        tls: TLSOptions | None = None,
    ) -> None:
        self._reactor = reactor
        self._host = host
        self._port = int(port)
        self._username = username
        self._password = password
        self._vhost = vhost
        self._heartbeat = heartbeat
        self._auth_mechanism = auth_mechanism
        self._timeout = timeout
        self._tls = tls

    @classmethod
    def from_uri(cls, reactor: Any, uri: str) -> AMQEndpoint:
        """An endpoint for amqp://user:password@host:port/vhost?heartbeat=10, or amqps://.

        Further options: auth_mechanism, timeout, username, password.  Without a virtual host it is "/".

        ValueError for another scheme or option: one that nobody heeds could be about TLS.
        """
        parts = urlsplit(uri)
        if parts.scheme not in ("amqp", "amqps"):
            raise ValueError("an AMQP URI begins with amqp:// or amqps://")
        is_tls = parts.scheme == "amqps"
        given: dict[str, Any] = {}
        for name, value in parse_qsl(parts.query, keep_blank_values=True):
            if name not in _OPTIONS:
                raise ValueError(f"an AMQP URI has no option {clip(repr(name))} here; there are {', '.join(_OPTIONS)}")
            given[name] = _OPTIONS[name](value)
        if parts.username is not None:
            given["username"] = unquote(parts.username)
            given["password"] = unquote(parts.password or "")
        given["vhost"] = unquote(parts.path[1:]) or "/"
        if is_tls:
            given["tls"] = TLSOptions()
        port = parts.port or (5671 if is_tls else 5672)
        return cls(reactor, parts.hostname or "localhost", port, **given)

    def __repr__(self) -> str:
        return f"<AMQEndpoint {self._host}:{self._port} vhost={self._vhost!r}>"

    def connect(self, protocol_factory: Any) -> Deferred[AMQClient]:
        """Connect and log in; fires with the client.  Cancelling it, or a login that fails, closes the connection.

        protocol_factory: AMQFactory -- its virtual host and heartbeat are set.
        """
        protocol_factory.set_vhost(self._vhost)
        protocol_factory.set_heartbeat(self._heartbeat)
        kind = TCP6ClientEndpoint if ":" in self._host else TCP4ClientEndpoint
        endpoint: Any = kind(self._reactor, self._host, self._port, self._timeout)
        if self._tls is not None:
            endpoint = wrapClientTLS(self._tls.client_connection_creator(self._host), endpoint)
        connecting: Deferred[Any] = endpoint.connect(protocol_factory)
        return connecting.addCallback(self._authenticate)

    def _authenticate(self, client: AMQClient) -> Deferred[AMQClient]:
        logging_in: Deferred[Any] = client.authenticate(self._username, self._password, mechanism=self._auth_mechanism)

        def failed(failure: Failure) -> Failure:
            client.native.abort()
            return failure

        return logging_in.addCallbacks(lambda _: client, failed)

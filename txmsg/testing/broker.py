"""EmbeddedBroker: a whole AMQP broker for one test.

    async with EmbeddedBroker() as broker:
        connection = await broker.connect()
        ...
        assert broker.queue("jobs").bodies == [b"first"]

It is :class:`txmsg.broker.server.Broker`, the real one, with every semantic of it; nothing is mocked.  Clients of this
process reach it without a socket (:meth:`EmbeddedBroker.connect`), all others over loopback
(:meth:`EmbeddedBroker.listen`).  On a `twisted.internet.task.Clock` it is deterministic: `clock.advance(0)` runs all
that is under way, and minutes of TTL pass at once.

Other than a broker to run in earnest it hashes passwords cheaply and answers a wrong one without delay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final
from urllib.parse import quote

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater

from txmsg.amqp import AMQPProtocol, BasicProperties, ConnectionParameters, PlainCredentials, connect
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.listeners import Listener
from txmsg.broker.message import Message
from txmsg.broker.queues.queue import UNROUTED
from txmsg.broker.server import Broker
from txmsg.broker.tls import ServerTLS
from txmsg.broker.users.credentials import Users
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import ConfigurationError, TxmsgError
from txmsg.testing.faults import Faults
from txmsg.testing.inprocess import InProcessEndpoint
from txmsg.testing.inspection import (
    BindingView,
    ConnectionView,
    ExchangeView,
    MessageView,
    NoSuchEntity,
    QueueView,
)
from txmsg.testing.ports import free_ports

__all__ = ["EmbeddedBroker", "WaitTimeout"]

_HOST: Final = "127.0.0.1"
#: scrypt's N: the least there is.  What is protected here is a test's password.
_CHEAP: Final = 2
_LISTEN_ATTEMPTS: Final = 20
#: Seconds between two looks at a condition that a test waits for.
_LOOK: Final = 0.005
#: How many messages `published` remembers.
_REMEMBERED: Final = 10_000


class WaitTimeout(TxmsgError, AssertionError):
    """What a test waited for did not come true in time; the text says how it was at the end."""


class EmbeddedBroker:
    """A broker that lives in the test's process.

    listen: bool -- whether `start()` also listens on a port of 127.0.0.1, for :attr:`url`.
    reactor -- an IReactorTime provider, such as a `task.Clock`; None: the installed reactor, which listening needs.
    limits: BrokerLimits -- None: the broker's defaults, without the delay after a wrong password.
    users: Users -- None: guest, with the password guest.
    data_dir -- a folder for durable things; None: everything is in memory.
    store -- in its place, the store itself: see :class:`txmsg.broker.store.SQLiteStore`.
    strict_4: bool -- refuse what RabbitMQ 4 refuses.
    record_published: bool -- keep what clients publish in :attr:`published`.

    broker: Broker -- the broker itself.
    faults: Faults -- what is to go wrong: `broker.faults.nack(queue="jobs")`.
    published: list of MessageView -- the last 10,000 messages that were published, in their order, routed or not; empty
        without `record_published`.

    Virtual host "/" exists, and guest may do everything in it.  A broker is used once.
    """

    def __init__(
        self,
        *,
        listen: bool = False,
        reactor: Any = None,
        limits: BrokerLimits | None = None,
        users: Users | None = None,
        data_dir: str | None = None,
        store: Any = None,
        strict_4: bool = False,
        record_published: bool = False,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        if data_dir is not None:
            from txmsg.broker.store import SQLiteStore

            store = SQLiteStore(data_dir, reactor=reactor)
        self.broker = Broker(
            reactor=reactor,
            limits=BrokerLimits(login_delay=0.0) if limits is None else limits,
            # In place, not in a thread: there is none before a reactor runs, and nothing to wait for.
            users=Users(cost=_CHEAP, run=lambda work: work()) if users is None else users,
            store=store,
            strict_4=strict_4,
            name="txmsg-test",
        )
        self.faults = Faults(self.broker)
        self.published: list[MessageView] = []
        self._listen = listen
        self._records = record_published
        self._listeners: list[Listener] = []
        self._clients: list[AMQPProtocol] = []
        self._is_started = False
        self._record(self.broker.vhosts["/"])

    # -- life --------------------------------------------------------------------------------------

    def start(self) -> Deferred[EmbeddedBroker]:
        """Start; fires with the broker itself."""
        return Deferred.fromCoroutine(self._start())

    async def _start(self) -> EmbeddedBroker:
        self._is_started = True
        await self.broker.start()
        for vhost in self.broker.vhosts.values():
            self._record(vhost)
        if self._listen:
            await self.listen()
        return self

    def stop(self) -> Deferred[None]:
        """Take back all faults, close the clients of :meth:`connect`, stop listening, and close all others (320).

        May be called more than once.  Nothing is left in the reactor when it fires.
        """
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self.faults.clear()
        clients, self._clients = self._clients, []
        await DeferredList([client.close() for client in clients if client.is_open], consumeErrors=True)
        await self.broker.stop()

    async def __aenter__(self) -> EmbeddedBroker:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()

    # -- clients in this process -------------------------------------------------------------------

    @property
    def endpoint(self) -> IStreamClientEndpoint:
        """Leads here without a socket: for `txmsg.amqp.connect(parameters, endpoint=...)`, or any other protocol."""
        return InProcessEndpoint(self.broker.factory, self.reactor)

    def parameters(self, *, user: str = "guest", password: str = "guest", **fields: Any) -> ConnectionParameters:
        """Parameters of a client: 127.0.0.1, the port if there is one, and whatever fields are given as keywords.

        With `tls` among the fields it is the port for TLS.
        """
        for listener in self._listeners:
            if listener.is_tls is (fields.get("tls") is not None):
                fields.setdefault("port", listener.port)
        settings: dict[str, Any] = {"host": _HOST, "credentials": PlainCredentials(user, password)}
        return ConnectionParameters(**(settings | fields))

    def connect(self, **fields: Any) -> Deferred[AMQPProtocol]:
        """Connect a client of this process, without a socket; fires with the open connection.

        The fields are those of :meth:`parameters`: user, password, virtual_host, heartbeat ...  The connection is
        closed by :meth:`stop`, if nobody did before.
        """
        connecting = connect(self.parameters(**fields), reactor=self.reactor, endpoint=self.endpoint)
        return connecting.addCallback(self._connected)

    def _connected(self, client: AMQPProtocol) -> AMQPProtocol:
        self._clients.append(client)
        return client

    # -- clients elsewhere -------------------------------------------------------------------------

    def listen(self, *, tls: ServerTLS | None = None) -> Deferred[Listener]:
        """Listen on a free port of 127.0.0.1, below 32768; fires with the Listener: host, port, url.

        tls: ServerTLS -- certificate and key files; None: plain AMQP.
        """
        return Deferred.fromCoroutine(self._listen_somewhere(tls))

    async def _listen_somewhere(self, tls: ServerTLS | None) -> Listener:
        for attempt in range(1, _LISTEN_ATTEMPTS + 1):
            [port] = free_ports(1, host=_HOST)
            try:
                listener = await self.broker.listen(_HOST, port, tls=tls)
            except CannotListenError:  # somebody was faster
                if attempt == _LISTEN_ATTEMPTS:
                    raise
                continue
            self._listeners.append(listener)
            return listener
        raise AssertionError("unreachable: the last attempt returns or raises")

    @property
    def url(self) -> str:
        """The URL for any client: user guest, virtual host "/".  ConfigurationError when it does not listen."""
        return self.url_for()

    def url_for(self, *, user: str = "guest", password: str = "guest", virtual_host: str = "/") -> str:
        """The URL for somebody else, or another virtual host, given as it is."""
        who = f"{quote(user, safe='')}:{quote(password, safe='')}"
        return f"amqp://{who}@{_HOST}:{self.port}/{quote(virtual_host, safe='')}"

    @property
    def port(self) -> int:
        """The port for plain AMQP.  ConfigurationError when it does not listen."""
        return self._plain_listener().port

    def _plain_listener(self) -> Listener:
        for listener in self._listeners:
            if not listener.is_tls:
                return listener
        raise ConfigurationError(
            "the broker does not listen: use EmbeddedBroker(listen=True), or wait for broker.listen(); a client of "
            "this process needs no port, see broker.connect()"
        )

    # -- users and virtual hosts -------------------------------------------------------------------

    def add_user(
        self,
        name: str,
        password: str,
        *,
        virtual_host: str = "/",
        configure: str = ".*",
        write: str = ".*",
        read: str = ".*",
    ) -> None:
        """Add a user with these permissions (regular expressions) in one virtual host."""
        self.broker.users.add(name, password)
        self.broker.users.set_permissions(name, virtual_host, configure, write, read)

    def add_vhost(self, name: str) -> None:
        """Add a virtual host in which guest may do everything."""
        self._record(self.broker.add_vhost(name))
        self.broker.users.set_permissions("guest", name)

    # -- looking -----------------------------------------------------------------------------------

    def queue(self, name: str, *, virtual_host: str = "/") -> QueueView:
        """The view of a queue: depth, messages, bodies, unacked, consumers, exists."""
        return QueueView(self._vhost(virtual_host), name)

    def queues(self, *, virtual_host: str = "/") -> dict[str, QueueView]:
        """All queues by name."""
        vhost = self._vhost(virtual_host)
        return {name: QueueView(vhost, name) for name in vhost.queues}

    def exchange(self, name: str, *, virtual_host: str = "/") -> ExchangeView:
        """An exchange: type, durable, arguments, bindings.  NoSuchEntity."""
        return ExchangeView.of(self._vhost(virtual_host), name)

    def exchanges(self, *, virtual_host: str = "/", standard: bool = False) -> dict[str, ExchangeView]:
        """All exchanges by name; `standard`: those that are always there, too."""
        vhost = self._vhost(virtual_host)
        return {
            name: ExchangeView.of(vhost, name)
            for name in vhost.exchanges
            if standard or (name and not name.startswith("amq."))
        }

    def bindings(self, *, virtual_host: str = "/") -> list[BindingView]:
        """All bindings; but not those that every queue has to the default exchange."""
        return [
            binding
            for exchange in self.exchanges(virtual_host=virtual_host, standard=True).values()
            for binding in exchange.bindings
            if exchange.name
        ]

    @property
    def connections(self) -> list[ConnectionView]:
        """All clients, the oldest first; also those that are not open yet."""
        ordered = sorted(self.broker.connections, key=lambda connection: (connection.connected_at, connection.name))
        return [ConnectionView(connection) for connection in ordered]

    def _vhost(self, name: str) -> VirtualHost:
        found = self.broker.vhosts.get(name)
        if found is None:
            raise NoSuchEntity(f"there is no virtual host {name!r}; there are: {', '.join(sorted(self.broker.vhosts))}")
        return found

    # -- doing -------------------------------------------------------------------------------------

    def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        properties: Mapping[str, Any] | None = None,
        *,
        virtual_host: str = "/",
    ) -> bool:
        """Publish a message without any client; whether some queue took it.

        A broker's Fault for what it refuses (no such exchange).
        """
        given = BasicProperties(**(properties or {}))
        message = Message.published(exchange, routing_key, given, body)
        return self._vhost(virtual_host).publish(exchange, routing_key, message, given) != UNROUTED

    def declare_queue(self, name: str, *, virtual_host: str = "/", **settings: Any) -> QueueView:
        """Declare a queue without any client: durable, auto_delete, arguments."""
        declared = self._vhost(virtual_host).declare_queue(name, **settings)
        return self.queue(declared.name, virtual_host=virtual_host)

    # -- waiting -----------------------------------------------------------------------------------

    def wait_until(
        self, condition: Callable[[], Any], *, timeout: float = 5.0, what: Callable[[], str] | str = "the condition"
    ) -> Deferred[None]:
        """Fire once `condition()` is true; WaitTimeout after `timeout` seconds, naming `what`."""
        return Deferred.fromCoroutine(self._wait_until(condition, timeout, what))

    async def _wait_until(self, condition: Callable[[], Any], timeout: float, what: Callable[[], str] | str) -> None:
        end = self.reactor.seconds() + timeout
        while not condition():
            if self.reactor.seconds() >= end:
                raise WaitTimeout(f"not within {timeout:g} s: {what() if callable(what) else what}")
            await deferLater(self.reactor, _LOOK)

    def wait_for_depth(
        self, queue: str, depth: int, *, virtual_host: str = "/", timeout: float = 5.0
    ) -> Deferred[QueueView]:
        """Fire with the queue's view once just `depth` messages are ready in it; the queue need not be there yet."""
        view = self.queue(queue, virtual_host=virtual_host)

        def describe() -> str:
            found = f"it has {view.depth}, and {view.unacked} unacked" if view.exists else "it is not there"
            return f"{depth} messages in queue {queue!r}; {found}"

        waiting = self.wait_until(lambda: view.exists and view.depth == depth, timeout=timeout, what=describe)
        return waiting.addCallback(lambda _: view)

    def wait_for_consumers(
        self, queue: str, count: int = 1, *, virtual_host: str = "/", timeout: float = 5.0
    ) -> Deferred[QueueView]:
        """Fire with the queue's view once it has `count` consumers; the queue need not be there yet."""
        view = self.queue(queue, virtual_host=virtual_host)
        waiting = self.wait_until(
            lambda: view.exists and len(view.consumers) == count,
            timeout=timeout,
            what=f"{count} consumers of queue {queue!r}",
        )
        return waiting.addCallback(lambda _: view)

    def wait_until_empty(self, queue: str, *, virtual_host: str = "/", timeout: float = 5.0) -> Deferred[QueueView]:
        """Fire with the queue's view once nothing in it is ready or unacked: all was handled."""
        view = self.queue(queue, virtual_host=virtual_host)

        def describe() -> str:
            return f"queue {queue!r} empty; it has {view.depth} ready and {view.unacked} unacked"

        waiting = self.wait_until(lambda: not view.depth and not view.unacked, timeout=timeout, what=describe)
        return waiting.addCallback(lambda _: view)

    # -- recording ---------------------------------------------------------------------------------

    def _record(self, vhost: VirtualHost) -> None:
        """Let what is published to `vhost` be remembered."""
        if not self._records or "publish" in vars(vhost):
            return
        publish, published = vhost.publish, self.published

        def recorded(exchange: str, routing_key: str, message: Message, properties: BasicProperties) -> int:
            outcome = publish(exchange, routing_key, message, properties)
            published.append(MessageView.of(message, routed=outcome != UNROUTED))
            if len(published) > _REMEMBERED:
                del published[0]
            return outcome

        vhost.publish = recorded  # type: ignore[method-assign]

    def __repr__(self) -> str:
        where = f"on port {self.port}" if any(not each.is_tls for each in self._listeners) else "without a port"
        return f"<EmbeddedBroker {where}, {len(self.broker.connections)} connections>"

"""Broker: virtual hosts, users, listeners and connections, and their start and end.

    broker = Broker()
    yield broker.start()
    listener = yield broker.listen(port=5672)
    ...
    yield broker.stop()

Everything is kept in memory unless a store is given.  Invariant (R36): what all clients together can make it hold is
bounded by `limits`; beyond `broker_bytes` those who publish are blocked, and nobody else notices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IReactorThreads
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from txmsg.broker import faults
from txmsg.broker.addresses import host_of
from txmsg.broker.alarms import DISK, MEMORY, Alarms
from txmsg.broker.connection.admission import Admission
from txmsg.broker.connection.connection import BrokerConnection
from txmsg.broker.connection.flow import ConnectionFlow
from txmsg.broker.connection.shares import Shares
from txmsg.broker.interfaces import Journal, NoJournal
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.listeners import Listener, open_listener
from txmsg.broker.script import Script
from txmsg.broker.tls import ServerTLS
from txmsg.broker.users.authentication import LoginDelays
from txmsg.broker.users.credentials import DEFAULT_USER, PERMISSION, USER, Users
from txmsg.broker.vhost.usage import Usage
from txmsg.broker.vhost.vhost import VirtualHost
from txmsg.errors import ConfigurationError, clip
from txmsg.wire.constants import CONNECTION_FORCED, INTERNAL_ERROR

__all__ = ["Broker"]

#: Seconds that stop() takes at most for the clients' sake.
STOP_TIMEOUT: Final = 10.0

#: The part of `broker_bytes` that clients may hold in what they have begun and not finished: parts of messages,
#: transactions without commit.  No consumer can take these away, so they alone must never raise the alarm, nor keep it.
_UNFINISHED_PART: Final = 0.5

#: The kind of setting a virtual host is kept as.
VHOST: Final = "vhost"

#: The kind of setting that says that guest was kept once: from then on it is a user only if it is among the kept ones.
_INITIAL: Final = "initial"
#: The kind of setting that says that the virtual host of that name, which is made by itself, was deleted.
_DELETED: Final = "deleted-vhost"
_DEFAULT_VHOST: Final = "/"


class _Factory(Factory):
    """Makes a connection for each accepted socket, while there is room."""

    noisy = False

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def buildProtocol(self, addr: IAddress | None) -> BrokerConnection | None:
        """IProtocolFactory: None closes the socket."""
        broker = self._broker
        host = host_of(addr)
        if broker.is_stopping or not broker.admission.has_room(host):
            broker.refused += 1
            return None
        return BrokerConnection(broker)


class Broker:
    """An AMQP 0-9-1 broker with RabbitMQ's semantics.

    reactor -- default: the installed one, imported when it is needed.  A `task.Clock` will do for in-process clients.
    limits: BrokerLimits.
    users: Users -- default: guest, from this machine only.
    store -- where durable things are kept (see `txmsg.broker.store`); None: in memory.
    strict_4: bool -- refuse what RabbitMQ 4 refuses.
    name: str -- what it calls itself to clients (`cluster_name`).

    vhosts: dict -- name -> VirtualHost; "/" exists, unless it was deleted.  Read-only.
    connections: set of BrokerConnection -- all, also those that are not open yet.
    listeners: set of Listener.
    factory -- a Twisted factory for what accepts connections elsewhere.
    usage, alarms, admission, login_delays -- what the limits need.
    unfinished, unsent: Shares -- bytes, by connection, of what clients have begun, and of what they do not read.
    refused: int -- sockets closed at once because there was no room.
    script: Script or None -- faults on purpose, for tests; may be set at any time.
    """

    _log = Logger(namespace="txmsg.broker")

    def __init__(
        self,
        *,
        reactor: Any = None,
        limits: BrokerLimits | None = None,
        users: Users | None = None,
        store: Any = None,
        strict_4: bool = False,
        name: str = "txmsg",
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor
        self.reactor: Any = reactor
        self.limits = BrokerLimits() if limits is None else limits
        self.name = name
        self.strict_4 = strict_4
        self.store = store
        self.journal: Journal = NoJournal() if store is None else store
        self.users = Users() if users is None else users
        if self.users.run is None:
            self.users.run = self._in_thread
        self.usage = Usage(self.limits.broker_bytes)
        self.usage.on_high = self._usage_is_high
        self.usage.on_low = self._usage_is_low
        self.alarms = Alarms(self._alarms_changed)
        self.admission = Admission(self.limits)
        self.unfinished: Shares[ConnectionFlow] = Shares(int(self.limits.broker_bytes * _UNFINISHED_PART))
        self.unsent: Shares[ConnectionFlow] = Shares(self.limits.broker_bytes)
        self.login_delays = LoginDelays(reactor, self.limits.login_delay, self.limits.login_delay_max)
        self.connections: set[BrokerConnection] = set()
        self.listeners: set[Listener] = set()
        self.factory = _Factory(self)
        self.refused = 0
        self.script: Script | None = None
        self.is_stopping = False
        self._stopped: Deferred[None] | None = None
        self.vhosts: dict[str, VirtualHost] = {}
        self._make_vhost(_DEFAULT_VHOST)

    def __repr__(self) -> str:
        return (
            f"<Broker {clip(self.name)!r}: {len(self.vhosts)} virtual hosts, {len(self.connections)} connections, "
            f"{'in memory' if self.store is None else 'durable'}>"
        )

    # -- virtual hosts -------------------------------------------------------------------------------------

    def add_vhost(self, name: str) -> VirtualHost:
        """Make a virtual host; the one there is, if there is one.  (Permissions in it are the users' affair.)"""
        existing = self.vhosts.get(name)
        if existing is not None:
            return existing
        if not name or len(name.encode("utf-8", "surrogateescape")) > 255:
            raise ConfigurationError("a virtual host's name has 1 to 255 octets")
        made = self._make_vhost(name)
        self._keep(VHOST, name, {"name": name})
        if name == _DEFAULT_VHOST:
            self._keep(_DELETED, name, None)
        return made

    def _make_vhost(self, name: str) -> VirtualHost:
        made = self.vhosts[name] = VirtualHost(
            name,
            clock=self.reactor,
            limits=self.limits,
            journal=self.journal,
            usage=self.usage,
            strict_4=self.strict_4,
        )
        return made

    def delete_vhost(self, name: str) -> bool:
        """Delete a virtual host with all that is in it, and close its connections; says whether there was one."""
        vhost = self.vhosts.pop(name, None)
        if vhost is None:
            return False
        self.close_connections(f"vhost '{name}' is deleted", lambda connection: connection.vhost is vhost)
        vhost.clear()
        self.users.clear_vhost(name)
        self._keep(VHOST, name, None)
        if name == _DEFAULT_VHOST:
            # As RabbitMQ, which makes it only where there is nothing at all yet.
            self._keep(_DELETED, name, {})
        return True

    def delete_user(self, name: str) -> bool:
        """Delete a user, and close its connections; says whether there was one."""
        if not self.users.delete(name):
            return False
        self.close_connections(
            f"user '{name}' is deleted",
            lambda connection: connection.user is not None and connection.user.name == name,
        )
        return True

    # -- the start and the end -----------------------------------------------------------------------------

    def start(self) -> Deferred[Any]:
        """Load what the store holds; fires with its report, or with None for a broker in memory."""
        if self.store is None:
            self._log.info("the broker keeps everything in memory: what is in it ends with it")
            return succeed(None)
        self.store.on_failure = self._store_failed
        self.store.on_recovery = self._store_recovered
        return maybeDeferred(self.store.load, self).addCallback(self._loaded)

    def _loaded(self, report: Any) -> Any:
        # Damage must not let anybody in who was shut out.
        is_first = not (self.store.settings(_INITIAL) or self.store.settings(USER) or getattr(report, "damage", ()))
        if _DEFAULT_VHOST in self.store.settings(_DELETED):
            self.vhosts.pop(_DEFAULT_VHOST).stop()
        if not is_first and self.users.has_default_user:
            # It was changed or deleted before, or is among those that follow.
            self.users.delete(DEFAULT_USER)
        for kind, restore in (
            (VHOST, lambda name, value: name in self.vhosts or self._make_vhost(name)),
            (USER, lambda name, value: self.users.restore(USER, name, value)),
            (PERMISSION, lambda name, value: self.users.restore(PERMISSION, name, value)),
        ):
            for name, value in self.store.settings(kind).items():
                try:
                    restore(name, value)
                except ConfigurationError as error:
                    self._log.error("{problem}", problem=str(error))
        self.users.changed = self._keep
        if is_first:
            # In one transaction, or guest could be gone for good.
            self.users.tell_default_user()
            self._keep(_INITIAL, USER, {})
        return report

    def _keep(self, kind: str, name: str, value: dict[str, Any] | None) -> None:
        """Tell the journal what else must survive."""
        journal: Any = self.journal
        if self.store is None:
            return
        if value is None:
            journal.delete_setting(kind, name)
        else:
            journal.put_setting(kind, name, value)

    def listen(
        self,
        host: str = "127.0.0.1",
        port: int = 5672,
        *,
        tls: ServerTLS | None = None,
        allow_remote_plaintext: bool = False,
    ) -> Deferred[Listener]:
        """Accept clients at an address; fires with the Listener.

        host: str -- an IP address, or localhost.  port: int -- 0 for any free one.
        tls: ServerTLS or None.
        allow_remote_plaintext: bool -- let passwords cross the network in the clear.

        ConfigurationError where that is not said and would happen, or where nobody could log in from there (R37);
        Twisted's CannotListenError for a port that is taken.
        """

        def listen() -> Listener:
            listener = open_listener(self, host, port, tls, allow_remote_plaintext)
            self.listeners.add(listener)
            return listener

        return maybeDeferred(listen)

    def stop(self) -> Deferred[None]:
        """Accept nobody any more, close all connections as RabbitMQ does (320), close the store.

        Takes 10 s at most for clients that do not answer.  May be called more than once.
        """
        if self._stopped is None:
            self.is_stopping = True
            self._stopped = Deferred()
            ports = [listener.stop() for listener in list(self.listeners)]
            gone = [connection.gone for connection in self.connections]
            self.close_all_connections("broker forced connection closure with reason 'shutdown'")
            limit = self.reactor.callLater(STOP_TIMEOUT, self._abort_all)
            waiting = DeferredList([*ports, *gone], consumeErrors=True)
            waiting.addCallback(self._all_gone, limit).addErrback(self._stop_failed)
        result: Deferred[None] = Deferred()
        if self._stopped.called:
            result.callback(None)
        else:
            self._stopped.addCallback(lambda _: result.callback(None))
        return result

    def _abort_all(self) -> None:
        for connection in list(self.connections):
            connection.end_at_once("the broker stops")

    def _all_gone(self, _: object, limit: Any) -> Deferred[None]:
        if limit.active():
            limit.cancel()
        self._stop_vhosts()
        closing = succeed(None) if self.store is None else maybeDeferred(self.store.close)
        return closing.addCallback(self._finish)

    def _stop_vhosts(self) -> None:
        for vhost in self.vhosts.values():
            vhost.stop()

    def _stop_failed(self, failure: Any) -> None:
        self._log.failure("the store could not be closed", failure)
        self._finish(None)

    def _finish(self, _: object) -> None:
        self._stop_vhosts()  # those of a start that had not ended when this one began
        assert self._stopped is not None
        self._stopped.callback(None)

    # -- connections ---------------------------------------------------------------------------------------

    def close_all_connections(self, reason: str) -> int:
        """Close every connection with 320 and `reason`; how many there were."""
        return self.close_connections(reason, lambda _: True)

    def close_connections(self, reason: str, which: Callable[[BrokerConnection], bool]) -> int:
        """Close those connections with 320 and `reason`; how many there were.

        One that is not open yet is closed without a word, as what may be said to it is not settled.
        """
        chosen = [connection for connection in self.connections if which(connection)]
        for connection in chosen:
            if connection.is_open:
                connection.close_with(faults.fault(CONNECTION_FORCED, reason))
            else:
                connection.end_at_once(clip(reason))
        return len(chosen)

    # -- alarms --------------------------------------------------------------------------------------------

    def block(self, source: str = MEMORY) -> None:
        """Raise an alarm by hand: whoever publishes is blocked."""
        self.alarms.set(source)

    def unblock(self, source: str = MEMORY) -> None:
        """Take it back."""
        self.alarms.clear(source)

    def _usage_is_high(self) -> None:
        self._log.warn("the broker holds more than {limit} bytes: publishers are blocked", limit=self.usage.limit)
        self.alarms.set(MEMORY)

    def _usage_is_low(self) -> None:
        # Later: it is said in the middle of a change, and those who may go on publish at once.
        self.reactor.callLater(0, self._usage_may_be_low)

    def _usage_may_be_low(self) -> None:
        if not self.usage.is_high:
            self.alarms.clear(MEMORY)

    def _alarms_changed(self) -> None:
        for connection in list(self.connections):
            connection.blocking.alarms_changed()

    def _store_failed(self, error: Any) -> None:
        self._log.error("the store failed: {problem}", problem=clip(str(error)))
        if getattr(error, "recoverable", False):
            self.alarms.set(DISK)
            return
        for connection in list(self.connections):
            connection.close_with(faults.fault(INTERNAL_ERROR, "the store failed"))

    def _store_recovered(self) -> None:
        self._log.info("the store works again")
        self.reactor.callLater(0, self.alarms.clear, DISK)

    # -- threads -------------------------------------------------------------------------------------------

    def _in_thread(self, work: Callable[[], Any]) -> Any:
        """Run what takes long in a thread, where the reactor has any."""
        if IReactorThreads.providedBy(self.reactor):
            return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), work)
        return work()

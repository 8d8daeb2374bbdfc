"""BrokerService: what `twistd txmsg-broker` runs, from its files to its end.

A :class:`twisted.application.service.Service`; for `twistd`, a .tac file or another service.  It knows no process: how
it ended is told by :meth:`BrokerService.when_finished`.

Invariants: files are read and addresses judged before anything listens; clients can connect only when all that was to
be restored and defined is there; however it ends, it ends once, with one outcome, and what was confirmed is on disk.
No line of the log has a password in it.
"""

from __future__ import annotations

import enum
import errno
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python.failure import Failure

from txmsg.broker.collector import CollectorWatch
from txmsg.broker.definitions.definitions import Definitions, read_definitions
from txmsg.broker.definitions.importing import import_definitions, put_user
from txmsg.broker.exit_codes import BrokerOutcome, ExitCode
from txmsg.broker.kinds import Address
from txmsg.broker.management.site import ManagementListener, listen_management
from txmsg.broker.options import DEFAULT_LISTEN, BrokerConfig
from txmsg.broker.server import STOP_TIMEOUT, Broker
from txmsg.broker.store import LoadReport, SQLiteStore, StoreError
from txmsg.broker.tls import ServerTLS
from txmsg.broker.users.credentials import Users
from txmsg.broker.users.users_file import UserEntry, load_users_file
from txmsg.errors import ConfigurationError, TxmsgError, clip

__all__ = ["BrokerService"]

#: Seconds that the data directory may take to be closed, after the clients' time.
_STORE_TIMEOUT: Final = 10.0
#: Why the second default address cannot be had on a machine without IPv6.
_NO_IPV6: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)


class _State(enum.Enum):
    IDLE = "idle"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHED = "finished"


class BrokerService(Service):
    """Runs a broker as `config` says.

    reactor: default: the installed one.

    The constructor reads the files that `config` names: :class:`~txmsg.errors.ConfigurationError` for what is in them.

    broker: Broker | None -- while it runs.
    management: ManagementListener | None -- while it runs, where there is one.
    """

    _log = Logger(namespace="txmsg.broker.service")

    def __init__(self, config: BrokerConfig, *, reactor: Any = None) -> None:
        self.config = config
        self.broker: Broker | None = None
        self.management: ManagementListener | None = None
        self._reactor = reactor
        self._state = _State.IDLE
        self._users: list[UserEntry] = load_users_file(config.users) if config.users else []
        self._definitions = read_definitions(config.definitions) if config.definitions else Definitions()
        self._tls = _tls_of(config)
        self._starting: Deferred[None] | None = None
        self._outcome: BrokerOutcome | None = None
        self._waiting: list[Deferred[BrokerOutcome]] = []
        self._collector: CollectorWatch | None = None

    def __repr__(self) -> str:
        return f"<BrokerService {self._state.value}>"

    @property
    def is_running(self) -> bool:
        """Whether clients can connect."""
        return self._state is _State.RUNNING

    @property
    def urls(self) -> list[str]:
        """Where clients can connect; without a user."""
        listeners = [] if self.broker is None else list(self.broker.listeners)
        return sorted(listener.url for listener in listeners)

    @property
    def stop_limit(self) -> float:
        """The seconds within which a stop ends."""
        return STOP_TIMEOUT + _STORE_TIMEOUT

    def when_finished(self) -> Deferred[BrokerOutcome]:
        """A fresh Deferred that fires with the outcome once the service has ended; it never fails."""
        waiter: Deferred[BrokerOutcome] = Deferred()
        if self._state is _State.FINISHED and self._outcome is not None:
            waiter.callback(self._outcome)
        else:
            self._waiting.append(waiter)
        return waiter

    # -- twisted.application.service.IService --------------------------------------------------------

    def startService(self) -> None:
        """Begin as soon as the reactor runs."""
        super().startService()  # type: ignore[no-untyped-call]
        if self._reactor is None:
            from twisted.internet import reactor

            self._reactor = reactor
        self._reactor.callWhenRunning(self._begin)

    def stopService(self) -> Deferred[BrokerOutcome]:
        """Close all connections in order and the data directory; fires when that is done."""
        super().stopService()  # type: ignore[no-untyped-call]
        finished = self.when_finished()
        self._end(BrokerOutcome(ExitCode.OK, "stopped"))
        return finished

    def stop_now(self) -> None:
        """Cut an orderly stop short: clients are not waited for any longer."""
        if self.broker is not None:
            for connection in list(self.broker.connections):
                connection.end_at_once("the broker stops")

    # -- start ----------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._state is not _State.IDLE:
            return
        self._state = _State.STARTING
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self._started, self._start_failed)

    async def _start(self) -> None:
        config = self.config
        others = bool(self._users or self._definitions.users)
        store = None if config.data_dir is None else SQLiteStore(config.data_dir, reactor=self._reactor)
        self.broker = broker = Broker(
            reactor=self._reactor,
            limits=config.limits,
            users=Users(default_user=not others),
            store=store,
            strict_4=config.strict_4,
        )
        self._restored(broker, await broker.start())
        if config.definitions is not None:
            report = import_definitions(broker, self._definitions)
            self._log.info("definitions of {path}: {summary}", path=config.definitions, summary=report.summary)
            for remark in report.remarks:
                self._log.warn("definitions: {remark}", remark=remark)
        self._use_users_file(broker)
        if self._state is not _State.STARTING:
            return  # stopped meanwhile: nothing must listen any more
        await self._listen(broker)

    def _restored(self, broker: Broker, report: LoadReport | None) -> None:
        if report is None:
            return
        self._log.info(
            "durable: the data is in {path}: {queues} queues, {messages} messages{how}",
            path=self.config.data_dir,
            queues=report.queues,
            messages=report.messages,
            how="" if report.stopped_cleanly else "; it was not closed in order the last time",
        )

    def _use_users_file(self, broker: Broker) -> None:
        """With a users file just those are users who are in it or in the definitions."""
        if not self._users:
            return
        named = {entry.name for entry in (*self._users, *self._definitions.users)}
        for name in broker.users.names():
            if name not in named:
                broker.users.delete(name)
        for entry in self._users:
            put_user(broker, entry)
        self._users = []  # the passwords are not needed any more

    async def _listen(self, broker: Broker) -> None:
        config = self.config
        addresses = DEFAULT_LISTEN if config.uses_default_addresses else config.listen
        for address in addresses:
            optional = config.uses_default_addresses and ":" in address.host
            await self._listen_at(broker, address, None, is_optional=optional)
        for address in config.tls_listen:
            await self._listen_at(broker, address, self._tls, is_optional=False)
        if config.management is not None:
            self.management = listen_management(
                broker, *config.management, allow_remote_plaintext=config.allow_remote_plaintext
            )

    async def _listen_at(self, broker: Broker, address: Address, tls: ServerTLS | None, *, is_optional: bool) -> None:
        try:
            await broker.listen(
                address.host,
                address.port,
                tls=tls,
                allow_remote_plaintext=self.config.allow_remote_plaintext,
            )
        except CannotListenError as error:
            if not is_optional or getattr(error.socketError, "errno", None) not in _NO_IPV6:
                raise
            self._log.info("not listening at {address}: this machine has no IPv6", address=address)

    def _started(self, _result: None) -> None:
        self._starting = None
        broker = self.broker
        if self._state is not _State.STARTING or broker is None:
            return
        self._state = _State.RUNNING
        self._collector = CollectorWatch(broker.usage, self._reactor)
        self._collector.start()
        if broker.store is None:
            self._log.info("in memory: everything in this broker is gone when it ends; --data-dir keeps it")
        for url in self.urls:
            self._log.info("listening: {url}", url=url)
        if self.management is not None:
            self._log.info("management API: {url}", url=self.management.url)
        local = broker.users.loopback_only
        names = [
            f"{clip(name, 60)}{' (from this machine only)' if name in local else ''}" for name in broker.users.names()
        ]
        self._log.info("users: {names}", names=", ".join(names) or "none")

    def _start_failed(self, failure: Failure) -> None:
        self._starting = None
        error: BaseException = failure.value or RuntimeError("no exception")
        self._end(self._explain(error, failure))

    def _explain(self, error: BaseException, failure: Failure) -> BrokerOutcome:
        said = clip(" ".join(str(error).split()), 400) or type(error).__name__
        if isinstance(error, ConfigurationError):
            return BrokerOutcome(ExitCode.CONFIGURATION, said)
        if isinstance(error, StoreError):
            return BrokerOutcome(ExitCode.DATA, said)
        if isinstance(error, CannotListenError):
            address = Address(error.interface, error.port)
            reason = getattr(error.socketError, "strerror", None) or error.socketError
            line = f"cannot listen at {address}: {reason}; stop what has it, or choose another with --listen"
            return BrokerOutcome(ExitCode.LISTEN, line)
        if not isinstance(error, TxmsgError):
            self._log.failure("unexpected at start", failure)
        return BrokerOutcome(ExitCode.START, f"{type(error).__name__}: {said}; see the traceback in the log")

    # -- the end --------------------------------------------------------------------------------------

    def _end(self, outcome: BrokerOutcome) -> None:
        """Stop, once, with `outcome`; later ends change nothing."""
        if self._state in (_State.STOPPING, _State.FINISHED):
            return
        self._state = _State.STOPPING
        self._outcome = outcome
        if outcome.exit_code != ExitCode.OK:
            self._log.critical("{line}", line=outcome.line)
        Deferred.fromCoroutine(self._stop()).addErrback(self._stop_failed).addCallback(self._finish)

    async def _stop(self) -> None:
        if self._collector is not None:
            self._collector.stop()
        if self._starting is not None:
            # What the data directory's thread does cannot be cut short.
            started: Deferred[None] = Deferred()
            self._starting.addBoth(lambda _: started.callback(None))
            await started
        if self.management is not None:
            await self.management.stop()
        broker = self.broker
        if broker is None:
            return
        count = sum(connection.is_open for connection in broker.connections)
        await broker.stop()
        self._log.info("stopped: {count} connections were closed", count=count)
        failed = None if broker.store is None else broker.store.failure
        if failed is not None and self._outcome is not None and self._outcome.exit_code == ExitCode.OK:
            line = f"what the clients were told was not confirmed is lost: {failed}"
            self._outcome = BrokerOutcome(ExitCode.DATA, line)

    def _stop_failed(self, failure: Failure) -> None:
        self._log.failure("stopping did not go as it should", failure)
        if self._outcome is not None and self._outcome.exit_code == ExitCode.OK:
            self._outcome = BrokerOutcome(ExitCode.UNFINISHED, "not everything could be closed in order")

    def _finish(self, _result: object) -> None:
        self._state = _State.FINISHED
        assert self._outcome is not None
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(self._outcome)


def _tls_of(config: BrokerConfig) -> ServerTLS | None:
    """What the TLS listeners use; its files are read here, to find out whether they can be."""
    if config.tls_cert is None:
        return None
    return ServerTLS(
        cert_file=config.tls_cert,
        key_file=config.tls_key,
        ca_file=config.tls_ca,
        verify=config.tls_verify if config.tls_ca else "none",
    )

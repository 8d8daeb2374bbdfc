"""The servers that a configuration names: what `--rpc` and `--celery` stand for, found before anything is connected.

Three things can stand behind a name: a server with a connection of its own; a function that makes one of a connection,
which then is as the service's settings say; and for `--celery` the tasks alone.  Invariant: what can be known to be
wrong without a broker is a ConfigurationError here.

Importing this module does not import :mod:`txmsg.rpc`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from txmsg.errors import ConfigurationError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.connection import messaging_connection
from txmsg.service.handler import load_server, make_server
from txmsg.service.settings import SettingError

if TYPE_CHECKING:
    from txmsg.messaging import Connection

__all__ = ["Server", "ServerPlan", "plan_servers"]


class Server(Protocol):
    """What the service asks of an RPCServer, and of a CeleryWorker."""

    connection: Connection
    drain_timeout: float
    close_timeout: float
    unfinished: int
    """What was still at work when its last stop had no patience any more."""

    @property
    def is_consuming(self) -> bool:
        """Whether requests may come."""

    def start(self) -> Deferred[None]:
        """Connect and consume; fails with what another attempt cannot cure."""

    def stop(self) -> Deferred[None]:
        """Drain; ends within `drain_timeout` and four times `close_timeout`."""

    def stop_now(self) -> None:
        """Cut the drain short."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """One server to run.

    what: how the log calls it.   name: as it was given.   server: what is run.   describes: what it offers, in words.
    connection: the one that was made for it, and is closed with it; None: it has its own.
    """

    what: str
    name: str
    server: Server
    describes: str
    connection: Connection | None = None

    def __str__(self) -> str:
        return f"the {self.what} {self.name}"


def plan_servers(config: ConsumerConfig) -> list[ServerPlan]:
    """The servers that `config` names.  Raises ConfigurationError."""
    plans = [_rpc_plan(config, name) for name in config.rpc] + [_celery_plan(config, name) for name in config.celery]
    for number, plan in enumerate(plans):
        if any(plan.server is other.server for other in plans[:number]):
            raise ConfigurationError(f"{plan} is given twice")
    if plans and config.connection_given and not config.has_handlers and all(p.connection is None for p in plans):
        names = ", ".join(plan.name for plan in plans)
        raise SettingError(
            f"{config.connection_given}: has no effect, as {names} brings a connection of its own: "
            "name a function that takes the connection, and returns the server"
        )
    return plans


def _rpc_plan(config: ConsumerConfig, name: str) -> ServerPlan:
    # Only here: a service without servers has no use for them.
    from txmsg.rpc import RPCServer

    found, connection = _found(config, "rpc", name), None
    if not isinstance(found, RPCServer) and callable(found):
        connection = messaging_connection(config, name)
        found = make_server("rpc", name, found, connection)
    if not isinstance(found, RPCServer):
        raise _no_server("rpc", name, found, connection, "an RPCServer")
    _check_connection("rpc", name, found, connection)
    if not found.methods:
        raise ConfigurationError(f"rpc {name!r}: the server has no functions: decorate one with @server.register")
    return ServerPlan(
        what="RPC server",
        name=name,
        server=found,
        describes=f"{clip(', '.join(found.methods))} at queue {found.queue.name!r}",
        connection=connection,
    )


def _celery_plan(config: ConsumerConfig, name: str) -> ServerPlan:
    from txmsg.rpc.celery.worker import CeleryWorker, Tasks

    found, connection = _found(config, "celery", name), None
    if not isinstance(found, CeleryWorker):
        if isinstance(getattr(found, "tasks", found), Tasks):
            connection = messaging_connection(config, name)
            found = CeleryWorker(connection, found)
        elif callable(found):
            connection = messaging_connection(config, name)
            found = make_server("celery", name, found, connection)
    if not isinstance(found, CeleryWorker):
        raise _no_server("celery", name, found, connection, "a CeleryWorker" if connection else "Tasks, a CeleryWorker")
    _check_connection("celery", name, found, connection)
    if not found.tasks:
        raise ConfigurationError(f"celery {name!r}: there are no tasks: decorate one with @tasks.task")
    return ServerPlan(
        what="Celery worker",
        name=name,
        server=found,
        describes=f"{clip(', '.join(sorted(found.tasks)))} at queue {', '.join(repr(q.name) for q in found.queues)}",
        connection=connection,
    )


def _found(config: ConsumerConfig, what: str, name: str) -> Any:
    if not isinstance(name, str):
        raise ConfigurationError(f"{what} is the names of servers, not a {type(name).__name__}")
    return load_server(what, name)


def _check_connection(what: str, name: str, found: Server, connection: object) -> None:
    """Refuse a server of another connection than the one it was to be made of: the settings would not be for it."""
    if connection is not None and found.connection is not connection:
        raise ConfigurationError(f"{what} {name!r}: the function must make the server of the connection it is given")


def _no_server(what: str, name: str, found: Any, connection: object, expected: str) -> ConfigurationError:
    """Why something is not what was expected of a name, or of the function that it stands for."""
    kind = "None" if found is None else f"something of type {type(found).__name__}"
    if inspect.iscoroutine(found):
        found.close()
    if connection is not None:
        return ConfigurationError(f"{what} {name!r}: the function must return {expected}, and has returned {kind}")
    return ConfigurationError(f"{what} {name!r} must be {expected}, or a function that makes one; it is {kind}")

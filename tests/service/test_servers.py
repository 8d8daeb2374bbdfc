"""What `--rpc` and `--celery` stand for; tests/service/test_server_process.py has them under twistd."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from txmsg.errors import ConfigurationError
from txmsg.messaging import Connection
from txmsg.rpc import RPCServer
from txmsg.rpc.celery.worker import CeleryWorker, Tasks
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.servers import ServerPlan, plan_servers
from txmsg.service.settings import SettingError

HERE = __name__


def _server(connection: Connection | str = "memory://") -> RPCServer:
    server = RPCServer(connection, "prices")
    server.register(max, "largest")
    return server


def made(connection: Connection) -> RPCServer:
    return _server(connection)


own = _server()
empty = RPCServer("memory://", "prices")
tasks = Tasks()
tasks.task(name="largest")(max)
no_tasks = Tasks()
worker = CeleryWorker("memory://", tasks, "mail")
number = 7


def made_worker(connection: Connection) -> CeleryWorker:
    return CeleryWorker(connection, tasks, ["mail", "print"])


def made_elsewhere(connection: Connection) -> RPCServer:
    return _server()


def made_worker_elsewhere(connection: Connection) -> CeleryWorker:
    return CeleryWorker("memory://", tasks)


def made_nothing(connection: Connection) -> None:
    """Forgets its return."""


async def made_later(connection: Connection) -> RPCServer:
    return _server(connection)


def raising(connection: Connection) -> RPCServer:
    raise RuntimeError("no database")


def without_parameters() -> RPCServer:
    return _server()


class Holder:
    """What has tasks."""

    tasks = tasks


holder = Holder()


def plan(**given: Any) -> ServerPlan:
    (found,) = plan_servers(ConsumerConfig(**given))
    return found


def test_no_servers() -> None:
    assert plan_servers(ConsumerConfig(queue="work", handler="math:floor")) == []


def test_a_server_of_ones_own() -> None:
    """Issue 7: it is run as it is, with the connection that it has."""
    found = plan(rpc=(f"{HERE}:own",))
    assert (found.server, found.connection) == (own, None)
    assert (str(found), found.describes) == (f"the RPC server {HERE}:own", "largest at queue 'prices'")


def test_a_function_of_a_connection() -> None:
    """Issue 7: the service's settings say how to connect."""
    found = plan(
        rpc=(f"{HERE}:made",),
        url="amqp://127.0.0.1:5999/shop",
        heartbeat=7,
        connection_name="prices",
        backoff_maximum=9,
    )
    assert isinstance(found.server, RPCServer)
    connection = found.server.connection
    assert found.connection is connection
    assert connection.as_uri() == "amqp://guest:**@127.0.0.1:5999/shop"
    options = connection.transport_options
    assert (options["heartbeat"], options["connection_name"]) == (7, "prices")
    assert options["backoff"]["maximum"] == 9
    assert not connection.connected


def test_several_hosts_and_a_user() -> None:
    config = load_config(
        {"rpc": [f"{HERE}:made"], "url": ["amqps://one/shop", "amqps://two/shop"], "username": "clerk"},
        {"TXMSG_PASSWORD": "s3cret"},
    )
    (found,) = plan_servers(config)
    assert found.connection is not None
    options = found.connection.transport_options
    assert options["credentials"].username == "clerk"
    assert found.connection.failover_strategy == "shuffle"
    assert len(found.connection.transport_urls()) == 2
    assert "s3cret" not in repr((found, options, found.connection))


def test_celery_tasks() -> None:
    """Issue 7: tasks alone are run by a worker of the queue that Celery's clients use."""
    found = plan(celery=(f"{HERE}:tasks",))
    assert isinstance(found.server, CeleryWorker)
    assert found.connection is found.server.connection
    assert (str(found), found.describes) == (f"the Celery worker {HERE}:tasks", "largest at queue 'celery'")
    assert plan(celery=(f"{HERE}:holder",)).describes == found.describes
    assert plan(celery=(f"{HERE}:made_worker",)).describes == "largest at queue 'mail', 'print'"
    assert plan(celery=(f"{HERE}:worker",)).connection is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"rpc": (HERE,)}, f"rpc '{HERE}' must look like package.module:name"),
        ({"rpc": (f"{HERE}:",)}, f"rpc '{HERE}:' must look like package.module:name"),
        ({"celery": (":tasks",)}, "celery ':tasks' must look like package.module:name"),
        ({"rpc": (f"{HERE}:owm",)}, "has no 'owm'"),
        (
            {"rpc": (f"{HERE}:number",)},
            "must be an RPCServer, or a function that makes one; it is something of type int",
        ),
        ({"rpc": (f"{HERE}:tasks",)}, "it is something of type Tasks"),
        ({"rpc": (f"{HERE}:made_elsewhere",)}, "must make the server of the connection it is given"),
        ({"celery": (f"{HERE}:made_worker_elsewhere",)}, "must make the server of the connection it is given"),
        ({"rpc": (f"{HERE}:empty",)}, "the server has no functions: decorate one with @server.register"),
        ({"rpc": (f"{HERE}:made_nothing",)}, "the function must return an RPCServer, and has returned None"),
        (
            {"rpc": (f"{HERE}:made_later",)},
            "the function must return an RPCServer, and has returned something of type co",
        ),
        ({"rpc": (f"{HERE}:raising",)}, "calling it raised RuntimeError: no database"),
        ({"rpc": (f"{HERE}:without_parameters",)}, "cannot be called with connection"),
        ({"rpc": (f"{HERE}:own", f"{HERE}:own")}, f"the RPC server {HERE}:own is given twice"),
        ({"celery": (f"{HERE}:own",)}, "must be Tasks, a CeleryWorker, or a function that makes one"),
        ({"celery": (f"{HERE}:no_tasks",)}, "there are no tasks: decorate one with @tasks.task"),
        (
            {"celery": (f"{HERE}:made",)},
            "the function must return a CeleryWorker, and has returned something of type RPC",
        ),
        ({"rpc": "no"}, "rpc 'n' must look like"),
        ({"rpc": (7,)}, "rpc is the names of servers, not a int"),
        (
            {"rpc": (f"{HERE}:own",), "connection_given": "option --url"},
            f"option --url: has no effect, as {HERE}:own brings a connection of its own",
        ),
    ],
)
def test_one_line_for_a_mistake(given: dict[str, Any], expected: str) -> None:
    """R33: before anything has started."""
    with pytest.raises(ConfigurationError) as caught:
        plan(**given)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# -- the settings ------------------------------------------------------------------------------------


def test_one_name_or_several(tmp_path: Any) -> None:
    path = tmp_path / "servers.toml"
    path.write_text('rpc = "a:b"\ncelery = ["c:d", "e:f"]\n')
    config = load_config({"config": str(path)}, {})
    assert (config.rpc, config.celery, config.has_handlers) == (("a:b",), ("c:d", "e:f"), False)
    config = load_config({"rpc": ["a:b", "c:d"]}, {})
    assert config.rpc == ("a:b", "c:d")


def test_where_it_was_said_how_to_connect() -> None:
    """Variables of the environment may be for other programs."""
    given = {"rpc": ["a:b"]}
    assert load_config(given, {"TXMSG_URL": "amqp://127.0.0.1"}).connection_given == ""
    assert load_config({**given, "url": ["amqp://127.0.0.1"]}, {}).connection_given == "option --url"


@pytest.mark.parametrize("name", ["queue", "concurrency", "prefetch", "retry_delays", "threads"])
def test_what_is_for_a_handler(name: str) -> None:
    """It would have no effect, and nobody would know."""
    value: Any = ["5"] if name == "retry_delays" else "5"
    with pytest.raises(SettingError, match="is for a handler, and has no effect with option --rpc") as caught:
        load_config({"rpc": ["a:b"], name: value}, {})
    assert caught.value.exit_code == 64
    load_config({"rpc": ["a:b"], "queue": "work", "handler": "math:floor", name: value}, {})


def test_an_empty_array_is_nothing(tmp_path: Any) -> None:
    path = tmp_path / "servers.toml"
    path.write_text("rpc = []\n")
    with pytest.raises(SettingError, match="--handler is required"):
        load_config({"config": str(path)}, {})


def test_the_service_loads_no_rpc_unless_it_is_asked_to() -> None:
    """What a consumer does not need is not imported."""
    code = "import txmsg.tap.consumer, sys; print([m for m in sys.modules if m.startswith('txmsg.rpc')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"

"""docs/consumer-service.md says what is, and its examples work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from txmsg.messaging import Connection
from txmsg.messaging.entities import Queue
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.consumer import ConsumerService
from txmsg.service.declared import ON_DECODE_ERROR, declaration_of
from txmsg.service.exit_codes import ExitCode
from txmsg.service.handler import ThreadRunner, wants
from txmsg.service.policy import Halt, Reject, Requeue
from txmsg.service.settings import SETTINGS
from txmsg.service.tables import CONSUMER_KEYS
from txmsg.service.watch import REFUSED_LATER

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "consumer-service.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: first cell to the other cells."""
    section = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return {row[0].strip(" `|"): row[1:] for row in cells}


def test_every_setting_has_its_row() -> None:
    """Issue: keys documented; and no key that does not exist."""
    table = rows("Settings")
    assert list(table) == [name for name in table if name in {s.name for s in SETTINGS}]
    assert set(table) == {setting.name for setting in SETTINGS}
    for setting in SETTINGS:
        if setting.environment:
            assert f"`{setting.environment}`" in table[setting.name][-1], setting.name


@pytest.mark.parametrize("name", ["declare", "durable", "auto_delete", "exclusive", "allow_plaintext_auth"])
def test_the_defaults_of_the_flags(name: str) -> None:
    default = ConsumerConfig.__dataclass_fields__[name].default
    assert rows("Settings")[name][1] == f"`{str(default).lower()}`"


@pytest.mark.parametrize(
    "name",
    [
        *("threads", "requeue_delay", "drain", "start_limit", "resubscribe_limit", "attempt_timeout"),
        *("backoff_initial", "backoff_maximum", "dedupe_window", "publish_timeout"),
    ],
)
def test_the_defaults_of_the_numbers(name: str) -> None:
    assert float(rows("Settings")[name][1]) == ConsumerConfig.__dataclass_fields__[name].default


def test_every_exit_code_has_its_row() -> None:
    """A published table."""
    assert [int(code) for code in rows("Exit codes")] == sorted(int(code) for code in ExitCode)


def test_the_file_of_the_example(tmp_path: Path) -> None:
    _, text, retries = blocks("toml")
    path = tmp_path / "orders.toml"
    path.write_text(retries + text)
    secret = tmp_path / "secret"
    secret.write_text("pw")
    secret.chmod(0o600)
    config = load_config({"config": str(path), "password_file": str(secret)}, {})
    assert config.bind == (("events", "order.created"), ("events", "order.cancelled"))
    assert (config.threads, config.concurrency, config.warnings) == (8, 8, ())
    assert (config.retry_delays, config.dead_letter, config.on_failure) == ((1, 10, 60), "orders.failed", "retry")
    assert config.url == "amqps://rabbit1.example/shop;amqps://rabbit2.example/shop"


def test_the_keys_of_the_tables(tmp_path: Path) -> None:
    """Issue: keys documented, those of [[consumer]] too; and the table of the example is what its Python is."""
    section = PAGE.split("## Declared handlers")[1].split("\n## ")[0]
    own = {name for name in CONSUMER_KEYS if name not in {setting.name for setting in SETTINGS}}
    names = {name for row in rows("Declared handlers") for name in re.findall(r"[a-z_]+", row)}
    assert own <= names
    shared = re.search(r"A table has the settings .*?\((.*?)\)", section, re.DOTALL)
    assert shared is not None
    assert set(re.findall(r"`([a-z_]+)`", shared[1])) == set(CONSUMER_KEYS) - own
    assert set(ON_DECODE_ERROR) <= set(re.findall(r"[a-z_]+", section))
    path = tmp_path / "shop.toml"
    path.write_text(blocks("toml")[0])
    (declared,) = load_config({"config": str(path)}, {}).consumers
    names_of_python: dict[str, Any] = {}
    exec(compile(blocks("python")[4], "docs/consumer-service.md", "exec"), names_of_python)
    expected = declaration_of(names_of_python["order"])
    assert expected is not None
    assert (declared.accept, declared.settings) == (expected.accept, expected.settings)
    (queue,), (other,) = declared.queues, expected.queues
    assert isinstance(queue, Queue)
    assert isinstance(other, Queue)
    assert queue.name == other.name
    assert [(each.exchange, each.routing_key) for each in queue.bindings] == [(other.exchange, other.routing_key)]


def test_the_limits_of_the_text() -> None:
    """The defaults that are not numbers of the configuration."""
    assert rows("Settings")["refused_limit"][1] == f"0 at the start, {REFUSED_LATER:g} later"
    assert ConsumerConfig.__dataclass_fields__["refused_limit"].default is None
    assert ConsumerConfig.__dataclass_fields__["recovery_limit"].default is None
    assert rows("Settings")["recovery_limit"][1] == '`"unlimited"`'


def test_the_python_of_the_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "docs/consumer-service.md", "exec"), names)
    assert isinstance(names["service"], ConsumerService)
    assert wants(names["forward"], "publisher")
    assert names["server"](Connection("memory://")).methods == ["total"]
    assert list(names["tasks"]) == ["mails.send"]
    assert not ThreadRunner(names["blocking"], 1, None)._busy

    class Delivery:
        body = b"x"
        channel = None

        class properties:
            content_type = "application/json"

    for routing_key, expected in (("later", Requeue), ("stop", Halt)):
        Delivery.routing_key = routing_key  # type: ignore[attr-defined]
        with pytest.raises(expected):
            names["choosy"](Delivery)
    Delivery.properties.content_type = "text/plain"
    with pytest.raises(Reject):
        names["choosy"](Delivery)


def test_no_restart_for_what_only_a_change_can_cure() -> None:
    """The unit of the example names the codes whose advice is to change something."""
    (unit,) = blocks("ini")
    (line,) = [line for line in unit.splitlines() if line.startswith("RestartPreventExitStatus=")]
    final = {int(code) for code in line.partition("=")[2].split()}
    cured_by_change = {
        int(code) for code, cells in rows("Exit codes").items() if re.search("correct|permission", cells[-1])
    }
    assert final == cured_by_change


def test_the_command_lines_use_options_that_exist() -> None:
    known = {f"--{setting.option}" for setting in SETTINGS if setting.is_option} | {"--help", "--config", "--pidfile"}
    known |= {"--queue-argument"}  # getopt takes an abbreviation that is clear
    used = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", "\n".join(blocks("console") + blocks("ini"))))
    assert used <= known

"""docs/broker.md and docs/broker-management.md say what is, and their examples work."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from tests.service.children import ROOT
from txmsg.broker.definitions.policies import QUEUE_KEYS
from txmsg.broker.exit_codes import ExitCode
from txmsg.broker.kinds import Size
from txmsg.broker.limits import BrokerLimits
from txmsg.broker.management.api import _ROUTES
from txmsg.broker.options import SETTINGS
from txmsg.broker.service import BrokerService
from txmsg.broker.users.users_file import load_users_file

PAGE = (ROOT / "docs" / "broker.md").read_text()
MANAGEMENT = (ROOT / "docs" / "broker-management.md").read_text()


def blocks(language: str, page: str = PAGE) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def rows(heading: str, page: str = PAGE) -> dict[str, list[str]]:
    """The table under a heading: first cell to the other cells."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")][2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip(" `"): row[1:] for row in cells}


def test_every_setting_has_its_row() -> None:
    """Issue: and no setting that does not exist."""
    assert list(rows("Settings")) == [setting.name for setting in SETTINGS]


@pytest.mark.parametrize("setting", [setting for setting in SETTINGS if setting.limit], ids=lambda s: s.name)
def test_the_defaults_of_the_limits(setting: Any) -> None:
    """C7.3."""
    shown = rows("Settings")[setting.name][1]
    value = Size(0).from_text(shown) if isinstance(setting.kind, Size) else float(shown)
    assert value == getattr(BrokerLimits(), setting.limit)


def test_every_exit_code_has_its_row() -> None:
    """A published table."""
    assert [int(code) for code in rows("Exit codes")] == sorted(int(code) for code in ExitCode)


def test_no_restart_for_what_only_a_change_can_cure() -> None:
    (unit,) = blocks("ini")
    (line,) = [line for line in unit.splitlines() if line.startswith("RestartPreventExitStatus=")]
    assert {int(code) for code in line.partition("=")[2].split()} == {
        int(code) for code, cells in rows("Exit codes").items() if cells[-1] == "correct it"
    }


def test_the_command_lines_use_options_that_exist() -> None:
    known = {f"--{setting.option}" for setting in SETTINGS} | {"--pidfile"}
    text = PAGE + "\n".join(blocks("console", MANAGEMENT))
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_the_users_file(tmp_path: Path) -> None:
    (text,) = blocks("toml")
    path = tmp_path / "users.toml"
    path.write_text(text)
    path.chmod(0o600)
    orders, audit, robot = load_users_file(str(path))
    assert orders.permissions[0].configure == r"^orders\."
    assert (audit.password, audit.permissions[0].vhost) == (None, "shop")
    assert (robot.password, robot.password_hash) == (None, None)


def test_the_keys_of_policies() -> None:
    section = PAGE.split("\nPolicies are applied")[1].split("Keys for clusters")[0]
    assert set(re.findall(r"`([\w-]+)`", section)) == {*QUEUE_KEYS, "alternate-exchange"}


def test_every_path_is_documented() -> None:
    """A path of the API stands in the table, and what stands there is a path."""
    table = MANAGEMENT.split("\n## What there is\n")[1].split("\n## ")[0]
    cells = "\n".join(line.split("|")[1] for line in table.splitlines()[3:] if line.startswith("|"))
    documented = {word for path in re.findall(r"`([^`]+)`", cells) for word in path.split("/")}
    known = {word for routes in _ROUTES._routes.values() for route in routes for word in route.path}
    assert {word for word in known if not word.startswith("{")} <= documented
    assert {word for word in documented if re.fullmatch(r"[a-z][a-z-]+", word)} <= known


class ExampleTests(TestCase):
    def test_the_python_of_the_examples(self) -> None:
        service_example, _ = blocks("python")
        names: dict[str, Any] = {}
        exec(compile(service_example, "docs/broker.md", "exec"), names)
        self.assertIsInstance(names["service"], BrokerService)

    def test_the_broker_without_the_service(self) -> Deferred[None]:
        _, example = blocks("python")
        names: dict[str, Any] = {"print": self.printed}
        exec(compile(ast.parse(example), "docs/broker.md", "exec"), names)
        self.lines: list[str] = []
        done: Deferred[None] = Deferred.fromCoroutine(names["serve"]())
        return done.addCallback(lambda _: self.assertRegex(self.lines[0], r"^amqp://127\.0\.0\.1:\d+$"))

    def printed(self, line: str) -> None:
        self.lines.append(line)

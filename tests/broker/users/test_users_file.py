"""The users file: what it may hold, who may read it, and that it is never repeated."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import pytest

from txmsg.broker.users.users_file import UserEntry, VirtualHostPermissions, load_users_file
from txmsg.errors import ConfigurationError

CANARY = "c4n4ry-p4ss"
GOOD = f"""
[users.orders]
password = "{CANARY}"
tags = ["management"]

[users.orders.permissions."/"]
configure = "^orders"
write = ".*"
read = ""

[users."with dots.in it"]
password_hash = "AAAA"
hashing_algorithm = "rabbit_password_hashing_md5"

[users.certificate]
"""


def write(tmp_path: Path, text: str | bytes, mode: int = 0o600) -> str:
    path = tmp_path / "users.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(mode)
    return str(path)


def test_a_file(tmp_path: Path) -> None:
    """C7.2: users with passwords of their own, or with hashes, or with neither (for EXTERNAL)."""
    users = load_users_file(write(tmp_path, GOOD))
    assert users == [
        UserEntry(
            "orders",
            password=CANARY,
            tags=("management",),
            permissions=(VirtualHostPermissions("/", "^orders", ".*", ""),),
        ),
        UserEntry("with dots.in it", password_hash="AAAA", hashing_algorithm="rabbit_password_hashing_md5"),
        UserEntry("certificate"),
    ]
    assert CANARY not in repr(users)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o666])
def test_others_may_not_use_it(tmp_path: Path, mode: int) -> None:
    """C3.5, C7.2: refused, with what to do."""
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_users_file(write(tmp_path, GOOD, mode))


def test_another_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, GOOD)
    Path(path).touch()
    monkeypatch.setattr(os, "geteuid", lambda: 4711)
    if os.stat(path).st_uid == 0:
        load_users_file(path)  # root's is as good
        os.chown(path, 4712, 4712)
    with pytest.raises(ConfigurationError, match="belongs to another user"):
        load_users_file(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="No such file"):
        load_users_file(str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match=r"is not a file|Is a directory"):
        load_users_file(str(tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no [users.NAME] table"),
        ("users = 5", "no [users.NAME] table"),
        (f"[user.x]\npassword = '{CANARY}'", "unknown key 'user'"),
        (f"[users.x]\npasword = '{CANARY}'", "unknown key 'pasword'"),
        (f"[users.x]\npassword = ['{CANARY}']", "password must be a string"),
        ("[users.x]\npassword = ''", "password must be a string that is not empty"),
        (f"[users.x]\npassword = '{CANARY}'\npassword_hash = 'AAAA'", "not both"),
        (f"[users.x]\npassword = '{CANARY}'\nhashing_algorithm = 'x'", "no effect without password_hash"),
        (f"[users.x]\npassword = '{CANARY}'\ntags = 'x'", "tags must be an array"),
        (f"[users.x]\npassword = '{CANARY}'\npermissions = 5", "permissions must be tables"),
        ("[users.x.permissions.'/']\nread = '.*'", "must have configure, write, read"),
        ("[users.x.permissions.'/']\nread = '('\nwrite = ''\nconfigure = ''", "read is not a regular expression"),
        ("[users.x.permissions.'/']\nread = 5\nwrite = ''\nconfigure = ''", "read must be a regular expression"),
        ("[users]\nx = 5", "must be a table"),
        ("[users.'']", "must not be empty"),
        (f"[users.x]\npassword = '{CANARY}", "not valid TOML (at "),
        (b"[users.x]\npassword = '\xff'", "not UTF-8"),
        ("a = " + "[" * 5000, "cannot be used"),
        ("#" * (1 << 20) + "\n\n", "longer than"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, said: str) -> None:
    """C3.1: the error says where and what, and nothing of a password, not even in a traceback's variables."""
    with pytest.raises(ConfigurationError) as caught:
        load_users_file(write(tmp_path, text))
    assert said in str(caught.value)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame.locals or {} for frame in shown.stack if frame.filename.endswith("txmsg/broker/users/users_file.py")]
    assert ours
    assert CANARY not in f"{ours} {caught.value}"

"""The users file of `--users`: TOML, readable by its owner only.

    [users.orders]
    password = "..."             # or password_hash (and hashing_algorithm), as RabbitMQ exports them
    tags = ["management"]

    [users.orders.permissions."/"]
    configure = "^orders"
    write = ".*"
    read = ".*"

Passwords of users are secrets (C3.5, C7.2): a file that others can read is refused, not warned about, and no error,
repr or traceback repeats anything of its contents but names.  TOML: https://toml.io/en/v1.0.0.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from dataclasses import dataclass, field
from typing import Any, Final

from txmsg.errors import ConfigurationError, clip

__all__ = ["PATTERNS", "UserEntry", "VirtualHostPermissions", "check_pattern", "load_users_file"]

#: The three patterns of a permission, in RabbitMQ's order.
PATTERNS: Final = ("configure", "write", "read")

#: A users file longer than this many octets is surely not one.
_LIMIT: Final = 1 << 20
_USER_KEYS: Final = ("password", "password_hash", "hashing_algorithm", "tags", "permissions")
_PATTERN_LIMIT: Final = 4096


@dataclass(frozen=True, slots=True)
class VirtualHostPermissions:
    """What a user may do in one virtual host: regular expressions over the names of queues and exchanges."""

    vhost: str
    configure: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class UserEntry:
    """A user as the file has it; exactly one of `password` and `password_hash`, or neither (no password login).

    password_hash: base64, as RabbitMQ's definitions have it; hashing_algorithm: RabbitMQ's name for it.
    """

    name: str
    password: str | None = field(default=None, repr=False)
    password_hash: str | None = field(default=None, repr=False)
    hashing_algorithm: str = "rabbit_password_hashing_sha256"
    tags: tuple[str, ...] = ()
    permissions: tuple[VirtualHostPermissions, ...] = ()


def load_users_file(path: str) -> list[UserEntry]:
    """The users of the file.

    :raises ConfigurationError: if it cannot be used; the text has the file's name and what to change, never a secret.
    """
    try:
        return _load(path)
    except ConfigurationError as error:
        refusal = ConfigurationError(str(error))
    # Raised anew: the frames of the first one have the passwords in their local variables.
    raise refusal


def _load(path: str) -> list[UserEntry]:
    document = _read(path)
    unknown = [key for key in document if key != "users"]
    if unknown:
        raise ConfigurationError(f"{path}: unknown key {clip(unknown[0], 60)!r}; all is under [users.NAME]")
    users = document.get("users", {})
    if not isinstance(users, dict) or not users:
        raise ConfigurationError(f"{path}: there is no [users.NAME] table in it")
    return [_user(path, name, table) for name, table in users.items()]


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            # Of the open file, so that it cannot be exchanged in between.
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ConfigurationError(f"the users file {path!r} is not a file")
            if found.st_mode & 0o077:
                raise ConfigurationError(f"the users file {path!r} can be used by others: chmod 600 it")
            if found.st_uid not in (os.geteuid(), 0):
                raise ConfigurationError(f"the users file {path!r} belongs to another user")
            content = file.read(_LIMIT + 1)
    except OSError as error:
        raise ConfigurationError(f"cannot read the users file {path!r}: {error.strerror}") from None
    if len(content) > _LIMIT:
        raise ConfigurationError(f"the users file {path!r} is longer than {_LIMIT} bytes")
    try:
        return tomllib.loads(content.decode("utf-8"))
    except UnicodeDecodeError:
        problem = "it is not UTF-8"
    except tomllib.TOMLDecodeError as error:
        # Only where: what stands there may be half of a password.
        where = re.search(r"\(at [^()]*\)$", str(error))
        problem = f"not valid TOML {where[0]}" if where else "not valid TOML"
    except RecursionError:
        problem = "it is nested too deeply"
    raise ConfigurationError(f"the users file {path!r} cannot be used: {problem}")


def _user(path: str, name: str, table: object) -> UserEntry:
    where = f"{path}: user {clip(name, 60)!r}"
    if not name:
        raise ConfigurationError(f"{path}: a user's name must not be empty")
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: must be a table, [users.NAME]")
    for key in table:
        if key not in _USER_KEYS:
            raise ConfigurationError(f"{where}: unknown key {clip(key, 60)!r}; known are: {', '.join(_USER_KEYS)}")
    for key in ("password", "password_hash", "hashing_algorithm"):
        if key in table and (not isinstance(table[key], str) or not table[key]):
            raise ConfigurationError(f"{where}: {key} must be a string that is not empty")
    if "password" in table and "password_hash" in table:
        raise ConfigurationError(f"{where}: give password or password_hash, not both")
    if "hashing_algorithm" in table and "password_hash" not in table:
        raise ConfigurationError(f"{where}: hashing_algorithm has no effect without password_hash")
    tags = table.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) and tag for tag in tags):
        raise ConfigurationError(f"{where}: tags must be an array of strings")
    optional = {key: table[key] for key in ("password", "password_hash", "hashing_algorithm") if key in table}
    return UserEntry(name, **optional, tags=tuple(tags), permissions=_permissions(where, table.get("permissions", {})))


def _permissions(where: str, table: object) -> tuple[VirtualHostPermissions, ...]:
    if not isinstance(table, dict):
        raise ConfigurationError(f'{where}: permissions must be tables, [users.NAME.permissions."/"]')
    found = []
    for vhost, patterns in table.items():
        place = f"{where}: permissions for {clip(vhost, 60)!r}"
        if not isinstance(patterns, dict) or sorted(patterns) != sorted(PATTERNS):
            raise ConfigurationError(f"{place}: must have {', '.join(PATTERNS)}, and nothing else")
        checked = [check_pattern(patterns[key], f"{place}: {key}") for key in PATTERNS]
        found.append(VirtualHostPermissions(vhost, *checked))
    return tuple(found)


def check_pattern(pattern: object, where: str) -> str:
    """The pattern, if it is a regular expression; the empty one matches nothing but the empty name.

    :raises ConfigurationError: if not; its text begins with `where`.
    """
    if not isinstance(pattern, str) or len(pattern) > _PATTERN_LIMIT:
        raise ConfigurationError(f"{where} must be a regular expression, as a string")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigurationError(f"{where} is not a regular expression: {clip(str(error), 100)}") from None
    return pattern

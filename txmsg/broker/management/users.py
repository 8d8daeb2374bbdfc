"""/api/users: look, create, change, delete; and /api/whoami.

Password hashes are shown to administrators, as RabbitMQ does, so that users can be moved; passwords never.
"""

from __future__ import annotations

from typing import Any

from txmsg.broker.definitions.definitions import SHA256, parse_tags
from txmsg.broker.management.calls import CREATED, NO_CONTENT, Answer, Call, bad_request, not_found
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.permissions import permission_json
from txmsg.broker.management.plain import plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level
from txmsg.errors import ConfigurationError

__all__ = ["bulk_delete", "delete", "get", "list_all", "permissions", "put", "whoami", "without_permissions"]


def _json(call: Call, name: str) -> dict[str, Any]:
    user = call.broker.users.get(name)
    if user is None:
        raise not_found()
    return {
        "name": plain_text(name),
        "password_hash": user.password_hash,
        "hashing_algorithm": user.hashing_algorithm,
        "tags": [plain_text(tag) for tag in user.tags],
        "limits": {},
    }


@route("GET", "whoami")
def whoami(call: Call) -> Any:
    """The visitor."""
    return {"name": plain_text(call.visitor.name), "tags": [plain_text(tag) for tag in call.visitor.user.tags]}


@route("GET", "users", Level.ADMINISTRATOR)
def list_all(call: Call) -> Any:
    """All of them."""
    return listed(call, [_json(call, name) for name in call.broker.users.names()])


@route("GET", "users/without-permissions", Level.ADMINISTRATOR)
def without_permissions(call: Call) -> Any:
    """Those who may not use any virtual host."""
    users = call.broker.users
    return listed(call, [_json(call, name) for name in users.names() if not users.permissions_of(name)])


@route("POST", "users/bulk-delete", Level.ADMINISTRATOR)
def bulk_delete(call: Call) -> Answer:
    """Delete several; those that are not there are no error."""
    names = call.document("users")["users"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_request(["not_a_list_of_strings", "users"])
    for name in names:
        call.broker.delete_user(name)
    return NO_CONTENT


@route("GET", "users/{name}", Level.ADMINISTRATOR)
def get(call: Call, name: str) -> Any:
    """One."""
    return selected(call, _json(call, name))


@route("PUT", "users/{name}", Level.ADMINISTRATOR)
def put(call: Call, name: str) -> Answer:
    """Create or change one; without a password it cannot log in with one.  Permissions stay as they are."""
    document = call.document()
    if "tags" not in document:
        raise bad_request("tags_not_present")
    tags = parse_tags(document["tags"])
    if tags is None:
        raise bad_request(["not_a_list_of_strings", "tags"])
    users = call.broker.users
    was_there = users.get(name) is not None
    try:
        _put(call, name, document, tags)
    except ConfigurationError as error:
        raise bad_request(str(error)) from None
    return NO_CONTENT if was_there else CREATED


def _put(call: Call, name: str, document: dict[str, Any], tags: tuple[str, ...]) -> None:
    password, stored = document.get("password"), document.get("password_hash")
    algorithm = document.get("hashing_algorithm", SHA256)
    if password is not None:
        if not isinstance(password, str) or not password:
            raise ConfigurationError("password must be a string that is not empty")
        call.broker.users.add(name, password, tags)
    elif stored:
        if not isinstance(stored, str) or not isinstance(algorithm, str):
            raise ConfigurationError("password_hash and hashing_algorithm must be strings")
        call.broker.users.add_hash(name, stored, algorithm, tags)
    else:
        call.broker.users.add(name, None, tags)


@route("DELETE", "users/{name}", Level.ADMINISTRATOR)
def delete(call: Call, name: str) -> Answer:
    """Delete one, and close its connections."""
    if not call.broker.delete_user(name):
        raise not_found()
    return NO_CONTENT


@route("GET", "users/{name}/permissions", Level.ADMINISTRATOR)
def permissions(call: Call, name: str) -> Any:
    """What it may do, in each virtual host."""
    if call.broker.users.get(name) is None:
        raise not_found()
    return listed(call, [permission_json(each) for each in call.broker.users.all_permissions() if each.user == name])

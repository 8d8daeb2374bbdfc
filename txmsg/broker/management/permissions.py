"""/api/permissions: who may do what in which virtual host.  Topic permissions there are none."""

from __future__ import annotations

from typing import Any

from txmsg.broker.management.calls import CREATED, NO_CONTENT, Answer, Call, bad_request, not_found, text
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level
from txmsg.broker.users.permissions import Permissions
from txmsg.broker.users.users_file import PATTERNS, check_pattern
from txmsg.errors import ConfigurationError

__all__ = ["delete", "get", "list_all", "list_topics", "permission_json", "put"]


def permission_json(permissions: Permissions) -> dict[str, Any]:
    """A user's permissions in a virtual host as RabbitMQ shows them."""
    return {
        "user": plain_text(permissions.user),
        "vhost": plain_text(permissions.vhost),
        "configure": permissions.configure,
        "write": permissions.write,
        "read": permissions.read,
    }


@route("GET", "permissions", Level.ADMINISTRATOR)
def list_all(call: Call) -> Any:
    """All there are."""
    return listed(call, [permission_json(each) for each in call.broker.users.all_permissions()])


@route("GET", "topic-permissions", Level.ADMINISTRATOR)
def list_topics(call: Call) -> Any:
    """None: this broker has no topic permissions."""
    return listed(call, [])


@route("GET", "permissions/{vhost}/{user}", Level.ADMINISTRATOR)
def get(call: Call, vhost: str, user: str) -> Any:
    """Those of one user in one virtual host."""
    found = call.broker.users.permissions(user, vhost)
    if found is None:
        raise not_found()
    return selected(call, permission_json(found))


@route("PUT", "permissions/{vhost}/{user}", Level.ADMINISTRATOR)
def put(call: Call, vhost: str, user: str) -> Answer:
    """Give them, or others than before; open connections see the change."""
    document = call.document(*PATTERNS)
    users = call.broker.users
    try:
        patterns = [check_pattern(text(document, key), key) for key in PATTERNS]
    except ConfigurationError as error:
        raise bad_request(["invalid_regexp", str(error)]) from None
    if vhost not in call.broker.vhosts or users.get(user) is None:
        raise bad_request("vhost_or_user_not_found")
    was_there = users.permissions(user, vhost) is not None
    users.set_permissions(user, vhost, *patterns)
    return NO_CONTENT if was_there else CREATED


@route("DELETE", "permissions/{vhost}/{user}", Level.ADMINISTRATOR)
def delete(call: Call, vhost: str, user: str) -> Answer:
    """Take them away."""
    if not call.broker.users.clear_permissions(user, vhost):
        raise not_found()
    return NO_CONTENT

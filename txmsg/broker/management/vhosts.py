"""/api/vhosts: look, create, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.broker.management.calls import CREATED, NO_CONTENT, Answer, Call, bad_request, not_authorised, not_found
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.permissions import permission_json
from txmsg.broker.management.plain import plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level
from txmsg.errors import ConfigurationError

if TYPE_CHECKING:
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = ["delete", "get", "list_all", "permissions", "put", "vhost_json"]


def vhost_json(call: Call, vhost: VirtualHost) -> dict[str, Any]:
    """A virtual host as RabbitMQ shows it."""
    queues = vhost.queues.values()
    ready, unacked = sum(queue.message_count for queue in queues), sum(queue.unacked_count for queue in queues)
    inside = [connection for connection in call.broker.connections if connection.vhost is vhost]
    description = "Default virtual host" if vhost.name == "/" else ""
    return {
        "cluster_state": {call.api.node: "running"},
        "default_queue_type": "undefined",
        "description": description,
        "messages": ready + unacked,
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
        "metadata": {"description": description, "tags": []},
        "name": plain_text(vhost.name),
        "recv_oct": sum(connection.octets_received for connection in inside),
        "send_oct": sum(connection.octets_sent for connection in inside),
        "tags": [],
        "tracing": False,
    }


@route("GET", "vhosts")
def list_all(call: Call) -> Any:
    """Those that the visitor sees."""
    return listed(call, [vhost_json(call, vhost) for vhost in call.visible_vhosts()])


@route("GET", "vhosts/{name}")
def get(call: Call, name: str) -> Any:
    """One."""
    vhost = call.broker.vhosts.get(name)
    if vhost is None:
        raise not_found()
    if not call.visitor.may_see(name):
        raise not_authorised("User not authorised to access virtual host")
    return selected(call, vhost_json(call, vhost))


@route("PUT", "vhosts/{name}", Level.ADMINISTRATOR)
def put(call: Call, name: str) -> Answer:
    """Create one; whoever does gets all permissions in it.  Description, tags and tracing are not kept."""
    call.document()
    if name in call.broker.vhosts:
        return NO_CONTENT
    try:
        call.broker.add_vhost(name)
    except ConfigurationError as error:
        raise bad_request(str(error)) from None
    call.broker.users.set_permissions(call.visitor.name, name)
    return CREATED


@route("DELETE", "vhosts/{name}", Level.ADMINISTRATOR)
def delete(call: Call, name: str) -> Answer:
    """Delete one with all that is in it."""
    if not call.broker.delete_vhost(name):
        raise not_found()
    return NO_CONTENT


@route("GET", "vhosts/{name}/permissions", Level.ADMINISTRATOR)
def permissions(call: Call, name: str) -> Any:
    """Who may do what in it."""
    if name not in call.broker.vhosts:
        raise not_found()
    return listed(call, [permission_json(each) for each in call.broker.users.all_permissions() if each.vhost == name])

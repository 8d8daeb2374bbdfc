"""/api/connections and /api/channels: look at clients, and close them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.broker.management.calls import NO_CONTENT, Answer, Call, not_found
from txmsg.broker.management.consumers import consumer_json
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level

if TYPE_CHECKING:
    from txmsg.broker.channel import ServerChannel
    from txmsg.broker.connection.connection import BrokerConnection

__all__ = [
    "channel_json",
    "channels_of",
    "channels_of_vhost",
    "close",
    "connection_json",
    "get",
    "get_channel",
    "list_all",
    "list_channels",
    "list_of_user",
    "list_of_vhost",
]


def connection_json(call: Call, connection: BrokerConnection) -> dict[str, Any]:
    """A connection as RabbitMQ shows it, without the rates that this broker does not measure."""
    user = connection.user
    return {
        "auth_mechanism": connection.auth_mechanism,
        "channel_max": connection.channel_max,
        "channels": len(connection.channels),
        "client_properties": plain_table(connection.client_properties),
        "connected_at": int(connection.connected_at * 1000),
        "frame_max": connection.frame_max,
        "host": connection.host,
        "name": connection.name,
        "node": call.api.node,
        "peer_host": connection.peer_host,
        "peer_port": connection.peer_port,
        "port": connection.port,
        "protocol": "AMQP 0-9-1",
        "recv_oct": connection.octets_received,
        "send_oct": connection.octets_sent,
        "ssl": connection.is_tls,
        "state": connection.state,
        "timeout": connection.heartbeat_interval,
        "type": "network",
        "user": None if user is None else plain_text(user.name),
        "user_who_performed_action": None if user is None else plain_text(user.name),
        "vhost": None if connection.vhost is None else plain_text(connection.vhost.name),
    }


def channel_json(call: Call, channel: ServerChannel) -> dict[str, Any]:
    """A channel as RabbitMQ shows it."""
    connection = channel.connection
    details = call.api.channel_details(channel)
    return {
        "confirm": channel.confirms.is_on,
        "connection_details": {key: details[key] for key in ("peer_host", "peer_port")} | {"name": connection.name},
        "consumer_count": len(channel.consuming.consumers),
        "global_prefetch_count": channel.credit.maximum if channel.credit.has_prefetch_count else 0,
        "messages_unacknowledged": len(channel.settling.unacked),
        "messages_unconfirmed": channel.confirms.unanswered,
        "name": details["name"],
        "node": call.api.node,
        "number": channel.number,
        "prefetch_count": channel.consuming.prefetch_count,
        "state": "running",
        "transactional": channel.transactions.is_on,
        "user": details["user"],
        "user_who_performed_action": details["user"],
        "vhost": plain_text(channel.vhost.name),
    }


def _visible(call: Call) -> list[BrokerConnection]:
    """The visitor's own; with the tag monitoring, all."""
    sees_all = call.visitor.is_at_least(Level.MONITORING)
    found = [
        connection
        for connection in call.broker.connections
        if sees_all or (connection.user is not None and connection.user.name == call.visitor.name)
    ]
    return sorted(found, key=lambda connection: (connection.connected_at, connection.name))


def _named(call: Call, name: str) -> BrokerConnection:
    for connection in _visible(call):
        if connection.name == name:
            return connection
    raise not_found()


def _channels(call: Call) -> list[ServerChannel]:
    return [connection.channels[number] for connection in _visible(call) for number in sorted(connection.channels)]


@route("GET", "connections")
def list_all(call: Call) -> Any:
    """The connections that the visitor sees."""
    return listed(call, [connection_json(call, connection) for connection in _visible(call)])


@route("GET", "vhosts/{vhost}/connections")
def list_of_vhost(call: Call, vhost: str) -> Any:
    """Those in a virtual host."""
    place = call.vhost(vhost)
    return listed(call, [connection_json(call, each) for each in _visible(call) if each.vhost is place])


@route("GET", "connections/username/{user}")
def list_of_user(call: Call, user: str) -> Any:
    """Those of a user."""
    found = [each for each in _visible(call) if each.user is not None and each.user.name == user]
    return listed(call, [connection_json(call, each) for each in found])


@route("GET", "connections/{name}")
def get(call: Call, name: str) -> Any:
    """One, by its name: `127.0.0.1:50123 -> 127.0.0.1:5672`."""
    return selected(call, connection_json(call, _named(call, name)))


@route("DELETE", "connections/{name}")
def close(call: Call, name: str) -> Answer:
    """Close it, with 320; the header X-Reason says why."""
    connection = _named(call, name)
    reason = call.headers.get("x-reason") or "Closed via management plugin"
    call.broker.close_connections(reason, lambda each: each is connection)
    return NO_CONTENT


@route("GET", "connections/{name}/channels")
def channels_of(call: Call, name: str) -> Any:
    """The channels of one connection."""
    channels = _named(call, name).channels
    return listed(call, [channel_json(call, channels[number]) for number in sorted(channels)])


@route("GET", "channels")
def list_channels(call: Call) -> Any:
    """The channels of the connections that the visitor sees."""
    return listed(call, [channel_json(call, channel) for channel in _channels(call)])


@route("GET", "vhosts/{vhost}/channels")
def channels_of_vhost(call: Call, vhost: str) -> Any:
    """Those in a virtual host."""
    place = call.vhost(vhost)
    return listed(call, [channel_json(call, channel) for channel in _channels(call) if channel.vhost is place])


@route("GET", "channels/{name}")
def get_channel(call: Call, name: str) -> Any:
    """One, by its name: the connection's, and its number in parentheses; with its consumers."""
    for channel in _channels(call):
        if call.api.channel_name(channel) == name:
            consumers = channel.consuming.consumers.values()
            details = [consumer_json(call, consumer.queue, consumer) for consumer in consumers]
            more = {"consumer_details": details, "deliveries": [], "publishes": []}
            return selected(call, channel_json(call, channel) | more)
    raise not_found()

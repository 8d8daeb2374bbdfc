"""/api/definitions: all of users, virtual hosts, permissions, policies, exchanges, queues and bindings, out and in."""

from __future__ import annotations

from typing import Any

from txmsg.broker.definitions.definitions import Definitions, parse_json
from txmsg.broker.definitions.importing import export_definitions, export_vhost, import_definitions
from txmsg.broker.management.calls import NO_CONTENT, Answer, Call, bad_request
from txmsg.broker.management.overview import rabbitmq_version
from txmsg.broker.management.plain import plain_table
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level
from txmsg.errors import ConfigurationError

__all__ = ["get", "get_vhost", "post", "post_vhost"]


@route("GET", "definitions", Level.ADMINISTRATOR)
def get(call: Call) -> Any:
    """Of the whole broker."""
    return plain_table(rabbitmq_version() | export_definitions(call.broker))


@route("GET", "definitions/{vhost}", Level.ADMINISTRATOR)
def get_vhost(call: Call, vhost: str) -> Any:
    """Of one virtual host: policies, exchanges, queues and bindings."""
    place = call.vhost(vhost)
    version = rabbitmq_version()["rabbit_version"]
    return plain_table({"rabbit_version": version, "parameters": [], **export_vhost(place)})


def _import(call: Call, vhost: str | None) -> Answer:
    try:
        report = import_definitions(call.broker, Definitions.parse(_document(call), vhost=vhost))
    except ConfigurationError as error:
        raise bad_request(str(error)) from None
    for remark in report.remarks:
        call.api.log.info("definitions: {remark}", remark=remark)
    return NO_CONTENT


def _document(call: Call) -> Any:
    try:
        return parse_json(call.content)
    except ConfigurationError:
        raise bad_request("not_json") from None


@route("POST", "definitions", Level.ADMINISTRATOR)
def post(call: Call) -> Answer:
    """Have what the document names; what is there stays as it is."""
    return _import(call, None)


@route("POST", "definitions/{vhost}", Level.ADMINISTRATOR)
def post_vhost(call: Call, vhost: str) -> Answer:
    """The same for one virtual host."""
    call.vhost(vhost)
    return _import(call, vhost)

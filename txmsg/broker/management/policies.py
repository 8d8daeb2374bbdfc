"""/api/policies: look, put, delete.  Operator policies and parameters there are none."""

from __future__ import annotations

from typing import Any

from txmsg.broker.definitions.policies import Policy, policies_of
from txmsg.broker.management.calls import CREATED, NO_CONTENT, Answer, Call, bad_request, not_found
from txmsg.broker.management.listings import listed, selected
from txmsg.broker.management.plain import plain_table, plain_text
from txmsg.broker.management.routes import route
from txmsg.broker.management.visitors import Level
from txmsg.errors import ConfigurationError

__all__ = ["delete", "get", "in_vhost", "list_all", "nothing", "policy_json", "put"]


def policy_json(policy: Policy) -> dict[str, Any]:
    """A policy as RabbitMQ shows it."""
    return {
        "vhost": policy.vhost,
        "name": plain_text(policy.name),
        "pattern": policy.pattern,
        "apply-to": policy.apply_to,
        "definition": plain_table(policy.definition),
        "priority": policy.priority,
    }


@route("GET", "policies")
def list_all(call: Call) -> Any:
    """Those in all virtual hosts that the visitor sees."""
    return listed(call, [policy_json(each) for vhost in call.visible_vhosts() for each in policies_of(vhost)])


@route("GET", "policies/{vhost}")
def in_vhost(call: Call, vhost: str) -> Any:
    """Those in one virtual host."""
    return listed(call, [policy_json(each) for each in policies_of(call.vhost(vhost))])


@route("GET", "policies/{vhost}/{name}")
def get(call: Call, vhost: str, name: str) -> Any:
    """One."""
    found = policies_of(call.vhost(vhost)).get(name)
    if found is None:
        raise not_found()
    return selected(call, policy_json(found))


@route("PUT", "policies/{vhost}/{name}", Level.POLICYMAKER)
def put(call: Call, vhost: str, name: str) -> Answer:
    """Have one; the queues and exchanges it is for obey at once."""
    place = call.vhost(vhost)
    document = call.document("pattern", "definition")
    was_there = policies_of(place).get(name) is not None
    try:
        policy = Policy.checked(
            vhost,
            name,
            document["pattern"],
            document["definition"],
            document.get("priority", 0),
            document.get("apply-to", "all"),
        )
    except ConfigurationError as error:
        raise bad_request(f"Validation failed\n\n{error}\n") from None
    policies_of(place).put(policy)
    return NO_CONTENT if was_there else CREATED


@route("DELETE", "policies/{vhost}/{name}", Level.POLICYMAKER)
def delete(call: Call, vhost: str, name: str) -> Answer:
    """Be without it."""
    if not policies_of(call.vhost(vhost)).delete(name):
        raise not_found()
    return NO_CONTENT


@route("GET", "operator-policies")
@route("GET", "parameters")
@route("GET", "global-parameters")
@route("GET", "vhost-limits")
def nothing(call: Call) -> Any:
    """None of these."""
    return listed(call, [])

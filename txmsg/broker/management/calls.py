"""One question to the management API: who asks, what was sent, and the ways to answer.

A handler returns what becomes the JSON of a 200, an :class:`Answer`, or a Deferred of either; it raises a
:class:`Refusal` or a :class:`~txmsg.broker.faults.Fault`.  Texts and codes are RabbitMQ's, both its
spellings of "authorised" included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from txmsg.broker.definitions.definitions import parse_json
from txmsg.broker.faults import Fault
from txmsg.broker.management.visitors import Visitor
from txmsg.broker.users.permissions import Permissions
from txmsg.errors import ConfigurationError, TxmsgError
from txmsg.wire import constants

if TYPE_CHECKING:
    from txmsg.broker.management.api import ManagementAPI
    from txmsg.broker.server import Broker
    from txmsg.broker.vhost.vhost import VirtualHost

__all__ = [
    "CREATED",
    "NO_CONTENT",
    "Answer",
    "Call",
    "Refusal",
    "bad_request",
    "encode",
    "flag",
    "not_authorised",
    "not_found",
    "refusal_of",
    "table",
    "text",
    "without_code_name",
]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is not simply 200 with a JSON body."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


#: It was not there, and is now.
CREATED: Final = Answer(201)
#: It is as asked for.
NO_CONTENT: Final = Answer(204)


class Refusal(TxmsgError):
    """An answer with an error: the status code, and the members `error` and `reason` of its JSON body."""

    def __init__(self, status: int, error: str, reason: Any) -> None:
        super().__init__(f"{status} {error}: {reason}")
        self.status = status
        self.error = error
        self.reason = reason


def bad_request(reason: Any) -> Refusal:
    """400: what was sent cannot be used."""
    return Refusal(400, "bad_request", reason)


def not_found() -> Refusal:
    """404: there is no such thing."""
    return Refusal(404, "Object Not Found", "Not Found")


def not_authorised(reason: str) -> Refusal:
    """401 for somebody who is known, but may not."""
    return Refusal(401, "not_authorised", reason)


def refusal_of(fault: Fault) -> Refusal:
    """What a refusal of the broker is over HTTP."""
    text = without_code_name(fault.reply_text)
    if fault.reply_code == constants.NOT_FOUND:
        return Refusal(404, "not_found", text)
    if fault.reply_code == constants.ACCESS_REFUSED:
        return not_authorised("Access refused.")
    return bad_request(text)


def without_code_name(reply_text: str) -> str:
    """`NOT_FOUND - no queue 'x'` without what is before the text."""
    name, separator, text = reply_text.partition(" - ")
    return text if separator and name.replace("_", "").isupper() else reply_text


class Call:
    """One question.

    broker: Broker.  api: ManagementAPI -- what the answers have in common.
    visitor: Visitor -- who asks.
    query: Mapping[str, str] -- what stands behind the question mark; the first of several values.
    headers: Mapping[str, str] -- the request's, by their names in lower case; the first of several values.
    """

    def __init__(
        self,
        api: ManagementAPI,
        visitor: Visitor,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        content: bytes,
    ) -> None:
        self.api = api
        self.broker: Broker = api.broker
        self.visitor = visitor
        self.query = query
        self.headers = headers
        self._content = content

    @property
    def content(self) -> bytes:
        """The octets of the body."""
        return self._content

    def document(self, *required: str) -> dict[str, Any]:
        """The JSON object in the body, an empty one for an empty body.

        :raises Refusal: 400 if it is none, or lacks one of the `required` keys.
        """
        if not self._content:
            document: Any = {}
        else:
            try:
                document = parse_json(self._content)
            except ConfigurationError:
                raise bad_request("not_json") from None
        if not isinstance(document, dict):
            raise bad_request("not_json")
        missing = [key for key in required if key not in document]
        if missing:
            raise bad_request(f"[{','.join(f'{{key_missing,{key}}}' for key in missing)}]")
        return document

    def vhost(self, name: str) -> VirtualHost:
        """The virtual host of that name, for somebody who may use it.

        :raises Refusal: 404 if there is none, 401 if the visitor has no permissions in it.
        """
        vhost = self.broker.vhosts.get(name)
        if vhost is None:
            raise not_found()
        if not self.visitor.has_access(name):
            raise not_authorised("User not authorised to access virtual host")
        return vhost

    def check_configure(self, vhost: VirtualHost, kind: str, name: str) -> None:
        """Refuse unless the visitor may declare and delete the queue or exchange of that name."""
        self._permissions(vhost).check_configure(kind, name)

    def check_write(self, vhost: VirtualHost, kind: str, name: str) -> None:
        """Refuse unless the visitor may publish to it, or bind it to something."""
        self._permissions(vhost).check_write(kind, name)

    def check_read(self, vhost: VirtualHost, kind: str, name: str) -> None:
        """Refuse unless the visitor may take messages from it, or bind something to it."""
        self._permissions(vhost).check_read(kind, name)

    def _permissions(self, vhost: VirtualHost) -> Permissions:
        permissions = self.visitor.permissions(vhost.name)
        if permissions is None:
            raise not_authorised("User not authorised to access virtual host")
        return permissions

    def visible_vhosts(self) -> list[VirtualHost]:
        """The virtual hosts that the visitor may know of, by name."""
        return [vhost for name, vhost in sorted(self.broker.vhosts.items()) if self.visitor.may_see(name)]

    def __repr__(self) -> str:
        return f"<Call of {self.visitor!r}>"


def flag(document: Mapping[str, Any], key: str, *, default: bool = False) -> bool:
    """A member that is true or false; RabbitMQ takes the two words as strings, too."""
    value = document.get(key, default)
    if value in ("true", "false"):
        return bool(value == "true")
    if not isinstance(value, bool):
        raise bad_request(["not_boolean", value])
    return value


def text(document: Mapping[str, Any], key: str, default: str = "") -> str:
    """A member that is a string."""
    value = document.get(key, default)
    if not isinstance(value, str):
        raise bad_request(["not_a_string", key])
    return value


def table(document: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A member that is an object; the empty array that some clients send for an empty one is one."""
    value = document.get(key, {})
    if value == [] or value is None:
        return {}
    if not isinstance(value, dict):
        raise bad_request(["not_a_table", key])
    return value


def encode(value: Any) -> bytes:
    """The JSON text of what :func:`txmsg.broker.management.plain.plain` gives."""
    return json.dumps(value, separators=(",", ":")).encode("ascii")

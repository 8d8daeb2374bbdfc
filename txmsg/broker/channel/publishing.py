"""Publishing: what a channel does with a message that has come, before and after it is routed.

AMQP 0-9-1 section 1.8.3.9 and 1.8.3.10 (return); https://www.rabbitmq.com/docs/publishers, /docs/validated-user-id,
/docs/ttl#per-message-ttl-in-publishers, /docs/sender-selected (BCC), /docs/direct-reply-to.  The invariants:

* `immediate` is refused first, then come permission, exchange and properties, in RabbitMQ's order of checks.
* A mandatory message that went nowhere is returned before it is confirmed.
* The octets of the properties go through untouched unless reply_to or BCC has to be replaced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txmsg.broker.faults import (
    Fault,
    fast_reply_missing,
    invalid_message,
    message_too_large,
    not_implemented,
    undecodable_properties,
    unsendable,
    user_id_mismatch,
)
from txmsg.broker.message import Message
from txmsg.broker.queues.expiry import check_expiration
from txmsg.broker.queues.queue import REJECTED, UNROUTED
from txmsg.broker.vhost.direct_reply import REPLY_TO
from txmsg.broker.vhost.routing import routing_keys, without_bcc
from txmsg.errors import EncodeError
from txmsg.wire.constants import (
    DELIVERY_MODE_PERSISTENT,
    DELIVERY_MODE_TRANSIENT,
    NO_ROUTE,
    REPLY_NAMES,
)
from txmsg.wire.events import ContentEvent
from txmsg.wire.methods import basic
from txmsg.wire.properties import BasicProperties, UndecodableProperties

if TYPE_CHECKING:
    from txmsg.broker.channel.channel import ServerChannel

__all__ = ["Publishing"]


class Publishing:
    """The publishes of one channel."""

    def __init__(self, channel: ServerChannel) -> None:
        self._channel = channel
        self._connection = channel.connection
        self._vhost = channel.vhost
        self._confirms = channel.confirms
        self._transactions = channel.transactions
        #: The exchange, and the version of the permissions, that were checked last: the same are not checked again.
        self._checked_exchange: str | None = None
        self._checked_version = -1
        #: Properties that need nothing done about them: those of the last message, if they have no headers.
        self._checked_properties: object = None

    def publish(self, event: ContentEvent) -> None:
        """A tuple event PUBLISH; Faults as RabbitMQ gives them."""
        # Hot: every message of every publisher.  Exchange and properties are recognised by identity, because the wire
        # gives the same objects for the same octets.
        _, _, exchange, routing_key, mandatory, immediate, properties, body = event
        connection = self._connection
        if immediate:
            raise not_implemented("immediate=true")
        script = connection.broker.script
        if script is not None and self._is_refused(exchange, routing_key):
            return
        if len(body) > self._vhost.limits.max_message_size:
            raise message_too_large(len(body), self._vhost.limits.max_message_size)
        permissions = connection.permissions
        if exchange is not self._checked_exchange or permissions.version != self._checked_version:
            permissions.check_write("exchange", exchange)
            self._checked_exchange = exchange
            self._checked_version = permissions.version
        if properties is not self._checked_properties:
            properties = self._check(exchange, routing_key, properties)
        message = Message.published(exchange, routing_key, properties, body)
        if self._transactions.is_on:
            self._vhost.publishable(exchange)
            self._transactions.publish(message, properties, mandatory)
            return
        outcome = self._vhost.publish(exchange, routing_key, message, properties)
        if outcome == UNROUTED and mandatory:
            self.give_back(message, properties)
        if self._confirms.is_on:
            self._confirms.settle(outcome)
        elif outcome == REJECTED:
            self._vhost.check_capacity(message, properties)

    def _check(self, exchange: str, routing_key: str, properties: BasicProperties) -> BasicProperties:
        """Judge the properties, and give those that consumers are to see."""
        self._connection.publishing_started()
        if isinstance(properties, UndecodableProperties):
            raise undecodable_properties(properties.error.reply_code, str(properties.error))
        self._vhost.publishable(exchange)
        changes: dict[str, Any] = {}
        if properties.reply_to == REPLY_TO:
            name = self._channel.consuming.reply_name
            if not name:
                raise fast_reply_missing()
            changes["reply_to"] = name
        user = self._connection.user
        claimed = properties.user_id
        if claimed is not None and claimed != user.name and "impersonator" not in user.tags:
            raise user_id_mismatch(claimed, user.name)
        if properties.expiration is not None:
            check_expiration(properties.expiration)
        headers = properties.headers
        if headers is not None:
            routing_keys(routing_key, headers)
        mode = properties.delivery_mode
        if mode is not None and mode not in (DELIVERY_MODE_TRANSIENT, DELIVERY_MODE_PERSISTENT):
            raise invalid_message(f"{{delivery_mode_unknown,{mode}}}")
        if headers is None and not changes:
            self._checked_properties = properties
        if not changes:
            return properties
        published = properties.replace(**changes)
        try:
            # Now, for what is kept must be octets that can be sent.
            published.encode()
        except EncodeError as error:
            raise unsendable("the message", str(error)) from None
        return published

    def give_back(self, message: Message, properties: BasicProperties) -> None:
        """basic.return of a mandatory message that could not be routed."""
        channel = self._channel
        if not channel.is_open:
            return
        octets = message.encoded_properties
        if properties.headers is not None:
            octets = without_bcc(properties).encode()
        method = basic.Return(NO_ROUTE, REPLY_NAMES[NO_ROUTE], message.exchange, message.routing_key)
        try:
            parts = channel.wire.send_content(channel.number, method, octets, message.body)
        except EncodeError as error:
            # Headers grew over frame_max by what took their place.
            channel.refuse_soon(unsendable("basic.return", str(error)), basic.Publish)
            return
        channel.connection.write_all(parts)

    def _is_refused(self, exchange: str, routing_key: str) -> bool:
        """Ask the script of a test; whether the publish has been dealt with by it."""
        script = self._connection.broker.script
        answer = script and script.publish_received(self._connection, self._channel.number, exchange, routing_key)
        if isinstance(answer, Fault):
            raise answer
        if answer == "nack":
            if self._confirms.is_on:
                self._confirms.settle(REJECTED)
            return True
        if answer == "drop":
            if self._confirms.is_on:
                self._confirms.drop()
            return True
        return False

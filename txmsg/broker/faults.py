"""Why the broker refuses: every reply code it closes with, and every reply text.

AMQP 0-9-1 section 1.2 has the codes.  The texts are those of RabbitMQ 3.10, to the letter, because clients and
their test suites compare them; where a limit is ours alone the text is ours.

Invariant: a reply text fits a short string; like RabbitMQ's it is cut to 252 octets and three dots.
"""

from __future__ import annotations

from typing import Final

from txmsg.broker.erlang_terms import kind_of, shown
from txmsg.errors import TxmsgError, clip
from txmsg.wire import constants
from txmsg.wire.constants import REPLY_NAMES
from txmsg.wire.primitives import MAX_SHORT_STRING

__all__ = [
    "ABSENT",
    "Fault",
    "access_refused",
    "acknowledgement_timeout",
    "broker_full",
    "cannot_switch_mode",
    "consumer_limit",
    "default_exchange",
    "duplicate_consumer_tag",
    "exclusive_use",
    "fast_reply_missing",
    "fault",
    "get_unsupported",
    "global_qos_unsupported",
    "in_use",
    "inequivalent",
    "internal_exchange",
    "invalid_argument",
    "invalid_argument_type",
    "invalid_binding",
    "invalid_expiration",
    "invalid_for_queue_type",
    "invalid_message",
    "invalid_property",
    "kind_of",
    "limit_reached",
    "locked",
    "message_too_large",
    "no_previous_queue",
    "not_empty",
    "not_found",
    "not_implemented",
    "not_kept",
    "not_transactional",
    "queue_full",
    "quorum_delete_unsupported",
    "reply_consumer_acknowledges",
    "reply_consumer_set",
    "reserved_name",
    "server_named_queue_type",
    "system_exchange",
    "too_many_patterns",
    "too_many_routes",
    "topology_full",
    "transaction_limit",
    "transient_queue_refused",
    "unacked_limit",
    "undecodable_properties",
    "unfinished_limit",
    "unknown_delivery_tag",
    "unknown_exchange_type",
    "unsendable",
    "user_id_mismatch",
    "vhost_missing",
    "vhost_refused",
]

#: The codes that close a channel; all others close the connection.
_CHANNEL_CODES: Final = frozenset(
    {
        constants.CONTENT_TOO_LARGE,
        constants.NO_CONSUMERS,
        constants.ACCESS_REFUSED,
        constants.NOT_FOUND,
        constants.RESOURCE_LOCKED,
        constants.PRECONDITION_FAILED,
    }
)


class Fault(TxmsgError):
    """The broker refuses: the channel, or the connection, is to be closed with this code and text.

    reply_code: int.
    reply_text: str -- as it is sent, at most 255 octets.
    closes_connection: bool -- False: only the channel.  By default what the specification says of the code.
    """

    def __init__(self, reply_code: int, reply_text: str, *, closes_connection: bool | None = None) -> None:
        octets = reply_text.encode("utf-8", "surrogateescape")
        if len(octets) > MAX_SHORT_STRING:
            reply_text = octets[: MAX_SHORT_STRING - 3].decode("utf-8", "ignore") + "..."
        super().__init__(reply_code, reply_text)
        self.reply_code = reply_code
        self.reply_text = reply_text
        if closes_connection is None:
            closes_connection = reply_code not in _CHANNEL_CODES
        self.closes_connection = closes_connection

    def __str__(self) -> str:
        return clip(self.reply_text)


def fault(reply_code: int, explanation: str, *, closes_connection: bool | None = None) -> Fault:
    """The Fault whose text is the name of the code and `explanation`, as RabbitMQ joins them."""
    name = REPLY_NAMES.get(reply_code, str(reply_code))
    return Fault(reply_code, f"{name} - {explanation}", closes_connection=closes_connection)


def _resource(kind: str, name: str, vhost: str) -> str:
    return f"{kind} '{name}' in vhost '{vhost}'"


# -- names ------------------------------------------------------------------------------------------------


def not_found(kind: str, name: str, vhost: str) -> Fault:
    """404: there is no queue or exchange of that name."""
    return fault(constants.NOT_FOUND, f"no {_resource(kind, name, vhost)}")


def no_previous_queue() -> Fault:
    """404: the name of a queue was left empty on a channel that has declared none."""
    return fault(constants.NOT_FOUND, "no previously declared queue")


def reserved_name(kind: str, name: str) -> Fault:
    """403: a client may not declare a new `amq.` name."""
    return fault(constants.ACCESS_REFUSED, f"{kind} name '{name}' contains reserved prefix 'amq.*'")


def default_exchange() -> Fault:
    """403: the exchange without a name can be neither declared nor deleted nor bound."""
    return fault(constants.ACCESS_REFUSED, "operation not permitted on the default exchange")


def system_exchange(name: str, vhost: str) -> Fault:
    """403: an `amq.` exchange cannot be deleted."""
    return fault(constants.ACCESS_REFUSED, f"deletion of system {_resource('exchange', name, vhost)} not allowed")


def internal_exchange(name: str, vhost: str) -> Fault:
    """403: only other exchanges publish to an internal exchange."""
    return fault(constants.ACCESS_REFUSED, f"cannot publish to internal {_resource('exchange', name, vhost)}")


def locked(name: str, vhost: str) -> Fault:
    """405: the queue belongs to another connection, or was declared with another `exclusive`."""
    return fault(
        constants.RESOURCE_LOCKED,
        f"cannot obtain exclusive access to locked {_resource('queue', name, vhost)}. It could be originally "
        "declared on another connection or the exclusive property value does not match that of the original "
        "declaration.",
    )


def get_unsupported(name: str, vhost: str) -> Fault:
    """405: basic.get from a quorum queue with a single active consumer."""
    return fault(
        constants.RESOURCE_LOCKED,
        f"cannot obtain access to locked {_resource('queue', name, vhost)}. basic.get operations are not supported by "
        "quorum queues with single active consumer",
    )


def in_use(kind: str, name: str, vhost: str) -> Fault:
    """406: it was to be deleted only if nobody uses it."""
    return fault(constants.PRECONDITION_FAILED, f"{_resource(kind, name, vhost)} in use")


def not_empty(name: str, vhost: str) -> Fault:
    """406: the queue was to be deleted only if it is empty."""
    return fault(constants.PRECONDITION_FAILED, f"{_resource('queue', name, vhost)} not empty")


def quorum_delete_unsupported(name: str, vhost: str, flag: str) -> Fault:
    """540, which closes the connection: a quorum queue is deleted with the flag `if-unused` or `if-empty`."""
    return fault(
        constants.NOT_IMPLEMENTED,
        f"cannot delete {_resource('queue', name, vhost)}. queue.delete operations with {flag} flag set are not "
        "supported by quorum queues",
    )


def exclusive_use(name: str, vhost: str) -> Fault:
    """403: a consumer asks for the queue alone, or has it alone."""
    return fault(constants.ACCESS_REFUSED, f"{_resource('queue', name, vhost)} in exclusive use")


# -- properties and arguments -----------------------------------------------------------------------------


class _Absent:
    """The type of :data:`ABSENT`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ABSENT"


#: Stands for an argument that is not in the table (None is a value: void).
ABSENT: Final = _Absent()


def inequivalent(kind: str, name: str, vhost: str, argument: str, received: object, current: object) -> Fault:
    """406: it exists with another property or argument.

    `received` and `current` are bools or texts for a property, field values or :data:`ABSENT` for an argument.
    """
    if current is ABSENT:
        difference = f"received the value '{shown(received)}' of type '{kind_of(received)}' but current is none"
    elif received is None:
        difference = f"received none but current is '{shown(current)}'"  # void counts as none here, but not above
    elif received is ABSENT:
        difference = f"received none but current is the value '{shown(current)}' of type '{kind_of(current)}'"
    else:
        difference = f"received '{shown(received)}' but current is '{shown(current)}'"
    return fault(
        constants.PRECONDITION_FAILED, f"inequivalent arg '{argument}' for {_resource(kind, name, vhost)}: {difference}"
    )


def invalid_argument(kind: str, name: str, vhost: str, argument: str, reason: str) -> Fault:
    """406: an x-argument of a new queue (or exchange) cannot be used; `reason` in RabbitMQ's words."""
    return fault(
        constants.PRECONDITION_FAILED, f"invalid arg '{argument}' for {_resource(kind, name, vhost)}: {reason}"
    )


def invalid_argument_type(kind: str, name: str, vhost: str, argument: str, value: object) -> Fault:
    """406: the name of an exchange in an argument (dead letter, alternate) is not a text."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"invalid type '{kind_of(value)}' for arg '{argument}' in {_resource(kind, name, vhost)}",
    )


def invalid_for_queue_type(name: str, vhost: str, argument: str, queue_type: str) -> Fault:
    """406: queues of this type (classic, quorum, stream) do not know the argument."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"invalid arg '{argument}' for {_resource('queue', name, vhost)} of queue type rabbit_{queue_type}_queue",
    )


def invalid_property(name: str, vhost: str, what: str) -> Fault:
    """406: a quorum queue that would be `non-durable`, `exclusive-owner` or `auto-delete`."""
    return fault(constants.PRECONDITION_FAILED, f"invalid property '{what}' for {_resource('queue', name, vhost)}")


def server_named_queue_type(queue_type: str) -> Fault:
    """406: quorum queues have names of their own."""
    return fault(
        constants.PRECONDITION_FAILED, f"Cannot declare a server-named queue for type rabbit_{queue_type}_queue"
    )


def unknown_exchange_type(type: str) -> Fault:
    """503, which closes the connection."""
    if not type:
        return fault(constants.COMMAND_INVALID, "invalid exchange type ''")
    return fault(constants.COMMAND_INVALID, f"unknown exchange type '{type}'")


def invalid_binding(explanation: str) -> Fault:
    """406: the exchange does not understand the arguments of a binding."""
    return fault(constants.PRECONDITION_FAILED, explanation)


def transient_queue_refused() -> Fault:
    """541, as RabbitMQ 4.3 answers a queue that is neither durable nor exclusive (its text is longer than fits)."""
    return fault(
        constants.INTERNAL_ERROR,
        "Feature `transient_nonexcl_queues` is deprecated.\n"
        "By default, this feature is not permitted anymore.\n"
        "The feature will be removed from a future major RabbitMQ version, regardless of the configuration; "
        "actual version to be determined.\n"
        "To continue using this feature when it is not permitted by default, set the following parameter in your "
        "configuration:\n"
        '    "deprecated_features.permit.transient_nonexcl_queues = true"',
    )


# -- permissions ------------------------------------------------------------------------------------------


def access_refused(user: str, kind: str, name: str, vhost: str) -> Fault:
    """403: the user's pattern does not match the name; `amq.default` stands for the default exchange."""
    return fault(constants.ACCESS_REFUSED, f"access to {_resource(kind, name, vhost)} refused for user '{user}'")


def vhost_missing(vhost: str) -> Fault:
    """530: connection.open names no virtual host there is."""
    return fault(constants.NOT_ALLOWED, f"vhost {vhost} not found")


def vhost_refused(vhost: str, user: str) -> Fault:
    """530: the user has no permissions in it."""
    return fault(constants.NOT_ALLOWED, f"access to vhost '{vhost}' refused for user '{user}'")


# -- publishing -------------------------------------------------------------------------------------------


def too_many_patterns(name: str, vhost: str) -> Fault:
    """506, for the channel: to find where the message goes would take too long; ours, not RabbitMQ's."""
    return fault(
        constants.RESOURCE_ERROR,
        f"too many patterns of {_resource('exchange', name, vhost)} match the routing key",
        closes_connection=False,
    )


def too_many_routes(name: str, vhost: str) -> Fault:
    """506, for the channel: as above, through several exchanges or with many keys in CC."""
    return fault(
        constants.RESOURCE_ERROR,
        f"too many routes from {_resource('exchange', name, vhost)} to follow",
        closes_connection=False,
    )


def message_too_large(size: int, limit: int) -> Fault:
    """406: the body has more octets than the broker takes."""
    return fault(constants.PRECONDITION_FAILED, f"message size {size} is larger than configured max size {limit}")


def queue_full(name: str, vhost: str, limit: int) -> Fault:
    """311: a message is more than a queue has room for; ours, RabbitMQ has no such limit."""
    return fault(
        constants.CONTENT_TOO_LARGE, f"{_resource('queue', name, vhost)} may hold {limit} bytes and has no room for it"
    )


def broker_full(limit: int) -> Fault:
    """311: a message is more than the broker has room for, though publishers are blocked long before; ours."""
    return fault(constants.CONTENT_TOO_LARGE, f"the broker holds more than {limit} bytes and has no room for it")


def invalid_message(reason: str) -> Fault:
    """406: a header the broker needs, CC or BCC, is no list of texts."""
    return fault(constants.PRECONDITION_FAILED, f"invalid message: {reason}")


def invalid_expiration(expiration: str, reason: str) -> Fault:
    """406: `expiration` is not a number of milliseconds in decimal digits."""
    return fault(constants.PRECONDITION_FAILED, f"invalid expiration '{expiration}': {reason}")


def user_id_mismatch(claimed: str, user: str) -> Fault:
    """406: the property `user_id` is not who is logged in."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"user_id property set to '{claimed}' but authenticated user was '{user}'",
    )


def undecodable_properties(reply_code: int, problem: str) -> Fault:
    """502 or 501, which closes the connection: the property list cannot be decoded.  RabbitMQ fails with 541 here."""
    return fault(reply_code, f"message properties: {clip(problem)}", closes_connection=True)


def transaction_limit(limit: int) -> Fault:
    """506, which closes the connection: a transaction holds as much as a queue may; ours."""
    return fault(constants.RESOURCE_ERROR, f"a transaction holds at most {limit} bytes")


def unfinished_limit(limit: int) -> Fault:
    """506, which closes the connection: of what clients have begun and not finished it holds most; ours."""
    return fault(
        constants.RESOURCE_ERROR,
        f"all clients together hold more than {limit} bytes in what they have not finished, and this one most",
        closes_connection=True,
    )


def not_kept() -> Fault:
    """541, which closes the connection: what a method did could not be written to disk; ours."""
    return fault(constants.INTERNAL_ERROR, "the change could not be written to disk")


# -- consuming --------------------------------------------------------------------------------------------


def unknown_delivery_tag(tag: int) -> Fault:
    """406: nothing with that tag is waiting for its ack on the channel."""
    return fault(constants.PRECONDITION_FAILED, f"unknown delivery tag {tag}")


def acknowledgement_timeout(channel_number: int, seconds: float) -> Fault:
    """406: a delivery was not settled in time."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"delivery acknowledgement on channel {channel_number} timed out. Timeout value used: {seconds * 1000:.0f} ms. "
        "This timeout value can be configured, see consumers doc guide to learn more",
    )


def unacked_limit(limit: int) -> Fault:
    """406: basic.get while that many deliveries on the channel are not settled; ours."""
    return fault(constants.PRECONDITION_FAILED, f"{limit} deliveries on this channel are not acknowledged")


def unsendable(what: str, problem: str) -> Fault:
    """406: a message cannot be sent to this client, as its headers do not fit a frame of the size agreed; ours."""
    return fault(constants.PRECONDITION_FAILED, f"{what} cannot be sent: {clip(problem)}")


def global_qos_unsupported(name: str, vhost: str) -> Fault:
    """540, which closes the connection: a consumer of a quorum queue on a channel with a global prefetch count."""
    return fault(constants.NOT_IMPLEMENTED, f"{_resource('queue', name, vhost)} does not support global qos")


def duplicate_consumer_tag(tag: str) -> Fault:
    """530, which closes the connection: the channel has a consumer of that tag."""
    return fault(constants.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")


def consumer_limit(limit: int) -> Fault:
    """530: the channel has as many consumers as one may have."""
    return fault(constants.NOT_ALLOWED, f"reached maximum ({limit}) of consumers per channel")


def reply_consumer_acknowledges() -> Fault:
    """406: direct reply-to is consumed with no_ack."""
    return fault(constants.PRECONDITION_FAILED, "reply consumer cannot acknowledge")


def reply_consumer_set() -> Fault:
    """406: the channel consumes its replies already."""
    return fault(constants.PRECONDITION_FAILED, "reply consumer already set")


def fast_reply_missing() -> Fault:
    """406: reply_to asks for direct replies, which the channel does not consume."""
    return fault(constants.PRECONDITION_FAILED, "fast reply consumer does not exist")


# -- modes and what is not there --------------------------------------------------------------------------


def not_implemented(what: str) -> Fault:
    """540, which closes the connection: `immediate=true`, `prefetch_size!=0 (1)` ..."""
    return fault(constants.NOT_IMPLEMENTED, what)


def cannot_switch_mode(current: str, wanted: str) -> Fault:
    """406: a channel is in confirm mode or in tx mode, for good."""
    return fault(constants.PRECONDITION_FAILED, f"cannot switch from {current} to {wanted} mode")


def not_transactional() -> Fault:
    """406: tx.commit or tx.rollback without tx.select."""
    return fault(constants.PRECONDITION_FAILED, "channel is not transactional")


def limit_reached(kind: str, name: str, vhost: str, limit: int) -> Fault:
    """406: the virtual host has as many queues, exchanges or bindings as it may have."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"cannot declare {kind} '{name}': {kind} limit in vhost '{vhost}' ({limit}) is reached",
    )


def topology_full(kind: str, name: str, vhost: str, limit: int) -> Fault:
    """406: names, keys and arguments in the virtual host take as many octets as they may; ours, not RabbitMQ's."""
    return fault(
        constants.PRECONDITION_FAILED,
        f"cannot declare {kind} '{name}': what is declared in vhost '{vhost}' takes more than {limit} bytes",
    )

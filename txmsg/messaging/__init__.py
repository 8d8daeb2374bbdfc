"""Messaging without frames: values in, values out.

A :class:`Connection` says where the broker is, on any transport.  :class:`Exchange` and :class:`Queue` are values: a
:class:`Producer` publishes to the one, a :class:`Consumer` takes from the other, and what it takes is a
:class:`Message`.  Whatever may have to wait returns a Deferred.

All public names are here, wherever they are defined: the connection and its channels in `connection`, exchanges and
queues in `entities`, what a body is made of in `serialization` and `compression`, long-running consumers in `workers`;
`publishing`, `consuming` and `retrying` are what they say.  Only :mod:`~txmsg.messaging.pools` and
:mod:`~txmsg.messaging.pidbox` have names of their own.
"""

from __future__ import annotations

from txmsg.messaging import pools
from txmsg.messaging.clocks import LamportClock, timetuple
from txmsg.messaging.compression import (
    CompressionRegistry,
    DecompressionLimits,
    Decompressor,
    compress,
    compressions,
    decompress,
    default_compressions,
)
from txmsg.messaging.connection.channel import Channel, ChannelMember
from txmsg.messaging.connection.connection import BrokerConnection, Connection
from txmsg.messaging.connection.failures import (
    channel_errors,
    connection_errors,
    is_recoverable,
    recoverable_channel_errors,
    recoverable_connection_errors,
)
from txmsg.messaging.connection.url import BrokerURL, parse_url
from txmsg.messaging.consuming.consumer import Consumer
from txmsg.messaging.consuming.dispatch import Callback, MessageDispatch
from txmsg.messaging.consuming.iterating import EventLoop, MessageIterator, drain_consumer, eventloop, itermessages
from txmsg.messaging.consuming.message import Message
from txmsg.messaging.consuming.qos import QoS
from txmsg.messaging.consuming.replying import ReplyIterator, collect_replies, send_reply
from txmsg.messaging.consuming.trust import Trust
from txmsg.messaging.entities import (
    DELIVERY_MODES,
    PERSISTENT_DELIVERY_MODE,
    TRANSIENT_DELIVERY_MODE,
    Broadcast,
    DeclarationCache,
    EntityChannel,
    Exchange,
    MaybeChannelBound,
    OutgoingMessage,
    Queue,
    binding,
    delivery_mode_of,
    maybe_declare,
)
from txmsg.messaging.ids import uuid
from txmsg.messaging.ignoring import IgnoredErrors, ignore_errors
from txmsg.messaging.limits import TokenBucket
from txmsg.messaging.publishing.producer import Producer
from txmsg.messaging.retrying.ensuring import insured
from txmsg.messaging.retrying.retrying import RetryIntervals, fxrange, fxrangemax, retry_over_time
from txmsg.messaging.scheduling import FairCycle
from txmsg.messaging.serialization import (
    Accept,
    AcceptList,
    Encoded,
    EncodedBody,
    JSONLimits,
    JSONSerializer,
    JSONTypes,
    SerializerRegistry,
    decode_body,
    default_json_types,
    default_serializers,
    disable_insecure_serializers,
    dumps,
    enable_insecure_serializers,
    encode_body,
    json_types,
    loads,
    open_body,
    register_json,
    register_pickle,
    serializers,
)
from txmsg.messaging.simple import SimpleBuffer, SimpleQueue
from txmsg.messaging.symbols import symbol_by_name
from txmsg.messaging.tracing import setup_logging
from txmsg.messaging.workers.mixins import ConsumerMixin, ConsumerProducerMixin

__all__ = [
    "DELIVERY_MODES",
    "PERSISTENT_DELIVERY_MODE",
    "TRANSIENT_DELIVERY_MODE",
    "Accept",
    "AcceptList",
    "Broadcast",
    "BrokerConnection",
    "BrokerURL",
    "Callback",
    "Channel",
    "ChannelMember",
    "CompressionRegistry",
    "Connection",
    "Consumer",
    "ConsumerMixin",
    "ConsumerProducerMixin",
    "DeclarationCache",
    "DecompressionLimits",
    "Decompressor",
    "Encoded",
    "EncodedBody",
    "EntityChannel",
    "EventLoop",
    "Exchange",
    "FairCycle",
    "IgnoredErrors",
    "JSONLimits",
    "JSONSerializer",
    "JSONTypes",
    "LamportClock",
    "MaybeChannelBound",
    "Message",
    "MessageDispatch",
    "MessageIterator",
    "OutgoingMessage",
    "Producer",
    "QoS",
    "Queue",
    "ReplyIterator",
    "RetryIntervals",
    "SerializerRegistry",
    "SimpleBuffer",
    "SimpleQueue",
    "TokenBucket",
    "Trust",
    "binding",
    "channel_errors",
    "collect_replies",
    "compress",
    "compressions",
    "connection_errors",
    "decode_body",
    "decompress",
    "default_compressions",
    "default_json_types",
    "default_serializers",
    "delivery_mode_of",
    "disable_insecure_serializers",
    "drain_consumer",
    "dumps",
    "enable_insecure_serializers",
    "encode_body",
    "eventloop",
    "fxrange",
    "fxrangemax",
    "ignore_errors",
    "insured",
    "is_recoverable",
    "itermessages",
    "json_types",
    "loads",
    "maybe_declare",
    "open_body",
    "parse_url",
    "pools",
    "recoverable_channel_errors",
    "recoverable_connection_errors",
    "register_json",
    "register_pickle",
    "retry_over_time",
    "send_reply",
    "serializers",
    "setup_logging",
    "symbol_by_name",
    "timetuple",
    "uuid",
]

"""Messaging without frames: values in, values out.

So far: :mod:`~txmsg.messaging.serialization` and :mod:`~txmsg.messaging.compression`, what a body is made of.
"""

from __future__ import annotations

from txmsg.messaging.channel import Channel, ChannelMember
from txmsg.messaging.compression import (
    CompressionRegistry,
    DecompressionLimits,
    Decompressor,
    compress,
    compressions,
    decompress,
    default_compressions,
)
from txmsg.messaging.connection import Connection
from txmsg.messaging.consumer import Consumer
from txmsg.messaging.dispatch import Callback, MessageDispatch
from txmsg.messaging.ensuring import insured
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
from txmsg.messaging.failures import (
    channel_errors,
    connection_errors,
    is_recoverable,
    recoverable_channel_errors,
    recoverable_connection_errors,
)
from txmsg.messaging.ignoring import IgnoredErrors, ignore_errors
from txmsg.messaging.iterating import EventLoop, MessageIterator, drain_consumer, eventloop, itermessages
from txmsg.messaging.message import Message
from txmsg.messaging.producer import Producer
from txmsg.messaging.replying import ReplyIterator, collect_replies, send_reply
from txmsg.messaging.retrying import RetryIntervals, fxrange, fxrangemax, retry_over_time
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
from txmsg.messaging.trust import Trust

__all__ = [
    "DELIVERY_MODES",
    "PERSISTENT_DELIVERY_MODE",
    "TRANSIENT_DELIVERY_MODE",
    "Accept",
    "AcceptList",
    "Broadcast",
    "Callback",
    "Channel",
    "ChannelMember",
    "CompressionRegistry",
    "Connection",
    "Consumer",
    "DeclarationCache",
    "DecompressionLimits",
    "Decompressor",
    "Encoded",
    "EncodedBody",
    "EntityChannel",
    "EventLoop",
    "Exchange",
    "IgnoredErrors",
    "JSONLimits",
    "JSONSerializer",
    "JSONTypes",
    "MaybeChannelBound",
    "Message",
    "MessageDispatch",
    "MessageIterator",
    "OutgoingMessage",
    "Producer",
    "Queue",
    "ReplyIterator",
    "RetryIntervals",
    "SerializerRegistry",
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
    "recoverable_channel_errors",
    "recoverable_connection_errors",
    "register_json",
    "register_pickle",
    "retry_over_time",
    "send_reply",
    "serializers",
]

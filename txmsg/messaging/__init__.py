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
from txmsg.messaging.failures import (
    channel_errors,
    connection_errors,
    is_recoverable,
    recoverable_channel_errors,
    recoverable_connection_errors,
)
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

__all__ = [
    "Accept",
    "AcceptList",
    "Channel",
    "ChannelMember",
    "CompressionRegistry",
    "Connection",
    "DecompressionLimits",
    "Decompressor",
    "Encoded",
    "EncodedBody",
    "JSONLimits",
    "JSONSerializer",
    "JSONTypes",
    "RetryIntervals",
    "SerializerRegistry",
    "channel_errors",
    "compress",
    "compressions",
    "connection_errors",
    "decode_body",
    "decompress",
    "default_compressions",
    "default_json_types",
    "default_serializers",
    "disable_insecure_serializers",
    "dumps",
    "enable_insecure_serializers",
    "encode_body",
    "fxrange",
    "fxrangemax",
    "is_recoverable",
    "json_types",
    "loads",
    "open_body",
    "recoverable_channel_errors",
    "recoverable_connection_errors",
    "register_json",
    "register_pickle",
    "retry_over_time",
    "serializers",
]

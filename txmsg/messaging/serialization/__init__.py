"""Values to bodies and back: JSON, MessagePack, YAML, raw octets and text, and pickle for those who ask twice.

What Kombu 5 writes is read as the same value, and the reverse.  Pure: no Twisted, no I/O.
"""

from __future__ import annotations

from txmsg.messaging.serialization.bodies import EncodedBody, decode_body, encode_body, open_body
from txmsg.messaging.serialization.defaults import (
    default_serializers,
    disable_insecure_serializers,
    enable_insecure_serializers,
    json_types,
    register_json,
    register_pickle,
    serializers,
)
from txmsg.messaging.serialization.json_bodies import JSONLimits, JSONSerializer
from txmsg.messaging.serialization.json_types import JSONTypes, default_json_types
from txmsg.messaging.serialization.msgpack_bodies import MsgpackSerializer
from txmsg.messaging.serialization.pickle_bodies import PickleSerializer
from txmsg.messaging.serialization.registry import Accept, AcceptList, Encoded, SerializerRegistry
from txmsg.messaging.serialization.yaml_bodies import YAMLSerializer

__all__ = [
    "Accept",
    "AcceptList",
    "Encoded",
    "EncodedBody",
    "JSONLimits",
    "JSONSerializer",
    "JSONTypes",
    "MsgpackSerializer",
    "PickleSerializer",
    "SerializerRegistry",
    "YAMLSerializer",
    "decode_body",
    "default_json_types",
    "default_serializers",
    "disable_insecure_serializers",
    "dumps",
    "enable_insecure_serializers",
    "encode_body",
    "json_types",
    "loads",
    "open_body",
    "register",
    "register_json",
    "register_pickle",
    "serializers",
    "unregister",
]

dumps = serializers.dumps
loads = serializers.loads
register = serializers.register
unregister = serializers.unregister

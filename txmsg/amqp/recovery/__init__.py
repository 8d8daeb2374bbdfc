"""Reconnection and recovery: what the application means outlives the single connections.

Start with :class:`ReconnectingConnection`; all public names are in :mod:`txmsg.amqp` too.
"""

from __future__ import annotations

from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.channel import RecoveringChannel
from txmsg.amqp.recovery.connection import ReconnectingConnection
from txmsg.amqp.recovery.consumer import RecoveringConsumer
from txmsg.amqp.recovery.duplicates import DuplicateWindow
from txmsg.amqp.recovery.events import RecoveryEvent
from txmsg.amqp.recovery.member import Member
from txmsg.amqp.recovery.publication import PublisherReport
from txmsg.amqp.recovery.publisher import Publisher
from txmsg.amqp.recovery.retry import RetryPolicy, RetryStep
from txmsg.amqp.recovery.state import RecoveryState, StateChange
from txmsg.amqp.recovery.topology import Topology

__all__ = [
    "Backoff",
    "DuplicateWindow",
    "Member",
    "Publisher",
    "PublisherReport",
    "ReconnectingConnection",
    "RecoveringChannel",
    "RecoveringConsumer",
    "RecoveryEvent",
    "RecoveryState",
    "RetryPolicy",
    "RetryStep",
    "StateChange",
    "Topology",
]

"""Reconnection and recovery: what the application means outlives the single connections.

Start with :class:`ReconnectingConnection`; all public names are in :mod:`txmsg.amqp` too.
"""

from __future__ import annotations

from txmsg.amqp.recovery.backoff import Backoff
from txmsg.amqp.recovery.connection import ReconnectingConnection
from txmsg.amqp.recovery.events import RecoveryEvent
from txmsg.amqp.recovery.member import Member
from txmsg.amqp.recovery.state import RecoveryState, StateChange

__all__ = ["Backoff", "Member", "ReconnectingConnection", "RecoveryEvent", "RecoveryState", "StateChange"]

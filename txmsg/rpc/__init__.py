"""Request and reply over messaging: calls that return Deferreds, and servers that answer them.

What goes over the wire is in docs/rpc.md, so that the other side can be in any language.
"""

from __future__ import annotations

from txmsg.rpc.client import RPCClient
from txmsg.rpc.pending import PendingCall, PendingCalls, ReplyCounts
from txmsg.rpc.request import IncomingCall, ServerCounts
from txmsg.rpc.server import RPCServer

__all__ = ["IncomingCall", "PendingCall", "PendingCalls", "RPCClient", "RPCServer", "ReplyCounts", "ServerCounts"]

"""The states of a connection and of a channel, as tables: every transition of AMQP 0-9-1 is a row here.

Sections 2.2.4 and 4.2 of the specification, the grammars of classes connection (1.4) and channel (1.5), and
RabbitMQ's blocked, unblocked and update-secret extensions.  Two rules:

* All changes of state come from these tables.  A method that has no row for its sender in the present state
  is a violation, whoever's it is.
* The tables do not know which role we play.  A row names the *sender*, so the same table judges what a client
  sends and what a server receives.

Closing is symmetric.  After one side has sent close it discards everything else until close-ok.  When the two
closes cross, each side answers the other's, and a channel number is free again only when both close-ok have
passed: before that the peer may still be sending on the old channel.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from txmsg.wire.constants import CLASS_CONNECTION, Role
from txmsg.wire.layout import Method
from txmsg.wire.methods import METHODS, channel, connection

__all__ = [
    "CHANNEL_TRANSITIONS",
    "CONNECTION_TRANSITIONS",
    "ChannelState",
    "ConnectionState",
    "ProtocolHeader",
    "Role",
    "Sent",
    "closed_by",
    "to_dot",
]


class ConnectionState(Enum):
    """Where a connection is.  A name with WANT says whose move it is; the three CLOSING say who sent close."""

    HEADER = "the client has not sent the protocol header"
    WANT_START = "waiting for the server's connection.start"
    WANT_START_OK = "waiting for the client's connection.start-ok"
    WANT_TUNE = "waiting for the server's connection.tune or connection.secure"
    WANT_SECURE_OK = "waiting for the client's connection.secure-ok"
    WANT_TUNE_OK = "waiting for the client's connection.tune-ok"
    WANT_OPEN = "waiting for the client's connection.open"
    WANT_OPEN_OK = "waiting for the server's connection.open-ok"
    OPEN = "open"
    CLIENT_CLOSING = "closing: the client has sent close"
    SERVER_CLOSING = "closing: the server has sent close"
    BOTH_CLOSING = "closing: both sides have sent close"
    CLOSED = "closed"


class ChannelState(Enum):
    """Where a channel number is.  CLOSED is also that of a number never used."""

    CLOSED = "not open"
    OPENING = "opening"
    OPEN = "open"
    CLIENT_CLOSING = "closing: the client has sent close"
    SERVER_CLOSING = "closing: the server has sent close"
    BOTH_CLOSING = "closing: both sides have sent close"


class ProtocolHeader:
    """Stands in the connection's table for the eight octets before the first frame."""

    NAME: Final = "protocol header"


#: Who sent which method.
Sent: TypeAlias = tuple[Role, type[Method] | type[ProtocolHeader]]

_C, _S = Role.CLIENT, Role.SERVER
_K = ConnectionState
_N = ChannelState


def _connection_table() -> dict[ConnectionState, dict[Sent, ConnectionState]]:
    table: dict[ConnectionState, dict[Sent, ConnectionState]] = {
        _K.HEADER: {(_C, ProtocolHeader): _K.WANT_START},
        _K.WANT_START: {(_S, connection.Start): _K.WANT_START_OK},
        _K.WANT_START_OK: {(_C, connection.StartOk): _K.WANT_TUNE},
        _K.WANT_TUNE: {
            (_S, connection.Secure): _K.WANT_SECURE_OK,
            (_S, connection.Tune): _K.WANT_TUNE_OK,
        },
        _K.WANT_SECURE_OK: {(_C, connection.SecureOk): _K.WANT_TUNE},
        _K.WANT_TUNE_OK: {(_C, connection.TuneOk): _K.WANT_OPEN},
        _K.WANT_OPEN: {(_C, connection.Open): _K.WANT_OPEN_OK},
        _K.WANT_OPEN_OK: {(_S, connection.OpenOk): _K.OPEN},
        _K.OPEN: {
            (_C, connection.UpdateSecret): _K.OPEN,
            (_S, connection.UpdateSecretOk): _K.OPEN,
        },
        _K.CLIENT_CLOSING: {
            (_S, connection.CloseOk): _K.CLOSED,
            (_S, connection.Close): _K.BOTH_CLOSING,
        },
        _K.SERVER_CLOSING: {
            (_C, connection.CloseOk): _K.CLOSED,
            (_C, connection.Close): _K.BOTH_CLOSING,
        },
        _K.BOTH_CLOSING: {
            (_C, connection.CloseOk): _K.CLIENT_CLOSING,
            (_S, connection.CloseOk): _K.SERVER_CLOSING,
        },
        _K.CLOSED: {},
    }
    # An alarm may be raised while a connection is still being set up.
    for state in (_K.WANT_TUNE_OK, _K.WANT_OPEN, _K.WANT_OPEN_OK, _K.OPEN):
        table[state][_S, connection.Blocked] = state
        table[state][_S, connection.Unblocked] = state
    # Either side may give up at any moment, and does: wrong password, unknown vhost, shutdown.
    for state in list(_K)[list(_K).index(_K.WANT_START) : list(_K).index(_K.OPEN) + 1]:
        table[state][_C, connection.Close] = _K.CLIENT_CLOSING
        table[state][_S, connection.Close] = _K.SERVER_CLOSING
    return table


def _channel_table() -> dict[ChannelState, dict[Sent, ChannelState]]:
    table: dict[ChannelState, dict[Sent, ChannelState]] = {
        _N.CLOSED: {(_C, channel.Open): _N.OPENING},
        _N.OPENING: {(_S, channel.OpenOk): _N.OPEN},
        _N.OPEN: {},
        _N.CLIENT_CLOSING: {
            (_S, channel.CloseOk): _N.CLOSED,
            (_S, channel.Close): _N.BOTH_CLOSING,
        },
        _N.SERVER_CLOSING: {
            (_C, channel.CloseOk): _N.CLOSED,
            (_C, channel.Close): _N.BOTH_CLOSING,
        },
        _N.BOTH_CLOSING: {
            (_C, channel.CloseOk): _N.CLIENT_CLOSING,
            (_S, channel.CloseOk): _N.SERVER_CLOSING,
        },
    }
    for state in (_N.OPENING, _N.OPEN):
        table[state][_C, channel.Close] = _N.CLIENT_CLOSING
        table[state][_S, channel.Close] = _N.SERVER_CLOSING
    # What works on an open channel leaves it open; which reply fits which request is the channel's affair.
    moves = {channel.Open, channel.OpenOk, channel.Close, channel.CloseOk}
    for method in METHODS.values():
        if method.CLASS_ID != CLASS_CONNECTION and method not in moves:
            for sender in method.SENT_BY:
                table[_N.OPEN][sender, method] = _N.OPEN
    return table


#: state -> {(sender, method class): next state}.
CONNECTION_TRANSITIONS: Final[Mapping[ConnectionState, Mapping[Sent, ConnectionState]]] = MappingProxyType(
    _connection_table()
)
#: state -> {(sender, method class): next state}.
CHANNEL_TRANSITIONS: Final[Mapping[ChannelState, Mapping[Sent, ChannelState]]] = MappingProxyType(_channel_table())

_CONNECTION_CLOSERS: Final[dict[ConnectionState, frozenset[Role]]] = {
    _K.CLIENT_CLOSING: frozenset({_C}),
    _K.SERVER_CLOSING: frozenset({_S}),
    _K.BOTH_CLOSING: frozenset({_C, _S}),
    _K.CLOSED: frozenset({_C, _S}),
}
_CHANNEL_CLOSERS: Final[dict[ChannelState, frozenset[Role]]] = {
    _N.CLIENT_CLOSING: frozenset({_C}),
    _N.SERVER_CLOSING: frozenset({_S}),
    _N.BOTH_CLOSING: frozenset({_C, _S}),
}
_NOBODY: Final[frozenset[Role]] = frozenset()


def closed_by(state: ConnectionState | ChannelState) -> frozenset[Role]:
    """The roles whose close is under way in `state`; empty while nobody has begun to close."""
    if isinstance(state, ConnectionState):
        return _CONNECTION_CLOSERS.get(state, _NOBODY)
    return _CHANNEL_CLOSERS.get(state, _NOBODY)


def to_dot(name: str, *, loops: bool = False) -> str:
    """A table as a Graphviz graph, for the documentation.

    name: "connection" or "channel".
    loops: also draw the rows that leave the state as it is.
    """
    lines = [f"digraph {name} {{", "  rankdir=TB;"]
    tables: dict[str, Mapping[Any, Mapping[Sent, Any]]]
    tables = {"connection": CONNECTION_TRANSITIONS, "channel": CHANNEL_TRANSITIONS}
    for state, rows in tables[name].items():
        lines.append(f'  {state.name} [tooltip="{state.value}"];')
        for (sender, method), after in rows.items():
            if after is not state or loops:
                lines.append(f'  {state.name} -> {after.name} [label="{sender.value}: {method.NAME}"];')
    lines.append("}")
    return "\n".join(lines) + "\n"

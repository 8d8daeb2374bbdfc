"""What both directions of a connection share: role, limits, negotiated values, and where everything stands.

The states move only along the tables of `txmsg.wire.states`.  `frame_max` before tune is the specification's
minimum (section 4.2.3 and 1.4.2.6 "frame-max"); the limits are those of the peer's view and ours combined.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from txmsg.errors import LocalProtocolError
from txmsg.wire.constants import FRAME_MIN_SIZE, FRAME_OVERHEAD, NOT_ALLOWED, Role
from txmsg.wire.states import ChannelState, ConnectionState
from txmsg.wire.tables import TableLimits

__all__ = ["CHANNEL_NUMBER_MAX", "Limits", "Session"]

#: Channel numbers have 16 bits.
CHANNEL_NUMBER_MAX = 0xFFFF


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may cost us.

    frame_max: int -- octets of the largest frame, with its 8 octets of frame; our cap whatever the peer
        offers, and what holds when it offers 0 (no limit).  Default 131072.
    max_message_size: int -- octets of the largest body taken; default 16 MiB.
    max_table_depth: int -- levels of a field table; default 32.
    max_table_items: int -- entries of one field table on all levels; default 4096.
    initial_frame_max: int -- octets of the largest frame before tune, both ways; default 4096, as the
        specification says.  RabbitMQ has a setting of the same name, for long access tokens.
    frame_excess: int -- octets that a received frame may have above `frame_max`.  Default 0, the specification.
        Some clients (AMQPStorm) take frame_max for the size of the payload; RabbitMQ lets frames be 8 octets larger.
    """

    frame_max: int = 131072
    max_message_size: int = 16 * 1024 * 1024
    max_table_depth: int = 32
    max_table_items: int = 4096
    initial_frame_max: int = FRAME_MIN_SIZE
    frame_excess: int = 0

    @property
    def table_limits(self) -> TableLimits:
        """The part that is about field tables."""
        return TableLimits(self.max_table_depth, self.max_table_items)


class Session:
    """The state of one connection and of its channels; base of the two directions."""

    def __init__(self, role: Role, limits: Limits) -> None:
        self.role = role
        self.limits = limits
        #: Where the connection is.
        self.state = ConnectionState.HEADER
        #: The largest frame either side may send now, and the highest channel number; see `set_tuned`.
        self.frame_max = limits.initial_frame_max
        self.channel_max = 0
        self._is_tuned = False
        self._channels: dict[int, ChannelState] = {}
        self._table_limits = limits.table_limits

    def channel_state(self, number: int) -> ChannelState:
        """Where channel `number` is; CLOSED for one that was never used."""
        return self._channels.get(number, ChannelState.CLOSED)

    @property
    def channels(self) -> Mapping[int, ChannelState]:
        """The state of every channel number in use, read-only."""
        return MappingProxyType(self._channels)

    def set_tuned(self, channel_max: int, frame_max: int) -> None:
        """Take the negotiated values, once tune-ok has been sent (client) or received (server).

        channel_max: int -- 0 means no limit, which is 65535.
        frame_max: int -- 0 means no limit; then our own `Limits.frame_max` holds.

        :class:`LocalProtocolError` for a frame_max below 4096 or above our own cap: nobody may send that.
        """
        frame_max = frame_max or self.limits.frame_max
        if not FRAME_MIN_SIZE <= frame_max <= self.limits.frame_max:
            raise LocalProtocolError(
                f"frame_max {frame_max} is outside {FRAME_MIN_SIZE} to {self.limits.frame_max}", NOT_ALLOWED
            )
        if not 0 <= channel_max <= CHANNEL_NUMBER_MAX:
            raise LocalProtocolError(f"channel_max {channel_max} is outside 0 to {CHANNEL_NUMBER_MAX}", NOT_ALLOWED)
        self.frame_max = frame_max
        self.channel_max = channel_max or CHANNEL_NUMBER_MAX
        self._is_tuned = True

    @property
    def _payload_limit(self) -> int:
        """Octets of payload a received frame may have.

        Before tune 8 more than the arithmetic gives: implementations differ on whether the first limit counts
        the frame's own 8 octets, and nothing has been agreed yet that they could have broken.
        """
        return self.frame_max - FRAME_OVERHEAD + self.limits.frame_excess if self._is_tuned else self.frame_max

    def _move_connection(self, state: ConnectionState) -> None:
        """The one place where the connection's state changes."""
        self.state = state
        if state is ConnectionState.CLOSED:
            for number in list(self._channels):
                self._move_channel(number, ChannelState.CLOSED)

    def _move_channel(self, number: int, state: ChannelState) -> None:
        """The one place where a channel's state changes."""
        if state is ChannelState.CLOSED:
            del self._channels[number]
        else:
            self._channels[number] = state

"""One AMQP 0-9-1 connection without I/O: bytes to events, methods and contents to bytes, for either role.

The specification's sections 2 and 4 end here: what is above knows methods, contents and states, and not how
they look as octets.  The two directions are `txmsg.wire.inbound` and `txmsg.wire.outbound`, which a server's
deliveries in `txmsg.wire.deliveries` extend; the states both move along are the tables of `txmsg.wire.states`.
"""

from __future__ import annotations

from txmsg.errors import clip
from txmsg.wire.constants import Role
from txmsg.wire.deliveries import Deliveries
from txmsg.wire.inbound import Inbound
from txmsg.wire.session import Limits
from txmsg.wire.states import ChannelState, ConnectionState

__all__ = ["ChannelState", "ConnectionState", "Limits", "Role", "WireConnection"]


class WireConnection(Inbound, Deliveries):
    """The protocol engine of one connection; it lives as long as its socket.

    role: Role -- which end we are.
    limits: Limits -- what the peer may cost us; the defaults are those of :class:`Limits`.

    Give every received chunk to `receive` and write, in order, every byte string that the other methods return.
    A client begins with `send_protocol_header`; both call `set_tuned` once tune-ok has passed.

    Both directions are checked.  The peer's violations come as the last event, ours raise before anything has
    changed.  What is not checked here is which reply belongs to which request, and what brokers check:
    permissions, names, delivery tags.

    After a close has been sent, what the peer had on its way is discarded until its close-ok, also contents of
    which a part has come.  The peer's close comes as a `MethodReceived`; the layer above answers it with
    close-ok, and that frees the number, unless our own close-ok is still to come.

    The states follow the bytes, not the events: when `receive` returns, `state` and the channels' states are those
    after the last event of the list.  So what is sent while the list is being worked off may be refused because
    of an event further down in it, such as the peer's channel.close.

    Attributes: `role`, `limits`, `state` (:class:`ConnectionState`), `frame_max` and `channel_max` as they hold
    now, `channels` (number -> :class:`ChannelState`, those in use).
    """

    def __init__(self, role: Role, limits: Limits | None = None) -> None:
        super().__init__(role, Limits() if limits is None else limits)

    def __repr__(self) -> str:
        return clip(
            f"<WireConnection {self.role.value}: {self.state.value}, {len(self._channels)} channels, "
            f"frame_max {self.frame_max}, channel_max {self.channel_max}>"
        )

"""The connection and channels of txmsg below an AMQClient, with the doors that txamqp's programs need.

- The opening stops at connection.start and connection.tune until the delegate has answered them.
- A delivery that comes while a consumer is being cancelled is still delivered, as txamqp does it.
- The broker's confirms, blocked notices and closes are passed on to the delegate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, fail

from txmsg.amqp import AMQPlainCredentials, Channel, ConnectionParameters, Consumer, PlainCredentials
from txmsg.amqp.connection_core import State
from txmsg.compat.given_tls import GivenTLSProtocol
from txmsg.errors import AuthenticationFailed, ChannelNumberInUse, TxmsgError
from txmsg.wire.events import ACK, NACK
from txmsg.wire.methods import Method, basic, connection

if TYPE_CHECKING:
    from txmsg.compat.txamqp.channel import AMQChannel
    from txmsg.compat.txamqp.protocol import AMQClient

__all__ = ["NativeChannel", "NativeConnection", "native_credentials", "native_parameters", "text_of"]

_NO_LIMIT = 2**62


class _OtherCredentials:
    """The response to a mechanism we know nothing of, as the program made it."""

    #: The program decides, as it did with txamqp.
    is_safe_in_plaintext = True

    def __init__(self, mechanism: str, response: bytes) -> None:
        self.mechanism = mechanism
        self._response = response

    def response(self) -> bytes:
        """What goes with connection.start-ok."""
        return self._response

    def respond(self, challenge: bytes) -> bytes:
        """There is no second round."""
        raise AuthenticationFailed(f"SASL {self.mechanism} has no answer to a challenge", 0, initiator="client")

    def __repr__(self) -> str:
        return f"<credentials for SASL {self.mechanism}>"


def native_credentials(mechanism: str, response: Any) -> Any:
    """Our credentials for the response that a program gives: a dict for AMQPLAIN, or the text itself."""
    if isinstance(response, dict):
        return AMQPlainCredentials(text_of(response["LOGIN"]), text_of(response["PASSWORD"]))
    octets = response.encode("utf-8") if isinstance(response, str) else bytes(response or b"")
    parts = octets.split(b"\0")
    if mechanism == "PLAIN" and len(parts) == 3 and not parts[0] and parts[1]:
        return PlainCredentials(text_of(parts[1]), text_of(parts[2]))
    return _OtherCredentials(mechanism, octets)


def text_of(value: Any) -> Any:
    """A name or secret as text: programs of Python 2's time give bytes."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def native_parameters(vhost: Any, heartbeat: int, opening: float, reply: float | None) -> ConnectionParameters:
    """The parameters of an AMQClient: what txamqp does not have is switched off."""
    return ConnectionParameters(
        virtual_host=text_of(vhost),
        channel_max=65535,
        heartbeat=max(0, min(int(heartbeat), 65535)),
        handshake_timeout=opening,
        operation_timeout=reply,
        confirm_timeout=reply,
        default_prefetch_count=0,
        read_high_water_messages=_NO_LIMIT,
        read_high_water_bytes=_NO_LIMIT,
        max_message_size=2**31,
        outbox_max_messages=_NO_LIMIT,
        outbox_max_bytes=_NO_LIMIT,
        # As it was with txamqp: whether the stream is TLS is for whoever made it.
        allow_plaintext_auth=True,
    )


class NativeConnection(GivenTLSProtocol):
    """The connection of an AMQClient (`face`)."""

    face: AMQClient
    #: connection.start or connection.tune, while the delegate has not answered it.
    _asked: Method | None = None

    # -- opening -----------------------------------------------------------------------------------

    def _method_received(self, method: Method) -> None:
        is_opening = self._state is State.OPENING and self._reason is None
        if is_opening and isinstance(method, connection.Start | connection.Tune):
            self._asked = method
            try:
                self.face.asked(method)
            except Exception as error:
                self._log.failure("the delegate failed to answer {method}; the connection is dropped", method=method)
                self.drop(error)
            return
        super()._method_received(method)
        if isinstance(method, connection.Blocked | connection.Unblocked) and self._reason is None:
            self.face.tell(0, method)

    def answer(self, **changes: Any) -> None:
        """Go on from connection.start or connection.tune, with some parameters changed."""
        method, self._asked = self._asked, None
        if method is None or self._handshake is None or self._reason is not None:
            return
        self.parameters = self._handshake._parameters = self.parameters.replace(**changes)
        super()._method_received(method)

    # -- channels ----------------------------------------------------------------------------------

    def open_channel(self, channel_number: int, face: AMQChannel) -> Deferred[NativeChannel]:
        """As `channel`, with a channel that knows whom it serves."""
        self.check_thread()
        if self._state is not State.OPEN:
            return fail(self._wrong_state())
        assert self.negotiated is not None
        if not 0 < channel_number <= self.negotiated.channel_max:
            return fail(ChannelNumberInUse(f"a channel number is 1 to {self.negotiated.channel_max}"))
        if channel_number in self.channels:
            return fail(ChannelNumberInUse(f"channel {channel_number} is in use"))
        self.channels[channel_number] = channel = NativeChannel(self, channel_number)
        channel.face = face
        return channel.open()

    # -- the end -----------------------------------------------------------------------------------

    def _end(self, reason: BaseException) -> None:
        # The client knows, and all its channels, before the first call fails and its program looks at them.
        if self._reason is None:
            self.face.ended(reason)
        super()._end(reason)


class NativeChannel(Channel):
    """One channel of an AMQClient; `face` is the AMQChannel."""

    face: AMQChannel

    def call(self, method: Method) -> Deferred[Any]:
        """Send a method that only waits for its reply; fires with that, or with None where none comes."""
        return self._call(method)

    def content_received(self, event: tuple[Any, ...]) -> None:
        """For the connection: a content event; confirms are news for the delegate as well."""
        super().content_received(event)
        if event[0] == ACK:
            self.face.tell(basic.Ack(event[2], event[3]))
        elif event[0] == NACK:
            self.face.tell(basic.Nack(event[2], event[3], event[4]))

    def _stop_handing_over(self, consumer: Consumer) -> None:
        if not consumer.is_started:  # the program does not wait for it any more
            super()._stop_handing_over(consumer)
            return
        consumer.is_cancelling = True
        consumer.read_on()

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """As Channel has it; but "all there are" may be none, which is no error to a broker either."""
        if multiple and delivery_tag == 0 and self.is_open and not self._settlements.open:
            return
        super().basic_ack(delivery_tag, multiple)

    def tell_end(self, reason: BaseException) -> None:
        """For the connection: tell everybody; the AMQChannel is the first."""
        self.connection.guarded(self.face.ended, reason)
        super().tell_end(reason)

    def why_ended(self) -> TxmsgError | None:
        """The reason of its end, once there is one."""
        reason = self.close_reason
        return reason if isinstance(reason, TxmsgError) else None

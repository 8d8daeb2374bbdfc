"""Class 10: the handshake, tuning, closing, and the notices about a blocked connection.

AMQP 0-9-1 section 1.4; blocked and unblocked: https://www.rabbitmq.com/connection-blocked.html; update-secret:
RabbitMQ 3.8, for tokens that expire.  All of them are sent on channel 0.
"""

from __future__ import annotations

from dataclasses import field

from txmsg.wire.constants import CLASS_CONNECTION
from txmsg.wire.layout import (
    Bit,
    Long,
    LongStr,
    LongText,
    Method,
    Octet,
    SecretLongStr,
    SecretLongText,
    Short,
    ShortStr,
    Table,
    method,
)
from txmsg.wire.methods.senders import BOTH, CLIENT, SERVER

__all__ = [
    "Blocked",
    "Close",
    "CloseOk",
    "Open",
    "OpenOk",
    "Secure",
    "SecureOk",
    "Start",
    "StartOk",
    "Tune",
    "TuneOk",
    "Unblocked",
    "UpdateSecret",
    "UpdateSecretOk",
]


@method(CLASS_CONNECTION, 10, sent_by=SERVER)
class Start(Method):
    """The server's first words: its version, what it can do, and the SASL mechanisms and locales it offers.

    `mechanisms` and `locales` are lists separated by spaces.
    """

    version_major: Octet = 0
    version_minor: Octet = 9
    server_properties: Table = field(default_factory=dict)
    mechanisms: LongText = "PLAIN"
    locales: LongText = "en_US"


@method(CLASS_CONNECTION, 11, sent_by=CLIENT, replies_to=Start)
class StartOk(Method):
    """The mechanism and locale that the client has chosen, and its first SASL response, which is not shown."""

    client_properties: Table = field(default_factory=dict)
    mechanism: ShortStr = "PLAIN"
    response: SecretLongStr = b""
    locale: ShortStr = "en_US"


@method(CLASS_CONNECTION, 20, sent_by=SERVER)
class Secure(Method):
    """A further SASL challenge."""

    challenge: LongStr = b""


@method(CLASS_CONNECTION, 21, sent_by=CLIENT, replies_to=Secure)
class SecureOk(Method):
    """The answer to a challenge, which is not shown."""

    response: SecretLongStr = b""


@method(CLASS_CONNECTION, 30, sent_by=SERVER)
class Tune(Method):
    """The server's limits: channels, bytes in a frame, and seconds between heartbeats; 0 means no limit."""

    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(CLASS_CONNECTION, 31, sent_by=CLIENT, replies_to=Tune)
class TuneOk(Method):
    """The limits that both sides keep from now on; a heartbeat of 0 means none."""

    channel_max: Short = 0
    frame_max: Long = 0
    heartbeat: Short = 0


@method(CLASS_CONNECTION, 40, sent_by=CLIENT)
class Open(Method):
    """Choose a virtual host.  `capabilities` and `insist` are reserved."""

    virtual_host: ShortStr = "/"
    capabilities: ShortStr = ""
    insist: Bit = False


@method(CLASS_CONNECTION, 41, sent_by=SERVER, replies_to=Open)
class OpenOk(Method):
    """The connection is open.  `known_hosts` is reserved."""

    known_hosts: ShortStr = ""


@method(CLASS_CONNECTION, 50, sent_by=BOTH)
class Close(Method):
    """End the connection.  `class_id` and `method_id` name the method that is the cause, 0 when none is."""

    reply_code: Short = 0
    reply_text: ShortStr = ""
    class_id: Short = 0
    method_id: Short = 0


@method(CLASS_CONNECTION, 51, sent_by=BOTH, replies_to=Close)
class CloseOk(Method):
    """The last method on a connection."""


@method(CLASS_CONNECTION, 60, sent_by=SERVER)
class Blocked(Method):
    """The server reads no more publishes until `Unblocked`; sent to clients with the capability."""

    reason: ShortStr = ""


@method(CLASS_CONNECTION, 61, sent_by=SERVER)
class Unblocked(Method):
    """The server reads publishes again."""


@method(CLASS_CONNECTION, 70, sent_by=CLIENT)
class UpdateSecret(Method):
    """A new token in place of one that expires; it is not shown.  `reason` goes into the server's log."""

    new_secret: SecretLongText = ""
    reason: ShortStr = ""


@method(CLASS_CONNECTION, 71, sent_by=SERVER, replies_to=UpdateSecret)
class UpdateSecretOk(Method):
    """The new secret was accepted."""

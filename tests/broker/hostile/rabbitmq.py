"""Where RabbitMQ 3.10 answers otherwise than this broker, and why that is: everything else is the same, texts included.

The reasons are those of docs/supported.md, "where it differs from RabbitMQ".
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["DIFFERENCES", "ORDER", "Difference"]

TEXT: Final = "the same code; the text is ours, as RabbitMQ prints an Erlang term"
CRASH: Final = "RabbitMQ fails there: it closes the socket without a word, or with 541"
SILENT: Final = "RabbitMQ closes the socket without a word, and the reason is in its log; this broker says it"
SPECIFICATION: Final = "the specification's code, or its must"
LIMIT: Final = "a limit of this broker"
LENIENT: Final = "RabbitMQ refuses what does no harm"
ORDER: Final = "what comes in the same octets as a close is known when the answer is written"


class Difference(NamedTuple):
    """RabbitMQ's transcript, and the reason."""

    lines: tuple[str, ...]
    why: str


DIFFERENCES: Final[dict[str, Difference]] = {
    "frame of type 0": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of type 4": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of type 9": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of type 255": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "heartbeat with a payload": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "heartbeat on a channel": Difference(("connection.close 505 UNEXPECTED_FRAME - ...", "closed"), SPECIFICATION),
    "heartbeat on a channel that is not open": Difference(
        ("connection.close 505 UNEXPECTED_FRAME - ...", "closed"), SPECIFICATION
    ),
    "wrong last octet": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "empty method frame": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "method frame of three octets": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of frame_max and 9": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of 2 ** 31": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "frame of 2 ** 32 - 1": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "channel above channel_max": Difference(("channel.open-ok 101", "open"), SPECIFICATION),
    "unknown class": Difference(("closed",), CRASH),
    "unknown method": Difference(("closed",), CRASH),
    "unknown method on channel 0": Difference(("closed",), CRASH),
    "method without its arguments": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "method with its last octet missing": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "method with an octet too many": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "table longer than its frame": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), SPECIFICATION),
    "table of 2 ** 32 - 1": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), SPECIFICATION),
    "table with a value of an unknown type": Difference(("closed",), CRASH),
    "table with half a value": Difference(("closed",), CRASH),
    "table with a string of 2 GiB": Difference(("closed",), CRASH),
    "table of 33 levels": Difference(("queue.declare-ok 1", "open"), LIMIT),
    "table of 10,000 levels": Difference(("queue.declare-ok 1", "open"), LIMIT),
    "another protocol's header": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "HTTP": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "header on channel 0": Difference(("connection.close 505 UNEXPECTED_FRAME - ...", "closed"), TEXT),
    "body on channel 0": Difference(("connection.close 505 UNEXPECTED_FRAME - ...", "closed"), TEXT),
    "body beyond its size": Difference(("open",), SPECIFICATION),
    "body beyond its size in two": Difference(("open",), SPECIFICATION),
    "header of another class": Difference(
        (
            (
                "connection.close 505 UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 "
                "instead (60, 40)"
            ),
            "closed",
        ),
        SPECIFICATION,
    ),
    "header of an unknown class": Difference(
        (
            (
                "connection.close 505 UNEXPECTED_FRAME - expected content header for class 60, got one for class 99 "
                "instead (60, 40)"
            ),
            "closed",
        ),
        SPECIFICATION,
    ),
    "weight": Difference(
        (
            (
                "connection.close 505 UNEXPECTED_FRAME - expected content header for class 60, got non content "
                "header frame instead (60, 40)"
            ),
            "closed",
        ),
        SPECIFICATION,
    ),
    "size of 16 MiB and 1": Difference(("open",), LIMIT),
    "size of 2 ** 63": Difference(("open",), LIMIT),
    "size of 2 ** 64 - 1": Difference(("open",), LIMIT),
    "short header": Difference(("connection.close 501 FRAME_ERROR - ...", "closed"), TEXT),
    "header without flags": Difference(("connection.close 541 INTERNAL_ERROR (0, 0)", "closed"), CRASH),
    "flag that means nothing": Difference(("open",), SPECIFICATION),
    "name with NUL": Difference(("queue.declare-ok 1", "open"), SPECIFICATION),
    "more flags to come": Difference(("connection.close 541 INTERNAL_ERROR (0, 0)", "closed"), CRASH),
    "more flags that do not come": Difference(("open",), SPECIFICATION),
    "property that is missing": Difference(("connection.close 541 INTERNAL_ERROR (0, 0)", "closed"), CRASH),
    "octets behind the properties": Difference(("connection.close 541 INTERNAL_ERROR (0, 0)", "closed"), CRASH),
    "headers of 10,000 levels": Difference(("open",), LIMIT),
    "frame_max 0": Difference(("closed",), SILENT),
    "frame_max 1": Difference(("closed",), SILENT),
    "frame_max 4095": Difference(("closed",), SILENT),
    "frame_max 131073": Difference(("closed",), SILENT),
    "frame_max 2147483648": Difference(("closed",), SILENT),
    "channel_max 0": Difference(("closed",), SILENT),
    "channel_max 65535": Difference(("closed",), SILENT),
    "open before tune-ok": Difference(("closed",), SILENT),
    "start-ok twice": Difference(("closed",), SILENT),
    "channel before open": Difference(("connection.close 505 UNEXPECTED_FRAME - ...", "closed"), TEXT),
    "properties of 33 levels": Difference(("connection.tune", "waiting"), LIMIT),
    "properties of 500 levels": Difference(("connection.tune", "waiting"), LIMIT),
    "unknown mechanism": Difference(("closed",), SILENT),
    "mechanism in small letters": Difference(("closed",), SILENT),
    "mechanism without a name": Difference(("closed",), SILENT),
    "EXTERNAL without TLS": Difference(("closed",), SILENT),
    "PLAIN without NUL": Difference(("closed",), SILENT),
    "PLAIN without anything": Difference(("closed",), SILENT),
    "PLAIN with three NULs": Difference(("closed",), SILENT),
    "PLAIN with a NUL in the password": Difference(("closed",), SILENT),
    "PLAIN for somebody else": Difference(("closed",), SILENT),
    "AMQPLAIN that is no table": Difference(("closed",), SILENT),
    "AMQPLAIN without a password": Difference(("closed",), SILENT),
    "AMQPLAIN of 500 levels": Difference(("closed",), SILENT),
    "secure-ok after the login": Difference(("closed",), SILENT),
    "close before start-ok": Difference(("closed",), LENIENT),
    "close before tune-ok": Difference(("closed",), LENIENT),
    "close before open": Difference(
        ("connection.close 504 CHANNEL_ERROR - unexpected method in connection state opening (10, 50)", "closed"),
        LENIENT,
    ),
    "close with open": Difference(("connection.open-ok", "connection.close-ok", "closed"), ORDER),
    "close with a text that is no UTF-8": Difference(
        ("connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (10, 50)", "closed"), LENIENT
    ),
    "channel.close twice": Difference(("channel.close-ok 1", "channel.close-ok 1", "open"), ORDER),
    "channel.close and open at once": Difference(
        ("connection.close 504 CHANNEL_ERROR - second 'channel.open' seen (20, 10)", "closed"), ORDER
    ),
    "a content cut by the broker's close": Difference(
        (
            "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
            (
                "connection.close 505 UNEXPECTED_FRAME - expected content body, got non content body frame instead "
                "(60, 40)"
            ),
            "closed",
        ),
        LENIENT,
    ),
}

"""What this broker answers to each of `scripts`, line by line as in `transcript`; see `rabbitmq` for the other one.

A line that ends in three dots is compared up to these.
"""

from __future__ import annotations

from typing import Final

__all__ = ["VERDICTS"]


def _refused(mechanism: str) -> str:
    return (
        f"connection.close 403 ACCESS_REFUSED - Login was refused using authentication mechanism {mechanism}. "
        "For details see the broker logfile. (0, 0)"
    )


VERDICTS: Final[dict[str, tuple[str, ...]]] = {
    # F32
    "frame of type 0": ("connection.close 501 FRAME_ERROR - frame of unknown type 0 ...", "closed"),
    "frame of type 4": ("connection.close 501 FRAME_ERROR - frame of unknown type 4 ...", "closed"),
    "frame of type 9": ("connection.close 501 FRAME_ERROR - frame of unknown type 9 ...", "closed"),
    "frame of type 255": ("connection.close 501 FRAME_ERROR - frame of unknown type 255 ...", "closed"),
    "heartbeat with a payload": (
        "connection.close 501 FRAME_ERROR - heartbeat frame with 1 octets on channel 0 (0, 0)",
        "closed",
    ),
    "heartbeat on a channel": (
        "connection.close 501 FRAME_ERROR - heartbeat frame with 0 octets on channel 1 (0, 0)",
        "closed",
    ),
    "heartbeat on a channel that is not open": (
        "connection.close 501 FRAME_ERROR - heartbeat frame with 0 octets on channel 5 (0, 0)",
        "closed",
    ),
    "wrong last octet": ("connection.close 501 FRAME_ERROR - frame ends with octet 0 instead of 206 (0, 0)", "closed"),
    "empty method frame": ("connection.close 501 FRAME_ERROR - method frame of 0 octets (0, 0)", "closed"),
    "method frame of three octets": ("connection.close 501 FRAME_ERROR - method frame of 3 octets (0, 0)", "closed"),
    "frame of frame_max": ("basic.qos-ok 1", "open"),
    "frame of frame_max and 1": ("open",),
    "frame of frame_max and 8": ("open",),
    "frame of frame_max and 9": (
        "connection.close 501 FRAME_ERROR - frame of 131081 octets, larger than the 131080 allowed (0, 0)",
        "closed",
    ),
    "frame of 2 ** 31": (
        "connection.close 501 FRAME_ERROR - frame of 2147483656 octets, larger than the 131080 allowed (0, 0)",
        "closed",
    ),
    "frame of 2 ** 32 - 1": (
        "connection.close 501 FRAME_ERROR - frame of 4294967303 octets, larger than the 131080 allowed (0, 0)",
        "closed",
    ),
    "method on a channel that is not open": (
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (60, 10)",
        "closed",
    ),
    "method on a channel that was closed": (
        "channel.close-ok 1",
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (60, 10)",
        "closed",
    ),
    "close of a channel that is not open": (
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (20, 40)",
        "closed",
    ),
    "close-ok of a channel that is not open": (
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (20, 41)",
        "closed",
    ),
    "channel above channel_max": (
        (
            "connection.close 530 NOT_ALLOWED - number of channels opened (100) has reached the negotiated "
            "channel_max (100) (0, 0)"
        ),
        "closed",
    ),
    "second channel.open": ("connection.close 504 CHANNEL_ERROR - second 'channel.open' seen (20, 10)", "closed"),
    "unknown class": ("connection.close 540 NOT_IMPLEMENTED - there is no method 10 in class 99 (0, 0)", "closed"),
    "unknown method": ("connection.close 540 NOT_IMPLEMENTED - there is no method 999 in class 60 (0, 0)", "closed"),
    "unknown method on channel 0": (
        "connection.close 540 NOT_IMPLEMENTED - there is no method 999 in class 10 (0, 0)",
        "closed",
    ),
    "server's method": ("connection.close 503 COMMAND_INVALID - unimplemented method (50, 11)", "closed"),
    "channel's method on channel 0": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state running (60, 10)",
        "closed",
    ),
    "connection's method on a channel": (
        "connection.close 503 COMMAND_INVALID - unimplemented method (10, 50)",
        "closed",
    ),
    "method without its arguments": (
        ("connection.close 501 FRAME_ERROR - basic.qos.prefetch_size: the integer is cut, 0 octets are left (60, 10)"),
        "closed",
    ),
    "method with its last octet missing": (
        "connection.close 501 FRAME_ERROR - basic.qos.global_: the integer is cut, 0 octets are left (60, 10)",
        "closed",
    ),
    "method with an octet too many": (
        "connection.close 501 FRAME_ERROR - basic.qos: 1 octets after the last argument (60, 10)",
        "closed",
    ),
    "table longer than its frame": (
        (
            "connection.close 502 SYNTAX_ERROR - queue.declare.arguments: the table says 1000 octets, 0 are left "
            "(50, 10)"
        ),
        "closed",
    ),
    "table of 2 ** 32 - 1": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "table with a value of an unknown type": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "table with half a value": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "table with a string of 2 GiB": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "table of 32 levels": ("queue.declare-ok 1", "open"),
    "table of 33 levels": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "table of 10,000 levels": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "name with NUL": ("connection.close 501 FRAME_ERROR - a name may not contain NUL (0, 0)", "closed"),
    "type that is no UTF-8": ("connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (0, 0)", "closed"),
    "tag that is no UTF-8": ("connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (0, 0)", "closed"),
    "exchange of a publish that is no UTF-8": (
        "channel.close 1 404 NOT_FOUND - no exchange '\udcff\udcfe' in vhost '/' (60, 40)",
        "open",
    ),
    "key of a table that is no UTF-8": ("queue.declare-ok 1", "open"),
    "name that is no UTF-8": ("connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (0, 0)", "closed"),
    "missing name that is no UTF-8": (
        "connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (0, 0)",
        "closed",
    ),
    "name with a line end": ("channel.close 1 404 NOT_FOUND - no queue 'hostileq' in vhost '/' (50, 10)", "open"),
    "another protocol's header": ("connection.close 501 FRAME_ERROR - frame of unknown type 65 ...", "closed"),
    "HTTP": ("connection.close 501 FRAME_ERROR - frame of unknown type 71 ...", "closed"),
    # F33
    "header first": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "body first": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "body in place of the header": (
        (
            "connection.close 505 UNEXPECTED_FRAME - expected content header for class 60, got non content "
            "header frame instead (60, 40)"
        ),
        "closed",
    ),
    "header on a channel that is not open": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "body on a channel that is not open": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "header on channel 0": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "body on channel 0": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "second header": (
        ("connection.close 505 UNEXPECTED_FRAME - expected content body, got non content body frame instead (60, 40)"),
        "closed",
    ),
    "method in place of the header": (
        (
            "connection.close 505 UNEXPECTED_FRAME - expected content header for class 60, got non content "
            "header frame instead (60, 40)"
        ),
        "closed",
    ),
    "method in place of the body": (
        ("connection.close 505 UNEXPECTED_FRAME - expected content body, got non content body frame instead (60, 40)"),
        "closed",
    ),
    "method inside the body": (
        ("connection.close 505 UNEXPECTED_FRAME - expected content body, got non content body frame instead (60, 40)"),
        "closed",
    ),
    "body beyond its size": (
        "connection.close 501 FRAME_ERROR - body frames of 6 octets in a content of 5 (0, 0)",
        "closed",
    ),
    "body beyond its size in two": (
        "connection.close 501 FRAME_ERROR - body frames of 6 octets in a content of 5 (0, 0)",
        "closed",
    ),
    "body after an empty content": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "empty body after an empty content": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "empty bodies inside a content": ("open",),
    "header of another class": (
        "connection.close 501 FRAME_ERROR - content header of class 50 after a basic method (0, 0)",
        "closed",
    ),
    "header of an unknown class": (
        "connection.close 501 FRAME_ERROR - content header of class 99 after a basic method (0, 0)",
        "closed",
    ),
    "weight": ("connection.close 501 FRAME_ERROR - content header of weight 1; it must be 0 (0, 0)", "closed"),
    "size of 16 MiB and 1": (
        (
            "channel.close 1 406 PRECONDITION_FAILED - message size 16777217 is larger than configured max size "
            "16777216 (60, 40)"
        ),
        "open",
    ),
    "size of 2 ** 63": (
        (
            "channel.close 1 406 PRECONDITION_FAILED - message size 9223372036854775808 is larger than "
            "configured max size 16777216 (60, 40)"
        ),
        "open",
    ),
    "size of 2 ** 64 - 1": (
        (
            "channel.close 1 406 PRECONDITION_FAILED - message size 18446744073709551615 is larger than "
            "configured max size 16777216 (60, 40)"
        ),
        "open",
    ),
    "missing rest": ("open",),
    "short header": ("connection.close 501 FRAME_ERROR - content header of 8 octets (0, 0)", "closed"),
    "header without flags": (
        (
            "connection.close 501 FRAME_ERROR - message properties: properties: the flag word is cut, 0 octets "
            "are left (60, 40)"
        ),
        "closed",
    ),
    "flag that means nothing": (
        (
            "connection.close 501 FRAME_ERROR - message properties: properties: flags 0x0002 stand for no known "
            "property (60, 40)"
        ),
        "closed",
    ),
    "more flags to come": ("open",),
    "more flags that do not come": (
        "connection.close 501 FRAME_ERROR - message properties: properties: a continued flag word is cut (60, 40)",
        "closed",
    ),
    "property that is missing": (
        (
            "connection.close 501 FRAME_ERROR - message properties: content_type: the short string's length is "
            "missing (60, 40)"
        ),
        "closed",
    ),
    "octets behind the properties": (
        (
            "connection.close 501 FRAME_ERROR - message properties: properties: 3 octets after the last property "
            "(60, 40)"
        ),
        "closed",
    ),
    "headers of 10,000 levels": ("connection.close 502 SYNTAX_ERROR - ...", "closed"),
    "property that is no UTF-8": ("open",),
    "key that is no UTF-8": ("basic.return 1 312 NO_ROUTE", "open"),
    "content of a method that has none": (
        "basic.qos-ok 1",
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    # F39
    "frame_max 0": (
        (
            "connection.close 530 NOT_ALLOWED - negotiated frame_max = 0 (no limit) is higher than the maximum "
            "allowed value (131072) (10, 31)"
        ),
        "closed",
    ),
    "frame_max 1": (
        ("connection.close 502 SYNTAX_ERROR - connection.tune-ok: frame_max 1 is below the minimum of 4096 (10, 31)"),
        "closed",
    ),
    "frame_max 4095": (
        (
            "connection.close 502 SYNTAX_ERROR - connection.tune-ok: frame_max 4095 is below the minimum of 4096 "
            "(10, 31)"
        ),
        "closed",
    ),
    "frame_max 4096": ("connection.open-ok", "waiting"),
    "frame_max 131073": (
        (
            "connection.close 530 NOT_ALLOWED - negotiated frame_max = 131073 is higher than the maximum allowed "
            "value (131072) (10, 31)"
        ),
        "closed",
    ),
    "frame_max 2147483648": (
        (
            "connection.close 530 NOT_ALLOWED - negotiated frame_max = 2147483648 is higher than the maximum "
            "allowed value (131072) (10, 31)"
        ),
        "closed",
    ),
    "channel_max 0": (
        (
            "connection.close 530 NOT_ALLOWED - negotiated channel_max = 0 (no limit) is higher than the maximum "
            "allowed value (256) (10, 31)"
        ),
        "closed",
    ),
    "channel_max 1": ("connection.open-ok", "waiting"),
    "channel_max 65535": (
        (
            "connection.close 530 NOT_ALLOWED - negotiated channel_max = 65535 is higher than the maximum "
            "allowed value (256) (10, 31)"
        ),
        "closed",
    ),
    "heartbeat 1": ("connection.open-ok", "closed"),
    "heartbeat 65535": ("connection.open-ok", "waiting"),
    "tune-ok twice": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state opening (10, 31)",
        "closed",
    ),
    "open before tune-ok": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state tuning (10, 40)",
        "closed",
    ),
    "start-ok twice": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state tuning (10, 11)",
        "closed",
    ),
    "channel before open": (
        "connection.close 505 UNEXPECTED_FRAME - expected method frame, got non method frame instead (0, 0)",
        "closed",
    ),
    "unknown virtual host": ("connection.close 530 NOT_ALLOWED - vhost nowhere not found (10, 40)", "closed"),
    "virtual host that is no UTF-8": (
        "connection.close 501 FRAME_ERROR - Malformed UTF-8 in shortstr (10, 40)",
        "closed",
    ),
    "open twice": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state running (10, 40)",
        "closed",
    ),
    # F40
    "properties of 33 levels": ("closed",),
    "properties of 500 levels": ("closed",),
    "properties of 1,000 entries": ("closed",),
    "properties beyond the frame": ("closed",),
    "properties with a string of 2 GiB": ("closed",),
    "properties with an unknown type": ("closed",),
    "properties longer than the frame": ("closed",),
    "properties with a key that is no UTF-8": ("connection.tune", "waiting"),
    "the same key twice": ("connection.tune", "waiting"),
    "capabilities that are no table": ("connection.tune", "waiting"),
    "capability that is no boolean": ("connection.tune", "waiting"),
    "no properties": ("connection.tune", "waiting"),
    "empty start-ok": ("closed",),
    "start-ok on channel 1": ("closed",),
    "tune-ok in place of start-ok": ("closed",),
    "second protocol header": ("closed",),
    # F41
    "unknown mechanism": (_refused("KERBEROS"), "closed"),
    "mechanism in small letters": (_refused("plain"), "closed"),
    "mechanism without a name": (_refused(""), "closed"),
    "mechanism that is no UTF-8": ("closed",),
    "EXTERNAL without TLS": (_refused("EXTERNAL"), "closed"),
    "wrong password": (_refused("PLAIN"), "closed"),
    "wrong password, not told": ("closed",),
    "unknown user": (_refused("PLAIN"), "closed"),
    "PLAIN without NUL": (_refused("PLAIN"), "closed"),
    "PLAIN without anything": (_refused("PLAIN"), "closed"),
    "PLAIN with three NULs": (_refused("PLAIN"), "closed"),
    "PLAIN with a NUL in the password": (_refused("PLAIN"), "closed"),
    "PLAIN for somebody else": (_refused("PLAIN"), "closed"),
    "PLAIN that is no UTF-8": (_refused("PLAIN"), "closed"),
    "PLAIN of 3,000 octets": (_refused("PLAIN"), "closed"),
    "AMQPLAIN": ("connection.tune", "waiting"),
    "AMQPLAIN that is no table": (_refused("AMQPLAIN"), "closed"),
    "AMQPLAIN without a password": (_refused("AMQPLAIN"), "closed"),
    "AMQPLAIN with a number": (_refused("AMQPLAIN"), "closed"),
    "AMQPLAIN of 500 levels": (_refused("AMQPLAIN"), "closed"),
    "secure-ok that nobody asked for": ("closed",),
    "secure-ok after the login": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state tuning (10, 21)",
        "closed",
    ),
    # F30
    "close before start-ok": ("connection.close-ok", "closed"),
    "close before tune-ok": ("connection.close-ok", "closed"),
    "close before open": ("connection.close-ok", "closed"),
    "close with open": ("connection.close-ok", "closed"),
    "close": ("connection.close-ok", "closed"),
    "close with a channel": ("connection.close-ok", "closed"),
    "close twice": ("connection.close-ok", "closed"),
    "close inside a content": ("connection.close-ok", "closed"),
    "more behind the close": ("connection.close-ok", "closed"),
    "close of an unknown code": ("connection.close-ok", "closed"),
    "close with a text that is no UTF-8": ("connection.close-ok", "closed"),
    "close that crosses the broker's": (
        "connection.close 503 COMMAND_INVALID - unimplemented method (50, 11)",
        "closed",
    ),
    "close-ok that nobody asked for": (
        "connection.close 504 CHANNEL_ERROR - unexpected method in connection state running (10, 51)",
        "closed",
    ),
    "close-ok before start-ok": ("closed",),
    # F31
    "channel.close": ("channel.close-ok 1", "open"),
    "channel.close twice": ("channel.close-ok 1", "open"),
    "channel.close and open at once": (
        "channel.close-ok 1",
        "connection.close 504 CHANNEL_ERROR - second 'channel.open' seen (20, 10)",
        "closed",
    ),
    "channel.close-ok that nobody asked for": (
        "connection.close 503 COMMAND_INVALID - unimplemented method (20, 41)",
        "closed",
    ),
    "channel.close inside a content": (
        ("connection.close 505 UNEXPECTED_FRAME - expected content body, got non content body frame instead (60, 40)"),
        "closed",
    ),
    "channel.close that crosses the broker's": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "channel.close-ok 1",
        "open",
    ),
    "more behind what the channel is closed for": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "open",
    ),
    "a content cut by the broker's close": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "channel.open-ok 1",
        "open",
    ),
    "open before close-ok": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "connection.close 504 CHANNEL_ERROR - second 'channel.open' seen (20, 10)",
        "closed",
    ),
    "open after close-ok": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "channel.open-ok 1",
        "basic.qos-ok 1",
        "open",
    ),
    "close-ok twice": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (20, 41)",
        "closed",
    ),
    "channel error and connection error at once": (
        "channel.close 1 404 NOT_FOUND - no queue 'hostile.missing' in vhost '/' (50, 10)",
        "connection.close 504 CHANNEL_ERROR - expected 'channel.open' (60, 10)",
        "closed",
    ),
}

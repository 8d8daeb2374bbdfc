"""Which names of direct reply-to a broker can have made."""

from __future__ import annotations

from base64 import b64encode

import pytest

from txmsg.rpc.direct_reply_to import is_direct_reply_to

PREFIX = "amq.rabbitmq.reply-to."
REAL = "g1h2AA5yZXBseUA4MjYxNDE5NgAAAtcAAAAAawH5ww==.Go20evYeum5DgH8CAuJevg=="


def test_real_ones() -> None:
    """C6.1: of RabbitMQ, newer and older, and of the embedded broker."""
    old = b"\x83gd\x00\x06rabbit" + b"\x00" * 9
    for rest in (REAL, "OYvLZdLPDGFqkX8nalVLsQ.5kNV56DC8q6YCoMg0cZeHA", f"{b64encode(old).decode()}.AAAA"):
        assert is_direct_reply_to(PREFIX + rest)


@pytest.mark.parametrize(
    "rest",
    [
        "",
        ".",
        "..",
        "garbage",
        "AAAA.BBBB",
        ".AAAA",
        REAL + ".x",
        REAL[4:],
        "A" + REAL,
        b64encode(b"\x83").decode() + ".AAAA",
        b64encode(b"\x83Xv\xff\xff").decode() + ".AAAA",
        b64encode(b"\x83Xw\x02\xff\xff" + b"\x00" * 12).decode() + ".AAAA",
        b64encode(b"\x83Xw\x01a" + b"\x00" * 11).decode() + ".AAAA",
        b64encode(b"\x83h\x00").decode() + ".AAAA",
        "g1h2AA5y.ZXBs\n",
    ],
)
def test_made_up(rest: str) -> None:
    """C6.1: RabbitMQ 3.10 would close the connection for it."""
    assert not is_direct_reply_to(PREFIX + rest)


def test_others() -> None:
    """A queue's name is none."""
    assert not is_direct_reply_to("amq.rabbitmq.reply-to")
    assert not is_direct_reply_to("amq.gen-x")

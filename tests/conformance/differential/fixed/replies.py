"""Direct reply-to."""

from __future__ import annotations

from typing import Final

from tests.conformance.differential.fixed.notation import ask, ask_at, bind, consume, declare, get, put
from tests.conformance.differential.steps import Call, Close, Program, Publish, Reply
from txmsg.wire.methods import basic, channel, confirm, queue

__all__ = ["PROGRAMS"]

_REPLIES: Final = "amq.rabbitmq.reply-to"

PROGRAMS: Final = (
    Program(
        "reply consumers that are refused",
        (
            *ask(
                consume(_REPLIES, "r"),
                consume(_REPLIES, "r", no_ack=True),
                consume(_REPLIES, "s", no_ack=True),
                consume(_REPLIES, "r", no_ack=True, exclusive=True),
                consume(_REPLIES, "r", no_ack=True),
                consume(_REPLIES, "", no_ack=True, nowait=True),
                basic.Cancel("r"),
                get(_REPLIES),
                queue.Purge(queue=_REPLIES),
                bind(_REPLIES, "amq.fanout"),
                queue.Unbind(queue=_REPLIES, exchange="amq.fanout"),
                queue.Delete(queue=_REPLIES),
                consume(f"{_REPLIES}.x", "s", no_ack=True),
                declare("q"),
            ),
            *put("1", reply_to=_REPLIES),
            *put("2", exchange="amq.fanout", reply_to=_REPLIES),
            *ask(consume(_REPLIES, "r", no_ack=True), consume("q", "r")),
            *ask(consume("q", "r"), consume(_REPLIES, "r", no_ack=True)),
        ),
    ),
    Program(
        "replies",
        (
            *ask(declare("q"), consume(_REPLIES, "r", no_ack=True)),
            *put("1", reply_to=_REPLIES),
            *put("2", reply_to=f"{_REPLIES}.x"),
            *put("3", to="missing", reply_to=_REPLIES),
            *ask_at("b1", get(), confirm.Select()),
            Reply("b1"),
            Reply("b1", b"mandatory", mandatory=True),
            Reply("b1", b"elsewhere", "amq.direct", mandatory=True),
            Publish("b1", "", _REPLIES, b"nobody", True),
            Publish("b1", "", f"{_REPLIES}.x", b"nobody", True),
            Publish("b1", "", _REPLIES, b"nobody"),
            *ask(get("q", no_ack=False), declare("q", passive=True)),
            *ask(basic.Cancel("r")),
            Reply("b1", b"late", mandatory=True),
            *put("4", reply_to=_REPLIES),
            *ask(consume(_REPLIES, "r", no_ack=True)),
            Reply("b1", b"to the old key", mandatory=True),
            *put("5", reply_to=_REPLIES),
            *ask_at("b1", get()),
            Reply("b1", b"to the new one"),
            Call("a1", channel.Close()),
            Reply("b1", b"to nobody", mandatory=True),
            *ask(consume(_REPLIES, "r", no_ack=True)),
            *put("6", reply_to=_REPLIES),
            *ask_at("b1", get()),
            Close("a"),
            Reply("b1", b"to nobody", mandatory=True),
        ),
    ),
)

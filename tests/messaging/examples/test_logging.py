"""What the layer does, seen from outside."""

from __future__ import annotations

import os
import subprocess
import sys

PROGRAM = """
from twisted.internet.task import react
from txmsg.errors import ConnectFailed, NotFound
from txmsg.messaging import Connection, Queue


async def main(reactor):
    async with Connection("memory://examples", reactor=reactor) as connection:
        try:
            await Queue("missing")(connection).queue_declare(passive=True)
        except NotFound as error:
            print(error.reply_code)
    try:
        await Connection("amqp://user:S3CRET@127.0.0.1:1//", reactor=reactor).connect()
    except ConnectFailed:
        print("nobody there")


react(main)
"""


def test_log_debug() -> None:
    """Example 48: with TXMSG_LOG_DEBUG every call on a channel is on standard error; a password never."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TXMSG_LOG_DEBUG": "1"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "404\nnobody there\n"), done.stderr
    assert "queue_declare" in done.stderr
    assert "missing" in done.stderr
    assert "127.0.0.1:1" in done.stderr
    assert "S3CRET" not in done.stderr

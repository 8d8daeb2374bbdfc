"""The command line tools of rabbitmq-c (Debian: amqp-tools), the C client."""

from __future__ import annotations

import shutil
import subprocess

import pytest

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(shutil.which("amqp-publish") is None, reason="amqp-tools is not installed"),
]


def run(url: str, tool: str, *arguments: str, stdin: bytes = b"", status: int = 0) -> bytes:
    done = subprocess.run(
        [f"amqp-{tool}", f"--url={url}", *arguments], input=stdin, capture_output=True, timeout=30, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr


def test_tools(vhost_url: str) -> None:
    """R34: declare, publish (three frames, too), get, consume with ack, delete; and what an empty queue says."""
    large = bytes(range(256)) * 1200
    assert run(vhost_url, "declare-queue", "-q", "c") == b"c\n"
    for body in (b"one", b"two", large):
        run(vhost_url, "publish", "-r", "c", "-p", "-C", "text/plain", stdin=body)
    assert run(vhost_url, "get", "-q", "c") == b"one"
    assert run(vhost_url, "consume", "-q", "c", "-c", "1", "cat") == b"two"
    assert run(vhost_url, "get", "-q", "c") == large
    run(vhost_url, "get", "-q", "c", status=2)
    assert run(vhost_url, "delete-queue", "-q", "c") == b"0\n"


def test_bindings_and_errors(vhost_url: str) -> None:
    """R34: a consumer with an exchange and a key; a queue that is not there."""
    assert run(vhost_url, "declare-queue", "-q", "dead") == b"dead\n"
    told = run(vhost_url, "consume", "-q", "none", "-c", "1", "cat", status=1)
    assert b"NOT_FOUND - no queue 'none' in vhost" in told
    run(vhost_url, "publish", "-e", "amq.direct", "-r", "nobody", "-b", "x")
    consumer = subprocess.Popen(
        ["amqp-consume", f"--url={vhost_url}", "-e", "amq.topic", "-r", "a.#", "-c", "1", "cat"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert consumer.stderr is not None
    try:
        assert consumer.stderr.readline().startswith(b"Server provided queue name: amq.gen-")
        for _ in range(200):
            run(vhost_url, "publish", "-e", "amq.topic", "-r", "a.b.c", "-b", "bound")
            try:
                output, _ = consumer.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                continue
        assert output == b"bound"
    finally:
        consumer.kill()
        consumer.wait()

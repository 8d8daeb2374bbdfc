"""The exit codes: every error has one, with a line that says what to change."""

from __future__ import annotations

import inspect

import pytest

from txmsg import errors
from txmsg.service.exit_codes import ExitCode, Stage, explain


def judged(error: BaseException, stage: Stage) -> tuple[int, str]:
    outcome = explain(error, stage, address="amqp://bob:***@broker:5672/shop", queue="work")
    assert "\n" not in outcome.line
    return outcome.exit_code, outcome.line


@pytest.mark.parametrize(
    ("error", "stage", "code", "advice"),
    [
        (errors.ConnectFailed("refused"), Stage.CONNECT, 14, "host and port"),
        (errors.ConnectTimeout("10 s"), Stage.CONNECT, 14, "firewall"),
        (errors.HandshakeTimeout("10 s"), Stage.CONNECT, 14, "amqps://"),
        (errors.IncompatibleProtocol("HTTP"), Stage.CONNECT, 14, "amqps://"),
        (errors.ConnectionLost(), Stage.CONNECT, 14, "broker's log"),
        (errors.ConnectionForced("shutdown"), Stage.DECLARE, 14, "broker's log"),
        (errors.TLSFailed("wrong version number"), Stage.CONNECT, 16, "speaks TLS"),
        (errors.PeerVerificationFailed("no match"), Stage.CONNECT, 16, "--tls-ca"),
        (errors.ClientCertificateRequired("alert"), Stage.CONNECT, 16, "--tls-cert"),
        (errors.AuthenticationFailed("refused"), Stage.CONNECT, 17, "TXMSG_PASSWORD"),
        (errors.NoCommonMechanism("EXTERNAL only"), Stage.CONNECT, 17, "client certificate"),
        (errors.VirtualHostRefused("not found"), Stage.CONNECT, 15, "virtual host"),
        (errors.InvalidPath("unknown"), Stage.CONNECT, 15, "virtual host"),
        (errors.ConfigurationError("bad"), Stage.CONNECT, 78, "setting"),
        (errors.NotFound("no queue"), Stage.CHECK, 10, "--declare"),
        (errors.PreconditionFailed("inequivalent arg"), Stage.DECLARE, 10, "leave out --declare"),
        (errors.ResourceLocked("exclusive"), Stage.DECLARE, 10, "exclusive"),
        (errors.NotFound("no exchange"), Stage.BIND, 10, "--bind"),
        (errors.NotFound("no queue"), Stage.CONSUME, 10, "broker's log"),
        (errors.AccessRefused("access to queue refused"), Stage.CONSUME, 15, "set_permissions"),
        (errors.AccessRefused("queue in exclusive use"), Stage.CONSUME, 15, "another consumer"),
        (errors.OperationTimeout("30 s"), Stage.DECLARE, 14, "does not answer"),
        (RuntimeError("oops"), Stage.DECLARE, 11, "RuntimeError: oops"),
        (errors.ConnectionLost(), Stage.RUNNING, 14, "supervisor"),
        (errors.HeartbeatTimeout(), Stage.RUNNING, 14, "supervisor"),
        (errors.ConnectionForced("shutdown"), Stage.RUNNING, 14, "supervisor"),
        (errors.AuthenticationFailed("refused"), Stage.RUNNING, 17, "TXMSG_PASSWORD"),
        (errors.ConsumerCancelled("t", "server", "work"), Stage.RUNNING, 12, "must exist"),
        (errors.NotFound("no queue"), Stage.RUNNING, 12, "must exist"),
        (errors.AccessRefused("access to queue refused"), Stage.RUNNING, 15, "set_permissions"),
        (errors.PreconditionFailed("delivery acknowledgement timed out"), Stage.RUNNING, 12, "broker's log"),
        (RuntimeError("oops"), Stage.RUNNING, 11, "traceback"),
    ],
)
def test_each_error_has_its_code_and_advice(error: BaseException, stage: Stage, code: int, advice: str) -> None:
    """The published table, and a line that says what to fix (R33)."""
    exit_code, line = judged(error, stage)
    assert exit_code == code
    assert advice in line
    if stage is Stage.CONNECT:
        assert line.startswith("cannot connect to amqp://bob:***@broker:5672/shop: ")
    elif stage is Stage.RUNNING and code in (14, 17):
        assert line.startswith("gave up connecting to amqp://bob:***@broker:5672/shop again: ")
    else:
        assert "'work'" in line


def test_every_error_of_the_library_maps_to_a_published_code() -> None:
    """No connection or channel error of today or tomorrow falls through to "unexpected" at start."""
    codes = {int(code) for code in ExitCode}
    for name in errors.__all__:
        kind = getattr(errors, name)
        if inspect.isclass(kind) and issubclass(kind, (errors.ConnectionClosed, errors.ChannelClosed)):
            for stage in Stage:
                code, _ = judged(kind("why"), stage)
                assert code in codes
                assert code != ExitCode.START, (name, stage)


def test_a_peers_text_cannot_break_the_line() -> None:
    """C3.3: line feeds, escapes and megabytes from a peer end up as one line of bounded length."""
    code, line = judged(RuntimeError("a\nb\x1b[31m" + "x" * 1_000_000), Stage.CONNECT)
    assert code == 11
    assert len(line) < 1000
    assert "\x1b" not in line

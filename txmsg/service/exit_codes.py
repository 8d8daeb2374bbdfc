"""The exit codes of `twistd txmsg-consumer`, and the one line that explains each end.

The table is public (docs/consumer-service.md): process supervisors decide by it whether to restart.
The numbers 10 to 15 are those of fedora-messaging, so units written for it keep their meaning; 64, 75
and 78 are sysexits.h's.  Invariant: every exception maps to exactly one code, and its line holds neither
a line feed nor a secret.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from txmsg import errors
from txmsg.errors import clip

__all__ = ["ExitCode", "Outcome", "Stage", "explain", "explain_server"]

#: What an error says is cut to so many characters, so that the advice after it is not lost.
_ERROR_LIMIT = 300


class ExitCode(enum.IntEnum):
    """The published exit codes."""

    OK = 0
    """Stopped on request; everything taken was settled."""
    DECLARATION = 10
    """The queue or a binding is not as asked for: missing, or declared with other arguments."""
    START = 11
    """Something unexpected at start; the log has the traceback."""
    CANCELLED = 12
    """The consumer ended, and could not come back within `resubscribe_limit`: its queue was deleted, say."""
    HANDLER = 13
    """The handler raised Halt (which may name another code) or ended with SystemExit."""
    CONNECTION = 14
    """Gave up: the broker could not be reached within `start_limit`, or again within `recovery_limit`."""
    PERMISSION = 15
    """The virtual host, or the permission for the queue, was refused."""
    TLS = 16
    """TLS failed: wrong port, certificate not accepted by one of the two sides."""
    AUTHENTICATION = 17
    """The broker refused the login."""
    USAGE = 64
    """The command line cannot be understood."""
    DRAIN_DEADLINE = 75
    """Stopped on request, but handlers were still at work at the deadline; their messages went back."""
    CONFIGURATION = 78
    """A setting, a file or the handler cannot be used."""


class Stage(enum.Enum):
    """How far the service had come when an error struck; the value reads after "cannot"."""

    CONNECT = "connect"
    DECLARE = "declare the queue"
    CHECK = "use the queue"
    BIND = "bind the queue"
    CONSUME = "consume"
    RUNNING = "go on"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How the service ended: the process's exit code, one line, the number of handlers cut short."""

    exit_code: int
    line: str
    unfinished: int = 0


# Most derived first: the first class that fits gives code and advice.
_AT_CONNECT: tuple[tuple[type[BaseException], ExitCode, str], ...] = (
    (errors.ConfigurationError, ExitCode.CONFIGURATION, "correct the setting"),
    (
        errors.ClientCertificateRequired,
        ExitCode.TLS,
        "give a client certificate that the broker accepts with --tls-cert and --tls-key",
    ),
    (
        errors.PeerVerificationFailed,
        ExitCode.TLS,
        "the URL must name the host as the broker's certificate does, and --tls-ca the authority that signed it",
    ),
    (errors.TLSFailed, ExitCode.TLS, "check that the port speaks TLS (5671 by default), and the --tls-* files"),
    (
        errors.NoCommonMechanism,
        ExitCode.AUTHENTICATION,
        "set a user name and password, or a client certificate, of a kind that the broker offers",
    ),
    (
        errors.AuthenticationFailed,
        ExitCode.AUTHENTICATION,
        "check the user name and password (TXMSG_USERNAME, TXMSG_PASSWORD, TXMSG_PASSWORD_FILE)",
    ),
    (
        errors.VirtualHostRefused,
        ExitCode.PERMISSION,
        "check the virtual host at the end of the URL, and that the user has access to it",
    ),
    (errors.InvalidPath, ExitCode.PERMISSION, "check the virtual host at the end of the URL"),
    (
        errors.HandshakeTimeout,
        ExitCode.CONNECTION,
        "check that the port is an AMQP 0-9-1 one; a TLS port needs amqps:// in the URL",
    ),
    (
        errors.IncompatibleProtocol,
        ExitCode.CONNECTION,
        "check that the port is an AMQP 0-9-1 one; a TLS port needs amqps:// in the URL",
    ),
    (errors.ConnectTimeout, ExitCode.CONNECTION, "check the host and port in the URL, and the firewall between"),
    (errors.ConnectFailed, ExitCode.CONNECTION, "check the host and port in the URL"),
)

_DECLARATION_ADVICE: dict[tuple[Stage, type[BaseException]], str] = {
    (Stage.DECLARE, errors.PreconditionFailed): (
        "the queue exists with other arguments: leave out --declare, or set durable, auto_delete and "
        "queue_arguments as the queue has them"
    ),
    (Stage.CHECK, errors.NotFound): "create the queue, or let the service do it with --declare",
    (Stage.BIND, errors.NotFound): "create the exchange named in --bind first",
}


def explain(error: BaseException, stage: Stage, *, address: str, queue: str) -> Outcome:
    """The exit code for `error`, and a line that says what happened and what to change.

    `address` is the broker's URL without its password; `queue` the queue's name.
    """
    code, advice = _judge(error, stage)
    said = clip(" ".join(str(error).split()), _ERROR_LIMIT) or type(error).__name__
    if stage is Stage.CONNECT:
        subject = f"cannot connect to {address}"
    elif stage is Stage.RUNNING and _is_of_connecting(error):
        subject = f"gave up connecting to {address} again"
    elif stage is Stage.RUNNING:
        subject = f"consuming from queue {clip(queue)!r} at {address} ended"
    else:
        subject = f"cannot {stage.value} {clip(queue)!r} at {address}".replace("consume ", "consume from ")
    if code is ExitCode.START:
        said = f"{type(error).__name__}: {said}"
    return Outcome(int(code), f"{subject}: {said}; {advice}")


def explain_server(error: BaseException, what: str, *, is_running: bool) -> Outcome:
    """The same for a server: `what` has ended, or could not start."""
    if isinstance(error, errors.OperationalError) and error.cause is not None:
        error = error.cause  # what it gave up on says more
    is_of_connecting = _is_of_connecting(error)
    stage = Stage.RUNNING if is_running else Stage.CONNECT if is_of_connecting else Stage.DECLARE
    code, advice = _judge(error, stage)
    if stage is Stage.DECLARE and isinstance(error, errors.PreconditionFailed):
        advice = "the queue exists with other arguments: give the server a Queue that has them, or use another queue"
    said = clip(" ".join(str(error).split()), _ERROR_LIMIT) or type(error).__name__
    if code is ExitCode.START:
        said = f"{type(error).__name__}: {said}"
    fate = "has ended" if is_running else "cannot connect" if is_of_connecting else "cannot start"
    return Outcome(int(code), f"{what} {fate}: {said}; {advice}")


def _is_of_connecting(error: BaseException) -> bool:
    return isinstance(error, (errors.ConnectionClosed, errors.ConfigurationError))


def _judge(error: BaseException, stage: Stage) -> tuple[ExitCode, str]:
    if isinstance(error, errors.AccessRefused):
        if "in exclusive use" in error.reply_text:
            return ExitCode.PERMISSION, "another consumer has the queue for itself: stop it, or do not use exclusive"
        return ExitCode.PERMISSION, "give the user the permission (rabbitmqctl set_permissions)"
    if stage is Stage.RUNNING and not _is_of_connecting(error):
        if isinstance(error, (errors.ConsumerCancelled, errors.NotFound)):
            return ExitCode.CANCELLED, "the queue must exist before the service is started again"
        if isinstance(error, errors.ChannelClosed):
            return ExitCode.CANCELLED, "see the broker's log for the reason"
        return ExitCode.START, "see the traceback in the log"
    for kind, code, advice in _AT_CONNECT:
        if isinstance(error, kind):
            return code, advice
    if isinstance(error, errors.ConnectionClosed) and stage is Stage.RUNNING:
        return ExitCode.CONNECTION, "see the broker's log, and let a supervisor start the service again"
    if isinstance(error, errors.ConnectionClosed):
        return ExitCode.CONNECTION, "see the broker's log for the reason"
    if isinstance(error, errors.ResourceLocked):
        return ExitCode.DECLARATION, "another connection has the queue as exclusive: stop it, or use another queue"
    if isinstance(error, errors.ChannelClosed):
        advice = _DECLARATION_ADVICE.get((stage, type(error)), "see the broker's log for the reason")
        return ExitCode.DECLARATION, advice
    if isinstance(error, errors.OperationTimeout):
        return ExitCode.CONNECTION, "the broker does not answer: see its log and its alarms"
    return ExitCode.START, "see the traceback in the log"

"""The long-running consumer: `twistd txmsg-consumer`, and the service behind it.

A handler needs three names from here: :class:`Reject`, :class:`Requeue` and :class:`Halt`, which it raises
to decide what becomes of its message; :func:`consumes` declares one together with its queues.  The rest is for programs
that put a :class:`ConsumerService` into a .tac file or an application of their own.  See docs/consumer-service.md.

Importing this package imports no reactor.
"""

from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.consumer import ConsumerService
from txmsg.service.declared import DeclaredConsumer, consumes
from txmsg.service.exit_codes import ExitCode, Outcome
from txmsg.service.handler import HandlerImportError, ThreadDelivery
from txmsg.service.policy import Halt, HandlerDecision, Reject, Requeue
from txmsg.service.settings import SettingError

__all__ = [
    "ConsumerConfig",
    "ConsumerService",
    "DeclaredConsumer",
    "ExitCode",
    "Halt",
    "HandlerDecision",
    "HandlerImportError",
    "Outcome",
    "Reject",
    "Requeue",
    "SettingError",
    "ThreadDelivery",
    "consumes",
    "load_config",
]

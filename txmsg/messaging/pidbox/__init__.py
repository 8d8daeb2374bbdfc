"""Commands for processes: each is a node of a mailbox, hears what it is told, and replies.

The protocol is that of Kombu 5's pidbox, with which Celery controls its workers.
"""

from __future__ import annotations

from txmsg.messaging.pidbox.addressing import MATCHERS, Matcher
from txmsg.messaging.pidbox.mailbox import REPLY_QUEUE_EXPIRES, Mailbox
from txmsg.messaging.pidbox.node import Handler, Node

__all__ = ["MATCHERS", "REPLY_QUEUE_EXPIRES", "Handler", "Mailbox", "Matcher", "Node"]

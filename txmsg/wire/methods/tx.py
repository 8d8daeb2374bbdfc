"""Class 90: local transactions.

AMQP 0-9-1 section 1.9 and https://www.rabbitmq.com/semantics.html#tx: a commit is atomic for one queue only.
"""

from __future__ import annotations

from txmsg.wire.constants import CLASS_TX
from txmsg.wire.layout import Method, method
from txmsg.wire.methods.senders import CLIENT, SERVER

__all__ = ["Commit", "CommitOk", "Rollback", "RollbackOk", "Select", "SelectOk"]


@method(CLASS_TX, 10, sent_by=CLIENT)
class Select(Method):
    """Make the channel transactional."""


@method(CLASS_TX, 11, sent_by=SERVER, replies_to=Select)
class SelectOk(Method):
    """The channel is transactional."""


@method(CLASS_TX, 20, sent_by=CLIENT)
class Commit(Method):
    """Do all publishes and acknowledgements since the last commit or rollback."""


@method(CLASS_TX, 21, sent_by=SERVER, replies_to=Commit)
class CommitOk(Method):
    """The transaction is done."""


@method(CLASS_TX, 30, sent_by=CLIENT)
class Rollback(Method):
    """Forget all publishes and acknowledgements since the last commit or rollback."""


@method(CLASS_TX, 31, sent_by=SERVER, replies_to=Rollback)
class RollbackOk(Method):
    """The transaction is forgotten; messages that were delivered are not delivered again by this."""

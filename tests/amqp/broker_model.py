"""What a broker does with settlements, in a few lines: the judge of what our client writes.

The rules are RabbitMQ's (https://www.rabbitmq.com/docs/confirms#consumer-acks-delivery-tags, and its behaviour for
basic.recover and class tx): a tag that is not outstanding, also with ``multiple``, is answered with 406 and the end
of the channel; tag 0 with ``multiple`` means everything; basic.recover requeues what is outstanding; tx.rollback makes
outstanding again what was settled since the last commit, without delivering it anew.
"""

from __future__ import annotations

ACK = "ack"
REQUEUE = "requeue"
DROP = "drop"


class Refused(Exception):
    """406: the channel would be closed by the broker."""


class ModelChannel:
    """The outstanding deliveries of one channel, as the broker sees them.

    :ivar outstanding: the delivery tags that are not settled, ascending.
    :ivar settled: how each other delivery ended: ``ACK``, ``REQUEUE`` or ``DROP``.
    :ivar recovered: the tags that basic.recover requeued, and nobody settled.
    :ivar uncommitted: what was settled since the last commit; None on a channel that is not transactional.
    """

    def __init__(self) -> None:
        self.outstanding: list[int] = []
        self.settled: dict[int, str] = {}
        self.recovered: set[int] = set()
        self.uncommitted: dict[int, str] | None = None

    def deliver(self, delivery_tag: int) -> None:
        """A delivery that must be settled leaves."""
        self.outstanding.append(delivery_tag)

    def settle(self, delivery_tag: int, multiple: bool, how: str) -> list[int]:
        """An ack, nack or reject comes in; the tags that it settles."""
        if multiple and delivery_tag == 0:
            tags = list(self.outstanding)
        elif delivery_tag not in self.outstanding:
            raise Refused(f"406: unknown delivery tag {delivery_tag}, outstanding are {self.outstanding}")
        elif multiple:
            tags = [tag for tag in self.outstanding if tag <= delivery_tag]
        else:
            tags = [delivery_tag]
        self.outstanding = [tag for tag in self.outstanding if tag not in tags]
        into = self.settled if self.uncommitted is None else self.uncommitted
        into.update(dict.fromkeys(tags, how))
        return tags

    def recover(self) -> None:
        """basic.recover(requeue=True) comes in."""
        self.settled.update(dict.fromkeys(self.outstanding, REQUEUE))
        self.recovered.update(self.outstanding)
        self.outstanding = []

    def tx_select(self) -> None:
        """tx.select comes in."""
        if self.uncommitted is None:
            self.uncommitted = {}

    def tx_commit(self) -> None:
        """tx.commit comes in."""
        if self.uncommitted is None:
            raise Refused("406: the channel is not transactional")
        self.settled.update(self.uncommitted)
        self.uncommitted = {}

    def tx_rollback(self) -> None:
        """tx.rollback comes in."""
        if self.uncommitted is None:
            raise Refused("406: the channel is not transactional")
        self.outstanding = sorted([*self.outstanding, *self.uncommitted])
        self.uncommitted = {}

"""Which deliveries of a channel are still to be settled, and the acks that wait to be written.

Delivery tags grow by one for each delivery of a channel and must be settled on that channel, once
(https://www.rabbitmq.com/docs/confirms#consumer-acks-delivery-tags); anything else makes RabbitMQ close
the channel with 406.  The ledger knows every open tag, so a wrong settlement fails here, with nothing
sent.

Acks are collected and leave at the end of the reactor turn.  All acks below the lowest open tag become
one `multiple` ack; that is only right because every lower tag is settled by then.  The others leave as
single acks in the same write.
"""

from __future__ import annotations

from collections.abc import Callable

from txmsg.errors import AlreadySettled, EncodeError, StaleDelivery, TxmsgError

__all__ = ["SettlementLedger"]

EncodeAck = Callable[[int, bool], bytes]


class SettlementLedger:
    """The open delivery tags of one channel, in ascending order."""

    __slots__ = ("_acked", "_closed", "_last", "_lowest", "_recovering", "_stale_up_to", "_transaction", "open")

    def __init__(self) -> None:
        #: Open tags.  A dict keeps the order of delivery, which is ascending.  The value is the tag once more:
        #: what leaves is the number that came in, whatever equal object (1.0, True) the caller has.
        self.open: dict[int, int] = {}
        self._acked: list[int] = []
        self._closed: BaseException | None = None
        self._last = 0
        #: No tag below this one is open.
        self._lowest = 1
        self._stale_up_to = 0
        #: basic.recover-oks that are still to come.
        self._recovering = 0
        self._transaction: list[int] | None = None

    def __len__(self) -> int:
        return len(self.open)

    @property
    def has_unwritten_acks(self) -> bool:
        """Whether `take_acks` has something to write."""
        return bool(self._acked)

    def delivered(self, delivery_tag: int) -> None:
        """A delivery that has to be settled has come in."""
        self._last = delivery_tag
        if not self._recovering:
            self.open[delivery_tag] = delivery_tag

    # -- settling ----------------------------------------------------------------------------------

    def ack(self, delivery_tag: int) -> None:
        """Settle one tag; the ack leaves with `take_acks`."""
        try:
            self._acked.append(self.open.pop(delivery_tag))
        except (KeyError, TypeError):
            raise self._refusal(delivery_tag) from None
        if self._transaction is not None:
            self._transaction.append(self._acked[-1])

    def settle(self, delivery_tag: int) -> int:
        """Settle one tag that the caller nacks or rejects itself; returns the tag to put on the wire."""
        try:
            delivery_tag = self.open.pop(delivery_tag)
        except (KeyError, TypeError):
            raise self._refusal(delivery_tag) from None
        if self._transaction is not None:
            self._transaction.append(delivery_tag)
        return delivery_tag

    def settle_up_to(self, delivery_tag: int) -> list[int]:
        """Settle every open tag up to and including `delivery_tag` (0: all); ascending, never empty.

        The tag to put on the wire is the last one of the list: the broker refuses a tag that is not
        open there, even with `multiple`.
        """
        if not isinstance(delivery_tag, int):
            raise self._refusal(delivery_tag)
        tags = self._open_up_to(delivery_tag) if delivery_tag and self.open else list(self.open)
        if not tags:
            raise self._refusal(delivery_tag)
        for tag in tags:
            del self.open[tag]
        if self._transaction is not None:
            self._transaction.extend(tags)
        return tags

    def _open_up_to(self, delivery_tag: int) -> list[int]:
        lowest, is_open = self._lowest_open(), self.open
        if delivery_tag - lowest < len(is_open):
            return [tag for tag in range(lowest, delivery_tag + 1) if tag in is_open]
        return [tag for tag in is_open if tag <= delivery_tag]

    def _lowest_open(self) -> int:
        """The lowest open tag; there is one.

        Looked for from where it was the last time: the front of a dict is slow to find where much has been
        taken away from it.
        """
        is_open = self.open
        for tag in range(self._lowest, self._lowest + len(is_open) + 1):
            if tag in is_open:
                break
        else:
            tag = next(iter(is_open))
        self._lowest = tag
        return tag

    def _refusal(self, delivery_tag: int) -> TxmsgError:
        if not isinstance(delivery_tag, int):
            return EncodeError(f"a delivery tag is an int, not {type(delivery_tag).__name__}")
        if self._closed is not None:
            return StaleDelivery(
                f"delivery {delivery_tag} cannot be settled any more, the broker has requeued it: {self._closed}"
            )
        if self._recovering or 0 < delivery_tag <= self._stale_up_to:
            return StaleDelivery(f"delivery {delivery_tag} was requeued by basic.recover")
        return AlreadySettled(
            f"delivery {delivery_tag} is not open on this channel: "
            "it was settled before, was delivered with no_ack, or never was delivered here"
        )

    # -- writing -----------------------------------------------------------------------------------

    def take_acks(self, encode: EncodeAck) -> bytes:
        """The frames for all acks given since the last call, as few as possible."""
        acked = self._acked
        self._acked = []
        if len(acked) == 1:
            return encode(acked[0], False)
        if not self.open:
            return encode(max(acked), True)
        lowest_open = self._lowest_open()
        covered = [tag for tag in acked if tag < lowest_open]
        frames = [encode(tag, False) for tag in acked if tag > lowest_open]
        if covered:
            frames.insert(0, encode(max(covered), len(covered) > 1))
        return b"".join(frames)

    # -- events that change what is open -----------------------------------------------------------

    def recover_sent(self) -> None:
        """basic.recover is on its way: all that is open goes back to the queue."""
        self.open.clear()
        self._recovering += 1

    def recover_answered(self) -> None:
        """basic.recover-ok has come: what was delivered until now is stale, what follows is new.

        Unless another basic.recover is on its way, which requeues that too.
        """
        self._recovering -= 1
        self._stale_up_to = self._last

    def transaction_selected(self) -> None:
        """tx.select: from now on settlements wait for tx.commit."""
        if self._transaction is None:
            self._transaction = []

    def transaction_committed(self) -> None:
        """tx.commit was written: what was settled so far stays settled."""
        if self._transaction is not None:
            self._transaction = []

    def transaction_rolled_back(self) -> None:
        """tx.rollback was written: RabbitMQ holds those tags as open again, without delivering them again."""
        if self._transaction:
            tags, self._transaction = self._transaction, []
            self.open = {tag: tag for tag in sorted([*self.open, *tags])}
            self._lowest = next(iter(self.open))

    def close(self, reason: BaseException) -> None:
        """The channel can settle nothing any more; the first reason stays."""
        if self._closed is None:
            self._closed = reason
        self.open.clear()
        self._acked.clear()

"""Trust: what a receiver lets happen to the bodies it is sent (kombu H10, J9; C4, C5)."""

from __future__ import annotations

from typing import Final, NamedTuple

from txmsg.messaging.compression import DEFAULT_LIMITS, DecompressionLimits
from txmsg.messaging.serialization import Accept, AcceptList, serializers

__all__ = ["DEFAULT_TRUST", "Trust"]


class Trust(NamedTuple):
    """What a receiver lets happen to a body.

    accept -- the content types that are decoded, None: JSON, text and raw octets (SerializerRegistry.accept).
    accept_compression -- the compressions, None: zlib and gzip.   limits -- of decompressing.
    """

    accept: AcceptList | None = None
    accept_compression: frozenset[str] | None = None
    limits: DecompressionLimits = DEFAULT_LIMITS

    @classmethod
    def of(
        cls,
        accept: Accept = None,
        accept_compression: frozenset[str] | None = None,
        limits: DecompressionLimits = DEFAULT_LIMITS,
    ) -> Trust:
        """From names; SerializerNotInstalled for one that is not known."""
        return cls(serializers.accept(accept), accept_compression, limits)


#: What is trusted where nothing is said.
DEFAULT_TRUST: Final = Trust()

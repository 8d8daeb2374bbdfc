"""Consumer and Message: from deliveries to handlers.

The public names are in :mod:`txmsg.messaging`.
"""

__all__: list[str] = []

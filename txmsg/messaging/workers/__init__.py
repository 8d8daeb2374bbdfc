"""Long-running consumers as Twisted services.

The public names are in :mod:`txmsg.messaging`.
"""

__all__: list[str] = []

"""Connection and Channel: where the broker is, coming, going and coming back.

The public names are in :mod:`txmsg.messaging`.
"""

__all__: list[str] = []

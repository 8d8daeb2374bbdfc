"""Producer: what becomes of a value until the broker has confirmed it.

The public names are in :mod:`txmsg.messaging`.
"""

__all__: list[str] = []

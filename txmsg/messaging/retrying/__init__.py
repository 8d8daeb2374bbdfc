"""Trying again: the arithmetic of the waits, and what is tried.

The public names are in :mod:`txmsg.messaging`.
"""

__all__: list[str] = []

"""Messaging for Twisted: an AMQP 0-9-1 client, and a long-running consumer service for ``twistd``.

Importing this package imports no reactor and opens nothing; take what you need from the subpackages, for
example ``from txmsg.amqp import connect``.
"""

__all__ = ["__version__"]

#: The version of the distribution.
__version__ = "0.1.0"

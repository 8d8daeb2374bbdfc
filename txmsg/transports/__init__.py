"""Where messaging meets a concrete broker.

:mod:`txmsg.transports.registry` finds the transport for a URL, and imports it only then:
:mod:`~txmsg.transports.amqp` for ``amqp://`` and ``amqps://``, :mod:`~txmsg.transports.memory` for ``memory://``, and
what other distributions bring in the entry-point group ``txmsg.transports``.
"""

from txmsg.transports.registry import register, transport_for, transport_names, unregister

__all__ = ["register", "transport_for", "transport_names", "unregister"]

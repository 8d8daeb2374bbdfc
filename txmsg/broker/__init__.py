"""The embedded AMQP 0-9-1 broker, with RabbitMQ 3.x semantics.

Two halves.  The model knows no bytes, no sockets and no Twisted: `vhost`, `queue`, `exchanges`, `bindings`, `message`
and what they use.  The server speaks AMQP over the same `txmsg.wire` as the client: `server`, `connection`,
`channel`, `credentials`.  Only `connection`, `handshake` and `channel` see the methods of the protocol.
"""

#: Everything is taken from the modules.
__all__: list[str] = []

"""The embedded AMQP 0-9-1 broker, with RabbitMQ 3.x semantics.

Two halves.  The model knows no bytes, no sockets and no Twisted: `vhost`, `queues`, `exchanges` and `message`.  The
server speaks AMQP over the same `txmsg.wire` as the client: `server`, `listeners`, `connection`, `channel`, `users`.
Only `connection` and `channel` see the methods of the protocol.  Beside them: `store` keeps what is durable,
`definitions` reads and writes RabbitMQ's JSON, `management` is the HTTP API, `service` is what `twistd` runs.
"""

#: Everything is taken from the modules.
__all__: list[str] = []

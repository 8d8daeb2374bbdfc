"""Makes `twistd` know `txmsg-consumer` and `txmsg-broker`.

Loaded by every `twistd` on the machine, so it names modules and imports none of ours.
"""

from twisted.application.service import ServiceMaker

txmsg_consumer = ServiceMaker(
    "txmsg consumer",
    "txmsg.tap.consumer",
    "Consumes an AMQP 0-9-1 queue (RabbitMQ) and calls a Python function for each message.",
    "txmsg-consumer",
)

txmsg_broker = ServiceMaker(
    "txmsg broker",
    "txmsg.tap.broker",
    "Runs an AMQP 0-9-1 broker that answers as RabbitMQ 3 does.",
    "txmsg-broker",
)

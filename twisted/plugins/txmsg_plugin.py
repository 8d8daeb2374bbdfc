"""Makes `twistd` know `txmsg-consumer`.

Loaded by every `twistd` on the machine, so it names modules and imports none of ours.
"""

from twisted.application.service import ServiceMaker

txmsg_consumer = ServiceMaker(
    "txmsg consumer",
    "txmsg.tap",
    "Consumes an AMQP 0-9-1 queue (RabbitMQ) and calls a Python function for each message.",
    "txmsg-consumer",
)

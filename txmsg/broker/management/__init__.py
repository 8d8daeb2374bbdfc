"""The management HTTP API: a subset of RabbitMQ's, with its paths and its JSON.

https://www.rabbitmq.com/docs/management and https://www.rabbitmq.com/docs/http-api-reference; what is there and what
is not stands in docs/broker-management.md.  Shapes and texts are those of RabbitMQ 3.10, measured.

`site` speaks HTTP and says who is asking, `routes` finds whom to ask, `calls` is a question and its answers, `listings`
filters and pages lists; the other modules answer, one for each topic.
"""

#: Everything is taken from the modules.
__all__: list[str] = []

"""Benchmarks: txmsg beside other AMQP clients on one RabbitMQ, memory bounds, and the codec alone.

`python -m benchmarks` (or `make bench`) runs the comparison; docs/benchmarks.md says what is measured,
how, and what came out.
"""

"""The embedded broker beside RabbitMQ: the same program on both, and the same transcript expected of both.

`steps` is what programs are made of, `program_source` writes them down; `wire_client` and `player` run them,
`transcript` is what came of it; `generator` makes random ones, `shrinking` makes failing ones short, and `fixed` has
those that were written by hand or kept because they once failed.
`python -m tests.conformance.differential` looks for new ones.
"""

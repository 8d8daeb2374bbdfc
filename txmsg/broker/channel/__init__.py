"""A channel, from the broker's side: methods in, what the model does, replies out.

One module for each AMQP class or state of its own: `channel` (open, held, closed), `topology` (exchange, queue),
`publishing` and `confirms`, `consuming` with `consumer`, `credit`, `settling` with `unacked` and
`patience`, `transaction` (tx).
"""

from txmsg.broker.channel.channel import ServerChannel

__all__ = ["ServerChannel"]

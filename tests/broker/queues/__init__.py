"""The tests of `txmsg.broker.queues`."""

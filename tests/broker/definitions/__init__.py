"""The tests of `txmsg.broker.definitions`."""

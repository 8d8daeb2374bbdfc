"""The tests of `txmsg.broker.store`."""

"""The tests of `txmsg.broker.connection`."""

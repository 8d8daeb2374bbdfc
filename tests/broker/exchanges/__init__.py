"""The tests of `txmsg.broker.exchanges`."""

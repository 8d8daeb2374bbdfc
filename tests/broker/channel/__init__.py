"""The tests of `txmsg.broker.channel`."""

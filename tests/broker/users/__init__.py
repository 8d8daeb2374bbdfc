"""The tests of `txmsg.broker.users`."""

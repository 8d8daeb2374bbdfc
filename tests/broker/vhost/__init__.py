"""The tests of `txmsg.broker.vhost`."""

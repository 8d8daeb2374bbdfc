"""The tests of `txmsg.broker.management`."""

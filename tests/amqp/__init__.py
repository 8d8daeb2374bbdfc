"""Tests of txmsg.amqp."""

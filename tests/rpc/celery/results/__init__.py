"""Tests of txmsg.rpc.celery.results."""

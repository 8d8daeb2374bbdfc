"""The worked examples of Kombu's documentation, as they read with txmsg.

Each test's docstring says which of the 51 it is.  Not here: 34, 35, 44 and 45 (Redis), 46 and 49 (SQS, and options of
transports that poll), 32 (a semaphore of its event loop).
"""

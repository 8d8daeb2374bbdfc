"""One module per measured client.  Each is a program: it runs one task and prints one line of JSON."""

"""The tests of txmsg; the folders mirror the package's."""

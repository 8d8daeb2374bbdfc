"""txmsg.testing.ports."""

from __future__ import annotations

import socket
import unittest
from unittest import mock

from txmsg.testing import ports


class FreePortsTests(unittest.TestCase):
    """free_ports."""

    def test_below_the_ephemeral_range(self) -> None:
        """F11: no port a client of ours could be given by the kernel, so none it could connect to itself on."""
        found = ports.free_ports(50)
        self.assertEqual(len(set(found)), 50)
        self.assertLess(max(found), 32768)
        self.assertNotIn(25672, found)

    def test_free_on_both_families(self) -> None:
        """A server can listen on each, on IPv4 and IPv6."""
        for host, family in (("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)):
            with self.subTest(host=host), socket.socket(family) as server:
                server.bind((host, ports.free_ports(1, host=host)[0]))
                server.listen()

    def test_taken_ports_are_passed_over(self) -> None:
        """With one port in the range, and that one taken, there is none: OSError instead of a search without end."""
        with socket.socket() as server:
            server.bind(("127.0.0.1", ports.free_ports(1)[0]))
            server.listen()
            taken = server.getsockname()[1]
            with (
                mock.patch.object(ports, "LOWEST_PORT", taken),
                mock.patch.object(ports, "HIGHEST_PORT", taken),
                self.assertRaises(OSError),
            ):
                ports.free_ports(1)

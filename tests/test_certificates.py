"""The certificates of the TLS tests, judged by the standard library's ``ssl``: the odd ones are refused."""

from __future__ import annotations

import ssl
import unittest

from tests.certificates import ODD_SERVERS, ODD_SERVERS_BY_ADDRESS, Issued, shared_authority


def handshake(server: Issued, host: str, client: Issued | None = None, *, need_client: bool = False) -> None:
    """Shake hands in memory, the client asking for ``host``; raises ssl.SSLError when a side refuses."""
    authority = shared_authority()
    client_context = ssl.create_default_context(cafile=str(authority.certificate_file))
    # RFC 6125 (and 9525): the common name is no host name; OpenSSL would still fall back to it.
    client_context.hostname_checks_common_name = False
    if client is not None:
        client_context.load_cert_chain(client.certificate_file, client.key_file)
    server_context = server.server_context(client_ca=authority.certificate_file if need_client else None)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client_context.wrap_bio(to_client, to_server, server_hostname=host),
        server_context.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(5):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


class CertificateTests(unittest.TestCase):
    """What an independent TLS client makes of them."""

    def test_right_certificates(self) -> None:
        """A name, an address and a client certificate that are right are accepted."""
        authority = shared_authority()
        server = authority.issue("server", dns=["localhost"], ip=["127.0.0.1", "::1"])
        for host in ("localhost", "127.0.0.1", "::1"):
            with self.subTest(host=host):
                handshake(server, host, authority.issue("client"), need_client=True)

    def test_odd_certificates(self) -> None:
        """Every odd one is refused, under the host it is odd for."""
        for host, odd in (("localhost", ODD_SERVERS), ("127.0.0.1", ODD_SERVERS_BY_ADDRESS)):
            for what, make in odd.items():
                server = make(shared_authority())
                with self.subTest(host=host, certificate=what), self.assertRaises(ssl.SSLCertVerificationError):
                    handshake(server, host)

    def test_revocation(self) -> None:
        """A certificate named in the CRL is refused where the CRL is checked, and one not named is not."""
        authority = shared_authority()
        revoked, good = (authority.issue("server", dns=["localhost"]) for _ in range(2))
        for crl, server, expected in (
            (authority.revocation_list(revoked), revoked, "revoked"),
            (authority.revocation_list(revoked), good, ""),
            (authority.revocation_list(is_stale=True), good, "expired"),
        ):
            context = ssl.create_default_context(cafile=str(authority.certificate_file))
            context.load_verify_locations(crl)
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
            to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
            peer = server.server_context().wrap_bio(to_server, to_client, server_side=True)
            said = ""
            for _ in range(5):
                for end in (client, peer):
                    try:
                        end.do_handshake()
                    except ssl.SSLWantReadError:
                        continue
                    except ssl.SSLCertVerificationError as error:
                        said = said or error.verify_message
                    except ssl.SSLError:
                        continue  # the server hears of the client's refusal
            with self.subTest(expected=expected):
                self.assertIn(expected, said)
                self.assertEqual(bool(expected), bool(said))

    def test_keys_are_private(self) -> None:
        """Key files are readable by their owner only, and an encrypted one needs its pass phrase."""
        issued = shared_authority().issue("server", dns=["localhost"])
        self.assertEqual(issued.key_file.stat().st_mode & 0o777, 0o600)
        encrypted = issued.encrypted_key_file(b"pass phrase")
        self.assertEqual(encrypted.stat().st_mode & 0o777, 0o600)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with self.assertRaises(ssl.SSLError):
            context.load_cert_chain(issued.certificate_file, encrypted, password="wrong")
        context.load_cert_chain(issued.certificate_file, encrypted, password="pass phrase")

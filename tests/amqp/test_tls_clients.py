"""What a client shows of itself, and revocation lists: D-03, D-04, E-06, E-11, C1.7, C1.8."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import ssl

from tests.amqp.tls_servers import Listener, TLSTestCase, only
from tests.certificates import Authority, Issued
from tests.scripted import server_options
from txmsg.amqp.sasl import ExternalCredentials
from txmsg.errors import ClientCertificateRequired, ConfigurationError, PeerVerificationFailed


def name_of(certificate: Any) -> str:
    return str(certificate.to_cryptography().subject.rfc4514_string())


class ClientCertificateTests(TLSTestCase):
    """Mutual TLS: D-03, D-04, E-06, E-11."""

    versions = (SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION)

    def listen_mutual(self, version: int) -> Listener:
        issued = self.authority.issue("x", dns=["localhost"])
        options = server_options(issued, client_ca=self.authority.certificate_file)
        only(version, options)
        return self.listen_with(options)

    def certified(self, issued: Issued, **options: Any) -> dict[str, Any]:
        return {"cert_file": issued.certificate_file, "key_file": issued.key_file} | options

    async def test_given(self) -> None:
        """D-03, D-04: with a certificate of the right CA, from files, one file, or an object."""
        client = self.authority.issue("client", usages=[])
        both = Path(self.mktemp())
        both.write_bytes(client.key_file.read_bytes() + client.certificate_file.read_bytes())
        both.chmod(0o600)
        made = ssl.PrivateCertificate.loadPEM(both.read_bytes())
        encrypted = client.encrypted_key_file(b"pass phrase")
        for version in self.versions:
            listener = self.listen_mutual(version)
            for options in (
                self.certified(client),
                {"cert_file": both},
                {"client_certificate": made},
                {"client_certificate": lambda: made},
                self.certified(client, key_file=encrypted, key_password="pass phrase"),
                self.certified(client, key_file=encrypted, key_password=lambda: "pass phrase"),
            ):
                await self.accepted(self.parameters(listener.port, **options))
            shown = [peer.transport.getPeerCertificate() for peer in listener.peers]  # type: ignore[attr-defined]
            self.assertEqual({name_of(c) for c in shown}, {"CN=client"})

    async def test_none_given(self) -> None:
        """D-08: a server that requires one says so in the handshake (TLS 1.2) or after it (1.3); one error for both."""
        for version in self.versions:
            listener = self.listen_mutual(version)
            for _ in range(5):
                error = await self.refused(self.parameters(listener.port), ClientCertificateRequired)
                self.assertIn("requires a client certificate, and none was given", str(error))
                self.assertFalse(error.recoverable)

    async def test_of_an_unknown_authority(self) -> None:
        """D-08: one that the server's CA did not issue."""
        stranger = Authority("stranger").issue("client")
        for version in self.versions:
            listener = self.listen_mutual(version)
            parameters = self.parameters(listener.port, **self.certified(stranger))
            error = await self.refused(parameters, ClientCertificateRequired)
            self.assertIn("does not know the CA of our client certificate", str(error))

    async def test_expired(self) -> None:
        """D-08: an old one."""
        days = datetime.timedelta(days=1)
        old = self.authority.issue("client", valid_from=-10 * days, valid_for=5 * days)
        for version in self.versions:
            listener = self.listen_mutual(version)
            error = await self.refused(self.parameters(listener.port, **self.certified(old)), ClientCertificateRequired)
            self.assertIn("our client certificate has expired", str(error))

    async def test_external(self) -> None:
        """E-06, C1.8: EXTERNAL with it; without it not even tried."""
        client = self.authority.issue("client")
        listener = self.listen_mutual(SSL.TLS1_3_VERSION)
        overrides = {"credentials": ExternalCredentials()}
        await self.accepted(self.parameters(listener.port, parameters=overrides, **self.certified(client)))
        self.assertIn(b"EXTERNAL", listener.received)
        open_to_all = self.listen(self.authority.issue("x", dns=["localhost"]))
        error = await self.refused(self.parameters(open_to_all.port, parameters=overrides), ConfigurationError)
        self.assertIn("client certificate", str(error))
        self.assertNotIn(b"EXTERNAL", open_to_all.received)

    async def test_renewed_files(self) -> None:
        """Certificates are read anew at each connect; unusable ones fail that connect."""
        first, second = self.authority.issue("first"), self.authority.issue("second")
        folder = Path(self.mktemp())
        folder.mkdir()
        certificate, key = folder / "c.pem", folder / "k.pem"

        def renew(issued: Issued) -> None:
            shutil.copy(issued.certificate_file, certificate)
            shutil.copy(issued.key_file, key)

        renew(first)
        listener = self.listen_mutual(SSL.TLS1_3_VERSION)
        parameters = self.parameters(listener.port, cert_file=certificate, key_file=key)
        await self.accepted(parameters)
        renew(second)
        await self.accepted(parameters)
        shown = [peer.transport.getPeerCertificate() for peer in listener.peers]  # type: ignore[attr-defined]
        self.assertEqual([name_of(c) for c in shown], ["CN=first", "CN=second"])
        key.unlink()
        error = await self.refused(parameters, ConfigurationError)
        self.assertIn(str(key), str(error))


class RevocationTests(TLSTestCase):
    """C1.7: revocation lists."""

    async def test_lists(self) -> None:
        """Revoked: taken without a list (documented), refused with one; a stale list refuses everybody."""
        good = self.authority.issue("x", dns=["localhost"])
        bad = self.authority.issue("x", dns=["localhost"])
        fresh = self.authority.revocation_list(bad)
        stale = self.authority.revocation_list(bad, is_stale=True)
        good_port, bad_port = self.listen(good).port, self.listen(bad).port
        await self.accepted(self.parameters(bad_port))
        await self.accepted(self.parameters(good_port, crl_file=fresh))
        error = await self.refused(self.parameters(bad_port, crl_file=[fresh]), PeerVerificationFailed)
        self.assertIn("has been revoked", str(error))
        error = await self.refused(self.parameters(good_port, crl_file=stale), PeerVerificationFailed)
        self.assertIn("revocation list has expired", str(error))

    async def test_list_of_another_authority(self) -> None:
        """A list that says nothing of the server's CA refuses: it was given to be used."""
        other = Authority("another").revocation_list()
        listener = self.listen(self.authority.issue("x", dns=["localhost"]))
        error = await self.refused(self.parameters(listener.port, crl_file=other), PeerVerificationFailed)
        self.assertIn("no revocation list", str(error))

"""Certificates for the TLS tests, made anew in every test run; nothing secret lies in the repository.

:class:`Authority` issues certificates that are right, and, by its arguments, wrong in any of the ways a
server or a client can be wrong (see :data:`ODD_SERVERS`).  Everything is on disk as PEM too, because brokers
and TLS options want files.
"""

from __future__ import annotations

import atexit
import datetime
import functools
import ipaddress
import shutil
import ssl
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = datetime.timedelta(days=1)

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A certificate with its private key, in memory and as PEM files.

    ``certificate_file`` holds the whole chain up to, and without, the root.
    """

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    certificate_file: Path
    key_file: Path

    def encrypted_key_file(self, pass_phrase: bytes) -> Path:
        """Write the key once more, under a pass phrase."""
        path = self.key_file.with_suffix(".encrypted.key")
        _write_private(
            path,
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(pass_phrase),
            ),
        )
        return path

    def server_context(self, *, client_ca: Path | None = None) -> ssl.SSLContext:
        """A context of the standard library's ``ssl``, so that a peer in another stack can be the judge.

        ``client_ca`` makes a client certificate from that authority required.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate_file, self.key_file)
        if client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(client_ca)
        return context


def _write_private(path: Path, content: bytes) -> None:
    path.touch(mode=0o600)
    path.write_bytes(content)


def _write(directory: Path, name: str, key: ec.EllipticCurvePrivateKey, chain: Sequence[x509.Certificate]) -> Issued:
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    certificate_file.write_bytes(b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain))
    _write_private(
        key_file,
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
    )
    return Issued(certificate=chain[0], key=key, certificate_file=certificate_file, key_file=key_file)


class Authority:
    """A certificate authority of our own.

    :param common_name: its name.
    :param directory: where the PEM files go; a temporary folder, removed when the process ends, by default.
    """

    def __init__(self, common_name: str = "txmsg test authority", directory: Path | None = None) -> None:
        if directory is None:
            directory = Path(tempfile.mkdtemp(prefix="txmsg-certificates-"))
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
        self.directory = directory
        self._serial = 0
        self._key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        now = _now()
        usage = x509.KeyUsage(
            digital_signature=True,
            key_cert_sign=True,
            crl_sign=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            encipher_only=False,
            decipher_only=False,
        )
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * _DAY)
            .not_valid_after(now + 30 * _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.certificate_file = _write(directory, "authority", self._key, [self.certificate]).certificate_file

    def issue(
        self,
        common_name: str,
        *,
        dns: Sequence[str] = (),
        ip: Sequence[str] = (),
        email: Sequence[str] = (),
        uri: Sequence[str] = (),
        usages: Sequence[x509.ObjectIdentifier] = (SERVER_AUTH, CLIENT_AUTH),
        valid_from: datetime.timedelta = -_DAY,
        valid_for: datetime.timedelta = 10 * _DAY,
        issuer: Issued | None = None,
    ) -> Issued:
        """Issue a leaf certificate.

        :param dns: ``dNSName`` entries, taken as they are: malformed wildcards are allowed here.
        :param ip: ``iPAddress`` entries.
        :param email: ``rfc822Name`` entries.
        :param uri: ``uniformResourceIdentifier`` entries.  With none of these four there is no SAN extension.
        :param usages: the extended key usages; none leaves the extension out.
        :param valid_from: when it begins to be valid, counted from now.
        :param valid_for: how long it is valid.
        :param issuer: sign with this (leaf) certificate instead of the authority: a chain that must be refused.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        signing_key, signing_certificate = self._key, self.certificate
        if issuer is not None:
            signing_key, signing_certificate = issuer.key, issuer.certificate
        certificate = _leaf(
            common_name,
            key,
            names=[
                *(x509.DNSName(name) for name in dns),
                *(x509.IPAddress(ipaddress.ip_address(address)) for address in ip),
                *(x509.RFC822Name(address) for address in email),
                *(x509.UniformResourceIdentifier(address) for address in uri),
            ],
            usages=usages,
            begin=_now() + valid_from,
            end=_now() + valid_from + valid_for,
            issuer_name=signing_certificate.subject,
            issuer_key=signing_key,
        )
        self._serial += 1
        chain = [certificate] if issuer is None else [certificate, issuer.certificate]
        return _write(self.directory, f"{self._serial}", key, chain)

    def self_signed(self, common_name: str, *, dns: Sequence[str] = ()) -> Issued:
        """A certificate that no authority stands behind."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _leaf(
            common_name,
            key,
            names=[x509.DNSName(name) for name in dns],
            usages=(SERVER_AUTH, CLIENT_AUTH),
            begin=_now() - _DAY,
            end=_now() + 10 * _DAY,
            issuer_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]),
            issuer_key=key,
        )
        self._serial += 1
        return _write(self.directory, f"{self._serial}", key, [certificate])

    def revocation_list(self, *revoked: Issued, is_stale: bool = False) -> Path:
        """A signed CRL (PEM) that names ``revoked``; a stale one should have been replaced a day ago."""
        now = _now()
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.certificate.subject)
            .last_update(now - 5 * _DAY)
            .next_update(now - _DAY if is_stale else now + 5 * _DAY)
        )
        for issued in revoked:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(issued.certificate.serial_number)
                .revocation_date(now - 2 * _DAY)
                .build()
            )
        self._serial += 1
        path = self.directory / f"{self._serial}.crl"
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC).replace(microsecond=0)


def _leaf(
    common_name: str,
    key: ec.EllipticCurvePrivateKey,
    *,
    names: Sequence[x509.GeneralName],
    usages: Sequence[x509.ObjectIdentifier],
    begin: datetime.datetime,
    end: datetime.datetime,
    issuer_name: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)]))
        .issuer_name(issuer_name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


@functools.cache
def shared_authority() -> Authority:
    """The authority the shared RabbitMQ node and its clients trust; one for each test run."""
    return Authority()


#: Certificates of a server that a client asking for ``localhost`` must refuse, by what is wrong with them.
#: Those from the same authority with no usable name are the dangerous ones: several versions of Twisted take them.
ODD_SERVERS: dict[str, Callable[[Authority], Issued]] = {
    "wrong name": lambda a: a.issue("localhost", dns=["other.example"]),
    "ip certificate asked by name": lambda a: a.issue("localhost", ip=["127.0.0.1"]),
    "no SAN, right common name": lambda a: a.issue("localhost"),
    "no SAN, wrong common name": lambda a: a.issue("evil.example"),
    "e-mail SAN only": lambda a: a.issue("localhost", email=["localhost@example.org"]),
    "URI SAN only": lambda a: a.issue("localhost", uri=["amqps://localhost/"]),
    "wildcard for everything": lambda a: a.issue("localhost", dns=["*"]),
    "wildcard for a top level": lambda a: a.issue("localhost", dns=["*.evil"]),
    "wildcard under the host": lambda a: a.issue("localhost", dns=["*.localhost"]),
    "another host and a malformed wildcard": lambda a: a.issue("localhost", dns=["other.example", "*oops*.evil"]),
    "expired": lambda a: a.issue("localhost", dns=["localhost"], valid_from=-10 * _DAY, valid_for=5 * _DAY),
    "not yet valid": lambda a: a.issue("localhost", dns=["localhost"], valid_from=5 * _DAY),
    "unknown authority": lambda a: Authority("stranger").issue("localhost", dns=["localhost"]),
    "self-signed": lambda a: a.self_signed("localhost", dns=["localhost"]),
    "issued by a leaf": lambda a: a.issue("localhost", dns=["localhost"], issuer=a.issue("leaf", dns=["leaf.example"])),
    "for clients only": lambda a: a.issue("localhost", dns=["localhost"], usages=[CLIENT_AUTH]),
}

#: Certificates that a client asking for 127.0.0.1 must refuse.
ODD_SERVERS_BY_ADDRESS: dict[str, Callable[[Authority], Issued]] = {
    "DNS certificate asked by address": lambda a: a.issue("127.0.0.1", dns=["localhost"]),
    "address as a DNS name": lambda a: a.issue("127.0.0.1", dns=["127.0.0.1"]),
    "another address": lambda a: a.issue("127.0.0.1", ip=["127.0.0.2"]),
    "no SAN": lambda a: a.issue("127.0.0.1"),
}

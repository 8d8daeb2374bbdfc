"""Is the server whom we asked for?  The certificate checks of a client, all of them failing closed.

A chain that leads to a trusted CA says that the certificate is genuine, not that it is the broker's: for that a name
in its subjectAltName must match the host (RFC 9525).  Twisted 26.4 to 26.10 accepts certificates without a usable
name, because an unexpected exception in its check counts as agreement.  Here it is checked twice, and in both places
any exception whatever refuses:

1. inside the handshake, by the callback of :func:`guard`, before the server gets a byte (or our certificate);
2. after the handshake, by :func:`verify_peer`, before the first byte of AMQP.

Both use one checker, which :func:`check_the_checker` tries on bad certificates once per process (C1.2, C1.5).
"""

from __future__ import annotations

import datetime
import ipaddress
from typing import Any
from weakref import WeakKeyDictionary

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from txmsg.errors import ConfigurationError, PeerVerificationFailed, clip

__all__ = ["HandshakeRecord", "check_the_checker", "guard", "is_ip_address", "record_of", "refusal", "verify_peer"]

#: OpenSSL's verification results (x509_vfy.h), in words; "{}" is the date where there is one.
_CHAIN_PROBLEMS = {
    2: "is from an unknown CA (the issuer of a CA in the chain is missing)",
    3: "cannot be checked: there is no revocation list of its CA",
    9: "is not valid before {not_before}",
    10: "expired on {not_after}",
    11: "cannot be checked: the revocation list is not valid yet",
    12: "cannot be checked: the revocation list has expired",
    18: "is self-signed and not among the trusted ones",
    19: "is from an unknown CA (its self-signed root is not among the trusted ones)",
    20: "is from an unknown CA (the issuer is not among the trusted ones)",
    21: "is from an unknown CA (the server sent no chain to a trusted one)",
    23: "has been revoked",
    24: "was issued by a certificate that is not a CA",
    25: "has a longer chain than one of its CAs allows",
    26: "is not meant for servers (extended key usage)",
    28: "is rejected by the trust settings",
    32: "was issued by a certificate that may not sign others",
    66: "has too weak a key",
    67: "has a CA with too weak a key",
    68: "has a CA signed with too weak a hash",
    79: "was issued by a certificate that is not a CA",
}


class HandshakeRecord:
    """What the callback learned in one handshake; OpenSSL's own error says only "certificate verify failed".

    problem: str -- why the certificate was refused, "" if it was not (yet).
    is_accepted: bool -- whether the server's certificate was seen and accepted.
    """

    __slots__ = ("is_accepted", "problem")

    def __init__(self) -> None:
        self.problem = ""
        self.is_accepted = False


_records: WeakKeyDictionary[SSL.Connection, HandshakeRecord] = WeakKeyDictionary()


def record_of(transport: object) -> HandshakeRecord | None:
    """Return what was learned in the handshake on a TLS transport, None where :func:`guard` was not used."""
    try:
        return _records.get(transport.getHandle())  # type: ignore[attr-defined]
    except Exception:
        return None


def is_ip_address(host: str) -> bool:
    """Say whether `host` is an IP address and not a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def guard(connection: SSL.Connection, hostname: str) -> None:
    """Make the handshake of `connection` fail unless chain and name are right for `hostname`.

    Takes the place of the callback that Twisted 26.4 and later sets on the connection.
    """
    record = _records[connection] = HandshakeRecord()

    def callback(connection: SSL.Connection, certificate: X509, problem: int, depth: int, ok: int) -> bool:
        try:
            if not ok:
                record.problem = record.problem or _chain_problem(certificate, problem, depth)
                return False
            if depth == 0:
                record.problem = _name_problem(_Peer(certificate), hostname)
                record.is_accepted = not record.problem
            return not record.problem
        except BaseException as error:  # whatever it is, it is no agreement
            record.problem = f"could not be checked ({type(error).__name__})"
            record.is_accepted = False
            return False

    connection.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, callback)


def verify_peer(transport: Any, hostname: str) -> None:
    """Check that the TLS connection below `transport` was made with the server `hostname`, a name or an IP address.

    To be called at `IHandshakeListener.handshakeCompleted`, before anything is written.  Whatever goes wrong in the
    check, also an exception nobody thought of, is PeerVerificationFailed: abort the transport then.
    """
    problem = "was not checked"
    try:
        connection = transport.getHandle()
        if connection.get_verify_mode() & SSL.VERIFY_PEER:
            problem = _name_problem(connection, hostname.rstrip("."))
    except BaseException as error:
        problem = f"could not be checked ({type(error).__name__})"
    if problem:
        raise refusal(hostname, problem)


def refusal(hostname: str, problem: str) -> PeerVerificationFailed:
    """Return the error for a certificate that is not accepted."""
    return PeerVerificationFailed(f"refusing {clip(hostname, 80)!r}: its certificate {problem}", initiator="client")


def check_the_checker() -> None:
    """Try the checker on certificates that it must refuse, once per process (C1.5).

    ConfigurationError, and no TLS, if it accepts one without names or one for another host, or refuses a right one:
    the installed service-identity or pyOpenSSL is not one that txmsg can rely on.
    """
    global _is_checker_sound
    if _is_checker_sound:
        return
    name = "broker.example"
    bad = [
        what
        for what, names, is_right in (
            ("accepts a certificate without a name", None, False),
            ("accepts a certificate for another host", ["other.example"], False),
            ("refuses a right certificate", [name], True),
        )
        if (_name_problem(_Peer(_throw_away_certificate(name, names)), name) == "") is not is_right
    ]
    if bad:
        raise ConfigurationError(
            f"refusing to use TLS: the installed service-identity {' and '.join(bad)}; "
            "install service-identity >= 24.1 and a pyOpenSSL that goes with it"
        )
    _is_checker_sound = True


_is_checker_sound = False


class _Peer:
    """As much of a connection as the checker looks at, for a certificate that is not on one yet."""

    __slots__ = ("_certificate",)

    def __init__(self, certificate: X509) -> None:
        self._certificate = certificate

    def get_peer_certificate(self) -> X509:
        return self._certificate


def _name_problem(connection: Any, hostname: str) -> str:
    """Return why the peer's certificate is not for `hostname`, "" if it is.  The checker; it never raises."""
    try:
        (verify_ip_address if is_ip_address(hostname) else verify_hostname)(connection, hostname)
    except BaseException:  # service-identity's errors have no common base, and a bug is no agreement either
        try:
            return _names_text(connection.get_peer_certificate().to_cryptography())
        except BaseException as error:
            return f"could not be read ({type(error).__name__})"
    return ""


def _names_text(certificate: x509.Certificate) -> str:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return "has no names in it (no subjectAltName; the common name does not count)"
    names = [str(name.value) for name in extension.value if isinstance(name, x509.DNSName | x509.IPAddress)]
    if not names:
        return "has no host names in it (its subjectAltName holds something else)"
    return "is for " + clip(", ".join(names), 90)


def _chain_problem(certificate: X509, problem: int, depth: int) -> str:
    text = _CHAIN_PROBLEMS.get(problem, f"cannot be trusted (OpenSSL's verification error {problem})")
    decoded = certificate.to_cryptography()
    text = text.format(
        not_before=decoded.not_valid_before_utc.strftime("%Y-%m-%d %H:%M UTC"),
        not_after=decoded.not_valid_after_utc.strftime("%Y-%m-%d %H:%M UTC"),
    )
    return text if depth == 0 or problem not in (9, 10) else f"has a CA that {text}"


def _throw_away_certificate(common_name: str, names: list[str] | None) -> X509:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False)
    return X509.from_cryptography(builder.sign(key, hashes.SHA256()))

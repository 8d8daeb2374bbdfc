"""TLS for the broker's listeners: its certificate, and what it asks of clients.

https://www.rabbitmq.com/docs/ssl#peer-verification and https://www.rabbitmq.com/docs/access-control#certificate-authentication.
Invariants: TLS 1.2 at least (C1.3); neither compression nor renegotiation (C1.4); a client certificate that is shown is
verified, or the handshake fails; only a verified one names a user.  Not checked: revocation.

The files are looked at for each connection and read again when they have changed, so that renewed certificates are
taken up; one that has become unusable is reported, and the one before goes on being used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from cryptography.x509.oid import NameOID
    from OpenSSL import SSL, crypto
    from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
    from twisted.internet.ssl import CertificateOptions, TLSVersion
except ImportError as error:
    raise ImportError(f"TLS needs pyOpenSSL and cryptography ({error}): pip install 'txmsg[tls]'") from error
from twisted.logger import Logger
from zope.interface import implementer

from txmsg.errors import ConfigurationError, clip

__all__ = ["ServerTLS", "peer_certificate", "peer_name"]

_log = Logger(namespace="txmsg.broker.tls")

_VERSIONS: Final = {"TLSv1.2": TLSVersion.TLSv1_2, "TLSv1.3": TLSVersion.TLSv1_3}
_VERIFY: Final = ("none", "optional", "required")
_LOGINS: Final = ("common_name", "distinguished_name")

#: A file's path.
Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTLS:
    """How a listener speaks TLS.  All files are PEM.

    cert_file: path -- the broker's certificate, with the chain to its CA after it.
    key_file: path or None -- its key; default: in `cert_file`.
    key_password: callable that returns bytes, or None -- the key's pass phrase, asked whenever the key is read.
    ca_file: path or None -- the CAs that client certificates must come from.
    verify: "none", "optional" or "required" -- whether clients have to show a certificate.  Default: "optional" where
        there is a `ca_file`, else "none".
    login_from: "common_name" or "distinguished_name" -- what of a client certificate is the user's name for EXTERNAL.
    minimum_version: "TLSv1.2" (default) or "TLSv1.3".

    ConfigurationError, naming the file, for one that cannot be read or used; the files are read here to find out.
    """

    cert_file: Path
    key_file: Path | None = None
    key_password: Callable[[], bytes] | None = None
    ca_file: Path | None = None
    verify: str = ""
    login_from: str = "common_name"
    minimum_version: str = "TLSv1.2"

    def __post_init__(self) -> None:
        if not self.verify:
            object.__setattr__(self, "verify", "none" if self.ca_file is None else "optional")
        for what, value, allowed in (
            ("verify", self.verify, _VERIFY),
            ("login_from", self.login_from, _LOGINS),
            ("minimum_version", self.minimum_version, tuple(_VERSIONS)),
        ):
            if value not in allowed:
                raise ConfigurationError(f"{what} must be one of {', '.join(allowed)}, not {clip(str(value))!r}")
        if self.verify != "none" and self.ca_file is None:
            raise ConfigurationError("to verify client certificates, give the CAs they must come from: ca_file")
        _Context(self)

    def creator(self) -> Any:
        """What a listener makes its TLS connections with: an IOpenSSLServerConnectionCreator."""
        return _Creator(self)

    @property
    def files(self) -> list[Path]:
        """All files there are to read."""
        return [path for path in (self.cert_file, self.key_file, self.ca_file) if path is not None]


class _Context:
    """The files of a ServerTLS as they were read, made into an OpenSSL context."""

    def __init__(self, options: ServerTLS) -> None:
        self.stamp = _stamp(options)
        data = _read("cert_file", options.cert_file)
        chain = _certificates_in(data, options.cert_file)
        key_path = options.cert_file if options.key_file is None else options.key_file
        if options.key_file is not None:
            data = _read("key_file", options.key_file)
        key = _key_in(data, key_path, options.key_password)
        del data
        if _public_octets(key) != _public_octets(chain[0]):
            raise ConfigurationError(f"the key in {key_path} does not belong to the certificate in {options.cert_file}")
        twisted = CertificateOptions(
            privateKey=crypto.PKey.from_cryptography_key(key),
            certificate=crypto.X509.from_cryptography(chain[0]),
            extraCertChain=[crypto.X509.from_cryptography(each) for each in chain[1:]],
            raiseMinimumTo=_VERSIONS[options.minimum_version],
        )
        self.openssl = context = twisted.getContext()
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        if options.ca_file is not None and options.verify != "none":
            store = context.get_cert_store()
            assert store is not None
            for each in _certificates_in(_read("ca_file", options.ca_file), options.ca_file):
                trusted = crypto.X509.from_cryptography(each)
                store.add_cert(trusted)
                context.add_client_ca(trusted)
            mode = SSL.VERIFY_PEER | SSL.VERIFY_CLIENT_ONCE
            if options.verify == "required":
                mode |= SSL.VERIFY_FAIL_IF_NO_PEER_CERT
            context.set_verify(mode, _chain_verdict)
        context.set_session_id(b"txmsg-broker")
        context.set_app_data(options)


def _chain_verdict(connection: Any, certificate: Any, error: int, depth: int, ok: int) -> bool:
    """OpenSSL's own verdict; there is no way to say yes where it says no."""
    return bool(ok)


@implementer(IOpenSSLServerConnectionCreator)
class _Creator:
    """Makes the TLS side of each connection, with the files as they are now."""

    def __init__(self, options: ServerTLS) -> None:
        self.options = options
        self._context = _Context(options)

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """IOpenSSLServerConnectionCreator: the connection for one transport."""
        if _stamp(self.options) != self._context.stamp:
            try:
                self._context = _Context(self.options)
                _log.info("the certificate in {path} was read again", path=os.fspath(self.options.cert_file))
            except ConfigurationError as error:
                _log.error("the TLS files have changed and cannot be used: {problem}", problem=str(error))
                self._context.stamp = _stamp(self.options)
        return SSL.Connection(self._context.openssl, None)


def peer_certificate(transport: Any) -> x509.Certificate | None:
    """The client's certificate on a TLS transport; it has been verified.  None without one, or without TLS."""
    get = getattr(transport, "getPeerCertificate", None)
    found = None if get is None else get()
    return None if found is None else found.to_cryptography()


def peer_name(transport: Any) -> str | None:
    """Whom the client's certificate names, by the listener's `login_from`; None for nobody."""
    certificate = peer_certificate(transport)
    if certificate is None:
        return None
    options = transport.getHandle().get_context().get_app_data()
    if isinstance(options, ServerTLS) and options.login_from == "distinguished_name":
        return certificate.subject.rfc4514_string() or None
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if len(names) == 1 and names[0].value else None


# -- files -------------------------------------------------------------------------------------------------


def _stamp(options: ServerTLS) -> list[tuple[int, int, int] | None]:
    """What tells whether the files have changed."""
    stamps: list[tuple[int, int, int] | None] = []
    for path in options.files:
        try:
            status = os.stat(path)
        except (OSError, ValueError, TypeError):
            stamps.append(None)
        else:
            stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return stamps


def _read(what: str, path: object) -> bytes:
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{what} must be a path, not {type(path).__name__}")
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise ConfigurationError(f"cannot read {what} {os.fspath(path)}: {problem}")


def _certificates_in(data: bytes, path: Path) -> list[x509.Certificate]:
    with contextlib.suppress(Exception):  # the library's text can quote the file
        return x509.load_pem_x509_certificates(data)
    del data
    raise ConfigurationError(f"there is no readable PEM certificate in {os.fspath(path)}")


def _key_in(data: bytes, path: Path, password: Callable[[], bytes] | None) -> Any:
    with contextlib.suppress(Exception):
        return load_pem_private_key(data, None if password is None else password())
    is_encrypted = b"ENCRYPTED" in data
    del data
    where = os.fspath(path)
    if is_encrypted and password is None:
        raise ConfigurationError(f"the key in {where} is encrypted: give key_password")
    raise ConfigurationError(f"there is no private key in {where} that can be read")


def _public_octets(owner: Any) -> bytes:
    octets: bytes = owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return octets

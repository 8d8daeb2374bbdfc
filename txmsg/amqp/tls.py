"""TLS for a client: certificates, keys and trust, checked when they are configured and read anew at each connect.

Built on Twisted's `optionsForClientTLS`; the checks of the server's certificate are in `tls_verify`, the texts of what
can go wrong in `tls_failures`.

Invariants: the chain and the name are always verified, there is no switch for "do not" (C1.1); the version is at
least TLS 1.2 (C1.3); compression and renegotiation are off (C1.4); an error shows a path, never what is in the file.
Not checked: revocation, unless `crl_file` is given.  https://www.rabbitmq.com/docs/ssl
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

try:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
    from OpenSSL import SSL, crypto
    from service_identity.hazmat import DNS_ID, IPAddress_ID
    from twisted.internet._sslverify import IOpenSSLTrustRoot  # what `trustRoot` must provide; exported nowhere else
    from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
    from twisted.internet.ssl import (
        Certificate,
        PrivateCertificate,
        TLSVersion,
        optionsForClientTLS,
        platformTrust,
        trustRootFromCertificates,
    )
except ImportError as error:  # no fallback: half a check is none (C1.6)
    raise ImportError(
        f"TLS needs pyOpenSSL, cryptography and service-identity >= 24.1 ({error}): pip install 'txmsg[tls]'"
    ) from error
from twisted.logger import Logger
from zope.interface import implementer

from txmsg.amqp.secret import Secret, SecretBytes
from txmsg.amqp.tls_failures import classify_tls_failure, looks_like_tls
from txmsg.amqp.tls_verify import check_the_checker, guard, is_ip_address, verify_peer
from txmsg.amqp.validation import host_name, refuse_unknown, shown, unchangeable
from txmsg.errors import ConfigurationError

__all__ = ["TLSOptions", "classify_tls_failure", "has_client_certificate", "looks_like_tls", "verify_peer"]

_log = Logger(namespace="txmsg.amqp.tls")

_VERSIONS = {"TLSv1.2": TLSVersion.TLSv1_2, "TLSv1.3": TLSVersion.TLSv1_3}

#: A file's path.
Path = str | os.PathLike[str]


@unchangeable
@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class TLSOptions:
    """How to speak TLS with a broker.  All files are PEM; all of it is keyword-only.

    ca_file: path, or several -- the CAs to trust for the broker; none (and no ca_data, no trust_root): the platform's.
    ca_data: str or bytes -- the same, as PEM text.
    trust_root: the same, as what Twisted's `optionsForClientTLS` takes (IOpenSSLTrustRoot or a Certificate).
    cert_file: path -- our certificate, with the chain to its CA after it; needed for EXTERNAL.
    key_file: path -- its key; default: in `cert_file`.
    key_password: str, Secret, or a callable that returns one -- the key's pass phrase, asked anew at each connect.
    client_certificate: a twisted.internet.ssl.PrivateCertificate, or a callable that returns one, in place of files.
    server_name: str -- the name to ask for (SNI) and to verify; default: the host as given to connect.
    crl_file: path, or several -- revocation lists of the CA that issues the broker's certificate; the broker is then
        refused if it is on one, and also if the list is too old.
    minimum_version: "TLSv1.2" (default) or "TLSv1.3".

    ConfigurationError, naming the file, for one that cannot be read or used.  The files are read here to find that out,
    and again for each connection, so that renewed certificates are taken up.
    """

    ca_file: Path | Sequence[Path] | None
    ca_data: str | bytes | None
    trust_root: Any
    cert_file: Path | None
    key_file: Path | None
    key_password: Secret | Callable[[], str | Secret] | None
    client_certificate: PrivateCertificate | Callable[[], PrivateCertificate] | None
    server_name: str | None
    crl_file: Path | Sequence[Path] | None
    minimum_version: str

    def __new__(cls, **options: Any) -> TLSOptions:
        """Refuse a misspelt name; the values may be secret, so they are gone before that."""
        names = list(options)
        del options
        refuse_unknown(cls.__name__, names, cls.__slots__)
        return object.__new__(cls)

    def __init__(
        self,
        *,
        ca_file: Path | Sequence[Path] | None = None,
        ca_data: str | bytes | None = None,
        trust_root: Any = None,
        cert_file: Path | None = None,
        key_file: Path | None = None,
        key_password: str | Secret | Callable[[], str | Secret] | None = None,
        client_certificate: PrivateCertificate | Callable[[], PrivateCertificate] | None = None,
        server_name: str | None = None,
        crl_file: Path | Sequence[Path] | None = None,
        minimum_version: str = "TLSv1.2",
    ) -> None:
        hidden: Secret | Callable[[], str | Secret] | None = None
        problem = ""
        try:
            hidden = key_password if key_password is None or callable(key_password) else Secret(key_password)
        except ConfigurationError as error:
            problem = f"key_password: {error}"
        del key_password  # the locals of a frame that raises can be printed (C3.1)
        if problem:
            raise ConfigurationError(problem)
        for name, value in (
            ("ca_file", ca_file),
            ("ca_data", ca_data),
            ("trust_root", trust_root),
            ("cert_file", cert_file),
            ("key_file", key_file),
            ("key_password", hidden),
            ("client_certificate", client_certificate),
            ("server_name", server_name),
            ("crl_file", crl_file),
            ("minimum_version", minimum_version),
        ):
            object.__setattr__(self, name, value)
        self._check()
        self._load(warn=True)

    def __repr__(self) -> str:
        """Return what differs from the defaults, without secrets."""
        given = {name: getattr(self, name, None) for name in self.__slots__}  # None: shown half-made, in a traceback
        shown_as = {"ca_data": "...", "key_password": "***", "client_certificate": "..."}
        parts = [f"{k}={shown_as.get(k) or repr(v)}" for k, v in given.items() if v not in (None, "TLSv1.2")]
        return f"TLSOptions({', '.join(parts)})"

    @property
    def has_client_certificate(self) -> bool:
        """Whether we show a certificate of our own."""
        return self.cert_file is not None or self.client_certificate is not None

    def name_for(self, host: str) -> str:
        """Return the name under which the server at `host` has to identify itself."""
        name = self.server_name or host
        return name.rstrip(".") or name

    def client_connection_creator(self, hostname: str) -> _Creator:
        """Return what `wrapClientTLS` needs for one connection to `hostname` (or to `server_name`).

        Reads the files.  ConfigurationError if they have become unusable, or if nothing can be verified under that
        name, or if the installed libraries fail the self test (C1.5).
        """
        check_the_checker()
        name = self.name_for(hostname)
        loaded = self._load(warn=False)
        try:
            IPAddress_ID(name) if is_ip_address(name) else DNS_ID(name)
            return _Creator(loaded, name, _VERSIONS[self.minimum_version])
        except ValueError as error:  # IDNAError is one too
            problem = str(error)
        raise ConfigurationError(
            f"no certificate can be verified for {shown(name)} ({problem}): give TLSOptions(server_name=...)"
        )

    # -- checking and reading ----------------------------------------------------------------------

    def _check(self) -> None:
        """Check everything that needs no file."""
        if sum(value is not None for value in (self.ca_data, self.trust_root)) + bool(_paths(self.ca_file)) > 1:
            raise ConfigurationError("give only one of ca_file, ca_data and trust_root")
        if self.ca_file is not None and not _paths(self.ca_file):
            raise ConfigurationError("ca_file must name at least one file")
        if self.trust_root is not None and IOpenSSLTrustRoot(self.trust_root, None) is None:
            raise ConfigurationError(
                "trust_root must be what optionsForClientTLS takes (platformTrust(), trustRootFromCertificates(...) "
                f"or a Certificate), not {type(self.trust_root).__name__}"
            )
        if self.key_file is not None and self.cert_file is None:
            raise ConfigurationError("key_file needs the certificate that goes with it: give cert_file")
        if self.key_password is not None and self.cert_file is None:
            raise ConfigurationError("key_password needs a key: give cert_file (and key_file)")
        if self.client_certificate is not None and self.cert_file is not None:
            raise ConfigurationError("give only one of cert_file and client_certificate")
        if self.server_name is not None:
            host_name("server_name", self.server_name)
        if self.minimum_version not in _VERSIONS:
            raise ConfigurationError(
                f"minimum_version must be one of {', '.join(_VERSIONS)}, not {shown(self.minimum_version)}"
            )

    def _load(self, *, warn: bool) -> _Loaded:
        """Read all files and check that they fit together."""
        key, chain = self._load_certificate(warn)
        return _Loaded(
            trust_root=self._load_trust(),
            crls=[_read_crl(path) for path in _paths(self.crl_file)],
            key=key,
            chain=chain,
        )

    def _load_trust(self) -> Any:
        if self.trust_root is not None:
            return IOpenSSLTrustRoot(self.trust_root)
        if self.ca_data is not None:
            data = self.ca_data.encode("utf-8", "replace") if isinstance(self.ca_data, str) else self.ca_data
            found = _certificates_in(data, "ca_data")
        elif self.ca_file is not None:
            found = [c for path in _paths(self.ca_file) for c in _certificates_in(_read("ca_file", path), str(path))]
        else:
            return platformTrust()
        return trustRootFromCertificates([Certificate(crypto.X509.from_cryptography(c)) for c in found])

    def _load_certificate(self, warn: bool) -> tuple[crypto.PKey | None, list[crypto.X509]]:
        given = self.client_certificate
        if given is not None:
            if callable(given):
                given = given()
            if not isinstance(given, PrivateCertificate):
                raise ConfigurationError(
                    f"client_certificate must be a twisted.internet.ssl.PrivateCertificate, not {type(given).__name__}"
                )
            return given.privateKey.original, [given.original]
        if self.cert_file is None:
            return None, []
        data = _read("cert_file", self.cert_file)
        chain = _certificates_in(data, str(self.cert_file))
        key_path = self.cert_file if self.key_file is None else self.key_file
        if self.key_file is not None:
            data = _read("key_file", self.key_file)
        if warn:
            _warn_if_readable_by_others(key_path)
        key = _private_key_in(data, key_path, self.key_password)
        if _public_octets(key) != _public_octets(chain[0]):
            raise ConfigurationError(f"the key in {key_path} does not belong to the certificate in {self.cert_file}")
        return crypto.PKey.from_cryptography_key(key), [crypto.X509.from_cryptography(c) for c in chain]  # type: ignore[arg-type]  # _private_key_in took care


def has_client_certificate(transport: Any) -> bool:
    """Say whether we have a certificate to show on this TLS transport."""
    try:
        return transport.getHandle().get_certificate() is not None
    except Exception:  # no TLS transport
        return False


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the files of a TLSOptions held."""

    trust_root: Any
    crls: list[x509.CertificateRevocationList]
    key: crypto.PKey | None
    chain: list[crypto.X509]


@implementer(IOpenSSLTrustRoot)
class _TrustRoot:
    """The trusted CAs and, because Twisted hands us the context here, the rest of what belongs into it."""

    def __init__(self, loaded: _Loaded) -> None:
        self._loaded = loaded

    def _addCACertsToContext(self, context: SSL.Context) -> None:
        self._loaded.trust_root._addCACertsToContext(context)
        context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
        if self._loaded.crls:
            store = context.get_cert_store()
            assert store is not None
            for crl in self._loaded.crls:
                store.add_crl(crl)
            store.set_flags(crypto.X509StoreFlags.CRL_CHECK)


@implementer(IOpenSSLClientConnectionCreator)
class _Creator:
    """Makes the TLS side of one connection: Twisted's, with our check in place of its callback."""

    def __init__(self, loaded: _Loaded, name: str, version: Any) -> None:
        extra: dict[str, Any] = {"raiseMinimumTo": version}
        if loaded.key is not None:
            extra.update(privateKey=loaded.key, certificate=loaded.chain[0], extraCertChain=loaded.chain[1:])
        self.name = name
        self._twisted = optionsForClientTLS(name, trustRoot=_TrustRoot(loaded), extraCertificateOptions=extra)

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """IOpenSSLClientConnectionCreator: the connection for one transport."""
        connection = self._twisted.clientConnectionForTLS(tlsProtocol)
        guard(connection, self.name)
        return connection


# -- files -----------------------------------------------------------------------------------------


def _paths(value: Path | Sequence[Path] | None) -> list[Path]:
    if value is None:
        return []
    if isinstance(value, str | os.PathLike):
        return [value]
    return list(value)


def _read(what: str, path: object) -> SecretBytes:
    """Return what is in the file, as a secret: it may be a key."""
    problem = ""
    if not isinstance(path, str | os.PathLike):
        raise ConfigurationError(f"{what} must be a path, not {shown(path)}")
    try:
        with open(path, "rb") as file:
            return SecretBytes(file.read())
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or str(error)
    raise ConfigurationError(f"cannot read {what} {os.fspath(path)}: {problem}")


def _certificates_in(data: bytes, where: str) -> list[x509.Certificate]:
    # The library's error is dropped: its text can quote the file.
    with contextlib.suppress(Exception):
        return x509.load_pem_x509_certificates(data)
    raise ConfigurationError(f"there is no readable PEM certificate in {where}")


def _read_crl(path: Path) -> x509.CertificateRevocationList:
    data = _read("crl_file", path)
    with contextlib.suppress(Exception):
        return x509.load_pem_x509_crl(data)
    raise ConfigurationError(f"there is no readable PEM revocation list in {os.fspath(path)}")


def _private_key_in(data: bytes, path: Path, password: object) -> PrivateKeyTypes:
    if callable(password):
        password = Secret(password())
    octets = password.reveal_bytes() if isinstance(password, Secret) else None
    where = os.fspath(path)
    try:
        return load_pem_private_key(data, octets)
    except TypeError:  # documented: a pass phrase is missing, or given for a key that has none
        problem = (
            f"the key in {where} is encrypted: give key_password"
            if octets is None
            else f"the key in {where} is not encrypted, but key_password is given"
        )
    except Exception:
        if b"PRIVATE KEY-----" not in data:
            problem = f"there is no PEM private key in {where}"
        elif octets is not None:
            problem = f"the key in {where} cannot be read: wrong key_password?"
        else:
            problem = f"the private key in {where} cannot be read"
    raise ConfigurationError(problem)


def _public_octets(owner: PrivateKeyTypes | x509.Certificate) -> bytes:
    return owner.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _warn_if_readable_by_others(path: Path) -> None:
    """C1.7: a key that every user of the machine can read."""
    mode = os.stat(path).st_mode
    if os.name == "posix" and mode & (stat.S_IROTH | stat.S_IWOTH):
        _log.warn(
            "the private key in {path} can be read by every user of this machine (mode {mode:o}): chmod 600",
            path=os.fspath(path),
            mode=stat.S_IMODE(mode),
        )

"""txmsg.amqp.tls: what is refused when it is configured, the self test, and the texts of failures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from service_identity.pyopenssl import verify_hostname
from twisted.internet import ssl
from twisted.internet.error import ConnectionDone
from twisted.internet.error import ConnectionLost as TwistedConnectionLost
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.certificates import Authority, Issued, shared_authority
from txmsg.amqp import tls, tls_verify
from txmsg.amqp.tls import TLSOptions, classify_tls_failure, has_client_certificate, looks_like_tls, verify_peer
from txmsg.errors import (
    ClientCertificateRequired,
    ConfigurationError,
    ConnectionLost,
    HandshakeTimeout,
    PeerVerificationFailed,
    TLSFailed,
    TxmsgError,
)

PASS_PHRASE = "c4n4ry pass phrase"


@pytest.fixture(scope="module")
def authority() -> Authority:
    return shared_authority()


@pytest.fixture(scope="module")
def client(authority: Authority) -> Issued:
    return authority.issue("client")


def refusal(**options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        TLSOptions(**options)
    assert "PRIVATE KEY" not in str(caught.value)
    assert PASS_PHRASE not in str(caught.value)
    return str(caught.value)


class TestOptions:
    """Mistakes that need no server: C1.1, C1.3, C1.7, D-01, D-07, B-08."""

    def test_defaults(self) -> None:
        """C1.1, C1.3: the platform's CAs, the host's own name, TLS 1.2."""
        options = TLSOptions()
        assert (options.ca_file, options.trust_root, options.server_name) == (None, None, None)
        assert options.minimum_version == "TLSv1.2"
        assert not options.has_client_certificate
        assert options.name_for("Broker.example.") == "Broker.example"
        assert TLSOptions(server_name="x.example").name_for("10.0.0.1") == "x.example"

    def test_no_way_to_switch_the_check_off(self) -> None:
        """C1.1: no parameter by any of the names that do that elsewhere."""
        for name in ("verify", "verify_peer", "insecure", "check_hostname", "verify_mode", "cert_reqs", "ssl_context"):
            assert f"no parameter {name!r}" in refusal(**{name: False})

    def test_no_accept_all_in_the_source(self) -> None:
        """C1.4: nowhere in the package is a context made that verifies nothing."""
        package = Path(tls.__file__).parents[1]
        for path in package.rglob("*.py"):
            # A server does not verify who it is; whether clients need a certificate is tests/broker/test_tls.py's.
            if "testing" in path.parts or path == package / "broker" / "tls.py":
                continue
            text = path.read_text()
            for forbidden in (
                "VERIFY_NONE",
                "CertificateOptions(",
                "insecurelyLower",
                "ClientContextFactory",
                "CERT_NONE",
            ):
                assert forbidden not in text, f"{forbidden} in {path}"

    def test_unknown_keyword(self) -> None:
        """B-17: with the nearest known one."""
        assert "did you mean 'ca_file'" in refusal(ca_fil="x")
        assert "did you mean 'cert_file'" in refusal(certfile="x")

    def test_frozen(self) -> None:
        """B-18: nothing can be set."""
        options = TLSOptions()
        for name in ("ca_file", "nonsense"):
            with pytest.raises(AttributeError):
                setattr(options, name, "x")

    def test_repr(self, client: Issued) -> None:
        """C3.1: paths, and no secrets."""
        key = client.encrypted_key_file(PASS_PHRASE.encode())
        options = TLSOptions(cert_file=client.certificate_file, key_file=key, key_password=PASS_PHRASE)
        assert PASS_PHRASE not in repr(options)
        assert str(key) in repr(options)
        assert repr(TLSOptions()) == "TLSOptions()"

    def test_equality(self, authority: Authority) -> None:
        """B-20: everything counts."""
        assert TLSOptions(ca_file=authority.certificate_file) == TLSOptions(ca_file=authority.certificate_file)
        assert TLSOptions() != TLSOptions(server_name="x")

    @pytest.mark.parametrize("name", ["ca_file", "cert_file", "crl_file"])
    def test_unreadable(self, name: str, tmp_path: Path) -> None:
        """C1.7: a file that is not there, is a folder, or holds something else; the path is in the text."""
        missing, folder, other, empty = (tmp_path / n for n in ("missing.pem", "folder", "other.pem", "empty.pem"))
        folder.mkdir()
        other.write_text("-----BEGIN CERTIFICATE-----\nc4n4ry\n-----END CERTIFICATE-----\n")
        empty.write_text("")
        for path, says in ((missing, "No such file"), (folder, "directory"), (other, "PEM"), (empty, "PEM")):
            text = refusal(**{name: path})
            assert str(path) in text
            assert says in text
            assert "c4n4ry" not in text
        assert "path" in refusal(**{name: 5}) if name == "cert_file" else True
        assert "No such file" in refusal(**{name: str(missing)})

    def test_key_unreadable(self, client: Issued, tmp_path: Path) -> None:
        """C1.7: the same for the key."""
        missing, other = tmp_path / "missing.key", tmp_path / "other.key"
        other.write_text("nothing")
        assert str(missing) in refusal(cert_file=client.certificate_file, key_file=missing)
        assert f"no PEM private key in {other}" in refusal(cert_file=client.certificate_file, key_file=other)
        assert "no PEM private key" in refusal(cert_file=client.certificate_file)
        broken = tmp_path / "broken.key"
        broken.write_bytes(client.key_file.read_bytes().replace(b"M", b"N"))
        assert "cannot be read" in refusal(cert_file=client.certificate_file, key_file=broken)

    def test_key_of_another_certificate(self, client: Issued, authority: Authority) -> None:
        """C1.7: a pair that does not belong together."""
        text = refusal(cert_file=client.certificate_file, key_file=authority.issue("other").key_file)
        assert "does not belong to the certificate" in text
        assert str(client.certificate_file) in text

    def test_pass_phrase(self, client: Issued) -> None:
        """C1.7: missing, wrong, superfluous; none of them asks on the terminal."""
        key = client.encrypted_key_file(PASS_PHRASE.encode())
        pair: dict[str, Any] = {"cert_file": client.certificate_file, "key_file": key}
        assert "is encrypted: give key_password" in refusal(**pair)
        assert "wrong key_password" in refusal(**pair, key_password="another")
        assert str(key) in refusal(**pair, key_password="another")
        plain: dict[str, Any] = {"cert_file": client.certificate_file, "key_file": client.key_file}
        assert "is not encrypted" in refusal(**plain, key_password=PASS_PHRASE)
        assert TLSOptions(**pair, key_password=PASS_PHRASE).has_client_certificate
        assert TLSOptions(**pair, key_password=lambda: PASS_PHRASE).has_client_certificate

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"ca_file": [], "ca_data": None}, "at least one"),
            ({"ca_data": "", "trust_root": ssl.platformTrust()}, "only one"),
            ({"ca_data": "nothing"}, "ca_data"),
            ({"trust_root": "ca.pem"}, "trust_root"),
            ({"trust_root": True}, "trust_root"),
            ({"key_file": "k.pem"}, "cert_file"),
            ({"key_password": "x"}, "cert_file"),
            ({"client_certificate": "c.pem"}, "PrivateCertificate"),
            ({"client_certificate": lambda: None}, "PrivateCertificate"),
            ({"server_name": ""}, "server_name"),
            ({"server_name": "a/b"}, "server_name"),
            ({"server_name": 5}, "server_name"),
            ({"minimum_version": "TLSv1"}, "TLSv1.2, TLSv1.3"),
            ({"minimum_version": "TLSv1.1"}, "TLSv1.2, TLSv1.3"),
            ({"minimum_version": "SSLv3"}, "TLSv1.2, TLSv1.3"),
            ({"minimum_version": None}, "TLSv1.2, TLSv1.3"),
        ],
    )
    def test_refused(self, options: dict[str, Any], says: str) -> None:
        """C1.3, D-01, D-07: and other mistakes."""
        assert says in refusal(**options)

    def test_given_twice(self, authority: Authority, client: Issued) -> None:
        """One source for each thing."""
        assert "only one" in refusal(ca_file=authority.certificate_file, ca_data="x")
        pair = ssl.PrivateCertificate.loadPEM(client.key_file.read_bytes() + client.certificate_file.read_bytes())
        assert "only one" in refusal(cert_file=client.certificate_file, client_certificate=pair)

    def test_name_that_no_certificate_can_have(self) -> None:
        """C1.2: a name that cannot be verified fails before anything is sent, with what to do."""
        for name in ("a..b", "*.example", "-", "my_broker"):
            with pytest.raises(ConfigurationError, match="server_name"):
                TLSOptions().client_connection_creator(name)

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o604, 0o644])
    def test_key_readable_by_others(self, client: Issued, tmp_path: Path, mode: int) -> None:
        """C1.7: a warning, once, with the path; none for a key that only its owner or group can read."""
        key = tmp_path / "client.key"
        key.write_bytes(client.key_file.read_bytes())
        key.chmod(mode)
        events: list[LogEvent] = []
        observer: Any = events.append
        globalLogPublisher.addObserver(observer)
        try:
            options = TLSOptions(cert_file=client.certificate_file, key_file=key)
            options.client_connection_creator("localhost")
        finally:
            globalLogPublisher.removeObserver(observer)
        warned = [e for e in events if e.get("log_namespace") == "txmsg.amqp.tls"]
        assert len(warned) == (1 if mode & 0o004 else 0)
        assert all(e["path"] == str(key) for e in warned)


class TestSelfTest:
    """C1.5: the checker is tried once per process, and TLS refused if it is not sound."""

    @pytest.fixture(autouse=True)
    def _untried(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tls_verify, "_is_checker_sound", False)

    def test_sound(self) -> None:
        tls_verify.check_the_checker()
        assert tls_verify._is_checker_sound

    @pytest.mark.parametrize(
        ("broken", "says"),
        [
            (lambda connection, name: None, "accepts a certificate without a name"),
            (lambda connection, name: None, "accepts a certificate for another host"),
            # service-identity 23.1 with a newer pyOpenSSL: an attribute is missing, whatever the name.
            (lambda connection, name: connection.nonsense, "refuses a right certificate"),
        ],
    )
    def test_broken(self, monkeypatch: pytest.MonkeyPatch, broken: Any, says: str) -> None:
        """C1.5: neither a checker that says yes to all nor one that fails on all is used."""
        monkeypatch.setattr(tls_verify, "verify_hostname", broken)
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=says) as caught:
                TLSOptions().client_connection_creator("localhost")
            assert "service-identity >= 24.1" in str(caught.value)

    def test_ignores_a_missing_name(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C1.5: one that swallows what is not a mismatch, as Twisted does, is found out too."""

        def swallowing(connection: Any, name: str) -> None:
            try:
                verify_hostname(connection, name)
            except VerificationError:
                raise
            except Exception:
                return

        monkeypatch.setattr(tls_verify, "verify_hostname", swallowing)
        with pytest.raises(ConfigurationError, match="without a name"):
            tls_verify.check_the_checker()

    def test_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """C1.5: the second connection does not pay for it."""
        TLSOptions().client_connection_creator("localhost")
        monkeypatch.setattr(tls_verify, "_throw_away_certificate", lambda *args: 1 / 0)
        TLSOptions().client_connection_creator("localhost")


class FakeConnection:
    """As much of an SSL.Connection as is asked here."""

    def __init__(self, certificate: Any = None, mode: int = SSL.VERIFY_PEER, authorities: tuple[str, ...] = ()) -> None:
        self.certificate, self.mode, self.authorities = certificate, mode, authorities

    def get_verify_mode(self) -> int:
        return self.mode

    def get_peer_certificate(self) -> Any:
        return self.certificate

    def get_certificate(self) -> Any:
        return None

    def get_client_ca_list(self) -> list[str]:
        return list(self.authorities)


class FakeTransport:
    def __init__(self, handle: Any) -> None:
        self.handle = handle

    def getHandle(self) -> Any:
        return self.handle


class TestVerifyPeer:
    """C1.2: the second check fails closed."""

    def certificate(self, authority: Authority, **names: Any) -> Any:
        return ssl.Certificate.loadPEM(authority.issue("x", **names).certificate_file.read_bytes()).original

    def test_right(self, authority: Authority) -> None:
        certificate = self.certificate(authority, dns=["broker.example"], ip=["10.0.0.1", "::1"])
        for name in ("broker.example", "BROKER.example", "broker.example.", "10.0.0.1", "::1"):
            verify_peer(FakeTransport(FakeConnection(certificate)), name)

    @pytest.mark.parametrize(
        "transport",
        [
            None,
            object(),
            FakeTransport(None),
            FakeTransport(FakeConnection(None)),
            FakeTransport(FakeConnection(object())),
            FakeTransport(FakeConnection(mode=SSL.VERIFY_NONE)),
        ],
        ids=["none", "no TLS", "no connection", "no certificate", "nonsense", "not verified"],
    )
    def test_nothing_to_check(self, transport: Any) -> None:
        """C1.2: whatever is missing, refuses."""
        with pytest.raises(PeerVerificationFailed, match=r"broker\.example"):
            verify_peer(transport, "broker.example")

    @pytest.mark.parametrize("error", [AttributeError, ValueError, KeyboardInterrupt, SystemExit, CertificateError])
    def test_any_exception_refuses(
        self, authority: Authority, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        """C1.2: also one that nobody thought of."""

        def raising(connection: Any, name: str) -> None:
            raise error("c4n4ry")

        monkeypatch.setattr(tls_verify, "verify_hostname", raising)
        certificate = self.certificate(authority, dns=["broker.example"])
        with pytest.raises(PeerVerificationFailed):
            verify_peer(FakeTransport(FakeConnection(certificate)), "broker.example")

    def test_names_of_the_peer_are_not_trusted(self, authority: Authority) -> None:
        """C3.3: what stands in the certificate is cut and made printable."""
        names = [f"{'x' * 60}{i}.example" for i in range(50)]
        with pytest.raises(PeerVerificationFailed) as caught:
            verify_peer(FakeTransport(FakeConnection(self.certificate(authority, dns=names))), "broker.example")
        assert len(str(caught.value)) < 300


def openssl(*reasons: str) -> SSL.Error:
    return SSL.Error([("SSL routines", "", reason) for reason in reasons])


class TestClassify:
    """D-08: each error in one line, with its cause; the real ones are in the matrix."""

    @pytest.mark.parametrize(
        ("error", "kind", "says"),
        [
            (openssl("wrong version number"), TLSFailed, "does not speak TLS"),
            (openssl("http request"), TLSFailed, "does not speak TLS"),
            (openssl("packet length too long"), TLSFailed, "does not speak TLS"),
            (openssl("certificate verify failed"), PeerVerificationFailed, "not trusted"),
            (openssl("tlsv13 alert certificate required"), ClientCertificateRequired, "none was given"),
            (openssl("sslv3 alert bad certificate"), ClientCertificateRequired, "none was given"),
            (openssl("ssl/tls alert bad certificate"), ClientCertificateRequired, "none was given"),
            (openssl("tlsv1 alert unknown ca"), ClientCertificateRequired, "none was given"),
            (openssl("sslv3 alert handshake failure"), TLSFailed, "refused the handshake"),
            (openssl("tlsv1 alert protocol version"), TLSFailed, "TLS 1.2 or later"),
            (openssl("unsupported protocol"), TLSFailed, "TLS 1.2 or later"),
            (openssl("tlsv1 unrecognized name"), TLSFailed, "SNI"),
            (openssl("something", "new\x1b"), TLSFailed, "something; new\\x1b"),
            (SSL.Error([]), TLSFailed, "no reason"),
            (SSL.Error(), TLSFailed, "no reason"),
            (SSL.SysCallError(-1, "Unexpected EOF"), TLSFailed, "Unexpected EOF"),
            (VerificationError(errors=[]), PeerVerificationFailed, "not for this host"),
            (CertificateError("no names"), PeerVerificationFailed, "not for this host"),
            (TwistedConnectionLost(), ConnectionLost, "during the TLS handshake"),
            (ConnectionDone(), ConnectionLost, "during the TLS handshake"),
        ],
    )
    def test_texts(self, error: Exception, kind: type[TxmsgError], says: str) -> None:
        for given in (error, Failure(error)):
            found = classify_tls_failure(given, "broker.example", port=5671)
            assert type(found) is kind
            assert says in str(found)
            assert "\n" not in str(found)
            assert found.recoverable is (kind is ConnectionLost)
            assert "broker.example" in str(found)

    def test_ours_stays(self) -> None:
        """An error of ours is the answer already."""
        error = HandshakeTimeout("x")
        assert classify_tls_failure(Failure(error), "h") is error

    def test_reset_after_the_handshake(self) -> None:
        """D-08: a reset can overtake the alert of TLS 1.3; who was asked for a certificate and has none knows why."""
        for authorities, kind in (((), ConnectionLost), (("CN=ca",), ClientCertificateRequired)):
            connection: Any = FakeConnection(authorities=authorities)
            record = tls_verify.HandshakeRecord()
            record.is_accepted = True
            tls_verify._records[connection] = record
            found = classify_tls_failure(TwistedConnectionLost(), "h", transport=FakeTransport(connection))
            assert type(found) is kind
            assert "TLS handshake" in str(found) or "none was given" in str(found)

    def test_no_leak_of_records(self) -> None:
        """R31: what was learned goes with the connection."""
        before = len(tls_verify._records)
        connection: Any = FakeConnection()
        tls_verify._records[connection] = tls_verify.HandshakeRecord()
        del connection
        assert len(tls_verify._records) == before


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", True),
        (b"\x15\x03\x01", True),
        (b"\x16\x03\x03\x00\x40", True),
        (b"AMQP\0\0\x09\x01", False),
        (b"\x01\x00\x00\x00\x00\x01", False),
        (b"\x15\x03", False),
        (b"", False),
    ],
)
def test_looks_like_tls(data: bytes, expected: bool) -> None:
    """D-08: a TLS alert in place of AMQP."""
    assert looks_like_tls(data) is expected


def test_has_client_certificate() -> None:
    """C1.8: no transport, no certificate."""
    assert not has_client_certificate(None)
    assert not has_client_certificate(FakeTransport(None))
    assert not has_client_certificate(FakeTransport(FakeConnection()))


@pytest.mark.parametrize("missing", ["OpenSSL", "service_identity", "cryptography"])
def test_missing_library(missing: str) -> None:
    """C1.6: without one of them there is an ImportError that says what to install, and no half TLS."""
    script = f"import sys; sys.modules[{missing!r}] = None; import txmsg.amqp.tls"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "pip install 'txmsg[tls]'" in done.stderr

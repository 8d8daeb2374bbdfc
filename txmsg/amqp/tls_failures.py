"""What went wrong with TLS, in one line: OpenSSL's and Twisted's errors become ours.

OpenSSL says "certificate verify failed" for a dozen facts and "wrong version number" for a server without TLS.  Here
the record that `tls_verify` keeps of the handshake is added, so that the error names the cause (D-08).  An alert about
certificates always speaks of ours: what we think of theirs we know ourselves.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from service_identity import CertificateError, VerificationError
from twisted.python.failure import Failure

from txmsg.amqp.tls_verify import record_of, refusal
from txmsg.errors import ClientCertificateRequired, ConnectionLost, TLSFailed, TxmsgError, clip

__all__ = ["classify_tls_failure", "looks_like_tls"]

#: What OpenSSL says when the other side sent something that is no TLS record.
_NOT_TLS = ("wrong version number", "http request", "https proxy request", "unknown protocol", "packet length too long")

#: Alerts about our certificate: how OpenSSL's text of them ends, and what they mean.
_CERTIFICATE_ALERTS = {
    "alert certificate required": "it requires a client certificate",
    "alert unknown ca": "it does not know the CA of our client certificate",
    "alert bad certificate": "it does not accept our client certificate",
    "alert unsupported certificate": "our client certificate is of a kind that it does not take",
    "alert certificate revoked": "our client certificate has been revoked",
    "alert certificate expired": "our client certificate has expired",
    "alert certificate unknown": "it does not accept our client certificate",
    "alert access denied": "our client certificate gives no access",
}

_NONE_GIVEN = "it requires a client certificate, and none was given"

#: Other alerts and local errors.
_CAUSES = {
    "alert protocol version": "no TLS version in common (txmsg needs TLS 1.2 or later)",
    "unsupported protocol": "no TLS version in common (txmsg needs TLS 1.2 or later)",
    "version too low": "no TLS version in common (txmsg needs TLS 1.2 or later)",
    "alert handshake failure": "the server refused the handshake (no cipher in common?)",
    "no shared cipher": "no cipher in common",
    "alert unrecognized name": "the server does not know the name asked for (SNI)",
    "unrecognized name": "the server does not know the name asked for (SNI)",
    "alert internal error": "the server has an internal TLS error (its certificate or key?)",
    "dh key too small": "the server's key exchange is too weak",
}


def looks_like_tls(data: bytes) -> bool:
    """Say whether the first bytes from a peer are a TLS record: a TLS server on a port used without TLS.

    A server that gets "AMQP..." in place of a ClientHello answers with an alert record: 21, 3, 0 to 4.
    """
    return len(data) >= 3 and data[0] in (20, 21, 22) and data[1] == 3 and data[2] <= 4


def classify_tls_failure(
    failure: Failure | BaseException, host: str, *, port: int | None = None, transport: Any = None
) -> TxmsgError:
    """Return our error for why a connection under TLS ended, before AMQP was spoken on it.

    failure: what `connectionLost` was given, or any exception.  An error of ours is returned as it is.
    host, port: for the text.
    transport: the protocol's transport, which leads to what was learned in the handshake.

    PeerVerificationFailed: we refuse the server's certificate.  ClientCertificateRequired: the server wants a client
    certificate or does not accept ours, under TLS 1.2 as under 1.3.  TLSFailed: all else that OpenSSL found.
    ConnectionLost, which is recoverable: the peer only went away.
    """
    error: Any = failure.value if isinstance(failure, Failure) else failure
    if isinstance(error, TxmsgError):
        return error
    where = clip(host, 80) if port is None else f"{clip(host, 80)}:{port}"
    record = record_of(transport)
    if record is not None and record.problem:
        return refusal(host, record.problem)
    if isinstance(error, VerificationError | CertificateError):  # Twisted's own check, before 26.4
        return refusal(host, "is not for this host")
    if not isinstance(error, SSL.Error):
        if record is not None and record.is_accepted:
            if _is_asked_in_vain(transport):  # the alert of TLS 1.3 comes late, and a reset can overtake it
                return ClientCertificateRequired(f"{where} refused us: {_NONE_GIVEN}", initiator="server")
            return _lost(f"{where} closed the connection right after the TLS handshake", error)
        return _lost(f"{where} closed the connection during the TLS handshake: is it a TLS port?", error)
    reason = _reason(error)
    if any(text in reason for text in _NOT_TLS):
        return TLSFailed(f"the server at {where} does not speak TLS (a port for plain AMQP?)", initiator="client")
    if "certificate verify failed" in reason:
        return refusal(host, "is not trusted")
    meaning = next((m for text, m in _CERTIFICATE_ALERTS.items() if reason.endswith(text)), "")
    if reason.endswith("alert handshake failure") and record is not None and record.is_accepted:
        # Its certificate came, so version and cipher were agreed on: what it misses is ours (TLS 1.2).
        meaning = "it does not accept our client certificate"
    if meaning:
        if not _has_certificate(transport):
            meaning = _NONE_GIVEN
        return ClientCertificateRequired(f"{where} refused us: {meaning}", initiator="server")
    for text, meaning in _CAUSES.items():
        if text in reason:
            return TLSFailed(f"TLS with {where} failed: {meaning}", initiator="transport")
    return TLSFailed(f"TLS with {where} failed: {clip(reason, 100) or 'no reason given'}", initiator="transport")


def _lost(text: str, error: BaseException) -> ConnectionLost:
    return ConnectionLost(text, cause=error)


def _reason(error: SSL.Error) -> str:
    """Return OpenSSL's own words: of its queue, the last error has the cause."""
    queue = error.args[0] if error.args else ()
    if isinstance(queue, list | tuple):
        return "; ".join(str(entry[-1]) for entry in queue if entry)
    return str(error)


def _is_asked_in_vain(transport: Any) -> bool:
    """Say whether the server asked for a client certificate (naming its CAs, as brokers do) and got none."""
    return bool(transport.getHandle().get_client_ca_list()) and not _has_certificate(transport)


def _has_certificate(transport: Any) -> bool:
    try:
        return transport.getHandle().get_certificate() is not None
    except Exception:  # the transport is gone, or there was none: assume nothing was shown
        return False

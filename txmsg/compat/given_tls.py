"""A connection over TLS that somebody else has set up: whoever made the transport, not our parameters.

Both drop-ins are given a transport and do what it is told.  Twisted says when TLS is up (`IHandshakeListener`), but
wrappers around a protocol (`twisted.protocols.policies`, say) do not pass that on, and the libraries that the drop-ins
stand for have never needed it.

Invariant: where the TLS context verifies at all and names a server, nothing of the login is sent before the name has
been checked once more, because Twisted 26.4 to 26.10 let certificates without a usable name pass; see
txmsg.amqp.tls_verify.
"""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.internet.interfaces import IHandshakeListener
from twisted.protocols.tls import TLSMemoryBIOProtocol

from txmsg.amqp import AMQPProtocol
from txmsg.amqp.tls_verify import verify_peer

__all__ = ["GivenTLSProtocol"]


class GivenTLSProtocol(AMQPProtocol):
    """An AMQPProtocol that takes its transport as it comes: plain, or TLS with a context of somebody else's."""

    def connectionMade(self) -> None:
        """Twisted: start the handshake, behind that of TLS if we are told when it is done.

        If not, the protocol header, which is no secret, is left to TLS to be sent when it is up, and the server is
        looked at when its first bytes are here.
        """
        super().connectionMade()
        if self._is_tls and self._reason is None and not _tells_of_handshake(self.transport):
            self._start_handshake()

    def handshakeCompleted(self) -> None:
        """Twisted: TLS is up.  Who the server has to be is the business of whoever made the TLS context."""
        if self._reason is None and self._handshake is None and self._is_right_server():
            self._start_handshake()

    def dataReceived(self, data: bytes) -> None:
        """Twisted: the first bytes; later ones do not come this way."""
        if not self._is_tls or self._is_right_server():
            super().dataReceived(data)

    def _is_right_server(self) -> bool:
        name = _verified_name(self.transport)
        if name:
            try:
                verify_peer(self.transport, name)
            except Exception as error:
                self.drop(error)
                return False
        return True


def _tells_of_handshake(transport: Any) -> bool:
    """Whether Twisted's TLS knows of somebody who wants to hear when it is up."""
    for _ in range(5):  # wrappers of wrappers
        if isinstance(transport, TLSMemoryBIOProtocol):
            return bool(IHandshakeListener.providedBy(transport.wrappedProtocol))
        transport = getattr(transport, "transport", None)
    return True  # a transport of another kind keeps to Twisted's interface


def _verified_name(transport: Any) -> str:
    """The name that the TLS context asks the server for; "" where it verifies nothing."""
    try:
        connection = transport.getHandle()
        if connection.get_verify_mode() & SSL.VERIFY_PEER:
            return (connection.get_servername() or b"").decode("ascii")
    except Exception:  # a transport that is TLS in its own way
        return ""
    return ""

"""Which name is verified when each address of a name is a host of its own."""

from __future__ import annotations

from tests.certificates import shared_authority
from tests.scripted import PeerGone, ScriptedPeer, ScriptedTestCase
from txmsg.amqp import Backoff, ConnectionParameters, PlainCredentials, ReconnectingConnection, TLSOptions
from txmsg.errors import PeerVerificationFailed


async def _accept(peer: ScriptedPeer) -> None:
    try:
        await peer.accept()
        await peer.accept_close()
    except PeerGone:
        pass


class NameTests(ScriptedTestCase):
    """C1.2, R11: connected to the address, verified under the name; a refused name is not tried again at once (R12)."""

    async def test_name_and_address(self) -> None:
        """The certificate has the name "localhost" and no address."""
        authority = shared_authority()
        issued = authority.issue("recovery-names", dns=["localhost"])
        server = self.serve(_accept, tls=issued)
        tls = TLSOptions(ca_file=authority.certificate_file)
        common = ConnectionParameters(port=server.port, tls=tls, credentials=PlainCredentials("guest", "guest"))
        by_name = ReconnectingConnection(common.replace(host="localhost"), backoff=Backoff(initial=0.01))
        self.addCleanup(by_name.close)
        await by_name.start()
        self.assertIn("(127.0.0.1)", by_name.where)
        await by_name.close()
        wrong = ReconnectingConnection(common.replace(host="127.0.0.1"), backoff=Backoff(initial=0.01), max_attempts=1)
        with self.assertRaises(PeerVerificationFailed):
            await wrong.start()

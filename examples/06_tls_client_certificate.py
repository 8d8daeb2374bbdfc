"""TLS with a client certificate: no password, the certificate says who we are (SASL EXTERNAL).

    python examples/06_tls_client_certificate.py HOST PORT ca.pem client.pem client.key

The broker needs the plug-in rabbitmq_auth_mechanism_ssl and a user named as the certificate's CN.
"""

import sys
from typing import Any

from twisted.internet.task import react

from txmsg.amqp import ConnectionParameters, ExternalCredentials, TLSOptions, connect


async def main(reactor: Any, host: str, port: str, ca_file: str, cert_file: str, key_file: str) -> None:
    parameters = ConnectionParameters(
        host=host,
        port=int(port),
        credentials=ExternalCredentials(),
        tls=TLSOptions(ca_file=ca_file, cert_file=cert_file, key_file=key_file),
    )
    connection = await connect(parameters, reactor=reactor)
    print(f"connected to {connection.server_properties['product']} over TLS")
    channel = await connection.channel()
    declared = await channel.queue_declare("", exclusive=True)
    await channel.basic_publish("", declared.queue, "for your eyes only")
    delivery = await channel.basic_get(declared.queue, no_ack=True)
    if delivery is not None:
        print(f"received {delivery.body.decode()!r}")
    await connection.close()


if __name__ == "__main__":
    react(main, sys.argv[1:])

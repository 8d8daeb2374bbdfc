"""From the service's configuration to the parameters of its connection.

Invariant: what `ConnectionParameters` would refuse is refused before the service is daemonised, as a
:class:`~txmsg.service.settings.SettingError`.
"""

from __future__ import annotations

from typing import Any

from txmsg.amqp import ConnectionParameters, ExternalCredentials, PlainCredentials, TLSOptions
from txmsg.errors import ConfigurationError
from txmsg.service.config import ConsumerConfig
from txmsg.service.settings import SettingError

__all__ = ["connection_parameters"]


def connection_parameters(config: ConsumerConfig) -> ConnectionParameters:
    """The parameters for `config`.  Raises SettingError.

    With a client certificate and no user, the login is EXTERNAL: the certificate says who we are
    (https://www.rabbitmq.com/docs/access-control#mechanisms).
    """
    overrides: dict[str, Any] = {"connection_name": config.connection_name or f"txmsg-consumer {config.queue}"}
    if config.heartbeat is not None:
        overrides["heartbeat"] = config.heartbeat
    try:
        if config.tls_ca or config.tls_cert:
            overrides["tls"] = TLSOptions(ca_file=config.tls_ca, cert_file=config.tls_cert, key_file=config.tls_key)
        if config.username is not None and config.password is not None:
            overrides["credentials"] = PlainCredentials(config.username, config.password)
        elif config.tls_cert:
            overrides["credentials"] = ExternalCredentials()
        return ConnectionParameters.from_url(config.url, **overrides)
    except ConfigurationError as error:
        raise SettingError(str(error)) from None

"""From the service's configuration to the parameters of its connections.

Invariant: what `ConnectionParameters` would refuse is refused before the service is daemonised, as a
:class:`~txmsg.service.settings.SettingError`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from txmsg.amqp import ConnectionParameters, ExternalCredentials, PlainCredentials, TLSOptions, uri
from txmsg.amqp.sasl import is_loopback
from txmsg.amqp.secret import Secret
from txmsg.errors import ConfigurationError, clip
from txmsg.service.config import ConsumerConfig
from txmsg.service.settings import SettingError, split_urls

if TYPE_CHECKING:
    from txmsg.messaging import Connection

__all__ = ["connection_targets", "messaging_connection"]

#: "amqp://host/", which is the default virtual host here; for the messaging layer, as for Kombu, it is the one without
#: a name.
_BARE_PATH = re.compile(r"^(\w+://[^/?]*)/(?=\?|$)")


def connection_targets(config: ConsumerConfig, queue: str = "") -> list[ConnectionParameters]:
    """The parameters for each URL of `config`; `queue`: what is consumed, for the connection's name.

    Raises SettingError.

    With a client certificate and no user, the login is EXTERNAL: the certificate says who we are
    (https://www.rabbitmq.com/docs/access-control#mechanisms).
    """
    try:
        overrides = _overrides(config, queue or config.queue)
        urls = _urls(config.url)
        for url in urls:
            _check_user(url, overrides)
        return [ConnectionParameters.from_url(url, **overrides) for url in urls]
    except ConfigurationError as error:
        raise SettingError(str(error)) from None


def messaging_connection(config: ConsumerConfig, name: str) -> Connection:
    """A connection of the messaging layer with the same parameters; `name`: what it is for.

    It is one for which `connection_targets` has found nothing wrong.
    """
    # Only here: a service without servers and declared handlers has no use for the messaging layer.
    from txmsg.messaging import Connection

    options = _overrides(config, name)
    options["backoff"] = {"initial": config.backoff_initial, "maximum": config.backoff_maximum}
    options["attempt_timeout"] = config.attempt_timeout
    options["order"] = config.host_order
    return Connection(
        [_BARE_PATH.sub(r"\1", url.reveal()) for url in _urls(config.url)],
        connect_timeout=config.attempt_timeout,
        transport_options=options,
        failover_strategy="shuffle" if config.host_order == "shuffle" else "round-robin",
        name=name,
    )


def _overrides(config: ConsumerConfig, name: str) -> dict[str, Any]:
    """What the settings say that is not in the URLs.  ConfigurationError."""
    overrides: dict[str, Any] = {"connection_name": config.connection_name or f"txmsg-consumer {clip(name)}"}
    if config.heartbeat is not None:
        overrides["heartbeat"] = config.heartbeat
    if config.allow_plaintext_auth:
        overrides["allow_plaintext_auth"] = True
    if config.tls_ca or config.tls_cert:
        overrides["tls"] = TLSOptions(ca_file=config.tls_ca, cert_file=config.tls_cert, key_file=config.tls_key)
    if config.username is not None and config.password is not None:
        overrides["credentials"] = PlainCredentials(config.username, config.password)
    elif config.tls_cert:
        overrides["credentials"] = ExternalCredentials()
    return overrides


def _urls(given: str | Secret) -> list[Secret]:
    """Each URL by itself, as a secret: the locals of a frame can be printed (C3.1)."""
    return [Secret(url) for url in split_urls(given.reveal() if isinstance(given, Secret) else given)]


def _check_user(url: Secret, overrides: dict[str, Any]) -> None:
    """Say how to name a user in the words of this service, where ConnectionParameters would in its own."""
    found = uri.parse(url)
    if isinstance(found, ConfigurationError) or "credentials" in found | overrides or is_loopback(found["host"]):
        return
    raise ConfigurationError(
        f"no user for {clip(found['host'])!r}: set TXMSG_USERNAME and TXMSG_PASSWORD, or username and password_file "
        "(the user guest, taken when there is none, is for this machine only)"
    )

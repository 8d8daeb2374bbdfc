"""From configuration to connection parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.certificates import shared_authority
from txmsg.amqp import ExternalCredentials, PlainCredentials
from txmsg.amqp.secret import Secret
from txmsg.errors import ConfigurationError
from txmsg.service.config import ConsumerConfig, load_config
from txmsg.service.connection import connection_targets, messaging_connection
from txmsg.service.settings import SettingError
from txmsg.transports.amqp.settings import settings_of

CANARY = "c4n4ry"


def parameters(**config: Any) -> Any:
    (made,) = connection_targets(ConsumerConfig(queue="work", handler="a:b", **config))
    return made


def test_what_is_not_given_is_the_clients_default() -> None:
    made = parameters()
    assert made.as_url() == "amqp://localhost:5672/%2F"
    assert (made.credentials, made.tls, made.heartbeat) == (None, None, None)
    assert made.connection_name == "txmsg-consumer work"


def test_what_is_given() -> None:
    made = parameters(
        url="amqp://h/shop",
        username="bob",
        password=Secret("pw"),
        heartbeat=0,
        connection_name="me",
        allow_plaintext_auth=True,
    )
    assert made.credentials == PlainCredentials("bob", "pw")
    assert (made.host, made.virtual_host, made.heartbeat, made.connection_name) == ("h", "shop", 0, "me")
    assert made.allow_plaintext_auth


def test_several_hosts() -> None:
    """R11: each URL with its own user, all with what is given apart."""
    config = ConsumerConfig(queue="work", handler="a:b", url=f"amqps://a:1@x;amqps://b:{CANARY}@y/v", heartbeat=9)
    one, two = connection_targets(config)
    assert (one.credentials, two.credentials) == (PlainCredentials("a", "1"), PlainCredentials("b", CANARY))
    assert (one.heartbeat, two.heartbeat, two.virtual_host) == (9, 9, "v")
    assert CANARY not in repr(two)


def test_a_secret_url_keeps_its_user() -> None:
    made = parameters(url=Secret(f"amqps://bob:{CANARY}@h"))
    assert made.credentials == PlainCredentials("bob", CANARY)


def test_a_certificate_without_a_user_logs_in_by_external() -> None:
    """Issue: TLS client certificate; with a user the certificate is for TLS only."""
    authority = shared_authority()
    client = authority.issue("service-client", dns=["client"])
    files = {
        "tls_ca": str(authority.certificate_file),
        "tls_cert": str(client.certificate_file),
        "tls_key": str(client.key_file),
    }
    made = parameters(url="amqps://h", **files)
    assert isinstance(made.credentials, ExternalCredentials)
    assert (made.port, made.tls.ca_file) == (5671, files["tls_ca"])
    made = parameters(url="amqps://h", username="bob", password=Secret("pw"), **files)
    assert made.credentials == PlainCredentials("bob", "pw")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"url": "http://h"}, "must begin with amqp:// or amqps://"),
        ({"url": "amqp://h:99999"}, "port"),
        ({"url": "amqp://h/a/b"}, "%2F"),
        ({"url": "amqp://h?hartbeat=5"}, "'hartbeat'"),
        ({"url": Secret(f"amqp://bob:{CANARY}/x@h")}, "%2F"),
        ({"url": "amqp://localhost;amqp://h"}, "no user for 'h'"),
        ({"url": "amqp://h"}, "no user for 'h': set TXMSG_USERNAME and TXMSG_PASSWORD"),
        ({"url": "amqps://localhost", "tls_ca": "/none/ca.pem"}, "/none/ca.pem"),
        ({"url": "amqps://localhost", "tls_cert": "/none/cert.pem"}, "/none/cert.pem"),
    ],
)
def test_what_cannot_be_used(config: dict[str, Any], expected: str) -> None:
    """Issue, "bad input": wrong URL and unusable files are found before anything is connected; no secret (Z8)."""
    with pytest.raises(SettingError) as caught:
        parameters(**config)
    assert caught.value.exit_code == 78
    assert expected in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"url": ["amqp://127.0.0.1"]},
        {"url": ["amqp://127.0.0.1/"]},
        {"url": ["amqp://127.0.0.1/?heartbeat=8"]},
        {"url": ["amqp://[::1]:77/%2F"], "heartbeat": "9"},
        {"url": ["amqp://bob:p%40@127.0.0.1:99/x%2Fy?frame_max=8192&max_message_size=100"], "connection_name": "n"},
        {"url": ["amqps://one/shop", "amqps://two/shop"], "username": "bob", "host_order": "listed"},
        {"url": ["amqp://bob:pw@one:1/shop", "amqp://bob:pw@two:2/shop"], "allow_plaintext_auth": True},
        {"url": ["amqps://one/shop"], "tls_ca": ""},
    ],
)
def test_servers_connect_as_handlers_do(options: dict[str, Any]) -> None:
    """Issue 7: one setting means the same for an RPC server as for a handler."""
    if "tls_ca" in options:
        authority = shared_authority()
        issued = authority.issue("shop")
        options = {
            **options,
            "tls_ca": str(authority.certificate_file),
            "tls_cert": str(issued.certificate_file),
            "tls_key": str(issued.key_file),
        }
    environ = {"TXMSG_PASSWORD": CANARY} if "username" in options else {}
    config = load_config({"rpc": ["shop:server"], **options}, environ)
    connection = messaging_connection(config, "shop")
    settings = settings_of(list(connection.transport_urls()), connection.transport_settings())
    assert not isinstance(settings, ConfigurationError)
    # The whole attempt has a limit of its own, attempt_timeout, which the messaging layer puts there.
    targets = [replace(target, stack_timeout=10.0) for target in connection_targets(config, "shop")]
    assert sorted(settings.targets, key=repr) == sorted(targets, key=repr)
    assert settings.recovery["order"] == config.host_order
    assert settings.recovery["attempt_timeout"] == config.attempt_timeout
    assert CANARY not in repr((connection, connection.transport_options))

"""The options of amqp:// and amqps://."""

from __future__ import annotations

import ssl
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.certificates import shared_authority
from txmsg.amqp import AMQPlainCredentials, Backoff, ExternalCredentials, PlainCredentials, TLSOptions
from txmsg.errors import ConfigurationError
from txmsg.transports.amqp.settings import Settings, settings_of

LOCAL = "amqp://guest:guest@localhost"


class SettingsCases(SynchronousTestCase):
    """Asking for settings."""

    def settings(self, url: Any = LOCAL, **options: Any) -> Settings:
        """Those that are accepted."""
        found = settings_of([url], options)
        if isinstance(found, ConfigurationError):
            raise found
        return found

    def target(self, url: Any = LOCAL, **options: Any) -> Any:
        """The parameters of a URL with options."""
        [target] = self.settings(url, **options).targets
        return target

    def refusal(self, url: Any = LOCAL, **options: Any) -> str:
        """Why something is refused; without secrets."""
        found = settings_of([url], options)
        self.assertIsInstance(found, ConfigurationError)
        self.assertNotIn("s3cret", str(found))
        self.assertIsNone(getattr(found, "__traceback__", None))
        return str(found)


class SettingsTests(SettingsCases):
    """What a URL and the options come to."""

    def test_parameters(self) -> None:
        """kombu C6, D1, D39: all parameters of a connection but where to; they win over the URL."""
        target = self.target(
            "amqp://u:p@localhost:1234/v?heartbeat=3&frame_max=5000",
            heartbeat=60,
            connect_timeout=5,
            channel_max=10,
            client_properties={"product": "shop"},
            virtual_host="",
            locale="en_GB",
            max_message_size=1000,
        )
        self.assertEqual((target.host, target.port, target.credentials.username), ("localhost", 1234, "u"))
        self.assertEqual((target.heartbeat, target.frame_max, target.channel_max), (60, 5000, 10))
        self.assertEqual((target.connect_timeout, target.virtual_host, target.locale), (5.0, "", "en_GB"))
        self.assertEqual((target.client_properties, target.max_message_size), ({"product": "shop"}, 1000))
        self.assertEqual((self.target().port, self.target("amqps://u:p@localhost").port), (5672, 5671))

    def test_unknown(self) -> None:
        """kombu D39: a misspelt option is refused with the nearest; one of Kombu's with what to use instead."""
        self.assertIn("did you mean 'heartbeat'?", self.refusal(heartbaet=1))
        self.assertIn("did you mean 'maximum'?", self.refusal(backoff={"maximun": 1}))
        self.assertIn("did you mean 'ca_certs'?", self.refusal(ssl={"ca_cert": "x"}))
        self.assertIn("there are allow_plaintext_auth, attempt_timeout, backoff", self.refusal(zzzzzzz=1))
        self.assertIn("use tcp_options", self.refusal(socket_settings={}))
        self.assertIn("operation_timeout", self.refusal(read_timeout=3))
        self.assertIn("mapping or None", str(settings_of([LOCAL], 17)))  # type: ignore[arg-type]

    def test_values(self) -> None:
        """What an option cannot be is said with its name."""
        for name, value in (
            ("heartbeat", -1),
            ("frame_max", "big"),
            ("confirm_publish", 1),
            ("on_blocked", "no"),
            ("backoff", 3),
            ("resubscribe_limit", -1),
            ("login_method", "GSSAPI"),
            ("login_method", 3),
            ("ssl", 3),
        ):
            with self.subTest(name=name, value=value):
                self.assertIn(name, self.refusal(**{name: value}))
        self.assertIn("initial", self.refusal(backoff={"initial": -1}))

    def test_urls(self) -> None:
        """kombu C3, D42: Kombu's schemes; alternates have the same options; bad ones are found at once."""
        self.assertEqual(self.target("pyamqp://u:p@localhost/v").virtual_host, "v")
        self.assertEqual(self.target("LibRabbitMQ://u:p@localhost").port, 5672)
        found = settings_of([LOCAL, "amqp://u:p@127.0.0.1:1"], {"heartbeat": 7})
        assert isinstance(found, Settings)
        self.assertEqual([target.heartbeat for target in found.targets], [7, 7])
        for bad in ("http://u:s3cret@x", "amqp://u:s3cret@x/a/b", 17):
            self.refusal(bad)
            self.assertIsInstance(settings_of([LOCAL, bad], None), ConfigurationError)
        self.assertIn("TLS", str(settings_of([LOCAL, "amqp://u:s3cret@example.com"], None)))
        self.target("amqp://u:s3cret@example.com", endpoint=mock.Mock())

    def test_login_method(self) -> None:
        """kombu D1: how the user of the URL logs in."""
        self.assertIs(type(self.target(login_method="plain").credentials), PlainCredentials)
        amqplain = self.target("amqp://u:s3cret@localhost", login_method="AMQPLAIN").credentials
        self.assertEqual(amqplain, AMQPlainCredentials("u", "s3cret"))
        self.assertEqual(
            self.target("amqp://localhost", login_method="AMQPLAIN").credentials, AMQPlainCredentials("guest", "guest")
        )
        self.assertIsInstance(self.target("amqp://localhost", login_method="EXTERNAL").credentials, ExternalCredentials)
        self.assertIn("needs a user", self.refusal(login_method="PLAIN", credentials=ExternalCredentials()))

    def test_recovery(self) -> None:
        """How it comes back; nothing said: in the order of the list, for ever."""
        self.assertEqual(self.settings().recovery, {"order": "listed", "backoff": None})
        backoff = Backoff(initial=1)
        for given in (backoff, {"initial": 1}):
            found = self.settings(
                backoff=given, max_attempts=3, recovery_limit=9, order="shuffle", confirm_publish=False
            )
            self.assertEqual(found.recovery["backoff"].initial, 1)
            self.assertEqual((found.recovery["max_attempts"], found.recovery["order"]), (3, "shuffle"))
        self.assertEqual(self.settings().resubscribe_limit, 300)
        self.assertIsNone(self.settings(resubscribe_limit=None).resubscribe_limit)


class TLSSettingsTests(SettingsCases):
    """kombu D40, and Kombu's `ssl` of area A: always verified, whatever is said."""

    def test_forms(self) -> None:
        """True, a mapping with Python's or our names, TLSOptions; also for an amqp:// URL."""
        ready = TLSOptions(server_name="broker")
        for given in (True, {}, {"server_hostname": "broker"}, {"server_name": "broker"}, ready):
            with self.subTest(given=given):
                target = self.target("amqp://u:p@far.example", ssl=given)
                self.assertEqual((target.port, target.tls is None), (5671, False))
        self.assertEqual(self.target(tls=ready).tls, ready)
        for nothing in (False, None):
            self.assertIsNone(self.target(ssl=nothing).tls)
            self.assertIsNotNone(self.target("amqps://u:p@far.example", ssl=nothing).tls)

    def test_names(self) -> None:
        """The names of Python's `ssl`."""
        authority = shared_authority()
        client = authority.issue("client")
        target = self.target(
            ssl={
                "ca_certs": authority.certificate_file,
                "certfile": client.certificate_file,
                "keyfile": client.key_file,
                "cert_reqs": ssl.CERT_REQUIRED,
                "check_hostname": True,
            }
        )
        self.assertEqual(target.tls.ca_file, authority.certificate_file)
        self.assertEqual((target.tls.cert_file, target.tls.key_file), (client.certificate_file, client.key_file))

    def test_what_would_not_verify(self) -> None:
        """It is refused: there is no way to switch it off."""
        self.assertIn("always verified", self.refusal(ssl={"cert_reqs": ssl.CERT_NONE}))
        self.assertIn("always verified", self.refusal(ssl={"check_hostname": False}))
        self.assertIn("minimum_version", self.refusal(ssl={"ssl_version": 3}))
        self.assertIn("ca_file twice", self.refusal(ssl={"ca_certs": "a", "ca_file": "b"}))
        self.assertIn("only one of", self.refusal(ssl=True, tls=True))
        self.assertIn("certfile", self.refusal(ssl={"password": "s3cret"}).replace("cert_file", "certfile"))

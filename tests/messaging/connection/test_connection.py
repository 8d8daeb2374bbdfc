"""Tests of what a Connection is made from and what it says of itself."""

from __future__ import annotations

import json
import pickle
import ssl
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import Clock
from twisted.python.failure import Failure

from tests.messaging.connection.scripted_transport import ScriptedConnectionCase
from txmsg.amqp import TLSOptions
from txmsg.errors import ConfigurationError, NotImplementedByPeer
from txmsg.messaging import Channel, Connection, channel_errors, connection_errors
from txmsg.messaging.connection.connection import BrokerConnection
from txmsg.messaging.connection.failures import recoverable_channel_errors, recoverable_connection_errors


class FormsTests(ScriptedConnectionCase):
    """URL and keywords."""

    def attributes(self, connection: Connection) -> tuple[object, ...]:
        """What says where it leads to."""
        return (connection.userid, connection.password, connection.host, connection.virtual_host)

    def test_url_and_keywords(self) -> None:
        """kombu A9, A10, A15: both forms are the same; without anything it is the amqp broker on this machine."""
        url = Connection("amqp://me:secret@broker:5673/vhost")
        keywords = Connection("broker", "me", "secret", "vhost", 5673)
        self.assertEqual(self.attributes(url), ("me", "secret", "broker:5673", "vhost"))
        self.assertEqual(self.attributes(keywords), self.attributes(url))
        self.assertEqual(self.attributes(Connection()), (None, None, "localhost:5672", "/"))
        self.assertEqual(Connection().connect_timeout, 5.0)

    def test_defaults_are_the_transport_s(self) -> None:
        """kombu A15: guest, localhost and a port are amqp's; another transport has none of them, or its own."""
        for connection in (Connection("memory://"), Connection(self.transport.url)):
            info = connection.info()
            self.assertEqual([info[key] for key in ("userid", "password", "port")], [None] * 3)
            self.assertEqual((connection.userid, connection.password), (None, None))
            self.assertNotIn("guest", connection.as_uri(include_password=True))
        self.assertEqual(Connection().as_uri(include_password=True), "amqp://guest:guest@localhost:5672/%2F")

    def test_url_wins(self) -> None:
        """kombu A10: what the URL does not say comes from the keywords, and only that."""
        keywords: dict[str, Any] = {"userid": "k", "password": "kp", "virtual_host": "kv", "port": 1, "heartbeat": 5}
        self.assertEqual(self.attributes(Connection("amqp://h", **keywords)), ("k", "kp", "h:1", "kv"))
        whole = Connection("amqp://u:p@h:2/v?heartbeat=7", **keywords)
        self.assertEqual((self.attributes(whole), whole.heartbeat), (("u", "p", "h:2", "v"), 7.0))
        self.assertEqual(self.attributes(Connection("amqp://h/", **keywords))[3], "")

    def test_password_belongs_to_its_user(self) -> None:
        """The password of the keywords is not told to a broker as that of another user."""
        self.assertIsNone(Connection("amqp://u@h", userid="k", password="kp").password)
        self.assertEqual(Connection("amqp://k@h", userid="k", password="kp").password, "kp")
        self.assertEqual(Connection("amqp://u@h", password="kp").password, "kp")

    def test_hosts(self) -> None:
        """Names and addresses without a scheme, with and without a port."""
        for given, host in (("h", "h:5672"), ("h:1", "h:1"), ("::1", "[::1]:5672"), ("[::1]:7", "[::1]:7")):
            with self.subTest(hostname=given):
                self.assertEqual(Connection(given).host, host)
        self.assertEqual(Connection(None).host, "localhost:5672")

    def test_transport(self) -> None:
        """kombu A22, A23: an alias, a dotted path, a class or an object, where the URL names none."""
        self.assertEqual(Connection(transport="memory").transport.schemes, ("memory",))
        self.assertEqual(Connection("amqp://h", transport="memory").transport.schemes, ("amqp", "amqps"))
        self.assertEqual(Connection(transport="amqps").ssl, True)
        path = Connection(transport="txmsg.transports.memory:MemoryTransport")
        self.assertEqual(path.transport.schemes, ("memory",))
        self.assertIs(Connection("h", transport=self.transport).transport, self.transport)
        self.successResultOf(Connection("h", transport=self.transport, reactor=self.clock).connect())
        self.assertEqual(self.tried(), ["h"])

    def test_unknown_transport(self) -> None:
        """kombu A48: the nearest name that there is."""
        for wrong in ("amq://h", "memry://"):
            with self.assertRaisesRegex(ConfigurationError, "did you mean (amqp|memory)"):
                Connection(wrong)
        self.assertRaises(ConfigurationError, Connection, "h", transport="nothing.of:Mine")

    def test_several_urls(self) -> None:
        """kombu A51, B15, B16: a list, a text with ";", and alternates are one list."""
        urls = self.hosts("a", "b", "c")
        for connection in (
            Connection(urls),
            Connection(";".join(urls)),
            Connection(urls[0], alternates=urls[1:]),
            Connection(urls[:2], alternates=urls[2]),
        ):
            self.assertEqual(connection.alternates, urls)
            self.assertEqual((connection.hostname, connection.host_count()), ("a", 3))

    def test_urls_of_several_transports(self) -> None:
        """kombu A51: a transport is told of its own URLs only."""
        first, second = self.hosts("a", "b")
        connection = Connection([first, "memory://", second])
        self.assertEqual(connection.transport_urls(), [first, second])
        connection.maybe_switch_next()
        self.assertEqual(connection.transport_urls(), ["memory://"])
        self.assertEqual(connection.transport.schemes, ("memory",))

    def test_switching(self) -> None:
        """kombu B12, B13, B14: the strategy says what is next; one URL is never left."""
        connection = Connection(self.hosts("a", "b"))
        self.assertEqual([connection.completes_cycle(n) for n in range(4)], [False, True, False, True])
        connection.maybe_switch_next()
        self.assertEqual(connection.hostname, "b")
        connection.maybe_switch_next()
        self.assertEqual(connection.hostname, "a")
        own = Connection(self.hosts("a", "b", "c"), failover_strategy=lambda urls: reversed(urls))
        own.maybe_switch_next()
        self.assertEqual(own.hostname, "c")
        single = Connection(self.transport.url)
        single.maybe_switch_next()
        self.assertEqual((single.hostname, single.completes_cycle(0)), ("host", True))

    def test_insist(self) -> None:
        """kombu A24: it is taken, and of no effect."""
        self.assertEqual(Connection(insist=True).info(), Connection().info())

    def test_old_name(self) -> None:
        """kombu A49."""
        self.assertIs(BrokerConnection, Connection)


class OptionsTests(ScriptedConnectionCase):
    """Options of the URL and of the transport."""

    def given(self, url: str, **settings: Any) -> tuple[str, Mapping[str, Any] | None]:
        """The URL behind the host, and the options, that the transport of `url` is given."""
        connection = Connection(url, **settings)
        return connection.transport_urls()[0].partition("://")[2], connection.transport_settings()

    def test_typed(self) -> None:
        """kombu A13: options of a URL have the right types, and win."""
        connection = Connection("amqp://h?heartbeat=2.5&ssl=1&connect_timeout=7&login_method=PLAIN", heartbeat=9)
        self.assertEqual((connection.heartbeat, connection.ssl, connection.connect_timeout), (2.5, True, 7.0))
        self.assertEqual(connection.login_method, "PLAIN")
        for no in ("0", "false", "no"):
            self.assertIs(Connection(f"amqp://h?ssl={no}", ssl=True).ssl, False)

    def test_wrong_values(self) -> None:
        """kombu A13: a value that is none is refused by the constructor."""
        for option in (
            "heartbeat=inf",
            "heartbeat=x",
            "heartbeat=-1",
            "heartbeat=nan",
            "ssl=maybe",
            "connect_timeout=soon",
        ):
            with self.subTest(option=option):
                self.assertRaises(ConfigurationError, Connection, f"amqp://h?{option}")
        self.assertRaises(ConfigurationError, Connection, heartbeat=True)
        self.assertRaises(ConfigurationError, Connection, connect_timeout="soon")

    def test_unknown(self) -> None:
        """kombu A13: an option that neither we nor the transport have is refused, with the nearest there is."""
        for wrong, right in (
            ("hartbeat=1", "heartbeat"),
            ("frame_mx=1", "frame_max"),
            ("login_metod=1", "login_method"),
        ):
            with self.assertRaisesRegex(ConfigurationError, f"did you mean {right}"):
                Connection(f"amqp://h?{wrong}")
        self.assertRaises(ConfigurationError, Connection, "memory://x?anything=1")
        self.assertIn("anything=1", self.given(f"{self.transport.url}?anything=1")[0])

    def test_for_the_transport(self) -> None:
        """Everything is in the URL that it is given, percent-encoded, with the time limits."""
        url, options = self.given("amqp://u%40:p%2F@h:1//v?heartbeat=2.5&frame_max=8192", connect_timeout=3)
        self.assertEqual(url, "u%40:p%2F@h:1/%2Fv?heartbeat=3&connect_timeout=3&stack_timeout=3&frame_max=8192")
        self.assertEqual(options, {})
        self.assertEqual(self.given("amqp://h", connect_timeout=None), ("h", {}))
        self.assertEqual(self.given("memory://name/v", heartbeat=5), ("name/v", {}))

    def test_empty_virtual_host(self) -> None:
        """kombu A12, CN12: the empty one is an option of the transport, as its URL has no word for it."""
        url, options = self.given("amqp://h/", connect_timeout=None)
        self.assertEqual((url, options), ("h", {"virtual_host": ""}))
        self.assertEqual(self.given("amqp://h", connect_timeout=None)[1], {})

    def test_transport_options(self) -> None:
        """kombu A21: they are the transport's; those of the retry policy are not."""
        options = {"frame_max": 8192, "max_retries": 3, "interval_start": 1}
        self.assertEqual(self.given("amqp://h", transport_options=options)[1], {"frame_max": 8192})
        connection = Connection(transport_options=options)
        options["frame_max"] = 1
        self.assertEqual(connection.transport_options["frame_max"], 8192)

    def test_tls(self) -> None:
        """kombu A16, A17, A18: amqps, ssl=True and a mapping are TLS, with its port."""
        for connection in (Connection("amqps://h"), Connection("h", ssl=True), Connection("amqp://h?ssl=true")):
            self.assertEqual((connection.port, connection.ssl), (5671, True))
            self.assertTrue(connection.transport_urls()[0].startswith("amqps://h"))
        plain = Connection("amqp://h")
        self.assertEqual((plain.port, plain.ssl), (5672, False))
        files = {"ca_certs": "/ca", "certfile": "/cert", "keyfile": "/key", "cert_reqs": ssl.CERT_REQUIRED}
        url, options = self.given("amqp://h", ssl=files, connect_timeout=None)
        self.assertEqual((url, options), ("h?cacertfile=%2Fca&certfile=%2Fcert&keyfile=%2Fkey", {}))

    def test_tls_in_the_url(self) -> None:
        """kombu A50: ssl_ options of the URL are gathered, over those of the keyword."""
        url, _ = self.given("amqps://h?ssl_ca_certs=/a&ssl_cert_reqs=required", ssl={"ca_certs": "/b", "keyfile": "/k"})
        self.assertIn("cacertfile=%2Fa", url)
        self.assertIn("keyfile=%2Fk", url)
        self.assertTrue(Connection("amqp://h?ssl_ca_certs=/a").ssl)
        own = Connection("amqps://h?cacertfile=/own", ssl={"ca_certs": "/b"}).transport_urls()[0]
        self.assertIn("cacertfile=%2Fown", own)

    def test_tls_is_verified(self) -> None:
        """kombu A18: what would not verify the server is refused."""
        for reqs in (ssl.CERT_NONE, ssl.CERT_OPTIONAL, 0, "none", "CERT_NONE"):
            with self.subTest(cert_reqs=reqs), self.assertRaisesRegex(ConfigurationError, "always verified"):
                Connection("amqp://h", ssl={"cert_reqs": reqs})
        self.assertRaises(ConfigurationError, Connection, "amqps://h?ssl_cert_reqs=none")
        Connection("amqps://h?ssl_cert_reqs=CERT_REQUIRED")

    def test_tls_of_the_transport(self) -> None:
        """Anything else is for the transport: its own object, and words that a URL has not."""
        options = TLSOptions()
        self.assertEqual(self.given("amqp://h", ssl=options, connect_timeout=None), ("h", {"tls": options}))
        cadata = {"cadata": "PEM", "ca_certs": "/ca"}
        self.assertEqual(self.given("amqp://h", ssl=cadata, connect_timeout=None), ("h", {"tls": cadata}))

    def test_transport_without_it(self) -> None:
        """TLS or a login method for a transport that has none is a mistake; a heartbeat is not (kombu A28)."""
        self.assertRaises(ConfigurationError, Connection, "memory://", ssl=True)
        self.assertRaises(ConfigurationError, Connection, "memory://", login_method="PLAIN")
        self.assertEqual(
            (Connection("memory://", heartbeat=5).supports_heartbeats, Connection().supports_heartbeats), (False, True)
        )

    def test_login_method(self) -> None:
        """kombu A19: it is an option for the transport."""
        self.assertEqual(self.given("amqp://h", login_method="AMQPLAIN")[1], {"login_method": "AMQPLAIN"})

    def test_alias_and_prefix(self) -> None:
        """kombu A52: pyamqp is amqp; what has a "+" keeps it; uri_prefix puts one there."""
        self.assertEqual(Connection("pyamqp://h").transport_urls()[0][:8], "amqp://h")
        scheme = self.transport.scheme
        self.assertEqual(Connection(f"{scheme}+a+b://h/x/y").transport_urls(), [f"{scheme}+a+b://h/x/y"])
        prefixed = Connection("mysql://h/db", uri_prefix=scheme)
        self.assertEqual(prefixed.as_uri(), f"{scheme}+mysql://h/db")
        self.assertEqual(prefixed.clone().as_uri(), f"{scheme}+mysql://h/db")


class TellingTests(ScriptedConnectionCase):
    """as_uri, info, clone, switch, pickling, equality."""

    URL = "amqp://us%40er:S3%2FCRET@h:1/v?frame_max=8192&heartbeat=9"

    def test_as_uri(self) -> None:
        """kombu A30: the password is masked unless it is asked for; then the URL is whole."""
        connection = Connection(self.URL)
        self.assertEqual(connection.as_uri(), "amqp://us%40er:**@h:1/v")
        self.assertEqual(connection.as_uri(mask="xx"), "amqp://us%40er:xx@h:1/v")
        whole = Connection(connection.as_uri(include_password=True))
        self.assertEqual((whole.password, whole.userid, whole.virtual_host), ("S3/CRET", "us@er", "v"))
        self.assertIn("frame_max=8192", whole.transport_urls()[0])
        self.assertEqual(Connection().as_uri(), "amqp://guest:**@localhost:5672/%2F")
        self.assertEqual(Connection("memory://n").as_uri(), "memory://n/%2F")
        self.assertEqual(Connection("amqp://:p@h").as_uri(include_password=True), "amqp://:p@h:5672/%2F")

    def test_as_uri_round_trip(self) -> None:
        """kombu A14: what could be taken for something else is quoted."""
        for secret in ("@:/?#%;", "äö ü", "+", "%41"):
            whole = Connection("h", userid=secret, password=secret, virtual_host=secret).as_uri(include_password=True)
            again = Connection(whole)
            self.assertEqual((again.userid, again.password, again.virtual_host), (secret, secret, secret))

    def test_info(self) -> None:
        """kombu A31: all settings with the defaults filled in, as JSON, for the host in use."""
        info = Connection(failover_strategy=iter([]), transport_options={"a": object(), "b": (1, {2: None})}).info()
        self.assertEqual(
            json.loads(json.dumps(info)),
            {
                "hostname": "localhost",
                "userid": "guest",
                "password": "**",
                "virtual_host": "/",
                "port": 5672,
                "ssl": False,
                "transport": "amqp",
                "connect_timeout": 5.0,
                "transport_options": {"a": "object", "b": [1, {"2": None}]},
                "login_method": None,
                "uri_prefix": None,
                "heartbeat": None,
                "failover_strategy": "list_iterator",
                "alternates": ["amqp://localhost"],
            },
        )
        connection = Connection(self.hosts("a", "b"), ssl={"ca_certs": "/ca"})
        connection.maybe_switch_next()
        self.assertEqual((connection.info()["hostname"], connection.info()["ssl"]), ("b", {"ca_certs": "/ca"}))
        self.assertIsNone(Connection("memory://").info()["userid"])

    def test_clone(self) -> None:
        """kombu A32: everything goes along, and can be changed; the clone is not connected."""
        connection = Connection(
            ["amqp://u:p@a/v?frame_max=8192", "amqp://b"],
            ssl={"ca_certs": "/ca"},
            heartbeat=3,
            transport_options={"max_attempts": 4},
            login_method="PLAIN",
            connect_timeout=8,
            failover_strategy="shuffle",
            reactor=self.clock,
            name="mine",
        )
        clone = connection.clone()
        self.assertIsNot(clone, connection)
        self.assertEqual(clone.info(), connection.info())
        self.assertEqual((clone.name, clone.reactor, clone.password), ("mine", self.clock, "p"))
        self.assertEqual(clone.transport_urls(), connection.transport_urls())
        changed = connection.clone(hostname="amqp://c", heartbeat=1, name="other")
        self.assertEqual(
            (changed.hostname, changed.host_count(), changed.heartbeat, changed.name), ("c", 1, 1.0, "other")
        )
        self.successResultOf((original := self.connection()).connect())
        self.assertFalse(original.clone().connected)

    def test_clone_begins_where_it_is(self) -> None:
        """A clone of a connection that went to another host begins there, with the same list."""
        connection = Connection(self.hosts("a", "b", "c"))
        connection.maybe_switch_next()
        clone = connection.clone()
        self.assertEqual((clone.hostname, clone.host_count()), ("b", 3))

    def test_switch(self) -> None:
        """kombu A33: closed, what was declared is forgotten, another URL, and not connected, until it is used."""
        connection = self.connection(password="p")
        channel = self.successResultOf(connection.channel())
        epoch = connection.declared_entities.epoch
        self.successResultOf(connection.switch(self.hosts("other")[0]))
        self.assertFalse(self.transport.made[0].is_open or connection.connected or channel.is_open)
        self.assertGreater(connection.declared_entities.epoch, epoch)
        self.assertEqual((connection.hostname, connection.password, self.tried()), ("other", "p", [":p@host"]))
        self.successResultOf(channel.publish("", "q", b""))
        self.assertEqual(self.tried(), [":p@host", ":p@other"])

    def test_switch_after_close(self) -> None:
        """kombu A33: one that was closed can be used again, elsewhere."""
        connection = self.connection()
        self.successResultOf(connection.close())
        self.successResultOf(connection.switch(self.hosts("other")[0]))
        self.successResultOf(connection.default_channel.publish("", "q", b""))
        self.assertEqual(self.tried(), ["other"])

    def test_switch_within_the_list(self) -> None:
        """To one of its own URLs the list stays; a URL that cannot be used changes nothing."""
        connection = self.connection(url=";".join(self.hosts("a", "b")))
        self.successResultOf(connection.switch(self.hosts("b")[0]))
        self.assertEqual((connection.hostname, connection.host_count()), ("b", 2))
        self.assertRaises(ConfigurationError, connection.switch, "amqp://h:port")
        self.assertEqual((connection.hostname, connection.host_count()), ("b", 2))

    def test_pickle(self) -> None:
        """The settings, with the password, and nothing that is open."""
        self.clock.cannot_travel = lambda: None  # type: ignore[attr-defined]
        connection = Connection(self.URL, reactor=self.clock, name="mine")
        copy = pickle.loads(pickle.dumps(connection))
        self.assertEqual((copy.info(), copy.password, copy.name), (connection.info(), "S3/CRET", "mine"))
        self.assertEqual(copy.transport_urls(), connection.transport_urls())
        self.successResultOf((original := Connection("memory://pickled", reactor=self.clock)).connect())
        self.assertFalse(pickle.loads(pickle.dumps(original)).connected)
        self.successResultOf(original.close())

    def test_eqhash(self) -> None:
        """Equal for the same settings, in whatever form; another for any that differs; no secret in it."""
        key = Connection(self.URL, reactor=self.clock).eqhash()
        self.assertEqual(key, Connection(self.URL, reactor=self.clock, name="another").eqhash())
        self.assertEqual(hash(key), hash(Connection(self.URL, reactor=self.clock).eqhash()))
        self.assertNotIn("CRET", repr(key))
        changes: list[dict[str, Any]] = [
            {"hostname": "amqp://x"},
            {"password": "x"},
            {"userid": "x"},
            {"transport_options": {"frame_max": 5}},
            {"heartbeat": 1},
            {"ssl": {"ca_certs": "x"}},
            {"connect_timeout": 1},
            {"login_method": "PLAIN"},
            {"failover_strategy": "shuffle"},
            {"alternates": "amqp://x"},
            {"reactor": Clock()},
        ]
        keys = {Connection(**{"hostname": self.URL, "reactor": self.clock, **change}).eqhash() for change in changes}
        self.assertEqual(len(keys | {key}), len(changes) + 1)

    def test_no_secret_is_shown(self) -> None:
        """kombu U5, A30: neither by repr nor by what is in its attributes, nor by info, nor in an error."""
        connection = Connection(self.URL, password="S3CRET", alternates="amqp://u:S3CRET@x")
        shown = [repr(connection), str(connection), repr(vars(connection)), repr(connection.info())]
        shown += [repr(connection.transport_urls()), repr(connection.settings), repr(connection.alternates)]
        shown += [repr(Channel(connection))]
        for text in shown:
            self.assertNotIn("CRET", text)

    def test_no_secret_in_tracebacks(self) -> None:
        """kombu U5: nor in the local variables of the frames of an error, whoever makes it."""

        def refuse(**settings: Any) -> Failure:
            try:
                Connection(**settings)
            except ConfigurationError:
                return Failure(captureVars=True)
            raise AssertionError("it was taken")

        refusals = [
            refuse(hostname="amqp://user:S3CRET@h?hartbeat=1"),
            refuse(hostname="amqp://user:S3CRET@h:port"),
            refuse(hostname="amqp://user:S3CRET@h", heartbeat="x"),
            refuse(hostname="amqp://user:S3CRET@h;memory://?x=1"),
            refuse(hostname="h", password="S3CRET", ssl={"cert_reqs": 0, "password": "S3CRET"}),
        ]
        for failure in refusals:
            for frame in failure.frames:
                if "/txmsg/" in frame[1]:
                    self.assertNotIn("S3CRET", repr(frame[3:]), frame[:3])

    def test_errors(self) -> None:
        """kombu A37, A38: the tuples are those of the module, on each connection."""
        connection = Connection("memory://")
        self.assertEqual((connection.connection_errors, connection.channel_errors), (connection_errors, channel_errors))
        self.assertEqual(connection.recoverable_connection_errors, recoverable_connection_errors)
        self.assertEqual(connection.recoverable_channel_errors, recoverable_channel_errors)


class CapabilityTests(ScriptedConnectionCase):
    """Questions about the transport."""

    def test_flags(self) -> None:
        """kombu A28, A29, A39, C10."""
        connection = self.connection()
        self.assertEqual((connection.is_evented, connection.supports_heartbeats), (True, True))
        self.assertFalse(connection.qos_semantics_matches_spec)

    def test_heartbeat(self) -> None:
        """kombu A25 to A27, A45, C10: nothing needs to be called, and what was agreed on is 0 without a connection."""
        connection = self.connection(heartbeat=10)
        self.assertEqual((connection.heartbeat, connection.get_heartbeat_interval()), (10.0, 0))
        connection.heartbeat_check()
        connection.heartbeat_check(rate=2)
        connection.register_with_event_loop(object())
        self.assertEqual(self.transport.attempts, [])

    def test_exchange_types(self) -> None:
        """kombu A40: it asks the transport."""
        connection = self.connection()
        self.assertEqual([connection.supports_exchange_type(kind) for kind in ("topic", "headers")], [True, False])

    def test_driver(self) -> None:
        """kombu A47: the scheme, the package and its version; "N/A" for one that is no distribution."""
        self.assertEqual((Connection().driver_type, Connection().driver_name), ("amqp", "txmsg"))
        self.assertRegex(Connection().driver_version(), r"^\d+\.")
        self.assertEqual((self.connection().driver_name, self.connection().driver_version()), ("tests", "N/A"))

    def test_manager(self) -> None:
        """kombu A41: a transport that has none says so; one that has it hands it over."""
        connection = self.connection()
        self.assertRaises(NotImplementedByPeer, connection.get_manager)
        self.successResultOf(connection.connect())
        self.assertRaises(NotImplementedByPeer, getattr, connection, "manager")
        self.transport.made[0].manager = "the manager"  # type: ignore[attr-defined]
        self.assertEqual((connection.manager, connection.get_manager()), ("the manager", "the manager"))

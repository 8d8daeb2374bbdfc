"""From URL schemes to transports."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any, ClassVar
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from tests.test_structure import loaded_by
from txmsg.abc import Guarantees, MessagingTransport
from txmsg.errors import ConfigurationError
from txmsg.transports import register, registry, transport_for, transport_names, unregister


class Nowhere:
    """A transport that leads nowhere."""

    schemes = ("nowhere",)
    default_ports: ClassVar[dict[str, int]] = {}
    exchange_types = frozenset({"direct"})
    guarantees = Guarantees(delivery="at-most-once", is_ordered=False, survives_restart=False, redelivery_timeout=None)

    def connect(self, url: str, *, reactor: Any = None, alternates: Sequence[str] = (), options: Any = None) -> Any:
        raise NotImplementedError


def broken() -> MessagingTransport:
    raise OSError("the disk is full")


class RegistryTests(SynchronousTestCase):
    """What a scheme stands for."""

    def register(self, scheme: str, transport: Any) -> None:
        register(scheme, transport)
        self.addCleanup(unregister, scheme)

    def refusal(self, url: Any) -> str:
        return str(self.assertRaises(ConfigurationError, transport_for, url))

    def test_own_transports(self) -> None:
        """Those that come with txmsg, by URL or by scheme alone, in either case."""
        memory = transport_for("memory://")
        self.assertIsInstance(memory, MessagingTransport)
        self.assertEqual(memory.schemes, ("memory",))
        for url in ("memory://other/vhost", "memory", "MEMORY://x"):
            self.assertIs(transport_for(url), memory)

    def test_amqp_and_amqps_share_one(self) -> None:
        """Both are the same transport."""
        self.assertIs(transport_for("amqp://localhost"), transport_for("amqps://localhost"))
        self.assertEqual(transport_for("amqp").schemes, ("amqp", "amqps"))

    def test_the_default(self) -> None:
        """kombu C1: no name is amqp."""
        for nothing in ("", None):
            self.assertEqual(transport_for(nothing).schemes, ("amqp", "amqps"))

    def test_kombus_names(self) -> None:
        """kombu C1, C3, D42: other names for the same protocol are the same transport."""
        for name in ("pyamqp", "librabbitmq", "pyamqp://user:secret@host/vhost"):
            self.assertEqual(transport_for(name).schemes, ("amqp", "amqps"))

    def test_without_a_scheme(self) -> None:
        """kombu C2: an object, a class, or where it is, without registering it; made once."""
        ready = Nowhere()
        self.assertIs(transport_for(ready), ready)
        self.assertIsInstance(transport_for(Nowhere), Nowhere)
        self.assertIs(transport_for(Nowhere), transport_for(Nowhere))
        for where in (f"{__name__}:Nowhere", f"{__name__}.Nowhere"):
            self.assertEqual(transport_for(where).schemes, ("nowhere",))
            self.assertIs(transport_for(where), transport_for(where))
        for bad in ("no.such.module:Thing", f"{__name__}.NoSuchThing", 17, object()):
            with self.subTest(bad=bad):
                self.refusal(bad)

    def test_what_they_say_of_themselves(self) -> None:
        """kombu C5, C6, C8, X4: types of exchanges, ports, promises; the conformance suite tries them."""
        amqp, memory = transport_for("amqp"), transport_for("memory")
        self.assertEqual(dict(amqp.default_ports), {"amqp": 5672, "amqps": 5671})
        self.assertEqual(dict(memory.default_ports), {})
        self.assertLessEqual({"heartbeat", "cacertfile", "auth_mechanism"}, getattr(amqp, "url_options", set()))
        self.assertEqual(getattr(memory, "url_defaults", None), {"virtual_host": "/"})
        for transport in (amqp, memory):
            self.assertEqual(transport.exchange_types, {"direct", "fanout", "topic", "headers"})
            self.assertEqual((transport.guarantees.delivery, transport.guarantees.is_ordered), ("at-least-once", True))
        self.assertEqual((amqp.guarantees.survives_restart, amqp.guarantees.has_heartbeats), (True, True))
        self.assertEqual((memory.guarantees.survives_restart, memory.guarantees.has_heartbeats), (False, False))

    def test_a_transport_of_ones_own(self) -> None:
        """kombu C11: an object, a class, or where the class is; made once, at first use."""
        ready = Nowhere()
        self.register("nowhere", ready)
        self.assertIs(transport_for("nowhere://x"), ready)
        self.register("made", Nowhere)
        self.assertIsInstance(transport_for("made://x"), Nowhere)
        self.assertIs(transport_for("made://x"), transport_for("made://y"))
        self.register("found", f"{__name__}:Nowhere")
        self.assertEqual(transport_for("found://x").schemes, ("nowhere",))
        self.assertLessEqual({"nowhere", "made", "found", "memory"}, set(transport_names()))

    def test_registered_anew(self) -> None:
        """What was made for the one before is forgotten: another callable may get its place in memory."""
        for _ in range(20):
            made = Nowhere()
            self.register("nowhere", lambda made=made: made)
            self.assertIs(transport_for("nowhere://x"), made)

    def test_what_is_registered_hides_ours(self) -> None:
        """Until it is unregistered."""
        ours = transport_for("memory")
        register("memory", Nowhere)
        self.assertIsInstance(transport_for("memory://"), Nowhere)
        unregister("memory")
        self.assertIs(transport_for("memory://"), ours)
        unregister("memory")  # twice is fine

    def test_the_part_before_a_plus(self) -> None:
        """kombu C3: `redis+socket://` is for redis, unless somebody serves just that."""
        self.register("nowhere", Nowhere)
        self.assertIs(transport_for("nowhere+socket:///tmp/x"), transport_for("nowhere://"))
        special = Nowhere()
        self.register("nowhere+socket", special)
        self.assertIs(transport_for("nowhere+socket:///tmp/x"), special)

    def test_entry_points(self) -> None:
        """Other distributions bring transports, and cannot take one of ours away."""
        points = EntryPoints(
            EntryPoint(name, f"{__name__}:Nowhere", registry.ENTRY_POINT_GROUP) for name in ("plugged", "amqps")
        )
        with mock.patch.object(registry, "entry_points", lambda group: points.select(group=group)):
            self.assertEqual(transport_for("plugged://x").schemes, ("nowhere",))
            self.assertIs(transport_for("plugged://x"), transport_for("plugged://y"))
            self.assertEqual(transport_for("amqps://x").schemes, ("amqp", "amqps"))
            self.assertIn("plugged", transport_names())

    def test_an_unknown_scheme(self) -> None:
        """kombu A48, C1: the nearest known one is named."""
        self.assertIn("did you mean memory://?", self.refusal("memroy://"))
        self.assertIn("no transport serves zzz://", self.refusal("zzz://"))

    def test_no_scheme(self) -> None:
        """And nothing of what was given is shown: it may hold a password."""
        for url in ("//guest:secret@host", "user:secret@host", "1amqp://secret"):
            with self.subTest(url=url):
                self.assertNotIn("secret", self.refusal(url))
        self.assertIn("not by bytes", self.refusal(b"amqp://x"))

    def test_what_cannot_be_made(self) -> None:
        """The scheme and the reason are named."""
        self.register("broken", broken)
        self.assertIn("broken:// cannot be made: OSError: the disk is full", self.refusal("broken://"))
        self.register("missing", "no.such.module:Thing")
        self.assertIn("ModuleNotFoundError", self.refusal("missing://"))
        self.register("odd", "no colon")
        self.assertIn("package.module:Attribute", self.refusal("odd://"))
        self.register("none", object)
        self.assertIn("is no transport: object has no schemes, default_ports, exchange", self.refusal("none://"))

    def test_what_is_no_scheme(self) -> None:
        """It is refused when it is registered."""
        for scheme in ("", "a b", "1x", "x:", None):
            with self.subTest(scheme=scheme):
                self.assertRaises(ConfigurationError, register, scheme, Nowhere)

    def test_nothing_is_imported_before_it_is_used(self) -> None:
        """A-08: the registry alone loads neither the client nor the broker; and one transport not the other."""
        loaded = loaded_by("import txmsg.transports")
        self.assertEqual({name for name in loaded if name.startswith(("txmsg.amqp", "txmsg.broker"))}, set())
        loaded = loaded_by("from txmsg.transports import transport_for; transport_for('amqp://')")
        self.assertEqual({name for name in loaded if name.startswith("txmsg.broker")}, set())
        self.assertNotIn("twisted.internet.reactor", loaded)

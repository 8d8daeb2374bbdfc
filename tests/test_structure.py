"""The shape of the source: who may import whom, no cycles, no big files, nothing imported too early."""

from __future__ import annotations

import subprocess
import sys
import unittest

from tests.source import ROOT, Import, imports, modules

#: What the packages and modules directly under txmsg may import from txmsg.  A dotted entry allows one module only.
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "abc": {"errors"},
    "wire": {"errors"},
    "amqp": {"wire", "abc", "errors"},
    "broker": {"wire", "errors", "amqp.protocol", "amqp.heartbeat"},
    "transports": {"abc", "errors", "wire", "amqp", "broker"},
    "messaging": {"abc", "errors", "transports.registry"},
    "rpc": {"messaging", "abc", "errors"},
    # The consumer service stands on the client itself; its declared handlers get the messaging layer's values, which
    # the transport makes of the client's.
    "service": {"amqp", "messaging", "rpc", "abc", "errors", "transports.amqp"},
    "compat": {"amqp", "errors", "wire.events", "wire.methods"},
    "tap": {"broker", "service", "rpc", "messaging", "amqp", "abc", "errors"},
    # `txmsg migrate` reads source and needs nothing that it reads about.
    "migrate": set(),
    "cli": {"migrate"},
    # Loaded with every pytest run, so what it needs is imported in its functions.
    "pytest_plugin": {"testing"},
    "testing": {"broker", "transports", "messaging", "rpc", "service", "amqp", "wire", "abc", "errors"},
}

#: What only some modules (or packages) of a package may import: (package, what it imports) -> those modules.
ONLY_IN: dict[tuple[str, str], set[str]] = {
    ("transports", "amqp"): {"txmsg.transports.amqp"},
    ("transports", "broker"): {"txmsg.transports.memory"},
}

#: Modules and packages that import nothing of Twisted.
WITHOUT_TWISTED = (
    "txmsg.errors",
    "txmsg.wire",
    "txmsg.broker.vhost",
    "txmsg.broker.queues",
    "txmsg.broker.exchanges",
    "txmsg.broker.message",
    "txmsg.messaging.serialization",
    "txmsg.messaging.compression",
)

MAXIMUM_LINES = 500


def is_within(name: str, package: str) -> bool:
    """Whether a dotted name is ``package`` or something in it."""
    return name == package or name.startswith(package + ".")


def layer_of(module: str) -> str:
    """The row of LAYERS a module belongs to; empty for ``txmsg`` itself."""
    return module.removeprefix("txmsg").lstrip(".").partition(".")[0]


def problem_with(module: str, imported: Import) -> str:
    """Why a module may not import what it imports; empty if it may."""
    layer, target = layer_of(module), layer_of(imported.name)
    if not is_within(imported.name, "txmsg") or not target or target == layer:
        return ""  # not ours; or txmsg itself, which has the version and imports nothing; or a neighbour
    if not layer:
        # What it has of txmsg.messaging is imported for its types, and loaded on first use.
        is_lazy = target == "messaging" and not imported.is_run
        return "" if target == "errors" or is_lazy else "importing txmsg must not load its parts"
    allowed = {f"txmsg.{name}" for name in LAYERS[layer]}
    if not any(is_within(imported.name, name) for name in allowed):
        return f"{layer} may import {sorted(LAYERS[layer])} only"
    only = ONLY_IN.get((layer, target))
    return f"only {sorted(only)} may" if only and not any(is_within(module, name) for name in only) else ""


def find_cycle(graph: dict[str, set[str]]) -> list[str]:
    """One cycle of a directed graph, as a path that ends where it began; empty if there is none."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str]:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return []
        for following in sorted(graph.get(node, ())):
            if cycle := visit(following, [*path, node]):
                return cycle
        done.add(node)
        return []

    for node in sorted(graph):
        if cycle := visit(node, []):
            return cycle
    return []


def loaded_by(statement: str) -> set[str]:
    """The modules in a fresh interpreter after ``statement``."""
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"{statement} fails:\n{done.stderr}"
    return set(done.stdout.split())


class LayerTests(unittest.TestCase):
    """Who may import whom."""

    def test_every_package_has_a_layer(self) -> None:
        """A new package needs a row in LAYERS first."""
        self.assertLessEqual({layer_of(module) for module in modules()} - {""}, set(LAYERS))

    def test_layers_have_no_cycle(self) -> None:
        """The table itself leads downwards only."""
        self.assertEqual(find_cycle({name: {n.partition(".")[0] for n in LAYERS[name]} for name in LAYERS}), [])

    def test_imports(self) -> None:
        """Nothing imports what its layer may not, not even in a function or for its types."""
        problems = [
            f"{module}:{imported.line}: imports {imported.name}: {problem}"
            for module, path in modules().items()
            for imported in imports(path)
            if (problem := problem_with(module, imported))
        ]
        self.assertEqual(problems, [])

    def test_without_twisted(self) -> None:
        """wire is sans-I/O: neither it nor errors imports Twisted, or anything else that is installed."""
        problems = [
            f"{module}:{imported.line}: imports {imported.name}"
            for module, path in modules().items()
            if any(is_within(module, package) for package in WITHOUT_TWISTED)
            for imported in imports(path)
            if imported.name.partition(".")[0] not in sys.stdlib_module_names | {"txmsg"}
        ]
        self.assertEqual(problems, [])

    def test_no_reactor_at_module_level(self) -> None:
        """No import of ours installs a reactor: the application chooses it."""
        problems = [
            f"{module}:{imported.line}"
            for module, path in modules().items()
            for imported in imports(path)
            if imported.is_run and f"{imported.name}.{imported.symbol}".startswith("twisted.internet.reactor")
        ]
        self.assertEqual(problems, [])

    def test_modules_have_no_cycle(self) -> None:
        """No module is imported while it is still importing."""
        graph = {
            module: {i.name for i in imports(path) if i.is_run and i.name in modules() and i.name != module}
            for module, path in modules().items()
        }
        self.assertEqual(find_cycle(graph), [])


class LoadingTests(unittest.TestCase):
    """What comes along with an import, seen in a fresh interpreter."""

    def test_txmsg(self) -> None:
        """A-08, kombu AD4: `import txmsg` loads no reactor and none of the parts."""
        loaded = loaded_by("import txmsg")
        self.assertNotIn("twisted.internet.reactor", loaded)
        parts = {name for name in loaded if name.startswith("txmsg.")} - {"txmsg.errors"}
        self.assertEqual(parts, set())

    def test_messaging(self) -> None:
        """`import txmsg.messaging` loads no reactor, no broker and no transport."""
        loaded = loaded_by("from txmsg import Connection")
        self.assertIn("txmsg.messaging", loaded)
        below = ("txmsg.amqp", "txmsg.broker", "txmsg.wire", "txmsg.transports.amqp")
        self.assertEqual({name for name in loaded if any(is_within(name, package) for package in below)}, set())
        self.assertNotIn("twisted.internet.reactor", loaded)

    def test_wire(self) -> None:
        """`import txmsg.wire.connection` loads no Twisted."""
        loaded = loaded_by("import txmsg.wire.connection")
        self.assertEqual({name for name in loaded if is_within(name, "twisted")}, set())

    def test_everything(self) -> None:
        """Importing every module there is installs no reactor, and needs nothing that is not a dependency."""
        everything = set(modules()) - {"txmsg.pytest_plugin"}  # which nobody but pytest imports
        everything = {module for module in everything if not is_within(module, "txmsg.compat.pika")}
        loaded = loaded_by("import " + ", ".join(sorted(everything)))
        self.assertNotIn("twisted.internet.reactor", loaded)
        judges = {
            "msgpack",
            "yaml",
            "brotli",
            "backports.zstd",
            "pika",
            "pamqp",
            "amqp",
            "kombu",
            "aio_pika",
            "pytest",
            "hypothesis",
            "trustme",
        }
        self.assertEqual(judges & loaded, set())

    def test_the_drop_in_for_pika(self) -> None:
        """It needs pika, but not pika's adapter, and installs no reactor."""
        loaded = loaded_by("import txmsg.compat.pika")
        self.assertIn("pika.spec", loaded)
        self.assertEqual({"twisted.internet.reactor", "pika.adapters.twisted_connection"} & loaded, set())

    def test_pytest_plugin(self) -> None:
        """The fixtures, which every pytest run on the machine loads, bring nothing of ours, nor Twisted."""
        loaded = loaded_by("import txmsg.pytest_plugin")
        self.assertEqual({name for name in loaded if is_within(name, "twisted")}, set())
        ours = {name for name in loaded if name.startswith("txmsg.") and not is_within(name, "txmsg.errors")}
        self.assertEqual(ours, {"txmsg.pytest_plugin"})

    def test_plugin(self) -> None:
        """The plug-in, which every `twistd` on the machine reads, loads nothing of ours."""
        plugin = ROOT / "twisted" / "plugins" / "txmsg_plugin.py"
        loaded = loaded_by(f"import runpy; runpy.run_path({str(plugin)!r})")
        self.assertEqual({name for name in loaded if is_within(name, "txmsg")}, set())
        for folder in (plugin.parent, plugin.parent.parent):
            self.assertFalse((folder / "__init__.py").exists(), f"{folder} would hide Twisted's own package")


class SizeTests(unittest.TestCase):
    """Files a reader can hold in mind."""

    def test_sizes(self) -> None:
        """No Python file, the tests' included, has more than MAXIMUM_LINES lines."""
        folders = ("txmsg", "twisted", "tests", "scripts", "examples", "benchmarks")
        too_big = {
            str(path.relative_to(ROOT)): lines
            for folder in folders
            for path in sorted((ROOT / folder).rglob("*.py"))
            if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAXIMUM_LINES
        }
        self.assertEqual(too_big, {})


class SelfTests(unittest.TestCase):
    """The rules above would notice."""

    def test_forbidden_import_is_seen(self) -> None:
        """Each kind of rule refuses an example."""
        refused = [
            ("txmsg.wire.frames", "txmsg.amqp.client"),
            ("txmsg.amqp.channel", "txmsg.service.config"),
            ("txmsg.messaging.publishing.producer", "txmsg.transports.amqp"),
            ("txmsg.transports.memory", "txmsg.amqp"),
            ("txmsg.amqp.client", "txmsg.testing.ports"),
            ("txmsg", "txmsg.amqp"),
            ("txmsg", "txmsg.messaging"),
        ]
        for module, name in refused:
            with self.subTest(module=module, name=name):
                self.assertTrue(problem_with(module, Import(name, 1, is_run=True)))

    def test_allowed_import_is_not(self) -> None:
        """And lets through what is right."""
        allowed = [
            ("txmsg.amqp.client", "txmsg.wire.connection"),
            ("txmsg.amqp.client", "txmsg"),
            ("txmsg.broker.server", "txmsg.amqp.protocol"),
            ("txmsg.transports.amqp", "txmsg.amqp"),
            ("txmsg.amqp.client", "twisted.internet.defer"),
        ]
        for module, name in allowed:
            with self.subTest(module=module, name=name):
                self.assertEqual(problem_with(module, Import(name, 1, is_run=True)), "")

    def test_cycle_is_seen(self) -> None:
        """find_cycle finds one behind a straight piece."""
        self.assertEqual(find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}), ["b", "c", "b"])
        self.assertEqual(find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}), [])

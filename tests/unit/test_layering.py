"""Lower layers never import upper ones, wherever in a file the import stands; modules are small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

CHECKOUT = Path(__file__).parents[2]
ROOT = CHECKOUT / "walstream"

# What each part of walstream may import of the others, besides itself.
FORMATS = {"errors", "formats"}
INTERFACES = FORMATS | {"wire", "system", "gates", "interfaces"}
PARTS = INTERFACES | {"protocols", "archive", "access", "tls"}
LAYERS: dict[str, set[str]] = {
    "errors": set(),
    "formats": {"errors"},
    "wire": FORMATS,
    "system": {"errors"},
    "gates": FORMATS | {"wire"},
    "interfaces": FORMATS | {"wire", "gates"},
    "protocols": INTERFACES,
    "archive": INTERFACES,
    "tls": FORMATS | {"wire"},
    "access": INTERFACES,
    "upstream": PARTS,
    "services": PARTS | {"upstream"},
    "testing": PARTS,
    "embedded": {"errors"},
    "demo": PARTS | {"upstream", "services", "embedded"},
    "tap": PARTS | {"upstream", "services", "demo"},
    "cli": PARTS | {"upstream", "services"},
    "__main__": {"cli"},
}

MOST_LINES = 400

# The pure layers: bytes and values in, bytes and values out.
PURE = {"errors", "formats", "wire"}
IMPURE_MODULES = {"logging", "os", "socket", "time", "twisted", "zope"}


def imported_modules(source: str, package: str) -> Iterator[str]:
    """The full names that a module in *package* imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            # One dot is the package itself, each further one a package above.
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            origin = ".".join([*above, node.module or ""] if node.level else [node.module or ""])
            yield from (f"{origin.rstrip('.')}.{alias.name}" for alias in node.names)


def violations(source: str, module: str) -> list[str]:
    """What *module*, of the full name given and with this source, may not import."""
    layer = module.split(".")[1]
    if layer not in LAYERS:
        return [f"{module}: {layer} is not in the table of layers"]
    found = []
    for name in imported_modules(source, module.rpartition(".")[0]):
        top, _, rest = name.partition(".")
        if top == "walstream":
            part = rest.partition(".")[0]
            allowed = part in LAYERS[layer] | {layer, "__version__"}
        else:
            allowed = not (layer in PURE and top in IMPURE_MODULES)
        if not allowed:
            found.append(f"{module} imports {name}")
    return found


def modules() -> Iterator[tuple[Path, str]]:
    """Every module of walstream but the package's own, with its full name."""
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        if name != "walstream.__init__":
            yield path, name


class LayeringTests(SynchronousTestCase):
    """The tree as it is keeps to the table."""

    def test_no_module_imports_what_is_above_it(self) -> None:
        """No module imports from a layer that the table does not allow it."""
        found = [
            violation
            for path, name in modules()
            for violation in violations(path.read_text(encoding="utf-8"), name)
        ]
        self.assertEqual(found, [])

    def test_modules_are_small(self) -> None:
        """None has more lines than fit into a reader's head; a contract is a list of tests."""
        lengths = {
            name: len(path.read_text(encoding="utf-8").splitlines())
            for path, name in modules()
            if not name.endswith("_contract")
        }
        self.assertEqual({name: size for name, size in lengths.items() if size > MOST_LINES}, {})

    def test_the_package_itself_imports_nothing(self) -> None:
        """``import walstream`` loads nothing else, so that setup and plugin may rely on it."""
        source = (ROOT / "__init__.py").read_text(encoding="utf-8")
        self.assertEqual(list(imported_modules(source, "walstream")), [])

    def test_the_plugin_imports_service_maker_only(self) -> None:
        """The plugin, which every twistd loads, imports nothing that takes time or may fail."""
        source = (CHECKOUT / "twisted" / "plugins" / "walstream_plugin.py").read_text("utf-8")
        self.assertEqual(
            list(imported_modules(source, "twisted.plugins")),
            ["twisted.application.service.ServiceMaker"],
        )

    def test_twisted_s_own_packages_are_left_alone(self) -> None:
        """There is no ``__init__.py`` of ours that an installation would put over Twisted's."""
        self.assertEqual(list((CHECKOUT / "twisted").rglob("__init__.py")), [])


class ViolationsTests(SynchronousTestCase):
    """What the check sees, and what it lets pass."""

    def test_sees_imports_of_upper_layers(self) -> None:
        """Every form of import is seen, in functions and under conditions too."""
        for source in (
            "import walstream.archive.directory",
            "from walstream.archive import directory",
            "from walstream import archive",
            "from ..archive import directory",
            "from .. import archive",
            "def f():\n    from walstream.archive.directory import DirectoryArchive",
            "if TYPE_CHECKING:\n    import walstream.archive",
        ):
            self.assertEqual(len(violations(source, "walstream.protocols.sender")), 1, source)

    def test_sees_what_the_pure_layers_may_not_use(self) -> None:
        """No pure layer gets at time, system, logging or Twisted."""
        for source in ("import os.path", "from time import sleep", "from twisted.logger import x"):
            self.assertEqual(len(violations(source, "walstream.wire.frames")), 1, source)
            self.assertEqual(violations(source, "walstream.archive.directory"), [])

    def test_sees_a_layer_that_is_not_in_the_table(self) -> None:
        """A new part of walstream has to be given its place."""
        self.assertEqual(len(violations("", "walstream.novelty.module")), 1)

    def test_lets_lower_layers_and_neighbours_pass(self) -> None:
        """A module may import from its own layer and from those below."""
        for source in (
            "from walstream.protocols.client import Client",
            "from .client import Client",
            "from walstream.wire import frames",
            "from walstream import interfaces",
            "import struct, twisted.internet.defer",
        ):
            self.assertEqual(violations(source, "walstream.protocols.sender"), [], source)

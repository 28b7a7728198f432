"""Who may import whom: the layers of the library, checked by reading every import."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import dagsterpipes

ROOT = Path(dagsterpipes.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))
FOUNDATION = {"exceptions", "typing"}
ALLOWED = {
    "exceptions": set[str](),
    "typing": set[str](),
    "_threads": FOUNDATION,
    "_protocol": FOUNDATION | {"_protocol"},
    "_delivery": FOUNDATION | {"_delivery"},
    "_reader": FOUNDATION | {"_protocol", "_reader"},
    "dagster": FOUNDATION | {"_protocol", "_reader", "_threads", "dagster"},
    "loaders": FOUNDATION | {"_protocol"},
    "writers": FOUNDATION | {"_protocol", "_delivery", "log_writers"},
    "stores": FOUNDATION | {"_delivery", "loaders", "writers"},
}
# These may import every layer, and no layer may import them.
TOP = {"__init__", "__main__", "_reader", "dagster", "testing", "cli", "pytest_plugin"}
WAITING = {"asyncio", "anyio", "aiofiles", "threading", "multiprocessing", "concurrent", "signal"}
SURROUNDINGS = {("os", "environ"), ("sys", "argv"), ("os", "getenv")}


def layer(module: Path) -> str:
    return module.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(module: Path) -> set[str]:
    """Absolute names of everything that a module imports, at any depth of its code."""
    names = set[str]()
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            assert node.module is not None
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(module: Path) -> None:
    """A layer imports what ALLOWED names; only what is above imports several."""
    own = {name.split(".")[1] for name in imports(module) if name.startswith("dagsterpipes.")}
    allowed = ALLOWED.get(layer(module))
    if allowed is not None:
        assert own <= allowed
    elif layer(module) not in TOP:
        assert not own & TOP


def circles() -> list[list[str]]:
    """Groups of modules that import each other, directly or not; type-only and late imports count."""
    names = {
        ".".join(("dagsterpipes", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): path
        for path in MODULES
    }
    # `from package import name` is of the module `package.name`, if there is one.
    imported = {
        name: {
            found if found in names else found.rpartition(".")[0]
            for found in imports(path)
            if found in names or found.rpartition(".")[0] in names
        }
        for name, path in names.items()
    }
    reached: dict[str, set[str]] = {}
    for name in names:
        waiting, reached[name] = list(imported[name]), set()
        while waiting:
            found = waiting.pop()
            if found not in reached[name]:
                reached[name].add(found)
                waiting += imported[found]
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other])) for name in names
    }
    return sorted(list(group) for group in groups if group)


def test_no_module_imports_itself_in_a_circle() -> None:
    """Not even for types: whoever reads a module has read what it builds on."""
    assert circles() == []


@pytest.mark.parametrize(
    "module",
    [path for path in MODULES if layer(path) == "_protocol"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_the_protocol_is_pure(module: Path) -> None:
    """It neither waits nor starts threads, and gets its surroundings as arguments."""
    assert not {name.split(".")[0] for name in imports(module)} & WAITING
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in SURROUNDINGS
            assert node.value.id != "time" or node.attr not in {"time", "monotonic", "sleep"}


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_dagster_is_imported_in_one_package(module: Path) -> None:
    """Which nobody else imports; in it, Dagster's private names are in one module."""
    names = imports(module)
    if layer(module) != "dagster":
        assert not any(name.split(".")[0] == "dagster" for name in names)
        assert not any(name.startswith("dagsterpipes.dagster") for name in names)
    elif module.name != "private.py":
        assert not any(name.startswith("dagster._") for name in names)

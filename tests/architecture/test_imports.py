"""What the linters do not see: import cycles, and modules that reach for another's underscore names."""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("mlffstore", "mlffstore_generators", "mlffstore_teachers", "mlffstore_exporters")


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, exclude_type_checking_imports=False, cache_dir=None)


def cycles(graph: grimp.ImportGraph) -> list[set[str]]:
    """Return the strongly connected components of more than one module (Tarjan, SIAM J. Comput. 1, 146, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in graph.find_modules_directly_imported_by(module):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            component = set(stack[stack.index(module) :])
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(component)

    for module in sorted(graph.modules):
        if module not in index:
            visit(module)
    return found


def test_no_import_cycles_even_for_types(graph: grimp.ImportGraph) -> None:
    # The package itself imports its public objects on first use.
    for module in list(graph.find_modules_directly_imported_by("mlffstore")):
        graph.remove_import(importer="mlffstore", imported=module)
    assert cycles(graph) == []


def _files() -> list[Path]:
    folders = ("mlffstore", "generators/mlffstore_generators", "teachers/mlffstore_teachers")
    return sorted(path for name in (*folders, "exporters/mlffstore_exporters") for path in (ROOT / name).rglob("*.py"))


def test_no_module_imports_an_underscore_name_of_another() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {alias.name}"
        for path in _files()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mlffstore")
        for alias in node.names
        if alias.name.startswith("_") and not alias.name.startswith("__")
    ]
    assert wrong == []


def test_modules_stay_small() -> None:
    """A module is one noun: 450 lines at most, and half of all modules at most 170."""
    lengths = {path: len(path.read_text().splitlines()) for path in _files()}
    too_long = {str(path.relative_to(ROOT)): n for path, n in lengths.items() if n > 450}
    assert too_long == {}
    assert sorted(lengths.values())[len(lengths) // 2] <= 170

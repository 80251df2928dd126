"""Fixtures for all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest

# Caches of these tests, of their subprocesses and of the documentation's code lie in a folder that goes with them.
os.environ["MLFFSTORE_CACHE"] = tempfile.mkdtemp(prefix="mlffstore-cache-")
atexit.register(shutil.rmtree, os.environ["MLFFSTORE_CACHE"], ignore_errors=True)
# What JAX compiled for one model, or in one process, serves all: a compilation takes three seconds of processor time.
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.path.join(os.environ["MLFFSTORE_CACHE"], "jax")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# One thread a process, before numpy or torch are imported: the tests run side by side and results stay reproducible.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow")
    parser.addoption("--run-gpu", action="store_true", help="run the tests marked gpu")


#: Files that take longest, which start first: one that starts last is waited for by all other processes.
_FIRST = (
    "test_fennol.py", "test_distillation.py", "test_examples.py", "test_object.py", "test_report_page.py",
    "test_chemistry.py", "test_hessian.py", "test_faults.py", "test_interrupts.py", "test_orb.py", "test_fuzz_releases.py",
)  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    places = {name: place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
    for item in items:
        for name in ("slow", "gpu"):
            if item.get_closest_marker(name) and not config.getoption(f"--run-{name}"):
                item.add_marker(pytest.mark.skip(reason=f"needs --run-{name}"))


@pytest.fixture(scope="session")
def thorough(pytestconfig: pytest.Config) -> bool:
    """Return whether the slow tests run too: then tests that go through many cases go through all of them."""
    return bool(pytestconfig.getoption("--run-slow"))


@pytest.fixture(scope="session")
def real() -> Path:
    """Return the folder with real inputs: labelled crystals and molecules, cut down, with their licences."""
    return Path(__file__).parent / "data" / "real"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder with the weights of FeNNol's ANI-1x models, which are too large for the repository, or skip."""
    folder = Path(os.environ.get("MLFFSTORE_SHARED", Path(__file__).parents[1].parent / "shared"))
    if not (folder / "models" / "ani1x").is_dir():
        pytest.skip(
            "needs the ANI-1x weights of the FeNNol repository (ani1x_model0.fnx to 2) in a folder models/ani1x below "
            "MLFFSTORE_SHARED"
        )
    return folder

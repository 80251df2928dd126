"""A store of metals by EMT, small and deterministic, and a release of it."""

from __future__ import annotations

import pytest

import mlffstore as ml
from tests.samples import mixed_frames


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("export") / "d.zarr")
    store.append(mixed_frames(60), teacher="emt", source=["a b", "c"] * 30)
    return store


@pytest.fixture(scope="session")
def published(store, tmp_path_factory):
    return ml.export_release(store.snapshot(), tmp_path_factory.mktemp("out"), name="metals", teacher="emt").parent

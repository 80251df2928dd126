"""A sample counts as labelled by a teacher if it has any label of it, whichever that is."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.labels import has_any_label, has_label
from mlffstore.data.schema import label_column
from mlffstore.format.records import layer_document
from mlffstore.format.segment import write_layer
from mlffstore.store.staging import Staged, commit_staged

N_ATOMS = np.array([1, 2, 3], np.int32)
FORCES = np.arange(18.0).reshape(6, 3)


def structures():
    rng = np.random.default_rng(0)
    return ml.SampleBatch(n_atoms=N_ATOMS, numbers=[6] * 6, positions=rng.normal(size=(6, 3)))


def add_layer(store, **labels):
    (segment,) = store.snapshot().segments
    columns = [(label_column(name, "t"), array.astype(label_column(name, "t").dtype)) for name, array in labels.items()]
    layer = write_layer(store._storage, segment, columns)
    commit_staged(
        store._log, "layer", {"layers": [layer_document(layer)]}, Staged(store._storage, layer), lambda _: None
    )
    assert store.verify(full=True).ok
    return store.snapshot()


def test_a_label_with_a_nan_is_missing():
    forces = FORCES.copy()
    forces[4, 1] = np.nan
    assert has_label("forces", forces, N_ATOMS).tolist() == [True, True, False]
    energy = np.array([np.nan, np.nan, 1.0])
    assert has_label("energy", energy, N_ATOMS).tolist() == [False, False, True]
    assert has_any_label({"forces": forces, "energy": energy}, N_ATOMS).all()
    assert not has_any_label({}, N_ATOMS).any()


def test_a_teacher_that_gave_no_energy_is_a_teacher(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(structures().with_labels("t", forces=FORCES), require=())
    snap = store.snapshot()
    assert snap.teachers == ("t",)
    assert snap.summary()["teachers"] == {"t": 3}
    assert store.verify(full=True).ok
    release = ml.export_release(snap, tmp_path, name="r", allow_failing=True)
    for source in (store, release):
        data = ml.TorchDataset(source, split=None)
        batch = data.batch(range(3))
        assert batch["energy_mask"].tolist() == [False] * 3
        assert sorted(batch["forces"].flatten().tolist()) == sorted(FORCES.flatten().tolist())
    store.compact()
    assert store.snapshot().teachers == ("t",)


def test_layers_count_each_sample_once(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    energy = np.array([1.0, np.nan, np.nan])
    store.append(structures().with_labels("t", energy=energy), require=())
    stress = np.full((3, 6), np.nan)
    stress[:2] = 0.5
    assert add_layer(store, stress=stress).summary()["teachers"] == {"t": 2}
    assert add_layer(store, forces=FORCES).summary()["teachers"] == {"t": 3}
    assert ml.open(store.url).snapshot().summary()["teachers"] == {"t": 3}


def test_add_labels_fills_energies_of_samples_that_have_forces(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = ml.SampleBatch(n_atoms=[1, 2], numbers=[29] * 3, positions=np.arange(9.0).reshape(3, 3))
    store.append(batch.with_labels("emt", energy=[np.nan, np.nan], forces=np.ones((3, 3))), require=())
    assert store.snapshot().summary()["teachers"] == {"emt": 2}
    assert store.add_labels("emt").labelled == 2
    assert not np.isnan(store.snapshot().read([0, 1]).labels["emt"]["energy"]).any()


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))

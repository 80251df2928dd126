"""Batches that were read, changed and appended again: their hashes are those of what is stored, and nothing is ignored."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import DataError
from tests.samples import metal_frames


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(3))
    return store


def rehashed(batch):
    return ml.SampleBatch(
        n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions, cell=batch.cell, pbc=batch.pbc,
        charge=batch.charge, multiplicity=batch.multiplicity,
    ).content_hash.tolist()  # fmt: skip


def test_structures_that_were_changed_in_place_are_new_ones(store):
    """They had the hashes of the structures before, so that `skip` dropped them."""
    batch = store.snapshot().read()
    batch.positions[0] += 0.125
    store.append(batch, on_duplicate="skip")
    snap = store.snapshot()
    assert len(snap) == 4
    assert snap.read().content_hash.tolist() == rehashed(snap.read())
    assert snap.read([3]).root.tolist() == snap.read([0]).root.tolist()
    store.commit(None, rejected=batch, reasons=["a"] * 3)
    rejected = store.snapshot().quarantine.read()
    assert rejected.content_hash.tolist() == rehashed(rejected)
    with store.writer() as writer:
        batch.positions[1] -= 0.125
        writer.add(batch)
    assert store.snapshot().read().content_hash.tolist() == rehashed(store.snapshot().read())


def test_hashes_of_two_precisions_are_not_joined(store):
    whole = ml.SampleBatch.from_ase(metal_frames(2))
    joined = concatenate([whole.astype("float32").hashed(), whole.astype("float64").hashed()])
    assert joined.content_hash.tolist() == rehashed(joined)
    same = concatenate([whole.hashed(), whole.hashed()])
    assert same.content_hash.tolist() == rehashed(same)


@pytest.mark.parametrize("columns", [["energy", "forces"], ["numbers", "positions", "energy", "forces"]])
def test_a_part_of_the_columns_is_no_sample(store, columns):
    part = store.snapshot().read(columns=columns)
    for append in (store.append, lambda batch: store.commit(None, rejected=batch, reasons=["a"] * 3)):
        with pytest.raises(DataError, match=r"expected whole samples, got a batch without .*cell.*columns="):
            append(part)
    with pytest.raises(DataError, match="expected whole samples"), store.writer() as writer:
        writer.add(part)
    assert len(store) == 3


def test_all_that_a_sample_is_can_be_named(store):
    names = ["numbers", "positions", "cell", "pbc", "charge", "multiplicity", "source", "sampler", "energy", "forces"]
    store.append(store.snapshot().read(columns=names))
    snap = store.snapshot()
    assert np.array_equal(snap.read([3, 4, 5]).forces, snap.read([0, 1, 2]).forces)
    with pytest.raises(DataError, match="without source, sampler"):
        store.append(snap.read(columns=[name for name in names if name not in ("source", "sampler")]))


@pytest.mark.parametrize(
    "options", [{"source": "a"}, {"sampler": "b"}, {"teacher": "c"}, {"units": {"dipole": "Debye"}}], ids=list
)
def test_options_of_frames_are_not_ignored_for_a_batch(store, options):
    with pytest.raises(DataError, match=f"{next(iter(options))}: expected frames beside it, got a batch"):
        store.append(store.snapshot().read(), **options)

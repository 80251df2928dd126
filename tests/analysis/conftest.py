"""A clean labelled dataset: families of strained, rattled metals by EMT and of rattled molecules by GFN2-xTB."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.store.labelling import label_batch

METALS = ("Cu", "Al", "Ni", "Pd", "Ag", "Pt", "Au")
MOLECULES = ("CH3OH", "C6H6", "CH3CONH2", "CH3CH2OH", "C2H6", "CH3CHO")


def family(seed, n, rng, strain, rattle):
    """Return strained, rattled copies of a seed, and the hash of the seed as their root."""
    frames = []
    for _ in range(n):
        frame = seed.copy()
        if frame.pbc.all():
            frame.set_cell(frame.cell.array @ (np.eye(3) + rng.normal(0, strain, (3, 3))), scale_atoms=True)
        frame.positions += rng.normal(0, rattle, frame.positions.shape)
        frames.append(frame)
    root = ml.SampleBatch.from_ase([seed]).astype("float32").content_hash[0]
    return ml.SampleBatch.from_ase(frames).with_columns(root=root).astype("float32")


def build(folder):
    rng = np.random.default_rng(0)
    store = ml.create(folder / "clean.zarr")
    emt, xtb = ml.get_teacher("emt"), ml.get_teacher("gfn2-xtb")
    for k in range(4):  # roots of different sizes
        for symbol in METALS:
            seed = bulk(symbol, cubic=True) * (1 + k % 2, 1 + k // 2, 2)
            seed.set_cell(seed.cell.array * (1 + 0.004 * k), scale_atoms=True)
            made = family(seed, 6, rng, 0.02, 0.06).with_source("bulk", "strain-rattle")
            batch, labels = label_batch(emt, made)
            assert labels.ok.all()
            store.append(batch, teachers={emt.info.name: emt.info.to_json()})
    for name in MOLECULES:
        batch, labels = label_batch(xtb, family(molecule(name), 4, rng, 0, 0.04).with_source("g2", "rattle"))
        assert labels.ok.all()
        store.append(batch, teachers={xtb.info.name: xtb.info.to_json()})
    return store.url


@pytest.fixture(scope="session")
def clean(tmp_path_factory):
    """Return the path of the store; do not write to it."""
    pytest.importorskip("tblite")
    return build(tmp_path_factory.mktemp("clean"))


@pytest.fixture
def ds(clean):
    """Return it in memory."""
    return ml.open(clean).snapshot().to_xarray().load()

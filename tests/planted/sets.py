"""Clean data: real molecules labelled by GFN2-xTB, strained crystals by EMT, and DFT-labelled crystals as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import mlffstore as ml
from mlffstore.store.labelling import label_batch

REAL = Path(__file__).parent.parent / "data" / "real"
METALS = ("Cu", "Al", "Ni", "Pd", "Ag", "Pt", "Au")


def molecules(folder, n=54, *, roots=True):
    """Return the path of a store of three conformations of each of some neutral molecules of SPICE."""
    batch = read_molecules(folder)
    atoms = np.repeat(np.arange(len(batch)), batch.n_atoms)
    electrons = np.bincount(atoms, batch.numbers) - batch.charge
    fits = np.flatnonzero((batch.charge == 0) & (electrons % 2 == 0) & (batch.n_atoms > 3))
    names = list(dict.fromkeys(batch.root[fits].tolist()))
    chosen = names[:: max(len(names) // n, 1)][:n]
    part = batch.take(fits[np.isin(batch.root[fits], chosen)]).astype("float32")
    if not roots:
        part = part.with_columns(root=part.content_hash)
    return _labelled(folder / f"molecules{'' if roots else '-apart'}.zarr", part, "gfn2-xtb")


def read_molecules(folder):
    ml.import_files([REAL / "spice_des_monomers.hdf5"], folder / "spice.zarr", require=())
    return ml.open(folder / "spice.zarr").snapshot().read()


def crystals(folder, n=8):
    """Return the path of a store of strained, rattled supercells of metals and alloys with stress."""
    from ase.build import bulk

    rng, parts = np.random.default_rng(0), []
    for k in range(3):
        for symbol in METALS:
            seed = bulk(symbol, cubic=True) * (1 + k % 2, 1, 2)
            seed.numbers[: k * len(seed) // 4] = 29 if symbol != "Cu" else 79
            seed.set_cell(seed.cell.array * (1 + 0.004 * k), scale_atoms=True)
            frames = []
            for _ in range(n):
                frame = seed.copy()
                strain = rng.normal(0, 0.015, (3, 3))
                frame.set_cell(frame.cell.array @ (np.eye(3) + (strain + strain.T) / 2), scale_atoms=True)
                frame.positions += rng.normal(0, 0.05, frame.positions.shape)
                frames.append(frame)
            root = ml.SampleBatch.from_ase([seed]).astype("float32").content_hash[0]
            parts.append(ml.SampleBatch.from_ase(frames).with_columns(root=root))
    return _labelled(folder / "crystals.zarr", [part.astype("float32") for part in parts], "emt")


def _labelled(path, batch, teacher):
    model, store = ml.get_teacher(teacher), ml.create(path)
    for part in batch if isinstance(batch, list) else [batch]:
        labelled, labels = label_batch(model, part)
        assert labels.ok.all()
        store.append(labelled, teachers={model.info.name: model.info.to_json()})
    return store.url

"""Other layouts: every number comes back through the reader that people use for them."""

from __future__ import annotations

import errno
import json

import h5py
import numpy as np
import pytest
from ase import units
from ase.io import read

import mlffstore as ml
from mlffstore.errors import DataError, MissingDependencyError, ReleaseError
from mlffstore.release.selection import select
from tests.command import shell
from tests.signals import signals

LAYOUTS = ("extxyz", "aselmdb", "mace", "concatenated")


def frames(store, split):
    snap = store.snapshot()
    return snap.read(select(snap, ("emt",))[split], teacher="emt")


def compare(found, expected, atol=0.0):
    """Compare frames with a batch; forces and positions are float32 in the store."""
    assert len(found) == len(expected)
    for atoms, i in zip(found, range(len(expected)), strict=True):
        own = slice(expected.offsets[i], expected.offsets[i + 1])
        assert np.array_equal(atoms.numbers, expected.numbers[own])
        assert np.array_equal(atoms.pbc, expected.pbc[i])
        np.testing.assert_allclose(atoms.positions, expected.positions[own], rtol=0, atol=atol)
        np.testing.assert_allclose(atoms.cell.array, expected.cell[i], rtol=0, atol=1e-12)
        assert atoms.get_potential_energy() == pytest.approx(expected.energy[i], abs=1e-9)
        np.testing.assert_allclose(atoms.get_forces(), expected.forces[own], rtol=0, atol=atol)
        stress = expected.stress[i]
        if np.isfinite(stress).all():
            np.testing.assert_allclose(atoms.get_stress(), stress, rtol=0, atol=1e-9)
        else:
            assert "stress" not in atoms.calc.results


@pytest.mark.parametrize("layout", LAYOUTS)
def test_exporting_calls_progress_and_reports_all(store, tmp_path, layout):
    if layout == "aselmdb":
        pytest.importorskip("ase_db_backends")
    seen = []
    ml.get_exporter(layout)(
        store.snapshot(), tmp_path / "x.h5", progress=lambda done, total: seen.append((done, total))
    )
    assert seen[-1] == (60, 60)


def test_extxyz(store, tmp_path):
    folder = ml.get_exporter("extxyz")(store.snapshot(), tmp_path / "xyz")
    for split in ("train", "val", "test"):
        expected = frames(store, split)
        found = read(folder / f"{split}.extxyz", ":")
        compare(found, expected, atol=5.1e-9)  # eight decimals
        assert [f"x{int(root):016x}" for root in expected.root] == [atoms.info["root"] for atoms in found]
        assert [atoms.info["multiplicity"] for atoms in found] == expected.multiplicity.tolist()


def test_aselmdb_through_ase(store, tmp_path):
    pytest.importorskip("ase_db_backends")
    from ase.db import connect

    folder = ml.get_exporter("aselmdb")(store.snapshot(), tmp_path / "db")
    for split in ("train", "val", "test"):
        expected = frames(store, split)
        with connect(folder / split / "data.0000.aselmdb", type="aselmdb", readonly=True) as database:
            rows = [database._get_row(i) for i in database.ids]
        compare([row.toatoms() for row in rows], expected)
        assert [row.data["spin"] for row in rows] == expected.multiplicity.tolist()
        assert np.load(folder / split / "metadata.npz")["natoms"].tolist() == expected.n_atoms.tolist()


def test_aselmdb_says_what_to_install(store, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ase_db_backends.aselmdb", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'mlffstore\[aselmdb\]'"):
        ml.get_exporter("aselmdb")(store.snapshot(), tmp_path / "db")
    assert list(tmp_path.iterdir()) == []


def test_mace_layout(store, tmp_path):
    folder = ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace")
    expected = frames(store, "train")
    with h5py.File(folder / "train" / "train_0.h5") as file:
        batch = file["config_batch_0"]
        assert len(batch) == len(expected)
        for i in range(len(expected)):
            one, own = batch[f"config_{i}"], slice(expected.offsets[i], expected.offsets[i + 1])
            assert one["properties/energy"][()] == expected.energy[i]
            assert np.array_equal(one["properties/forces"][()], expected.forces[own])
            whole = bool(np.isfinite(expected.stress[i]).all())
            assert one["property_weights/stress"][()] == whole
            assert (one["properties/stress"].shape == (6,)) == whole
    document = json.loads((folder / "statistics.json").read_text())
    normal = ml.statistics(store.snapshot()).normalisation("emt")
    assert document["avg_num_neighbors"] == normal["neighbours"]["within_5_angstrom"]
    assert document["r_max"] == 5.0
    with pytest.raises(DataError, match="4, 5, 6"):
        ml.get_exporter("mace")(store.snapshot(), tmp_path / "other", r_max=7.0)


def test_mace_reads_it(store, tmp_path):
    """With the package itself, where it is installed (it pins e3nn, so it cannot share an environment with sevenn)."""
    hdf5_dataset = pytest.importorskip("mace.data.hdf5_dataset")
    import torch
    from mace.tools.utils import AtomicNumberTable

    folder = ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace")
    document = json.loads((folder / "statistics.json").read_text())
    table = AtomicNumberTable(json.loads(document["atomic_numbers"]))
    expected = frames(store, "train")
    torch.set_default_dtype(torch.float64)
    try:
        data = hdf5_dataset.dataset_from_sharded_hdf5(str(folder / "train"), r_max=5.0, z_table=table)
        assert len(data) == len(expected)
        for i in range(len(expected)):
            one, own = data[i], slice(expected.offsets[i], expected.offsets[i + 1])
            assert float(one.energy) == expected.energy[i]
            assert np.array_equal(one.forces.numpy(), expected.forces[own].astype("f8"))
            if np.isfinite(expected.stress[i]).all():
                full = one.stress.numpy()[0]
                voigt = full[[0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]]
                assert np.array_equal(voigt, expected.stress[i].astype("f8"))
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("teacher", ["a", "b"])
def test_mace_reads_dipoles_and_charges_with_their_weights(tmp_path, teacher):
    hdf5_dataset = pytest.importorskip("mace.data.hdf5_dataset")
    import torch
    from mace.tools.utils import AtomicNumberTable

    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(signals(), require=())
    folder = ml.get_exporter("mace")(store.snapshot(), tmp_path / "mace", teacher=teacher)
    batch = store.snapshot().read()
    labels, table = batch.labels[teacher], AtomicNumberTable(sorted(set(batch.numbers.tolist())))
    torch.set_default_dtype(torch.float64)
    try:
        data = hdf5_dataset.dataset_from_sharded_hdf5(str(folder / "train"), r_max=5.0, z_table=table)
        for i in range(len(batch)):
            one, own = data[i], slice(batch.offsets[i], batch.offsets[i + 1])
            dipole, charges = labels["dipole"][i], labels["charges"][own]
            np.testing.assert_allclose(one.dipole.numpy()[0] * units.Debye, np.nan_to_num(dipole), rtol=1e-14)
            assert one.dipole_weight.numpy().tolist() == [[float(np.isfinite(dipole).all())] * 3]
            assert np.array_equal(one.charges.numpy(), np.nan_to_num(charges).astype("f8"))
            assert float(one.charges_weight) == float(np.isfinite(charges).all())
    finally:
        torch.set_default_dtype(torch.float32)


def test_concatenated(store, tmp_path):
    path = ml.get_exporter("concatenated")(store.snapshot(), tmp_path / "all.h5")
    expected = [frames(store, split) for split in ("train", "val", "test")]
    with h5py.File(path) as file:
        s, labels = file["structures"], file["labels"]
        assert {k: v.dtype.str.lstrip("<|") for k, v in s.items()} == {
            "atomic_numbers": "i8", "atomic_numbers_splits": "i8", "positions": "f8", "cells": "f8", "pbc": "b1",
            "charge": "i2", "multiplicity": "i2",
        }  # fmt: skip
        ends = s["atomic_numbers_splits"][:]
        assert np.array_equal(ends, labels["forces_splits"][:])
        assert np.array_equal(np.diff(ends), np.concatenate([batch.n_atoms for batch in expected]))
        for name, found in (
            ("numbers", s["atomic_numbers"]), ("positions", s["positions"]), ("cell", s["cells"]), ("pbc", s["pbc"]),
            ("energy", labels["energy"]), ("forces", labels["forces"]),
        ):  # fmt: skip
            assert np.array_equal(found[:], np.concatenate([getattr(batch, name) for batch in expected])), name
        stress = np.concatenate([batch.stress for batch in expected])
        mask = labels["stress_mask"][:]
        assert np.array_equal(mask, np.isfinite(stress).all(axis=1))
        assert np.array_equal(labels["stress"][:][mask], stress[mask].astype("f8"))
        assert not labels["stress"][:][~mask].any()
        assert labels["structure_indices"][:].tolist() == list(range(60))
        assert np.bincount(file["metadata/split"][:]).tolist() == [len(batch) for batch in expected]
        assert file["metadata"].attrs["teacher_model"] == "emt"


ALL_LAYOUTS = ("hdf5", "concatenated", "extxyz", "aselmdb", "mace", "deepmd", "parquet", "zarr")


@pytest.mark.parametrize("layout", ALL_LAYOUTS)
@pytest.mark.parametrize("kind", ["file", "folder", "dangling link"])
def test_what_is_there_is_never_overwritten(store, tmp_path, layout, kind):
    target = tmp_path / "x.h5"
    if kind == "file":
        target.write_text("my notes")
    elif kind == "folder":
        target.mkdir()
    elif layout not in ("hdf5", "concatenated"):
        pytest.skip("a folder cannot take the name of a link")
    else:
        target.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ReleaseError, match="never overwritten"):
        ml.get_exporter(layout)(store.snapshot(), target, teacher="emt")
    assert [path.name for path in tmp_path.rglob("*")] == ["x.h5"]
    assert kind != "file" or target.read_text() == "my notes"
    assert kind != "dangling link" or target.is_symlink()


@pytest.mark.parametrize("links", [True, False], ids=["hard links", "no hard links"])
def test_a_file_that_appears_during_an_export_is_kept(store, tmp_path, monkeypatch, links):
    def no_links(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr("os.link", no_links)
    target = tmp_path / "x.h5"
    with pytest.raises(ReleaseError, match="never overwritten"):
        ml.get_exporter("hdf5")(store.snapshot(), target, progress=lambda done, total: target.write_text("theirs"))
    assert target.read_text() == "theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    target.unlink()
    assert ml.get_exporter("hdf5")(store.snapshot(), target) == target
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
    assert ml.verify_release(target).ok


@pytest.mark.parametrize("name", ["x", "x-hdf5", "x.hdf", "notes.txt"])
def test_a_name_by_which_no_reader_knows_a_release_is_refused(store, tmp_path, name):
    with pytest.raises(ReleaseError, match=r"ends in \.h5 or \.hdf5"):
        ml.get_exporter("hdf5")(store.snapshot(), tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["hdf5", "concatenated", "extxyz"])
def test_a_file_that_cannot_be_made_is_named_in_plain_words(store, tmp_path, layout):
    """A name that is too long fails also for a user to whom permissions do not apply."""
    done = shell("export", store.url, "--format", layout, "--out", tmp_path / f"{'x' * 240}.h5", code=3)
    assert "File name too long; check the path" in done.stderr
    assert "errno" not in done.stderr


@pytest.mark.parametrize("layout", ["concatenated", "hdf5"])
def test_more_strings_than_16_bits_count(layout, tmp_path):
    n = 2**16 + 3
    words = [f"s{i}" for i in range(n)]
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(
        ml.SampleBatch(
            n_atoms=np.ones(n, int), numbers=np.full(n, 2), positions=np.arange(3 * n).reshape(n, 3) * 1e-2,
            energy=np.arange(n) * 1.0, forces=np.zeros((n, 3)), source=words, sampler=words[::-1],
            extra={"tag": (words, "1", "sample")},
        )
    )  # fmt: skip
    path = ml.get_exporter(layout)(store.snapshot(), tmp_path / "all.h5")
    groups = {"source": "metadata", "sampler": "metadata", "tag": "columns", "energy": "labels"}
    with h5py.File(path) as file:

        def dataset(name):
            return file[f"{groups[name] if layout == 'concatenated' else 'train'}/{name}"]

        order = dataset("energy")[:].astype(int)
        for name, expected in {"source": words, "sampler": words[::-1], "tag": words}.items():
            meanings = json.loads(dataset(name).attrs["meanings"])
            assert [meanings[code] for code in dataset(name)[:]] == [expected[i] for i in order], name

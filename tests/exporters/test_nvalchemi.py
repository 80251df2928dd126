"""Stores of nvalchemi-toolkit, by its own reader, dataset and writer where the package is installed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr
from ase.stress import voigt_6_to_full_3x3_stress

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES
from mlffstore.errors import DataError
from mlffstore.release.selection import select
from mlffstore_exporters import zarr_arrays
from mlffstore_exporters.nvalchemi import export_nvalchemi
from tests.exporters.test_fields import samples
from tests.signals import CUSTOM, signals

#: Written by the writer of nvalchemi-toolkit 0.2.0, see README.md beside it.
FOREIGN = Path(__file__).parents[1] / "data" / "real" / "nvalchemi_cu.zip"


@pytest.fixture
def snap(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(signals(), require=())
    return store.snapshot()


@pytest.fixture
def toolkit():
    return pytest.importorskip("nvalchemi.data.datapipes", reason="needs nvalchemi-toolkit")


def test_the_layout_without_the_toolkit(snap, tmp_path, monkeypatch):
    monkeypatch.setattr(zarr_arrays, "CHUNK_NBYTES", 50)
    monkeypatch.setattr(zarr_arrays, "SHARD_NBYTES", 100)
    out = export_nvalchemi(snap, tmp_path / "out", teacher="a")
    assert sorted(path.relative_to(out).as_posix() for path in out.glob("*/*.zarr")) == ["train/periodic.zarr"]
    group, whole = zarr.open_group(out / "train" / "periodic.zarr", mode="r"), snap.read()
    labels = whole.labels["a"]
    assert group.attrs["num_samples"] == len(whole)
    assert group["meta/atoms_ptr"][:].tolist() == whole.offsets.tolist()
    assert group["meta/edges_ptr"][:].tolist() == [0] * (len(whole) + 1)
    assert group["meta/samples_mask"][:].all()
    assert group["meta/atoms_mask"][:].tolist() == [True] * whole.n_atoms_total
    for name, expected in {
        "atomic_numbers": whole.numbers, "positions": whole.positions, "cell": whole.cell, "pbc": whole.pbc,
        "charge": whole.charge[:, None], "spin": whole.multiplicity[:, None], "energy": labels["energy"][:, None],
        "forces": labels["forces"], "stress": voigt_6_to_full_3x3_stress(labels["stress"]), "dipole": labels["dipole"],
        "charges": labels["charges"],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(group[f"core/{name}"][:], expected, err_msg=name)
    assert {group[f"core/{name}"].dtype.kind for name in group["core"]} == {"i", "f", "b"}
    others = {*PROPERTIES, *CUSTOM} - {"energy", "forces", "stress", "dipole", "charges"}
    assert set(group["custom"]) == others
    assert set(group["mlffstore"]) == {"root", "source", "sampler", "config_type", "config_type_mask", "residue"}
    assert group.attrs["fields"]["custom"]["magmoms"] == "atom"


def test_user_columns_with_names_of_fields_stay_apart(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    batch = next(batch for batch in map(samples, range(50)) if {"dipole", "virial", "huge"} <= set(batch.user))
    store.append(batch, require=())
    out = export_nvalchemi(store.snapshot(), tmp_path / "out")
    for path in out.glob("*/*.zarr"):
        group = zarr.open_group(path, mode="r")
        assert "dipole" not in group["core"]
        assert {"dipole", "virial", "huge"} <= set(group["mlffstore"])
        assert not {"dipole", "virial", "huge"} & set(group["custom"])
        assert ("cell" in group["core"]) == (path.stem == "periodic")


def test_another_dtype_is_refused(snap, tmp_path):
    with pytest.raises(DataError, match="expected 'float64' or 'float32', got 'float16'"):
        export_nvalchemi(snap, tmp_path / "out", teacher="a", dtype="float16")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_toolkit_reads_every_sample(store, toolkit, tmp_path, dtype):
    from nvalchemi.data.datapipes.backends.zarr import AtomicDataZarrReader

    snap = store.snapshot()
    out = export_nvalchemi(snap, tmp_path / "out", teacher="emt", dtype=dtype)
    seen = 0
    for split, index in select(snap, ("emt",)).items():
        batch = snap.read(index, teacher="emt")
        periodic = batch.pbc.any(axis=1)
        for kind, chosen in (("periodic", periodic), ("molecule", ~periodic)):
            if not chosen.any():
                assert not (out / split / f"{kind}.zarr").exists()
                continue
            data = toolkit.Dataset(AtomicDataZarrReader(out / split / f"{kind}.zarr"), device="cpu")
            part = batch.take(np.flatnonzero(chosen))
            assert len(data) == len(part)
            for i in range(len(part)):
                one, _ = data[i]
                atoms = slice(part.offsets[i], part.offsets[i + 1])
                assert one.atomic_numbers.tolist() == part.numbers[atoms].tolist()
                assert np.array_equal(one.positions.numpy().astype("f4"), part.positions[atoms])
                assert np.array_equal(one.forces.numpy().astype("f4"), part.forces[atoms])
                assert one.energy.numpy().astype(dtype).item() == part.energy[i].astype(dtype)
                assert one.spin.item() == part.multiplicity[i]
                if kind == "periodic":
                    assert np.array_equal(one.cell[0].numpy(), part.cell[i].astype(dtype))
                    assert one.pbc[0].tolist() == part.pbc[i].tolist()
                    stress = voigt_6_to_full_3x3_stress(part.stress[i])
                    assert np.array_equal(one.stress[0].numpy().astype("f4"), stress, equal_nan=True)
                seen += 1
    assert seen == len(snap)


@pytest.mark.filterwarnings("ignore")  # of the toolkit, which is another's
def test_the_toolkit_batches_what_we_write_and_we_read_what_it_writes(snap, toolkit, tmp_path):
    from nvalchemi.data.datapipes.backends.zarr import AtomicDataZarrReader, AtomicDataZarrWriter

    out = export_nvalchemi(snap, tmp_path / "out", teacher="a")
    reader = AtomicDataZarrReader(out / "train" / "periodic.zarr")
    for skip_validation in (False, True):
        data = toolkit.Dataset(reader, device="cpu", skip_validation=skip_validation)
        batch = next(iter(toolkit.DataLoader(data, batch_size=len(snap), shuffle=False)))
        whole = snap.read()
        np.testing.assert_array_equal(batch.positions.numpy(), whole.positions)
        np.testing.assert_array_equal(batch.magmoms.numpy().ravel(), whole.labels["a"]["magmoms"])
        np.testing.assert_array_equal(batch.energy.numpy().ravel(), whole.labels["a"]["energy"])
    AtomicDataZarrWriter(tmp_path / "theirs.zarr").write(batch)
    report = ml.import_files(
        tmp_path / "theirs.zarr",
        tmp_path / "s",
        require=(),
        keys={"magmoms": "magmoms"},
        teacher="a",
        check_stress=False,
    )
    again = ml.open(tmp_path / "s").snapshot().read()
    assert report.samples == len(whole)
    for name in ("energy", "forces", "stress", "dipole", "charges", "magmoms"):
        np.testing.assert_array_equal(again.labels["a"][name], whole.labels["a"][name], err_msg=name)
    assert again.multiplicity.tolist() == whole.multiplicity.tolist()


def test_a_store_of_the_toolkit_is_imported(tmp_path):
    shutil.unpack_archive(FOREIGN, tmp_path)
    report = ml.import_files(tmp_path / "cu.zarr", tmp_path / "s", columns={"temperature": "K"})
    assert report.samples == 5  # one of six was deleted
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert batch.n_atoms.tolist() == [4, 4, 1, 4, 4]
    from ase.calculators.emt import EMT

    for i, atoms in enumerate(batch.to_ase()):
        atoms.calc = EMT()
        assert batch.energy[i] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
        rows = slice(batch.offsets[i], batch.offsets[i + 1])
        np.testing.assert_allclose(batch.forces[rows], atoms.get_forces(), atol=1e-5)
        np.testing.assert_allclose(batch.stress[i], atoms.get_stress(), atol=1e-6)
    assert batch.columns["temperature"].tolist() == [0.0, 100.0, 300.0, 400.0, 500.0]
    assert batch.charge.tolist() == [0] * 5
    left = {use.name for use in report.keys if use.fate == "left out"}
    assert not {"energy", "forces", "stress", "charge", "positions", "velocities", "atomic_masses"} & left
    assert any("neighbour lists" in text for text in report.warnings)


def test_a_damaged_store_is_refused(tmp_path):
    shutil.unpack_archive(FOREIGN, tmp_path)
    shutil.rmtree(tmp_path / "cu.zarr" / "core" / "positions")
    with pytest.raises(DataError, match="expected a Zarr store of nvalchemi"):
        ml.import_files(tmp_path / "cu.zarr", tmp_path / "s")
    assert not (tmp_path / "s").exists()

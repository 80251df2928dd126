"""Frames with random subsets of fields go through every layout: each field comes back equal, or is named as left out."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from tests.exporters.readers import of_batch, read_layout

LAYOUTS = ("hdf5", "extxyz", "aselmdb", "mace", "concatenated", "zarr", "parquet")
#: Layouts that need a package.
NEEDS = {"aselmdb": "ase_db_backends", "parquet": "pyarrow"}
WORDS = ("plain", "two words", "T", "12", "1e5", "nan", 'a "b" \\c', "k=v", "_JSON 1", "Ünïcödé", "a\nb", "{x}", " ")


def samples(seed: int, n: int = 24) -> ml.SampleBatch:
    """Return samples some of which lack energy, forces or stress, with charges, spins and user columns of every kind."""
    rng = np.random.default_rng(seed)
    n_atoms = rng.integers(1, 6, n)
    total = int(n_atoms.sum())
    pbc = rng.integers(0, 2, (n, 3)).astype(bool)
    pbc[::3] = True
    per_atom = np.repeat(np.arange(n), n_atoms)
    energy, forces, stress = rng.normal(-50, 9, n), rng.normal(0, 2, (total, 3)), rng.normal(0, 0.1, (n, 6))
    energy[rng.random(n) < 0.3] = np.nan
    forces[(rng.random(n) < 0.3)[per_atom]] = np.nan
    stress[~pbc.all(axis=1) | (rng.random(n) < 0.3)] = np.nan
    quality = rng.normal(size=n)
    quality[rng.random(n) < 0.5] = np.nan
    extra = {
        "quality": (quality, "1", "sample"),
        "big": (rng.integers(-(2**62), 2**62, n) + 1, "1", "sample"),
        "huge": (rng.integers(0, 2**63, n).astype(np.uint64) * 2 + 1, "1", "sample"),
        "good": (rng.random(n) < 0.5, "1", "sample"),
        "single": (rng.normal(size=(n, 1)).astype(np.float32), "eV", "sample"),
        "dipole": (rng.normal(size=(n, 3)), "e*angstrom", "sample"),
        "hessian": (rng.normal(size=(n, 2, 3)), "eV/angstrom^2", "sample"),
        "magmom": (rng.normal(size=total) * 1e-12, "bohr_magneton", "atom"),
        "tag": (rng.integers(-(2**40), 2**40, total), "1", "atom"),
        "label": (rng.integers(-(2**62), 2**62, total) | (1 << 55) | 1, "1", "atom"),
        "fixed": (rng.random(total) < 0.5, "1", "atom"),
        "velocity": (rng.normal(size=(total, 3)).astype(np.float32), "angstrom/fs", "atom"),
        "virial": (rng.normal(size=n), "eV", "sample"),
    }  # fmt: skip
    for name in ("big", "good", "tag"):  # whole samples without a value
        values, unit, axis = extra[name]
        absent = rng.random(n) < 0.4
        extra[name] = (np.ma.masked_array(values, absent if axis == "sample" else absent[per_atom]), unit, axis)
    chosen = [name for name in extra if rng.random() < 0.6]
    return ml.SampleBatch(
        n_atoms=n_atoms, numbers=rng.integers(1, 90, total), positions=rng.normal(0, 3, (total, 3)).astype(np.float32),
        cell=np.where(pbc.any(axis=1)[:, None, None], np.eye(3) * 9 + rng.normal(0, 0.3, (n, 3, 3)), 0), pbc=pbc,
        charge=rng.integers(-3, 4, n), multiplicity=rng.integers(1, 6, n), energy=energy, forces=forces, stress=stress,
        source=[WORDS[k] for k in rng.integers(0, len(WORDS), n)], sampler=[WORDS[k] for k in rng.integers(0, 3, n)],
        extra={name: extra[name] for name in chosen},
    )  # fmt: skip


def same(found: object, expected: object, dtype_matters: bool) -> bool:
    """Return whether a value came back: the same numbers, in any layout of a row and any type that holds them."""
    if isinstance(expected, str) or isinstance(found, str):
        return found == expected
    a, b = np.asarray(found), np.asarray(expected)
    if dtype_matters:
        return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b)
    if a.size == 9 and b.size == 6:  # a stress
        a = a.reshape(-1)[[0, 4, 8, 5, 2, 1]]
    return a.size == b.size and a.reshape(-1).tolist() == b.reshape(-1).tolist()


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_field_comes_back_or_is_named(layout, seed, tmp_path, caplog):
    if layout in NEEDS:
        pytest.importorskip(NEEDS[layout])
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(seed), require=())
    store.append(samples(seed + 100, 6), require=())  # with other user columns
    snap = store.snapshot()
    batch = snap.read()
    expected = {
        root: fields
        for root, fields in of_batch(batch, "reference").items()
        if fields.keys() & {"energy", "forces", "stress"}
    }
    path = ml.get_exporter(layout)(snap, tmp_path / "out.h5")
    found = read_layout(layout, path)
    assert found.keys() == expected.keys()
    if layout == "hdf5":
        assert ml.verify_release(path).problems == ()
    named = " ".join(message for message in caplog.messages if "left out" in message)
    for root, fields in expected.items():
        for name, value in fields.items():
            if name in ("source", "sampler") and value == "unknown":
                continue
            if name in found[root]:
                assert same(found[root][name], value, layout in ("hdf5", "zarr")), (name, found[root][name], value)
            else:
                assert f"{name} (" in named, (name, value)
        extra = {"stress", "energy", "forces"} - fields.keys()
        assert not extra & found[root].keys(), "a label that nobody gave"
    for name in ("energy", "forces"):
        missing = sum(name not in fields for fields in expected.values())
        told = [m for m in caplog.messages if f"{missing} of the {len(expected)} exported samples have no {name}" in m]
        assert bool(told) == (missing > 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sample_with_forces_alone_is_exported(layout, tmp_path):
    if layout in NEEDS:
        pytest.importorskip(NEEDS[layout])
    batch = samples(1)
    store = ml.create(tmp_path / "d.zarr")
    forces = np.nan_to_num(batch.forces)
    store.append(batch.structures().with_labels("a", energy=batch.energy, forces=forces), require=("forces",))
    store.append(batch.structures().with_labels("b", energy=np.nan_to_num(batch.energy)).take([0, 1, 2]), require=())
    found = read_layout(layout, ml.get_exporter(layout)(store.snapshot(), tmp_path / "x.h5", teacher="a"))
    assert len(found) == len(batch)
    assert sum("energy" in fields for fields in found.values()) == np.isfinite(batch.energy).sum()


def test_forces_alone_are_exported_for_mace(tmp_path, caplog):
    """Energies of the elements that nobody measured are 0 and said to be."""
    import json

    batch = samples(5)
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch.structures().with_labels("f", forces=np.nan_to_num(batch.forces)), require=("forces",))
    folder = ml.get_exporter("mace")(store.snapshot(), tmp_path / "m")
    found = read_layout("mace", folder)
    assert len(found) == len(batch)
    assert not any("energy" in fields for fields in found.values())
    document = json.loads((folder / "statistics.json").read_text())
    elements = sorted(set(batch.numbers.tolist()))
    assert json.loads(document["atomic_numbers"]) == elements
    assert document["atomic_energies"] == str(dict.fromkeys(elements, 0.0))
    train = store.snapshot().read(store.snapshot().split_indices("train")).label("forces", "f").astype("f8")
    assert document["std"] == pytest.approx(np.sqrt(np.mean(train**2)))
    assert any("no sample of the split train has an energy of 'f'" in message for message in caplog.messages)


def test_the_command_line_says_what_is_missing(tmp_path):
    import json

    from typer.testing import CliRunner

    from mlffstore.cli.app import app

    batch = samples(2)
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch.structures().with_labels("a", energy=batch.energy), require=())
    command = ["export", str(tmp_path / "d.zarr"), "--format", "extxyz", "--json", "--out"]
    done = CliRunner().invoke(app, [*command, str(tmp_path / "x")])
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)[0]
    kept = int(np.isfinite(batch.energy).sum())
    assert sum(document[split] for split in ("train", "val", "test")) == kept
    assert document["unlabelled"] == len(batch) - kept
    assert any(f"{kept} of the {kept} exported samples have no forces of 'a'" in note for note in document["notes"])


def test_unlabelled_stores_are_refused(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(3).structures(), require=())
    for layout in LAYOUTS:
        if layout in NEEDS:
            pytest.importorskip(NEEDS[layout])
        with pytest.raises((DataError, ml.errors.TeacherError), match="label"):
            ml.get_exporter(layout)(store.snapshot(), tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["d.zarr"]

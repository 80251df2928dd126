"""User columns whose names readers take for something else: left out and named, never written over a field of ours."""

from __future__ import annotations

import ase.io
import h5py
import numpy as np
import pytest
import zarr

import mlffstore as ml

_ALL = (
    "spin", "total_spin", "mult", "uhf", "total_charge", "dipole", "charges", "magmoms", "magmom", "free_energy",
    "polarization", "stresses", "energies", "dielectric_tensor", "born_effective_charges", "energy_std", "embedding",
)  # fmt: skip
#: Axis and names of columns that a reader of ASE frames takes for something else.
OF_ASE = [
    ("sample", _ALL), ("atom", (*_ALL, "initial_charges", "initial_magmoms", "tags", "momenta", "masses")),
    ("sample", ("atomic_energies",)), ("atom", ("atomic_energies",)),
]  # fmt: skip
ATOMIC_ENERGIES = np.array([-1.0, -2.0, -3.0])


def stored(tmp_path, columns, labels=None):
    """Return a snapshot of two samples, of one and two atoms, in the split train."""
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    given = {"energy": [-1.0, -5.0], "forces": np.full((3, 3), 0.25), **(labels or {})}
    store.append(
        ml.SampleBatch(
            n_atoms=[1, 2], numbers=[2, 1, 1], positions=[[0, 0, 0], [0, 0, 0], [0, 0, 0.74]], charge=[1, 0],
            multiplicity=[2, 3], labels={"dft": given}, extra=columns,
        )
    )  # fmt: skip
    return store.snapshot()


def column(axis, unit="Debye"):
    return (np.arange(2.0 if axis == "sample" else 3.0) + 7, unit, axis)


def rows_of(path):
    """Return the rows of the only database of an export."""
    lmdb = pytest.importorskip("ase_db_backends.aselmdb")
    (file,) = path.rglob("*.aselmdb")
    with lmdb.LMDBDatabase(file, readonly=True, use_lock_file=False) as database:
        return sorted(database.select(), key=lambda row: row.natoms)


def imported(path, tmp_path):
    ml.import_files(path, tmp_path / "back.zarr")
    return ml.open(tmp_path / "back.zarr").snapshot().read()


def assert_untouched(batch):
    """Assert that an import has the charges, multiplicities and labels that were exported and no others."""
    batch = batch.take(np.argsort(batch.n_atoms))
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([1, 0], [2, 3])
    (labels,) = batch.labels.values()
    assert set(labels) == {"energy", "forces", "atomic_energies"}
    np.testing.assert_array_equal(labels["atomic_energies"], ATOMIC_ENERGIES)


def of_ase(layout, axis, names, tmp_path, caplog):
    """Export columns of such names beside one of another name; return the export and the results that frames may have."""
    labels = {} if "atomic_energies" in names else {"atomic_energies": ATOMIC_ENERGIES}
    snap = stored(tmp_path, {"mine": column(axis, "1"), **{name: column(axis) for name in names}}, labels)
    path = ml.get_exporter(layout)(snap, tmp_path / "out")
    assert [name for name in names if f" {name} (" not in caplog.text] == []
    return path, {"energy", "forces", *(["energies"] if labels else [])}


@pytest.mark.parametrize(("axis", "names"), OF_ASE)
def test_extended_xyz_has_no_column_that_ase_takes_for_something_else(axis, names, tmp_path, caplog):
    path, results = of_ase("extxyz", axis, names, tmp_path, caplog)
    frames = sorted(ase.io.read(path / "train.extxyz", ":"), key=len)
    for frame in frames:
        assert {"mine"} == {"mine", *names} & {*frame.info, *frame.arrays}
        assert set(frame.calc.results) == results
        assert frame.info["multiplicity"] == len(frame) + 1
    if "energies" in results:
        np.testing.assert_array_equal(np.concatenate([f.calc.results["energies"] for f in frames]), ATOMIC_ENERGIES)
        assert_untouched(imported(path / "train.extxyz", tmp_path))


@pytest.mark.parametrize(("axis", "names"), [*OF_ASE, ("sample", ("sid", "fid"))])
def test_rows_of_aselmdb_have_no_column_that_fairchem_takes_for_something_else(axis, names, tmp_path, caplog):
    pytest.importorskip("ase_db_backends")
    path, results = of_ase("aselmdb", axis, names, tmp_path, caplog)
    rows = rows_of(path)
    assert [(row.data["charge"], row.data["spin"]) for row in rows] == [(1, 2), (0, 3)]
    for row in rows:
        frame = row.toatoms()
        assert {"mine"} == {"mine", *names} & (set(row.data) - {"charge", "spin"})
        assert not set(names) & set(frame.arrays)
        assert set(frame.calc.results) == results
    if "energies" in results:
        assert_untouched(imported(next(path.rglob("*.aselmdb")), tmp_path))


@pytest.mark.parametrize("layout", ["extxyz", "aselmdb", "mace"])
def test_a_label_cannot_pass_for_the_spin(layout, tmp_path, caplog, monkeypatch):
    """Nor for the atomic energies, whose name in ASE is energies."""
    if layout == "aselmdb":
        pytest.importorskip("ase_db_backends")
    monkeypatch.setattr("mlffstore.data.properties._registered", {})
    ml.Property("spin", axis="sample", unit="1")
    ml.Property("energies", axis="atom", unit="kJ/mol")
    labels = {"spin": [5.0, 7.0], "energies": [1.0, 2.0, 3.0], "atomic_energies": ATOMIC_ENERGIES}
    path = ml.get_exporter(layout)(stored(tmp_path, {}, labels), tmp_path / "out")
    assert "spin (" in caplog.text
    assert layout == "mace" or "energies (" in caplog.text
    monkeypatch.setattr("mlffstore.data.properties._registered", {})
    files = {"extxyz": "*.extxyz", "aselmdb": "*.aselmdb", "mace": "*.h5"}
    assert_untouched(imported(next(path.rglob(files[layout])), tmp_path))


@pytest.mark.parametrize("axis", ["sample", "atom"])
def test_files_of_mace_have_no_column_that_readers_take_for_something_else(axis, tmp_path, caplog):
    names = ("spin", "uhf", "dipole", "magmoms", "atomic_energies", "energy_std", "total_charge", "polarizability")
    snap = stored(tmp_path, {name: column(axis) for name in ("mine", *names)})
    path = ml.get_exporter("mace")(snap, tmp_path / "out")
    assert [name for name in names if f" {name} (" not in caplog.text] == []
    with h5py.File(path / "train" / "train_0.h5") as file:
        for config in file["config_batch_0"].values():
            properties = config["properties"]
            assert set(properties) == {"energy", "forces", "stress", "total_charge", "total_spin", "mine"}
            assert properties["total_charge"][()] == 2 - len(config["positions"])
            assert properties["total_spin"][()] == 1 + len(config["positions"])
    back = imported(path / "train" / "train_0.h5", tmp_path)
    assert set(next(iter(back.labels.values()))) == {"energy", "forces"}
    assert sorted(back.multiplicity.tolist()) == [2, 3]


@pytest.mark.parametrize(
    "column", [(np.array([1, 2]), "1", "sample"), (np.arange(3.0), "1", "atom"), (["a", "b", "c"], "1", "atom")]
)
def test_a_config_type_that_is_not_a_string_of_the_sample(column, tmp_path, caplog):
    path = ml.get_exporter("mace")(stored(tmp_path, {"config_type": column}), tmp_path / "out")
    assert "config_type (MACE reads one string for each sample)" in caplog.text
    with h5py.File(path / "train" / "train_0.h5") as file:
        for config in file["config_batch_0"].values():
            assert config["config_type"][()] == b"Default"
            assert "config_type" not in config["properties"]


def test_nvalchemi_keeps_such_columns_where_its_reader_does_not_look(tmp_path):
    names = {"spin", "magmoms", "energy_std", "uhf"}
    snap = stored(tmp_path, {name: column("atom") for name in (*names, "mine")}, {"atomic_energies": ATOMIC_ENERGIES})
    path = ml.get_exporter("nvalchemi")(snap, tmp_path / "out")
    group = zarr.open_group(path / "train" / "molecule.zarr", mode="r")
    assert set(group["custom"]) == {"mine", "atomic_energies"}
    assert group["core/spin"][:].ravel().tolist() == [2, 3]
    back = imported(path, tmp_path)
    for name in names:
        assert back.user[name].unit == "Debye"
        assert back.columns[name].tolist() == [7.0, 8.0, 9.0]


@pytest.mark.parametrize("layout", ["zarr", "parquet", "atompack"])
def test_layouts_with_units_keep_such_columns(layout, tmp_path):
    for package in {"parquet": ["pyarrow"], "atompack": ["atompack"]}.get(layout, []):
        pytest.importorskip(package)
    columns = {"spin": column("sample"), "dipole": column("sample"), "charges": column("atom"), "tags": column("atom")}
    snap = stored(tmp_path, columns)
    back = imported(ml.get_exporter(layout)(snap, tmp_path / "out"), tmp_path)
    assert (back.charge.tolist(), back.multiplicity.tolist()) == ([1, 0], [2, 3])
    for name, (values, unit, axis) in columns.items():
        assert (back.user[name].unit, back.user[name].axis) == (unit, axis)
        assert back.columns[name].tolist() == values.tolist()


def test_columns_whose_names_ase_gives_to_parts_of_others(tmp_path, caplog):
    """ASE parses three columns `pos` as pos0, pos1 and pos2, and refuses a file that has a column pos1 beside them."""
    columns = {"pos1": column("atom"), "forces0": column("atom"), "pos3": column("atom"),
               "v": (np.arange(6.0).reshape(3, 2), "1", "atom"), "v1": column("atom"), "v2": column("atom")}  # fmt: skip
    path = ml.get_exporter("extxyz")(stored(tmp_path, columns), tmp_path / "out")
    for frame in ase.io.read(path / "train.extxyz", ":"):
        assert set(frame.arrays) == {"numbers", "positions", "pos3", "v", "v2"}
    assert all(f"{name} (ASE numbers the columns of" in caplog.text for name in ("pos1", "forces0", "v1"))


def test_an_atom_without_a_string_in_aselmdb(tmp_path):
    """An empty string is a value, and another one than none."""
    pytest.importorskip("ase_db_backends")
    snap = stored(tmp_path, {"residue": ([None, "ALA", ""], "1", "atom"), "chain": ([None, "A", "B"], "1", "atom")})
    first, second = rows_of(ml.get_exporter("aselmdb")(snap, tmp_path / "out"))
    assert "residue" not in first.data
    assert list(second.data["residue"]) == ["ALA", ""]
    snap = stored(tmp_path / "other", {"residue": (["x", None, "GLY"], "1", "atom")})
    first, second = rows_of(ml.get_exporter("aselmdb")(snap, tmp_path / "other" / "out"))
    assert list(first.data["residue"]) == ["x"]
    assert list(second.data["residue"]) == [None, "GLY"]

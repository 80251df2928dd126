"""User columns of imported files hold what the files hold: no digit, sign, shape or byte changes on the way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

P = np.array([[0, 0, 0], [0, 0, 0.74]])
FORM = "Properties=species:S:1:pos:R:3:forces:R:3"


def frame(i: int, keys: str = "", n: int = 2) -> str:
    """Return hydrogen in a chain of n atoms as extended XYZ."""
    rows = "".join(f"H 0 0 {(0.74 + 0.01 * i) * k} 0 0 0.1\n" for k in range(n))
    return f"{n}\n{FORM} energy=-31 {keys}\n{rows}"


def imported(folder: Path, text: str, columns: list[str], **options: Any) -> Any:
    (folder / "a.xyz").write_text(text)
    ml.import_files(folder / "a.xyz", folder / "s.zarr", columns=columns, **options)
    return ml.open(folder / "s.zarr").snapshot().read()


def table(folder: Path, **columns: Any) -> Path:
    given = {
        "numbers": [[1, 1]] * 2, "positions": [P.tolist(), (P * 1.1).tolist()], "energy": [-1.0, -2.0],
        "forces": [(P * 0).tolist()] * 2,
    }  # fmt: skip
    pq.write_table(pa.table({**given, **columns}), folder / "a.parquet")
    return folder / "a.parquet"


def test_integers_of_64_bits(tmp_path: Path) -> None:
    path = table(tmp_path, h=pa.array([2**63 + 5, 3], pa.uint64()), i=pa.array([-(2**63), 3]))
    ml.import_files(path, tmp_path / "s.zarr", columns=["h", "i"])
    columns = ml.open(tmp_path / "s.zarr").snapshot().read().columns
    assert columns["h"].tolist() == [2**63 + 5, 3]
    assert columns["i"].tolist() == [-(2**63), 3]


@pytest.mark.parametrize("layout", ["extxyz", "aselmdb", "mace"])
def test_unsigned_integers_survive_an_export_of_ours(tmp_path: Path, layout: str) -> None:
    store = ml.create(tmp_path / "s.zarr")
    large = np.array([2**63 + 5, 2**64 - 1], np.uint64)
    store.append(ml.SampleBatch(
        n_atoms=[2, 2], numbers=[1] * 4, positions=np.vstack([P, P * 1.1]), extra={"id": (large, "1", "sample")},
        labels={"dft": {"energy": [-1.0, -2.0], "forces": np.zeros((4, 3))}},
    ))  # fmt: skip
    out = ml.get_exporter(layout)(store.snapshot(), tmp_path / "out", teacher="dft")
    files = [path for path in sorted(out.rglob("*")) if path.suffix in (".extxyz", ".aselmdb", ".h5")]
    ml.import_files(files, tmp_path / "t.zarr", columns=["id"])
    assert sorted(ml.open(tmp_path / "t.zarr").snapshot().read().columns["id"].tolist()) == sorted(large.tolist())


def test_atoms_without_a_string_survive_an_export_of_ours(tmp_path: Path) -> None:
    store = ml.create(tmp_path / "s.zarr")
    words = ["a", None, "", "c"]
    store.append(ml.SampleBatch(
        n_atoms=[2, 2], numbers=[1] * 4, positions=np.vstack([P, P * 1.1]), extra={"site": (words, "1", "atom")},
        labels={"dft": {"energy": [-1.0, -2.0], "forces": np.zeros((4, 3))}}, root=np.array([7, 7], np.uint64),
    ))  # fmt: skip
    out = ml.get_exporter("aselmdb")(store.snapshot(), tmp_path / "out", teacher="dft")
    ml.import_files(sorted(out.rglob("*.aselmdb")), tmp_path / "t.zarr", columns=["site"])
    assert list(ml.open(tmp_path / "t.zarr").snapshot().read().strings("site")) == words


@pytest.mark.parametrize(
    ("first", "second", "problem"),
    [
        (
            "q=7.5",
            "q=9007199254740993",
            "expected float64 as in the samples before, got int64 such as 9007199254740993",
        ),
        ("q=1", "q=T", "expected int64 as in the samples before, got truth values"),
        ("q=T", "q=1", "expected truth values as in the samples before, got int64"),
        ("q=1", "q=one", "expected int64 as in the samples before, got strings"),
        ("q=-1", "q=18446744073709551615", "got uint64 such as 18446744073709551615, which it cannot hold"),
        ('q="_JSON [[1,2,3],[3,4,4]]"', 'q="_JSON [[1,2],[3,4],[5,6]]"', r"expected shape \(2, 3\) .* got \(3, 2\)"),
    ],
)
@pytest.mark.parametrize("batch_samples", [1, 2])
def test_what_a_column_cannot_hold_is_refused(
    tmp_path: Path, first: str, second: str, problem: str, batch_samples: int
) -> None:
    if (
        "uint64" in problem and batch_samples == 2
    ):  # both in one block: then the column is of uint64 and -1 does not fit
        problem = "expected uint64 as in the samples before, got int64 such as -1"
    with pytest.raises(DataError, match=problem):
        imported(tmp_path, frame(0, first) + frame(1, second), ["q"], batch_samples=batch_samples)
    assert not (tmp_path / "s.zarr").exists()


def test_integers_beside_numbers_are_exact(tmp_path: Path) -> None:
    batch = imported(tmp_path, frame(0, "q=7.5") + frame(1, "q=9007199254740991"), ["q"])
    assert batch.columns["q"].tolist() == [7.5, 9007199254740991]


def test_a_vector_of_a_frame_stays_with_the_frame(tmp_path: Path) -> None:
    batch = imported(tmp_path, frame(0, 'w="1 2"') + frame(1, 'w="3 4"'), ["w"])
    assert batch.user["w"].axis == "sample"
    assert batch.columns["w"].tolist() == [[1, 2], [3, 4]]


def test_a_vector_that_grows_with_the_atoms_belongs_to_them(tmp_path: Path) -> None:
    batch = imported(tmp_path, frame(0, 'w="1 2"') + frame(1, 'w="3 4 5"', 3), ["w"])
    assert batch.user["w"].axis == "atom"
    assert batch.columns["w"].tolist() == [1, 2, 3, 4, 5]


def test_a_number_where_an_array_of_the_atoms_is_expected(tmp_path: Path) -> None:
    text = frame(0).replace("forces:R:3", "forces:R:3:w:R:1").replace("0.1\n", "0.1 1\n") + frame(1, "w=5", 1)
    with pytest.raises(DataError, match=r"'w': expected shape \(1,\) as in the samples before, got \(\)"):
        imported(tmp_path, text, ["w"], batch_samples=1)


@pytest.mark.parametrize("values", [["q=1", ""], ["", "q=a"], ["", "q=1.5"]])
def test_several_processes_know_of_columns_that_begin_late(tmp_path: Path, values: list[str]) -> None:
    text = "".join(frame(i, values[i > 1]) for i in range(6))
    one = imported(tmp_path, text, ["q"], batch_samples=2)
    (tmp_path / "s.zarr").rename(tmp_path / "one.zarr")
    two = imported(tmp_path, text, ["q"], batch_samples=2, workers=2)
    assert one.user == two.user
    assert str(one.columns["q"]) == str(two.columns["q"])  # missing rows are equal too


def test_several_processes_refuse_a_column_of_two_kinds(tmp_path: Path) -> None:
    text = "".join(frame(i, ("", "q=1", "q=1.5")[i // 2]) for i in range(6))
    with pytest.raises(DataError, match=r"'q': expected (int64|float64)"):
        imported(tmp_path, text, ["q"], batch_samples=2, workers=2)
    assert not (tmp_path / "s.zarr").exists()


@pytest.mark.parametrize("values", [[b"\xff", b"a"], [[1, "a"], [2, "b"]]])
def test_what_is_neither_numbers_nor_text_is_named(tmp_path: Path, values: list[Any]) -> None:
    if isinstance(values[0], bytes):
        path = table(tmp_path, h=pa.array(values, pa.binary()))
    else:
        from ase.build import molecule
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.db import connect

        path = tmp_path / "a.db"
        with connect(path) as database:
            for value in values:
                atoms = molecule("H2")
                atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=np.zeros((2, 3)))
                database.write(atoms, data={"h": value})
    with pytest.raises(DataError, match="'h': expected numbers or strings for a column"):
        ml.import_files(path, tmp_path / "s.zarr", columns=["h"])


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"numbers": [[1.7, 1.2]] * 2}, "row 0: numbers: expected integers, got fractions"),
        ({"pbc": [[True, None, False]] * 2}, "row 0: pbc: expected numbers of dtype bool"),
    ],
)
def test_structures_of_parquet_are_not_rounded(tmp_path: Path, columns: dict[str, Any], problem: str) -> None:
    with pytest.raises(DataError, match=problem):
        ml.import_files(table(tmp_path, **columns), tmp_path / "s.zarr")


def test_labels_of_mace_without_weight_are_kept_and_the_weight_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("config_batch_0/config_0")
        group["atomic_numbers"], group["positions"], group["cell"], group["pbc"] = [1, 1], P, np.eye(3) * 9, [True] * 3
        values = {"energy": -1.0, "forces": np.zeros((2, 3)), "stress": np.full(6, 1e-3), "charges": np.zeros(2)}
        for name, value in values.items():
            group[f"properties/{name}"] = value
            group[f"property_weights/{name}"] = 0.0 if name in ("stress", "charges") else 1.0
    report = ml.import_files(tmp_path / "m.h5", tmp_path / "s.zarr")
    labels = ml.open(tmp_path / "s.zarr").snapshot().read().labels["dft"]
    assert set(labels) == {"energy", "forces", "stress"}  # zeros without weight are what MACE fills in
    assert [use.name for use in report.keys if use.fate == "left out"] == ["property_weights/stress"]

"""Comment lines are read as ASE reads them, but for what ASE changes in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.io.extxyz import key_val_str_to_dict
from hypothesis import assume, given
from hypothesis import strategies as st

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.comments import read_comment

if TYPE_CHECKING:
    from pathlib import Path

_PARTS = [
    "a", "b1", "=", "==", " ", "  ", "\t", '"', "'", "{", "}", "[", "]", "\\", "\\\\", "T", "F", "true", "1", "-2", ",",
    '"x y"', "'T F'", "{1 2}", "[3, 4]", "é", '"_JSON [1, 2]"', "k=v", 'w="a \\" b"', "uid=007",
]  # fmt: skip


@given(st.lists(st.sampled_from(_PARTS), max_size=14).map("".join))
def test_lines_are_read_as_ase_reads_them(line: str) -> None:
    try:
        theirs = key_val_str_to_dict(line)
    except (ValueError, IndexError):
        assume(False)
    try:
        ours = read_comment(line)
    except ValueError as error:
        if str(error).startswith("expected one value of") or "put the value in quotes" in str(error):
            return  # what is refused on purpose
        raise
    # ASE forgets what is empty, and lets it swallow the key after it; an empty line is one empty key.
    assume(not any(isinstance(value, np.ndarray) and not value.size for value in theirs.values()))
    assume(not any(empty in line.replace("\\" * 2, "") for empty in ('""', "''", "{}", "[]")) and line.strip())
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert type(ours[key]) is type(value) or isinstance(value, list), key
        np.testing.assert_array_equal(ours[key], value, err_msg=key)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('config_type="" charge=2', {"config_type": "", "charge": 2}),
        ("config_type='' charge=2 m=[1, 2]", {"config_type": "", "charge": 2, "m": [1, 2]}),
        ("E = -2 smiles=C=O", {"E": -2, "smiles": "C=O"}),
        ("id=1234567890123456789", {"id": 1234567890123456789}),
        ("id=18446744073709551615", {"id": 18446744073709551615}),
        ("id=184467440737095516150", {"id": "184467440737095516150"}),
        ("run=2024_01", {"run": "2024_01"}),
        ("a=1 a=1", {"a": 1}),
    ],
)
def test_what_ase_would_change_is_kept(line: str, expected: dict[str, object]) -> None:
    found = read_comment(line)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.array_equal(found[key], value), key


@pytest.mark.parametrize("line", ["config_type= charge=2", "smiles = C=O", "a = b c= d=e"])
def test_an_empty_value_and_one_with_an_equals_sign_are_not_told_apart_by_guessing(line: str) -> None:
    with pytest.raises(ValueError, match="put the value in quotes"):
        read_comment(line)


@pytest.mark.parametrize("pbc", ["FFF", "TFT", "no", "none", "f", "2", '"1 0"', '"T F"', "0.5"])
def test_a_pbc_that_is_not_truth_values_is_refused(pbc: str) -> None:
    with pytest.raises(ValueError, match="pbc: expected T or F"):
        read_comment(f"pbc={pbc}")


@pytest.mark.parametrize(
    ("text", "pbc"), [("F", False), ('"T F T"', [True, False, True]), ('"1 0 0"', [True, False, False])]
)
def test_a_pbc_of_truth_values_is_read(text: str, pbc: object) -> None:
    assert np.array_equal(read_comment(f"pbc={text}")["pbc"], pbc)


_FRAME = (
    "2\nProperties=species:S:1:pos:R:3:forces:R:3{more} energy={energy} {keys}\n"
    "H 0 0 0 0 0 0.1{value}\nH 0 0 {z} 0 0 -0.1{value}\n"
)
#: A column that only ASE's parser reads, or none.
_WAYS = pytest.mark.parametrize(
    "way", [{"more": "", "value": ""}, {"more": ":tag:I:1", "value": " 1"}], ids=["fast", "ase"]
)


def frame(z: float, energy: object, keys: str, way: dict[str, str]) -> str:
    return _FRAME.format(z=z, energy=energy, keys=keys, **way)


@_WAYS
@pytest.mark.parametrize("blank", ["\n", "  \n\t\n"])
@pytest.mark.parametrize("workers", [1, 2])
def test_blank_lines_between_frames_lose_nothing(tmp_path: Path, way: dict[str, str], blank: str, workers: int) -> None:
    texts = [frame(0.7 + 0.01 * i, -i, "", way) for i in range(5)]
    (tmp_path / "a.xyz").write_text(blank + "".join(texts[:2]) + blank + "".join(texts[2:]) + blank)
    ml.import_files(tmp_path / "a.xyz", tmp_path / "s.zarr", workers=workers, batch_samples=2)
    assert ml.open(tmp_path / "s.zarr").snapshot().read().energy.tolist() == [0, -1, -2, -3, -4]


@_WAYS
@pytest.mark.parametrize(
    ("rest", "problem"),
    [
        ("\ngarbage\n", "number of atoms in the first line, got 'garbage'"),
        ("2.5\nx\n", "got '2.5'"),
        (_FRAME.format(z=0.9, energy="-1 energy=-2", keys="", more="", value=""), "'energy', got '-1' and '-2'"),
        (_FRAME.format(z=0.9, energy=-1, keys='Lattice="9 0 0 0 9 0 0 0 9" pbc=FFF', more="", value=""), "pbc: expected"),
        (_FRAME.format(z=0.9, energy=-1, keys='Lattice="9 0 0 0 9 0 0 0 9" stress="1 2 3 5 1 6 7 8 1"', more="", value=""),
         "stress: expected a symmetric matrix"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_and_stores_nothing(
    tmp_path: Path, way: dict[str, str], rest: str, problem: str
) -> None:
    (tmp_path / "a.xyz").write_text(frame(0.7, -1, "", way) + rest)
    with pytest.raises(DataError, match=f"frame 1.*{problem}"):
        ml.import_files(tmp_path / "a.xyz", tmp_path / "s.zarr")
    assert not (tmp_path / "s.zarr").exists()


@_WAYS
def test_text_of_another_encoding_is_refused(tmp_path: Path, way: dict[str, str]) -> None:
    (tmp_path / "a.xyz").write_bytes(frame(0.7, -1, "name=café", way).encode("latin-1"))
    with pytest.raises(DataError, match=r"frame 0.*utf-8"):
        ml.import_files(tmp_path / "a.xyz", tmp_path / "s.zarr")


@_WAYS
def test_an_empty_value_leaves_the_next_key_alone(tmp_path: Path, way: dict[str, str]) -> None:
    text = frame(
        0.74, -31, 'Lattice="9 0 0 0 9 0 0 0 9" config_type="" pbc="F F F" charge=2 id=1234567890123456789', way
    )
    (tmp_path / "a.xyz").write_text(text.replace("H 0 0 0 ", "Na 0 0 0 ").replace("H 0 0 0.74", "Cl 0 0 0.74"))
    ml.import_files(tmp_path / "a.xyz", tmp_path / "s.zarr", columns=["config_type", "id"])
    batch = ml.open(tmp_path / "s.zarr").snapshot().read()
    assert batch.charge.tolist() == [2]
    assert not batch.pbc.any()
    assert list(batch.strings("config_type")) == [""]
    assert batch.columns["id"].tolist() == [1234567890123456789]


@_WAYS
@pytest.mark.parametrize("name", ["stress", "dft_stress"])
def test_both_halves_of_a_stress_count_alike(tmp_path: Path, way: dict[str, str], name: str) -> None:
    keys = f'Lattice="5 0 0 0 5 0 0 0 5" {name}="1e-2 2e-3 3e-3 2.01e-3 1e-2 4e-3 3e-3 4e-3 1e-2"'
    (tmp_path / "a.xyz").write_text(frame(0.74, -31, keys, way))
    ml.import_files(tmp_path / "a.xyz", tmp_path / "s.zarr", keys={"stress": name})
    stress = ml.open(tmp_path / "s.zarr").snapshot().read().stress
    np.testing.assert_allclose(stress, [[1e-2, 1e-2, 1e-2, 4e-3, 3e-3, 2.005e-3]], rtol=1e-6)

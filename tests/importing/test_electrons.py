"""Charge and multiplicity: from every name and place in use, or a refusal, never 0 and 1 by silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect

import mlffstore as ml
from mlffstore.data import electrons
from mlffstore.errors import DataError
from tests.samples import labelled

if TYPE_CHECKING:
    from pathlib import Path


def ammonium(**info: Any) -> Atoms:
    """Return NH3 with labels and what `info` says of it (9 or 10 electrons)."""
    atoms = molecule("NH3")
    atoms.info.update(info)
    return labelled(atoms, -10.0, np.zeros((4, 3)))


def stored(path: Path, frames: list[Atoms], **options: Any) -> tuple[list[int], list[int]]:
    """Import frames and return charges and multiplicities."""
    ase.io.write(path / "a.extxyz", frames)
    ml.import_files(path / "a.extxyz", path / "s", **options)
    batch = ml.open(path / "s").snapshot().read()
    return batch.charge.tolist(), batch.multiplicity.tolist()


@pytest.mark.parametrize("charge", ["charge", "total_charge", "Charge", "net_charge", "tot-charge", "molecular_charge"])
@pytest.mark.parametrize("spin", ["multiplicity", "mult", "spin", "total_spin", "spin_multiplicity", "Multiplicity"])
def test_names_in_use(tmp_path: Path, charge: str, spin: str) -> None:
    assert stored(tmp_path, [ammonium(**{charge: 1, spin: 4})]) == ([1], [4])
    batch = ml.SampleBatch.from_ase([ammonium(**{charge: 1, spin: 4})])  # appending knows the same names
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([1], [4])


def test_unpaired_electrons(tmp_path: Path) -> None:
    assert stored(tmp_path, [ammonium(charge=-1, uhf=1)]) == ([-1], [2])
    (tmp_path / "b").mkdir()
    assert stored(tmp_path / "b", [ammonium(spin=0), ammonium(charge=1, spin=1)], spin="unpaired") == ([0, 1], [1, 2])


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"charge": 0.5}, "whole number as charge, got '0.5'"),
        ({"total_charge": "plus"}, "whole number as total_charge"),
        ({"charge": 1, "total_charge": 2}, "got 1 as charge and 2 as total_charge"),
        ({"spin": 0}, "spin='unpaired'"),
        ({"multiplicity": 0}, "multiplicity of at least 1"),
        ({"mult": -3}, "multiplicity of at least 1"),
        ({"multiplicity": 2}, "10 electrons .charge 0. forbid the multiplicity 2"),
        ({"charge": 1, "multiplicity": 1}, "9 electrons"),
        ({"charge": 11}, "leaves -1 electrons"),
        ({"charge": 0, "multiplicity": 13}, "forbid the multiplicity 13"),
        ({"charge": 40000}, "whole number as charge"),
    ],
)
def test_impossible_states_are_refused(tmp_path: Path, info: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        stored(tmp_path, [ammonium(), ammonium(**info)])
    assert not (tmp_path / "s").exists()


def test_crystals_may_have_any_multiplicity_from_one_on(tmp_path: Path) -> None:
    iron = bulk("Fe")
    iron.info["spin"] = 2
    assert stored(tmp_path, [labelled(iron, -8.0, np.zeros((1, 3)))]) == ([0], [2])
    iron.info["spin"] = 0
    with pytest.raises(DataError, match="got 0"):
        ml.SampleBatch.from_ase([iron])
    batch = ml.SampleBatch(n_atoms=[1], numbers=[26], positions=np.zeros((1, 3)), multiplicity=[0])
    with pytest.raises(DataError, match="multiplicity 2S"):
        ml.create(tmp_path / "t").append(batch, require=())


def test_keys_and_constants(tmp_path: Path) -> None:
    frames = [ammonium(q=1), ammonium(q=-1)]
    with pytest.raises(DataError, match="expected 'Q' to hold the charge"):
        stored(tmp_path, frames, keys={"charge": "Q"})
    assert stored(tmp_path, frames, keys={"charge": "q"}) == ([1, -1], [2, 2])
    for folder in "bcd":
        (tmp_path / folder).mkdir()
    assert stored(tmp_path / "b", [ammonium(), ammonium(charge=1)], charge=-1) == ([-1, 1], [2, 2])
    assert stored(tmp_path / "c", [ammonium(spin=0)], keys={"multiplicity": None}) == ([0], [1])
    assert stored(tmp_path / "d", [ammonium()], multiplicity=3) == ([0], [3])


def test_none_is_no_charge(tmp_path: Path) -> None:
    frame = ammonium(charge=None, multiplicity=None)
    batch = ml.SampleBatch.from_ase([frame, ammonium(charge=1)])
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([0, 1], [1, 2])


@pytest.mark.parametrize("place", ["data", "key_value_pairs"])
@pytest.mark.parametrize("suffix", ["db", "json"])
def test_databases(tmp_path: Path, place: str, suffix: str) -> None:
    state = {"total_charge": -1, "spin": 2}
    with connect(tmp_path / f"a.{suffix}") as database:
        for _ in range(3):
            database.write(ammonium(), **({"data": state} if place == "data" else state))
    report = ml.import_files(tmp_path / f"a.{suffix}", tmp_path / "s")
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([-1] * 3, [2] * 3)
    uses = {use.name: (use.place, use.fate, use.column, use.samples) for use in report.keys}
    assert uses["total_charge"] == (place, "renamed", "charge", 3)


def test_which_names_mean_what() -> None:
    assert electrons.role("charges") is None  # of the atoms
    assert electrons.role(3) is None
    assert electrons.forbidden(8, 0, 3) == ""  # O: triplet
    assert "forbid" in electrons.forbidden(8, 0, 2)
    assert electrons.forbidden(1, 1, 1) == ""  # a bare proton

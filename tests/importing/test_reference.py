"""Which of several labels is the reference: never chosen in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.spelling import label_of
from tests.samples import metal_frames

if TYPE_CHECKING:
    from pathlib import Path


def predicted(n: int, shift: float = 0.5) -> list[Atoms]:
    """Return frames whose results are a model's, with the reference beside them."""
    frames = metal_frames(n)
    for frame in frames:
        frame.info["REF_energy"] = frame.calc.results["energy"] + shift
        frame.arrays["REF_forces"] = frame.calc.results["forces"] + shift
        frame.info["REF_stress"] = frame.calc.results["stress"] + shift * 1e-3
    return frames


def test_a_prediction_beside_the_reference_is_refused(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", predicted(5))
    with pytest.raises(DataError) as caught:
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    text = str(caught.value)
    assert "'REF_energy' and 'energy' both look like the energy" in text
    assert "keys={'forces': 'REF_forces'} or keys={'forces': 'forces'}" in text
    assert "frame 0, frame 1, frame 2 and 2 more" in text  # once, not for each frame
    with pytest.raises(DataError, match="REF_stress"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys={"energy": "energy", "forces": "forces"})
    with pytest.raises(DataError, match="REF_energy"):  # what the user named does not settle the others
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys={"forces": "REF_forces", "stress": "stress"})
    keys = {"energy": "REF_energy", "forces": "REF_forces", "stress": "stress"}
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys=keys)
    frames, batch = predicted(5), ml.open(tmp_path / "s").snapshot().read()
    np.testing.assert_allclose(batch.energy, [frame.info["REF_energy"] for frame in frames], atol=1e-7)
    np.testing.assert_allclose(batch.stress[0], frames[0].calc.results["stress"], atol=1e-7)
    fates = {use.name: use.fate for use in report.keys}
    assert fates["REF_energy"] == "renamed"
    assert fates["energy"] == fates["REF_stress"] == "left out"


def test_a_virial_beside_another_stress(tmp_path: Path) -> None:
    frames = metal_frames(2)
    for frame in frames:
        frame.info["REF_virial"] = -frame.get_stress(voigt=False) * frame.get_volume()
    ase.io.write(tmp_path / "a.extxyz", frames)
    assert ml.import_files(tmp_path / "a.extxyz", tmp_path / "s").samples == 2  # the same, written as a virial
    for frame in frames:
        frame.info["REF_virial"] = frame.info["REF_virial"] + np.eye(3)
    ase.io.write(tmp_path / "b.extxyz", frames)
    with pytest.raises(DataError, match=r"keys=\{'virial': 'REF_virial'\} or keys=\{'stress': 'stress'\}"):
        ml.import_files(tmp_path / "b.extxyz", tmp_path / "s")
    ml.import_files(tmp_path / "b.extxyz", tmp_path / "t", keys={"virial": "REF_virial"}, check_stress=False)
    ours, volume = ml.open(tmp_path / "t").snapshot().read().stress[0], frames[0].get_volume()
    expected = frames[0].get_stress() - np.array([1, 1, 1, 0, 0, 0]) / volume
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_equal_values_are_no_conflict(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", predicted(2, shift=0.0))
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    assert report.warnings == ()
    assert {use.note for use in report.keys if use.fate == "left out"} == {
        "same as energy", "same as forces", "same as stress",
    }  # fmt: skip


def test_a_key_that_no_sample_has(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", metal_frames(2))
    with pytest.raises(DataError, match="keys: expected 'REF_stres' to hold the stress"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys={"stress": "REF_stres"})
    assert not (tmp_path / "s").exists()


def test_two_names_for_one_label_in_order(tmp_path: Path) -> None:
    frames = metal_frames(4)
    for i, frame in enumerate(frames):
        results = frame.calc.results
        frame.calc = None
        frame.info["REF_energy"] = results["energy"]
        frame.arrays[("REF_forces", "force")[i % 2]] = results["forces"]
    frames[0].arrays["force"] = frames[0].arrays["REF_forces"] + 1
    ase.io.write(tmp_path / "a.extxyz", frames)
    keys: dict[str, Any] = {"energy": "REF_energy", "forces": ["REF_forces", "force"]}
    ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys=keys)
    ours, theirs = ml.open(tmp_path / "s").snapshot(), metal_frames(4)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine.get_forces(), other.get_forces(), atol=1e-6)  # extxyz has 8 decimals
    with pytest.raises(DataError, match=r"keys=\{'forces': \('REF_forces', 'force'\)\}"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", keys=keys | {"forces": "REF_forces"})
    with pytest.raises(DataError, match="several in order"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", keys={"forces": []})


def test_a_single_atom_needs_no_forces(tmp_path: Path) -> None:
    frames = metal_frames(2)
    lone = Atoms("Cu", info={"config_type": "IsolatedAtom"})
    lone.calc = SinglePointCalculator(lone, energy=-0.2)
    ase.io.write(tmp_path / "a.extxyz", [lone, *frames])
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    assert any("1 samples of a single atom have no forces" in warning for warning in report.warnings)
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert np.isnan(batch.forces[0]).all()
    assert not np.isnan(batch.forces[1:]).any()


def test_what_looks_like_a_label() -> None:
    yes = {
        "REF_energy": "energy",
        "dft-total-energy": "energy",
        "pbeEnergy": "energy",
        "mace_forces": "forces",
        "virials": "virial",
    }
    for name, label in yes.items():
        assert label_of(name) == label, name
    for name in (
        "energy_per_atom", "formation_energy", "free_energy", "energy_unit", "forces_weight", "atomic_energies",
        "energy_std", "stresses", "has_energy_flag", "config_type", "dipole", "e_above_hull_energy",
    ):  # fmt: skip
        assert label_of(name) is None, name

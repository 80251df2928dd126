"""Files that ASE reads: values, keys, units, roots, errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms, units

import mlffstore as ml
from mlffstore.errors import DataError, StoreExistsError, UnitError
from tests.samples import metal_frames, mixed_frames, molecule_frames

if TYPE_CHECKING:
    from pathlib import Path


def frames_of(store: Path) -> list[Atoms]:
    return list(ml.open(store).snapshot())


@pytest.mark.parametrize("name", ["mlearn_Li_training", "mlearn_Mo_test", "mlearn_Si_training"])
def test_mlearn_files_arrive_unchanged(real: Path, tmp_path: Path, name: str) -> None:
    path = real / f"{name}.extxyz"
    frames = ase.io.read(path, ":")
    samples, atoms = len(frames), sum(map(len, frames))
    seen: list[int] = []
    report = ml.import_files(path, tmp_path / "s", batch_samples=10, progress=seen.append)
    assert (report.samples, report.atoms, report.skipped) == (samples, atoms, 0)
    names = ("config_type", "source_description")
    told = (f"{name} (text in {samples} samples, columns={{'{name}': '1'}} keeps it)" for name in names)
    assert report.warnings == (f"left out: {'; '.join(told)}",)
    assert len(seen) == -(-samples // 10)
    assert len(report.versions) == 1  # a file is one commit
    assert seen[-1] == samples
    snap = ml.open(tmp_path / "s").snapshot()
    assert snap.teachers == ("dft",)
    for ours, theirs in zip(snap, ase.io.iread(path), strict=True):
        assert ours.numbers.tolist() == theirs.numbers.tolist()
        assert abs(ours.get_potential_energy() - theirs.get_potential_energy()) < 1e-9  # float64 on both sides
        # float32 rounds to 6e-8 of the value; positions reach 30 A and forces 10 eV/A
        np.testing.assert_allclose(ours.positions, theirs.positions, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), rtol=1e-7, atol=1e-9)
        assert np.array_equal(ours.cell, theirs.cell)
        assert ours.pbc.all()


@pytest.mark.parametrize("suffix", ["traj", "db", "extxyz"])
def test_ase_formats_keep_labels_and_stress(tmp_path: Path, suffix: str) -> None:
    frames = mixed_frames(12)
    path = tmp_path / f"frames@1.{suffix}"  # "@" in a name is no range of frames
    ase.io.write(tmp_path / f"frames.{suffix}", frames)
    (tmp_path / f"frames.{suffix}").rename(path)
    ml.import_files(path, tmp_path / "s", teacher="emt", create_options={"precision": "float64"})
    for ours, theirs in zip(frames_of(tmp_path / "s"), frames, strict=True):
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-7)  # extxyz has 8 decimals
        np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), rtol=1e-6, atol=1e-7)
        assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-7)
        assert ours.pbc.tolist() == theirs.pbc.tolist()
        if theirs.pbc.any():
            np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), rtol=1e-6, atol=1e-8)


def renamed(frames: list[Atoms], *, virial: bool = True) -> list[Atoms]:
    """Return frames whose labels are under the names that MACE's and QUIP's users choose."""
    out = []
    for frame in frames:
        bare = Atoms(frame.numbers, frame.positions, cell=frame.cell, pbc=frame.pbc)
        bare.info["REF_energy"] = frame.get_potential_energy()
        bare.arrays["REF_forces"] = frame.get_forces()
        if virial:
            bare.info["virials"] = -frame.get_stress(voigt=False) * frame.get_volume()
        out.append(bare)
    return out


def test_labels_under_other_names_are_asked_for_and_found(tmp_path: Path) -> None:
    frames = metal_frames(4)
    ase.io.write(tmp_path / "a.extxyz", renamed(frames))
    with pytest.raises(DataError) as caught:
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    text = str(caught.value)
    assert "a.extxyz, frame 0" in text
    assert "keys={'energy': 'REF_energy', 'forces': 'REF_forces'}" in text
    assert "nothing was stored" in text
    assert not (tmp_path / "s").exists()
    keys = {"energy": "REF_energy", "forces": "REF_forces"}
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", keys=keys)
    assert "keys={'virial': 'virials'} takes it" in report.warnings[0]
    ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", keys=keys | {"virial": "virials"})
    for ours, theirs in zip(frames_of(tmp_path / "s"), frames, strict=True):
        np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), rtol=1e-5, atol=1e-8)
        assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-7)


def test_six_numbers_are_no_virial(tmp_path: Path) -> None:
    frames = renamed(metal_frames(1))
    frames[0].info["virials"] = np.arange(6.0)
    ase.io.write(tmp_path / "a.extxyz", frames)
    with pytest.raises(DataError, match="write all nine"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", require=(), keys={"virial": "virials"})


def test_units_are_converted(tmp_path: Path) -> None:
    frames, atomic = metal_frames(8), []
    for frame in frames:
        other = Atoms(frame.numbers, frame.positions / units.Bohr, cell=frame.cell / units.Bohr, pbc=True)
        other.info["energy"] = frame.get_potential_energy() / units.Hartree
        other.info["stress"] = frame.get_stress(voigt=False) / units.GPa
        other.arrays["forces"] = frame.get_forces() / units.Hartree * units.Bohr
        atomic.append(other)
    ase.io.write(tmp_path / "a.extxyz", atomic)
    given = {"energy": "hartree", "forces": "hartree/bohr", "positions": "bohr", "stress": "GPa"}
    ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", units=given)
    for ours, theirs in zip(frames_of(tmp_path / "s"), frames, strict=True):
        # extxyz writes 8 decimals: 1e-8 of a hartree or bohr, and float32 in the store
        np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-6)
        np.testing.assert_allclose(ours.cell, theirs.cell, atol=1e-6)
        np.testing.assert_allclose(ours.get_forces(), theirs.get_forces(), atol=1e-6)
        np.testing.assert_allclose(ours.get_stress(), theirs.get_stress(), atol=1e-7)
        assert ours.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-6)
    with pytest.raises(UnitError, match="furlong"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", units={"positions": "furlong"})


def roots(store: Path) -> list[int]:
    return ml.open(store).snapshot().read().root.tolist()


def test_roots(tmp_path: Path) -> None:
    frames = molecule_frames(10)
    for i, frame in enumerate(frames):
        frame.info["seed"] = i % 2
    ase.io.write(tmp_path / "a.extxyz", frames)
    ase.io.write(tmp_path / "b.extxyz", frames[5:])
    files = [tmp_path / "a.extxyz", tmp_path / "b.extxyz"]
    ml.import_files(files[:1], tmp_path / "sample")
    assert len(set(roots(tmp_path / "sample"))) == 10
    ml.import_files(files, tmp_path / "file", root="file", batch_samples=4)
    found, hashes = roots(tmp_path / "file"), ml.open(tmp_path / "file").snapshot().read().content_hash
    assert found == [hashes[0]] * 10 + [hashes[10]] * 5
    ml.import_files(files, tmp_path / "info", root="info:seed", batch_samples=4)
    found = roots(tmp_path / "info")
    seeds = [f.info["seed"] for f in [*frames, *frames[5:]]]
    assert len(set(zip(seeds, found, strict=True))) == len(set(found)) == 2  # whatever the formula, across files
    with pytest.raises(DataError, match=r"expected info\['nobody'\] to name the root"):
        ml.import_files(files, tmp_path / "no", root="info:nobody")
    del frames[3].info["seed"]
    ase.io.write(tmp_path / "c.extxyz", frames)
    report = ml.import_files(tmp_path / "c.extxyz", tmp_path / "some", root="info:seed")
    assert any("1 samples have no 'seed'" in text for text in report.warnings)
    assert len(set(roots(tmp_path / "some"))) == 3


def test_errors_name_file_and_frame_and_what_was_stored(tmp_path: Path) -> None:
    frames = metal_frames(10)
    frames[7].positions[2, 1] = np.nan
    ase.io.write(tmp_path / "a.extxyz", frames)
    for size in (2048, 3):
        with pytest.raises(DataError, match=r"a\.extxyz, frame 7: expected finite positions(.|\n)*nothing was stored"):
            ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", batch_samples=size)
        assert not (tmp_path / "s").exists()
    lines = (tmp_path / "a.extxyz").read_text().splitlines()
    (tmp_path / "cut.extxyz").write_text("\n".join(lines[:-2]) + "\n")
    with pytest.raises(DataError, match=r"cut\.extxyz, frame \d"):
        ml.import_files(tmp_path / "cut.extxyz", tmp_path / "t")
    (tmp_path / "empty.extxyz").write_text("")
    with pytest.raises(DataError, match=r"empty\.extxyz"):
        ml.import_files(tmp_path / "empty.extxyz", tmp_path / "t")


def test_unlikely_labels_are_remarked_on(tmp_path: Path) -> None:
    frames = molecule_frames(3)
    frames[1].calc.results["forces"][0] = 2000.0
    ase.io.write(tmp_path / "a.extxyz", frames)
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    assert len(report.warnings) == 1
    assert "frame 1: a force of 3.46e+03 eV/A" in report.warnings[0]


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"root": "seed"}, "info:KEY"),
        ({"keys": {"dipole": "d"}}, "keys"),
        ({"units": {"dipoles": "D"}}, "units"),
        ({"units": {"dipole": "eV"}}, "another quantity"),
        ({"spin": "2S"}, "spin"),
        ({"on_error": "ignore"}, "on_error"),
        ({"on_duplicate": "drop"}, "on_duplicate"),
        ({"elements": ("O",)}, "elements"),
        ({"elements": ("Ox",)}, "elements"),
        ({"multiplicity": 0}, "multiplicity"),
        ({"keys": {"stress": "s", "virial": "v"}}, "both"),
        ({"stress_sign": "up"}, "tension"),
        ({"require": ("dipoles",)}, "require"),
        ({"batch_samples": 0}, "batch_samples"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, object], word: str) -> None:
    ase.io.write(tmp_path / "a.extxyz", molecule_frames(1))
    with pytest.raises(DataError, match=word):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", **options)
    with pytest.raises(DataError, match="absent"):
        ml.import_files(tmp_path / "absent.xyz", tmp_path / "s")


def test_a_store_keeps_its_precision(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", molecule_frames(2))
    ml.create(tmp_path / "s", precision="float64")
    with pytest.raises(StoreExistsError):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", create_options={"precision": "float32"})
    ml.import_files(tmp_path / "a.extxyz", ml.open(tmp_path / "s", mode="a"))
    assert ml.open(tmp_path / "s").snapshot().read().positions.dtype == np.float64

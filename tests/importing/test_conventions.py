"""Presets, splits that came with the data, sources by key, trajectories, archives."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing import packed
from tests.samples import metal_frames, molecule_frames

if TYPE_CHECKING:
    from pathlib import Path


def mace_frames() -> list[Atoms]:
    frames = molecule_frames(6)
    for i, frame in enumerate(frames):
        frame.info |= {"REF_energy": frame.get_potential_energy(), "split": ("train", "valid", "test")[i % 3]}
        frame.info |= {"total_charge": 0, "origin": f"o{i % 2}"}
        frame.arrays["REF_forces"] = frame.get_forces()
        frame.calc = None
    return frames


def test_a_preset_is_proposed_and_never_applied(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", mace_frames())
    with pytest.raises(DataError, match=r"REF_energy(.|\n)*or preset='mace'"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", preset="mace")  # there is no stress: fine
    assert {(use.name, use.column) for use in report.keys if use.fate == "renamed"} >= {
        ("REF_energy", "energy"), ("REF_forces", "forces"), ("total_charge", "charge"),
    }  # fmt: skip
    with pytest.raises(DataError, match="preset: expected one of mace"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", preset="vasp")


def test_splits_and_sources_by_key(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", mace_frames())
    ml.import_files(tmp_path / "a.extxyz", tmp_path / "s", preset="mace", split="key", source="info:origin")
    snap = ml.open(tmp_path / "s").snapshot()
    assert snap.split_codes().tolist() == [0, 1, 2, 0, 1, 2]
    assert snap.read().source == ["o0", "o1"] * 3
    ase.io.write(tmp_path / "my_valid.xyz", metal_frames(4))
    ml.import_files(tmp_path / "my_valid.xyz", tmp_path / "t", split="file")
    assert ml.open(tmp_path / "t").snapshot().split_codes().tolist() == [1] * 4
    with pytest.raises(DataError, match="name of one split"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "u", split="file", preset="mace")
    with pytest.raises(DataError, match=r"'origin': expected a split"):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "u", split="info:origin", preset="mace")


def test_trajectories_are_recognised(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    atoms, path = molecule("CH3CH2OH"), []
    for _ in range(40):
        atoms = atoms.copy()
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
        path.append(atoms)
    ase.io.write(tmp_path / "md.extxyz", path)
    report = ml.import_files(tmp_path / "md.extxyz", tmp_path / "s", require=(), batch_samples=7)
    text = next(text for text in report.warnings if "trajectory" in text)
    assert "39 of 39 neighbours" in text
    codes = ml.open(tmp_path / "s").snapshot().split_codes()
    assert f"{(np.diff(codes.astype(int)) != 0).mean():.0%} of these" in text
    assert "root='file'" in text
    assert not ml.import_files(tmp_path / "md.extxyz", tmp_path / "t", require=(), root="file").warnings
    ase.io.write(tmp_path / "set.extxyz", [molecule(name) for name in ("H2O", "CH4", "C6H6", "NH3") * 10])
    assert not ml.import_files(tmp_path / "set.extxyz", tmp_path / "u", require=()).warnings


def test_archives(tmp_path: Path) -> None:
    ase.io.write(tmp_path / "a.extxyz", metal_frames(3))
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(tmp_path / "a.extxyz", "../../../outside.extxyz")  # its place is not taken from its name
        archive.writestr("data/README.md", "what it is")
        archive.writestr("__MACOSX/._a.extxyz", "x")
    before = sorted(tmp_path.parent.iterdir())
    report = ml.import_files(tmp_path / "z.zip", tmp_path / "s")
    assert report.samples == 3
    assert any(
        "left out, since they hold no structures that can be read: README.md" in text for text in report.warnings
    )
    assert sorted(tmp_path.parent.iterdir()) == before
    with zipfile.ZipFile(tmp_path / "n.zip", "w") as archive:
        archive.writestr("README.md", "nothing else")
    with pytest.raises(DataError, match=r"n\.zip"):
        ml.import_files(tmp_path / "n.zip", tmp_path / "s")
    (tmp_path / "b.zip").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"b\.zip: expected a compressed file"):
        ml.import_files(tmp_path / "b.zip", tmp_path / "s")


def test_files_that_unpack_to_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "FREE_NBYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.traj", bytes(8 << 20))
    with pytest.raises(DataError, match=r"z\.zip: expected data, got a file that unpacks to more than"):
        ml.import_files(tmp_path / "z.zip", tmp_path / "s")

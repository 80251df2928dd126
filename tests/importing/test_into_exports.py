"""Files go through every importer and every exporter: each field of the file is in the export, or named as left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.units import factor
from tests.exporters.readers import read_layout
from tests.importing import test_fields

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

FORMATS = ("extxyz", "traj", "db", "json", "aselmdb", "hdf5")
LAYOUTS = ("hdf5", "extxyz", "aselmdb", "mace", "concatenated")
STATE = {name: what for what, names in test_fields._STATE.items() for name in names}


def write(path: Path, given: list[Atoms]) -> list[dict[str, Any]]:
    """Write frames into a file of the format of its suffix; return the fields that the file has of each."""
    if path.suffix == ".traj":  # ASE writes no other arrays
        for atoms in given:
            atoms.arrays = {name: atoms.arrays[name] for name in ("numbers", "positions")}
    if path.suffix == ".hdf5":
        return [write_group(path, i, atoms) for i, atoms in enumerate(given)]
    test_fields.write(path, given, "data")
    return [test_fields.held(atoms, database=path.suffix in (".db", ".json", ".aselmdb")) for atoms in given]


def write_group(path: Path, i: int, atoms: Atoms) -> dict[str, Any]:
    """Write a frame as a molecule with one conformation into a file in SPICE's layout."""
    atoms.set_constraint()
    atoms.pbc, atoms.cell = False, np.zeros((3, 3))
    fields = test_fields.held(atoms, database=False)
    bohr, hartree = factor("positions", "bohr"), factor("energy", "hartree")
    with h5py.File(path, "a") as file:
        group = file.create_group(f"{i:03d}")
        group["atomic_numbers"], group["conformations"] = atoms.numbers, atoms.positions[None] / bohr
        for name, value in fields.items():
            if name == "energy":
                group["dft_total_energy"] = [value / hartree]
            elif name == "forces":
                group["dft_total_gradient"] = -value[None] / (hartree / bohr)
            else:
                group[name] = value if isinstance(value, str) or name in STATE else np.asarray(value)[None]
    return fields


def same(found: Any, expected: Any) -> bool:
    a, b = np.asarray(found), np.asarray(expected)
    if a.size == 9 and b.size == 6:  # a stress
        a = a.reshape(-1)[[0, 4, 8, 5, 2, 1]]
    # Extended XYZ writes eight decimals, and labels of atoms are float32.
    return a.size == b.size and np.allclose(a.reshape(-1), b.reshape(-1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("suffix", FORMATS)
def test_every_field_arrives_or_is_named(
    suffix: str, layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if "aselmdb" in (suffix, layout):
        pytest.importorskip("ase_db_backends")
    rng = np.random.default_rng([FORMATS.index(suffix), LAYOUTS.index(layout)])
    given = test_fields.frames(rng, 16)
    fields = write(tmp_path / f"a.{suffix}", given)
    numbers = {"weight", "step", "site", "velocity", "dipole", "magmoms"} & {name for one in fields for name in one}
    columns = sorted(name for name in numbers if rng.random() < 0.6)
    report = ml.import_files(
        tmp_path / f"a.{suffix}", tmp_path / "s", require=(), columns=columns, create_options={"precision": "float64"}
    )
    snap = ml.open(tmp_path / "s").snapshot()
    roots = [f"{root:016x}" for root in snap.read().root.tolist()]
    exported = read_layout(layout, ml.get_exporter(layout)(snap, tmp_path / "out.h5"))
    left = {use.name for use in report.keys if use.fate == "left out"}
    unwritten = " ".join(message for message in caplog.messages if "left out" in message)
    for atoms, root, one in zip(given, roots, fields, strict=True):
        labels = {"energy", "forces", "stress"} & one.keys() - left
        if not labels | ({"dipole", "magmoms"} & one.keys() - left - set(columns)):
            assert root not in exported
            continue
        out = exported[root]
        assert same(out["numbers"], atoms.numbers)
        assert same(out["positions"], atoms.positions)
        assert same(out["cell"], atoms.cell.array if atoms.pbc.any() else np.zeros((3, 3)))
        assert same(out["pbc"], atoms.pbc)
        assert {"energy", "forces", "stress"} & out.keys() == labels, "a label that nobody gave, or one is lost"
        for name, value in one.items():
            if name in left and name not in columns:
                continue
            stored = STATE.get(name, name)
            assert (stored in out and same(out[stored], value)) or f"{stored} (" in unwritten, (name, value)
        charge = next((int(value) for name, value in one.items() if STATE.get(name) == "charge"), 0)
        assert out["charge"] == charge

"""Bad input gets one clear error that names the remedy, and the store stays as it was, byte for byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase import Atoms

import mlffstore as ml
from mlffstore import errors
from mlffstore.data import rules, units
from tests.samples import labelled, metal_frames, molecule_frames

if TYPE_CHECKING:
    from pathlib import Path


def frame(**changes) -> Atoms:
    atoms = metal_frames(1)[0]
    atoms.calc.results.update(changes)
    return atoms


def without(name: str) -> Atoms:
    atoms = metal_frames(1)[0]
    del atoms.calc.results[name]
    return atoms


def no_cell() -> Atoms:
    atoms = metal_frames(1)[0]
    labels = atoms.calc.results
    bare = Atoms(atoms.numbers, atoms.positions, pbc=True)
    return labelled(bare, labels["energy"], labels["forces"])


def flat_cell() -> Atoms:
    atoms = no_cell()
    atoms.set_cell([[4.0, 0, 0], [0, 4.0, 0], [4.0, 4.0, 0]])
    return labelled(atoms, atoms.calc.results["energy"], atoms.calc.results["forces"])


def at(position: float) -> Atoms:
    atoms = metal_frames(1)[0]
    atoms.positions[0] = position
    return labelled(atoms, 0.0, np.zeros((len(atoms), 3)))


def batch(**columns):
    arrays = {"n_atoms": [1], "numbers": [1], "positions": [[0.0, 0, 0]], "energy": [0.0], "forces": [[0.0, 0, 0]]}
    return ml.SampleBatch(**{**arrays, **columns})


NAN = float("nan")
CASES = {
    "missing energy": (lambda: [without("energy")], {}, errors.DataError, "sample 0: has no energy; give it"),
    "missing forces": (lambda: [without("forces")], {}, errors.DataError, "sample 0: has no forces; give it"),
    "no labels": (lambda: [Atoms("H")], {}, errors.DataError, r"require=\(\) stores structures to be labelled later"),
    "one without": (
        lambda: [*metal_frames(2), Atoms("H")],
        {},
        errors.DataError,
        "sample 2: has no energy",
    ),
    "NaN energy": (lambda: [frame(energy=NAN)], {}, errors.DataError, "has no energy"),
    "NaN force": (
        lambda: batch(n_atoms=[2], numbers=[1, 1], positions=np.eye(3)[:2], forces=[[NAN, 0, 0], [0, 0, 0]]),
        {},
        errors.DataError,
        "expected finite forces of 'reference', got NaN for part of it",
    ),
    "infinite force": (
        lambda: batch(forces=[[np.inf, 0, 0]]),
        {},
        errors.DataError,
        "expected finite forces of 'reference', got infinity",
    ),
    "wrong force shape": (lambda: [frame(forces=np.zeros((2, 3)))], {}, errors.DataError, "expected forces of shape"),
    "wrong stress shape": (lambda: [frame(stress=np.zeros(4))], {}, errors.DataError, "expected stress of shape"),
    "half a stress": (
        lambda: [frame(stress=np.array([0, 0, 0, NAN, 0, 0]))],
        {},
        errors.DataError,
        "got NaN for part of it",
    ),
    "stress required": (
        lambda: molecule_frames(1),
        {"require": ("energy", "forces", "stress")},
        errors.DataError,
        "has no stress",
    ),
    "negative atom count": (
        lambda: batch(n_atoms=[-1]),
        {},
        errors.DataError,
        "expected at least 1 everywhere, got -1",
    ),
    "element 0": (lambda: batch(numbers=[0]), {}, errors.DataError, "expected atomic numbers from 1 to 118"),
    "element 119": (lambda: batch(numbers=[119]), {}, errors.DataError, "expected atomic numbers from 1 to 118"),
    "pbc without cell": (
        lambda: [no_cell()],
        {},
        errors.DataError,
        "periodic along a direction without a lattice vector",
    ),
    "flat cell": (lambda: [flat_cell()], {}, errors.DataError, "expected a cell with a volume"),
    "NaN position": (lambda: [at(NAN)], {}, errors.DataError, "expected finite positions"),
    "empty": (list, {}, errors.DataError, "expected frames, got none"),
    "not frames": (lambda: ["CO2"], {}, errors.DataError, "expected ase.Atoms"),
    "unknown label": (
        lambda: metal_frames(1),
        {"require": ("energy", "dipoles")},
        errors.DataError,
        "expected labels among energy, forces, stress, .*, got dipoles",
    ),
    "bad teacher name": (lambda: metal_frames(1), {"teacher": "../x"}, errors.DataError, "teacher name: expected"),
    "bad key": (lambda: metal_frames(1), {"key": ""}, errors.DataError, "key: expected a string of 1 to 1024"),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("case", CASES)
def test_bad_samples_change_nothing(case, tmp_path):
    make, options, error, message = CASES[case]
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2))
    before = contents(tmp_path)
    with pytest.raises(error, match=message):
        store.append(make(), **options)
    assert contents(tmp_path) == before
    assert len(store) == 2


def test_every_problem_is_listed():
    atoms = [at(NAN), without("energy"), no_cell()]
    with pytest.raises(errors.DataError) as caught:
        rules.check(ml.SampleBatch.from_ase(atoms))
    assert str(caught.value).count("\n  - sample") == 3


@pytest.mark.parametrize(
    ("column", "unit", "message"),
    [
        ("energy", "calories", "unit of 'energy': expected one of"),
        ("energy", "eV/angstrom", "unit of 'energy': expected one of"),
        ("stress", "eV", "unit of 'stress': expected one of"),
        ("charge", "e", "unit of 'charge': expected one of energy"),
    ],
)
def test_unknown_units_are_refused(column, unit, message):
    with pytest.raises(errors.UnitError, match=message):
        units.convert(column, 1.0, unit)


def test_a_folder_that_is_no_store(tmp_path):
    with pytest.raises(errors.StoreNotFoundError, match=r"make one with ml\.create"):
        ml.open(tmp_path / "absent.zarr")
    with pytest.raises(errors.StoreNotFoundError):
        ml.open(tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(errors.StoreExistsError, match="expected a new or empty folder, got one with other files"):
        ml.create(tmp_path)
    with pytest.raises((errors.StoreExistsError, errors.StoreNotFoundError), match="file"):
        ml.create(tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    with pytest.raises(errors.StorageError, match="expected a local path"):
        ml.open("ftp://host/d.zarr")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{}", "is not an mlffstore store"),
        ("not json", "is not an mlffstore store"),
        ('{"attributes": {}}', "is not an mlffstore store"),
        ("[" * 100_000, "is not an mlffstore store"),
    ],
)
def test_another_zarr_group_is_not_a_store(document, message, tmp_path):
    (tmp_path / "zarr.json").write_text(document)
    with pytest.raises(errors.FormatError, match=message):
        ml.open(tmp_path)


def test_a_future_format_is_refused(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    path = tmp_path / "d.zarr" / "zarr.json"
    document = json.loads(path.read_text())
    document["attributes"]["mlffstore_format"] = 3
    path.write_text(json.dumps(document))
    with pytest.raises(
        errors.FormatError, match="has format version 3, this release reads version 2; upgrade mlffstore"
    ):
        ml.open(store.url)


def test_a_read_only_folder(tmp_path):
    """Permissions mean nothing to root, so a child process without its rights tries."""
    store = ml.create(tmp_path / "d.zarr")
    before = contents(tmp_path)
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o555)
    code = (
        "import os, sys\n"
        "import mlffstore as ml\n"
        "from mlffstore.store.facade import Store\n"
        "batch = ml.SampleBatch(n_atoms=[1], numbers=[1], positions=[[0., 0, 0]], energy=[0.], forces=[[0., 0, 0]])\n"
        "store = ml.open(sys.argv[1], mode='a')\n"
        "import mlffstore.data.rules, mlffstore.format.segment, encodings.idna\n"
        "os.getuid() == 0 and os.setuid(65534)\n"
        "try:\n"
        "    store.append(batch)\n"
        "except ml.errors.ReadOnlyError as error:\n"
        "    print(error)\n"
    )
    # /tmp/... may lie below folders that only root may enter; the child opens the store before it gives up its rights.
    for parent in tmp_path.parents:
        if (
            parent != parent.parent
            and parent.stat().st_uid == os.getuid()
            and ("pytest" in parent.name or "popen" in parent.name)
        ):
            os.chmod(parent, 0o755)
    done = subprocess.run([sys.executable, "-c", code, store.url], capture_output=True, text=True, check=True)
    for folder, _, _ in os.walk(tmp_path):
        os.chmod(folder, 0o755)
    assert "expected a folder that can be written" in done.stdout
    assert "check its owner and permissions" in done.stdout
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("grace", lambda store: store.gc(grace="1h")),
        ("expire_before", lambda store: store.gc(expire_before="1")),
        ("target_nbytes", lambda store: store.compact(target_nbytes="1M")),
        ("flush_samples", lambda store: store.writer("5")),
        ("snapshot", lambda store: store.add_column("q", [1, 2], snapshot=store.snapshot().take([0, 1]))),
    ],
)
def test_arguments_of_another_kind_are_named(tmp_path, name, call):
    store = ml.create(tmp_path / "s")
    store.append(metal_frames(3))
    with pytest.raises(errors.DataError, match=f"{name}: expected"):
        call(store)
    assert store.version == 1

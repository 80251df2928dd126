"""Right labels of molecules whose bonds are not those of organic chemistry are not called wrong; wrong ones are."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from ase.build import molecule

import mlffstore as ml
from mlffstore.data.batch import SampleBatch
from mlffstore_generators.rattle import rattled

pytest.importorskip("tblite")
#: eV/angstrom, of other units of force.
HARTREE_PER_BOHR, KCAL_PER_MOL = 51.42207, 0.04336410


@functools.cache
def labelled(name, seed=0):
    """Return rattled copies of a molecule with labels of GFN2-xTB."""
    rng = np.random.default_rng(seed)
    batch = SampleBatch.from_ase([rattled(molecule(name), 0.04, rng) for _ in range(60)])
    labels = ml.get_teacher("gfn2-xtb").label(batch)
    named = {"energy": labels.energy, "forces": labels.forces, "dipole": labels.more["dipole"]}
    return batch.with_columns(root=np.ones(60, np.uint64)).with_labels("gfn2", **named)


def line(batch, check, tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch)
    return next(one for one in ml.validate(store).checks if one.check == check)


@pytest.mark.parametrize(
    ("name", "state"),
    [("SiH4", "pass"), ("PH3", "pass"), ("SH2", "pass"), ("CO2", "not measured"), ("CCl4", "not measured")],
)
def test_right_forces(name, state, tmp_path):
    assert line(labelled(name), "bond_stiffness", tmp_path).state == state


@pytest.mark.parametrize("name", ["SiH4", "CO2"])
@pytest.mark.parametrize("unit", [1 / HARTREE_PER_BOHR, 1 / KCAL_PER_MOL], ids=["hartree/bohr", "kcal/mol/angstrom"])
def test_forces_in_another_unit(name, unit, tmp_path):
    batch = labelled(name)
    wrong = (
        batch.structures()
        .with_columns(root=batch.root)
        .with_labels("gfn2", energy=batch.energy, forces=batch.forces * unit)
    )
    found = line(wrong, "bond_stiffness", tmp_path)
    assert found.state == "fail"
    assert "expected" in found.text


def test_bonds_that_are_pulled_apart_are_no_softer_bonds(tmp_path):
    made = ml.get_generator("scan", seeds={"name": "molecules", "max_atoms": 16}).generate(np.random.default_rng(3), 48)
    labels = ml.get_teacher("gfn2-xtb").label(made.batch)
    good = labels.ok
    batch = made.batch.with_labels("gfn2", energy=labels.energy, forces=labels.forces).take(np.flatnonzero(good))
    assert line(batch, "bond_stiffness", tmp_path).state == "pass"


def test_dipoles_that_charges_do_not_explain_say_nothing_of_their_unit(tmp_path):
    for name, state in (("PH3", "not measured"), ("H2O", "pass")):
        (tmp_path / name).mkdir()
        assert line(labelled(name), "dipole_units", tmp_path / name).state == state

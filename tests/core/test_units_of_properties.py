"""Units of every property are checked against the unit that the user states, and converted, when samples are written."""

from __future__ import annotations

import numpy as np
import pytest
from ase import units
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

import mlffstore as ml
from mlffstore.data.properties import PROPERTIES
from mlffstore.data.unit_expressions import parse, ratio
from mlffstore.data.units import factor, spellings
from mlffstore.errors import DataError, UnitError
from tests.signals import POLARIZABILITY

HESSIAN = units.Hartree / units.Bohr**2
#: Property, unit, and the factor by ASE's constants.
CASES = [
    ("energy", "hartree", units.Hartree), ("forces", "kcal/mol/angstrom", units.kcal / units.mol),
    ("stress", "GPa", units.GPa), ("atomic_energies", "kJ/mol", units.kJ / units.mol), ("charges", "C", units.C),
    ("dipole", "Debye", units.Debye), ("dipole", "e*bohr", units.Bohr), ("dipole", "D", units.Debye),
    ("hessian_product", "hartree/bohr^2", HESSIAN), ("hessian_product", "Ha/bohr**2", HESSIAN),
    ("energy_std", "meV", 1e-3), ("forces_std", "eV/nm", 1 / units.nm), ("magmoms", "muB", 1.0),
    ("magmoms", "Bohr magneton", 1.0), (POLARIZABILITY.name, "e^2*bohr^2/hartree", units.Bohr**2 / units.Hartree),
]  # fmt: skip


@pytest.mark.parametrize(("name", "unit", "expected"), CASES)
def test_labels_are_converted(name, unit, expected):
    assert factor(name, unit) == pytest.approx(expected, rel=1e-12)
    spec = PROPERTIES.get(name, POLARIZABILITY)
    shape = (2 if spec.axis == "atom" else 1, *(3 if size is None else size for size in spec.sizes))
    values = np.random.default_rng(0).normal(size=shape)
    batch = ml.SampleBatch(
        n_atoms=[2], numbers=[1, 1], positions=np.zeros((2, 3)), labels={"t": {name: values}}, units={name: unit}
    )
    np.testing.assert_allclose(batch.labels["t"][name], values * expected, rtol=1e-6)


@pytest.mark.parametrize("name", PROPERTIES)
def test_every_built_in_unit_is_known(name):
    assert ratio(PROPERTIES[name].unit, PROPERTIES[name].unit) == 1
    parse(PROPERTIES[name].unit)
    assert all(factor(name, unit) for unit in spellings(name))


@pytest.mark.parametrize(
    ("units_given", "message"),
    [
        ({"dipole": "eV"}, "'e\\*angstrom' can be converted"),
        ({"dipole": "furlong*e"}, "known are"),
        ({"dipole": "e angstrom"}, "known are"),
        ({"dipole": "*e"}, "known are"),
        ({"dipole": ""}, "empty"),
        ({"charges": "e"}, "labels that are given"),
        ({"dipole": "e^2*angstrom"}, "another quantity"),
    ],
)
def test_wrong_units_are_refused(units_given, message):
    with pytest.raises(DataError, match=message):
        ml.SampleBatch(
            n_atoms=[1],
            numbers=[2],
            positions=[[0, 0, 0]],
            labels={"t": {"dipole": np.ones((1, 3))}},
            units=units_given,
        )


def test_frames_in_other_units(tmp_path):
    frame = molecule("H2O")
    frame.calc = SinglePointCalculator(frame, energy=-1.0, forces=np.ones((3, 3)), dipole=[0, 0, 1.85])
    store = ml.create(tmp_path / "d.zarr")
    store.append([frame], units={"dipole": "Debye", "energy": "hartree"})
    batch = store.snapshot().read()
    np.testing.assert_allclose(batch.label("dipole"), [[0, 0, 1.85 * units.Debye]])
    np.testing.assert_allclose(batch.energy, [-units.Hartree])
    with pytest.raises(DataError, match="SampleBatch\\(units"):
        store.append(batch, units={"dipole": "Debye"})
    ml.Property("test_unknown_unit", axis="sample", unit="furlong")
    assert factor("test_unknown_unit", "furlong") == 1
    with pytest.raises(UnitError, match="furlong"):
        factor("test_unknown_unit", "angstrom")

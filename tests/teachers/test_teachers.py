"""Teachers: reference energies, forces and stresses as derivatives, domains, and faults that stay alone."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.protocols import Teacher

VOIGT = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


def salt() -> Atoms:
    atoms = bulk("NaCl", "rocksalt", a=5.5) * (2, 2, 1)
    atoms.rattle(0.05, seed=1)
    return atoms


def metal() -> Atoms:
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def water() -> Atoms:
    atoms = molecule("H2O")
    atoms.rattle(0.03, seed=2)
    return atoms


# Step (angstrom) and tolerance (eV/angstrom) of central differences. float64: truncation of order h^2 and rounding
# 1e-9/h. CHGNet computes in float32: an energy of 30 eV has a rounding error of 2e-6, divided by 2h = 2e-2, with slack.
CASES = [("gfn2-xtb", water, 1e-3, 1e-4), ("emt", metal, 1e-3, 1e-4), ("chgnet", salt, 1e-2, 5e-3)]


@pytest.fixture(scope="module")
def teachers():
    return {name: ml.get_teacher(name) for name, *_ in CASES}


def energy(teacher, atoms) -> float:
    return float(teacher.label(ml.SampleBatch.from_ase([atoms])).energy[0])


@pytest.mark.parametrize(("name", "make", "h", "tolerance"), CASES)
def test_forces_are_the_gradient(name, make, h, tolerance, teachers):
    teacher, atoms = teachers[name], make()
    forces = teacher.label(ml.SampleBatch.from_ase([atoms])).forces
    for atom, axis in ((0, 0), (1, 2)):
        values = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * h
            values.append(energy(teacher, moved))
        assert -(values[0] - values[1]) / (2 * h) == pytest.approx(float(forces[atom, axis]), abs=tolerance)


# Truncation: h^2 times third derivatives of some eV/angstrom^3. float32 (CHGNet) needs a larger step and more tolerance.
@pytest.mark.parametrize(("name", "make", "h", "tolerance"), [("emt", metal, 1e-3, 1e-5), ("chgnet", salt, 5e-3, 2e-4)])
def test_stress_is_the_derivative_with_its_sign(name, make, h, tolerance, teachers):
    """Stress = (1/V) dE/dstrain, positive under tension; a GPa taken for eV/angstrom^3 would be 160 times off."""
    teacher, atoms = teachers[name], make()
    stress = teacher.label(ml.SampleBatch.from_ase([atoms])).stress[0]
    assert np.abs(stress[:3]).max() > 10 * tolerance
    for k, (i, j) in enumerate(VOIGT):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        values = []
        for sign in (1, -1):
            bent = atoms.copy()
            bent.set_cell(atoms.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            values.append(energy(teacher, bent))
        assert (values[0] - values[1]) / (2 * h * atoms.get_volume()) == pytest.approx(float(stress[k]), abs=tolerance)


@pytest.mark.parametrize(("name", "make", "h", "tolerance"), CASES)
def test_batch_equals_singles_and_inputs_stay(name, make, h, tolerance, teachers):
    frames = [make(), make(), make()]
    frames[1].rattle(0.02, seed=5)
    batch = ml.SampleBatch.from_ase(frames)
    before = batch.positions.copy()
    together = teachers[name].label(batch)
    assert isinstance(teachers[name], Teacher)
    assert np.array_equal(batch.positions, before)
    assert together.ok.all()
    for i, one in enumerate(batch):
        alone = teachers[name].label(one)
        # float32 sums in another order: 1e-6 relative of 30 eV
        assert alone.energy[0] == pytest.approx(together.energy[i], abs=1e-4)
        part = together.forces[batch.offsets[i] : batch.offsets[i + 1]]
        np.testing.assert_allclose(alone.forces, part, atol=1e-4)


def test_rotation_turns_forces_and_keeps_the_energy(teachers):
    atoms = water()
    turned = atoms.copy()
    turned.rotate(37, (1, 2, 3))
    a = teachers["gfn2-xtb"].label(ml.SampleBatch.from_ase([atoms]))
    b = teachers["gfn2-xtb"].label(ml.SampleBatch.from_ase([turned]))
    assert a.energy[0] == pytest.approx(b.energy[0], abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(a.forces, axis=1), np.linalg.norm(b.forces, axis=1), atol=1e-4)


def test_gfn2_gives_known_energies(teachers):
    from ase.units import Hartree
    from tblite.interface import Calculator

    benzene = molecule("C6H6")
    labels = teachers["gfn2-xtb"].label(ml.SampleBatch.from_ase([benzene]))
    assert labels.energy[0] == pytest.approx(-432.08335, abs=1e-4)
    direct = Calculator("GFN2-xTB", benzene.numbers, benzene.positions / 0.529177210903)
    direct.set("verbosity", 0)
    assert labels.energy[0] == pytest.approx(direct.singlepoint().get("energy") * Hartree, abs=1e-4)


def test_charge_and_spin_matter(teachers):
    frames = [molecule("NH3") + Atoms("H", [(0, 0, 1.2)]) for _ in range(2)]
    frames[0].info["charge"] = 1
    ion, radical = teachers["gfn2-xtb"].label(ml.SampleBatch.from_ase(frames)).energy
    assert abs(ion - radical) > 1


def test_what_is_outside_the_domain_is_refused_with_the_reason(teachers):
    ion = salt()
    ion.info["charge"] = 1
    slab = salt()
    slab.pbc = (True, True, False)
    batch = ml.SampleBatch.from_ase([salt(), water(), ion, slab, bulk("Xe", "fcc", a=30.0)])
    labels = teachers["chgnet"].label(batch)
    assert labels.ok.tolist() == [True, False, False, False, False]
    assert [bool(reason) for reason in labels.reasons] == [False, True, True, True, True]
    assert "not periodic" in labels.reasons[1]
    assert "+1 e" in labels.reasons[2]
    assert "some directions" in labels.reasons[3]
    assert "isolated" in labels.reasons[4]
    assert np.isnan(labels.energy[1:]).all()
    assert "is periodic" in teachers["gfn2-xtb"].label(batch).reasons[0]
    assert "does not know H, O" in teachers["emt"].label(batch).reasons[1]


def test_one_bad_sample_does_not_spoil_the_batch(teachers):
    collapsed = water()
    collapsed.positions[:] = 0.0
    labels = teachers["gfn2-xtb"].label(ml.SampleBatch.from_ase([water(), collapsed, water()]))
    assert labels.ok.tolist() == [True, False, True]
    assert labels.reasons[1].startswith("gfn2-xtb")


def test_info_is_json_and_options_are_checked(teachers):
    import json

    for teacher in teachers.values():
        about = teacher.info.to_json()
        assert json.loads(json.dumps(about)) == about
        assert about["licence"]
    assert "sha256:" in teachers["chgnet"].info.fingerprint
    with pytest.raises(ml.errors.TeacherError, match="batch_atoms"):
        ml.get_teacher("chgnet", batch_atoms=0)
    with pytest.raises(ml.errors.TeacherError, match="positive"):
        ml.get_teacher("gfn2-xtb", accuracy=0.0)
    with pytest.raises(ml.errors.RegistryError, match="did you mean 'chgnet'"):
        ml.get_teacher("chgnt")

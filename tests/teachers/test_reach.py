"""CHGNet in one backward pass and on molecules, xTB in boxes: the same physics, faster and farther."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.data.batch import SampleBatch
from mlffstore.errors import TeacherError


def crystals() -> SampleBatch:
    frames = [bulk("NaCl", "rocksalt", a=5.5) * (2, 2, 1), bulk("Cu", cubic=True), bulk("Si") * (2, 1, 1)]
    for k, frame in enumerate(frames):
        frame.rattle(0.08, seed=k)
        frame.set_cell(frame.cell.array @ (np.eye(3) + 0.02 * np.triu(np.ones((3, 3)))), scale_atoms=True)
    return SampleBatch.from_ase(frames).astype("float32")


def test_one_backward_pass_says_what_the_package_says():
    from ase.stress import full_3x3_to_voigt_6_stress
    from ase.units import GPa
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    batch = crystals()
    labels = ml.get_teacher("chgnet").label(batch)
    model = CHGNet.load(use_device="cpu", verbose=False)
    for i, atoms in enumerate(batch.to_ase()):
        theirs = model.predict_structure(AseAtomsAdaptor.get_structure(atoms), task="efs")
        own = labels.forces[batch.offsets[i] : batch.offsets[i + 1]]
        # float32 sums in another order; an energy of 30 eV has a resolution of 2e-6.
        assert labels.energy[i] == pytest.approx(float(theirs["e"]) * len(atoms), abs=2e-5)
        assert np.abs(own - theirs["f"]).max() < 2e-4
        assert np.abs(labels.stress[i] - full_3x3_to_voigt_6_stress(theirs["s"]) * GPa).max() < 2e-6


def test_chgnet_labels_molecules_only_if_asked_to():
    plain, wide = ml.get_teacher("chgnet"), ml.get_teacher("chgnet", molecules=True)
    assert plain.info.fingerprint == wide.info.fingerprint
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.03, seed=1)
    ion = molecule("CH3CH2OH")
    ion.info["charge"] = 1
    batch = SampleBatch.from_ase([atoms, ion])
    assert not plain.label(batch).ok.any()
    labels = wide.label(batch)
    assert labels.ok.tolist() == [True, False]
    assert "no charge" in labels.reasons[1]
    assert labels.stress is None or np.isnan(labels.stress).all()
    # The box does not matter: far larger ones, and other places in it, give the same.
    boxed = atoms.copy()
    boxed.set_cell([20.0, 24.0, 28.0])
    boxed.pbc = True
    boxed.positions += [3.0, 15.0, 22.0]
    same = plain.label(SampleBatch.from_ase([boxed]))
    assert labels.energy[0] == pytest.approx(same.energy[0], abs=1e-4)
    # Fractional coordinates are float32 in CHGNet: 28 angstrom have a resolution of 2e-6, bonds 40 eV/A^2.
    assert np.abs(labels.forces[: len(atoms)] - same.forces).max() < 1e-3
    with pytest.raises(TeacherError, match="true or false"):
        ml.get_teacher("chgnet", molecules="yes")


def test_xtb_labels_boxes_with_a_gap_only_if_asked_to():
    water = molecule("H2O")
    water.set_cell([9.5, 9.5, 9.5])
    water.pbc = True
    small = water.copy()
    small.set_cell([6.0, 9.5, 9.5])
    batch = SampleBatch.from_ase([water, small, molecule("H2O")])
    assert ml.get_teacher("gfn2-xtb").label(batch).ok.tolist() == [False, False, True]
    labels = ml.get_teacher("gfn2-xtb", gamma_box=9.0).label(batch)
    assert labels.ok.tolist() == [True, False, True]
    assert "9 angstrom apart, got 6.00" in labels.reasons[1]
    # A molecule alone in a box is a molecule, but for its dipole's images.
    assert labels.energy[0] == pytest.approx(labels.energy[2], abs=0.05)
    assert np.isfinite(labels.stress[0]).all()
    assert np.isnan(labels.stress[2]).all()
    metal = SampleBatch.from_ase([bulk("Ca", cubic=True) * (2, 2, 2)])
    assert "gap" in ml.get_teacher("gfn2-xtb", gamma_box=8.0).label(metal).reasons[0]


def test_stress_of_xtb_is_the_derivative_of_its_energy():
    frame = molecule("H2O")
    frame.rattle(0.05, seed=3)
    frame.set_cell([6.5, 6.8, 7.0])
    frame.pbc = True
    teacher, h = ml.get_teacher("gfn2-xtb", gamma_box=6.0), 1e-3
    stress = teacher.label(SampleBatch.from_ase([frame])).stress[0]
    for k, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
        strain = np.zeros((3, 3))
        strain[i, j] += h / 2
        strain[j, i] += h / 2
        energies = []
        for sign in (1, -1):
            bent = frame.copy()
            bent.set_cell(frame.cell.array @ (np.eye(3) + sign * strain), scale_atoms=True)
            energies.append(teacher.label(SampleBatch.from_ase([bent])).energy[0])
        slope = (energies[0] - energies[1]) / (2 * h * frame.get_volume())
        assert slope == pytest.approx(float(stress[k]), abs=1e-5)

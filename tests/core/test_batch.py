"""SampleBatch: shapes, dtypes, ASE in and out, selection, joining."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

import mlffstore as ml
from mlffstore.errors import DataError, TeacherError
from tests.samples import labelled, metal_frames, mixed_frames, molecule_frames


def test_from_ase_and_back_is_the_same():
    frames = mixed_frames(7)
    batch = ml.SampleBatch.from_ase(frames, teacher="emt")
    assert len(batch) == 7
    assert batch.n_atoms.tolist() == [len(frame) for frame in frames]
    for before, after in zip(frames, batch.to_ase(), strict=True):
        assert np.array_equal(before.numbers, after.numbers)
        assert np.array_equal(before.positions, after.positions)
        assert np.array_equal(before.pbc, after.pbc)
        if before.pbc.any():
            assert np.array_equal(before.cell.array, after.cell.array)
            # float32 holds 24 bits: relative 6e-8 of values below 1 eV/angstrom^3
            np.testing.assert_allclose(after.get_stress(), before.calc.results["stress"], atol=1e-7)
        assert after.get_potential_energy() == before.calc.results["energy"]
        np.testing.assert_allclose(after.get_forces(), before.calc.results["forces"], rtol=1e-7, atol=1e-7)
        assert after.info["teacher"] == "emt"


def test_stress_is_missing_where_it_does_not_apply():
    batch = ml.SampleBatch.from_ase([*metal_frames(1), *molecule_frames(1)])
    assert np.isfinite(batch.stress[0]).all()
    assert np.isnan(batch.stress[1]).all()
    assert "stress" not in batch.to_ase()[1].calc.results


def test_stress_matrix_becomes_voigt():
    frame = metal_frames(1)[0]
    matrix = np.array([[1.0, 6.0, 5.0], [6.0, 2.0, 4.0], [5.0, 4.0, 3.0]]) * 1e-2
    labels = [{"energy": 0.0, "forces": np.zeros((len(frame), 3)), "stress": matrix}]
    batch = ml.SampleBatch.from_ase([frame], labels=labels)
    np.testing.assert_allclose(batch.stress[0], np.array([1, 2, 3, 4, 5, 6]) * 1e-2, rtol=1e-6)


def test_charge_and_multiplicity():
    ammonium = molecule_frames(5)[4] + Atoms("H", [(0, 0, -1.0)])
    ammonium.info["charge"] = 1
    nitric_oxide = Atoms("NO", [(0, 0, 0), (0, 0, 1.15)])
    triplet = Atoms("O2", [(0, 0, 0), (0, 0, 1.2)], info={"spin": 3})
    batch = ml.SampleBatch.from_ase([ammonium, nitric_oxide, triplet])
    assert batch.charge.tolist() == [1, 0, 0]
    assert batch.multiplicity.tolist() == [1, 2, 3]  # 10 electrons, 15 electrons, as given
    assert batch.to_ase()[2].info["multiplicity"] == 3


def test_molecules_have_no_cell():
    frame = molecule_frames(1)[0]
    frame.set_cell([20, 20, 20])
    assert not ml.SampleBatch.from_ase([frame]).cell.any()


def test_take_in_any_order_with_duplicates():
    frames = mixed_frames(6)
    batch = ml.SampleBatch.from_ase(frames)
    some = batch.take([5, 0, 0, -2])
    assert some.n_atoms.tolist() == [len(frames[i]) for i in (5, 0, 0, 4)]
    assert np.array_equal(some.energy, batch.energy[[5, 0, 0, 4]])
    assert np.array_equal(some.content_hash, batch.content_hash[[5, 0, 0, 4]])
    assert np.array_equal(batch.take(batch.n_atoms > 4).n_atoms, batch.n_atoms[batch.n_atoms > 4])
    with pytest.raises(IndexError, match="index 6 is outside the 6 samples"):
        batch.take([6])


def test_concatenate_keeps_order_and_fills_missing_labels():
    metals = ml.SampleBatch.from_ase(metal_frames(2), teacher="emt", source="bulk")
    molecules = ml.SampleBatch.from_ase(molecule_frames(3), teacher="toy", source="g2")
    both = ml.concatenate([metals, molecules])
    assert both.source == ["bulk"] * 2 + ["g2"] * 3
    assert both.teachers == ("emt", "toy")
    assert np.isnan(both.label("energy", "emt")[2:]).all()
    assert np.array_equal(both.label("forces", "toy")[metals.n_atoms_total :], molecules.forces)
    assert np.array_equal(both.content_hash, np.concatenate([metals.content_hash, molecules.content_hash]))
    with pytest.raises(TeacherError, match="emt, toy"):
        _ = both.energy
    assert both.to_ase()[4].info["teacher"] == "toy"


def test_user_columns_travel():
    batch = ml.SampleBatch(
        n_atoms=[1, 2],
        numbers=[2, 1, 1],
        positions=[[0, 0, 0], [0, 0, 0], [0, 0, 0.74]],
        extra={"gap": ([1.5, 2.5], "eV", "sample"), "magmom": ([0.0, 0.1, 0.2], "mu_B", "atom")},
    )
    one = batch.take([1])
    assert one.columns["gap"].tolist() == [2.5]
    assert one.columns["magmom"].tolist() == [0.1, 0.2]
    assert one.user["magmom"].unit == "mu_B"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_atoms": [1, -2]}, "n_atoms: expected at least 1 everywhere, got -2 in sample 1"),
        ({"n_atoms": [1, 0]}, "n_atoms: expected at least 1 everywhere, got 0 in sample 1"),
        ({"n_atoms": [[1, 2]]}, "n_atoms: expected one dimension"),
        ({"numbers": [1, 1]}, r"numbers: expected shape \(3,\)"),
        ({"numbers": [1, 1, 300]}, "numbers: expected values within uint8, got 1 to 300"),
        ({"numbers": [1, 1, 1.5]}, "numbers: expected integers, got fractions"),
        ({"positions": np.zeros((3, 2))}, r"positions: expected shape \(3, 3\)"),
        ({"positions": "here"}, "positions: expected numbers"),
        ({"cell": np.zeros((2, 3))}, r"cell: expected shape \(2, 3, 3\)"),
        ({"pbc": [[True] * 3]}, r"pbc: expected shape \(2, 3\)"),
        ({"energy": [1.0]}, r"energy: expected shape \(2,\)"),
        ({"forces": np.zeros((2, 3))}, r"forces: expected shape \(3, 3\)"),
        ({"stress": np.zeros((2, 3, 3))}, r"stress: expected shape \(2, 6\)"),
        ({"charge": [40000, 0]}, "charge: expected values within int16"),
        ({"source": ["a"]}, "source: expected one string per sample"),
        ({"energy": [0, 0], "teacher": "a/b"}, "teacher name: expected"),
        ({"energy": [0, 0], "labels": {"x": {"energy": [0, 0]}}}, "got both"),
        ({"labels": {"x": {"dipoles": [0, 0]}}}, "expected energy, forces, stress, .*, got dipoles"),
        ({"extra": {"energy": ([0, 0], "eV", "sample")}}, "user column: expected an identifier that is not a standard"),
        ({"extra": {"gap": ([0, 0], "", "sample")}}, "'gap': expected a unit"),
        ({"extra": {"gap": ([1j, 2j], "1", "sample")}}, "'gap': expected a dtype"),
        ({"extra": {"gap": ([0.0], "1", "sample")}}, r"gap: expected shape \(2,\)"),
    ],
)
def test_what_is_not_a_batch_is_refused(change, message):
    good = {"n_atoms": [1, 2], "numbers": [2, 1, 1], "positions": np.zeros((3, 3))}
    with pytest.raises(DataError, match=message):
        ml.SampleBatch(**{**good, **change})


def test_all_problems_are_listed_at_once():
    with pytest.raises(DataError) as caught:
        ml.SampleBatch(n_atoms=[2], numbers=[1], positions=np.zeros((3, 3)), cell=np.zeros(3))
    assert str(caught.value).count("\n  - ") == 3


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "expected frames, got none"),
        ([Atoms()], "without atoms"),
        (["H2O"], "expected ase.Atoms"),
        ([Atoms("H", info={"charge": "plus"})], "expected a whole number as"),
        ([Atoms("H", info={"charge": 0.5})], "expected a whole number as"),
    ],
)
def test_what_is_not_a_frame_is_refused(frames, message):
    with pytest.raises(DataError, match=message):
        ml.SampleBatch.from_ase(frames)


def test_forces_of_the_wrong_shape_name_the_sample():
    good = molecule_frames(1)[0]
    labels = [{"energy": 0.0, "forces": np.zeros((3, 3))}, {"energy": 0.0, "forces": np.zeros((2, 3))}]
    with pytest.raises(DataError, match=r"sample 1: expected forces of shape \(3, 3\), got \(2, 3\)"):
        ml.SampleBatch.from_ase([good, good], labels=labels)


def test_labels_may_be_given_beside_the_frames():
    frame = labelled(molecule_frames(1)[0], 1.0, np.zeros((3, 3)))
    batch = ml.SampleBatch.from_ase([frame], labels=[{"energy": -2.0, "forces": np.ones((3, 3))}], teacher="dft")
    assert batch.energy.tolist() == [-2.0]

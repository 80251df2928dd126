"""What a teacher of a third party returns becomes labels, reasons, or one clear error."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.contracts.request import label_with
from mlffstore.errors import DataError, TeacherError
from tests.labelling.answers import Answering, answer, samples

NAN = np.nan


@pytest.fixture
def store(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples(4), require=())
    return store


def energies(store) -> list[float]:
    return store.snapshot().read().label("energy", "t").tolist()


def test_values_of_refused_samples_are_not_labels(store):
    def numbers_all_the_same(batch):
        labels = answer(batch, dipole=np.ones((len(batch), 3)), charges=np.ones(batch.n_atoms_total))
        ok = labels.energy != 2
        return replace(labels, ok=ok, reasons=tuple("" if good else "SCF failed" for good in ok))

    report = store.add_labels(Answering(numbers_all_the_same, ("energy", "forces", "charges", "dipole")))
    assert (report.labelled, report.refused, report.reasons) == (3, 1, {"SCF failed": 1})
    batch = store.snapshot().read()
    for name in ("energy", "forces", "charges", "dipole"):
        lacking = np.isnan(batch.label(name)).reshape(len(batch.label(name)), -1).all(axis=1)
        wanted = np.array([False, True, False, False])
        assert lacking.tolist() == (np.repeat(wanted, batch.n_atoms) if len(lacking) == 6 else wanted).tolist()


def spoil(name, row, value):
    def change(batch):
        labels = answer(batch)
        charges = np.ones(batch.n_atoms_total)
        columns = {"energy": labels.energy, "forces": labels.forces.astype(float), "charges": charges}
        columns[name][row] = value
        return replace(labels, energy=columns["energy"], forces=columns["forces"], more={"charges": charges})

    return change


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [("energy", 1, NAN), ("energy", 1, -np.inf), ("forces", 2, NAN), ("forces", (2, 0), NAN), ("forces", slice(1, 3), NAN),
     ("forces", (1, 2), 1e39), ("charges", 2, NAN), ("charges", 1, np.inf)],
)  # fmt: skip
def test_a_label_that_is_not_finite_is_a_refusal(store, name, row, value):
    report = store.add_labels(Answering(spoil(name, row, value), ("energy", "forces", "charges")))
    assert (report.labelled, report.refused) == (3, 1)
    assert dict(report.reasons) == {f"t gave no finite {name}": 1}
    assert np.isnan(energies(store)).tolist() == [False, True, False, False]
    assert store.verify(full=True).ok


def test_properties_that_a_sample_has_not_are_no_refusal(store):
    charges = lambda batch: np.where(np.repeat(batch.n_atoms, batch.n_atoms) > 1, 0.5, NAN)  # noqa: E731
    teacher = Answering(lambda batch: answer(batch, charges=charges(batch)), ("energy", "forces", "charges"))
    report = store.add_labels(teacher)
    assert (report.labelled, report.refused) == (4, 0)
    np.testing.assert_array_equal(store.snapshot().read().label("charges"), [NAN, 0.5, 0.5, NAN, 0.5, 0.5])
    only_energies = Answering(
        lambda batch: replace(answer(batch), forces=np.full((batch.n_atoms_total, 3), NAN)), ("energy",)
    )
    other = ml.SampleBatch(n_atoms=[1], numbers=[3], positions=[[9.0, 0, 0]])
    labels = label_with(only_energies, other, None)
    assert (labels.ok.tolist(), labels.energy.tolist()) == ([True], [9.0])


def test_chunks_whose_lengths_are_wrong_change_nothing(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.SampleBatch(n_atoms=[1] * 6, numbers=[2] * 6, positions=np.arange(18.0).reshape(6, 3)), require=())

    def shifted(batch):
        n = 2 if batch.positions[0, 0] == 0 else 4
        return replace(answer(batch), energy=np.ones(n), ok=np.ones(n, bool), reasons=("",) * n)

    with pytest.raises(DataError, match=r"do not fit the 3 samples(.|\n)*energy: expected shape \(3,\).*got \(2,\)"):
        store.add_labels(Answering(shifted), chunk_samples=3)
    assert store.version == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ok": np.ones(3, bool)}, r"ok: expected a bool for each sample, shape \(4,\), got bool \(3,\)"),
        ({"ok": np.ones(4)}, r"ok: expected a bool for each sample, shape \(4,\), got float64"),
        ({"reasons": ("",)}, r"reasons: expected a string for each sample \(4\), got 1"),
        ({"energy": np.ones((4, 1))}, "energy: expected shape"),
        ({"energy": np.array(["1"] * 4)}, "energy: expected numbers"),
        ({"forces": np.ones((3, 6))}, "forces: expected shape"),
        ({"stress": np.ones((4, 3, 3))}, "stress: expected shape"),
        ({"more": {"charges": np.ones(4)}}, "charges: expected shape"),
        ({"more": {"colour": np.ones(4)}}, "register others with mlffstore.Property"),
    ],
)
def test_an_answer_that_does_not_fit_is_one_clear_error(store, change, message):
    with pytest.raises(DataError, match=f"'t' returned labels that do not fit the 4 samples(.|\n)*{message}"):
        store.add_labels(Answering(lambda batch: replace(answer(batch), **change)))
    assert store.version == 1


def test_widths_that_differ_between_chunks_are_one_clear_error(store):
    teacher = Answering(
        lambda batch: answer(batch, embedding=np.ones((batch.n_atoms_total, int(batch.positions[0, 0])))),
        ("energy", "forces", "embedding"),
    )
    with pytest.raises(DataError, match=r"embedding of different shapes for different samples, \(1,\) and \(3,\)"):
        store.add_labels(teacher, chunk_samples=2)
    assert store.version == 1


@pytest.mark.parametrize("properties", [None, ("charges",), ("energy", "charges")])
def test_a_property_that_is_declared_and_not_given_is_an_error(store, properties):
    with pytest.raises(TeacherError, match="'t' labelled 4 samples without charges, which it declares"):
        store.add_labels(Answering(answer, ("energy", "forces", "charges")), properties=properties)
    assert store.version == 1


def test_a_property_that_no_sample_has_is_asked_for_once(store):
    """Molecules have no stress, and the dipole of a crystal is no label."""
    teacher = Answering(
        lambda batch: replace(
            answer(batch, dipole=np.full((len(batch), 3), NAN)), stress=np.full((len(batch), 6), NAN)
        ),
        ("energy", "forces", "stress", "dipole"),
    )
    for name in ("stress", "dipole"):
        reports = [store.add_labels(teacher, properties=(name,)) for _ in range(2)]
        assert [report.labelled for report in reports] == [0, 0]
        assert reports[1].versions == []
    assert len(teacher.asked) == 4  # for the dipole; that molecules have no stress is known


def test_samples_that_get_further_labels_are_counted(store):
    store.add_labels(Answering(answer))
    teacher = Answering(lambda batch: answer(batch, refused=(1.0,), charges=np.ones(batch.n_atoms_total)), ("charges",))
    teacher.info = replace(teacher.info, properties=("energy", "forces", "charges"))
    report = store.add_labels(teacher, properties=("charges",))
    assert (report.labelled, report.refused) == (3, 1)


def test_hessian_products_by_differences_pass_over_refused_displacements(store):
    def narrow(batch):  # the numbers of a calculation that did not converge, for all but the undisplaced atoms
        labels = answer(batch)
        ok = np.isin(batch.positions[batch.offsets[:-1], 1], [1, 2, 3, 4])
        return replace(labels, ok=ok, reasons=tuple("" if good else "not converged" for good in ok))

    report = store.add_labels(Answering(narrow), properties=("energy", "hessian_product"))
    assert (report.labelled, report.refused) == (4, 0)
    assert np.isnan(store.snapshot().read().label("hessian_product")).all()


def test_integers_and_lists_of_a_teacher_are_labels_too(store):
    def simple(batch):
        x = batch.positions[batch.offsets[:-1], 0].astype(int)
        ok = x != 3
        return TeacherLabels(x.tolist(), np.ones((batch.n_atoms_total, 3), int), None, ok.tolist(), ["", "", "no", ""])

    report = store.add_labels(Answering(simple))
    assert (report.labelled, report.refused) == (3, 1)
    np.testing.assert_array_equal(energies(store), [1, 2, NAN, 4])

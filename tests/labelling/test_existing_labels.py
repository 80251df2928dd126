"""A pass fills in what samples lack, never changes what is there, and does not overlook what it was never asked for."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import FormatError
from tests.labelling.answers import Answering, answer, samples

NAN = np.nan


def new(tmp_path, *batches):
    store = ml.create(tmp_path / "d.zarr")
    for batch in batches:
        store.append(batch, require=())
    return store


def read(store, name):
    return ml.open(store.url).snapshot().read().label(name, "t")


def test_only_the_property_that_a_sample_lacks_is_filled(tmp_path):
    charges = [0.1, NAN, NAN, NAN, 0.7, 0.6]
    store = new(tmp_path, samples(4, energy=[-1.0, -2, -3, NAN], charges=charges))
    teacher = Answering(
        lambda batch: answer(batch, refused=(3.0,), charges=np.where(batch.positions[:, 0] < 3, 0.5, NAN)),
        ("energy", "forces", "charges"),
    )
    report = store.add_labels(teacher, properties=("energy", "charges"))
    assert sorted(teacher.asked) == [2, 3, 4]
    assert (report.labelled, report.refused) == (2, 1)
    assert read(store, "energy").tolist() == [-1, -2, -3, 4]  # the refusal of 3 takes nothing away
    np.testing.assert_allclose(read(store, "charges"), [0.1, 0.5, 0.5, NAN, 0.7, 0.6])
    assert store.verify(full=True).ok


def test_forces_of_a_sample_that_lacks_its_energy_stay(tmp_path):
    forces = np.arange(18.0).reshape(6, 3)
    store = new(tmp_path, samples(4, energy=[1.0, NAN, NAN, 9.0], forces=forces))
    store.add_labels(Answering(lambda batch: answer(batch, refused=(3.0,), scale=5.0)))
    assert read(store, "energy").tolist()[:2] == [1, 10]
    assert np.isnan(read(store, "energy")[2])
    assert np.array_equal(read(store, "forces"), forces)


def test_some_samples_that_have_part_of_the_labels(tmp_path):
    store = new(tmp_path, samples(4, energy=[-1.0, NAN, -3, -4]))
    report = store.add_labels(Answering(answer), samples=[0, 1], properties=("energy", "forces"))
    assert report.labelled == 2
    np.testing.assert_array_equal(read(store, "energy"), [-1, 2, -3, -4])
    assert np.isfinite(read(store, "forces")).all(axis=1).tolist() == [True] * 3 + [False] * 3
    assert store.add_labels(Answering(answer), samples=[0, 1], properties=("energy", "forces")).versions == []


def test_one_answer_fills_gaps_and_new_columns(tmp_path):
    """A segment that has some energies and no forces is labelled at once, and what is left is no gap."""
    store = new(tmp_path, samples(4, energy=[NAN, -2.0, NAN, -4.0]))
    teacher = Answering(answer)
    report = store.add_labels(teacher, properties=("energy", "forces"))
    assert (report.labelled, len(report.versions)) == (4, 1)
    assert read(store, "energy").tolist() == [1, -2, 3, -4]
    assert store.add_labels(teacher, properties=("energy", "forces")).versions == []
    assert len(teacher.asked) == 4


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("properties", [None, ("energy", "forces")])
def test_samples_beside_those_with_attached_labels_are_labelled(tmp_path, properties, checkpoint):
    store = new(tmp_path, samples(4), samples(3))
    store.attach_labels([2], store.snapshot().read([2]).with_labels("t", energy=[-7.0]))
    assert [len(segment.files) for segment in store.snapshot().segments] == [2, 1]
    if checkpoint:
        for _ in range(140):
            store.append(samples(1, energy=[1.0], forces=[[0.0] * 3]))
        store = ml.open(store.url, "a")
    teacher = Answering(lambda batch: answer(batch, refused=(1.0,)))
    report = store.add_labels(teacher, properties=properties)
    assert (report.labelled, report.refused) == ((4, 2) if properties is None else (5, 2))
    np.testing.assert_array_equal(read(store, "energy")[:7], [NAN, 2, -7, 4, NAN, 2, 3])
    assert store.verify(full=True).ok


def test_refused_samples_of_a_pass_are_not_asked_for_again_after_attaching_elsewhere(tmp_path):
    store = new(tmp_path, samples(4))
    teacher = Answering(lambda batch: answer(batch, refused=(2.0,)))
    assert store.add_labels(teacher).refused == 1
    store.attach_labels([0], samples(4).take([0]).with_labels("other", energy=[-7.0]))
    assert store.add_labels(teacher).versions == []
    assert len(teacher.asked) == 4


def test_the_mark_of_attached_labels_is_checked(tmp_path):
    from mlffstore.format.fields import Fields
    from mlffstore.format.records import file_document, parse_file

    store = new(tmp_path, samples(2))
    store.attach_labels([0], store.snapshot().read([0]).with_labels("t", energy=[1.0]))
    (segment,) = ml.open(store.url).snapshot().segments
    file, layer = segment.files.values()
    assert (file.attached, layer.attached) == (False, True)
    assert parse_file(Fields(file_document(layer), "x"), layer.path) == layer
    with pytest.raises(FormatError, match="attached: expected true or false"):
        parse_file(Fields({**file_document(layer), "attached": 1}, "x"), layer.path)

"""What `teacher=` means for samples that the teacher did not label: missing, in whatever way they are read."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import TeacherError
from tests.samples import metal_frames


@pytest.fixture
def snapshot(tmp_path):
    """Samples 0 and 1 are labelled by a, 2 and 3 by b, 4 by both."""
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(2), teacher="a")
    store.append(metal_frames(2, seed=1), teacher="b")
    both = ml.SampleBatch.from_ase(metal_frames(1, seed=2), teacher="a")
    store.append(both.with_labels("b", energy=both.energy + 1, forces=both.forces))
    return store.snapshot()


@pytest.mark.parametrize("rows", [[0], [0, 1], [1, 3], [2], [4, 0, 3]])
def test_one_teacher(snapshot, rows):
    labelled = [row in (2, 3, 4) for row in rows]
    batch = snapshot.read(rows, teacher="b")
    assert batch.teachers == ("b",)
    assert (~np.isnan(batch.energy)).tolist() == labelled
    for frames in (snapshot.atoms(rows, teacher="b"), batch.to_ase("b"), batch.to_ase()):
        assert [frame.calc is not None for frame in frames] == labelled
        assert [frame.info.get("teacher") for frame in frames] == ["b" if one else None for one in labelled]
    only = snapshot.read(rows, teacher="b", columns=["forces"])
    assert list(only.labels["b"]) == ["forces"]
    assert np.isnan(only.forces).all() == (not any(labelled))
    assert snapshot.read(rows, teacher=["a", "b"]).teachers == ("a", "b")
    assert snapshot.read(rows, teacher="b", columns=["positions"]).teachers == ()


def test_without_a_name_the_only_one_that_labelled_a_sample(snapshot):
    assert [snapshot[row].info["teacher"] for row in range(4)] == ["a", "a", "b", "b"]
    assert snapshot.read([0]).teachers == ("a",)
    with pytest.raises(TeacherError, match="several teachers"):
        snapshot[4]


def test_a_teacher_that_is_not_there(snapshot):
    for call in (snapshot.read, snapshot.atoms):
        with pytest.raises(TeacherError, match="expected one of a, b, got 'c'"):
            call([0], teacher="c")
    with pytest.raises(TeacherError, match="expected one of a, got 'b'"):
        snapshot.read([0]).to_ase("b")

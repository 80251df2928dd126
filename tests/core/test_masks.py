"""User columns that some samples lack: NaN or a mask, never a number, wherever a batch goes."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import DataError, FormatError
from mlffstore.format.entry import Entry, entry_path, now
from mlffstore.format.records import segment_document
from mlffstore.format.segment import write_segment

#: float64 cannot hold it.
LARGE = 2**62 + 1


def helium(n: int, first: int = 0, **extra: object) -> ml.SampleBatch:
    """Return n helium dimers, each another structure, with user columns."""
    positions = np.zeros((2 * n, 3))
    positions[1::2, 0] = 1.0 + 0.01 * np.arange(first, first + n)
    return ml.SampleBatch(
        n_atoms=[2] * n,
        numbers=[2] * (2 * n),
        positions=positions,
        energy=np.arange(first, first + n, dtype=float),
        forces=np.zeros((2 * n, 3)),
        extra=dict(extra),
    )


def serial(values: list[int | None]) -> tuple[np.ma.MaskedArray, str, str]:
    """Return an integer column per sample; None is a missing value, under which lies a number that must not appear."""
    mask = [value is None for value in values]
    return np.ma.masked_array([777 if value is None else value for value in values], mask, np.int64), "1", "sample"


def read(batch: ml.SampleBatch, name: str = "serial") -> list[int | None]:
    """Return a column with None for what is missing; what lies there must be 0."""
    mask = batch.masks.get(name, np.ones(len(batch.columns[name]), bool))
    assert not batch.columns[name][~mask].any()
    return [value if there else None for value, there in zip(batch.columns[name].tolist(), mask.tolist(), strict=True)]


def test_masked_arrays_become_masks_and_nan():
    weight = np.ma.masked_array([0.5, 9.0], [False, True])
    batch = helium(2, serial=serial([LARGE, None]), weight=(weight, "1", "sample"))
    assert read(batch) == [LARGE, None]
    assert batch.masks["serial"].dtype == bool
    assert list(batch.masks) == ["serial"]
    np.testing.assert_array_equal(batch.columns["weight"], [0.5, np.nan])
    assert "serial" not in helium(2, serial=serial([1, 2])).masks


def test_a_row_masked_in_part_is_refused():
    pair = np.ma.masked_array([[1, 2], [3, 4]], [[False, True], [False, False]])
    with pytest.raises(DataError, match="row 0 is masked in part"):
        helium(2, pair=(pair, "1", "sample"))


def test_masked_values_of_other_columns_are_refused():
    with pytest.raises(DataError, match="energy: expected a value everywhere, got a masked array"):
        ml.SampleBatch(n_atoms=[1], numbers=[2], positions=[[0, 0, 0]], energy=np.ma.masked_array([1.0], [True]))


def test_take_concatenate_astype_and_pickle_keep_masks():
    batch = helium(4, serial=serial([LARGE, None, 3, None]))
    assert read(batch.take([3, 0, 0])) == [None, LARGE, LARGE]
    assert "serial" not in batch.take([0, 2]).masks
    assert read(batch[1:3]) == [None, 3]
    for other in (batch.astype("float32"), batch.hashed(), pickle.loads(pickle.dumps(batch)), copy.copy(batch)):
        assert read(other) == [LARGE, None, 3, None]
    joined = concatenate([batch, helium(1, 9), helium(1, 10, serial=serial([5]))])
    assert read(joined) == [LARGE, None, 3, None, None, 5]
    assert "serial" not in concatenate([batch.take([0]), helium(1, 5, serial=serial([6]))]).masks


def test_concatenate_fills_columns_per_atom_too():
    flags = (np.array([True, False]), "1", "atom")
    joined = concatenate([helium(1), helium(1, 1, frozen=flags, weight=(np.ones((1, 2)), "1", "sample"))])
    assert read(joined, "frozen") == [None, None, True, False]
    np.testing.assert_array_equal(joined.columns["weight"], [[np.nan, np.nan], [1, 1]])


def test_concatenate_refuses_two_columns_of_one_name():
    with pytest.raises(DataError, match=r"serial.*expected int64 .* got float64"):
        concatenate([helium(1, serial=serial([1])), helium(1, serial=(np.array([1.0]), "1", "sample"))])


def test_masks_survive_append_read_compaction_and_checkpoint(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(helium(3, serial=serial([1, None, LARGE]), frozen=(np.ones(6, bool), "1", "atom")))
    store.append(helium(2, 3))
    store.append(helium(1, 5, serial=serial([6])))
    expected = [1, None, LARGE, None, None, 6]
    for _ in range(2):
        snap = ml.open(tmp_path / "d.zarr").snapshot()
        assert read(snap.read()) == expected
        assert snap.read().columns["serial"].dtype == np.int64
        assert read(snap.read([5, 1, 3, 0])) == [6, None, None, 1]
        assert read(snap.read(), "frozen") == [True] * 6 + [None] * 6
        assert read(snap.read([3, 4], columns=["serial"])) == [None, None]
        assert "serial" not in snap.read([0, 2, 5], columns=["serial"]).masks
        assert snap.teachers == ("reference",)
        assert list(snap.user_columns) == ["serial", "frozen"]
        assert ml.verify(tmp_path / "d.zarr", full=True).ok
        store.compact()
    assert len(snap.segments) == 1
    while store.version < 99:  # the writer of version 99 writes a checkpoint
        store.tag(f"t{store.version}", 1)
    assert (tmp_path / "d.zarr" / "_checkpoint" / "last.json").exists()
    assert read(ml.open(tmp_path / "d.zarr").snapshot().read()) == expected


def test_add_column_takes_a_masked_array(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(helium(2))
    store.append(helium(2, 2))
    store.add_column("serial", serial([1, None, 3, 4])[0])
    store.append(helium(1, 4))
    assert read(store.snapshot().read()) == [1, None, 3, 4, None]
    store.compact()
    assert read(store.snapshot().read()) == [1, None, 3, 4, None]


def test_a_writer_takes_samples_with_and_without_a_column(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    with store.writer() as writer:
        writer.add(helium(1, serial=serial([LARGE])))
        writer.add(helium(1, 1))
        with pytest.raises(DataError, match="serial"):
            writer.add(helium(1, 2, serial=(np.array([1.0]), "1", "sample")))
    assert read(store.snapshot().read()) == [LARGE, None]


def test_a_mask_set_by_hand_must_fit(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    batch = helium(2, serial=serial([1, 2]))
    batch.masks["serial"] = np.array([True])
    with pytest.raises(DataError, match=r"serial: expected a bool for each sample, shape \(2,\)"):
        store.append(batch)
    batch.masks = {"weight": np.array([True, True])}
    with pytest.raises(DataError, match="weight"):
        store.append(batch)
    assert store.version == 0


@pytest.mark.parametrize("name", ["other", "charge", "weight"])
def test_a_log_that_masks_another_column_is_refused(tmp_path, name):
    store = ml.create(tmp_path / "d.zarr")
    extra = {"serial": serial([1, None]), "weight": (np.zeros(2), "1", "sample")}
    document = segment_document(write_segment(store._storage, helium(2, **extra)))
    document["columns"][f"mask.{name}"] = document["columns"].pop("mask.serial")
    parent = store._log.refresh().parent
    entry = Entry(1, store.uuid, "0" * 32, parent, now(), "append", None, {"segments": [document]})
    (tmp_path / "d.zarr" / entry_path(1)).write_bytes(entry.encode())
    with pytest.raises(FormatError, match=f"mask.{name}"):
        ml.open(tmp_path / "d.zarr")


def test_a_dataset_has_the_mask_beside_the_column(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    pairs = np.ma.masked_array([[1, 2], [3, 4], [5, 2**62 + 1]], [[False] * 2, [True] * 2, [False] * 2])
    frozen = (np.array([True] * 6), "1", "atom")
    store.append(helium(3, pair=(pairs, "1", "sample"), frozen=frozen, pair_mask=(np.zeros(3), "1", "sample")))
    store.append(helium(1, 3))
    store.compact()
    ds = store.snapshot().to_xarray(chunks=None)
    assert ds["pair"].attrs["ancillary_variables"] == "pair_mask_"  # pair_mask is a column of the user's
    np.testing.assert_array_equal(ds["pair"].values, [[1, 2], [0, 0], [5, 2**62 + 1], [0, 0]])
    np.testing.assert_array_equal(ds["pair_mask_"].values, [True, False, True, False])
    np.testing.assert_array_equal(ds["pair_mask_"].values[[2, 1]], [True, False])
    np.testing.assert_array_equal(ds["frozen_mask"].values, [True] * 6 + [False] * 2)
    assert ds["frozen"].dtype == bool


@pytest.mark.parametrize(
    "values",
    [
        [None] * 3,
        np.array([None] * 3, object),
        np.ma.masked_array(np.array([1, 2.5, "x"], object), [True] * 3),
        np.ma.masked_array(np.array(["a", "b", "c"]), [True] * 3),
    ],
)
def test_a_block_in_which_no_row_has_its_string_is_a_column_of_strings(tmp_path, values):
    store = ml.create(tmp_path / "d.zarr")
    store.append(helium(3, kind=(values, "1", "sample")))
    assert store.snapshot().read().strings("kind") == [None] * 3
    store.append(helium(2, 3, kind=(["md", None], "1", "sample")))
    store.compact()
    batch = ml.open(store.url).snapshot().read()
    assert batch.strings("kind") == [None, None, None, "md", None]
    assert batch.user["kind"].coded
    assert store.verify(full=True).ok
    store.add_column("note", [None] * 5, axis="sample")
    assert store.snapshot().read().strings("note") == [None] * 5


@pytest.mark.parametrize("kind", [int, bool, float])
@pytest.mark.parametrize("inner", [(), (3,)])
def test_no_samples_have_masked_columns_too(kind, inner):
    values = np.ma.masked_array(np.zeros((0, *inner), kind), np.zeros((0, *inner), bool))
    batch = ml.SampleBatch(
        n_atoms=[], numbers=[], positions=np.zeros((0, 3)),
        extra={"step": (values, "1", "sample"), "word": (np.array([], object), "1", "sample")},
    )  # fmt: skip
    assert batch.columns["step"].shape == (0, *inner)
    assert (batch.masks, batch.strings("word")) == ({}, [])

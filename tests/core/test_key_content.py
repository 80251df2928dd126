"""A key stands for samples with their strings, sources, roots and units, however they are cut into batches."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data.concatenation import concatenate
from mlffstore.errors import ConflictError
from mlffstore.importing.target import Target


def make(n: int = 4, seed: int = 0, **arguments) -> ml.SampleBatch:
    rng = np.random.default_rng(seed)
    arguments = {"labels": {"q": {"energy": rng.normal(size=n)}}, **arguments}
    return ml.SampleBatch(
        n_atoms=[1] * n, numbers=[2] * n, positions=rng.normal(size=(n, 3)) * 5, multiplicity=[1] * n, **arguments
    )


def words(*values: str | None) -> ml.SampleBatch:
    return make(len(values), extra={"c": (values, "1", "sample")})


@pytest.fixture
def store(tmp_path):
    return ml.create(tmp_path / "s.zarr")


CHANGES = {
    "string": (words("bulk", "slab"), words("slab", "bulk")),
    "missing string": (words("bulk", None), words("bulk", "bulk")),
    "string column": (words("bulk", "slab"), make(2)),
    "numbers for strings": (words("a", "b"), make(2, extra={"c": (np.array([0, 1], np.uint32), "1", "sample")})),
    "root": (make(2), make(2, root=[1, 2])),
    "source": (make(2, source="a"), make(2, source="b")),
    "sampler": (make(2, sampler="a"), make(2, sampler="b")),
    "unit": (make(2, extra={"u": ([1.0, 2], "eV", "sample")}), make(2, extra={"u": ([1.0, 2], "Hartree", "sample")})),
    "mask": (
        make(2, extra={"m": (np.ma.masked_array([0, 1], [1, 0]), "1", "sample")}),
        make(2, extra={"m": ([0, 1], "1", "sample")}),
    ),
    "teacher": (make(2, labels={"q": {"energy": [1.0, 2]}}), make(2, labels={"p": {"energy": [1.0, 2]}})),
    "place of a label": (
        make(2, labels={"q": {"energy": [1.0, np.nan]}}),
        make(2, labels={"q": {"energy": [np.nan, 1.0]}}),
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_other_samples_are_refused(store, what):
    first, other = CHANGES[what]
    store.append(first, key="k", require=())
    assert store.append(first, key="k", require=()) == 1
    with pytest.raises(ConflictError):
        store.append(other, key="k", require=())


def _sparse() -> ml.SampleBatch:
    """Columns and teachers that only some samples have, of every kind."""
    nan = np.nan
    return make(
        6,
        source=["a", "b", "a", "c", "c", "b"],
        extra={
            "i": (np.ma.masked_array([1, 2, 3, 4, 5, 6], [1, 1, 0, 1, 0, 0]), "1", "sample"),
            "v": (np.ma.masked_array(np.arange(12).reshape(6, 2), [[0, 0]] * 4 + [[1, 1]] * 2), "eV", "atom"),
            "f": ([nan, nan, 1.0, nan, nan, nan], "1", "atom"),
            "c": ([None, None, "x", "y", "x", None], "1", "sample"),
            "empty": (np.ma.masked_all(6, np.int8), "1", "sample"),
        },
        labels={
            "q": {"energy": np.arange(6.0), "forces": np.vstack([np.full((3, 3), nan), np.ones((3, 3))])},
            "p": {"energy": [nan, nan, nan, nan, 3.0, nan]},
            "none": {"energy": [nan] * 6},
        },
    )


def _bare(batch: ml.SampleBatch) -> ml.SampleBatch:
    """The same samples, without what none of them has, and with the smallest vocabularies."""
    extra = {}
    for name, column in batch.user.items():
        values = batch.columns[name]
        mask = batch.masks.get(name, np.ones(len(values), bool))
        if column.coded:
            if mask.any():
                extra[name] = (batch.strings(name), column.unit, column.axis)
        elif values.dtype.kind == "f":
            if not np.isnan(values).all():
                extra[name] = (values, column.unit, column.axis)
        elif mask.any():
            hidden = np.broadcast_to(~mask.reshape(-1, *[1] * (values.ndim - 1)), values.shape)
            extra[name] = (np.ma.masked_array(values, hidden), column.unit, column.axis)
    labels = {
        teacher: {name: values for name, values in named.items() if not np.isnan(values).all()}
        for teacher, named in batch.labels.items()
    }
    return ml.SampleBatch(
        n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions, multiplicity=batch.multiplicity,
        source=batch.source, sampler=batch.sampler, extra=extra, labels={t: named for t, named in labels.items() if named},
    )  # fmt: skip


@pytest.mark.parametrize("cuts", [(2,), (1, 2, 3, 4, 5), (3, 5)])
@pytest.mark.parametrize("bare", [False, True])
def test_the_cuts_do_not_matter(store, cuts, bare):
    whole = _sparse()
    store.append(whole, key="k", require=())
    with store.transaction(key="k", require=()) as transaction:
        for start, stop in zip((0, *cuts), (*cuts, 6), strict=True):
            part = whole[start:stop]
            transaction.add(_bare(part) if bare else part)
        assert transaction.commit() == 1


def test_pieces_first(store):
    pieces = [words("b", "a"), words("c", "a", None), make(2, 1)]
    with store.transaction(key="k", require=()) as transaction:
        for piece in pieces:
            transaction.add(piece)
        transaction.commit()
    assert store.append(concatenate(pieces), key="k", require=()) == 1


def test_rejected_samples_count_too(store):
    def commit(*rejected: ml.SampleBatch) -> int:
        with store.transaction(key="k", require=()) as transaction:
            for batch in rejected:
                transaction.add(None, rejected=batch, reasons=["bad"] * len(batch))
            return transaction.commit()

    assert commit(words("a", "b", "a")) == commit(words("a", "b", "a")[:1], words("a", "b", "a")[1:]) == 1
    with pytest.raises(ConflictError):
        commit(words("a", "b", "b"))


def test_any_nan_is_missing(store):
    other = np.array([0x7FF8000000000001, 0], np.uint64).view(np.float64)
    store.append(make(2, labels={"q": {"energy": [np.nan, 0.0]}}), key="k", require=())
    assert store.append(make(2, labels={"q": {"energy": other}}), key="k", require=()) == 1


def test_skipped_duplicates_do_not_change_the_key(store):
    store.append(make(2), require=())
    for _ in range(2):
        assert store.append(make(4), key="k", require=(), on_duplicate="skip") == 2
    with pytest.raises(ConflictError):
        store.append(make(4, root=[1, 1, 1, 1]), key="k", require=(), on_duplicate="skip")


def test_a_copy_of_a_file_that_another_process_imports_meanwhile_is_the_same_import(tmp_path, monkeypatch):
    (tmp_path / "a.xyz").write_text(
        '1\nProperties=species:S:1:pos:R:3:forces:R:3 energy=1.0 pbc="F F F"\nHe 0 0 0 0 0 0\n'
    )
    shutil.copy(tmp_path / "a.xyz", tmp_path / "b.xyz")
    assert ml.import_files([tmp_path / "a.xyz"], tmp_path / "s.zarr").samples == 1
    monkeypatch.setattr(Target, "imported", lambda *_: None)  # the other commit comes after this look
    for name in ("a.xyz", "b.xyz"):
        assert ml.import_files([tmp_path / name], tmp_path / "s.zarr", on_duplicate="skip").samples == 0
    assert len(ml.open(tmp_path / "s.zarr")) == 1

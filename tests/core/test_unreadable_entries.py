"""What readers would take for damage is refused before it is in the log: one bad call leaves the store as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def samples(n: int = 2, **more: Any) -> ml.SampleBatch:
    rng = np.random.default_rng(n)
    return ml.SampleBatch(
        n_atoms=[1] * n,
        numbers=[2] * n,
        positions=rng.normal(size=(n, 3)) * 5,
        labels={"q": {"energy": rng.normal(size=n)}},
        **more,
    )


def changed(store: ml.Store, change: Callable[[ml.SampleBatch], None]) -> ml.SampleBatch:
    batch = store.snapshot().read()
    change(batch)
    return batch


def _energy(batch: ml.SampleBatch, dtype: str) -> None:
    batch.labels["q"]["energy"] = batch.labels["q"]["energy"].astype(dtype)


def _column(batch: ml.SampleBatch, name: str, array: Any) -> None:
    batch.columns[name] = array


BAD: dict[str, Callable[[ml.Store], object]] = {
    "long name": lambda s: s.add_column("v", [1.0, 2.0], long_name=5),  # type: ignore[arg-type]
    "NUL in a unit": lambda s: s.add_column("v", [1.0, 2.0], unit="a\0b"),
    "surrogate in a unit": lambda s: s.add_column("v", [1.0, 2.0], unit="\ud800"),
    "NUL in a source": lambda s: s.append(samples(1).with_source("a\0b", "x"), require=()),
    "no text as source": lambda s: s.append(samples(1).with_source(5, "x"), require=()),  # type: ignore[arg-type]
    "dimensions": lambda s: s.add_column("v", np.zeros((2,) + (1,) * 30)),
    "width 0": lambda s: s.add_column("v", np.zeros((2, 0))),
    "width 0 in a batch": lambda s: s.append(samples(extra={"v": (np.zeros((2, 0)), "1", "sample")}), require=()),
    "energy in float32": lambda s: s.append(changed(s, lambda b: _energy(b, "f4")), require=()),
    "energy of another byte order": lambda s: s.append(changed(s, lambda b: _energy(b, ">f8")), require=()),
    "integers as floats": lambda s: s.append(changed(s, lambda b: _column(b, "u", b.columns["u"] + 0.5)), require=()),
    "charge": lambda s: s.append(changed(s, lambda b: _column(b, "charge", b.columns["charge"].astype(int))), require=()),
    "a shorter column": lambda s: s.append(changed(s, lambda b: _column(b, "u", b.columns["u"][:1])), require=()),
    "codes": lambda s: s.append(changed(s, lambda b: _column(b, "source", b.columns["source"] + 7)), require=()),
    "teacher": lambda s: s.append(changed(s, lambda b: b.labels.update({"a/b": b.labels["q"]})), require=()),
}  # fmt: skip


@pytest.mark.parametrize("call", BAD.values(), ids=BAD)
def test_a_bad_call_leaves_the_store_as_it_was(tmp_path: Path, call: Callable[[ml.Store], object]) -> None:
    store = ml.create(tmp_path / "s.zarr")
    store.append(samples(extra={"u": ([1, 2], "1", "sample")}), require=())
    before = store.snapshot().read()
    with pytest.raises(DataError):
        call(store)
    assert store.version == ml.open(store.url).version == 1
    assert not ml.verify(store.url, full=True).problems
    store.append(samples(3), require=())  # the handle goes on
    after = ml.open(store.url).snapshot().read([0, 1])
    assert np.array_equal(after.energy, before.energy)
    assert np.array_equal(after.columns["u"], before.columns["u"])


def test_an_entry_of_any_operation_is_read_before_it_is_written(tmp_path: Path) -> None:
    from mlffstore.store.question import Step

    store = ml.create(tmp_path / "s.zarr")
    store.append(samples(), require=())
    with pytest.raises(DataError, match="readers of the store accept"):
        store.tag("a", selection=store.snapshot().take([0], Step(5, {})))  # type: ignore[arg-type]
    assert ml.open(store.url).version == 1

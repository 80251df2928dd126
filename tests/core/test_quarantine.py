"""Rejected samples of several commits may have labels of one name and of two kinds: never read as one, never merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def helium(number: int, labels: dict[str, dict[str, Any]], *properties: ml.Property) -> ml.SampleBatch:
    return ml.SampleBatch(
        n_atoms=[1], numbers=[2], positions=[[number] * 3], labels=labels, properties=list(properties)
    )


def of_dtype(k: int) -> ml.SampleBatch:
    """Embeddings as float16, then as float32 that float16 cannot hold."""
    values = np.ones((1, 2), "f2") if k == 0 else np.array([[0.1234567, 70000.0]], "f4")
    return helium(k, {"t": {"energy": np.array([1.0]), "embedding": values}})


def of_width(k: int) -> ml.SampleBatch:
    return helium(k, {"t": {"energy": np.array([1.0]), "embedding": np.ones((1, 4 + 4 * k), "f4")}})


def of_unit(k: int) -> ml.SampleBatch:
    spec = ml.Property("gap", axis="sample", unit=("1/angstrom", "eV")[k], register=False)
    return helium(k, {"t": {"gap": np.array([1.0 + k])}}, spec)


def of_two_teachers(k: int) -> ml.SampleBatch:
    spec = ml.Property("gap", axis="sample", unit=("1/angstrom", "eV")[k], register=False)
    return helium(k, {"tu"[k]: {"gap": np.array([1.0 + k])}}, spec)


@pytest.mark.filterwarnings("error")  # numpy warns of values that a dtype cannot hold
@pytest.mark.parametrize("made", [of_dtype, of_width, of_unit, of_two_teachers])
def test_two_kinds_of_a_label_are_read_apart(tmp_path: Path, made: Callable[[int], ml.SampleBatch]) -> None:
    store = ml.create(tmp_path / "s")
    for k in range(2):
        store.append(made(k), require=())
        store.remove([0], reason="wrong")
    quarantine = store.snapshot().quarantine
    for k in range(2):
        one, wanted = quarantine.read([k]), made(k)
        for teacher, named in wanted.labels.items():
            for name, values in named.items():
                np.testing.assert_array_equal(one.labels[teacher][name], values)
                assert one.property_of(name).unit == wanted.property_of(name).unit
    whole: list[Callable[[], Any]] = [quarantine.read, quarantine.table, lambda: list(quarantine)]
    whole.append(lambda: quarantine.to_xarray().compute())
    for read in whole:
        with pytest.raises(DataError, match=r"embedding|gap"):
            read()
    store.compact()  # leaves them apart
    assert len(quarantine.read(columns=["numbers"])) == len(store.snapshot().quarantine) == 2
    assert store.verify(full=True).ok


def test_one_kind_is_still_merged(tmp_path: Path) -> None:
    store = ml.create(tmp_path / "s")
    for _ in range(2):
        store.append(of_width(0), require=())
        store.remove([0], reason="wrong")
    assert len(store.compact().versions) == 1
    assert store.snapshot().quarantine.read().labels["t"]["embedding"].shape == (2, 4)

"""The export `atompack` as a source of samples: files of atompack, and what ``mlffstore.json`` says of their columns."""

from __future__ import annotations

import functools
import itertools
import json
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.splits import SPLITS
from mlffstore.data.vocabulary import encode
from mlffstore.importing.atompack_file import molecules_of
from mlffstore.importing.exports.columns import FileColumn, batch_of
from mlffstore.importing.exports.sidecar import read_sidecar
from mlffstore.importing.packed import reading
from mlffstore.importing.values import voigt

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.schema import Array

_FIELDS = ("energy", "forces", "stress", "charges")


def blocks_of_atompack(path: Path, teachers: tuple[str, ...], n_samples: int) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples of one file after another, some at a time, and the split of each.

    Raises
    ------
    DataError
        If a file is damaged.
    """
    described = json.loads(read_sidecar(path).get("columns", "{}"))
    for code, split in enumerate(SPLITS):
        for file in sorted((*path.glob(f"{split}.atp"), *path.glob(f"{split}-*.atp"))):
            molecules = molecules_of(file)
            while block := list(itertools.islice(molecules, n_samples)):
                with reading("a file of an export for atompack", functools.partial(str, file), Exception):
                    batch = batch_of([*_structure(block), *_columns(block, described)], teachers)
                yield batch, np.full(len(batch), code)


def _structure(block: Sequence[Any]) -> Iterator[FileColumn]:
    per_sample = {
        "n_atoms": [len(molecule) for molecule in block],
        "cell": [np.zeros((3, 3)) if molecule.cell is None else molecule.cell for molecule in block],
        "pbc": [molecule.pbc or (False, False, False) for molecule in block],
        "charge": [molecule.get_property("charge") for molecule in block],
        "multiplicity": [molecule.get_property("multiplicity") for molecule in block],
        "root": np.array([int(molecule.get_property("root"), 16) for molecule in block], np.uint64),
    }
    for name, values in per_sample.items():
        yield FileColumn(name, np.asarray(values), {"axis": "sample"})
    yield FileColumn("numbers", np.concatenate([molecule.atomic_numbers for molecule in block]), {"axis": "atom"})
    yield FileColumn("positions", np.concatenate([molecule.positions for molecule in block]), {"axis": "atom"})
    for name in ("source", "sampler"):
        codes, words = encode([molecule.get_property(name) for molecule in block])
        yield FileColumn(name, codes, {"axis": "sample"}, words=words)


def _columns(block: Sequence[Any], described: dict[str, dict[str, Any]]) -> Iterator[FileColumn]:
    """Yield the labels and user columns that some molecule has."""
    for name, attrs in described.items():
        values = [_value(molecule, name) for molecule in block]
        if all(value is None for value in values):
            continue
        rows = [len(molecule) if attrs["axis"] == "atom" else 1 for molecule in block]
        there = np.repeat([value is not None for value in values], rows)
        if attrs["coded"]:
            texts = [_texts(value, n, attrs["axis"]) for value, n in zip(values, rows, strict=True)]
            flat = [text for part in texts for text in part]
            there = np.array([text is not None for text in flat])
            codes, words = encode([text for text in flat if text is not None])
            whole: Array = np.zeros(len(flat), np.uint32)
            whole[there] = codes
            yield FileColumn(name, whole, {**attrs, "meanings": json.dumps(words)}, there, words or ("",))
            continue
        dtype, first = np.dtype(attrs["dtype"]), next(value for value in values if value is not None)
        inner = np.shape(first)[1:] if attrs["axis"] == "atom" else np.shape(first)
        missing = np.full(inner, np.nan if dtype.kind == "f" else 0, dtype)
        parts = [
            np.broadcast_to(missing, (n, *inner)) if value is None else _stored(value, dtype).reshape(n, *inner)
            for value, n in zip(values, rows, strict=True)
        ]
        for molecule, start, n in zip(block, np.cumsum([0, *rows]), rows, strict=False):
            if molecule.has_property(f"{name}.mask"):
                there[start : start + n] = molecule.get_property(f"{name}.mask").astype(bool)
        yield FileColumn(name, np.concatenate(parts).astype(dtype), attrs, there)


def _value(molecule: Any, name: str) -> Any:
    if name in _FIELDS and (value := getattr(molecule, name)) is not None:
        return voigt(value) if name == "stress" else value
    return molecule.get_property(name) if molecule.has_property(name) else None


def _texts(value: str | None, n: int, axis: str) -> list[str | None]:
    if value is None:
        return [None] * n
    return [value] if axis == "sample" else list(json.loads(value))


def _stored(value: Any, dtype: np.dtype[Any]) -> Array:
    """Return numbers in the dtype of their column; unsigned integers of 64 bits are in the file as signed ones."""
    array = np.asarray(value)
    return array.astype(np.int64).view(np.uint64) if dtype == np.uint64 else array.astype(dtype)

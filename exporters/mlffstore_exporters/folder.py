"""Files and folders that are there whole or not at all, and the samples that go into them."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from typing import TYPE_CHECKING

import numpy as np

from mlffstore.errors import ReleaseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import h5py

    from mlffstore.batch import SampleBatch
    from mlffstore.ragged import Ints
    from mlffstore.schema import Array
    from mlffstore.snapshot import Snapshot

#: Samples in memory at a time.
BLOCK = 4096


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Make a folder under another name, to be filled; make it durable and give it its name at the end.

    Raises
    ------
    ReleaseError
        If there is something at `target` already.
    """
    taken = f"{target}: expected no such folder; it is never overwritten: choose another name, or remove it"
    if target.exists():
        raise ReleaseError(taken)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.mkdir()
    try:
        yield temporary
        for path in sorted(temporary.rglob("*")):
            _fsync(path)
        _fsync(temporary)
        try:
            temporary.rename(target)
        except OSError as error:  # somebody else was faster
            raise ReleaseError(taken) from error
        _fsync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_hdf5(target: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file under another name; make it durable and let it replace `target` at the end."""
    import h5py

    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        # "latest" would shut out older readers; track_order keeps the columns in the order of the specification.
        with h5py.File(temporary, "w", libver=("earliest", "v110"), track_order=True) as file:
            yield file
        _fsync(temporary)
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parts(
    snapshot: Snapshot,
    splits: Mapping[str, Ints],
    teacher: str,
    progress: Callable[[int, int], object] | None,
    size: int = BLOCK,
) -> Iterator[tuple[str, int, SampleBatch]]:
    """Yield (split, number, samples), so many samples at a time."""
    total, done = sum(len(index) for index in splits.values()), 0
    for split, index in splits.items():
        for number, low in enumerate(range(0, len(index), size)):
            batch = snapshot.read(index[low : low + size], teacher=teacher)
            yield split, number, batch
            done += len(batch)
            if progress is not None:
                progress(done, total)


def has_stress(batch: SampleBatch, teacher: str) -> Array:
    """Return which samples have a whole stress, shape (S,), bool."""
    stress = batch.labels[teacher].get("stress")
    return np.zeros(len(batch), bool) if stress is None else np.asarray(np.isfinite(stress).all(axis=1))

"""Files and folders that are there whole or not at all, and the samples that go into them."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.properties import ordered
from mlffstore.data.schema import LABELS, split_key
from mlffstore.errors import ReleaseError
from mlffstore.runtime.documents import json_text
from mlffstore.store.presence import present

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import h5py

    from mlffstore.data.batch import SampleBatch
    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)

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
        except OSError as error:  # another process was faster
            raise ReleaseError(taken) from error
        _fsync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def new_hdf5(target: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file under another name; make it durable and give it its name at the end.

    Raises
    ------
    ReleaseError
        If there is something at `target` already.
    """
    import h5py

    taken = f"{target}: expected no such file; it is never overwritten: choose another name, or remove it"
    if target.exists():
        raise ReleaseError(taken)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    temporary.touch(exist_ok=False)  # HDF5 has no plain words for a folder that cannot be written to
    try:
        # "latest" would shut out older readers, "earliest" attributes of more than 64 KiB (strings of coded columns).
        # track_order keeps the columns in the order of the specification.
        with h5py.File(temporary, "w", libver=("v108", "v110"), track_order=True) as file:
            yield file
        _fsync(temporary)
        _give_name(temporary, target, taken)
        _fsync(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _give_name(temporary: Path, target: Path, taken: str) -> None:
    """Give a file its name unless another process was faster."""
    try:
        os.link(temporary, target)
    except FileExistsError as error:
        raise ReleaseError(taken) from error
    except OSError as error:  # a file system without hard links
        if target.exists():
            raise ReleaseError(taken) from error
        temporary.rename(target)


def write_sidecar(folder: Path, layout: str, attributes: Mapping[str, Any]) -> None:
    """Write ``mlffstore.json``, which says where the samples of an export come from, for imports of it."""
    document = {**attributes, "format": f"mlffstore-{layout} 1"}
    (folder / "mlffstore.json").write_text(json_text(document), encoding="utf-8")


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def parts(
    snapshot: Samples,
    splits: Mapping[str, Ints],
    teacher: str,
    progress: Callable[[int, int], object] | None,
    size: int = BLOCK,
) -> Iterator[tuple[str, int, SampleBatch]]:
    """Yield (split, number, samples), so many samples at a time; at the end, log which labels were missing."""
    total, done = sum(len(index) for index in splits.values()), 0
    account = Account((teacher,))
    for split, index in splits.items():
        for number, low in enumerate(range(0, len(index), size)):
            batch = snapshot.read(index[low : low + size], teacher=teacher)
            account.add(batch)
            yield split, number, batch
            done += len(batch)
            if progress is not None:
                progress(done, total)
    account.tell()


def blocks(snapshot: Samples, splits: Sequence[Ints], teachers: Sequence[str]) -> Iterator[tuple[SampleBatch, Array]]:
    """Yield the samples in store order, so that every chunk of the store is decoded once, and the split of each.

    The next block is read while one is being written.
    """
    owner = np.full(len(snapshot), -1, np.int8)
    for k, index in enumerate(splits):
        owner[index] = k
    wanted = np.flatnonzero(owner >= 0)
    pieces = [wanted[low : low + BLOCK] for low in range(0, len(wanted), BLOCK)]
    with ThreadPoolExecutor(1, thread_name_prefix="mlffstore-export") as pool:
        coming = [pool.submit(snapshot.read, part, teacher=teachers) for part in pieces[:1]]
        for k, part in enumerate(pieces):
            batch = coming.pop().result()
            if k + 1 < len(pieces):
                coming.append(pool.submit(snapshot.read, pieces[k + 1], teacher=teachers))
            yield batch, owner[part]


class Account:
    """Counts the samples of an export and which labels they lack.

    Parameters
    ----------
    teachers : sequence of str
    """

    def __init__(self, teachers: Sequence[str]) -> None:
        self.samples = 0
        self.present = {teacher: dict.fromkeys(LABELS, 0) for teacher in teachers}

    def add(self, batch: SampleBatch) -> None:
        """Count the samples of a batch."""
        self.samples += len(batch)
        for teacher, counts in self.present.items():
            for name in counts:
                counts[name] += int(np.count_nonzero(present(batch, teacher, name)))

    def tell(self) -> None:
        """Log a warning for each teacher some of whose energies or forces are missing.

        Stress is left out: a molecule has none.
        """
        for teacher, counts in self.present.items():
            for name in ("energy", "forces"):
                missing = self.samples - counts[name]
                if missing and (len(self.present) == 1 or counts[name]):
                    logger.warning(
                        "%s of the %s exported samples have no %s of %r; it is marked as missing there",
                        f"{missing:,}", f"{self.samples:,}", name, teacher,
                    )  # fmt: skip


def other_labels(snapshot: Samples, teacher: str, reason: str) -> dict[str, str]:
    """Return the labels of a teacher beside energy, forces and stress, each with the reason why a layout leaves it out."""
    names = ordered(
        {split_key(key)[0] for key in snapshot.label_columns() if split_key(key)[1] == teacher} - set(LABELS)
    )
    return dict.fromkeys(names, reason)


def tell_left_out(layout: str, columns: Mapping[str, str]) -> None:
    """Log a warning that names the columns for which a layout has no place, each with the reason."""
    if columns:
        what = "; ".join(f"{name} ({reason})" for name, reason in columns.items())
        logger.warning("%s has no place for these columns, they were left out: %s", layout, what)

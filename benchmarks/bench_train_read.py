"""Training reads: a shuffled epoch and batches of 32, ours beside its peers, in one run on one corpus, one process.

    python benchmarks/bench_train_read.py [--samples 20000] [--rounds 5] [--slow 20]

- "epoch" is a whole shuffled epoch in batches of 32, samples/s: ours by `TorchDataset.loader` (collated torch tensors, two
  threads gather), atompack-db by `get_molecules_flat` of 32 samples (its native arrays, its own threads) and, as the most it
  gives, of 512 samples, which is no batch of 32 yet.
- "batch" is one call for 32 random samples, ms: ours collated to torch tensors by `TorchDataset.batch`, in one thread.
- "cold" is what it takes from nothing to the first batch: for ours the decoding of everything into the cache.
- "size" is bytes on disk over the raw columns: store, release, files. The size of the cache is printed below.
The slow peers (h5py, SQLite, LMDB) read `--slow` batches. Rounds are interleaved; medians. Caches lie in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from bench_store import Atompack, Sqlite, as_batch, corpus, size

import mlffstore as ml
from mlffstore.training import cache

BATCH, WINDOW = 32, 512


class Ours:
    """A `TorchDataset` with a mapped cache."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path

    def open(self) -> None:
        for one in cache.cached():
            shutil.rmtree(one.path)
        self.data = ml.TorchDataset(self.path, split=None)
        self.batch(np.arange(BATCH))

    def epoch(self, order: np.ndarray) -> int:
        for batch in self.data.loader(BATCH, seed=int(order[0])):
            batch["ptr"]
        return len(self.data)

    def batch(self, index: np.ndarray) -> None:
        self.data.batch(index)


class Streaming:
    """`TorchDataset.stream`: bounded memory, no cache."""

    name = "mlffstore, streaming"

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> None:
        self.data = ml.TorchDataset.stream(self.path, split=None, batch_size=BATCH)
        next(iter(self.data))

    def epoch(self, order: np.ndarray) -> int:
        self.data.set_epoch(int(order[0]))
        return sum(len(batch["energy"]) for batch in self.data)


class Pack(Atompack):
    """atompack-db; the epoch in calls of so many samples."""

    call = BATCH

    def epoch(self, order: np.ndarray) -> int:
        for low in range(0, len(order), self.call):
            self.database.get_molecules_flat(order[low : low + self.call].tolist())
        return len(order)

    def batch(self, index: np.ndarray) -> None:
        self.database.get_molecules_flat(index.tolist())


class Slices:
    """h5py slices of the release, collated with NumPy."""

    name = "h5py slices"

    def __init__(self, path: Path, slow: int) -> None:
        self.path, self.slow = path, slow

    def open(self) -> None:
        self.file = h5py.File(self.path)
        self.starts = {split: np.concatenate([[0], np.cumsum(self.file[split]["n_atoms"][:])]) for split in ("train",)}

    def epoch(self, order: np.ndarray) -> int:
        n = self.slow * BATCH
        for low in range(0, n, BATCH):
            self.batch(order[low : low + BATCH])
        return n

    def batch(self, index: np.ndarray) -> None:
        group, starts = self.file["train"], self.starts["train"]
        index = index % (len(starts) - 1)
        parts: dict[str, list[Any]] = {"numbers": [], "positions": [], "forces": []}
        for i in index:
            for name, several in parts.items():
                several.append(group[name][starts[i] : starts[i + 1]])
        for several in parts.values():
            torch.from_numpy(np.concatenate(several))
        [group["energy"][i] for i in index]


class Frames(Sqlite):
    """ASE's SQLite; frames of the first samples."""

    def __init__(self, folder: Path, c: dict[str, np.ndarray], slow: int) -> None:
        super().__init__(folder, c, min(1000, len(c["energy"])))
        self.slow = slow

    def epoch(self, order: np.ndarray) -> int:
        n = self.slow * BATCH
        self.read(order[:n])
        return n

    def batch(self, index: np.ndarray) -> None:
        self.read(index)


class Lmdb(Frames):
    """asebytes on LMDB."""

    name = "asebytes LMDB"

    def __init__(self, folder: Path, c: dict[str, np.ndarray], slow: int) -> None:
        super().__init__(folder, c, slow)
        self.path = folder / "frames.lmdb"

    def write(self) -> int:
        import asebytes

        asebytes.ASEIO(str(self.path)).extend(self.frames)
        return self.n

    def open(self) -> None:
        import asebytes

        if not hasattr(self, "database"):  # LMDB opens a file once a process
            self.database = asebytes.ASEIO(str(self.path), readonly=True)

    def read(self, index: np.ndarray | None) -> None:
        assert index is not None
        for i in index % self.n:
            self.database[int(i)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, default=300, help="single batches a round, for the quantiles")
    parser.add_argument("--slow", type=int, default=20)
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp())
    os.environ["MLFFSTORE_CACHE"] = str(base / "cache")
    c = corpus(Path(tempfile.gettempdir()), args.samples)
    batch = as_batch(c)
    raw = batch.nbytes
    store = ml.create(base / "ours.zarr")
    for low in range(0, len(batch), 4096):
        store.append(batch[low : low + 4096])
    release = ml.get_exporter("hdf5")(store.snapshot(), base / "ours.h5")
    contenders: list[Any] = [Ours("mlffstore, from Zarr", base / "ours.zarr"), Ours("mlffstore, from HDF5", release)]
    contenders.append(Streaming(base / "ours.zarr"))
    try:
        contenders += [Pack(base, c, "none", False), Pack(base, c, "zstd", False)]
        many = Pack(base, c, "none", False)
        many.call, many.name = WINDOW, f"atompack-db, {WINDOW} a call"
        contenders.append(many)
    except ImportError:
        print("atompack-db is not installed: left out", file=sys.stderr)
    contenders.append(Slices(release, args.slow))
    contenders.append(Frames(base, c, args.slow))
    try:
        import asebytes  # noqa: F401

        contenders.append(Lmdb(base, c, args.slow))
    except ImportError:
        print("asebytes[lmdb] is not installed: left out", file=sys.stderr)
    sizes: dict[str, float] = {}
    for one in contenders:
        written = one.write() if hasattr(one, "write") else args.samples
        sizes[one.name] = size(one.path) / (raw * written / args.samples)
    ml.TorchDataset(base / "ours.zarr", split=None).batch([0])  # compiles the kernels
    rng = np.random.default_rng(0)
    epochs: dict[str, list[float]] = {one.name: [] for one in contenders}
    single: dict[str, list[float]] = {one.name: [] for one in contenders}
    cold: dict[str, list[float]] = {one.name: [] for one in contenders}
    for _ in range(args.rounds):
        order = rng.permutation(args.samples)
        for one in contenders:
            began = time.perf_counter()
            one.open()
            cold[one.name].append(time.perf_counter() - began)
            if hasattr(one, "batch"):
                for k in range(args.batches if not hasattr(one, "slow") else args.slow):
                    index = order[(k * BATCH) % (args.samples - BATCH) :][:BATCH]
                    began = time.perf_counter()
                    one.batch(index)
                    single[one.name].append(1e3 * (time.perf_counter() - began))
            began = time.perf_counter()
            n = one.epoch(order)
            epochs[one.name].append(n / (time.perf_counter() - began))
    print(f"{args.samples} samples, {raw / 1e6:.0f} MB raw, {args.rounds} rounds, medians")
    print(f"{'':24}{'epoch /s':>12}{'to atompack':>13}{'batch p50 ms':>14}{'p99 ms':>9}{'cold s':>9}{'size / raw':>12}")
    peer = statistics.median(epochs.get("atompack-db, none", [float("nan")]))
    for one in contenders:
        rate, several = statistics.median(epochs[one.name]), single[one.name] or [float("nan")]
        p50, p99 = np.quantile(several, [0.5, 0.99])
        first = statistics.median(cold[one.name])
        print(
            f"{one.name:24}{rate:>12,.0f}{rate / peer:>12.2f}x{p50:>14.3f}{p99:>9.3f}{first:>9.2f}{sizes[one.name]:>12.2f}"
        )
    print(f"cache: {sum(one.nbytes for one in cache.cached()) / raw:.2f} of the raw columns")
    shutil.rmtree(base)


if __name__ == "__main__":
    main()

"""Appending: several processes at once, long logs, and what other ways of appending lose.

    python benchmarks/bench_append.py [--rounds 3] [--commits 30] [--log 20000] [--folder DIR]

1. Commits/s and samples/s of 1, 2, 4 and 8 processes that append to one store; every commit is fsynced when it returns.
   A round measures all of them and atompack-db in turn; medians. Samples are those of ../shared/bench/corpus.py.
   Beside them what the file system itself gives: small files made and fsynced by as many processes, each in a folder
   of its own. And the same in memory (--memory), where the file system is no limit.
2. Time of one small commit, and of opening the store, against the number of commits in its log. (fsync is switched off
   while the log is made longer, and on again for what is timed.)
3. What on_duplicate="skip" costs in a store of a million samples.
4. What two ways of appending to one dataset from several processes lose: atompack-db, which has no lock, and a plain Zarr
   array that is resized and written to.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from bench_store import Atompack, as_batch, corpus, timed

import mlffstore as ml
from mlffstore.storage import local

if TYPE_CHECKING:
    from collections.abc import Callable

PROCESSES = (1, 2, 4, 8)
SIZES = (16, 1024)  # samples a commit


def together(n: int, target: Callable[..., None], *args: Any) -> float:
    """Run `target` in n processes that start at the same moment; return the seconds until the last is done."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(n + 1)
    workers = [context.Process(target=target, args=(barrier, who, *args)) for who in range(n)]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.perf_counter()
    barrier.wait()  # all done
    seconds = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return seconds


def append(barrier: Any, who: int, path: Path, data: Path, size: int, commits: int) -> None:
    with np.load(data) as file:
        batch = as_batch({name: file[name] for name in file.files})
    parts = [batch[i : i + size] for i in range(0, len(batch) - size + 1, size)][:8]
    store = ml.open(path, "a")
    barrier.wait()
    for i in range(commits):
        store.append(parts[(who + i) % len(parts)])
    barrier.wait()


def make_files(barrier: Any, who: int, base: Path, files: int) -> None:
    folder = base / f"bare-{who}"
    folder.mkdir()
    barrier.wait()
    for i in range(files):
        descriptor = os.open(folder / str(i), os.O_CREAT | os.O_WRONLY | os.O_EXCL)
        os.write(descriptor, bytes(500))
        os.fsync(descriptor)
        os.close(descriptor)
    barrier.wait()


def row(name: str, values: list[float]) -> str:
    return f"{name:44}" + "".join(f"{value:>14,.1f}" for value in values) + f"{values[1] / values[0]:>10.2f}"


def throughput(base: Path, data: Path, c: dict[str, np.ndarray], rounds: int, commits: int, where: str) -> None:
    rates: dict[tuple[int, int], list[float]] = {}
    peers: dict[str, list[float]] = {}
    for _ in range(rounds):
        for n in PROCESSES:
            seconds = together(n, make_files, base, 300)
            rates.setdefault((0, n), []).append(n * 300 / seconds)
            for path in base.glob("bare-*"):
                shutil.rmtree(path)
            for size in SIZES:
                store = ml.create(base / "append.zarr")
                seconds = together(n, append, base / "append.zarr", data, size, commits)
                assert store.version == n * commits
                rates.setdefault((size, n), []).append(n * commits / seconds)
                shutil.rmtree(base / "append.zarr")
        for kind in ("none", "zstd"):
            try:
                one = Atompack(base, c, kind, True)
            except ImportError:
                print("atompack-db is not installed (pip install atompack-db): left out", file=sys.stderr)
                break
            seconds = timed(one.write)
            peers.setdefault(one.name, []).append(len(c["energy"]) / seconds)
            one.path.unlink()
    print(f"\nappending {where}, {os.cpu_count()} cores, {commits} commits a process, {rounds} rounds, medians")
    print(f"{'':44}" + "".join(f"{f'{n} processes':>14}" for n in PROCESSES) + f"{'2 to 1':>10}")
    print(row("bare small files/s, fsynced", [statistics.median(rates[0, n]) for n in PROCESSES]))
    for size in SIZES:
        medians = [statistics.median(rates[size, n]) for n in PROCESSES]
        print(row(f"commits/s, {size} samples each", medians))
        print(row(f"samples/s, {size} samples each", [m * size for m in medians]))
    for name, found in peers.items():
        print(f"{f'samples/s, {name}':44}{statistics.median(found):>14,.1f}  one writer only; commits of 4096")


def long_logs(base: Path, c: dict[str, np.ndarray], longest: int) -> None:
    store = ml.create(base / "long.zarr")
    batch = as_batch(c)[:4]
    print("\na commit of 4 samples against the length of the log")
    print(f"{'commits':>10}{'one commit, ms':>18}{'opening, ms':>14}{'opening and reading 32, ms':>30}")
    rng = np.random.default_rng(0)
    for target in sorted({0, 100, 1000, longest // 4, longest // 2, longest}):
        real, local.os.fsync = local.os.fsync, lambda descriptor: None
        while store.version < target:
            store.append(batch)
        local.os.fsync = real
        commit = statistics.median(timed(lambda: store.append(batch)) for _ in range(25))
        opening = statistics.median(timed(lambda: ml.open(store.url)) for _ in range(7))
        index = rng.integers(0, len(store), 32)
        reading = statistics.median(
            timed(lambda index=index: ml.open(store.url).snapshot().read(index)) for _ in range(5)
        )
        print(f"{store.version:>10,}{1e3 * commit:>18.1f}{1e3 * opening:>14.1f}{1e3 * reading:>30.1f}", flush=True)
    shutil.rmtree(base / "long.zarr")


def duplicates(base: Path, c: dict[str, np.ndarray], n: int = 1_000_000) -> None:
    store = ml.create(base / "duplicates.zarr")
    rng = np.random.default_rng(0)
    per = 100_000
    for _ in range(n // per):
        ones = np.ones(per, int)
        store.append(ml.SampleBatch(n_atoms=ones, numbers=ones, positions=rng.normal(size=(per, 3))), require=())
    batch = as_batch(c)
    parts = iter(batch[i : i + 256] for i in range(0, len(batch), 256))
    print(f"\na commit of 256 samples to a store of {len(store):,}")
    first = timed(lambda: store.append(next(parts), on_duplicate="skip"))
    times: dict[str, list[float]] = {"keep": [], "skip": []}
    for _ in range(25):
        for policy, found in times.items():
            found.append(timed(lambda policy=policy: store.append(next(parts), on_duplicate=policy)))
    medians = {policy: statistics.median(found) for policy, found in times.items()}
    print(f'on_duplicate="keep" {1e3 * medians["keep"]:.1f} ms, "skip" {1e3 * medians["skip"]:.1f} ms; '
          f"the first with skip, which reads all hashes, {1e3 * first:.0f} ms")  # fmt: skip
    shutil.rmtree(base / "duplicates.zarr")


def append_zarr(barrier: Any, who: int, path: Path, batches: int) -> None:
    import zarr

    barrier.wait()
    for i in range(batches):
        try:
            array = zarr.open_array(path, mode="r+")
            array.append(np.full(100, 1 + who * batches + i))
        except Exception:
            # The metadata may be read while another process writes it; the batch is lost.
            continue
    barrier.wait()


def append_atompack(barrier: Any, who: int, path: Path, batches: int) -> None:
    import atompack

    barrier.wait()
    for i in range(batches):
        try:
            database = atompack.Database.open(str(path), mmap=False)
            atoms = np.zeros((1, 3), np.float32), np.ones(1, np.uint8)
            database.add_molecules([atompack.Molecule.from_arrays(*atoms, energy=float(1 + who * batches + i))])
            database.flush()
        except Exception:
            # A damaged file raises all kinds of errors; the batch is lost.
            continue
    barrier.wait()


def append_ours(barrier: Any, who: int, path: Path, batches: int) -> None:
    store = ml.open(path, "a")
    barrier.wait()
    for i in range(batches):
        energy = [float(1 + who * batches + i)]
        store.append(
            ml.SampleBatch(n_atoms=[1], numbers=[1], positions=np.zeros((1, 3)), energy=energy, forces=np.zeros((1, 3)))
        )
    barrier.wait()


def losses(base: Path, processes: int = 4, batches: int = 25) -> None:
    import zarr

    wanted = processes * batches
    print(f"\n{processes} processes append {batches} batches each to one dataset")
    ml.create(base / "ours.zarr")
    together(processes, append_ours, base / "ours.zarr", batches)
    found = set(ml.open(base / "ours.zarr").snapshot().read().energy.tolist())
    print(f"{'mlffstore':34}{len(found):>6} of {wanted} batches are there, {wanted - len(found)} lost")
    zarr.create_array(base / "plain.zarr", shape=(0,), chunks=(100,), dtype="i8")
    together(processes, append_zarr, base / "plain.zarr", batches)
    values, counts = np.unique(zarr.open_array(base / "plain.zarr")[:], return_counts=True)
    found = set(values[(values > 0) & (counts == 100)].tolist())
    print(f"{'plain Zarr array':34}{len(found):>6} of {wanted} batches are there, {wanted - len(found)} lost")
    try:
        import atompack
    except ImportError:
        return
    path = base / "peer.atp"
    atompack.Database(str(path), overwrite=True).flush()
    together(processes, append_atompack, path, batches)
    try:
        database = atompack.Database.open(str(path))
        found = {database[i].energy for i in range(len(database))}
        print(f"{'atompack-db':34}{len(found):>6} of {wanted} batches are there, {wanted - len(found)} lost")
    except Exception as error:
        print(f"{'atompack-db':34}the file can no longer be read ({str(error).splitlines()[0][:60]})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commits", type=int, default=30, help="commits of each process")
    parser.add_argument("--log", type=int, default=20_000, help="length of the longest log")
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a folder in memory")
    parser.add_argument("--folder", type=Path, default=None, help="where to write; a temporary folder by default")
    args = parser.parse_args()
    base = Path(tempfile.mkdtemp(dir=args.folder))
    folder = args.folder or Path(tempfile.gettempdir())
    c = corpus(folder, 20_000)
    data = folder / "corpus-20000.npz"
    throughput(base, data, c, args.rounds, args.commits, "on disk")
    if args.memory.is_dir():
        memory = Path(tempfile.mkdtemp(dir=args.memory))
        throughput(memory, data, c, args.rounds, args.commits, "in memory")
        shutil.rmtree(memory)
    losses(base)
    duplicates(base, c)
    long_logs(base, c, args.log)
    shutil.rmtree(base)


if __name__ == "__main__":
    main()

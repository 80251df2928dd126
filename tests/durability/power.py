"""A file system loses its power again and again while processes write stores to it; run by `test_power_loss.py`.

    unshare --mount --propagation private python -m tests.durability.power KIND LOSSES FOLDER [--without-fsync]

A file system of the kind (`ext4` or `xfs`) lies in an image file, mounted through a loop device. Writers append,
compact and collect garbage on it and report each commit on a pipe. A loss of power is a copy of the image at one
instant, without any sync: what the kernel had not written to the device is not in the copy, and the journal is
wherever it was. The copy is mounted, which replays its journal, and every commit that was reported before must be
there. The copy is atomic because the image lies on an XFS file system that clones files (FICLONE), itself in an image
file.

The last line of the output is a JSON object with what was done. All mounts end with the processes of the mount
namespace.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import mlffstore as ml
from mlffstore.errors import StoreExistsError
from mlffstore.format import checkpoint

#: Commits to a store before the next one is begun: creation is a case of its own.
COMMITS = 60
MOUNT_OPTIONS = {"ext4": "loop", "xfs": "loop,nouuid"}


def energy_of(key: str) -> float:
    """Return the energy of the sample that is appended with this key, "WRITER/NUMBER"."""
    writer, number = key.split("/")
    return float(int(writer) * 10_000 + int(number))


def sample(key: str) -> ml.SampleBatch:
    """Return one sample of two atoms."""
    return ml.SampleBatch(
        n_atoms=[2],
        numbers=[1, 1],
        positions=[[0, 0, 0], [0, 0, 0.74]],
        multiplicity=[1],
        energy=[energy_of(key)],
        forces=np.zeros((2, 3)),
        teacher="t",
    )


def write(folder: Path, group: str, writer: int, report: int, *, tidy: bool) -> None:
    """Write one store after another, with other writers of the group, or alone and with compaction and collection."""
    for k in itertools.count():
        try:
            store = ml.create(folder / f"{group}{k}")
        except StoreExistsError:
            store = ml.open(folder / f"{group}{k}", "a")
        for i in range(COMMITS):
            key = f"{writer}/{i}"
            version = store.append(sample(key), key=key)
            os.write(report, f"{group} {k} {key} {version}\n".encode())
            if tidy and i % 7 == 6:
                store.compact()
                store.tag(f"t{i}")
                store.gc(dry_run=False, grace=0, expire_before=store.version - 3)
        if tidy:
            shutil.rmtree(folder / f"{group}{k - 2}", ignore_errors=True)


def check(folder: Path, reported: dict[tuple[str, int], dict[str, int]]) -> int:
    """Check that the stores below a folder hold what was reported; return the number of commits that were looked
    for."""
    newest = {group: max(k for name, k in reported if name == group) for group, _ in reported}
    n = 0
    for (group, k), commits in reported.items():
        if k < newest[group] - 1:  # may have been deleted
            continue
        store = ml.open(folder / f"{group}{k}", "a")
        keys = store.keys()
        lost = {key for key, version in commits.items() if keys.get(key) != version}
        assert not lost, f"{store.url}: of {len(commits)} acknowledged commits {sorted(lost)} are gone"
        energies = set(store.snapshot().read(columns=["energy"]).energy.tolist())
        assert energies == {energy_of(key) for key in keys}
        outcome = ml.verify(store.url, full=True)
        assert outcome.ok, outcome.problems
        store.append(sample("9/9999"))  # life goes on
        store.compact()
        assert ml.verify(store.url, full=True).ok
        n += len(commits)
    return n


def drain(pipes: list[int], reported: dict[tuple[str, int], dict[str, int]]) -> None:
    """Add what the writers have reported so far."""
    for pipe in pipes:
        data = b""
        while True:
            try:
                data += os.read(pipe, 1 << 16)
            except BlockingIOError:
                if not data or data.endswith(b"\n"):
                    break
        for line in data.decode().splitlines():
            group, k, key, version = line.split(" ")
            reported.setdefault((group, int(k)), {})[key] = int(version)


def main() -> None:
    kind, losses, base = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    if "--without-fsync" in sys.argv:
        os.fsync = lambda descriptor: None  # type: ignore[assignment]
    checkpoint.EVERY = 10
    host, disk, after = (base / name for name in ("host", "disk", "after"))
    for folder in (host, disk, after):
        folder.mkdir()
    image, copy = host / "disk.img", host / "copy.img"
    make(base / "host.img", "xfs", 1200)
    run("mount", "-o", "loop", base / "host.img", host)
    make(image, kind, 320)
    run("mount", "-o", "loop", image, disk)
    context = multiprocessing.get_context("fork")
    pipes, writers = [], []
    for writer, (group, tidy) in enumerate([("alone", True), ("shared", False), ("shared", False)]):
        receive, send = os.pipe()
        os.set_blocking(receive, False)
        process = context.Process(target=write, args=(disk, group, writer, send), kwargs={"tidy": tidy}, daemon=True)
        process.start()
        os.close(send)
        pipes.append(receive)
        writers.append(process)
    reported: dict[tuple[str, int], dict[str, int]] = {}
    n_checked, seed = 0, losses
    random.seed(seed)
    try:
        for _ in range(losses):
            before = sum(map(len, reported.values()))
            while sum(map(len, reported.values())) < before + random.randint(1, 12):
                time.sleep(random.uniform(0, 0.02))
                drain(pipes, reported)
                assert all(process.is_alive() for process in writers), "a writer failed"
            run("cp", "--reflink=always", image, copy)
            # The writers wait while the copy is looked at; they wake up in the middle of whatever they were doing.
            for process in writers:
                os.kill(process.pid, signal.SIGSTOP)
            run("mount", "-o", MOUNT_OPTIONS[kind], copy, after)
            n_checked += check(after, reported)
            run("umount", after)
            copy.unlink()
            for process in writers:
                os.kill(process.pid, signal.SIGCONT)
    finally:
        for process in writers:
            process.kill()
            process.join()
    n_reported = sum(map(len, reported.values()))
    print(json.dumps({"kind": kind, "losses": losses, "commits": n_reported, "looked for": n_checked}))


def make(image: Path, kind: str, megabytes: int) -> None:
    """Make an image file with an empty file system."""
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    run(f"mkfs.{kind}", "-q", *(["-F"] if kind == "ext4" else []), image)


def run(*command: object) -> None:
    subprocess.run([str(word) for word in command], check=True)


if __name__ == "__main__":
    main()

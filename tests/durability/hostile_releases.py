"""Releases whose files were changed at random and have right checksums again; run by `test_fuzz_releases.py`.

    python -m tests.durability.hostile_releases RELEASE SCRATCH FIRST STOP [SECONDS]

For each number from FIRST up to STOP a copy of the folder RELEASE is changed, as the number decides, verified, read
and used for training. Prints one line of JSON for each: the number and what each use came to: "done", "problems", the
name of an error of ours, "died of SIGNAL", or the traceback of any other exception. Reading and training happen in
processes of their own, with SECONDS of processor time for each use, which takes a quarter of a second otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

import mlffstore as ml
from mlffstore.errors import MlffstoreError
from mlffstore.release import Release, inspection
from mlffstore.release import verify as verification
from mlffstore.release.manifest import CHECKSUMS, MANIFEST, checksums_text, describe_file
from mlffstore.store.maintenance.verification import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

#: Limit of processor time for one use of a release of a dozen samples.
SECONDS = 8.0
_WORDS = (0, 1, 7, 255, 1 << 15, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, (1 << 63) - 1, (1 << 64) - 1)
_VALUES: tuple[Any, ...] = (
    "", "x", "../x", "[]", "{}", "[[[]]]", "[" * 5000, '{"splits": 3}', '["a", "a"]', "null", "é\u202e\x1b[31m", 0,
    -1, 1 << 40, 1.5, np.nan, np.zeros(3), np.zeros((2, 0)), np.array([b"a", b"b"]), h5py.Empty("f8"), np.array([("a",
    1)], [("x", "S3"), ("y", "i4")]),
)  # fmt: skip


def change_bytes(path: Path, rng: np.random.Generator) -> None:
    """Change bits, bytes, words or blocks of a file anywhere, or its length."""
    data = bytearray(path.read_bytes())
    for _ in range(int(rng.integers(1, 6))):
        kind, place = int(rng.integers(6)), int(rng.integers(len(data) - 520))
        if kind == 0:
            data[place] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[place] = int(rng.integers(256))
        elif kind == 2:
            struct.pack_into("<Q", data, place // 8 * 8, _WORDS[int(rng.integers(len(_WORDS)))])
        elif kind == 3:
            struct.pack_into("<I", data, place // 4 * 4, _WORDS[int(rng.integers(9))])
        elif kind == 4:
            source = int(rng.integers(len(data) - 520))
            n = int(rng.choice([8, 64, 512]))
            data[place : place + n] = data[source : source + n]
        elif rng.random() < 0.1:
            del data[1024 + int(rng.integers(len(data) - 1024)) :]
            break
    path.write_bytes(data)


def change_structure(path: Path, rng: np.random.Generator) -> None:
    """Change an attribute of the file, of a group or of a dataset, or exchange, remove or make again a dataset."""
    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        node = file if rng.random() < 0.3 else file[names[int(rng.integers(len(names)))]]
        attributes = sorted(set(node.attrs) - {"CLASS", "NAME", "DIMENSION_LIST", "REFERENCE_LIST", "_Netcdf4Dimid"})
        kind = int(rng.integers(4))
        if kind < 2 and attributes:
            name = attributes[int(rng.integers(len(attributes)))]
            if rng.random() < 0.2:
                del node.attrs[name]
            else:
                node.attrs[name] = _VALUES[int(rng.integers(len(_VALUES)))]
            return
        datasets = [name for name in names if isinstance(file[name], h5py.Dataset)]
        one, other = (datasets[int(rng.integers(len(datasets)))] for _ in range(2))
        attributes_of_one = {
            key: value for key, value in file[one].attrs.items() if key in ("axis", "units", "long_name")
        }
        values = file[other][...]
        if kind == 2 and values.size and values.dtype.kind in "iuf":
            values = np.where(
                rng.random(values.shape) < 0.1, rng.choice([0, -1, 1 << 14, 255]).astype(values.dtype), values
            )
        del file[one]
        if rng.random() < 0.8:
            file[one] = values
            file[one].attrs.update(attributes_of_one)


def seal(folder: Path) -> None:
    """Make sizes and checksums right again."""
    path = folder / MANIFEST
    manifest = json.loads(path.read_bytes())
    manifest["files"] = {name: describe_file(folder / name) for name in manifest["files"]}
    path.write_text(json.dumps(manifest))
    names = sorted(file.name for file in folder.iterdir() if file.name != CHECKSUMS)
    (folder / CHECKSUMS).write_text(checksums_text({name: describe_file(folder / name)["sha256"] for name in names}))


def train(folder: Path) -> None:
    dataset = ml.TorchDataset(folder, split="train", cache="memory")
    for i in range(len(dataset)):
        dataset[i]


def outcome(use: Callable[[Path], Any], folder: Path) -> str:
    """Return what a use of a release comes to in a process of its own."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends the process also within the HDF5 library
        os.write(send, attempt(use, folder).encode()[:60_000])
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as file:
        text = file.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    return text if status == 0 else f"died of {signal.Signals(-status).name}"


def attempt(use: Callable[[Path], Any], folder: Path) -> str:
    try:
        use(folder)
    except MlffstoreError as error:
        return type(error).__name__
    except BaseException:
        return traceback.format_exc()
    return "done"


def verify(folder: Path) -> str:
    """Return "done" if verifying finds nothing, "problems" if it finds something, else what went wrong."""
    try:
        return "done" if ml.verify_release(folder).ok else "problems"
    except MlffstoreError as error:
        return type(error).__name__
    except BaseException:
        return traceback.format_exc()


def forked(paths: list[Path], folder: Path | None = None, progress: object = None) -> inspection.Inspection:
    """Stand for `inspect_apart`: a fork instead of a new interpreter, with the same bounds, since it starts a hundred
    times faster."""
    receive, send = os.pipe()
    process = os.fork()
    if process == 0:
        os.dup2(send, 1)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        sys.stdout = open(1, "w")  # noqa: SIM115
        inspection._main(str(folder or ""), *map(str, paths))
        os._exit(0)
    os.close(send)
    with open(receive, "rb") as file:
        lines = file.read().splitlines()
    if os.waitpid(process, 0)[1]:
        return inspection.Inspection(0, (Problem("", "the process died"),))
    document = json.loads(lines[-1])
    return inspection.Inspection(document["n_samples"], tuple(Problem(**problem) for problem in document["problems"]))


def main() -> None:
    global SECONDS
    release, scratch = Path(sys.argv[1]), Path(sys.argv[2])
    SECONDS = float(sys.argv[5]) if len(sys.argv) > 5 else SECONDS
    train(release)  # imports what is needed, so that the limit is for the work
    for number in range(int(sys.argv[3]), int(sys.argv[4])):
        rng = np.random.default_rng(number)
        folder = scratch / str(number)
        shutil.copytree(release, folder)
        (path,) = folder.glob("*.h5")
        (change_bytes if number % 3 else change_structure)(path, rng)
        seal(folder)
        verification.inspect_apart = forked if number % 20 else inspection.inspect_apart
        line = {"number": number, "verify": verify(folder)}
        line["read"] = outcome(lambda folder: Release(folder).read(None), folder)
        line["train"] = outcome(train, folder)
        print(json.dumps(line), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()

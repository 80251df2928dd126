"""A log that grows: opening, appending, collecting garbage, verifying and history at 1,000, 10,000 and more commits.

    python benchmarks/bench_log.py [--folder DIR] [--commits 1000 10000] [--repeats 3] [--replaces] [--s3]

Prints one JSON object for each number of commits. Each commit is one small sample, so that the log is all that costs.
With `--replaces` every second commit is a replacement of two segments by one. With `--s3` the store is in moto's S3
server on loopback, in a process of its own; its answers, one after another, are then what takes the time.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import logging
import multiprocessing
import shutil
import statistics
import tempfile
import time
from typing import TYPE_CHECKING, Any

import numpy as np

import mlffstore as ml
from mlffstore.format.log import Log

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LAST = 200


def sample(i: int) -> ml.SampleBatch:
    """Return one sample of two atoms."""
    return ml.SampleBatch(
        n_atoms=[2],
        numbers=[1, 1],
        positions=[[0, 0, 0], [0, 0, 0.7 + i * 1e-6]],
        multiplicity=[1],
        energy=[float(i)],
        forces=np.zeros((2, 3)),
        teacher="t",
    )


def grow(store: ml.Store, commits: int, *, replaces: bool) -> float:
    """Commit up to a version; return seconds for each of the last commits."""
    samples = [sample(i) for i in range(50)]
    begin, since = time.perf_counter(), store.version
    while (version := store.version) < commits:
        if version < commits - _LAST:
            begin, since = time.perf_counter(), version
        store.append(samples[version % 50], key=f"task-{version}", provenance={"task": version})
        if replaces and store.version % 1000 == 0:
            store.compact(target_nbytes=400)  # pairs
    return (time.perf_counter() - begin) / (store.version - since)


def median(call: Callable[[], Any], repeats: int) -> tuple[float, float]:
    """Return the medians of the seconds, and of the seconds of processor time, that a call takes."""
    seconds, processor = [], []
    for _ in range(repeats):
        begin, started = time.perf_counter(), time.process_time()
        call()
        seconds.append(time.perf_counter() - begin)
        processor.append(time.process_time() - started)
    return statistics.median(seconds), statistics.median(processor)


def measure(store: ml.Store, options: dict[str, Any] | None, repeats: int) -> dict[str, float]:
    """Return what each operation takes."""
    url = store.url
    storage, empty = store._storage, store._log._empty

    def opened() -> ml.Store:
        return ml.open(url, "a", storage_options=options)

    sizes = {name: sum(file.nbytes for file in storage.list(name)) for name in ("_log", "_checkpoint")}
    calls: dict[str, Callable[[], Any]] = {
        "open": lambda: opened().version,
        "open without checkpoints": lambda: Log(storage, empty).replay(Log(storage, empty).fresh()),
        "gc, dry run": lambda: opened().gc(),
        "verify": lambda: ml.verify(url, storage_options=options),
        "history": lambda: opened().history(),
        "history, last 10": lambda: opened().history(last=10),
        "provenance": lambda: opened().provenance(),
    }
    ml.verify(url, storage_options=options)  # imports Dask
    out: dict[str, float] = {f"bytes of {name}": nbytes for name, nbytes in sizes.items()}
    for name, call in calls.items():
        out[name], out[f"{name}, processor"] = median(call, repeats)
    return out


def serve(port: Any) -> None:
    """Run an S3 server."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, number = server.get_host_and_port()
    connection = http.client.HTTPConnection(host, number)
    connection.request("PUT", "/bench")
    connection.getresponse().read()
    port.send(number)
    port.recv()


@contextlib.contextmanager
def place(folder: str | None, *, s3: bool) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the URL and the options of a new store."""
    if not s3:
        base = tempfile.mkdtemp(dir=folder)
        yield f"{base}/d.zarr", None
        shutil.rmtree(base)
        return
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(theirs,), daemon=True)
    process.start()
    options = {"endpoint": f"http://127.0.0.1:{ours.recv()}", "region": "us-east-1", "access_key_id": "testing"}
    options |= {"secret_access_key": "testing", "client_options": {"allow_http": True}}
    yield "s3://bench/d.zarr", options | {"virtual_hosted_style_request": False}
    process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default=None, help="where the store is made; a disk, not memory")
    parser.add_argument("--commits", type=int, nargs="+", default=[1000, 10_000], help="such as 1000 10000 100000")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--replaces", action="store_true", help="replace pairs of segments by one, too")
    parser.add_argument("--s3", action="store_true", help="in an S3 server on loopback")
    args = parser.parse_args()
    with place(args.folder, s3=args.s3) as (url, options):
        store = ml.create(url, storage_options=options)
        for commits in sorted(args.commits):
            append = grow(store, commits, replaces=args.replaces)
            out = {"commits": store.version, "append": append, **measure(store, options, args.repeats)}
            print(json.dumps({name: round(value, 4) for name, value in out.items()}), flush=True)


if __name__ == "__main__":
    main()

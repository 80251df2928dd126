"""Threads of one process that share a store."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import mlffstore as ml


def test_a_snapshot_is_one_version_while_a_thread_appends(tmp_path):
    """Every commit adds two samples of one atom, so a torn snapshot shows in its own figures."""
    store, stop = ml.create(f"memory://{tmp_path}"), threading.Event()
    atom = {"numbers": [6, 6], "positions": np.zeros((2, 3)), "energy": [0.0, 0.0], "forces": np.zeros((2, 3))}

    def write() -> None:
        while not stop.is_set():
            store.append(ml.SampleBatch(n_atoms=[1, 1], **atom))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(write)
            while store.version < 100:
                snap = store.snapshot()
                assert len(snap) == 2 * snap.version == snap.n_atoms == snap.elements().get(6, 0)
                assert len(store) >= len(snap)
            stop.set()
            writing.result()
    finally:
        stop.set()
        sys.setswitchinterval(interval)

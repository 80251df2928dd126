"""Memory of batches serves again, and never while anything of a batch is in use."""

from __future__ import annotations

import gc
import pickle
import threading

import numpy as np
import pytest
import torch

import mlffstore as ml
from mlffstore.training.window import Window
from tests.samples import metal_frames


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    store = ml.create(tmp_path_factory.mktemp("leases") / "d.zarr")
    store.append(metal_frames(400), teacher="emt")
    store.add_column("site", np.arange(float(store.snapshot().n_atoms)), unit="1", axis="atom")
    return store


@pytest.fixture
def small_windows(monkeypatch):
    """Make windows small, so that an epoch needs many of them."""
    monkeypatch.setattr("mlffstore.training.loader._WINDOW", 32)


#: Ways to keep a part of a batch, each with a way to read what was kept.
WAYS = {
    "batch": (lambda batch: batch, lambda kept: kept["energy"]),
    "tensor": (lambda batch: batch["positions"], lambda kept: kept),
    "slice": (lambda batch: batch["forces"][1:, ::2], lambda kept: kept),
    "reshaped": (lambda batch: batch["cell"].reshape(-1).unsqueeze(0), lambda kept: kept),
    "detached": (lambda batch: batch["energy"].detach(), lambda kept: kept),
    "narrow index": (lambda batch: batch["ptr"][-1:], lambda kept: kept),
    "scalar": (lambda batch: batch["energy"][0], lambda kept: kept),
    "numpy": (lambda batch: batch["numbers"].numpy(), lambda kept: kept),
    "numpy view": (lambda batch: batch["positions"].numpy()[2:].T[:2], lambda kept: kept),
    "numpy view of a view": (lambda batch: np.asarray(batch["positions"].numpy().view(np.ndarray))[1:], np.asarray),
    "memoryview": (lambda batch: memoryview(batch["batch"].numpy()), np.asarray),
    "dlpack": (lambda batch: np.from_dlpack(batch["n_atoms"]), lambda kept: kept),
    "capsule": (
        lambda batch: (torch.utils.dlpack.to_dlpack(batch["positions"]), batch["positions"].clone()),
        lambda kept: kept[1],  # a capsule can be read only once, at the end
    ),
    "storage": (lambda batch: batch["energy"].untyped_storage(), lambda kept: torch.tensor(list(kept))),
    "parameter": (lambda batch: torch.nn.Parameter(batch["positions"]), lambda kept: kept.data),
    "graph": (
        lambda batch: (batch["energy"] * torch.ones((), dtype=torch.float64, requires_grad=True)).grad_fn,
        lambda kept: kept._saved_self if kept._saved_self is not None else kept._saved_other,
    ),
    "user column": (lambda batch: batch["site"][-1:], lambda kept: kept),
    "dtype view": (lambda batch: batch["energy"].view(torch.int64), lambda kept: kept),
    "unbound": (lambda batch: batch["cell"].unbind(0)[0], lambda kept: kept),
}  # fmt: skip


def content(read, kept):
    value = read(kept)
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return value.copy()


@pytest.mark.parametrize("way", WAYS)
def test_what_is_kept_is_never_overwritten(store, small_windows, way):
    keep, read = WAYS[way]
    loader = ml.TorchDataset(store, split=None).loader(16, threads=2)
    kept = []
    for _ in range(2):
        for k, batch in enumerate(loader):
            if k % 5 == 0:
                part = keep(batch)
                kept.append((part, content(read, part)))
    del batch, part
    gc.collect()
    for _ in range(3):
        for _ in loader:
            pass
    for part, before in kept:
        after = content(read, part)
        assert np.array_equal(before, after)
    if way == "capsule":
        assert all(torch.equal(torch.from_dlpack(capsule), copy) for (capsule, copy), _ in kept)


def test_memory_serves_again_when_nothing_is_kept(store, small_windows, monkeypatch):
    made = []
    empty = Window.empty.__func__
    monkeypatch.setattr(Window, "empty", classmethod(lambda *args: made.append(1) or empty(*args)))
    loader = ml.TorchDataset(store, split=None).loader(16, threads=2)
    n_batches = sum(1 for _ in range(8) for _ in loader)
    assert n_batches == 8 * 25
    assert len(made) < 30  # of 104 windows; the first epoch alone, with growing windows, makes some


def test_one_column_holds_the_whole_window_and_only_it(store):
    columns, index = ml.TorchDataset(store, split=None).load()
    atoms = int(columns.n_atoms[index[:4]].sum())
    window = Window.empty(4, 4, atoms, columns, np.dtype("float32"))
    window.fill(index[:4], columns)
    assert not window.is_lent
    for name in window.columns:
        tensors = {key: torch.from_numpy(array) for key, array in window.lend().items()}
        assert window.is_lent
        view = tensors[name].flatten()[:1]
        del tensors
        assert window.is_lent, name
        del view
        assert not window.is_lent, name
    array = window.lend()["positions"][1:][:, :2]  # NumPy refers to the lease, not to the memory below it
    assert window.is_lent
    del array
    assert not window.is_lent


def test_threads_that_keep_and_drop_parts_of_batches(store, small_windows):
    """Several threads use one loader; others release what was kept, at any time."""
    loader = ml.TorchDataset(store, split=None).loader(16, threads=2)
    wrong, kept, lock = [], [], threading.Lock()

    def use(seed):
        rng = np.random.default_rng(seed)
        for _ in range(4):
            for batch in loader:
                name = rng.choice(["positions", "forces", "energy", "numbers"])
                part = batch[name][rng.integers(len(batch[name])) :]
                with lock:
                    kept.append((part, part.clone()))
                    chosen = [kept.pop(int(rng.integers(len(kept)))) for _ in range(len(kept) - 20)]
                wrong.extend(part for part, copy in chosen if not torch.equal(part, copy))

    threads = [threading.Thread(target=use, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(torch.equal(part, copy) for part, copy in kept)


def test_a_loader_can_be_copied_to_another_process(store, small_windows):
    loader = ml.TorchDataset(store, split=None).loader(16)
    first = [batch["energy"].tolist() for batch in loader]
    again = pickle.loads(pickle.dumps(loader))
    assert len(again._pool) == 0
    again.set_epoch(0)
    assert [batch["energy"].tolist() for batch in again] == first

"""A segment file of another size than the log says: a shorter one is refused by every reader, and verify finds any."""

from __future__ import annotations

from pathlib import Path

import pytest

import mlffstore as ml
from mlffstore.errors import CorruptionError
from tests.samples import metal_frames

_CHANGES = {
    "longer": lambda data: data + b"\0" * 100,
    "shorter": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "shifted": lambda data: b"\0" + data,
}


@pytest.mark.parametrize("change", _CHANGES)
def test_readers_and_training(change, tmp_path):
    pytest.importorskip("torch")
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(8), teacher="emt")
    path = Path(store.url) / store.snapshot().segments[0].path
    path.write_bytes(_CHANGES[change](path.read_bytes()))
    assert [problem.path for problem in ml.verify(store.url).problems] == [store.snapshot().segments[0].path]
    uses = {
        "read": lambda: ml.open(store.url).snapshot().read(),
        "one": lambda: ml.open(store.url).snapshot()[3],
        "xarray": lambda: ml.open(store.url).snapshot().to_xarray().load(),
        "train": lambda: ml.TorchDataset(store.url, split=None)[3],
        "train in memory": lambda: ml.TorchDataset(store.url, split=None, cache="memory")[3],
        "compact": lambda: [store.append(metal_frames(1), teacher="emt"), store.compact()],
    }
    for use in uses.values():
        if change == "longer":  # what the log names is all there, and its checksums are right
            use()
        else:
            with pytest.raises(CorruptionError, match=r"restore|truncated"):
                use()

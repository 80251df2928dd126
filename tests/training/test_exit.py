"""Iterators that a script leaves behind when it ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

import mlffstore as ml
from tests.samples import metal_frames

SCRIPT = """
import sys
import mlffstore as ml

made = {made}
batches = iter(made)
next(batches)
"""


MADE = {
    "loader": "ml.TorchDataset(sys.argv[1], split=None).loader(batch_size=2)",
    "stream": "ml.TorchDataset.stream(sys.argv[1], split=None, batch_size=2)",
}


@pytest.mark.parametrize("made", MADE.values(), ids=MADE)
def test_a_script_may_end_in_the_middle_of_an_epoch(tmp_path, made):
    """Python clears the modules before the iterator, which must not need them any more."""
    ml.create(tmp_path / "d.zarr").append(metal_frames(40))
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(made=made))
    done = subprocess.run(
        [sys.executable, script, tmp_path / "d.zarr"], capture_output=True, text=True, check=False, timeout=300
    )
    assert (done.returncode, done.stderr) == (0, "")

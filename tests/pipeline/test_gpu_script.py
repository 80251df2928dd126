"""The script that measures a GPU runs from end to end on a processor, at tiny sizes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_gpu_script_runs_on_a_processor(tmp_path):
    for package in ("torch", "chgnet", "orb_models", "sevenn"):
        pytest.importorskip(package)
    done = subprocess.run(
        ["bash", ROOT / "benchmarks" / "gpu.sh", tmp_path], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHON": sys.executable, "TINY": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    document = json.loads((tmp_path / "gpu.json").read_text())
    assert {row["teacher"] for row in document["labelling"]} == {"Orb-v2 architecture", "chgnet", "sevennet-0"}
    assert all(row["samples/s"] > 0 for row in document["labelling"])
    assert all(row["steps of a structure/s"] > 0 for row in document["dynamics"])
    assert {row["batches"] for row in document["training"]} == {"resident", "loader"}
    assert "| teacher | atoms of a batch | samples/s |" in (tmp_path / "gpu.md").read_text()

"""Releases that anybody may have made: verifying, reading and training end in data or in an error of ours."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mlffstore as ml
from tests.samples import metal_frames

if sys.platform == "win32":
    pytest.skip("needs the limits of memory of POSIX", allow_module_level=True)
pytest.importorskip("torch")

pytestmark = pytest.mark.timeout(3600)  # at nightly size, on a busy machine
_USES = ("verify", "read", "train")


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    store = ml.create(folder / "d.zarr")
    store.append(metal_frames(12), teacher="emt")
    store.add_column("dose", [float(i) for i in range(12)])
    ml.export_release(store.snapshot(), folder, name="r", teacher="emt", allow_failing=True)
    assert ml.verify_release(folder / "r-1.0.0").ok
    return folder / "r-1.0.0"


@pytest.mark.parametrize(("number", "seconds"), [(10, 2), pytest.param(1500, 8, marks=pytest.mark.slow)])
def test_no_release_does_more_than_raise_our_errors(number, seconds, release, tmp_path):
    command = [sys.executable, "-m", "tests.durability.hostile_releases", release, tmp_path, "0", number, seconds]
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, f"{len(done.stdout.splitlines())} releases, then {done.stderr[-3000:]}"
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) == number
    foreign = {text: line["number"] for line in outcomes for use in _USES if "Traceback" in (text := line[use])}
    assert not foreign, "\n".join(f"release {n}: {text}" for text, n in foreign.items())
    # The HDF5 library crashes, or never ends, with some of them. Verifying, which never does, finds all of these.
    died = [line for line in outcomes if "died" in line["verify"] + line["read"] + line["train"]]
    assert all(line["verify"] == "problems" for line in died), died
    counts = collections.Counter((line["verify"], line["read"]) for line in outcomes)
    assert counts["done", "done"] > number / 20
    assert counts["problems", "FormatError"] > number / 20
    assert not any(verified == "done" != read for verified, read in counts), counts

"""A recipe whose release is published already is refused before its first task."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import mlffstore as ml
from mlffstore.store.executors import InProcessExecutor
from tests.command import cli

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

RECIPE = """\
name: small
store: d.zarr
parts:
  - {{name: metals, generator: crystals, teacher: emt, samples: {samples}, samples_per_task: 4, options: {options}}}
release: {{version: {version}}}
"""
OPTIONS = "{elements: [Cu, Al, Ni, Pd, Ag, Au, Pt], min_atoms: 2, max_atoms: 8}"


def written(folder: Path, samples: int, version: str) -> Path:
    path = folder / "r.yaml"
    path.write_text(RECIPE.format(samples=samples, version=version, options=OPTIONS))
    return path


def test_a_release_that_is_published_is_told_of_before_the_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    # A process of its own takes each run seconds to start.
    monkeypatch.setattr("mlffstore.pipeline.run.local_pool", lambda workers: nullcontext(InProcessExecutor()))
    cli("run", written(tmp_path, 8, "1.0.0"), "-w", "1")
    cli("run", written(tmp_path, 8, "1.0.0"), "-w", "1")  # there is nothing to do
    before = ml.open("d.zarr").version
    done = cli("run", written(tmp_path, 16, "1.0.0"), "-w", "1", code=3)
    assert "release.version: release/small-emt-1.0.0 is published" in done.stderr
    assert "2 tasks of this recipe are to do; nothing was run" in done.stderr
    assert ml.open("d.zarr").version == before
    cli("run", written(tmp_path, 16, "1.1.0"), "-w", "1")
    ml.open("d.zarr", "a").tag("later")  # another version of the store, with the same samples
    done = cli("run", written(tmp_path, 16, "1.1.0"), "-w", "1", code=3)
    assert "this run" in done.stdout
    assert "this version is published and is never overwritten" in done.stderr

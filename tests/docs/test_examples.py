"""The examples run, and the training example learns."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import mlffstore as ml
from tests.samples import metal_frames, molecule_frames

ROOT = Path(__file__).parents[2]


def test_the_notebook_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    store = ml.create(tmp_path / "d.zarr")
    store.append([*metal_frames(60), *molecule_frames(20)], teacher="emt", sampler="rattle")
    monkeypatch.setenv("MLFFSTORE_STORE", store.url)
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the notebook's own draws into it
    notebook = nbformat.read(ROOT / "examples" / "explore.ipynb", as_version=4)
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    shown = [out for cell in notebook.cells for out in cell.get("outputs", ())]
    assert sum("image/png" in out.get("data", {}) for out in shown) >= 4
    assert any("invalid_fraction" in out.get("text", "") for out in shown)


def test_training_example_learns(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(120), teacher="emt")
    command = [
        sys.executable,
        ROOT / "examples" / "train_energy_model.py",
        store.url,
        "--teacher",
        "emt",
        "--epochs",
        "12",
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    forces = [float(value) for value in re.findall(r"([\d.]+) meV/angstrom", done.stdout)]
    assert len(forces) == 13
    assert forces[-1] < 0.5 * forces[0], done.stdout  # forces of a rattled crystal are mostly a pair potential's


def test_the_student_learns_from_a_release(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(80), teacher="emt")
    folder = ml.export_release(store.snapshot(), tmp_path, name="metals", teacher="emt").parent
    script = ROOT / "examples" / "train_with_production_data.py"
    command = [
        sys.executable,
        script,
        folder,
        "--iterations",
        "120",
        "--batch-size",
        "4",
        "--out",
        tmp_path / "student",
    ]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "student" / "result.json").read_text())
    assert result["loss_last_tenth"] < 0.3 * result["loss_first_tenth"]
    assert (tmp_path / "student" / "parity.png").stat().st_size > 10_000


def test_the_example_of_further_signals_runs(tmp_path):
    command = [sys.executable, ROOT / "examples" / "distil_signals.py", tmp_path / "d.zarr"]
    done = subprocess.run(
        [*command, "--train", "4", "--test", "4", "--iterations", "3", "--batch-size", "2"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 4
    # The trainings differ in nothing but the loss: each signal changes the weights.
    assert len({line["atomic_energies_meV"] for line in lines}) == 4

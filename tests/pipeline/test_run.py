"""Recipes: checked, resumed, killed and run again with one outcome; rejects in quarantine."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
import yaml

import mlffstore as ml
from mlffstore.data.geometry import smallest_distances
from mlffstore.errors import RecipeError
from mlffstore.pipeline.account import account
from mlffstore.pipeline.recipe import Recipe, load_recipe
from mlffstore.pipeline.run import run
from mlffstore.store.executors import InProcessExecutor
from tests.clusters import cluster
from tests.command import cli

if TYPE_CHECKING:
    from pathlib import Path

METALS = ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"]
#: Runs the tasks in this process: one of its own takes two seconds of processor time to start.
run_here = functools.partial(run, executor=InProcessExecutor())


def recipe(folder: Path, **changes) -> dict:
    part = {
        "name": "metals",
        "generator": "crystals",
        "options": {"elements": METALS, "elemental": 1.0, "max_atoms": 20},
        "teacher": "emt",
        "samples": 24,
        "samples_per_task": 4,
    }
    return {"name": "test", "seed": 1, "store": str(folder / "d.zarr"), "parts": [part], **changes}


def hashes(url) -> list[int]:
    return sorted(ml.open(url).snapshot().read(columns=["content_hash"]).columns["content_hash"].tolist())


def test_a_run_labels_checks_and_records(tmp_path):
    parsed = Recipe.model_validate(recipe(tmp_path, checks={"force_max": 2.5}))
    outcomes = []
    report = run(parsed, workers=1, progress=outcomes.append)
    snap = ml.open(parsed.store).snapshot()
    assert report.accepted == len(snap) == sum(one.accepted for one in outcomes) == 24
    assert report.rejected == snap.n_quarantined > 0
    assert set(snap.quarantine.reasons()) == {"|F| above 2.5 eV/angstrom"}
    batch = snap.read()
    assert np.linalg.norm(batch.forces, axis=1).max() <= 2.5
    assert snap.teacher_info("emt")["fingerprint"].startswith("EMT")
    record = ml.open(parsed.store).provenance()[0]
    assert record["recipe"]["seed"] == 1
    assert "numpy" in record["software"]
    # What is stored was labelled: the same structures get the same labels again.
    again = ml.get_teacher("emt").label(batch)
    np.testing.assert_allclose(again.energy, batch.energy, atol=1e-9)
    second = run_here(parsed)
    assert (second.n_done_before, second.accepted) == (6, 0)


def test_a_dask_client_can_run_the_tasks(tmp_path):
    parsed = Recipe.model_validate(recipe(tmp_path))
    with cluster(active=False, n_workers=1, threads_per_worker=2, processes=False) as client:
        report = run(parsed, executor=client.get_executor())
    assert report.accepted == len(ml.open(parsed.store)) == 24


def test_killed_and_run_again_ends_with_the_same_samples(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe(folder)))
    cli("run", whole / "recipe.yaml", "-w", "2", "--no-recheck")
    log = broken / "d.zarr" / "_log"
    process = subprocess.Popen(
        [sys.executable, "-m", "mlffstore", "run", broken / "recipe.yaml", "-w", "1", "--no-recheck"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not log.is_dir() or len(list(log.glob("*.json"))) < 4):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    half = len(ml.open(broken / "d.zarr"))
    assert 0 < half < 24
    done = cli("run", broken / "recipe.yaml", "-w", "1", "--no-recheck")
    assert "tasks were done before" in done.stdout
    assert hashes(broken / "d.zarr") == hashes(whole / "d.zarr")


def test_splits_never_cut_a_root(tmp_path):
    parsed = Recipe.model_validate(recipe(tmp_path, splits={"train": 0.5, "val": 0.25, "test": 0.25}))
    run_here(parsed)
    snap = ml.open(parsed.store).snapshot()
    roots, codes = snap.read().root, snap.split_codes()
    for root in np.unique(roots):
        assert len(set(codes[roots == root].tolist())) == 1


def two_parts(folder: Path, force_max: float) -> Recipe:
    """Return a recipe of which one part, whose crystals are rattled hard, keeps the limit seldom."""
    document = recipe(folder, checks={"force_max": force_max})
    calm = {
        **document["parts"][0],
        "name": "calm",
        "options": {**document["parts"][0]["options"], "rattle": [0.01, 0.02]},
    }
    wild = {
        **document["parts"][0],
        "name": "wild",
        "options": {**document["parts"][0]["options"], "rattle": [0.1, 0.2]},
    }
    return Recipe.model_validate({**document, "parts": [{**calm, "samples": 40}, {**wild, "samples": 40}]})


def test_what_is_rejected_is_made_up_for_from_its_own_part(tmp_path):
    outcomes = []
    parsed = two_parts(tmp_path, 9.0)
    report = run_here(parsed, progress=outcomes.append)
    found = {one.part: one for one in account(parsed, n_environments=0).parts}
    assert (found["calm"].accepted, found["calm"].refills) == (40, 0)
    assert found["wild"].accepted == 40
    assert found["wild"].refills > 0
    assert not report.short
    assert found["wild"].rejected == report.rejected == sum(found["wild"].reasons.values()) > 0
    assert run_here(parsed).accepted == 0
    # The same samples, whatever was there before: a run that stops in the middle of it goes on with the same tasks.
    (tmp_path / "b").mkdir()
    other = two_parts(tmp_path / "b", 9.0)
    seen = 0

    def stop(outcome):
        nonlocal seen
        seen += 1
        if seen == len(outcomes) - 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(other, progress=stop)
    assert 0 < len(ml.open(other.store)) <= 80
    run(other, workers=2)
    assert hashes(other.store) == hashes(parsed.store)


def test_a_run_says_what_there_is_at_every_tenth_and_after_a_silence(tmp_path, monkeypatch, capsys):
    from mlffstore.cli import watch

    parsed = two_parts(tmp_path, 2.0)
    monkeypatch.setattr(watch, "ACCOUNT_SECONDS", 0.0)
    monkeypatch.setattr("mlffstore.pipeline.account.account", functools.partial(account, n_environments=0))
    outcomes = []

    def lines(silence: float) -> list[str]:
        monkeypatch.setattr(watch, "SILENT_SECONDS", silence)
        with watch.watched(parsed, workers="1 process") as tell:
            for one in outcomes:
                tell(one)
        return capsys.readouterr().err.splitlines()

    run_here(parsed, progress=outcomes.append)
    n, total = len(outcomes), len(parsed.tasks())
    assert total >= 20
    tenths, every = lines(1e9), lines(0.0)
    assert len([line for line in tenths if " tasks, " in line]) == n // (total // 10) < n
    assert len([line for line in every if " tasks, " in line]) == n
    assert "% rejected (" in tenths[0]
    assert "above 2.0 eV/angstrom" in tenths[0]
    assert len([line for line in tenths if line.startswith("drift: wild: ")]) == 1


def test_a_part_that_cannot_be_made_is_told_and_not_filled_from_others(tmp_path):
    parsed = two_parts(tmp_path, 2.0)
    report = run_here(parsed)
    calm, wild = account(parsed, n_environments=0).parts
    assert calm.accepted == 40
    assert wild.accepted < 40
    assert wild.accepted + wild.rejected == 80
    assert len(report.short) == 1
    assert report.short[0].startswith(f"wild: {wild.accepted} of 40 samples")
    assert "|F| above 2.0" in report.short[0]
    assert wild.drift.startswith("wild: ")
    done = cli("generators", "account", _write(tmp_path, parsed), "--json", code=1)
    document = json.loads(done.stdout)
    assert document["samples"] == calm.accepted + wild.accepted
    assert document["periodic"] == document["samples"]
    assert sum(document["sizes"]) == document["samples"]
    assert set(document["elements"]) <= set(METALS)
    assert document["samplers"] == {"strain-rattle": document["samples"]}
    assert len(document["drift"]) == 1
    assert "short: wild" in cli("run", _write(tmp_path, parsed), code=1).stderr


def _write(folder: Path, parsed: Recipe) -> str:
    path = folder / "written.yaml"
    path.write_text(yaml.safe_dump(parsed.model_dump(mode="json", exclude_none=True)))
    return str(path)


def test_a_part_that_grows_makes_no_sample_twice(tmp_path):
    document = recipe(tmp_path)
    for samples in (6, 24):  # the second task has 2 samples first, then 4
        document["parts"][0]["samples"] = samples
        run_here(Recipe.model_validate(document))
    made = hashes(document["store"])
    assert len(set(made)) == len(made) >= 24


def test_a_recipe_with_other_options_warns_of_what_is_there(tmp_path):
    first = recipe(tmp_path)
    assert run_here(Recipe.model_validate(first)).warnings == []
    first["parts"][0]["samples"] = 30  # a part that grows repeats nothing
    assert run_here(Recipe.model_validate(first)).warnings == []
    first["parts"][0]["options"]["max_atoms"] = 16
    (warning,) = run_here(Recipe.model_validate(first)).warnings
    assert warning.startswith("metals: 8 tasks of this part ran before with other options")


def test_the_stress_limit(tmp_path):
    from mlffstore.pipeline.checks import verdicts
    from mlffstore.pipeline.recipe import Checks
    from tests.samples import metal_frames

    batch = ml.SampleBatch.from_ase(metal_frames(4))
    labels = ml.get_teacher("emt").label(batch)
    limit = float(np.sort(np.abs(labels.stress).max(axis=1))[1])
    reasons = verdicts(batch, labels, Checks(stress_max=limit))
    assert [bool(reason) for reason in reasons] == (np.abs(labels.stress).max(axis=1) > limit).tolist()
    assert "|stress| above" in next(filter(None, reasons))
    assert not any(verdicts(batch, labels, Checks()))
    # A limit that is not set is not in the keys, which are older than it.
    first, second = (Recipe.model_validate(recipe(tmp_path, checks=c)) for c in ({}, {"stress_max": 1.0}))
    assert first.key(first.tasks()[0]) != second.key(second.tasks()[0])


@pytest.mark.slow
def test_every_sampler_gives_the_same_with_one_worker_and_with_eight(tmp_path):
    """EMT labels a structure without regard to the others, so even the last bit is the same."""
    pytest.importorskip("phonopy")
    seeds = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "max_atoms": 16}
    options = {
        "rattle": {},
        "scan": {},
        "md": {"teacher": "emt", "temperatures": [300, 600], "equilibration_fs": 20, "interval_fs": 10},
        "rattle-relax": {"teacher": "emt"},
        "normal-modes": {"teacher": "emt", "temperatures": [300]},
    }
    parts = [
        {"name": name, "generator": name, "options": {"seeds": seeds, **more}, "teacher": "emt", "samples": 12,
         "samples_per_task": 4}
        for name, more in options.items()
    ]  # fmt: skip
    found = []
    for workers in (1, 8):
        (tmp_path / str(workers)).mkdir()
        parsed = Recipe.model_validate(recipe(tmp_path / str(workers), parts=parts))
        assert not run(parsed, workers=workers).failed
        batch = ml.open(parsed.store).snapshot().read()
        found.append(sorted(zip(batch.content_hash.tolist(), batch.energy.tolist(), strict=True)))
    assert found[0] == found[1]
    assert len(found[0]) == 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sead": 1}, "sead: unknown key; did you mean 'seed'"),
        ({"seed": -1}, "seed: expected at least 0, got -1"),
        ({"parts": []}, "parts: "),
        ({"precision": "float16"}, "precision: "),
        ({"checks": {"d_min": -1}}, r"checks\.d_min: "),
    ],
)
def test_recipes_are_checked(change, message, tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path, **change)))
    with pytest.raises(RecipeError, match=message):
        load_recipe(path)


def test_recipe_files_that_are_none(tmp_path):
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "broken.yaml").write_text("a: [")
    for name, message in (("absent.yaml", "cannot be read"), ("list.yaml", "mapping"), ("broken.yaml", "syntax error")):
        with pytest.raises(RecipeError, match=message):
            load_recipe(tmp_path / name)


def test_options_that_do_not_exist_are_named_before_anything_is_written(tmp_path):
    document = recipe(tmp_path)
    document["parts"][0]["options"] = {"max_atom": 3}
    with pytest.raises(RecipeError, match=r"part 'metals': .*unknown option 'max_atom'; did you mean 'max_atoms'"):
        run_here(Recipe.model_validate(document))
    assert not (tmp_path / "d.zarr").exists()


@pytest.mark.parametrize(
    ("generator", "options"),
    [
        ("md", {"seeds": "crystals", "teacher": "emtt"}),
        ("rattle", {"seeds": {"name": "relaxed", "seeds": "crystals", "teacher": "emtt"}}),
        ("rattle", {"seeds": {"name": "slabs", "host": {"name": "relaxed", "teacher": "emtt"}}}),
        ("md", {"seeds": "crystals", "teacher": "gfn2-xtb", "teacher_options": {"max_iteration": 5}}),
    ],
)
def test_teachers_that_generators_ask_are_found_before_anything_is_written(tmp_path, generator, options):
    document = recipe(tmp_path)
    document["parts"][0] |= {"generator": generator, "options": options}
    with pytest.raises(RecipeError, match=r"part 'metals': .*did you mean '(emt|max_iterations)'"):
        run_here(Recipe.model_validate(document))
    assert not (tmp_path / "d.zarr").exists()


def test_smallest_distance_sees_periodic_images():
    from ase import Atoms

    near = Atoms("H2", [(0.1, 0, 0), (4.8, 0, 0)], cell=(5, 5, 5), pbc=True)
    small = Atoms("H", [(0, 0, 0)], cell=(0.4, 5, 5), pbc=True)
    free = Atoms("H2", [(0.1, 0, 0), (4.8, 0, 0)])
    found = smallest_distances(ml.SampleBatch.from_ase([near, small, free]), 1.0)
    np.testing.assert_allclose(found, [0.3, 0.4, np.inf], atol=1e-6)


def test_a_changed_file_without_a_suffix_is_noticed(tmp_path, monkeypatch):
    from ase.build import bulk
    from ase.io import write

    monkeypatch.chdir(tmp_path)
    document = recipe(tmp_path)
    options = {"seeds": {"name": "files", "paths": ["POSCAR"]}, "frames": 1}
    document["parts"][0] |= {"generator": "rattle", "options": options, "samples": 2, "samples_per_task": 1}
    document["checks"] = {"n_atoms": [1, 200]}
    for element, made in (("Cu", 2), ("Cu", 0), ("Au", 2)):
        if made:
            write("POSCAR", bulk(element, cubic=True), format="vasp")
        assert run_here(Recipe.model_validate(document)).accepted == made
    assert set(ml.open(tmp_path / "d.zarr").snapshot().read().numbers.tolist()) == {29, 79}

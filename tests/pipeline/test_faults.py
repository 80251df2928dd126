"""Workers that die, disks that fill up, faults of plugins: a run ends, and says what happened."""

from __future__ import annotations

import functools
import os
from typing import Any

import pytest

import mlffstore as ml
from mlffstore.errors import ExecutorError
from mlffstore.pipeline import dispatch, upkeep
from mlffstore.pipeline.account import account
from mlffstore.pipeline.active import learn
from mlffstore.pipeline.campaign import ActiveRecipe
from mlffstore.pipeline.plan import plan
from mlffstore.pipeline.recipe import Recipe
from mlffstore.pipeline.run import run
from mlffstore.runtime.processes import IsolatedProcesses
from mlffstore.store.executors import InProcessExecutor
from tests.clusters import cluster
from tests.pipeline.faults import check_set_aside, deadly, recipe


def test_a_task_that_kills_its_process_is_set_aside_and_the_run_goes_on(tmp_path, caplog):
    parsed = recipe(tmp_path, 0.1)
    assert len(deadly(parsed)) == 1
    report = run(parsed, workers=2)
    check_set_aside(parsed)
    assert len(report.set_aside) == 1
    assert "killed its worker twice and is set aside" in caplog.text
    assert not report.failed
    assert not report.short
    assert run(parsed).accepted == 0  # and is not tried again


def test_a_task_whose_process_dies_once_is_not_set_aside(tmp_path):
    spared = tmp_path / "spared"
    parsed = recipe(tmp_path, 0.1, spared=str(spared))

    def progress(outcome: Any) -> None:  # the first death is behind us when all others have ended
        if len(ml.open(parsed.store)) == 11:
            spared.mkdir(exist_ok=True)  # the outcome of the task before may be told after the next commit

    report = run(parsed, workers=1, progress=progress)
    assert (report.accepted, report.set_aside, report.failed) == (12, [], [])
    assert len(account(parsed, n_environments=0).parts[0].set_aside) == 0


def test_workers_that_die_whatever_they_do_stop_the_run(tmp_path, monkeypatch):
    parsed = recipe(tmp_path, 1.0, samples=2)
    monkeypatch.setattr(dispatch, "_DEATHS", 1)
    with pytest.raises(ExecutorError, match=r"worker processes die whatever they do.*Run the same command again"):
        run(parsed, workers=2)
    (part,) = account(parsed, n_environments=0).parts
    assert part.set_aside == {}


def test_a_part_that_kills_its_worker_is_a_problem_of_the_plan_and_the_others_are_planned(tmp_path):
    parsed = recipe(tmp_path, 0.0)
    (part,) = parsed.parts
    fatal = recipe(tmp_path, 1.0).parts[0].model_copy(update={"name": "fatal"})
    planned = plan(parsed.model_copy(update={"parts": [part, fatal]}), count=1, workers=2)
    assert [one.part for one in planned] == ["metals", "fatal"]
    assert planned[0].problem == ""
    assert "its worker process died" in planned[1].problem


def test_a_campaign_whose_worker_dies_stores_nothing(tmp_path):
    pool = {
        "generator": "rattle",
        "options": recipe(tmp_path, 1.0).parts[0].options,
        "samples": 4,
        "samples_per_task": 2,
    }
    campaign = ActiveRecipe.model_validate({
        "name": "campaign", "seed": 3, "store": str(tmp_path / "a.zarr"), "pool": pool, "window": [0.3, 2.0], "samples": 2,
        "committee": [{"teacher": "emt"}, {"teacher": "ase:ase.calculators.lj:LennardJones"}], "teacher": "emt", "rounds": 1,
    })  # fmt: skip
    with pytest.raises(ExecutorError, match="active learning: a worker process died"):
        learn(campaign, workers=1)
    assert len(ml.open(campaign.store)) == 0


def keep(monkeypatch: pytest.MonkeyPatch, **limits: int) -> None:
    init: Any = upkeep.Upkeep.__init__
    monkeypatch.setattr(init, "__kwdefaults__", {**init.__kwdefaults__, **limits})


@pytest.mark.parametrize(
    "pool",
    [functools.partial(IsolatedProcesses, 1), functools.partial(cluster, active=False, n_workers=1)],
    ids=["processes", "dask"],
)
def test_a_disk_that_fills_up_stops_the_run_and_it_goes_on_later(tmp_path, monkeypatch, pool):
    """Tasks that wait at the executor are taken back; there may be thousands of them."""
    parsed = recipe(tmp_path, 0.0, samples=200)
    disk = os.statvfs(tmp_path)
    keep(monkeypatch, min_bytes=10 * disk.f_blocks * disk.f_frsize)
    with pool() as executor:
        report = run(parsed, executor=executor)
        assert "free on the disk of" in report.stopped
        assert 0 < report.accepted < 100
        assert report.short == report.failed == []
        keep(monkeypatch, min_bytes=0, min_inodes=10 * disk.f_files)
        again = run(parsed, executor=executor)
        assert ("more files fit" in again.stopped) == bool(disk.f_files)
        monkeypatch.undo()
        run(parsed, executor=executor)
    assert len(ml.open(parsed.store)) == 200
    assert not ml.validate(ml.open(parsed.store)).compute().failed("duplicate").size


def test_a_long_run_compacts_as_it_goes(tmp_path, monkeypatch):
    parsed = recipe(tmp_path, 0.0)
    keep(monkeypatch, compact_tasks=5)
    monkeypatch.setattr(dispatch, "_WINDOW", 1)
    run(parsed, executor=InProcessExecutor())
    snap = ml.open(parsed.store).snapshot()
    assert len(snap) == 12
    assert len(snap.segments) == 1 + 2


@pytest.mark.parametrize(
    ("how", "message", "pool"),
    [
        ("error", "ZeroDivisionError: a fault of this class", InProcessExecutor),
        ("foreign", "Foreign: code 7: a fault of this class", functools.partial(IsolatedProcesses, 2)),
        ("exit", "run_task: a plugin called sys.exit(0) instead of raising an error", InProcessExecutor),
        (
            "exit",
            "run_task: a plugin called sys.exit(0) instead of raising an error",
            functools.partial(cluster, active=False, n_workers=1),
        ),
    ],
)
def test_an_error_that_no_plugin_should_raise_fails_its_task_only(tmp_path, caplog, how, message, pool):
    """It is not taken for the death of the worker, which would set the task aside for good."""
    parsed = recipe(tmp_path, 0.1, how=how)
    with pool() as executor:
        report = run(parsed, executor=executor)
    (number,) = deadly(parsed)
    assert report.accepted == 11
    assert report.failed == [f"metals/{number}: {message}"]
    assert "Traceback" in caplog.text
    assert not report.set_aside


def test_a_file_that_options_name_is_part_of_what_a_task_is(tmp_path):
    from ase.build import molecule
    from ase.io import write

    path = tmp_path / "mine.extxyz"
    write(path, molecule("H2O"))
    document = recipe(tmp_path, 0.0).model_dump(mode="json", exclude_none=True)
    document["parts"][0]["options"] = {"seeds": {"name": "files", "paths": [str(path)]}}
    parsed = Recipe.model_validate(document)
    before = parsed.key(parsed.tasks()[0])
    assert parsed.key(parsed.tasks()[0]) == before
    write(path, molecule("NH3"))
    assert Recipe.model_validate(document).key(parsed.tasks()[0]) != before

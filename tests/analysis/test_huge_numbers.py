"""Energies that no teacher gives, such as a code's mark for "none": the statistics, the checks and the report still end."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.analysis.report import contents, rows, write_report
from mlffstore.analysis.report.charts import _histogram
from tests.samples import molecule_frames


@pytest.fixture(scope="module", params=[1e16, 1e160, 1e300])
def store(request, tmp_path_factory):
    """Return a store with an energy of that size, and one of its negative."""
    store = ml.create(tmp_path_factory.mktemp("huge") / "d.zarr")
    frames = molecule_frames(30, seed=0)
    for i, sign in ((4, 1), (5, -1)):
        frames[i].calc.results["energy"] = sign * request.param
    store.append(frames)
    return store


def test_statistics_checks_and_report(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFFSTORE_BROWSER", "")
    document = ml.statistics(store).compute().to_dict()
    assert document["samples"] == 30
    json.dumps(document)
    assert not ml.validate(store).compute().ok
    assert all(path.stat().st_size for path in write_report(store.snapshot(), tmp_path))


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    "values",
    [[1e16, 1e16 + 2, 1e17], [5e18], [0, 2**53], [1e308, -1e308], [-(2.0**60)], [3, 4, 5], [0.1]],
)
def test_a_histogram_counts_every_number(values, log):
    numbers = np.array(values, float)
    drawn = _histogram(numbers, {"all": {"all": np.ones(len(numbers), bool)}}, log)
    edges, counts = np.array(drawn["edges"]), drawn["groups"]["all"]["all"]
    assert np.isfinite(edges).all()
    assert (np.diff(edges) > 0).all()
    assert sum(counts) == (len(numbers) if not log else (numbers > 0).sum())


def test_the_worst_samples_are_those_for_which_there_is_room(store, monkeypatch):
    """With room for five samples there are five pictures, each of its own sample."""
    snapshot, five = store.snapshot(), 5
    validation = ml.validate(snapshot).compute()
    worst = contents._worst(validation)
    n_atoms = snapshot.read(worst[:five]).columns["n_atoms"].sum()
    monkeypatch.setattr(rows, "_BUDGET", int(n_atoms * 4 / 3 * 13))
    options: dict[str, Any] = {"title": "", "policy": None, "teacher": None, "seed": 0, "diversity": False}
    shown = contents.gather(snapshot, [], **options)
    assert len(shown.rows.index) <= five
    assert sorted(one.index for one in shown.worst) == sorted(shown.rows.index.tolist())
    for one in shown.worst:
        assert one.atoms.get_chemical_formula() == snapshot[one.index].get_chemical_formula()

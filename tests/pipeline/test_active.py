"""Active learning: what is chosen is in the window and new, rounds are repeatable, and a campaign knows when to stop."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.analysis.choosing import points as selection
from mlffstore.contracts.protocols import TeacherLabels
from mlffstore.errors import RecipeError
from mlffstore.pipeline.active import disagreement, learn
from mlffstore.pipeline.campaign import ActiveRecipe, load_active_recipe
from mlffstore.store.executors import InProcessExecutor
from tests.command import cli

pytest.importorskip("quests")
pytest.importorskip("sklearn")


def recipe(folder, **changes):
    document = {
        "name": "campaign",
        "seed": 3,
        "store": str(folder / "d.zarr"),
        "pool": {
            "generator": "rattle",
            "options": {"seeds": {"name": "molecules", "min_atoms": 5, "max_atoms": 14}},
            "samples": 24,
            "samples_per_task": 8,
        },
        "committee": [{"teacher": "gfn1-xtb"}, {"teacher": "gfn2-xtb"}],
        "window": [0.3, 2.0],
        "teacher": "gfn2-xtb",
        "samples": 4,
        "rounds": 2,
    }
    return ActiveRecipe.model_validate({**document, **changes})


def learn_here(parsed, **options):
    """Make and label in this process: one of its own takes three seconds of processor time to start."""
    return learn(parsed, executor=InProcessExecutor(), **options)


def hashes(store):
    return ml.open(store).snapshot().read(columns=["content_hash"]).columns["content_hash"].tolist()


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("campaign")
    parsed = recipe(folder)
    return parsed, learn(parsed, workers=2)


def test_a_campaign_stores_what_the_committee_disagrees_on(campaign):
    parsed, report = campaign
    assert [one.number for one in report.rounds] == [1, 2]
    assert report.stopped == "all 2 rounds are done"
    assert not report.converged
    for one in report.rounds:
        assert one.pool == 24 == one.refused + one.confident + one.beyond + one.familiar + one.wanted
        assert one.accepted + one.rejected == min(4, one.wanted) > 0
    snap = ml.open(parsed.store).snapshot()
    assert len(snap) == sum(one.accepted for one in report.rounds)
    batch = snap.read()
    said = [ml.get_teacher(name).label(batch) for name in ("gfn1-xtb", "gfn2-xtb")]
    apart = disagreement(batch, said)
    assert (apart >= 0.3).all()
    assert (apart <= 2.0).all()
    # What is stored was labelled, and is what the first round could not know of.
    np.testing.assert_allclose(batch.energy, said[1].energy, atol=1e-6)
    assert report.rounds[0].against < report.rounds[0].version == report.rounds[1].against
    assert len(set(hashes(parsed.store))) == len(snap)


def test_rounds_one_at_a_time_and_with_one_worker_give_the_same(campaign, tmp_path):
    parsed, report = campaign
    other = recipe(tmp_path)
    first = learn_here(other, rounds=1)
    assert len(first.rounds) == 1
    assert "goes on with the next" in first.stopped
    again = learn(other, workers=1)
    assert hashes(other.store) == hashes(parsed.store)
    assert again.rounds == report.rounds
    assert learn_here(other).rounds == again.rounds  # nothing is left to do
    assert len(ml.open(other.store)) == len(hashes(parsed.store))


def test_a_store_that_exists_is_added_to_whatever_its_settings(tmp_path):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 0.5, "val": 0.25, "test": 0.25}, precision="float64")
    store.append([molecule("CH3CH2OH")], require=())
    report = learn_here(recipe(tmp_path), rounds=1)
    assert len(store) == 1 + report.rounds[0].accepted > 1
    assert store.snapshot().settings["splits"]["train"] == 0.5
    # Another window from here on: the same campaign, on record.
    learn_here(recipe(tmp_path, window=[0.2, 2.0]), rounds=1)
    recipes = [one["recipe"]["window"] for one in store.provenance() if "recipe" in one]
    assert recipes == [[0.3, 2.0], [0.2, 2.0]]


def test_a_pool_without_news_ends_the_campaign(tmp_path):
    """All candidates are one molecule, displaced by less than the spacing of what the first round stored."""
    from ase.io import write

    write(tmp_path / "a.extxyz", molecule("CH3CH2OH"))
    seeds = {"name": "files", "paths": [str(tmp_path / "a.extxyz")], "licence": "CC0-1.0"}
    pool = {"generator": "rattle", "options": {"seeds": seeds}, "samples": 16, "samples_per_task": 8}
    parsed = recipe(tmp_path, pool=pool, window=[0.0, 20.0], novelty=20.0, rounds=5, samples=8)
    report = learn_here(parsed)
    assert report.converged
    assert len(report.rounds) == 2
    assert report.rounds[0].wanted == 16  # nothing was known
    assert report.rounds[1].wanted == 0
    assert report.rounds[1].familiar == 16
    assert report.rounds[1].accepted == 0
    assert "only 0.0% of the pool" in report.stopped
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(json.loads(parsed.model_dump_json(exclude_none=True))))
    done = cli("active", path, "-w", "1")
    assert "converged: only 0.0% of the pool is wanted" in done.stdout


def test_the_disagreement_is_the_largest_deviation_of_a_force():
    batch = ml.SampleBatch.from_ase([molecule("H2"), molecule("H2O")])
    forces = np.zeros((5, 3), np.float32)
    other = forces.copy()
    other[1] = [0, 3, 4]  # 5 eV/angstrom apart: each 2.5 from the mean
    other[4, 0] = 1.0

    def said(f, ok=(True, True)):
        return TeacherLabels(np.zeros(2), f, None, np.array(ok), ("", ""))

    assert disagreement(batch, [said(forces), said(other)]) == pytest.approx([2.5, 0.5])
    assert np.isnan(disagreement(batch, [said(forces), said(other, (True, False))])).tolist() == [False, True]


def test_fingerprints_do_not_change_with_rotation_and_supercell():
    ethanol, turned = molecule("CH3CH2OH"), molecule("CH3CH2OH")
    turned.rotate(70, (1, 2, 3))
    salt = bulk("NaCl", "rocksalt", a=5.64)
    batch = ml.SampleBatch.from_ase([ethanol, turned, salt, salt * (2, 1, 1), bulk("KCl", "rocksalt", a=5.64)])
    found = selection.fingerprints(batch.astype("float64"))
    assert found[1] == pytest.approx(found[0], abs=1e-5)  # QUESTS computes in float32
    assert found[3] == pytest.approx(found[2], abs=1e-5)
    assert np.abs(found[4] - found[2]).max() > 0.5  # the elements
    assert np.abs(found[0] - found[2]).max() > 0.1


@pytest.mark.parametrize("method", selection.METHODS)
def test_what_is_chosen_is_spread_and_new(method):
    """Six clumps of candidates of very different sizes, two of them known: each of the other four gives one."""
    rng = np.random.default_rng(0)
    centres = 10.0 * np.eye(6)
    sizes = [5, 200, 20, 8, 60, 3]
    points = np.concatenate([c + rng.normal(0, 0.1, (n, 6)) for c, n in zip(centres, sizes, strict=True)])
    clump = np.repeat(np.arange(6), sizes)
    known = np.concatenate([centres[k] + rng.normal(0, 0.1, (30, 6)) for k in (1, 4)])
    chosen = selection.select(method, points, known, 4)
    assert sorted(clump[chosen].tolist()) == [0, 2, 3, 5]
    assert len(set(selection.select(method, points, known, 50).tolist())) == 50
    assert len(selection.select(method, points[:3], known, 50)) == 3
    assert len(selection.select(method, points[:0], known, 5)) == 0
    free = selection.select(method, points, points[:0], 6)
    assert sorted(clump[free].tolist()) == list(range(6))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"window": [2.0, 0.1]}, "two rising numbers"),
        ({"committee": [{"teacher": "emt"}]}, "committee: "),
        ({"select": "random"}, "'direct' or 'farthest'"),
        ({"pool": {"generator": "rattle", "size": 3}}, r"pool\.size"),
    ],
)
def test_recipes_are_checked(change, words, tmp_path):
    document = json.loads(recipe(tmp_path).model_dump_json(exclude_none=True))
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**document, **change}))
    with pytest.raises(RecipeError, match=words):
        load_active_recipe(tmp_path / "r.yaml")

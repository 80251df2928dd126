"""Seeds that are relaxed side by side are those that are relaxed one by one, for fewer calls of the teacher."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import bulk, molecule
from ase.io import write

import mlffstore as ml
from mlffstore.contracts.registry import shared_teacher
from mlffstore.errors import DataError
from mlffstore_generators.samplers import base
from mlffstore_generators.seeds.base import NoSeedError, get_seeds
from mlffstore_generators.seeds.drawing import draw_together


def streams(n):
    return [np.random.default_rng(k) for k in range(n)]


@pytest.fixture
def metals(tmp_path):
    """Return seeds of four crystals of metals, of which one is far from its equilibrium."""
    crystals = [bulk("Cu", cubic=True), bulk("Ag"), bulk("Au", a=4.0), bulk("Pd", cubic=True)]
    crystals[3].symbols[:2] = "Pt"
    crystals[0].set_cell(0.7 * crystals[0].cell.array, scale_atoms=True)
    write(tmp_path / "metals.extxyz", crystals)
    return {"name": "files", "paths": [str(tmp_path / "metals.extxyz")]}


def relaxed(seeds, **options):
    return {"name": "relaxed", "seeds": seeds, "teacher": "emt", "steps": 12, "force": 0.3, "pressure": 3.0, **options}


@pytest.fixture
def calls(monkeypatch):
    """Return how many structures each call of the teacher had."""
    teacher, sizes = shared_teacher("emt", {}), []
    label = type(teacher).label
    monkeypatch.setattr(type(teacher), "label", lambda self, batch: sizes.append(len(batch)) or label(self, batch))
    return sizes


NESTED = {
    "files": lambda metals: metals,
    "relaxed": lambda metals: relaxed(metals, steps=4, pressure=1.0),
    "defects": lambda metals: {"name": "defects", "host": relaxed(metals), "max_atoms": 400},
    "slabs": lambda metals: {"name": "slabs", "host": relaxed(metals)},
    # Two relaxations of one draw, one after the other.
    "relaxed slabs": lambda metals: relaxed({"name": "slabs", "host": relaxed(metals)}, cell=False, force=2.0),
}


@pytest.mark.parametrize("name", NESTED)
def test_together_as_alone(name, metals, calls):
    spec = NESTED[name](metals)
    seeds = get_seeds(spec)
    together = draw_together(seeds, streams(6))
    at_once, alone = len(calls), []
    for rng in streams(6):
        try:
            alone.append(seeds.draw(rng))
        except NoSeedError as error:
            alone.append(error)
    failures = sum(isinstance(one, NoSeedError) for one in alone)
    assert failures < 6
    assert failures > 0 or name != "relaxed"
    for one, other in zip(together, alone, strict=True):
        if isinstance(other, NoSeedError):
            assert str(one) == str(other)
            continue
        assert one.atoms == other.atoms
        assert (one.root, one.source) == (other.root, other.source)
        if other.path is not None:
            assert one.path.energy.tolist() == other.path.energy.tolist()
            assert all((a == b).all() for a, b in zip(one.path.forces, other.path.forces, strict=True))
    if calls:
        assert sum(calls[:at_once]) == sum(calls[at_once:])
        assert at_once < len(calls) - at_once


@pytest.mark.parametrize(
    ("generator", "options"),
    [("rattle", {"frames": 3, "path": 1}), ("md", {"teacher": "emt", "frames": 2, "equilibration_fs": 3.0})],
)
def test_samples_do_not_depend_on_how_many_are_drawn_side_by_side(generator, options, metals, monkeypatch):
    made = []
    for parallel in (1, 3, 16):
        monkeypatch.setattr(base, "PARALLEL", parallel)
        rng = np.random.default_rng(5)
        made.append(ml.get_generator(generator, seeds=relaxed(metals), **options).generate(rng, 16))
    for one in made[1:]:
        assert one.batch.content_hash.tolist() == made[0].batch.content_hash.tolist()
        assert (one.calls, one.skipped) == (made[0].calls, made[0].skipped)


def test_what_can_not_be_drawn_ends_with_its_reasons(metals, monkeypatch):
    monkeypatch.setattr(base, "DRAWS", 4)
    hopeless = relaxed(metals, pressure=1e-9)
    rattle = ml.get_generator("rattle", seeds=hopeless, frames=2)
    with pytest.raises(DataError, match="relaxation is far from its end"):
        rattle.generate(np.random.default_rng(0), 2)
    skipped: Counter[str] = Counter()
    seeds, rngs = rattle.draw(np.random.default_rng(0), 2, skipped)
    assert (seeds, rngs, skipped.total()) == ([], [], base.DRAWS * 2)


def test_defects_and_slabs_of_your_own_crystals_share_their_root(tmp_path):
    """What has no family, as a structure of a file, is a root by itself, and so is all that is made of it."""
    bulk("Cu", cubic=True).write(tmp_path / "copper.extxyz")
    file = {"name": "files", "paths": [str(tmp_path / "copper.extxyz")]}
    root = get_seeds(file).draw(np.random.default_rng(0)).root
    for name in ("defects", "slabs"):
        drawn = draw_together(get_seeds({"name": name, "host": file}), streams(8))
        roots = {seed.root for seed in drawn if not isinstance(seed, NoSeedError)}
        assert roots == {root}


def test_labels_that_depend_on_the_way_are_not_kept(tmp_path):
    """xTB starts from the charges of the step before, so its forces and charges differ from those of the structure alone."""
    pytest.importorskip("tblite")
    write(tmp_path / "water.extxyz", molecule("H2O"))
    water = {"name": "files", "paths": [str(tmp_path / "water.extxyz")]}
    seeds = {"name": "relaxed", "seeds": water, "teacher": "gfn2-xtb", "steps": 4, "force": 5.0}
    made = ml.get_generator("rattle", seeds=seeds, frames=4, path=3).generate(np.random.default_rng(0), 4)
    assert "gfn2-xtb" not in made.batch.labels


def test_as_many_draws_are_made_as_one_by_one(metals, monkeypatch):
    """However few seeds are wanted of a draw of many, a class of seeds that mostly fails has its `DRAWS` per structure."""
    monkeypatch.setattr(base, "DRAWS", 5)
    numbers, seeds = iter(range(1000)), get_seeds(metals)

    class Rare:
        def draw(self, rng):
            if (next(numbers) + 1) % 19:
                raise NoSeedError("not this time")
            return seeds.draw(rng)

        def provenance(self):
            return []

    rattle = ml.get_generator("rattle", seeds=metals, frames=4)
    monkeypatch.setitem(rattle.__dict__, "source", Rare())
    made = rattle.generate(np.random.default_rng(0), 4)  # 20 draws
    assert made.skipped == {"not this time": 18}
    monkeypatch.setattr(base, "draw_together", lambda source, rngs: [NoSeedError("not this time") for _ in rngs])
    with pytest.raises(DataError, match=r"20 draws gave 0 of 4 structures \({'not this time': 20}\)"):
        rattle.generate(np.random.default_rng(0), 4)

"""Crystals have the chemistry of crystals, and start near the equilibrium of the teacher that labels them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import bulk
from ase.units import GPa

import mlffstore as ml
from mlffstore.contracts.registry import shared_teacher
from mlffstore.errors import DataError
from mlffstore_generators.chemistry import ANIONS, SHARES, species
from mlffstore_generators.samplers.rattle import path_batch
from mlffstore_generators.seeds import get_seeds
from mlffstore_generators.seeds.base import NoSeedError, PathFrames, Seed

pytest.importorskip("pymatgen")


def drawn(count, **options):
    seeds, rng, out = get_seeds({"name": "crystals", "max_atoms": 60, **options}), np.random.default_rng(4), []
    while len(out) < count:
        try:
            out.append(seeds.draw(np.random.default_rng(rng.integers(2**63))))
        except NoSeedError:
            continue
    return out


@pytest.fixture(scope="module")
def crystals():
    return drawn(160)


def kind_of(seed):
    """Return the class of a crystal, from its elements alone."""
    from pymatgen.core import Element

    elements = sorted({Element(symbol) for symbol in seed.atoms.get_chemical_symbols()}, key=lambda one: one.X)
    if len(elements) == 1:
        return "element"
    if all(one.is_metal for one in elements):
        return "intermetallic"
    anion = elements[-1].symbol
    return next(name for name, anions in ANIONS.items() if anion in {symbol for symbol, _, _ in anions})


def test_classes_have_their_shares(crystals):
    shares = {name: n / len(crystals) for name, n in Counter(map(kind_of, crystals)).items()}
    # 160 draws: a standard error of 4 % for a share of 40 %, of 2 % for one of 8 %.
    assert shares["oxide"] > 0.25
    assert shares["element"] <= 0.12
    for name in ("chalcogenide", "halide", "nitride", "intermetallic"):
        assert shares[name] == pytest.approx(0.94 * SHARES[name], abs=0.09), name
    assert len({seed.family for seed in crystals}) > 140
    only = drawn(8, elemental=0.0, classes={"nitride": 1.0})
    assert {kind_of(seed) for seed in only} == {"nitride"}
    with pytest.raises(DataError, match="oxide, chalcogenide"):
        get_seeds({"name": "crystals", "classes": {"oxides": 1.0}})


def test_salts_are_neutral_and_their_anion_is_the_most_electronegative(crystals):
    """An assignment of common oxidation states exists, found by brute force, in which only the anion is negative."""
    import itertools

    from pymatgen.core import Element

    by_state, _ = species()
    states = {
        symbol: [q for q, symbols in by_state.items() if symbol in symbols] for q in by_state for symbol in by_state[q]
    }
    salts = [seed for seed in crystals if kind_of(seed) not in ("element", "intermetallic")]
    assert len(salts) > 80
    for seed in salts:
        counts = Counter(seed.atoms.get_chemical_symbols())
        anion = max(counts, key=lambda symbol: Element(symbol).X)
        others = [symbol for symbol in counts if symbol != anion]
        assert all(Element(symbol).X < Element(anion).X for symbol in others), counts
        charge = next(q for anions in ANIONS.values() for symbol, q, _ in anions if symbol == anion)
        pools = [[q for q in states[symbol] if q > 0] for symbol in others]
        sums = [sum(counts[s] * q for s, q in zip(others, choice, strict=True)) for choice in itertools.product(*pools)]
        assert -charge * counts[anion] in sums, counts


def test_supercells_share_a_root_with_their_crystal():
    small, large = (drawn(1, elements=["Cu"], elemental=1.0, min_atoms=n)[0] for n in (4, 30))
    assert len(small.atoms) != len(large.atoms)
    assert small.root == large.root  # whatever their lattice is
    assert small.family == "crystal Cu1"


# -- near equilibrium -----------------------------------------------------------------------------------------------------

SALTS = {"name": "crystals", "elemental": 0.0, "classes": {"oxide": 0.5, "halide": 0.5}, "max_atoms": 20}
RELAXED = {"name": "relaxed", "seeds": SALTS, "teacher": "chgnet", "steps": 35}


@pytest.fixture(scope="module")
def near(thorough):
    """Return the structures about two relaxed salts, or with --run-slow about five: a relaxation takes seconds."""
    generator = ml.get_generator("rattle", seeds=RELAXED, frames=8, path=4, strained=0.0)
    return generator.generate(np.random.default_rng(2), 40 if thorough else 16)


def test_structures_about_a_relaxed_cell_have_little_pressure(near, thorough):
    batch = near.batch.astype("float32")
    path = np.array([name == "relaxation-chgnet" for name in batch.sampler])
    assert 0.3 <= path.mean() <= 0.5
    labels = shared_teacher("chgnet", {}).label(batch.structures())
    pressure = np.abs(labels.stress[:, :3].mean(axis=1)) / GPa
    # Unrelaxed salts have tens of GPa. Of five of them most are near zero, of two the larger part.
    assert (pressure[~path] < 5).mean() >= (0.85 if thorough else 0.6)
    assert near.teacher.name == "chgnet"
    # At least one seed for eight samples at up to 35 steps; some fail.
    assert len(batch) / 8 < near.calls["chgnet"] <= 12 * 35


def test_frames_of_the_path_keep_the_labels_that_it_had(near):
    batch = near.batch.astype("float32")
    kept = batch.labels["chgnet"]
    path = np.isfinite(kept["energy"])
    again = shared_teacher("chgnet", {}).label(batch.structures())
    # float32 sums in another order.
    assert np.abs(kept["energy"] - again.energy)[path].max() < 1e-4
    atoms = np.repeat(path, batch.n_atoms)
    assert np.abs(kept["forces"][atoms] - again.forces[atoms]).max() < 5e-4
    assert np.isnan(kept["forces"][~atoms]).all()
    # Downhill: the last frame of each path is the lowest of its root.
    for root in set(batch.root.tolist()):
        own = kept["energy"][path & (batch.root == root)]
        assert own.argmin() == len(own) - 1


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_path_gives_its_end_and_steps_at_random_before_it(count):
    frames = tuple(bulk("Cu", a=3.4 + 0.01 * step) for step in range(21))
    info = ml.get_teacher("emt").info
    path = PathFrames(info, frames, np.arange(21.0), (np.zeros((1, 3)),) * 21, np.zeros((21, 6)), ())
    seed = Seed(frames[-1], "copper", path=path)
    drawn = [path_batch(seed, count, np.random.default_rng(k)).labels[info.name]["energy"] for k in range(200)]
    assert all(len(one) == count and one[-1] == 20 for one in drawn)
    for k, stretch in enumerate({1: [], 2: [range(20)], 4: [range(7), range(7, 14), range(14, 20)]}[count]):
        assert {int(one[k]) for one in drawn} == set(stretch)  # the first step of the path, too


def test_what_lacks_labels_is_labelled_and_the_rest_is_not(near):
    from mlffstore.pipeline.task import labelled

    calls = Counter(near.calls)
    teacher = shared_teacher("chgnet", {})
    batch, labels = labelled(teacher, near, "float32", calls)
    path = np.isfinite(near.batch.labels["chgnet"]["energy"])
    assert calls["chgnet"] == near.calls["chgnet"] + np.count_nonzero(~path)
    assert np.array_equal(batch.labels["chgnet"]["energy"][path], near.batch.labels["chgnet"]["energy"][path])
    atoms = np.repeat(path, batch.n_atoms)
    assert np.array_equal(batch.labels["chgnet"]["magmoms"][atoms], near.batch.labels["chgnet"]["magmoms"][atoms])
    assert np.isfinite(batch.labels["chgnet"]["magmoms"]).all()
    assert labels.ok.all()
    assert np.isfinite(batch.labels["chgnet"]["forces"]).all()
    assert np.isfinite(batch.labels["chgnet"]["stress"]).all()


def test_paths_are_for_relaxed_seeds_only():
    with pytest.raises(DataError, match="fewer than frames"):
        ml.get_generator("rattle", seeds=RELAXED, frames=4, path=4)
    made = ml.get_generator("rattle", seeds=SALTS, frames=4, path=2).generate(np.random.default_rng(0), 4)
    assert made.teacher is None
    with pytest.raises(DataError, match="positive steps"):
        get_seeds({**RELAXED, "steps": 0})

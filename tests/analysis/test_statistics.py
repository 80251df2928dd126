"""Statistics against straightforward NumPy, and whatever the partition, the same result."""

from __future__ import annotations

import itertools
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from ase.data import atomic_numbers, chemical_symbols

import mlffstore as ml
from mlffstore.analysis.statistics.diversity import diversity, diversity_by_domain, vendi
from mlffstore.analysis.statistics.gather import Gather, Part
from mlffstore.analysis.statistics.sketch import ERROR, EXACT, Moments, Sketch
from mlffstore.data.geometry import neighbour_counts, pairs
from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError
from mlffstore.lazy.blocks import Block

CLOSE = {"rel": 1e-10, "abs": 1e-12}


@pytest.fixture(scope="module")
def mlearn(real, tmp_path_factory):
    """Return a snapshot of the three real files, with an invented stress."""
    store = ml.create(tmp_path_factory.mktemp("stats") / "d.zarr")
    rng = np.random.default_rng(0)
    for path in sorted(real.glob("*.extxyz")):
        one = path.parent / path.name
        target = store.url + f"-{path.stem}"
        ml.import_files([one], target)
        batch = ml.open(target).snapshot().read()
        labels = batch.labels[batch.teachers[0]] | {"stress": rng.normal(0, 0.1, (len(batch), 6))}
        store.append(batch.structures().with_labels("dft", **labels))
    return store.snapshot()


def test_every_figure_is_that_of_numpy(mlearn):
    found = ml.statistics(mlearn)
    assert "not computed yet" in repr(found)
    d, batch = found.to_dict(), mlearn.read()
    split = mlearn.split_codes()
    energy, forces, stress = batch.energy / batch.n_atoms, batch.forces.astype(float), batch.stress.astype(float)
    size = np.linalg.norm(forces, axis=1)
    atom_split = np.repeat(split, batch.n_atoms)
    assert (d["samples"], d["atoms"], d["periodic"]) == (len(batch), batch.n_atoms_total, int(batch.pbc.all(1).sum()))
    assert [one["samples"] for one in d["splits"].values()] == np.bincount(split, minlength=3).tolist()
    for z in np.unique(batch.numbers):
        one = d["elements"][chemical_symbols[z]]
        assert one["atoms"] == (batch.numbers == z).sum()
        assert one["samples"] == sum((batch.numbers[a:b] == z).any() for a, b in itertools.pairwise(batch.offsets))
    t = d["teachers"]["dft"]
    rows = {
        "energy_eV_per_atom": energy,
        "force_component_eV_per_angstrom": forces,
        "force_eV_per_angstrom": size,
    }
    for name, values in rows.items():
        expected = {
            "mean": values.mean(),
            "std": values.std(),
            "rms": np.sqrt((values**2).mean()),
            "min": values.min(),
            "max": values.max(),
        }
        for what, value in expected.items():
            # A mean of forces near zero is judged by their size.
            assert t[name][what] == pytest.approx(value, rel=1e-10, abs=1e-10 * np.abs(values).max()), (name, what)
    for i, name in enumerate(("train", "val", "test")):
        assert t["energy_eV_per_atom"]["by_split"][name]["std"] == pytest.approx(energy[split == i].std(), **CLOSE)
        assert t["force_component_eV_per_angstrom"]["by_split"][name]["rms"] == pytest.approx(
            np.sqrt((forces[atom_split == i] ** 2).mean()), **CLOSE
        )
    for q, value in t["energy_eV_per_atom"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(energy, float(q)), **CLOSE)
    for q, value in t["force_eV_per_angstrom"]["quantiles"].items():
        assert value == pytest.approx(np.quantile(size, float(q)), rel=1e-10 if len(size) <= EXACT else 2 * ERROR)
    for symbol, one in t["force_eV_per_angstrom"]["by_element"].items():
        mine = size[batch.numbers == atomic_numbers[symbol]]
        assert one["rms"] == pytest.approx(np.sqrt((mine**2).mean()), **CLOSE)
    for k, name in enumerate(("xx", "yy", "zz", "yz", "xz", "xy")):
        assert t["stress_eV_per_angstrom3"][name]["rms"] == pytest.approx(np.sqrt((stress[:, k] ** 2).mean()), **CLOSE)
    volume = np.abs(np.linalg.det(batch.cell)) / batch.n_atoms
    assert d["volume_angstrom3_per_atom"]["quantiles"]["0.5"] == pytest.approx(np.median(volume), **CLOSE)


def test_normalisation_is_least_squares_on_the_split_train(mlearn):
    n = ml.statistics(mlearn).normalisation()
    batch = mlearn.read(mlearn.split_indices("train"))
    present = np.unique(batch.numbers)
    x = np.stack([np.add.reduceat((batch.numbers == z).astype(float), batch.offsets[:-1]) for z in present], axis=1)
    expected, _, rank, _ = np.linalg.lstsq(x, batch.energy, rcond=None)
    fit = n["element_energies_eV"]
    assert fit["rank"] == rank
    assert list(fit["values"].values()) == pytest.approx(expected, rel=1e-10)
    referenced = (batch.energy - x @ expected) / batch.n_atoms
    assert n["referenced_energy_eV_per_atom"]["mean"] == pytest.approx(referenced.mean(), rel=1e-8)
    assert n["referenced_energy_eV_per_atom"]["std"] == pytest.approx(referenced.std(), rel=1e-9)
    assert n["mace"]["std"] == pytest.approx(np.sqrt((batch.forces.astype(float) ** 2).mean()), **CLOSE)
    assert n["stress_rms_eV_per_angstrom3"] == pytest.approx(np.sqrt((batch.stress.astype(float) ** 2).mean()), **CLOSE)
    assert n["mace"]["E0s"] == {str(atomic_numbers[k]): v for k, v in fit["values"].items()}
    import vesin

    near = 0
    for frame in batch.take(np.arange(30)).to_ase():
        (d,) = vesin.NeighborList(cutoff=5.0, full_list=True).compute(frame.positions, frame.cell.array, True, "d")
        near += len(d)
    part = batch.take(np.arange(30))
    counted = neighbour_counts(part.offsets, part.positions, part.cell, part.pbc, [5.0])
    assert counted.sum() == pytest.approx(near, abs=2)  # a pair at the cutoff, in float32
    nothing = ml.statistics(mlearn.to_xarray().mlff.isel(mlearn.split_indices("val")), neighbours=False)
    with pytest.raises(DataError, match="no energy of any sample of the split train"):
        nothing.normalisation()


def test_the_mean_where_the_energies_of_elements_cannot_be_told_apart():
    """In NaCl and 2 NaCl alone, Na and Cl share the energy."""
    batch = ml.SampleBatch(
        n_atoms=[2, 4],
        numbers=[11, 17] * 3,
        positions=np.arange(18.0).reshape(6, 3),
        energy=[-4.0, -8.0],
        forces=np.zeros((6, 3)),
    )
    found = Gather(1, False)(block(batch))
    solution, rank, _ = found.teachers[0].every.solve()
    assert rank == 1
    assert solution == pytest.approx([-2.0, -2.0])


def block(batch, which=slice(None)):
    batch = batch.take(np.arange(len(batch))[which])
    columns = {
        name: batch.columns[name]
        for name in ("numbers", "positions", "cell", "pbc", "sampler")
        if name in batch.columns
    }
    labels = {name: array[:, None] for name, array in batch.labels[batch.teachers[0]].items()}
    split = (batch.content_hash % np.uint64(3)).astype(np.uint8)
    return Block(0, {**columns, **labels, "split": split, "n_atoms": batch.n_atoms}, batch.offsets)


@hypothesis.settings(max_examples=30, deadline=None)
@hypothesis.given(data=st.data())
def test_any_partition_gives_the_result_of_a_single_pass(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    n = data.draw(st.integers(2, 30))
    counts = rng.integers(1, 6, n)
    total = int(counts.sum())
    batch = ml.SampleBatch(
        n_atoms=counts, numbers=rng.choice([1, 6, 8, 29], total), positions=rng.normal(0, 3, (total, 3)),
        energy=np.where(rng.random(n) < 0.2, np.nan, rng.normal(-6000, 1, n)), forces=rng.normal(0, 10.0, (total, 3)),
        stress=rng.normal(0, 1, (n, 6)), sampler=(rng.integers(0, 3, n), ["a", "b", "c"]),
    )  # fmt: skip
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, n - 1)))), n]
    gather = Gather(3, True)
    whole = gather(block(batch))
    parts = [gather(block(batch, slice(a, b))) for a, b in itertools.pairwise(cuts)]
    middle = data.draw(st.integers(1, len(parts)))
    merged = Part.merge([Part.merge(parts[:middle]), *parts[middle:]])  # in whatever tree
    same(merged, whole)


def same(a, b):
    """Compare recursively: counts exactly, sums to rounding; factors by what they solve."""
    if isinstance(a, Sketch):
        assert (a.keys.tolist(), a.counts.tolist(), a.low, a.high) == (
            b.keys.tolist(),
            b.counts.tolist(),
            b.low,
            b.high,
        )
        assert np.sort(a.values).tolist() == np.sort(b.values).tolist()
    elif hasattr(a, "solve"):
        assert a.n == b.n
        (x, rank_x, _), (y, rank_y, _) = a.solve(), b.solve()
        assert rank_x == rank_y
        assert x == pytest.approx(y, rel=1e-6, abs=1e-6)  # conditioned by the draw
        assert a.residual(x) == pytest.approx(b.residual(y), rel=1e-6, abs=1e-6, nan_ok=True)
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            same(one, other)
    elif isinstance(a, np.ndarray) or np.isscalar(a):
        assert np.asarray(a) == pytest.approx(np.asarray(b), rel=1e-10, abs=1e-9)
    else:
        for name in a.__slots__:
            same(getattr(a, name), getattr(b, name))


def test_quantiles_of_many_numbers_are_within_the_error_that_is_stated():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.lognormal(0, 2, 80_000), -rng.lognormal(1, 1, 40_000), np.zeros(1000)])
    whole, parts = Sketch.of(x), Sketch.merge([Sketch.of(part) for part in np.array_split(x, 7)])
    assert whole.values is None
    assert (parts.keys.tolist(), parts.counts.tolist()) == (whole.keys.tolist(), whole.counts.tolist())
    for q in (0, 0.001, 0.2, 0.33, 0.5, 0.9, 0.999, 1):
        exact = np.sort(x)[int(q * (len(x) - 1))]
        assert abs(whole.quantile(q) - exact) <= 1.01 * ERROR * abs(exact)
    assert whole.histogram(np.array([-np.inf, 0.0, np.inf])).sum() == len(x)
    assert Sketch.of(np.array([np.nan])).n == 0
    assert math.isnan(Sketch.of(np.zeros(0)).quantile(0.5))


def test_moments_do_not_cancel():
    x = 1e9 + np.random.default_rng(0).normal(0, 1e-3, 10_000)
    parts = Moments.merge([Moments.of(part) for part in np.array_split(x, 9)])
    assert parts.std[0] == pytest.approx(x.std(), rel=1e-4)  # the numbers themselves are 1e-7 apart


def test_pairs_are_those_of_vesin():
    """Random cells, skewed, periodic along any of the vectors, atoms anywhere."""
    import vesin
    from ase.geometry import complete_cell

    rng = np.random.default_rng(0)
    n_atoms = rng.integers(1, 25, 120)
    starts = offsets(n_atoms)
    x = rng.uniform(-9, 9, (starts[-1], 3))
    cell = rng.normal(0, 1, (120, 3, 3)) + np.eye(3) * rng.uniform(2, 6, (120, 1, 1))
    pbc = rng.random((120, 3)) < 0.5
    found = pairs(starts, x, cell, pbc, 4.5)
    begin = offsets(found.counts)
    for i in range(120):
        box = complete_cell(np.where(pbc[i][:, None], cell[i], 0)) if pbc[i].any() else np.zeros((3, 3))
        part = x[starts[i] : starts[i + 1]]
        (d,) = vesin.NeighborList(cutoff=4.5, full_list=False).compute(
            points=part, box=box, periodic=pbc[i], quantities="d"
        )
        assert np.sort(found.distance[begin[i] : begin[i + 1]]) == pytest.approx(np.sort(d), abs=1e-9)
    counted = neighbour_counts(starts, x, cell, pbc, [2.0, 4.5])
    assert counted[:, 1].tolist() == (2 * found.counts).tolist()


def test_diversity_tells_the_varied_from_the_repeated(clean):
    pytest.importorskip("quests")
    snapshot = ml.open(clean).snapshot()
    varied = diversity(snapshot, n_environments=300, n_seeds=2)
    assert 0.5 < varied.score <= 1
    assert varied.n_environments == 300
    again = snapshot.to_xarray().load().mlff.isel(np.repeat(np.arange(3), 30))
    repeated = diversity(again, n_environments=300, n_seeds=2)
    assert repeated.score < varied.score - 0.1
    # A poor half drowns in a rich one, and not by domain: 30 times the same three crystals beside all molecules.
    ds = snapshot.to_xarray().load()
    periodic = ds["pbc"].values.any(axis=1)
    poor = ds.mlff.isel(np.concatenate([np.flatnonzero(~periodic), np.repeat(np.flatnonzero(periodic)[:2], 30)]))
    each = diversity_by_domain(poor, n_environments=300, n_seeds=1)
    assert each["periodic"].score < each["molecules"].score - 0.1
    assert diversity(poor, n_environments=300, n_seeds=1).score > each["periodic"].score + 0.05
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((5, 3))) == pytest.approx(1)

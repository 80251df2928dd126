"""What changed from one release to the next: every label and every user column counts, and order does not."""

from __future__ import annotations

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.release.changes import changes
from mlffstore.release.reading import Release

N = 12


def samples(**changed):
    """Return samples with all kinds of labels and columns; `changed` are changes of single values."""
    rng = np.random.default_rng(0)
    counts = rng.integers(3, 6, N)
    atoms = int(counts.sum())
    values = {
        "energy": rng.normal(size=N), "forces": rng.normal(size=(atoms, 3)), "stress": rng.normal(size=(N, 6)),
        "dipole": rng.normal(size=(N, 3)), "charges": rng.normal(size=atoms),
    }  # fmt: skip
    extra = {
        "gap": (rng.normal(size=N), "eV", "sample"), "rank": (np.arange(N), "1", "sample"),
        "note": ([f"note {k}" for k in range(N)], "1", "sample"), "spin": (rng.normal(size=atoms), "1", "atom"),
    }  # fmt: skip
    structure = {"n_atoms": counts, "numbers": np.full(atoms, 14), "positions": rng.normal(size=(atoms, 3)) * 5}
    cell = np.tile(np.eye(3) * 20, (N, 1, 1))
    for name, change in changed.items():
        if name in values:
            values[name] = change(values[name].copy())
        else:
            array, *about = extra[name]
            extra[name] = (change(np.array(array)), *about)
    return ml.SampleBatch(**structure, cell=cell, pbc=np.ones((N, 3), bool), labels={"dft": values}, extra=extra)


def released(folder, batch, order=None):
    store = ml.create(folder / "d.zarr")
    store.append(batch if order is None else batch.take(order))
    return Release(ml.export_release(store.snapshot(), folder, name="r", allow_failing=True))


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return released(tmp_path_factory.mktemp("original"), samples())


@pytest.fixture
def release(tmp_path_factory):
    """Return a function that makes a release of a batch."""
    return lambda batch, order=None: released(tmp_path_factory.mktemp("release"), batch, order)


def first(change):
    def apply(values):
        values[0] = change(values[0])
        return values

    return apply


def swapped(values):
    values[[0, 1]] = values[[1, 0]]
    return values


@pytest.mark.parametrize(
    ("name", "change", "relabelled"),
    [
        ("energy", first(lambda x: x + 1e-3), 1),
        ("forces", swapped, 1),
        ("stress", first(lambda x: -x), 1),
        ("stress", first(lambda x: x[[0, 1, 2, 5, 4, 3]]), 1),
        ("dipole", first(lambda x: 2 * x), 1),
        ("dipole", first(lambda x: np.nan * x), 1),
        ("charges", swapped, 1),
        ("gap", first(lambda x: x + 1), 1),
        ("rank", swapped, 2),
        ("note", first(lambda x: "another"), 1),
        ("spin", swapped, 1),
    ],
)
def test_every_value_counts(original, release, name, change, relabelled):
    """Only energies and forces were looked at: a corrected stress was a patch."""
    found = changes(original, release(samples(**{name: change})))
    assert (found.relabelled, found.bump) == (relabelled, "major")


def test_order_and_vocabularies_are_no_change(original, release):
    found = changes(original, release(samples(), order=np.arange(N)[::-1]))
    assert (found.relabelled, sum(found.added.values()), found.bump) == (0, 0, "patch")


def test_columns_that_come_and_go(release):
    whole = samples()
    less = ml.SampleBatch(
        n_atoms=whole.n_atoms, numbers=whole.numbers, positions=whole.positions, cell=whole.cell, pbc=whole.pbc,
        labels={"dft": {"energy": whole.energy, "forces": whole.forces}},
    )  # fmt: skip
    old, new = release(less), release(whole)
    grown, shrunk = changes(old, new), changes(new, old)
    names = {"stress.dft", "dipole.dft", "charges.dft", "gap", "rank", "note", "spin"}
    assert (set(grown.columns_added), grown.columns_removed, grown.relabelled, grown.bump) == (names, (), 0, "minor")
    assert (set(shrunk.columns_removed), shrunk.bump) == (names, "major")
    assert "new columns: " in " ".join(grown.lines())


def test_a_teacher_without_energies(tmp_path):
    """Its release failed its own verification, and its samples were in no split and no summary."""
    whole = samples()
    charges = {"charges": whole.labels["dft"]["charges"]}
    batch = whole.structures().with_properties("qeq", charges)
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch, require=())
    path = ml.export_release(store.snapshot(), tmp_path, name="r", allow_failing=True)
    assert ml.verify_release(path.parent).ok
    for opened in (store.snapshot(), ml.open_release(path.parent)):
        assert opened.summary()["teachers"] == {"qeq": N}
        assert len(opened.split_indices(None, "qeq")) == N
    assert changes(Release(path), Release(path)).bump == "patch"

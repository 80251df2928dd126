"""What changed from one release to the next: every label and every user column counts, and order does not."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

import mlffstore as ml
from mlffstore.release.changes import changes
from mlffstore.release.reading import Release
from mlffstore.release.samples import open_release
from mlffstore.release.verify import verify_release

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


def repeated(*shifts):
    """Return the same structures once for each shift, with energies shifted by it."""
    batch = samples()
    return [batch.with_labels("dft", energy=batch.label("energy", "dft") + shift) for shift in shifts]


def released_all(folder, batches):
    store = ml.create(folder / "d.zarr")
    for batch in batches:
        store.append(batch, require=("energy",))
    return Release(ml.export_release(store.snapshot(), folder, name="r", allow_failing=True, recheck=False))


def test_each_copy_of_a_structure_counts(tmp_path_factory):
    def made(*shifts):
        return released_all(tmp_path_factory.mktemp("repeats"), repeated(*shifts))

    old = made(0.0, 5.0)
    same = changes(old, made(5.0, 0.0))  # in another order
    assert (same.relabelled, same.moved, same.bump) == (0, 0, "patch")
    assert changes(old, made(0.0, 7.0)).relabelled == N
    assert changes(old, made(1.0, 7.0)).relabelled == 2 * N
    gone, more = changes(old, made(5.0)), changes(old, made(0.0, 5.0, 5.0))
    assert (sum(gone.removed.values()), gone.relabelled, gone.bump) == (N, 0, "major")
    assert (sum(more.added.values()), more.relabelled, more.bump) == (N, 0, "minor")


def test_a_unit_counts(tmp_path_factory):
    def made(unit):
        store = ml.create(tmp_path_factory.mktemp("unit") / "d.zarr")
        batch = ml.SampleBatch(n_atoms=[1] * 3, numbers=[2] * 3, positions=np.arange(9.0).reshape(3, 3), energy=[1.0] * 3,
                               extra={"gap": (np.ones(3), unit, "sample")})  # fmt: skip
        store.append(batch, require=())
        folder = tmp_path_factory.mktemp("release")
        return Release(ml.export_release(store.snapshot(), folder, name="r", allow_failing=True, recheck=False))

    assert changes(made("eV"), made("meV")).relabelled == 3
    assert changes(made("eV"), made("eV")).relabelled == 0


@pytest.mark.parametrize(
    ("before", "after", "rises"),
    [
        ("1.0.0-rc.2", "1.0.0-rc.1", False), ("1.0.0-rc.2", "1.0.0-rc.2", False), ("1.0.0-rc.2", "1.0.0-rc.10", True),
        ("1.0.0-rc.2", "1.0.0", True), ("1.0.0-alpha", "1.0.0-beta.1", True), ("1.0.0", "1.0.1", True),
        ("1.0.0", "1.0.0", False),
    ],
)  # fmt: skip
def test_versions_rise_in_their_order(tmp_path, before, after, rises):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples())
    options = {"name": "r", "allow_failing": True, "recheck": False}
    old = ml.export_release(store.snapshot(), tmp_path / "old", version=before, **options)
    if rises:
        ml.export_release(store.snapshot(), tmp_path / "new", version=after, since=old, **options)
    else:
        with pytest.raises(ml.errors.ReleaseError, match="version: expected"):
            ml.export_release(store.snapshot(), tmp_path / "new", version=after, since=old, **options)


def test_a_release_of_a_release_says_what_was_done_before(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples())
    options = {"allow_failing": True, "recheck": False}
    chosen = store.snapshot().take(np.arange(9))
    first = ml.export_release(chosen, tmp_path, name="a", rounding={"forces": 0.5}, **options)
    lone = tmp_path / "lone.h5"  # without the documents beside it
    lone.write_bytes(first.read_bytes())
    for source, name in ((first.parent, "b"), (lone, "c")):
        again = ml.export_release(open_release(source), tmp_path, name=name, rounding={"forces": 0.1}, **options)
        manifest = json.loads((again.parent / "MANIFEST.json").read_text())
        assert (manifest["rounding"], manifest["selection"]["of"]) == ({"forces": 0.5}, N)
        card = (again.parent / "README.md").read_text()
        assert "Lossy: forces to steps of at most 0.5" in card
        assert "9 of 12 samples" in card
        with h5py.File(again) as file:
            assert {file[split]["forces"].attrs["rounding_step"] for split in file} == {0.5}
        citation = (again.parent / "CITATION.cff").read_text()
        assert ("date-released" in citation) == (name == "b")
        assert verify_release(again.parent).ok


@pytest.mark.parametrize("step", [1e39, 1e-40, float("nan"), 0, -1.0, "1e-4", True])
def test_steps_that_would_destroy_values_are_refused(tmp_path, step):
    store = ml.create(tmp_path / "d.zarr")
    store.append(samples())
    with pytest.raises(ml.errors.DataError, match="rounding: expected a step of forces from 1e-12 to 1000"):
        ml.get_exporter("hdf5")(store.snapshot(), tmp_path / "r.h5", rounding={"forces": step})
    assert not (tmp_path / "r.h5").exists()

"""Tables of samples, questions over them, and selections: read as a snapshot is, kept under a name."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import ConflictError, DataError, FormatError
from mlffstore.format.kept_selection import selected_indices, selection_document
from tests.samples import mixed_frames


def batch(n: int, seed: int, teacher: str = "a", **extra) -> ml.SampleBatch:
    frames = ml.SampleBatch.from_ase(
        mixed_frames(n, seed), teacher=teacher, source="nci", sampler=["md", "rattle"] * (n // 2)
    )
    columns = {
        name: frames.columns[name] for name in ("n_atoms", "numbers", "positions", "cell", "pbc", "multiplicity")
    }
    coded = {name: (frames.columns[name], frames.vocabulary[name]) for name in ("source", "sampler")}
    return ml.SampleBatch(**columns, **coded, labels=frames.labels, extra=extra)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFFSTORE_CACHE", str(tmp_path / "cache"))
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch(20, 0))
    extra = {
        "quality": (np.ma.masked_less(np.arange(20), 5), "1", "sample"),
        "formula": (["x", None] * 10, "1", "sample"),
        "Weight": (np.arange(20.0), "eV", "sample"),
    }
    store.append(batch(20, 1, **extra))
    store.append(batch(10, 2, teacher="b"))
    return store


def test_the_table_says_what_the_samples_are(store):
    snap = store.snapshot()
    table = snap.table().to_pydict()
    whole = snap.read()
    assert table["sample"] == list(range(50))
    assert table["n_atoms"] == whole.n_atoms.tolist()
    assert table["periodic_dimensions"] == whole.pbc.sum(axis=1).tolist()
    frames = [whole[i].structures().to_ase()[0] for i in range(50)]
    assert table["formula"] == [atoms.get_chemical_formula("hill") for atoms in frames]
    assert [set(symbols) for symbols in table["elements"]] == [set(atoms.symbols) for atoms in frames]
    for i, atoms in enumerate(frames):
        expected = atoms.get_volume() / len(atoms) if atoms.pbc.all() else None
        assert table["volume_per_atom"][i] == (None if expected is None else pytest.approx(expected))
    a = whole.labels["a"]
    assert table["energy_per_atom.a"][:40] == pytest.approx((a["energy"] / whole.n_atoms)[:40])
    forces = [a["forces"][whole.offsets[i] : whole.offsets[i + 1]].astype(float) for i in range(40)]
    assert table["max_force.a"][:40] == pytest.approx([np.linalg.norm(one, axis=1).max() for one in forces])
    assert table["rms_force.a"][:40] == pytest.approx([np.sqrt((one**2).mean()) for one in forces])
    assert table["pressure.a"][0] == pytest.approx(-a["stress"][0, :3].mean())
    # What a sample lacks is null and never a number.
    assert table["energy_per_atom.a"][40:] == table["max_force.a"][40:] == [None] * 10
    assert table["pressure.a"][1] is None
    assert table["teachers"] == [["a"]] * 40 + [["b"]] * 10
    assert table["properties.a"][:2] == [["energy", "forces", "stress"], ["energy", "forces"]]
    assert table["quality"] == [None] * 25 + list(range(5, 20)) + [None] * 10
    assert table["column.formula"][20:23] == ["x", None, "x"]
    assert table["Weight"][20:40] == list(range(20))
    assert [["train", "val", "test"][code] for code in snap.split_codes()] == table["split"]


def test_a_table_is_kept_for_its_version_and_never_answers_for_another(store, tmp_path):
    first = store.snapshot().table()
    (folder,) = [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert store.snapshot().table().equals(first)
    store.append(batch(2, 7))
    assert len(store.snapshot().table()) == 52
    data = bytearray((folder / "table.arrow").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "new").write_bytes(data)  # and not in place, where the first table is mapped
    (folder / "new").replace(folder / "table.arrow")
    assert store.snapshot(3).table().equals(first)  # damaged: computed again
    assert len(ml.create(tmp_path / "empty.zarr").snapshot().table()) == 0


@pytest.mark.parametrize(
    ("where", "condition"),
    [
        ("n_atoms < 5", lambda row: row["n_atoms"] < 5),
        ("list_contains(elements, 'Cu') and \"max_force.a\" > 0.5", lambda row: "Cu" in row["elements"]
         and (row["max_force.a"] or 0) > 0.5),
        ("len(teachers) = 1 and list_contains(teachers, 'b')", lambda row: row["teachers"] == ["b"]),
        ("quality is not null", lambda row: row["quality"] is not None),
        ("n_atoms = (select max(n_atoms) from samples)", lambda row: row["n_atoms"] == 24),
    ],
)  # fmt: skip
def test_conditions_choose_what_python_would(store, where, condition):
    snap = store.snapshot()
    expected = [row["sample"] for row in snap.table().to_pylist() if condition(row)]
    assert expected
    assert snap.select(where).indices.tolist() == expected


def test_order_limit_and_draws(store):
    snap = store.snapshot()
    sizes = snap.read(columns=["n_atoms"]).n_atoms
    ordered = snap.select("periodic", order_by="n_atoms desc", limit=7)
    periodic = np.flatnonzero(snap.read(columns=["pbc"]).pbc.any(axis=1))
    assert ordered.indices.tolist() == periodic[np.argsort(-sizes[periodic], kind="stable")][:7].tolist()
    drawn = snap.select(sample=10, seed=3)
    assert len(drawn) == 10
    assert drawn.digest == snap.select(sample=10, seed=3).digest != snap.select(sample=10, seed=4).digest
    assert (np.diff(drawn.indices) > 0).all()
    again = ordered.select("n_atoms = 24", limit=2)
    assert again.indices.tolist() == [i for i in ordered.indices if sizes[i] == 24][:2]
    assert again.snapshot is snap
    assert (
        again.question == "where periodic, ordered by n_atoms desc, the first 7; then where n_atoms = 24, the first 2"
    )


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ("max_froce.a < 3", "max_froce"),
        ("n_atmos < 3", "did you mean 'n_atoms'"),
        ("max_force < 3", 'write "max_force.a" or "max_force.b"'),
        ("n_atoms <", "syntax error"),
        ("n_atoms < 3; drop view samples", "modifiers"),
        ("sample in (select 1 from read_csv('/etc/passwd'))", "files and networks cannot be read"),
        ("sample in (select 1 from '/etc/passwd')", "does not exist"),
        ("sample in (select 1 from glob('/*'))", "files and networks cannot be read"),
        ("sample in (select 1 from secret)", "does not exist"),
        (" ", "expected SQL"),
    ],
)
def test_questions_that_cannot_be_answered_are_explained_and_read_nothing_else(store, where, words):
    import pyarrow as pa

    secret = pa.table({"sample": [1]})  # a variable of the program, which SQL must not see
    with pytest.raises(DataError, match=r"where: ") as error:
        store.snapshot().select(where)
    assert words in str(error.value)
    assert len(secret) == 1


def test_a_selection_reads_like_a_snapshot(store):
    snap = store.snapshot()
    sel = snap.select("n_atoms > 4", order_by="n_atoms, sample desc")
    other = pickle.loads(pickle.dumps(sel))
    assert (other.digest, other.question) == (sel.digest, sel.question)
    whole, some = snap.read(sel.indices), sel.read()
    assert np.array_equal(whole.positions, some.positions)
    assert sel.n_atoms == whole.n_atoms_total
    assert [atoms.symbols.get_chemical_formula() for atoms in sel][:3] == [
        atoms.symbols.get_chemical_formula() for atoms in snap[sel.indices[:3].tolist()]
    ]
    for ds in (sel.to_xarray().compute(), sel.to_xarray(chunks=None).isel(teacher=[0, 1]).compute()):
        assert np.array_equal(ds["positions"], some.positions)
        assert np.array_equal(ds["split"], snap.split_codes()[sel.indices])
        assert np.array_equal(ds["quality_mask"], some.masks["quality"])
        assert np.array_equal(ds["energy"].sel(teacher="a"), some.labels["a"]["energy"], equal_nan=True)
    assert ml.statistics(sel).to_dict()["samples"] == len(sel)
    assert ml.validate(sel).flags.sizes["sample"] == len(sel)
    found = ml.statistics(sel).to_dict()["elements"]
    assert sel.summary()["elements"] == {symbol: one["atoms"] for symbol, one in found.items()}
    with pytest.raises(ValueError, match="read-only"):
        sel.indices[0] = 1
    with pytest.raises(DataError, match="at most once"):
        snap.take([1, 1])


def test_removing_and_labelling_a_selection(store):
    snap = store.snapshot()
    store.remove(snap.select("n_atoms = 3"), reason="water")
    left = store.snapshot()
    assert len(left.select("n_atoms = 3")) == 0
    metals = left.select("periodic and not list_contains(elements, 'Cu')")
    report = store.add_labels("emt", samples=metals)
    assert report.labelled == len(metals)
    done = store.snapshot()
    assert (
        done.select("list_contains(teachers, 'emt')").read().content_hash.tolist()
        == metals.read().content_hash.tolist()
    )
    rest = store.add_labels("emt", samples=done.select("periodic"))
    assert rest.labelled == len(done.select("periodic")) - len(metals)
    assert store.add_labels("emt", samples=metals).labelled == 0  # they are found where they are now


def test_a_selection_is_kept_under_a_name(store, tmp_path):
    snap = store.snapshot()
    hot = snap.select('"max_force.a" > 1', order_by='"max_force.a" desc')
    version = store.tag("hot", selection=hot)
    store.append(batch(4, 9))
    kept = ml.open(store.url).selection("hot")
    assert kept.digest == hot.digest
    assert kept.question == hot.question
    assert store.tag("hot", selection=hot) == store.version  # again: nothing happens
    assert store.selections == {"hot": 3} == {name: store.tags[name] for name in ["hot"]}
    with pytest.raises(ConflictError, match="other samples"):
        store.tag("hot", selection=snap.select("n_atoms = 3"))
    with pytest.raises(ConflictError, match="other samples"):
        store.tag("hot")
    assert store.history()[version].note == f"hot = 3, {len(hot)} samples"
    with pytest.raises(DataError, match="snapshot: expected accepted samples of"):
        ml.create(tmp_path / "other.zarr").tag("hot", selection=hot)
    store.untag("hot")
    with pytest.raises(DataError, match="selection: expected one of"):
        store.selection("hot")
    assert ml.verify(store.url, full=True).ok


def test_kept_selections_survive_a_checkpoint(store):
    sel = store.snapshot().select("n_atoms = 3")
    store.tag("water", selection=sel)
    for k in range(100 - store.version):
        store.tag(f"t{k}", 1)
    assert (store.version, ml.open(store.url).selection("water").digest) == (100, sel.digest)
    assert ml.verify(store.url).ok


@pytest.mark.parametrize("indices", [[], [0], [3, 1, 2], list(range(1000)), [999, 0, 500]])
def test_indices_of_a_kept_selection_come_back(indices):
    document = selection_document(np.array(indices, np.int64), [])
    assert selected_indices(document, 1000, "here").tolist() == indices


@pytest.mark.parametrize(
    "change",
    [{"n_samples": 2}, {"n_samples": 5}, {"indices": "AAAA"}, {"indices": "!"}, {"n_samples": 1 << 40}],
)
def test_damaged_selections_are_refused(change):
    document = selection_document(np.array([3, 1, 2]), []) | change
    with pytest.raises(FormatError, match="selection: expected"):
        selected_indices(document, 1000, "here")
    with pytest.raises(FormatError, match="selection: expected"):
        selected_indices(selection_document(np.array([3, 1, 2]), []), 3, "here")  # of a smaller version

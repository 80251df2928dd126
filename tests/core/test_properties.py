"""Properties: the table, registration, and their way through append, layers, snapshots, corrections, ASE and xarray."""

from __future__ import annotations

import json

import numpy as np
import pytest

import mlffstore as ml
from mlffstore.data import properties
from mlffstore.data.properties import PROPERTIES, TAKEN, Property
from mlffstore.data.schema import STANDARD
from mlffstore.errors import DataError, FormatError
from tests.signals import CUSTOM, POLARIZABILITY, QUADRUPOLES, assert_same, signals


def test_no_property_has_the_name_of_a_column_of_every_dataset():
    assert set(STANDARD) <= TAKEN
    assert not TAKEN & set(PROPERTIES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "charge"}, "choose another name"),
        ({"axis": "bond"}, "'sample' or 'atom'"),
        ({"turns": "spinor"}, "expected one of scalar"),
        ({"turns": "vector"}, "xyz as its last"),
        ({"turns": "tensor", "shape": ("xyz",)}, "voigt, or xyz xyz"),
        ({"turns": "scalar", "shape": ("xyz",)}, "one number"),
        ({"dtype": "int32"}, "user column"),
        ({"unit": ""}, "'1' for a number without unit"),
        ({"shape": (0,), "turns": "invariant"}, "sizes from 1"),
        ({"name": "dipole"}, "as it is registered"),
        ({"name": POLARIZABILITY.name}, "as it is registered"),
    ],
)
def test_what_is_no_property_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        Property(**{"name": "test_x", "axis": "sample", "unit": "eV", **change})


def test_a_registered_property_may_be_made_again():
    again = Property(
        POLARIZABILITY.name, axis="sample", shape=("xyz", "xyz"), unit="e*angstrom^2/V", turns="tensor", long_name="x"
    )
    assert again.same_kind(properties.known_properties()[POLARIZABILITY.name])


def test_every_property_goes_through_a_store(tmp_path):
    batch = signals()
    store = ml.create(tmp_path / "d.zarr")
    store.append(batch, require=())
    store.append(signals(1), require=())
    snap = store.snapshot()
    assert_same(batch, snap.read([0, 1, 2, 3]))
    assert_same(batch.take([3, 1]), snap.read([3, 1]))
    assert_same(ml.concatenate([batch, signals(1)]), snap.read())
    assert set(snap.properties) == {*PROPERTIES, *CUSTOM}
    assert_same(snap.read(), snap.to_xarray().mlff.to_batch())
    assert_same(snap.read(), snap.to_xarray(chunks=None).mlff.to_batch())
    before = snap.read()
    assert store.compact().n_after == 1
    assert_same(before, store.snapshot().read())
    assert set(snap.read(columns=["dipole"], teacher="b").labels["b"]) == {"dipole"}


def test_frames_hold_every_label():
    batch = signals()
    again = ml.SampleBatch.from_ase(batch.to_ase("a"), teacher="a")
    for name, array in batch.labels["a"].items():
        np.testing.assert_array_equal(again.labels["a"][name], array, err_msg=name)
    frame = batch.to_ase("a")[1]
    assert {"energy", "energies", "charges", "magmoms", "dipole"} <= set(frame.calc.results)
    assert frame.arrays["embedding"].shape == (3, 5)
    assert "config_type" not in frame.info  # it is missing there
    assert batch.to_ase("a")[0].info["config_type"] == "two words"
    assert batch.to_ase("a")[0].arrays["residue"].tolist() == ["ALA", "GLY"]


def test_a_reader_without_the_registration_knows_the_property(tmp_path, monkeypatch):
    store = ml.create(tmp_path / "d.zarr")
    for seed in range(2):
        store.append(signals(seed), require=())
    monkeypatch.setattr(properties, "_registered", {})
    again = ml.open(tmp_path / "d.zarr", mode="a")
    found = again.snapshot().read().properties
    assert found[QUADRUPOLES.name].describe() == QUADRUPOLES.describe()
    again.compact()
    again.remove([1], reason="wrong")
    assert again.snapshot().read().properties.keys() == set(CUSTOM)
    with pytest.raises(DataError, match=r"mlffstore\.Property"):
        ml.SampleBatch(n_atoms=[1], numbers=[2], positions=[[0, 0, 0]], labels={"a": {CUSTOM[0]: np.zeros((1, 3, 3))}})


def test_one_name_is_one_quantity(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    one = signals(2)[0].structures()
    other = Property(POLARIZABILITY.name, "sample", ("xyz", "xyz"), "bohr^3", "tensor", register=False)
    with pytest.raises(DataError, match="as in the samples before"):
        store.append(_described(one, other))
    with pytest.raises(DataError, match="embedding_width 5"):
        store.append(one.with_labels("a", energy=[1.0], embedding=np.zeros((2, 7))), require=())
    with pytest.raises(DataError, match="labels of this name"):
        store.append(
            ml.SampleBatch(
                n_atoms=[1], numbers=[2], positions=np.zeros((1, 3)), extra={"dipole": ([1.0], "e", "sample")}
            ),
            require=(),
        )
    assert store.version == 1


def _described(batch: ml.SampleBatch, spec: Property) -> ml.SampleBatch:
    return ml.SampleBatch(
        n_atoms=batch.n_atoms, numbers=batch.numbers, positions=batch.positions, properties=[spec],
        labels={"c": {"energy": [1.0], "forces": np.zeros((2, 3)), spec.name: np.zeros((1, 3, 3))}},
    )  # fmt: skip


def test_labels_are_taken_off_and_put_back(tmp_path):
    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    before = store.snapshot().read()
    store.remove([0, 2], teacher="a", reason="wrong")
    left = store.snapshot().read().labels["a"]
    assert np.isnan(left["hessian_product"][:2]).all()
    assert not np.isnan(left["hessian_product"][2:5]).any()
    store.revert(store.version, reason="right after all")
    assert_same(before, store.snapshot().read())


@pytest.mark.parametrize("damage", ["turns", "inner", "unit", "strings", "described"])
def test_a_damaged_description_is_refused(damage, tmp_path):
    from mlffstore.format.records import parse_segment, segment_document

    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    document = json.loads(json.dumps(segment_document(store.snapshot().segments[0])))
    parse_segment(document, "here")
    custom = document["columns"][f"{POLARIZABILITY.name}.a"]
    if damage == "strings":
        del document["vocabulary"]["config_type"]
    elif damage == "described":
        document["columns"]["dipole.a"] |= {key: custom[key] for key in ("axis", "inner", "turns", "extensive", "unit")}
    else:
        custom[damage] = {"turns": "twice", "inner": ["voigt"], "unit": 3}[damage]
    with pytest.raises(FormatError, match="damaged"):
        parse_segment(document, "here")


def test_checkpoints_carry_properties(tmp_path):
    from mlffstore.format.increment import decode, encode

    store = ml.create(tmp_path / "d.zarr")
    store.append(signals(), require=())
    store.add_column("lab", ["x", "y", "x", "z"], unit="1")
    with store._log.guard():
        state = store._log.refresh().copy()
    empty = store._log.at(0)
    data = encode(state, None)
    again = decode(data, state.version, empty, "checkpoint", None)
    assert again.labels == state.labels
    assert again.user == state.user
    assert [segment.vocabulary for segment in again.segments] == [segment.vocabulary for segment in state.segments]

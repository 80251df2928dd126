"""What teachers give beside energy, forces and stress, against the packages' own calls, and its way into a store."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.request import label_with
from mlffstore.errors import DataError


def frames_of(names: list[str]) -> list:
    """Return molecules with small displacements."""
    rng = np.random.default_rng(5)
    frames = [molecule(name) for name in names]
    for atoms in frames:
        atoms.positions += rng.normal(0, 0.02, atoms.positions.shape)
    return frames


def test_charges_and_dipole_are_those_of_tblite(tmp_path):
    pytest.importorskip("tblite")
    from tblite.ase import TBLite

    frames = frames_of(["H2O", "CH3OH", "NH3"])
    store = ml.create(tmp_path / "d.zarr")
    store.append(frames, require=())
    store.add_labels("gfn2-xtb", properties=("energy", "forces"))
    assert set(store.snapshot().read().labels["gfn2-xtb"]) == {"energy", "forces"}
    report = store.add_labels("gfn2-xtb", properties=("charges", "dipole"))
    assert len(report.versions) == 1
    assert store.add_labels("gfn2-xtb", properties=("energy", "charges", "dipole")).versions == []
    assert store.add_labels("gfn2-xtb").versions == []
    batch = store.snapshot().read()
    for i, atoms in enumerate(store.snapshot()):
        atoms.calc = TBLite(method="GFN2-xTB", charge=0, multiplicity=1, verbosity=0)
        rows = slice(batch.offsets[i], batch.offsets[i + 1])
        np.testing.assert_allclose(batch.label("charges")[rows], atoms.get_charges(), atol=1e-6)
        np.testing.assert_allclose(batch.label("dipole")[i], atoms.get_dipole_moment(), atol=1e-6)
        assert abs(batch.label("charges")[rows].sum()) < 1e-5  # the sum of the partial charges is the charge
    with pytest.raises(DataError, match="magmoms"):
        store.add_labels("gfn2-xtb", properties=("magmoms",))


def test_what_a_teacher_refuses_is_not_asked_for_again(tmp_path):
    pytest.importorskip("tblite")
    store = ml.create(tmp_path / "d.zarr")
    store.append([*frames_of(["H2O"]), bulk("Cu")], require=())
    assert store.add_labels("gfn2-xtb").refused == 1
    labels = store.snapshot().read().labels["gfn2-xtb"]
    assert np.isfinite(labels["charges"][:3]).all()
    assert np.isnan(labels["charges"][3:]).all()
    assert np.isnan(labels["dipole"][1]).all()
    assert store.add_labels("gfn2-xtb", properties=("charges",)).versions == []


def test_magmoms_are_those_of_chgnet():
    pytest.importorskip("chgnet")
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    frames = [bulk("Fe", cubic=True), bulk("NiO", "rocksalt", 4.2)]
    frames[0].rattle(0.02, seed=1)
    batch = ml.SampleBatch.from_ase(frames)
    labels = ml.get_teacher("chgnet").label(batch)
    model = CHGNet.load(use_device="cpu", verbose=False)
    for i, atoms in enumerate(batch.to_ase()):
        expected = model.predict_structure(AseAtomsAdaptor.get_structure(atoms), task="efsm")["m"]
        np.testing.assert_allclose(labels.more["magmoms"][batch.offsets[i] : batch.offsets[i + 1]], expected, atol=1e-4)
    assert labels.more["magmoms"].max() > 1


def test_any_result_of_a_calculator_with_a_property(tmp_path):
    teacher = ml.get_teacher(
        "ase", factory="ase.calculators.emt:EMT", properties=("energy", "forces", "atomic_energies"), domains=("periodic",),
        elements=("Cu",),
    )  # fmt: skip
    store = ml.create(tmp_path / "d.zarr")
    store.append([bulk("Cu", cubic=True), bulk("Cu")], require=())
    store.add_labels(teacher)
    batch = store.snapshot().read()
    sums = np.add.reduceat(batch.label("atomic_energies"), batch.offsets[:-1])
    np.testing.assert_allclose(sums, batch.energy, atol=1e-9)


@pytest.mark.parametrize("name", ["chgnet", "sevennet-0"])
def test_atomic_energies_sum_to_the_energy_and_embeddings_do_not_turn(name):
    pytest.importorskip({"chgnet": "chgnet", "sevennet-0": "sevenn"}[name])
    teacher = ml.get_teacher(name)
    frame = bulk("MgO", "rocksalt", 4.21)
    frame.rattle(0.05, seed=3)
    turned = frame.copy()
    turned.rotate(40, (1, 2, 3), rotate_cell=True)
    batch = ml.SampleBatch.from_ase([frame, turned, bulk("He", "fcc", a=40.0)]).astype("float64")
    labels = label_with(teacher, batch, ("atomic_energies", "embedding"))
    sums = np.add.reduceat(labels.more["atomic_energies"], batch.offsets[:-1])
    np.testing.assert_allclose(sums[:2], labels.energy[:2], atol=1e-5)  # float32 of some 10 eV
    embedding = labels.more["embedding"]
    assert embedding.shape == (5, teacher.info.widths["embedding"])
    # float32 through all layers, features of some 10
    np.testing.assert_allclose(embedding[:2], embedding[2:4], atol=1e-3)
    assert np.ptp(embedding[:2], axis=0).max() > 0.1  # magnesium and oxygen differ
    assert np.isnan(embedding[4]).all() == (not labels.ok[2])
    assert set(teacher.label(batch).more) == set(teacher.info.properties) - {"energy", "forces", "stress"}
    refused = label_with(teacher, ml.SampleBatch.from_ase([molecule("H2O")]), ("embedding",))
    assert np.isnan(refused.more["embedding"]).all()
    assert refused.more["embedding"].shape == (3, teacher.info.widths["embedding"])


def test_atomic_energies_of_chgnet_are_its_site_energies():
    pytest.importorskip("chgnet")
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    frame = bulk("NiO", "rocksalt", 4.2)
    frame.rattle(0.03, seed=1)
    batch = ml.SampleBatch.from_ase([frame])
    labels = label_with(ml.get_teacher("chgnet"), batch, ("atomic_energies", "embedding"))
    model = CHGNet.load(use_device="cpu", verbose=False)
    own = model.predict_structure(
        AseAtomsAdaptor.get_structure(batch.to_ase()[0]), task="e", return_site_energies=True, return_atom_feas=True
    )
    np.testing.assert_allclose(labels.more["atomic_energies"], own["site_energies"], atol=1e-5)
    np.testing.assert_allclose(labels.more["embedding"], own["atom_fea"], atol=1e-4)


def test_lean_layers_are_the_function_of_the_package():
    """Multiplying features before they are copied changes rounding alone: 1e-5 eV/angstrom where forces are 10."""
    pytest.importorskip("chgnet")
    from ase.stress import full_3x3_to_voigt_6_stress
    from chgnet.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    rng = np.random.default_rng(5)
    atoms = [bulk("NaCl", "rocksalt", a=5.6, cubic=True), bulk("Fe", cubic=True) * (2, 1, 1), bulk("Si")]
    for one in atoms:
        one.positions += rng.normal(0, 0.1, one.positions.shape)
        one.set_cell(one.cell @ (np.eye(3) + rng.normal(0, 0.02, (3, 3))), scale_atoms=True)
    batch = ml.SampleBatch.from_ase(atoms).astype("float32")  # the precision in which the model sees positions
    labels = ml.get_teacher("chgnet").label(batch)
    package = CHGNet.load(use_device="cpu", verbose=False)
    start = 0
    for i, one in enumerate(batch.to_ase()):
        theirs = package.predict_structure(AseAtomsAdaptor.get_structure(one), task="efsm")
        forces = labels.forces[start : start + len(one)]
        start += len(one)
        assert labels.energy[i] / len(one) == pytest.approx(float(theirs["e"]), abs=2e-6)
        np.testing.assert_allclose(forces, theirs["f"], atol=1e-5 * np.abs(theirs["f"]).max() + 1e-5)
        np.testing.assert_allclose(labels.stress[i] * 160.21766, full_3x3_to_voigt_6_stress(theirs["s"]), atol=2e-3)


def test_graphs_are_those_of_the_package():
    pytest.importorskip("chgnet")
    from chgnet.graph import CrystalGraphConverter
    from pymatgen.io.ase import AseAtomsAdaptor

    from mlffstore_teachers.chgnet_graphs import graph_of

    def content(graph):
        """Return edges by atoms and image, and angles by their edges, in no order."""
        ends = graph.atom_graph.numpy()
        edges = [
            (*pair, *image) for pair, image in zip(ends.tolist(), graph.neighbor_image.int().tolist(), strict=True)
        ]
        name = [edges[k] for k in graph.undirected2directed.tolist()]
        whole = [frozenset((e, (e[1], e[0], -e[2], -e[3], -e[4]))) for e in name]  # without direction
        both = [whole[k] for k in graph.directed2undirected.tolist()]
        assert all(edge in kind for edge, kind in zip(edges, both, strict=True))
        angles = [(c, whole[i], edges[k], whole[j], edges[m]) for c, i, k, j, m in graph.bond_graph.tolist()]
        return sorted(edges), Counter(angles)

    rng = np.random.default_rng(5)
    lonely = bulk("Cs", cubic=True)
    lonely.set_cell(lonely.cell * 3, scale_atoms=True)
    for atoms in (
        bulk("NaCl", "rocksalt", a=5.6, cubic=True),
        bulk("Si"),
        bulk("Po", "sc", a=3.35),
        bulk("Cs"),
        lonely,
    ):
        atoms.positions += rng.normal(0, 0.05, atoms.positions.shape)
        structure = AseAtomsAdaptor.get_structure(atoms)
        ours = (atoms.numbers, atoms.positions, atoms.cell.array, 6.0, 3.0)
        if atoms is lonely:
            with pytest.raises(ValueError, match="2 isolated atoms"):
                graph_of(*ours)
            continue
        theirs = CrystalGraphConverter(atom_graph_cutoff=6, bond_graph_cutoff=3)(structure)
        assert content(graph_of(*ours)) == content(theirs)

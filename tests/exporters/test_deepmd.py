"""DeePMD-kit's folders, read by dpdata."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase.stress import voigt_6_to_full_3x3_stress

import mlffstore as ml
from mlffstore.release.selection import select
from tests.exporters.test_fields import samples
from tests.signals import signals

dpdata = pytest.importorskip("dpdata")


def systems(folder):
    """Yield every system of dpdata in a folder with its name."""
    for path in sorted(folder.glob("*-energy-force*")):
        for system in dpdata.MultiSystems().load_systems_from_file(path, fmt="deepmd/npy/mixed"):
            yield path, system


def test_dpdata_reads_every_frame(store, tmp_path):
    folder = ml.get_exporter("deepmd")(store.snapshot(), tmp_path / "dp", teacher="emt")
    snap = store.snapshot()
    seen = 0
    for split, index in select(snap, ("emt",)).items():
        batch = snap.read(index, teacher="emt")
        for path in sorted((folder / split).iterdir()):
            roots = np.load(path / "set.000" / "root.npy").tolist()
            assert len(roots) == len(set(roots))
            frames = {root: batch.take([batch.root.tolist().index(root)]) for root in roots}
            by_coordinates = {}
            for system in dpdata.MultiSystems().load_systems_from_file(path, fmt="deepmd/npy/mixed"):
                names = system["atom_names"]
                for i in range(len(system)):
                    by_coordinates[system["coords"][i].astype("f4").tobytes()] = (system, names, i)
            assert len(by_coordinates) == len(frames)
            for one in frames.values():
                system, names, i = by_coordinates[one.positions.tobytes()]
                symbols = [names[k] for k in system["atom_types"]]
                assert symbols == one.to_ase("emt")[0].get_chemical_symbols()
                assert system["energies"][i] == one.energy[0]
                assert np.array_equal(system["forces"][i].astype("f4"), one.forces)
                assert np.array_equal(system["cells"][i], one.cell[0])
                assert system.nopbc != one.pbc.all()
                if "virial" in path.name:
                    stress = voigt_6_to_full_3x3_stress(one.stress[0].astype("f8"))
                    virial = -stress * abs(np.linalg.det(one.cell[0]))
                    np.testing.assert_allclose(system["virials"][i], virial, rtol=1e-12)
                seen += 1
    assert seen == len(snap)


def test_the_virial_has_the_sign_of_dpdata(tmp_path):
    """Of the same frame, dpdata's reader of ASE and ours say the same."""
    from ase.build import bulk
    from ase.calculators.emt import EMT

    atoms = bulk("Cu", a=3.4, cubic=True)  # compressed
    atoms.calc = EMT()
    atoms.get_potential_energy()
    atoms.get_stress()
    theirs = dpdata.LabeledSystem(atoms, fmt="ase/structure")
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append([atoms])
    folder = ml.get_exporter("deepmd")(store.snapshot(), tmp_path / "dp")
    ((_, ours),) = systems(folder / "train")
    np.testing.assert_allclose(ours["virials"], theirs["virials"], rtol=1e-6)
    assert ours["virials"][0, 0, 0] > 0  # it pushes outwards


def test_what_the_layout_cannot_hold_is_named(tmp_path, caplog):
    store = ml.create(tmp_path / "d.zarr")
    batch = samples(3)
    store.append(batch, require=())
    snap = store.snapshot()
    folder = ml.get_exporter("deepmd")(snap, tmp_path / "dp")
    whole = snap.read(np.sort(np.concatenate(list(select(snap, ("reference",)).values()))))
    partly = np.isin(whole.pbc.sum(axis=1), (1, 2))
    assert partly.any()
    said = " ".join(caplog.messages)
    assert f"{partly.sum()} samples that are periodic along one or two vectors were left out" in said
    for name in snap.user_columns:
        assert f"{name} (the layout has no place for user columns)" in said
    found: dict[int, dict[str, np.ndarray]] = {}
    for system in folder.glob("*/*"):
        arrays = {file.stem: np.load(file) for file in (system / "set.000").glob("*.npy")}
        for i, root in enumerate(arrays["root"].tolist()):
            found[root] = {name: array[i] for name, array in arrays.items()}
    assert len(found) == (~partly).sum()
    for i in np.flatnonzero(~partly):
        one, arrays = whole.take([i]), found[int(whole.root[i])]
        for name, file in (("energy", "energy"), ("forces", "force"), ("stress", "virial")):
            values = one.labels["reference"][name]
            assert (file in arrays) == bool(np.isfinite(values).all()), name
        assert arrays["fparam"].tolist() == [one.charge[0], one.multiplicity[0]]
        assert str(arrays["source"]) == one.source[0]
        symbols = (next(folder.glob("*/*")) / "type_map.raw").read_text().split()
        assert [symbols[k] for k in arrays["real_atom_types"]] == ase.Atoms(one.numbers).get_chemical_symbols()


def test_atomic_energies_and_dipoles_have_files(tmp_path, caplog):
    store = ml.create(tmp_path / "d.zarr", splits={"train": 1.0, "val": 0.0, "test": 0.0})
    store.append(signals(n_atoms=(2, 2, 2)), require=())
    folder = ml.get_exporter("deepmd")(store.snapshot(), tmp_path / "dp", teacher="a")
    labels = store.snapshot().read().labels["a"]
    have = [np.load(path) for path in folder.glob("*/*/set.000/atom_ener.npy")]
    assert sorted(np.concatenate(have).ravel()) == sorted(labels["atomic_energies"])
    dipoles = np.concatenate([np.load(path) for path in folder.glob("*/*/set.000/dipole.npy")])
    whole = labels["dipole"][np.isfinite(labels["dipole"]).all(axis=1)]
    assert sorted(dipoles.ravel()) == sorted(whole.ravel())
    said = " ".join(caplog.messages)
    assert "charges (the layout has no file for it)" in said
    assert "dipole (" not in said

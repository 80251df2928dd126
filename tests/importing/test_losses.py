"""What files say and an import could lose or change in silence: units, columns, spins, records without a structure."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from ase import units
from rdkit import Chem
from rdkit.Chem import rdDistGeom

import mlffstore as ml
from mlffstore.errors import DataError
from tests.command import cli

if TYPE_CHECKING:
    from pathlib import Path

P = "Properties=species:S:1:pos:R:3"


def fates(report: Any) -> dict[str, str]:
    return {use.name: use.fate for use in report.keys}


def stored(path: Path) -> ml.SampleBatch:
    return ml.open(path).snapshot().read()


def npz(path: Path, **more: Any) -> Path:
    np.savez(path, z=[1, 1], R=[[[0, 0, 0], [0, 0, 0.74]]], E=[-2.0], F=np.full((1, 2, 3), 0.5), **more)
    return path


@pytest.mark.parametrize(
    ("stated", "energy", "force"),
    [
        ({"e_unit": "meV", "r_unit": "Ang"}, 1e-3, 1e-3),
        ({"e_unit": "rydberg", "r_unit": "bohr"}, units.Ry, units.Ry / units.Bohr),
        ({"r_unit": "Ang"}, units.kcal / units.mol, units.kcal / units.mol),  # MD17's unit of energy
    ],
)
def test_an_npz_file_is_read_in_the_units_that_it_states(
    tmp_path: Path, stated: dict[str, str], energy: float, force: float
) -> None:
    report = ml.import_files(npz(tmp_path / "a.npz", **stated), tmp_path / "s")
    batch = stored(tmp_path / "s")
    assert batch.energy[0] == pytest.approx(-2.0 * energy)
    np.testing.assert_allclose(batch.forces, 0.5 * force, rtol=1e-6)
    assert {fates(report)[name] for name in stated} == {"obeyed"}


def test_a_unit_of_an_npz_file_that_contradicts_or_is_unknown_is_refused(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", e_unit="kcal/mol", r_unit="Ang")
    with pytest.raises(DataError, match="states the unit 'kcal/mol' of the energy, but units="):
        ml.import_files(file, tmp_path / "s", units={"energy": "eV"})
    file = npz(tmp_path / "b.npz", e_unit="cubits")
    with pytest.raises(DataError, match="'cubits' of the energy, which is none of"):
        ml.import_files(file, tmp_path / "s")
    ml.import_files(file, tmp_path / "s", units={"energy": "meV"})  # the caller knows what a cubit is
    assert stored(tmp_path / "s").energy[0] == pytest.approx(-2e-3)


def test_units_in_bytes_and_spins_of_atoms(tmp_path: Path) -> None:
    file = npz(tmp_path / "a.npz", e_unit=np.bytes_(b"meV"), spin=np.zeros((1, 2)))
    report = ml.import_files(file, tmp_path / "s")
    assert stored(tmp_path / "s").energy[0] == pytest.approx(-2e-3)
    assert fates(report)["spin"] == "left out"


@pytest.mark.parametrize("charge", [[1.0, np.nan, -1.0], [1, 0]])
def test_charges_that_are_known_in_part_are_refused(tmp_path: Path, charge: list[float]) -> None:
    np.savez(
        tmp_path / "a.npz",
        z=[1, 1],
        R=[[[0, 0, 0], [0, 0, 0.74]]] * 3,
        E=[-2.0] * 3,
        F=np.zeros((3, 2, 3)),
        charge=charge,
    )
    with pytest.raises(DataError, match="charge"):
        ml.import_files(tmp_path / "a.npz", tmp_path / "s")


def test_units_and_states_of_ani_files_are_believed(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("H2")
        group["atomic_numbers"] = [1, 1]
        group["coordinates"] = np.array([[[0, 0, 0], [0, 0, 1.4]]])
        group["coordinates"].attrs["units"] = "bohr"
        group["wb97x.energy"] = np.array([-31.8])
        group["wb97x.energy"].attrs["units"] = "eV"
        group["charge"] = np.array([1])
        group["multiplicity"] = np.array([2])
    report = ml.import_files(tmp_path / "a.h5", tmp_path / "s", require=("energy",))
    batch = stored(tmp_path / "s")
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([1], [2])
    assert batch.labels["wb97x"]["energy"].tolist() == [-31.8]
    assert batch.positions[1, 2] == pytest.approx(1.4 * units.Bohr)
    assert "left out" not in fates(report).values()
    with pytest.raises(DataError, match="'eV' of the energy, but units="):
        ml.import_files(tmp_path / "a.h5", tmp_path / "t", require=("energy",), units={"energy": "hartree"})


def test_a_unit_of_everything_wants_to_hear_of_every_label(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f"1\nenergy=-1 units=Hartree {P}:forces:R:3\nAr 0 0 0 0 0 0.5\n")
    with pytest.raises(DataError, match=r"units=\{'forces': 'UNIT'\}"):
        ml.import_files(tmp_path / "a.xyz", tmp_path / "s", units={"energy": "hartree"})
    (tmp_path / "b.xyz").write_text(f"1\nunits=atomic {P}\nAr 0 0 0\n")
    with pytest.raises(DataError, match=r"units=\{'positions': 'UNIT'\}"):
        ml.import_files(tmp_path / "b.xyz", tmp_path / "s", require=())
    given = {"energy": "hartree", "forces": "hartree/bohr"}
    assert ml.import_files(tmp_path / "a.xyz", tmp_path / "s", units=given).samples == 1


def test_spin_under_a_name_that_was_given_is_read_as_spin_says(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f'1\nenergy=-1 spin=2 Lattice="3 0 0 0 3 0 0 0 3" {P}\nFe 0 0 0\n')
    for n, keys in enumerate(({}, {"multiplicity": "spin"})):
        ml.import_files(tmp_path / "a.xyz", tmp_path / f"s{n}", require=("energy",), keys=keys, spin="unpaired")
        assert stored(tmp_path / f"s{n}").multiplicity.tolist() == [3]


# -- SDF -------------------------------------------------------------


def sdf(path: Path, smiles: str, hydrogens: bool, fields: str = "") -> Path:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    rdDistGeom.EmbedMolecule(mol, randomSeed=1)
    path.write_text(Chem.MolToMolBlock(mol if hydrogens else Chem.RemoveHs(mol)) + fields + "$$$$\n")
    return path


def test_labels_of_a_molecule_without_its_hydrogens_are_refused(tmp_path: Path) -> None:
    energy = "> <E>\n-3150.5\n\n"
    bare = sdf(tmp_path / "a.sdf", "CO", hydrogens=False, fields=energy)
    with pytest.raises(DataError, match="lacks 4 hydrogens, whose positions would be made up"):
        ml.import_files(bare, tmp_path / "s", keys={"energy": "E"}, require=("energy",))
    assert ml.import_files(bare, tmp_path / "s", require=()).hydrogens_added == 4  # bare structures may have them
    whole = sdf(tmp_path / "b.sdf", "CO", hydrogens=True, fields=energy)
    ml.import_files(whole, tmp_path / "t", keys={"energy": "E"}, require=("energy",))
    assert stored(tmp_path / "t").energy.tolist() == [-3150.5]


def test_a_count_called_units_is_no_unit(tmp_path: Path) -> None:
    file = sdf(tmp_path / "a.sdf", "C", hydrogens=True, fields="> <units>\n2\n\n> <energy>\n-1.5\n\n")
    ml.import_files(file, tmp_path / "s", require=("energy",), keys={"energy": "energy"})
    assert stored(tmp_path / "s").energy.tolist() == [-1.5]


def test_identifiers_of_sdf_records_stay_texts(tmp_path: Path) -> None:
    fields = "> <ID>\n00123\n\n> <N>\n-7\n\n> <X>\n2.50\n\n"
    file = sdf(tmp_path / "a.sdf", "C", hydrogens=True, fields=fields)
    ml.import_files(file, tmp_path / "s", require=(), columns=["ID", "N", "X"])
    columns = stored(tmp_path / "s").columns
    assert [columns[name].tolist() for name in ("N", "X")] == [[-7], [2.5]]
    assert ml.open(tmp_path / "s").snapshot()[0].info["ID"] == "00123"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["0999", "1000"], ["0999", "1000"]), (["7", "1000"], [7, 1000]), (["1.5", "nan"], [1.5, np.nan]),
        (["nan"], ["nan"]), (["12345678901234567890"], ["12345678901234567890"]),
        (["12", "A7"], ["12", "A7"]), (["1", "2.50"], [1.0, 2.5]),
    ],
)  # fmt: skip
def test_the_kind_of_an_sdf_field_is_that_of_all_records(
    tmp_path: Path, values: list[str], expected: list[Any]
) -> None:
    parts = [sdf(tmp_path / "x.sdf", "C", True, f"> <id>\n{value}\n\n").read_text() for value in values]
    (tmp_path / "a.sdf").write_text("".join(parts))
    ml.import_files(tmp_path / "a.sdf", tmp_path / "s", require=(), columns=["id"])
    found = [atoms.info.get("id", np.nan) for atoms in ml.open(tmp_path / "s").snapshot()]
    if isinstance(expected[0], str):
        assert found == expected
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("rad", "multiplicity"), [(1, 1), (3, 3)])
def test_a_carbene_has_the_spin_that_its_record_says(tmp_path: Path, rad: int, multiplicity: int) -> None:
    (tmp_path / "a.sdf").write_text(
        "CH2\n     RDKit          3D\n\n  3  2  0  0  0  0  0  0  0  0999 V2000\n"
        "    0.0000    0.0000    0.1000 C   0  0  0  0  0  0\n"
        "    0.0000    0.8600   -0.6000 H   0  0  0  0  0  0\n"
        "    0.0000   -0.8600   -0.6000 H   0  0  0  0  0  0\n"
        f"  1  2  1  0\n  1  3  1  0\nM  RAD  1   1   {rad}\nM  END\n$$$$\n"
    )
    ml.import_files(tmp_path / "a.sdf", tmp_path / "s", require=())
    assert stored(tmp_path / "s").multiplicity.tolist() == [multiplicity]


# -- XYZ -------------------------------------------------------------


def test_columns_of_a_plain_xyz_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text("2\nenergy=-1\nO 0 0 0 0.1 a\nH 0 0 0.96 -0.1 b\n")
    report = ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=("energy",))
    assert fates(report) == {"energy": "kept", "column_5": "left out", "column_6": "left out"}
    ml.import_files(tmp_path / "a.xyz", tmp_path / "t", require=("energy",), columns={"column_5": "e"})
    assert stored(tmp_path / "t").columns["column_5"].tolist() == [0.1, -0.1]


@pytest.mark.parametrize(
    ("bad", "samples"),
    [
        (f"1\nenergy=-1 Periodic=none {P}\nAr 0 0 0\n", 1), (f"1\nenergy=-1 {P}\nAr 0 0 0 1 2\n", 1),
        ("2\nenergy=-1\nO 0 0 0 ! first atom\nH 0 0 1\n", 2),
    ],
)  # fmt: skip
def test_one_bad_frame_does_not_take_the_others_with_it(tmp_path: Path, bad: str, samples: int) -> None:
    (tmp_path / "a.xyz").write_text(f"1\nenergy=-2 {P}\nAr 0 0 0\n" + bad)
    report = ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=("energy",), on_error="quarantine")
    assert (report.samples, report.rejected) == (samples, 2 - samples)
    assert ("remarks" in fates(report)) == (samples == 2)


def test_more_columns_than_properties_names_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f"1\nenergy=-1 {P}\nO 0 0 0 0.1 0.2 0.3\n")
    with pytest.raises(DataError, match=r"frame 0: .*expected 4 values in each row, as Properties names, got 7"):
        ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=("energy",))


def test_pbc_counts_before_other_spellings(tmp_path: Path) -> None:
    lattice = 'Lattice="5 0 0 0 5 0 0 0 15"'
    (tmp_path / "a.xyz").write_text(f'1\nenergy=-3 {lattice} pbc="T T F" periodic=T {P}\nAr 0 0 0\n')
    report = ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=("energy",))
    assert stored(tmp_path / "s").pbc[0].tolist() == [True, True, False]
    assert fates(report)["periodic"] == "left out"
    (tmp_path / "b.xyz").write_text(f"1\nenergy=-3 {lattice} PBC=T periodic=F {P}\nAr 0 0 0\n")
    with pytest.raises(DataError, match="expected one pbc"):
        ml.import_files(tmp_path / "b.xyz", tmp_path / "s", require=("energy",))


def test_a_column_called_periodic_survives_an_export(tmp_path: Path) -> None:
    store = ml.create(tmp_path / "own.zarr")
    flag = {"periodic": (np.array([False]), "1", "sample")}
    store.append(
        ml.SampleBatch(
            n_atoms=[1], numbers=[18], positions=[[0, 0, 0]], cell=[np.eye(3) * 5], pbc=[[True] * 3], energy=[-3.0],
            forces=np.zeros((1, 3)), extra=flag,
        )
    )  # fmt: skip
    ml.get_exporter("extxyz")(store.snapshot(), tmp_path / "xyz")
    ml.import_files(sorted((tmp_path / "xyz").glob("*.*xyz*")), tmp_path / "s", columns=["periodic"])
    batch = stored(tmp_path / "s")
    assert batch.pbc.all()
    assert batch.cell[0].tolist() == (np.eye(3) * 5).tolist()
    assert batch.columns["periodic"].tolist() == [False]


# -- JSON of pymatgen -------------------------------------------------------------


def oxygen(**site: Any) -> dict[str, Any]:
    """O2 as pymatgen writes it, with a property of the first site that the second lacks."""
    species = [{"element": "O", "occu": 1}]
    sites = [
        {"species": species, "xyz": [0, 0, z], "properties": dict.fromkeys(site) if z else site} for z in (0, 1.21)
    ]
    return {
        "@module": "pymatgen.core.structure",
        "@class": "Molecule",
        "charge": 0,
        "spin_multiplicity": 3,
        "sites": sites,
    }


def import_json(tmp_path: Path, content: Any) -> Any:
    pytest.importorskip("ijson")
    (tmp_path / "a.json").write_text(json.dumps(content))
    return ml.import_files(tmp_path / "a.json", tmp_path / "s", require=("energy",))


def test_spin_and_site_properties_of_pymatgen(tmp_path: Path) -> None:
    molecule = oxygen(magmom=1.0) | {"properties": {"calc": "r2scan"}}
    report = import_json(tmp_path, [{"structure": molecule, "energy": -10.0}])
    assert stored(tmp_path / "s").multiplicity.tolist() == [3]
    assert fates(report) == {"energy": "kept", "spin_multiplicity": "renamed", "calc": "left out", "magmom": "left out"}


def test_an_entry_with_two_structures_is_read_whole(tmp_path: Path) -> None:
    report = import_json(tmp_path, {"energy": -1.0, "initial_structure": oxygen(), "structure": oxygen()})
    assert (report.samples, fates(report)["initial_structure"]) == (1, "left out")
    assert stored(tmp_path / "s").energy.tolist() == [-1.0]


def test_a_frame_may_have_the_name_of_something_beside_it(tmp_path: Path) -> None:
    entries = [{"structure": oxygen(), "energy": -float(k)} for k in (1, 2)]
    report = import_json(tmp_path, {"0": "meta", "m-1": {"0": entries[0], "1": entries[1]}})
    assert report.samples == 2
    assert fates(report)["0"] == "left out"


def test_vectors_and_flags_of_sites_can_be_kept(tmp_path: Path) -> None:
    pytest.importorskip("ijson")
    species = [{"element": "O", "occu": 1}]
    sites = [
        {"species": species, "xyz": [0, 0, z], "properties": {"velocity": [z, 0, 0.5], "fixed": z > 1}}
        for z in (0, 1.21)
    ]
    sites[1]["properties"]["hint"] = [1.0, 2.0]
    (tmp_path / "a.json").write_text(json.dumps([{"structure": oxygen() | {"sites": sites}, "energy": -1.0}]))
    columns = {"velocity": "angstrom/fs", "fixed": "1", "hint": "1"}
    ml.import_files(tmp_path / "a.json", tmp_path / "s", require=("energy",), columns=columns)
    batch = stored(tmp_path / "s")
    np.testing.assert_array_equal(batch.columns["velocity"], [[0, 0, 0.5], [1.21, 0, 0.5]])
    assert batch.columns["fixed"].tolist() == [False, True]
    np.testing.assert_array_equal(batch.columns["hint"], [[np.nan, np.nan], [1.0, 2.0]])


@pytest.mark.parametrize("wrong", [{"energy": -11.0, "note": "no structure"}, "oops", [1, 2]])
def test_an_entry_without_a_structure_is_an_error(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(DataError, match="entry 1: expected structures of pymatgen"):
        import_json(tmp_path, [{"structure": oxygen(), "energy": -10.0}, wrong])


def test_what_stands_beside_structures_is_named(tmp_path: Path) -> None:
    entry = {"structure": oxygen(), "energy": -10.0}
    report = import_json(tmp_path, {"code": "x", "m-1": {"frames": {"0": entry, "1": entry}, "note": "y"}, "date": "z"})
    assert report.samples == 2
    assert {name: fates(report)[name] for name in ("code", "note", "date")} == dict.fromkeys(
        ("code", "note", "date"), "left out"
    )


# -- DeePMD-kit -------------------------------------------------------------


def test_a_stress_without_a_volume_is_no_virial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = ml.create(tmp_path / "m.zarr")
    for pbc in (False, True):
        store.append(
            ml.SampleBatch(
                n_atoms=[2], numbers=[1, 1], positions=[[0, 0, 0], [0, 0, 0.74]], energy=[-31.0], forces=np.zeros((2, 3)),
                stress=[[0.1, 0.2, 0.3, 0, 0, 0]], cell=[np.eye(3) * 9 * pbc], pbc=[[pbc] * 3],
            )
        )  # fmt: skip
    ml.get_exporter("deepmd")(store.snapshot(), tmp_path / "dp")
    assert "those of 1 samples without a volume were left out" in caplog.text
    assert [f.parts[-3] for f in (tmp_path / "dp").rglob("virial.npy")] == ["2-periodic-energy-force-virial"]
    ml.import_files(tmp_path / "dp", tmp_path / "s")
    batch = stored(tmp_path / "s")
    periodic = batch.pbc.all(axis=1)
    np.testing.assert_allclose(batch.labels["reference"]["stress"][periodic], [[0.1, 0.2, 0.3, 0, 0, 0]], atol=1e-7)
    assert np.isnan(batch.labels["reference"]["stress"][~periodic]).all()


def test_forces_of_deepmd_without_energies_are_named(tmp_path: Path) -> None:
    pytest.importorskip("dpdata")
    data = tmp_path / "d" / "set.000"
    data.mkdir(parents=True)
    (tmp_path / "d" / "type.raw").write_text("0\n0\n")
    (tmp_path / "d" / "type_map.raw").write_text("H\n")
    np.save(data / "coord.npy", [[0, 0, 0, 0, 0, 0.74]])
    np.save(data / "box.npy", [(np.eye(3) * 9).reshape(9)])
    np.save(data / "force.npy", np.ones((1, 6)))
    report = ml.import_files(tmp_path / "d", tmp_path / "s", require=())
    assert fates(report)["force"] == "left out"


# -- damage and quarantine -------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_a_compressed_file_that_was_cut_off_is_an_error(tmp_path: Path, workers: int) -> None:
    text = "".join(f"2\nenergy=-31.{i} {P}\nH 0 0 0\nH 0 0 .74\n" for i in range(3000)).encode()
    packed = gzip.compress(text)
    (tmp_path / "t.xyz.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match=r"t\.xyz\.gz: expected an extended XYZ file, got .*EOFError"):
        ml.import_files(tmp_path / "t.xyz.gz", tmp_path / "s", require=("energy",), workers=workers, batch_samples=256)
    assert not (tmp_path / "s").exists()


def test_the_command_does_not_call_a_damaged_file_aborted(tmp_path: Path) -> None:
    (tmp_path / "t.xyz.gz").write_bytes(gzip.compress(b"2\nenergy=-31\nH 0 0 0\nH 0 0 .74\n" * 99)[:60])
    result = cli("import", tmp_path / "t.xyz.gz", tmp_path / "s", code=3)
    assert "t.xyz.gz" in result.stderr


@pytest.mark.parametrize(
    ("name", "text", "options"),
    [
        ("n.xyz", "99999999999999999999\nx\n", {}),
        (
            "d.dump",
            "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\nabc\n",
            {"format": "lammps-dump-text", "elements": ("H",)},
        ),
        ("v.xml", "<modeling><i name='NELM'> </i></modeling>", {"format": "vasp-xml"}),
    ],
)
def test_headers_that_make_no_sense_are_errors(tmp_path: Path, name: str, text: str, options: dict[str, Any]) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=name.replace(".", r"\.")):
        ml.import_files(tmp_path / name, tmp_path / "s", require=(), **options)


def test_samples_in_quarantine_can_be_tried_again(tmp_path: Path) -> None:
    file, store = tmp_path / "c.xyz", tmp_path / "s"
    carbon = f"2\nenergy=-1 {P}\nC 0 0 0\nC 0 0 1.2\n"
    file.write_text(f"2\nenergy=-1 {P}\nH 0 0 0\nH 0 0 .74\n{carbon}2\n{P}\nH 0 0 0\nH 0 0 .8\n")
    assert ml.import_files(file, store, require=("energy",), on_error="quarantine").rejected == 2
    again = ml.import_files(file, store, require=("energy",), on_error="quarantine")
    assert (again.skipped, again.samples) == (1, 0)
    assert "2 of its samples are in quarantine" in again.warnings[0]
    more: dict[str, Any] = {"require": (), "allow_no_hydrogen": True}
    told = ml.import_files(file, store, **more)
    assert (told.samples, "on_duplicate='skip' stores those" in told.warnings[0]) == (0, True)
    tried = ml.import_files(file, store, **more, on_duplicate="skip")
    assert (tried.samples, tried.duplicates) == (2, 1)
    assert len(ml.open(store).snapshot()) == 3
    assert ml.import_files(file, store, **more, on_duplicate="skip").samples == 0

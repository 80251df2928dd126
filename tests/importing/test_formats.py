"""Where ASE makes something up, or reads less than there is, the import refuses, asks or says so."""

from __future__ import annotations

import bz2
import gzip
import lzma
from typing import TYPE_CHECKING, Any

import ase.io
import numpy as np
import pytest
from ase.build import bulk, molecule
from rdkit import Chem
from rdkit.Chem import rdDistGeom

import mlffstore as ml
from mlffstore.errors import DataError
from tests.samples import metal_frames

if TYPE_CHECKING:
    from pathlib import Path

_DUMP = """ITEM: {units}TIMESTEP
0
ITEM: NUMBER OF ATOMS
3
ITEM: BOX BOUNDS pp pp pp
0 10
0 10
0 10
ITEM: ATOMS id {columns}
1 {rows[0]} 1 0 0 0.5 0 0
2 {rows[1]} 2 0 0 -0.2 0 0
3 {rows[2]} 1 1 0 -0.3 0 0
"""


def dump(path: Path, columns: str, rows: list[str], units: str = "") -> Path:
    header = f"UNITS\n{units}\nITEM: " if units else ""
    path.write_text(_DUMP.format(units=header, columns=f"{columns} x y z fx fy fz", rows=rows))
    return path


def numbers(store: Path) -> list[int]:
    return ml.open(store).snapshot().read().numbers.tolist()


def test_lammps_dumps_need_elements_and_have_no_energy(tmp_path: Path) -> None:
    path = dump(tmp_path / "a.lammpstrj", "type", ["1", "2", "2"])
    with pytest.raises(DataError, match=r"column 'element'.*elements=\('O', 'H'\)"):
        ml.import_files(path, tmp_path / "s", require=("forces",))
    with pytest.raises(DataError, match="expected energy, got none"):
        ml.import_files(path, tmp_path / "s", elements=("S", "H"))
    assert not (tmp_path / "s").exists()
    ml.import_files(path, tmp_path / "s", elements=("S", "H"), require=("forces",))
    assert numbers(tmp_path / "s") == [16, 1, 1]
    assert "energy" not in ml.open(tmp_path / "s").snapshot().read().labels["dft"]
    named = dump(tmp_path / "b.lammpstrj", "element", ["S", "H", "H"])
    ml.import_files(named, tmp_path / "t", require=("forces",))
    assert numbers(tmp_path / "t") == [16, 1, 1]


def test_lammps_masses_and_units(tmp_path: Path) -> None:
    report = ml.import_files(
        dump(tmp_path / "a.dump", "mass", ["32.06", "1.008", "1.008"]), tmp_path / "s", require=("forces",)
    )
    assert "guessed from the masses" in report.warnings[0]
    assert numbers(tmp_path / "s") == [16, 1, 1]
    with pytest.raises(DataError, match=r"got 2\.014"):  # deuterium would become helium or hydrogen
        ml.import_files(dump(tmp_path / "b.dump", "mass", ["32.06", "2.014", "2.014"]), tmp_path / "t", require=())
    real = dump(tmp_path / "c.dump", "element", ["S", "H", "H"], units="real")
    with pytest.raises(DataError, match="states 'real' as its units"):
        ml.import_files(real, tmp_path / "t", require=("forces",))
    ml.import_files(real, tmp_path / "t", require=("forces",), units={"forces": "kcal/mol/angstrom"})
    forces = ml.open(tmp_path / "t").snapshot().read().forces
    assert forces[0, 0] == pytest.approx(0.5 * 0.0433641, rel=1e-5)  # 1 kcal/mol = 0.0433641 eV


def test_lammps_data(tmp_path: Path) -> None:
    text = (
        "water\n\n2 atoms\n2 atom types\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n{}Atoms # atomic\n\n1 1 0 0 "
        "0\n2 2 1 0 0\n"
    )
    options: dict[str, Any] = {"require": (), "format": "lammps-data"}
    (tmp_path / "a.data").write_text(text.format(""))
    with pytest.raises(DataError, match="without masses"):
        ml.import_files(tmp_path / "a.data", tmp_path / "s", **options)
    ml.import_files(tmp_path / "a.data", tmp_path / "s", elements=("F", "H"), **options)
    (tmp_path / "b.data").write_text(text.format("Masses\n\n1 18.998\n2 1.008\n\n"))
    ml.import_files(tmp_path / "b.data", tmp_path / "s", **options)
    assert numbers(tmp_path / "s") == [9, 1, 9, 1]
    (tmp_path / "c.data").write_text(text.format("Masses\n\n1 72.0\n2 1.008\n\n"))  # a bead, not germanium
    with pytest.raises(DataError, match="got 72"):
        ml.import_files(tmp_path / "c.data", tmp_path / "s", **options)


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_compressed_molecules_are_read_by_the_same_reader(tmp_path: Path, packer: Any) -> None:
    blocks = []
    for smiles in ("C[NH3+]", "CC(=O)[O-]", "[CH3]"):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        rdDistGeom.EmbedMolecule(mol, randomSeed=1)
        blocks.append(Chem.MolToMolBlock(mol))
    suffix = {gzip: "gz", bz2: "bz2", lzma: "xz"}[packer]
    with packer.open(tmp_path / f"a.sdf.{suffix}", "wt") as file:
        file.write("$$$$\n".join(blocks))  # the last record is not ended
    ml.import_files(tmp_path / f"a.sdf.{suffix}", tmp_path / "s", require=())
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([1, -1, 0], [1, 1, 2])
    with packer.open(tmp_path / f"b.smi.{suffix}", "wt") as file:
        file.write("CO methanol\n")
    assert ml.import_files(tmp_path / f"b.smi.{suffix}", tmp_path / "s", require=()).atoms == 6
    with packer.open(tmp_path / f"c.extxyz.{suffix}", "wt") as file:
        ase.io.write(file, metal_frames(2), format="extxyz")
    assert ml.import_files(tmp_path / f"c.extxyz.{suffix}", tmp_path / "s").samples == 2
    ase.io.write(tmp_path / "d.traj", metal_frames(3))
    with packer.open(tmp_path / f"d.traj.{suffix}", "wb") as file:  # read by place: unpacked into a temporary file
        file.write((tmp_path / "d.traj").read_bytes())
    assert ml.import_files(tmp_path / f"d.traj.{suffix}", tmp_path / "u").samples == 3
    (tmp_path / f"e.db.{suffix}").write_bytes(b"no archive")
    with pytest.raises(DataError, match=rf"e\.db\.{suffix}: expected a compressed file"):
        ml.import_files(tmp_path / f"e.db.{suffix}", tmp_path / "s")


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_records_that_rdkit_rejects_are_not_lost(tmp_path: Path, place: int, ended: bool) -> None:
    good = Chem.AddHs(Chem.MolFromSmiles("CO"))
    rdDistGeom.EmbedMolecule(good, randomSeed=1)
    bad = Chem.MolToMolBlock(good).replace(" H ", " F ")  # a carbon with fluorines is right, an F of valence 2 is not
    bad = bad.replace(" C ", " F ", 1)
    blocks = [Chem.MolToMolBlock(good)] * 3
    blocks[place] = bad
    (tmp_path / "a.sdf").write_text("$$$$\n".join(blocks) + ("$$$$\n" if ended else ""))
    with pytest.raises(DataError, match=rf"record {place}: expected a molecule that RDKit accepts"):
        ml.import_files(tmp_path / "a.sdf", tmp_path / "s", require=())
    report = ml.import_files(tmp_path / "a.sdf", tmp_path / "s", require=(), on_error="quarantine")
    assert (report.samples, report.rejected) == (2, 1)
    assert ml.open(tmp_path / "s").snapshot().quarantine[0].get_chemical_formula() == "F5O"


def test_units_that_a_file_states(tmp_path: Path) -> None:
    frame = metal_frames(1)[0]
    for key, stated, option in (
        ("energy_unit", "Hartree", "units={'energy': 'hartree'}"),
        ("forces-units", "hartree/bohr", "units={'forces': 'hartree/bohr'}"),
        ("stress_unit", "kbar", "units={'stress': 'kbar'}"),
        ("unit", "atomic", "units="),
    ):
        other = frame.copy()
        other.calc = frame.calc
        other.info[key] = stated
        ase.io.write(tmp_path / "a.extxyz", other)
        with pytest.raises(DataError) as caught:
            ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
        assert option in str(caught.value)
    frame.info |= {"energy_unit": "ev", "force_unit": "eV/Ang", "length_unit": "Angstrom", "units": "metal"}
    ase.io.write(tmp_path / "a.extxyz", frame)
    report = ml.import_files(tmp_path / "a.extxyz", tmp_path / "s")
    assert {use.name for use in report.keys if use.fate == "obeyed"} == {
        "energy_unit", "force_unit", "length_unit", "units",
    }  # fmt: skip
    with pytest.raises(DataError, match="but units="):
        ml.import_files(tmp_path / "a.extxyz", tmp_path / "t", units={"energy": "kcal/mol"})


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ('PBC="F F F"', [False] * 3),
        ("PBC=F", [False] * 3),
        ('Pbc="T T F"', [True, True, False]),
        ("periodic=1", [True] * 3),
    ],
)
def test_periodicity_in_other_spellings(tmp_path: Path, words: str, expected: list[bool]) -> None:
    (tmp_path / "a.xyz").write_text(
        f'1\nLattice="5 0 0 0 5 0 0 0 5" {words} Properties=species:S:1:pos:R:3\nAr 0 0 0\n'
    )
    ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=())
    assert ml.open(tmp_path / "s").snapshot().read().pbc[0].tolist() == expected


def test_periodicity_and_cells_that_cannot_be_read(tmp_path: Path) -> None:
    for words, problem in (("PBC=xyz", "T or F"), ('cell="5 0 0 0 5 0 0 0 5"', "looks like the cell")):
        (tmp_path / "a.xyz").write_text(f"1\n{words} Properties=species:S:1:pos:R:3\nAr 0 0 0\n")
        with pytest.raises(DataError, match=problem):
            ml.import_files(tmp_path / "a.xyz", tmp_path / "s", require=())


def pdb(path: Path, group: str = "P 1", occupancy: float = 1.0, element: str = "O") -> Path:
    cell = f"CRYST1    9.000    9.000    9.000  90.00  90.00  90.00 {group}\n" if group else ""
    line = f"HETATM    1  O   HOH A   1       1.000   1.000   1.000{occupancy:6.2f}  0.00          {element:>2}\n"
    path.write_text(cell + line + "END\n")
    return path


def test_pdb(tmp_path: Path) -> None:
    assert ml.import_files(pdb(tmp_path / "a.pdb"), tmp_path / "s", require=()).samples == 1
    with pytest.raises(DataError, match="P 21 21 21"):
        ml.import_files(pdb(tmp_path / "b.pdb", "P 21 21 21"), tmp_path / "s", require=())
    with pytest.raises(DataError, match="occupied in part"):
        ml.import_files(pdb(tmp_path / "c.pdb", "", 0.5), tmp_path / "s", require=())
    report = ml.import_files(pdb(tmp_path / "d.pdb", "", element=""), tmp_path / "s", require=())
    assert any("guessed" in warning for warning in report.warnings)


_CIF = """data_x
_cell_length_a 4.2
_cell_length_b 4.2
_cell_length_c 4.2
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
{symmetry}
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Mg1 Mg 0 0 0 {occupancy}
O1 O 0.5 0.5 0.5 1.0
"""
_FULL = "_space_group_IT_number 225\n_symmetry_space_group_name_H-M 'F m -3 m'"


def test_cif(tmp_path: Path) -> None:
    (tmp_path / "a.cif").write_text(_CIF.format(symmetry=_FULL, occupancy="1.0"))
    assert ml.import_files(tmp_path / "a.cif", tmp_path / "s", require=()).atoms == 8
    (tmp_path / "b.cif").write_text(_CIF.format(symmetry=_FULL, occupancy="0.5"))
    with pytest.raises(DataError, match="1 sites are occupied in part"):
        ml.import_files(tmp_path / "b.cif", tmp_path / "s", require=())
    one = _FULL + "\nloop_\n_space_group_symop_operation_xyz\n'x, y, z'"
    (tmp_path / "c.cif").write_text(_CIF.format(symmetry=one, occupancy="1.0"))
    with pytest.raises(DataError, match="lists 2 of its 48 rotations"):
        ml.import_files(tmp_path / "c.cif", tmp_path / "s", require=())
    (tmp_path / "d.cif").write_text(_CIF.format(symmetry="_symmetry_space_group_name_H-M 'P 1'", occupancy="1.0"))
    assert ml.import_files(tmp_path / "d.cif", tmp_path / "s", require=()).atoms == 2


def test_periodic_organic_structures_without_hydrogens(tmp_path: Path) -> None:
    for name, atoms in (("benzene", molecule("C6H6")), ("acid", molecule("CH3COOH"))):
        atoms.center(vacuum=2.5)
        atoms.pbc = True
        ase.io.write(tmp_path / f"{name}.cif", atoms[atoms.numbers > 1])
        with pytest.raises(DataError, match="lack hydrogens"):
            ml.import_files(tmp_path / f"{name}.cif", tmp_path / "s", require=())
        ase.io.write(tmp_path / f"{name}-whole.cif", atoms)
        ml.import_files(tmp_path / f"{name}-whole.cif", tmp_path / "s", require=())
    carbides = [bulk("C"), bulk("TiC", "rocksalt", 4.33), bulk("SiC", "zincblende", 4.36)]
    ase.io.write(tmp_path / "carbides.traj", carbides)
    assert ml.import_files(tmp_path / "carbides.traj", tmp_path / "s", require=()).samples == 3
    graphite = bulk("C", "hcp", a=2.46, c=6.7)
    graphite.set_scaled_positions([[0, 0, 0.25], [1 / 3, 2 / 3, 0.25]])
    ase.io.write(tmp_path / "graphene.traj", graphite)
    assert ml.import_files(tmp_path / "graphene.traj", tmp_path / "s", require=()).samples == 1
    assert np.all(ml.open(tmp_path / "s").snapshot().read().numbers > 0)

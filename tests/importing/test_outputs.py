"""Outputs of electronic structure programs: charge, multiplicity, axes, convergence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.outputs import read_facts

if TYPE_CHECKING:
    from pathlib import Path

_GEOMETRY = """                         {name} orientation:
 ---------------------------------------------------------------------
 Center     Atomic      Atomic             Coordinates (Angstroms)
 Number     Number       Type             X           Y           Z
 ---------------------------------------------------------------------
      1          3           0        0.000000    0.000000    0.800000
      2          1           0        0.000000    0.000000   -0.800000
 ---------------------------------------------------------------------
"""
_GAUSSIAN = """ Entering Gaussian System, Link 0=g16
 {route}
 Charge =  {charge} Multiplicity = {multiplicity}
{geometry} SCF Done:  E(UB3LYP) =  -7.900000     A.U. after    9 cycles
 -------------------------------------------------------------------
 Center     Atomic                   Forces (Hartrees/Bohr)
 Number     Number              X              Y              Z
 -------------------------------------------------------------------
      1        3           0.000000000    0.000000000   -0.010000000
      2        1           0.000000000    0.000000000    0.010000000
 -------------------------------------------------------------------
"""


def gaussian(path: Path, *names: str, charge: int = -1, multiplicity: int = 2, route: str = "# B3LYP Force") -> Path:
    geometry = "".join(_GEOMETRY.format(name=name) for name in names)
    path.write_text(_GAUSSIAN.format(route=route, charge=charge, multiplicity=multiplicity, geometry=geometry))
    return path


def test_gaussian_charge_and_axes(tmp_path: Path) -> None:
    ml.import_files(gaussian(tmp_path / "a.log", "Input", "Standard"), tmp_path / "s")
    ml.import_files(gaussian(tmp_path / "b.log", "Input", charge=1), tmp_path / "s")
    batch = ml.open(tmp_path / "s").snapshot().read()
    assert (batch.charge.tolist(), batch.multiplicity.tolist()) == ([-1, 1], [2, 2])
    with pytest.raises(DataError, match="standard orientation"):
        ml.import_files(gaussian(tmp_path / "c.log", "Standard"), tmp_path / "s")
    turned_off = gaussian(tmp_path / "d.log", "Standard", route="# B3LYP Force NoSymm")
    assert ml.import_files(turned_off, tmp_path / "s").samples == 1
    with pytest.raises(DataError, match="forbid the multiplicity"):
        ml.import_files(gaussian(tmp_path / "e.log", "Input", charge=0), tmp_path / "s")
    two = (
        gaussian(tmp_path / "f.log", "Input").read_text() + gaussian(tmp_path / "g.log", "Input", charge=1).read_text()
    )
    (tmp_path / "f.log").write_text(two)
    with pytest.raises(DataError, match=r"several values as its charge .-1, 1."):
        ml.import_files(tmp_path / "f.log", tmp_path / "s")


def test_gaussian_fragments_are_not_the_molecule(tmp_path: Path) -> None:
    path = gaussian(tmp_path / "a.log", "Input")
    path.write_text(
        path.read_text() + " Charge =  0 Multiplicity = 1 in fragment      1.\n Convergence failure -- "
        "run terminated.\n"
    )
    facts = read_facts(path, "gaussian-out")
    assert (facts.charge, facts.multiplicity) == (-1, 2)
    assert "did not converge" in facts.warnings[0]


@pytest.mark.parametrize(
    ("format", "text", "charge", "multiplicity"),
    [
        (
            "orca-output",
            " Total Charge           Charge          ....   -2\n Multiplicity           Mult            ....    3\n",
            -2,
            3,
        ),
        ("nwchem-out", "          Charge           :      1\n          Spin multiplicity:   2\n", 1, 2),
        (
            "gamess-us-out",
            " CHARGE OF MOLECULE                 =   -1\n SPIN MULTIPLICITY                  =    2\n",
            -1,
            2,
        ),
        ("aims-output", "  | Charge =   1.000000E+00\n", 1, None),
        ("castep-castep", " net charge of system                           :   -1.000\n", -1, None),
    ],
)
def test_what_programs_print(tmp_path: Path, format: str, text: str, charge: int, multiplicity: int | None) -> None:
    (tmp_path / "a.out").write_text(f"header\n{text}rest\n")
    facts = read_facts(tmp_path / "a.out", format)
    assert (facts.charge, facts.multiplicity, facts.problems, facts.warnings) == (charge, multiplicity, (), ())
    (tmp_path / "b.out").write_text("nothing\n")
    assert "a charge of 0 is taken" in read_facts(tmp_path / "b.out", format).warnings[0]


def test_espresso_charge_is_what_electrons_are_missing(tmp_path: Path) -> None:
    text = """     number of electrons       =         9.00
     atomic species   valence    mass     pseudopotential
        O              6.00    15.99900     O( 1.00)
        H              1.00     1.00800     H( 1.00)

     site n.     atom                  positions (alat units)
         1           O   tau(   1) = (   0.0   0.0   0.0  )
         2           H   tau(   2) = (   0.1   0.0   0.0  )
         3           H   tau(   3) = (   0.0   0.1   0.0  )
         4           H   tau(   4) = (   0.0   0.0   0.1  )

     convergence NOT achieved after 100 iterations: stopping
"""
    (tmp_path / "pw.out").write_text(text)
    facts = read_facts(tmp_path / "pw.out", "espresso-out")
    assert facts.charge == 0
    assert len(facts.warnings) == 1
    (tmp_path / "pw.out").write_text(text.replace("9.00", "8.00", 1))
    assert read_facts(tmp_path / "pw.out", "espresso-out").charge == 1


def test_outcar_loops_and_electrons(tmp_path: Path) -> None:
    text = """   ZVAL   =   11.000    mass and valenz
   POMASS =   63.546; ZVAL   =   11.000    mass and valenz
   ions per type =               2
   NELM   =      3;   NELMIN=  2
   NELECT =      21.0000    total number of electrons
----------------------------------------- Iteration    1(   2)  ---
 aborting loop because EDIFF is reached
----------------------------------------- Iteration    2(   3)  ---
 aborting loop because EDIFF is reached
----------------------------------------- Iteration    3(   1)  ---
 aborting loop EDIFF was not reached (unconverged)
"""
    (tmp_path / "OUTCAR").write_text(text)
    facts = read_facts(tmp_path / "OUTCAR", "vasp-out")
    assert (facts.charge, facts.n_loops, facts.unconverged) == (1, 3, frozenset({1, 2}))


def step(n: int, energy: float) -> str:
    row = (
        f"<energy><i name='e_fr_energy'>{energy}</i><i name='e_wo_entrp'>{energy}</i><i "
        f"name='e_0_energy'>{energy}</i></energy>"
    )
    loops = f"<scstep>{row}</scstep>" * n
    cell = "<varray name='basis'><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray>"
    place = "<varray name='positions'><v>0 0 0</v><v>0.5 0.5 0.5</v></varray>"
    forces = "<varray name='forces'><v>0.1 0 0</v><v>-0.1 0 0</v></varray>"
    return f"<calculation>{loops}<structure><crystal>{cell}</crystal>{place}</structure>{forces}{row}</calculation>"


def vasprun(path: Path, *loops: int, electrons: float = 22.0) -> Path:
    cell = "<varray name='basis'><v>4 0 0</v><v>0 4 0</v><v>0 0 4</v></varray>"
    place = "<varray name='positions'><v>0 0 0</v><v>0.5 0.5 0.5</v></varray>"
    path.write_text(
        "<?xml version='1.0' encoding='ISO-8859-1'?><modeling><incar><i type='int' name='NELM'>5</i></incar>"
        "<kpoints><varray name='kpointlist'></varray><varray name='weights'></varray></kpoints>"
        f"<parameters><i type='int' name='NELM'>5</i><i name='NELECT'>{electrons}</i></parameters>"
        "<atominfo><array name='atoms'><set><rc><c>Cu</c><c>1</c></rc><rc><c>Cu</c><c>1</c></rc></set></array>"
        "<array name='atomtypes'><set><rc><c>2</c><c>Cu</c><c>63.5</c><c>11.0</c><c>PAW</c></rc></set></array></atominfo>"
        f"<structure name='initialpos'><crystal>{cell}</crystal>{place}</structure>"
        + "".join(step(n, -10.0 - i) for i, n in enumerate(loops))
        + "</modeling>"
    )
    return path


def test_vasprun_marks_loops_that_did_not_converge(tmp_path: Path) -> None:
    report = ml.import_files(vasprun(tmp_path / "vasprun.xml", 2, 5, 3), tmp_path / "s")
    assert any("1 of 3 electronic loops did not converge (steps 1," in warning for warning in report.warnings)
    assert ml.open(tmp_path / "s").snapshot().read().columns["scf_converged"].tolist() == [True, False, True]
    fine = ml.import_files(vasprun(tmp_path / "b-vasp.xml", 2, 3, electrons=23.0), tmp_path / "t")
    batch = ml.open(tmp_path / "t").snapshot().read()
    assert (batch.charge.tolist(), batch.user) == ([-1, -1], {})
    assert not any("converge" in warning for warning in fine.warnings)
    with pytest.raises(DataError, match="whole charge"):
        ml.import_files(vasprun(tmp_path / "c-vasp.xml", 2, electrons=22.5), tmp_path / "t")

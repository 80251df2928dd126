"""Every class of seeds gives real, sane structures, with its sources on record, and the same ones for the same numbers."""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter

import numpy as np
import pytest
from ase.build import bulk
from ase.data import covalent_radii

import mlffstore as ml
from mlffstore.data.batch import SampleBatch
from mlffstore.data.geometry import pairs
from mlffstore.errors import DataError, RegistryError
from mlffstore_generators import molecules as quick_molecules
from mlffstore_generators.seeds import Seeds, clusters, get_seeds, known
from mlffstore_generators.seeds import molecules as molecules_of_nci
from mlffstore_generators.seeds.base import NoSeedError
from mlffstore_generators.smiles import family, with_hydrogens

NEEDS = {"random-crystals": "pyxtal", "liquids": "packmol"}
NAMES = [name for name in known() if name != "files"]


def draw(name, count, seed=0, **options):
    if name in NEEDS:
        _importable(NEEDS[name])
    seeds, rng = get_seeds({"name": name, **options}), np.random.default_rng(seed)
    out, failed = [], Counter()
    for _ in range(400):
        if len(out) == count:
            break
        try:
            out.append(seeds.draw(np.random.default_rng(rng.integers(2**63, size=2))))
        except NoSeedError as error:
            failed[str(error)] += 1
    assert len(out) == count, failed
    return out


def _importable(package):
    from importlib.metadata import PackageNotFoundError, version

    try:
        version(package)
    except PackageNotFoundError:
        pytest.skip(f"needs {package}: pip install 'mlffstore[sampling]'")


#: Crystals that EMT relaxes in a moment; CHGNet, the default, takes ten seconds of processor time for one.
_QUICK = {"seeds": {"name": "crystals", "elements": ["Cu", "Al", "Ni", "Pd", "Ag", "Au", "Pt"], "elemental": 1.0},
          "teacher": "emt"}  # fmt: skip


@pytest.fixture(scope="module", params=NAMES)
def drawn(request, thorough):
    """Return a class, options and some seeds; with --run-slow those of its defaults."""
    name, options = request.param, {}
    if name == "relaxed" and not thorough:
        options = _QUICK
    # pyxtal and a relaxation take seconds for each crystal.
    return name, options, draw(name, 3 if name in ("random-crystals", "relaxed") else 8, **options)


def test_sane(drawn):
    name, _, seeds = drawn
    assert isinstance(get_seeds(name), Seeds)
    for seed in seeds:
        atoms = seed.atoms
        assert np.isfinite(atoms.positions).all()
        assert seed.source
        if atoms.pbc.any():
            assert np.linalg.det(atoms.cell.array) > 0
        else:
            assert not atoms.cell.array.any()
        if name != "few-atoms":
            assert 10 <= len(atoms) <= 200
            found = pairs(np.array([0, len(atoms)]), atoms.positions, atoms.cell.array[None], atoms.pbc[None], 3.0)
            radii = covalent_radii[atoms.numbers]
            # Atoms of two molecules may come to 0.8 of their van der Waals contact; bonds are about 1.
            assert (found.distance > 0.6 * (radii[found.first] + radii[found.second])).all()
        batch = SampleBatch.from_ase([atoms])
        electrons = int(atoms.numbers.sum()) - int(batch.charge[0])
        if not atoms.pbc.any():
            assert (electrons + int(batch.multiplicity[0])) % 2 == 1
        assert len(seed.bonds) == 0 or int(seed.bonds.max()) < len(atoms)


def test_the_same_numbers_give_the_same_structures(drawn):
    name, options, seeds = drawn
    again = draw(name, 1 if name in ("random-crystals", "relaxed") else 3, **options)
    assert [seed.root for seed in again] == [seed.root for seed in seeds[: len(again)]]
    assert len({int(seed.root) for seed in seeds}) > 1


def test_conformers_and_radicals_of_a_molecule_share_a_root(monkeypatch):
    one = ("CC(O)C(N)Cc1ccccc1",)
    for module in (molecules_of_nci, quick_molecules):
        monkeypatch.setattr(module, "nci_smiles", lambda: one)
    rngs = [np.random.default_rng(k) for k in range(4)]
    first, second = (get_seeds("molecules").draw(rng) for rng in rngs[:2])
    radical = get_seeds({"name": "molecules", "radicals": 1.0}).draw(rngs[2])
    assert not np.allclose(first.atoms.positions, second.atoms.positions, atol=0.01)
    assert len(radical.atoms) == len(first.atoms) - 1
    made = ml.get_generator("molecules", frames=1, equilibration_fs=1.0).generate(rngs[3], 1).batch
    assert {int(first.root)} == {int(second.root), int(radical.root), *made.root.tolist()}
    # The other hand of it too, and nothing else.
    assert family(with_hydrogens("C[C@H](O)C(N)Cc1ccccc1")) == family(with_hydrogens("C[C@@H](O)C(N)Cc1ccccc1"))
    assert family(with_hydrogens("CC(N)C(O)Cc1ccccc1")) != first.family
    monkeypatch.setattr(molecules_of_nci, "nci_smiles", lambda: ("CCO",))
    assert get_seeds({"name": "molecules", "min_atoms": 5}).draw(rngs[0]).root != first.root


def test_clusters_of_the_same_molecules_share_a_root(monkeypatch):
    monkeypatch.setattr(molecules_of_nci, "nci_smiles", lambda: ("CCO",))
    monkeypatch.setattr(clusters, "_SOLVENTS", ("O",))
    options = {"name": "clusters", "molecules": (2, 2), "solvent": 1.0}
    first, second = (get_seeds(options).draw(np.random.default_rng(k)) for k in range(2))
    assert first.family == "CCO.O"
    assert first.root == second.root
    assert not np.allclose(first.atoms.positions, second.atoms.positions, atol=0.01)


def test_sources_have_licences(drawn):
    for source in get_seeds({"name": drawn[0], **drawn[1]}).provenance():
        assert source["name"]
        assert source["what"]
        assert source["licence"]


def test_organic_seeds_have_their_hydrogens():
    for name in ("molecules", "clusters", "liquids"):
        for seed in draw(name, 8, seed=5):
            if 6 in seed.atoms.numbers and seed.source != "liquid":
                assert 1 in seed.atoms.numbers or set(seed.atoms.numbers) & {9, 17, 35, 53}, seed.atoms


def test_radicals_lose_one_hydrogen_and_become_doublets():
    for seed in draw("molecules", 5, radicals=1.0):
        assert seed.source == "nci-radical"
        assert seed.atoms.info["multiplicity"] == 2
        assert (seed.atoms.numbers.sum() - seed.atoms.info["charge"]) % 2 == 1


def test_liquids_keep_density_and_distance():
    for seed in draw("liquids", 3, density=(0.8, 0.9)):
        atoms = seed.atoms
        density = atoms.get_masses().sum() * 1.66053907 / atoms.get_volume()
        assert 0.79 < density < 0.91
        owner = np.zeros(len(atoms), int)
        for k, fragment in enumerate(seed.fragments):
            owner[fragment] = k
        found = pairs(np.array([0, len(atoms)]), atoms.positions, atoms.cell.array[None], atoms.pbc[None], 3.0)
        between = owner[found.first] != owner[found.second]
        assert found.distance[between].min() > 1.7  # packmol's tolerance of 1.8, to its own precision


def test_slabs_have_vacuum_and_defects_are_what_they_say():
    for seed in draw("slabs", 5):
        z = np.sort(seed.atoms.get_scaled_positions()[:, 2])
        gap = np.diff(np.concatenate([z, [z[0] + 1]])).max()
        height = seed.atoms.get_volume() / np.linalg.norm(np.cross(*seed.atoms.cell.array[:2]))
        assert gap * height > 11.9
    kinds = {seed.source.split(":")[0] for seed in draw("defects", 16)}
    assert kinds <= {"vacancy", "substitution", "alloy", "interstitial"}
    assert len(kinds) >= 3


#: Cubic lattice constants by experiment, angstrom, of CsCl (B2) and Cu3Au (L1_2) compounds: Villars and Calvert, Pearson's
#: Handbook (1991).
B2 = {"NiAl": 2.887, "FeAl": 2.909, "CuZn": 2.950, "NiTi": 3.015, "CoAl": 2.862, "AuCd": 3.323, "AgMg": 3.314}
L12 = {"AuCu3": 3.748, "AlNi3": 3.572, "ScAl3": 4.101, "PtFe3": 3.730, "TiPt3": 3.904}
#: Of rock salts, angstrom: CRC Handbook of Chemistry and Physics.
B1 = {"LiF": 4.026, "NaBr": 5.977, "KCl": 6.293, "MgO": 4.212, "CaO": 4.811, "SrS": 6.020, "CaSe": 5.916, "RbI": 7.342}


def test_predicted_volumes():
    """Within 20 % of experiment: 29 metals of ASE and 12 of their compounds, and 8 salts predicted from NaCl."""
    pytest.importorskip("pymatgen")
    from ase.build import bulk
    from pymatgen.core import Lattice, Structure

    from mlffstore_generators.prototypes import ionic_volume, metallic_volume

    metals = "Li Be Na Mg Al K Ca Ti V Cr Fe Co Ni Cu Zn Zr Nb Mo Rh Pd Ag Cs Ba Ta W Ir Pt Au Pb"
    for symbol in metals.split():
        atoms = bulk(symbol)
        one = Structure(atoms.cell.array, [symbol] * len(atoms), atoms.get_scaled_positions())
        assert metallic_volume(one) == pytest.approx(atoms.get_volume(), rel=0.2), symbol
    sites = {"B2": [[0, 0, 0], [0.5] * 3], "L12": [[0, 0, 0], [0.5, 0.5, 0], [0.5, 0, 0.5], [0, 0.5, 0.5]]}
    for name, measured in (("B2", B2), ("L12", L12)):
        for formula, a in measured.items():
            first, second = (word.strip("3") for word in re.findall("[A-Z][a-z]?3?", formula))
            n = len(sites[name])
            one = Structure(Lattice.cubic(a), [first] + [second] * (n - 1), sites[name])
            assert metallic_volume(one) == pytest.approx(a**3, rel=0.2), formula
    salt = Structure.from_spacegroup("Fm-3m", Lattice.cubic(5.640), ["Na", "Cl"], [[0, 0, 0], [0.5] * 3])
    for formula, a in B1.items():
        cation, anion = re.findall("[A-Z][a-z]?", formula)
        other = salt.copy()
        other.replace_species({"Na": cation, "Cl": anion})
        assert ionic_volume(other, salt) == pytest.approx(a**3, rel=0.2), formula


def test_volumes_that_nothing_supports_are_no_crystals():
    """Carbon and nitrogen packed like cobalt arsenide are twice as dense as diamond; on carbon disulphide packed like Cu2Te
    the predictors disagree."""
    pytest.importorskip("pymatgen")
    from mlffstore_generators.prototypes import ionic_volume, prototypes

    known = dict(prototypes())
    for tag, elements, words in (("AB_oP8_33_a_a", "C N", "no solid"), ("A2B_hP6_191_h_e", "S C", "disagree")):
        prototype = known[tag]
        other = prototype.copy()
        other.replace_species(
            dict(zip([e.symbol for e in prototype.composition.elements], elements.split(), strict=True))
        )
        with pytest.raises(NoSeedError, match=words):
            ionic_volume(other, prototype)


def test_files(tmp_path):
    from ase.io import write

    from tests.samples import metal_frames

    write(tmp_path / "a.extxyz", metal_frames(5))
    seeds = get_seeds({"name": "files", "paths": [str(tmp_path / "a.extxyz")], "licence": "CC0-1.0"})
    seed = seeds.draw(np.random.default_rng(0))
    assert seed.atoms.calc is None
    assert seed.source == "file:a.extxyz"
    assert seeds.provenance()[0]["licence"] == "CC0-1.0"


@pytest.mark.parametrize(
    ("spec", "error", "words"),
    [
        ("crystal", RegistryError, "did you mean 'crystals'"),
        ("no.such:Thing", RegistryError, "cannot be imported"),
        ({"name": "crystals", "size": 3}, DataError, "there is no option 'size'"),
        ({"name": "crystals", "elementl": 1.0}, DataError, "'elementl'; did you mean 'elemental'"),
        ({"name": "os:path"}, RegistryError, "to be a class, got a module"),
        ({"name": "slabs", "host": 5}, DataError, "expected a name, or a mapping"),
        ({"name": "defects", "host": {"name": "crystal"}}, RegistryError, "did you mean 'crystals'"),
        (5, DataError, "expected a name, or a mapping"),
        ({"name": "molecules", "min_atoms": 9, "max_atoms": 3}, DataError, "min_atoms <= max_atoms"),
        ({"name": "molecules", "radicals": 2}, DataError, "from 0 to 1"),
        ({"name": "slabs", "vacuum": 1}, DataError, "vacuum"),
        ({"name": "files", "paths": ["absent.xyz"]}, DataError, "absent.xyz"),
    ],
)
def test_bad_options_are_told(spec, error, words):
    with pytest.raises(error, match=words):
        get_seeds(spec)


@pytest.mark.parametrize(
    ("line", "charge", "multiplicity"),
    [
        ("total_charge=-1 spin_multiplicity=1", -1, 1),
        ('config_type="" charge=-1', -1, 1),
        ("netcharge=1 uhf=2", 1, 3),
        ("charge=0", 0, 2),
        ("energy=-5.0", 0, 2),
    ],
)
def test_files_keep_charge_and_multiplicity_under_any_name_in_use(line, charge, multiplicity, tmp_path):
    """A hydroxide whose charge is not read is labelled as the radical."""
    path = tmp_path / "hydroxide.extxyz"
    path.write_text(f"2\n{line}\nO 0 0 0\nH 0 0 0.97\n")
    batch = SampleBatch.from_ase(
        [get_seeds({"name": "files", "paths": [str(path)]}).draw(np.random.default_rng(0)).atoms]
    )
    assert (int(batch.charge[0]), int(batch.multiplicity[0])) == (charge, multiplicity)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2\ncharge=0.5\nO 0 0 0\nH 0 0 0.97\n", "frame 0: expected a whole number as charge, got '0.5'"),
        (
            "2\ncharge=1 total_charge=0\nO 0 0 0\nH 0 0 0.97\n",
            "expected one charge, got 1 as charge and 0 as total_charge",
        ),
        ("2\n\nO 0 0 0\n", "frame 0: expected extxyz"),
    ],
)
def test_files_that_say_something_impossible_are_refused(text, message, tmp_path):
    path = tmp_path / "wrong.extxyz"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        get_seeds({"name": "files", "paths": [str(path)]}).draw(np.random.default_rng(0))


def test_files_that_have_changed_are_read_again(tmp_path):
    path = tmp_path / "seed.extxyz"
    path.touch()
    seeds = get_seeds({"name": "files", "paths": [str(path)]})
    for time, symbol in enumerate(("Cu", "Ag")):
        bulk(symbol, cubic=True).write(path)
        os.utime(path, ns=(time, time))  # whatever the resolution of the file system's clock
        assert set(seeds.draw(np.random.default_rng(0)).atoms.symbols) == {symbol}


def test_defects_of_cells_of_one_or_two_atoms():
    seeds = get_seeds({"name": "defects", "min_atoms": 1, "distance": 0.0, "elemental": 1.0, "elements": ("Cu", "Fe")})
    kinds = set()
    for k in range(60):
        with contextlib.suppress(NoSeedError):
            seed = seeds.draw(np.random.default_rng(k))
            assert len(seed.atoms)
            kinds.add(seed.source.split(":")[0])
    assert kinds


def test_few_atoms_share_the_roots_of_their_composition():
    few, crystals = (
        get_seeds({"name": "few-atoms", "kinds": ["dimer", "cell"]}),
        get_seeds({"name": "crystals", "elemental": 1.0}),
    )
    roots = {}
    for source in (few, crystals):
        for k in range(150):
            with contextlib.suppress(NoSeedError):
                seed = source.draw(np.random.default_rng(k))
                what = seed.atoms.get_chemical_formula(empirical=seed.periodic), seed.periodic
                roots.setdefault(what, set()).add(int(seed.root))
    assert len(roots) > 60
    assert all(len(some) == 1 for some in roots.values())

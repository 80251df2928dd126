"""Slabs, defects, particles, ions and boxes are as large and as charged as they say, and share roots with hosts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import bulk

from mlffstore.contracts.registry import shared_teacher
from mlffstore.data.batch import SampleBatch
from mlffstore.errors import DataError
from mlffstore_generators.seeds import get_seeds
from mlffstore_generators.seeds.base import NoSeedError


def draw(count, seed=0, **spec):
    seeds, rng, out = get_seeds(spec), np.random.default_rng(seed), []
    for _ in range(2000):
        if len(out) == count:
            break
        try:
            out.append(seeds.draw(np.random.default_rng(rng.integers(2**63, size=2))))
        except NoSeedError:
            continue
    assert len(out) == count
    return out


def heights(atoms):
    """Return the extent of the atoms along the normal of the first two vectors, and the height of the cell, angstrom."""
    normal = np.cross(*atoms.cell.array[:2])
    area = np.linalg.norm(normal)
    return float(np.ptp(atoms.positions @ normal / area)), atoms.get_volume() / area


def test_slabs_are_thick_and_far_from_their_images():
    slabs = draw(12, name="slabs")
    for seed in slabs:
        extent, height = heights(seed.atoms)
        assert height - extent > 11.9
        if "adsorbate" not in seed.source:
            assert extent > 7.9
    assert any("adsorbate" in seed.source for seed in slabs)
    with pytest.raises(DataError, match="thickness"):
        get_seeds({"name": "slabs", "thickness": 0})


def test_compounds_have_both_terminations():
    """Rock salt along (1 1 1) has planes of cations and of anions: either is on top, about as often."""
    from ase.build import bulk

    from mlffstore_generators.seeds.slabs import Slabs

    cut, crystal, tops = Slabs()._cut, bulk("MgO", "rocksalt", a=4.21, cubic=True), Counter()
    for k in range(24):
        slab = cut(crystal, (1, 1, 1), np.random.default_rng(k))
        counts = Counter(slab.get_chemical_symbols())
        assert counts["Mg"] == counts["O"]
        tops[slab.symbols[int(np.argmax(slab.positions[:, 2]))]] += 1
    assert min(tops["Mg"], tops["O"]) >= 4


def test_a_defect_is_far_from_its_images_and_shares_its_root_with_the_host():
    seeds = draw(10, name="defects", elements=["Cu", "Al", "Ni", "Ag"], elemental=1.0, max_atoms=200)
    hosts = {seed.root for seed in draw(40, name="crystals", elements=["Cu", "Al", "Ni", "Ag"], elemental=1.0)}
    for seed in seeds:
        faces = 1 / np.linalg.norm(np.linalg.inv(seed.atoms.cell.array), axis=0)
        assert faces.min() > 9.99
        assert seed.root in hosts


def test_hosts_may_be_relaxed():
    pytest.importorskip("pymatgen")
    metals = {"name": "crystals", "elements": ["Cu", "Al", "Ni"], "elemental": 1.0, "min_atoms": 1, "max_atoms": 8}
    host = {"name": "relaxed", "seeds": metals, "teacher": "emt", "steps": 20, "pressure": 30.0}
    for name in ("defects", "slabs"):
        seed = draw(1, name=name, host=host, max_atoms=200)[0]
        assert seed.family.endswith("1")
        large = draw(1, name="relaxed", seeds=metals, teacher="emt", steps=20, pressure=30.0, min_atoms=150)[0]
        assert 150 <= len(large.atoms) <= 500
        assert large.family.startswith("crystal ")


def test_particles_have_many_sizes_and_the_composition_of_their_crystal():
    particles = draw(24, name="nanoparticles", max_atoms=320, compounds=0.5)
    sizes = [len(seed.atoms) for seed in particles]
    assert min(sizes) < 40
    assert max(sizes) > 150
    compounds = [seed for seed in particles if seed.source.startswith("nanoparticle:sphere")]
    assert len(compounds) >= 5
    for seed in compounds:
        counts = Counter(seed.atoms.get_chemical_symbols())
        unit = np.gcd.reduce(list(counts.values()))
        formula = " ".join(f"{symbol}{n // unit}" for symbol, n in sorted(counts.items()))
        assert seed.family.endswith(formula)
        distances = np.linalg.norm(seed.atoms.positions - seed.atoms.positions.mean(axis=0), axis=1)
        # A compact body: of a uniform ball the rms distance is 0.77 of the radius.
        assert np.sqrt((distances**2).mean()) < 0.9 * distances.max()


# -- molecules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "charge"), [("anion", -1), ("cation", 1), ("dication", 2), ("dianion", -2)])
def test_ions_have_their_charge_and_the_root_of_their_molecule(kind, charge):
    for seed in draw(3, name="molecules", ions=[kind], max_atoms=40):
        assert seed.atoms.info == {"charge": charge, "multiplicity": 1}
        assert seed.source == f"nci-{kind}"
        electrons = int(seed.atoms.numbers.sum()) - charge
        assert electrons % 2 == 0
        assert "+" not in seed.family
        assert "-]" not in seed.family
    with pytest.raises(DataError, match="anion, cation"):
        get_seeds({"name": "molecules", "ions": ["radical"]})


def test_neutral_molecules_and_clusters_have_no_charge():
    for spec in ({"name": "molecules", "neutral": True}, {"name": "clusters", "neutral": True}):
        assert {seed.atoms.info["charge"] for seed in draw(20, **spec)} == {0}


def test_salts_have_counter_ions_and_are_neutral():
    for seed in draw(10, name="clusters", kind="salt"):
        assert seed.atoms.info["charge"] == 0
        assert "+" in seed.family
        assert len(seed.fragments) >= 3
        assert seed.molecule.GetNumAtoms() == len(seed.atoms)
        assert np.allclose(seed.molecule.GetConformer().GetPositions(), seed.atoms.positions, atol=1e-6)


def test_pure_clusters_are_of_one_solvent():
    seeds = draw(30, name="clusters", kind="pure")
    assert all(len(set(seed.family.split("."))) == 1 for seed in seeds)
    assert any(set(seed.family.split(".")) == {"O"} for seed in seeds)


def test_molecules_of_a_liquid_are_flexible_and_xtb_labels_the_box():
    from mlffstore_generators.seeds.clusters import of_smiles
    from mlffstore_generators.seeds.liquids import thermal_copies

    copies = thermal_copies(of_smiles("CO", "solvent", np.random.default_rng(0)), 12, 300.0, np.random.default_rng(1))
    bonds = np.array([copy.get_distance(0, 1) for copy in copies])
    # C-O of methanol: kT / k with 33 eV/A^2 gives 0.028 A at 300 K.
    assert 0.01 < bonds.std() < 0.06
    assert abs(bonds.mean() - 1.42) < 0.05
    try:
        box = draw(1, name="liquids", min_atoms=60, max_atoms=80, edge=[9.0, 12.0], mixture=0.0, density=[0.75, 0.8])[0]
    except ImportError:
        pytest.skip("needs packmol: pip install 'mlffstore[sampling]'")
    assert 9.0 <= box.atoms.cell.lengths()[0] <= 12.0
    labels = shared_teacher("gfn2-xtb", {"gamma_box": 9.0}).label(SampleBatch.from_ase([box.atoms]))
    assert labels.ok[0], labels.reasons


def test_a_relaxed_seed_shares_its_root_with_all_that_came_from_the_same_seed(tmp_path):
    """A relaxation starts with a rattle, so that structures at its end differ: their hashes would be roots of their own."""
    bulk("Cu", cubic=True).write(tmp_path / "seed.extxyz")
    file = {"name": "files", "paths": [str(tmp_path / "seed.extxyz")]}
    seeds = draw(3, name="relaxed", seeds=file, teacher="emt", steps=3, force=50.0, pressure=500.0)
    assert len({seed.atoms.positions.tobytes() for seed in seeds}) == 3
    assert {seed.root for seed in seeds} == {draw(1, **file)[0].root}


def test_particles_of_one_formula_share_a_root():
    particles = draw(60, name="nanoparticles", max_atoms=30, compounds=0.0, alloyed=0.0)
    roots = {}
    for seed in particles:
        roots.setdefault(seed.atoms.get_chemical_formula(), set()).add(seed.root)
    assert len(roots) < len(particles)
    assert all(len(names) == 1 for names in roots.values())

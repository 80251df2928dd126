"""Every planted fault is found by name, and clean data is clean."""

from __future__ import annotations

import re
import sys

import dask
import numpy as np
import pytest
import xarray as xr

import mlffstore as ml
from mlffstore.analysis.validation import Policy, load_policy
from mlffstore.analysis.validation.dataset_checks import DATASET_CHECKS
from mlffstore.analysis.validation.sample_checks import SAMPLE_CHECKS
from mlffstore.data.ragged import offsets
from mlffstore.errors import DataError, MissingDependencyError, PolicyError, TeacherError

KCAL_PER_MOL, GPA = 23.0605, 160.2177


def atoms_of(ds, i):
    starts = offsets(ds.n_atoms.values)
    return slice(int(starts[i]), int(starts[i + 1]))


def crystal(ds, k=5):
    return int(np.flatnonzero(ds.pbc.values.all(axis=1))[k])


def methanol(ds):
    return int(np.flatnonzero(~ds.pbc.values.any(axis=1))[1])


def overlap(ds):
    """An atom 0.3 angstrom from the image of another, across the boundary of the cell."""
    i = crystal(ds)
    rows = atoms_of(ds, i)
    ds.positions.values[rows.start + 1] = ds.positions.values[rows.start] + ds.cell.values[i, 0] + [0.3, 0, 0]
    return ds, {"close_atoms": [i]}


def swapped_energies(ds):
    """Of two different molecules."""
    i = methanol(ds)
    j = i + 4
    assert ds.root.values[i] != ds.root.values[j]
    ds.energy.values[[i, j]] = ds.energy.values[[j, i]]
    return ds, {"energy_work": [i, j]}


def swapped_energies_of_one_root(ds):
    together = (ds.root.values[:-1] == ds.root.values[1:]) & ~ds.pbc.values[1:].any(axis=1)
    i = int(np.argmax(np.where(together, np.abs(np.diff(ds.energy.values[:, 1])), 0)))
    pair = [i, i + 1]
    ds.energy.values[pair] = ds.energy.values[pair[::-1]]
    return ds, {"energy_work": pair[:1]}  # the other one agrees, by chance, with its second neighbour


def wrong_energy(ds):
    i = crystal(ds, 12)
    ds.energy.values[i] += 3.0 * int(ds.n_atoms[i])
    return ds, {"energy_outlier": [i]}


def flipped_stress(ds):
    ds.stress.values *= -1
    return ds, {"stress_units": None, "stress_stiffness": None}


def gigapascal(ds):
    ds.stress.values *= GPA
    return ds, {"stress_units": None, "stress_stiffness": None}


def kcal(ds):
    ds.energy.values *= KCAL_PER_MOL
    return ds, {"energy_units": None}


def kcal_forces_too(ds):
    ds.energy.values *= KCAL_PER_MOL
    ds.forces.values *= KCAL_PER_MOL
    return ds, {"force_units": None}


def flipped_forces(ds):
    ds.forces.values *= -1
    return ds, {"energy_units": None}


def shuffled_forces(ds):
    """The whole array, moved by one atom."""
    ds.forces.values[:] = np.roll(ds.forces.values, 1, axis=0)
    return ds, {"energy_units": None, "net_force": [crystal(ds, 3)]}


def shuffled_forces_of_a_molecule(ds):
    i = methanol(ds)
    rows = atoms_of(ds, i)
    ds.forces.values[rows] = ds.forces.values[rows][::-1]
    return ds, {"net_torque": [i]}


def stripped(ds):
    i = methanol(ds)
    keep = np.ones(ds.sizes["atom"], bool)
    rows = atoms_of(ds, i)
    keep[rows] = ds.numbers.values[rows] != 1
    counts = ds.n_atoms.copy()
    counts.values[i] = keep[rows].sum()
    return ds.isel(atom=np.flatnonzero(keep)).assign(n_atoms=counts), {"missing_hydrogens": [i]}


def all_stripped(ds):
    owner = np.repeat(np.arange(ds.sizes["sample"]), ds.n_atoms.values)
    keep = np.flatnonzero(ds.numbers.values != 1)
    counts = ds.n_atoms.copy(data=np.bincount(owner[keep], minlength=ds.sizes["sample"]).astype(np.int32))
    return ds.isel(atom=keep).assign(n_atoms=counts), {"hydrogen_free": None, "missing_hydrogens": [methanol(ds)]}


def duplicate_elsewhere(ds):
    """The same structure under another root, in another split."""
    i, n = crystal(ds), ds.sizes["sample"]
    out = ds.mlff.isel([*range(n), i])
    out.root.values[n] ^= np.uint64(12345)
    out.split.values[n] = (out.split.values[i] + 1) % 3
    return out, {"leakage": [i, n], "duplicate": [n]}


def turned_elsewhere(ds):
    """The same molecule, turned, its atoms in another order."""
    i, n = methanol(ds), ds.sizes["sample"]
    out = ds.mlff.isel([*range(n), i])
    rows = atoms_of(out, n)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    turn *= np.linalg.det(turn)
    order = np.arange(rows.start, rows.stop)[::-1]
    for name in ("positions", "forces"):
        out[name].values[rows] = out[name].values[order] @ turn
    out.numbers.values[rows] = out.numbers.values[order]
    out.content_hash.values[n] ^= np.uint64(1)
    out.root.values[n] ^= np.uint64(1)
    out.split.values[n] = (out.split.values[i] + 1) % 3
    return out, {"near_leakage": [i, n], "near_duplicate": [n], "molecule_leakage": [i, n]}


def not_a_number(ds):
    i, j = crystal(ds), crystal(ds, 9)
    ds.positions.values[atoms_of(ds, i).start, 1] = np.nan
    ds.forces.values[atoms_of(ds, j).start, 0, 2] = np.nan
    return ds, {"not_finite": [i, j]}


def mirrored(ds):
    """Two lattice vectors exchanged."""
    i = crystal(ds)
    ds.cell.values[i] = ds.cell.values[i][[1, 0, 2]]
    return ds, {"cell_left_handed": [i]}


def wrong_spin(ds):
    i = methanol(ds)
    ds.multiplicity.values[i] = 2
    return ds, {"electron_parity": [i]}


def flat_cell(ds):
    i = crystal(ds)
    ds.cell.values[i, 1] = ds.cell.values[i, 0] + 0.05 * ds.cell.values[i, 1]
    return ds, {"cell_angles": [i]}


FAULTS = (
    overlap, swapped_energies, swapped_energies_of_one_root, wrong_energy, flipped_stress, gigapascal, kcal,
    kcal_forces_too, flipped_forces, shuffled_forces, shuffled_forces_of_a_molecule, stripped, all_stripped,
    duplicate_elsewhere, turned_elsewhere, not_a_number, mirrored, wrong_spin, flat_cell,
)  # fmt: skip
#: Faults that the default policy calls warnings of single samples.
MILD = {"wrong_energy", "swapped_energies_of_one_root", "shuffled_forces_of_a_molecule"}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found_by_name(ds, fault):
    spoiled, expected = fault(ds.copy(deep=True))
    found = ml.validate(spoiled)
    for check, samples in expected.items():
        if samples is None:
            assert check in {problem.check for problem in found.problems}
        else:
            assert set(samples) <= set(found.failed(check).tolist()), check
    assert found.ok == (fault.__name__ in MILD)


def test_each_check_has_a_bit_of_its_own(ds):
    found = ml.validate(ds)
    masks = found.flags.flags.attrs["flag_masks"]
    assert len(masks) == len(SAMPLE_CHECKS) == len(set(masks.tolist()) - {0})
    assert len(found.failed("host_leakage"))  # among the last bits
    for check, mask in zip(SAMPLE_CHECKS, masks, strict=True):
        assert np.array_equal(np.flatnonzero(found.flags.flags.values & mask), found.failed(check)), check


def test_clean_data_is_clean(clean):
    found = ml.validate(clean)
    assert "not computed yet" in repr(found)
    assert found.ok
    assert found.problems == []
    assert {one.check for one in found.findings} <= {"net_force", "host_leakage"}
    assert not found.invalid.any()
    assert all(line.passed for line in found.acceptance)
    assert found.to_json()["samples"] == 4 * 7 * 6 + 6 * 4


@pytest.mark.slow
def test_the_teacher_at_hand_finds_a_shuffle_within_a_crystal(ds):
    teacher = ml.get_teacher("emt")
    spoiled = ds.copy(deep=True)
    i, j, k = crystal(ds, 3), crystal(ds, 20), crystal(ds, 30)
    rows = atoms_of(ds, i)
    spoiled.forces.values[rows] = spoiled.forces.values[rows][::-1]
    spoiled.energy.values[j, 0] += 0.002 * int(ds.n_atoms[j])
    spoiled.stress.values[k] *= -1
    policy = {"checks": {"force_gradient": {"samples": 1000}}}
    found = ml.validate(spoiled, policy, teacher=teacher)
    assert found.failed("force_gradient").tolist() == [i]
    assert found.failed("teacher_energy").tolist() == [j]
    assert found.failed("teacher_stress").tolist() == [k]
    assert ml.validate(ds, policy, teacher=teacher).ok
    with pytest.raises(TeacherError, match="expected one whose labels are there"):
        ml.validate(ds.mlff.head(9), teacher=ml.get_teacher("chgnet")).compute()


def test_real_files_are_clean(real, tmp_path):
    for path in sorted(real.glob("*.extxyz")):
        ml.import_files([path], tmp_path / path.stem)
        found = ml.validate(tmp_path / path.stem)
        assert found.ok
        assert not found.invalid.any()


def test_the_result_does_not_depend_on_chunks_or_scheduler(ds):
    expected = ml.validate(ds).flags
    small = ds.chunk(
        {"sample": (100, 60, 32), "atom": tuple(np.add.reduceat(ds.n_atoms.values, [0, 100, 160]).tolist())}
    )
    with dask.config.set(scheduler="synchronous"):
        found = ml.validate(small).flags
    names = [name for name in expected if name not in ("energy_residual", "flags", "severity")]
    xr.testing.assert_identical(found[names], expected[names])
    # A family cut in two has fewer pairs; nothing else may change.
    bit = np.uint32(1 << SAMPLE_CHECKS.index("energy_work"))
    assert np.array_equal(found.flags | bit, expected.flags | bit)


def test_flags_say_what_they_mean(ds):
    spoiled, _ = overlap(ds.copy(deep=True))
    flags = ml.validate(spoiled).flags
    words = flags.flags.attrs["flag_meanings"].split()
    assert words == list(SAMPLE_CHECKS)
    i = crystal(ds)
    said = [
        word for word, mask in zip(words, flags.flags.attrs["flag_masks"], strict=True) if flags.flags.values[i] & mask
    ]
    assert "close_atoms" in said
    assert flags.severity.values[i] == 2
    assert flags.d_min.values[i] == pytest.approx(0.3, abs=1e-5)


def test_flags_can_be_kept_in_the_store(tmp_path, clean):
    store = ml.create(tmp_path / "d.zarr")
    for frames in (3, 5):
        store.append(ml.open(clean).snapshot().read(slice(frames)).structures(), require=())
    before = store.snapshot()
    found = ml.validate(before)
    version = store.add_flags(found, "quality")
    assert store.snapshot().read().columns["quality"].tolist() == found.flags.flags.values.tolist()
    assert "quality" not in before.read().columns
    assert store.snapshot(version=version).to_xarray().quality.dtype == np.uint64
    with pytest.raises(ml.errors.ConflictError, match="has it already"):
        store.add_flags(found, "quality")
    with pytest.raises(DataError, match="one row per sample"):
        store.add_column("other", np.zeros(3))
    store.add_column("mass", np.ones((before.n_atoms, 2)), unit="u")
    assert store.snapshot().to_xarray().mass.attrs["units"] == "u"
    store.compact(target_nbytes=1 << 30)
    assert store.snapshot().read().columns["quality"].tolist() == found.flags.flags.values.tolist()
    assert store.verify(full=True).ok


def test_flags_stay_with_the_samples_that_were_validated(tmp_path, clean):
    store = ml.create(tmp_path / "d.zarr")
    store.append(ml.open(clean).snapshot().read(slice(4)).structures(), require=())
    snapshot = store.snapshot()
    found, turned = ml.validate(store), ml.validate(snapshot.to_xarray().mlff.isel([3, 2, 1, 0]))
    with pytest.raises(DataError, match="expected the samples of version 1 in their order"):
        store.add_flags(turned)
    store.append(ml.open(clean).snapshot().read([4]).structures(), require=())
    store.add_flags(found)
    assert store.snapshot().read().masks["quality"].tolist() == [True] * 4 + [False]
    store.remove([0], reason="x")
    store.append(ml.open(clean).snapshot().read([5]).structures(), require=())
    with pytest.raises(ml.errors.ConflictError):
        store.add_flags(found, "later")
    with pytest.raises(DataError, match="got others"):
        store.add_flags(found, "later", snapshot=store.snapshot())


def test_a_policy_changes_severities_limits_and_the_acceptance_table(ds, tmp_path):
    spoiled, _ = overlap(ds.copy(deep=True))
    path = tmp_path / "policy.yaml"
    path.write_text(
        "checks:\n  close_atoms: {severity: off}\n  force_large: {max_eV_per_angstrom: 0.001}\n"
        "acceptance:\n  samples: {min: 1000}\n  elements: {min: 3, max: 20}\n"
    )
    found = ml.validate(spoiled, path)
    assert not len(found.failed("close_atoms"))
    assert len(found.failed("force_large")) > 100
    assert {line.quantity: line.passed for line in found.acceptance} == {"samples": False, "elements": True}
    assert not found.ok
    assert set(load_policy().checks) == {*SAMPLE_CHECKS, *DATASET_CHECKS}
    assert len(load_policy("production").acceptance) > 10


def test_the_production_policy_wants_the_diversity_and_says_what_it_needs(ds, monkeypatch):
    table = {line.quantity: line for line in ml.validate(ds, "production").acceptance}
    assert 0.3 < table["diversity"].value <= 1
    assert table["diversity"].passed == (table["diversity"].value >= 0.8)
    monkeypatch.setitem(sys.modules, "quests", None)
    with pytest.raises(MissingDependencyError, match=r"mlffstore\[diversity\]"):
        ml.validate(ds, "production")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "checks: {clse_atoms: {severity: off}}",
            "line 1: checks.clse_atoms: unknown key; did you mean 'close_atoms'?",
        ),
        ("checks: {close_atoms: {severity: fatal}}", "expected 'error', 'warning' or 'off', got 'fatal'"),
        ("checks: {close_atoms: {min_nm: 1}}", "(expected severity, min_angstrom)"),
        ("\nchecks: {close_atoms: {min_angstrom: near}}", "line 2: checks.close_atoms.min_angstrom: expected a number"),
        ("acceptance: {smples: {min: 1}}", "unknown key; did you mean 'samples'?"),
        ("acceptance: {samples: 5}", "acceptance.samples: expected a mapping"),
        ("acceptance: {samples: {}}", "acceptance.samples: expected min, max or both"),
        ("check: {}", "unknown key; did you mean 'checks'? (expected checks, acceptance)"),
        ("- 1", "expected a mapping with checks, acceptance, got a list of 1"),
        ("a: [", "syntax error"),
    ],
)
def test_a_wrong_policy_says_what_is_wrong(tmp_path, text, words):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(PolicyError, match=re.escape(words)):
        load_policy(path)
    path.write_text("checks:\nacceptance:\n")
    assert load_policy(path) == Policy(load_policy().checks, {})


def test_bad_input(ds):
    with pytest.raises(PolicyError, match="YAML file"):
        load_policy("nowhere.yaml")
    with pytest.raises(DataError, match=r"\.mlff\.isel"):
        ml.validate(ds.isel(sample=slice(3)).chunk()).compute()
    with pytest.raises(DataError, match="at least one sample"):
        ml.validate(ds.mlff.isel([]))
    with pytest.raises(DataError, match="one of not_finite"):
        ml.validate(ds.mlff.head(3)).failed("nonsense")

"""Which unit and sign explain a slope: the hint names the right label."""

from __future__ import annotations

import pytest

from mlffstore.analysis.validation import units

NAN = float("nan")


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ((1 / 27.2, 2.0), "energies in hartree"),
        ((23.1, 2.0), "energies in kcal/mol"),
        ((1 / 23.1, 46.0), "forces in kcal/mol/angstrom"),
        ((-1.0, 2.0), "forces of the opposite sign (gradients)"),
        ((51.4, 0.04), "forces in hartree/bohr"),
        ((1.9, NAN, 1 / 51.4), "energies in hartree and forces in hartree/bohr"),
        ((1.9, NAN, 0.53), "forces in eV/bohr"),
        ((1.0, 2.0, NAN, 1 / 160.0), "stress in GPa"),
        ((1.0, 2.0, NAN, -1.0), "stress of the opposite sign (compression positive)"),
        # An energy in hartree is off against forces and stress alike, and no stress in GPa.
        ((1 / 27.2, 2.0, NAN, 1 / 27.2), "energies in hartree"),
        ((0.73 / 27.2, 2.0, NAN, 1.2 / 27.2), "energies in hartree"),
    ],
)
def test_the_likeliest_units_are_named_first(figures, expected):
    assert str(units.explain(*figures)[0]) == expected


def test_what_a_slope_alone_cannot_tell_apart_is_named_together():
    text = units.named(units.explain(1.89, 0.7))
    assert "forces in eV/bohr" in text
    assert "energies in rydberg and forces in rydberg/bohr" in text


def test_nothing_explains_a_slope_of_no_unit():
    assert units.explain(0.2, 2.0, 1.0) == []


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (1 / 51.4, "forces in hartree/bohr"),
        (23.0, "forces in kcal/mol/angstrom"),
        (0.53, "forces in eV/bohr"),
        (0.1, ""),
    ],
)
def test_the_stiffness_of_bonds_names_the_unit_of_the_forces(ratio, expected):
    assert units.explain_forces(ratio) == expected

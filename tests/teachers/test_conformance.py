"""Every built-in teacher keeps the contract, and the examination finds a teacher that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from ase.build import bulk, molecule

import mlffstore as ml
from mlffstore.contracts.conformance import check, failed
from mlffstore.contracts.hessian import from_forces
from mlffstore.contracts.structures import default_samples
from mlffstore.errors import TeacherError

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import TeacherLabels


BUILT_IN = ["emt", "gfn2-xtb", "gfn1-xtb", "chgnet", "sevennet-0"]  # FeNNol and Orb have files of their own


def small(name: str):
    """Return a few structures, so that the examination is quick; `make nightly` takes the whole set."""
    if name.endswith("xtb"):
        frames = [molecule("H2O"), molecule("CH3OH")]
    else:
        frames = [
            bulk("MgO", "rocksalt", 4.21) if name in ("chgnet", "sevennet-0") else bulk("Cu", cubic=True) * (2, 1, 1)
        ]
    for frame in frames:
        frame.rattle(0.05, seed=4)
    return frames


#: SevenNet takes half a minute, most of it to start; its properties and Hessian products are tested by day.
QUICK = [pytest.param(name, marks=pytest.mark.slow) if name == "sevennet-0" else name for name in BUILT_IN]


@pytest.mark.parametrize("name", QUICK)
def test_built_in_teachers_conform(name):
    checks = check(ml.get_teacher(name), small(name))
    assert failed(checks) == []
    assert sum(bool(one.passed) for one in checks) >= 14


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_teachers_conform_on_the_whole_set(name):
    assert failed(check(ml.get_teacher(name))) == []


class Spoiled:
    """EMT with something wrong."""

    def __init__(self, spoil):
        self.inner, self.spoil = ml.get_teacher("emt"), spoil
        self.info = self.inner.info

    def label(self, batch):
        return self.spoil(self.inner.label(batch), batch)


def wrong_energy(labels: TeacherLabels, factor) -> TeacherLabels:
    return replace(labels, energy=labels.energy * factor)


def tilted(labels, batch):
    """A force that depends on the orientation in space."""
    return replace(labels, forces=labels.forces + np.float32(0.01) * np.sign(batch.positions).astype(np.float32))


def nudge(labels, batch):
    batch.columns["positions"][0] += 1e-3
    return labels


def depends_on_the_batch(labels, batch):
    return replace(labels, energy=labels.energy + 1e-3 * len(batch))


def ripple(labels, batch, share=1.0):
    """An energy with waves of 0.1 angstrom, for which the first stencil is too wide, and a share of their forces."""
    wave, height = 60.0, 0.2  # 1/angstrom, eV
    x = batch.positions[:, 0].astype(float)
    energy = labels.energy + np.add.reduceat(height * np.sin(wave * x), batch.offsets[:-1])
    forces = labels.forces.astype(float)
    forces[:, 0] -= share * height * wave * np.cos(wave * x)
    return replace(labels, energy=energy, forces=forces.astype(np.float32))


SPOILS = {
    "stress of the other sign": (lambda x, b: replace(x, stress=-x.stress), "stress against dE/dstrain"),
    "stress in GPa": (lambda x, b: replace(x, stress=x.stress * np.float32(160.2177)), "stress against dE/dstrain"),
    "stress as xx yy zz xy xz yz": (lambda x, b: replace(x, stress=x.stress[:, [0, 1, 2, 5, 4, 3]]), "stress"),
    "forces of the other sign": (lambda x, b: replace(x, forces=-x.forces), "forces against -dE/dx"),
    "forces in kcal/mol/A": (lambda x, b: replace(x, forces=x.forces * np.float32(23.06)), "forces against -dE/dx"),
    "energy per atom": (lambda x, b: wrong_energy(x, 1 / b.n_atoms), "supercell: energy"),
    "energy in float32": (lambda x, b: replace(x, energy=x.energy.astype(np.float32)), "shapes"),
    "forces in float64": (lambda x, b: replace(x, forces=x.forces.astype(np.float64)), "shapes"),
    "forces that know north": (tilted, "rotated: forces"),
    "changes its input": (nudge, "input is not changed"),
    "depends on its neighbours in the batch": (depends_on_the_batch, "one by one: energy"),
    "labels what it does not know": (
        lambda x, b: replace(
            x, ok=np.ones(len(b), bool), energy=np.nan_to_num(x.energy), forces=np.nan_to_num(x.forces),
            reasons=("",) * len(b),
        ),
        "strange samples",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SPOILS)
def test_what_is_wrong_is_found(name):
    spoil, expected = SPOILS[name]
    frames = small("emt")
    strain = [[0.01, 0.02, 0], [0.02, -0.01, 0.01], [0, 0.01, 0]]
    frames[0].set_cell(frames[0].cell.array @ (np.eye(3) + strain), scale_atoms=True)
    bad = [one.name for one in failed(check(Spoiled(spoil), [*frames, *frames]))]
    assert any(one.startswith(expected) for one in bad), bad


class Signals:
    """EMT with atomic energies, something wrong with them, and other properties."""

    def __init__(self, spoil, **about):
        self.inner, self.spoil = ml.get_teacher("emt"), spoil
        self.info = replace(self.inner.info, **about)

    def label(self, batch):
        return self.label_with(batch, ())

    def label_with(self, batch, extra):
        labels = self.inner.label_with(batch, ("atomic_energies",))
        return replace(labels, more=self.spoil(labels.more["atomic_energies"], batch))

    def hessian_product(self, batch, probe):
        return self.info.widths.get("factor", 1) * from_forces(self.inner, batch, probe)[0]


SIGNALS = {
    "energies of a neighbour": (
        lambda e, b: {"atomic_energies": np.roll(e, 1)}, {}, "permuted atoms: atomic_energies",
    ),
    "energies without a part": (lambda e, b: {"atomic_energies": 0.9 * e}, {}, "atomic energies sum"),
    "energies in float32": (lambda e, b: {"atomic_energies": e.astype(np.float32)}, {}, "other properties"),
    "declared and never given": (lambda e, b: {}, {}, "other properties"),
    "given and not declared": (
        lambda e, b: {"atomic_energies": e, "charges": np.zeros(len(e), np.float32)}, {}, "other properties",
    ),
    "charges that do not add up": (
        lambda e, b: {"charges": np.full(len(e), 0.1, np.float32)},
        {"properties": ("energy", "forces", "stress", "charges"), "on_request": ()}, "charges sum to the charge",
    ),
    "an embedding with a direction": (
        lambda e, b: {"embedding": b.positions.astype(np.float32)}, {"on_request": ("embedding",)}, "rotated: embedding",
    ),
    "an embedding of another width": (
        lambda e, b: {"embedding": np.ones((len(e), 3), np.float32)},
        {"on_request": ("embedding",), "widths": {"embedding": 4}}, "other properties",
    ),
    "a Hessian in other units": (
        lambda e, b: {"atomic_energies": e}, {"widths": {"factor": 97}}, "Hessian-vector product against dF/dx",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIGNALS)
def test_what_is_wrong_with_a_property_is_found(name):
    spoil, about, expected = SIGNALS[name]
    bad = [one.name for one in failed(check(Signals(spoil, **about), small("emt")))]
    assert any(one.startswith(expected) for one in bad), bad


@pytest.mark.parametrize(("share", "passed"), [(1.0, True), (0.9, False)])
def test_a_rough_energy_is_no_wrong_force(share, passed):
    checks = check(Spoiled(lambda labels, batch: ripple(labels, batch, share)), small("emt"))
    line = next(one for one in checks if one.name == "forces against -dE/dx")
    assert line.passed is passed
    # Half the step leaves a sixteenth of the stencil's error; a tenth of the force stays missing at any step.
    assert ("since 0.01 left" in line.note) is passed


def test_what_cannot_be_checked_is_named():
    checks = check(
        Signals(lambda e, b: {"embedding": np.ones((len(e), 2), np.float32)}, on_request=("embedding",)), small("emt")
    )
    line = {one.name: one for one in checks}["values of embedding"]
    assert failed(checks) == []
    assert line.passed is None
    assert np.isnan(line.figure)


def test_forces_that_are_no_gradient_are_reported_not_judged():
    teacher = Spoiled(lambda x, b: replace(x, forces=x.forces + np.float32(0.3)))
    teacher.info = replace(teacher.info, conservative=False)
    checks = {one.name: one for one in check(teacher, small("emt"))}
    assert checks["forces against -dE/dx"].passed is None
    assert checks["forces against -dE/dx"].figure > 0.05


def test_a_teacher_that_knows_none_of_the_structures_says_so():
    teacher = ml.get_teacher("emt")
    teacher._info = replace(teacher.info, elements=frozenset({92}))
    with pytest.raises(TeacherError, match="give samples="):
        default_samples(teacher.info)
    with pytest.raises(TeacherError, match="refused the samples, sample 0: emt does not know Cu"):
        check(teacher, small("emt"))


def test_command_line():
    from tests.command import cli

    done = cli("teachers", "check", "emt")
    assert "all checks passed" in done.stdout
    assert "did you mean" in cli("teachers", "check", "emd", code=2).stderr

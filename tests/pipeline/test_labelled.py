"""What becomes of the labels that structures bring from their generator."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.build import molecule

import mlffstore as ml
from mlffstore.contracts.protocols import Generated
from mlffstore.contracts.registry import shared_teacher
from mlffstore.pipeline.task import labelled

pytest.importorskip("tblite")

METALS = {"name": "crystals", "elements": ["Cu", "Ni"], "elemental": 1.0, "min_atoms": 1, "max_atoms": 4}


def test_frames_that_come_with_labels_get_what_their_teacher_gives_beside_them():
    """Dynamics and relaxations bring energy and forces; charges and dipoles are not lost for that."""
    teacher = ml.get_teacher("gfn2-xtb")
    frames = [molecule("H2O"), molecule("NH3")]
    for frame in frames:
        frame.rattle(0.03, seed=1)
    bare = ml.SampleBatch.from_ase(frames).astype("float32")  # as it is stored
    own = teacher.label(bare)
    calls = Counter()
    brought = bare.with_labels("gfn2-xtb", energy=own.energy, forces=own.forces)
    batch, labels = labelled(teacher, Generated(brought, {}, teacher.info), "float32", calls)
    assert calls == {"gfn2-xtb": 2}
    for name in ("charges", "dipole"):
        np.testing.assert_array_equal(batch.label(name), own.more[name])
        np.testing.assert_array_equal(labels.more[name], own.more[name])
    # With all of it, only what lacks an energy is labelled, and only there numbers are filled in.
    whole = {"energy": own.energy.copy(), "forces": own.forces, **own.more}
    whole["energy"][1] = np.nan
    calls = Counter()
    again, labels = labelled(
        teacher, Generated(bare.with_properties("gfn2-xtb", whole), {}, teacher.info), "float32", calls
    )
    assert calls == {"gfn2-xtb": 1}
    assert labels.ok.all()
    np.testing.assert_allclose(again.energy, own.energy, atol=1e-9)
    np.testing.assert_allclose(again.label("charges"), own.more["charges"], atol=1e-6)


SAMPLERS = {
    "dynamics": ("md", {"seeds": METALS, "equilibration_fs": 6, "interval_fs": 6, "distance": 0.0, "frames": 3}),
    "relaxation": (
        "rattle",
        {
            "seeds": {"name": "relaxed", "seeds": METALS, "steps": 4, "force": 50, "pressure": 500},
            "frames": 3,
            "path": 2,
        },
    ),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_structure_is_labelled_twice(sampler, monkeypatch):
    """All that the teacher said while structures were made is kept, and what is counted is what it was asked."""
    pytest.importorskip("chgnet")
    teacher, seen = shared_teacher("chgnet", {}), []
    label = teacher.label
    monkeypatch.setattr(teacher, "label", lambda batch: seen.extend(batch.content_hash.tolist()) or label(batch))
    name, options = SAMPLERS[sampler]
    if sampler == "dynamics":
        options = {**options, "teacher": "chgnet"}
    generated = ml.get_generator(name, **options).generate(np.random.default_rng(3), 6)
    assert set(generated.batch.labels["chgnet"]) == {*teacher.info.properties}
    calls = Counter(generated.calls)
    batch, labels = labelled(teacher, generated, "float32", calls)
    assert labels.ok.all()
    assert calls == {"chgnet": len(seen)}
    assert len(set(seen)) == len(seen)
    monkeypatch.undo()
    again = teacher.label(batch.structures())
    np.testing.assert_allclose(batch.label("magmoms"), again.more["magmoms"], atol=1e-3)
    np.testing.assert_allclose(batch.label("stress"), again.stress, atol=1e-3)

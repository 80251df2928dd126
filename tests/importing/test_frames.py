"""The fast parser of extended XYZ reads what ASE reads, and several processes what one reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ase.io
import numpy as np
import pytest

import mlffstore as ml
from mlffstore.errors import DataError
from mlffstore.importing.frames import cut_frames, parse_frames
from tests.importing.test_fields import frames
from tests.samples import metal_frames

if TYPE_CHECKING:
    from pathlib import Path

_ODD = [
    '2\nProperties=species:S:1:pos:R:3 name="two words" flag=T n=3 list="1 2 3" half="1 2.5" j="_JSON [1, 2]"\n'
    "H 0 0 0\nh 0 0 1\n",
    "1\n\nO 0 0 0\n",
    "1\nLattice=\"9 0 0 0 9 0 0 0 9\" Properties=species:S:1:pos:R:3:Z:I:1 pbc=\"T T F\"\nO 0 0 0 8\n",
    "1\nProperties=species:S:1:pos:R:3 virial=\"1 2 3 2 5 6 3 6 9\" uid=00123 k='a b' m=[1, 2] b={x}\nO 0 0 0\n",
    "1\nProperties=species:S:1:pos:R:3:move_mask:L:1 free_energy=-1.0 energy=-2 dipole=\"1 2 3\"\nO 0 0 0 F\n",
]  # fmt: skip


def alike(ours: ase.Atoms, theirs: ase.Atoms) -> None:
    """Compare everything that a frame holds, types included."""
    held = [
        {
            **{("info", k): v for k, v in one.info.items()},
            **{("arrays", k): v for k, v in one.arrays.items()},
            **{("results", k): v for k, v in (one.calc.results if one.calc else {}).items()},
            "cell": one.cell.array,
            "pbc": one.pbc,
            "constraints": str(one.constraints),
        }
        for one in (ours, theirs)
    ]
    assert held[0].keys() == held[1].keys()
    for name, value in held[1].items():
        mine = held[0][name]
        assert np.asarray(mine).dtype == np.asarray(value).dtype, name
        np.testing.assert_array_equal(mine, value, err_msg=str(name))


@pytest.mark.parametrize("seed", range(3))
def test_frames_are_those_of_ase(tmp_path: Path, seed: int) -> None:
    given = frames(np.random.default_rng(seed), 20)
    for atoms in given:
        atoms.set_constraint()
    path = tmp_path / "a.extxyz"
    ase.io.write(path, given)
    path.write_text(path.read_text() + "".join(_ODD))
    with path.open("rb") as file:
        ours = [atoms for _, texts in cut_frames(file, 7) for atoms in parse_frames(texts)]
    theirs = list(ase.io.iread(path, format="extxyz"))
    assert len(ours) == len(theirs) == 20 + len(_ODD)
    for one, other in zip(ours, theirs, strict=True):
        alike(one, other)


def test_a_shifted_row_is_not_taken_for_another(tmp_path: Path) -> None:
    path = tmp_path / "a.extxyz"
    path.write_text("2\nProperties=species:S:1:pos:R:3\nH 0 0\nH 0 0 1 2\n")
    with pytest.raises(DataError, match="frame 0: expected extxyz"):
        ml.import_files(path, tmp_path / "s", require=())


@pytest.mark.parametrize("root", ["sample", "file", "info:seed"])
def test_processes_read_what_one_reads(tmp_path: Path, root: str) -> None:
    given = metal_frames(60)
    for i, atoms in enumerate(given):
        atoms.info |= {"seed": i // 6, "step": i}
        if i % 9 == 0:
            atoms.info["odd"] = "a b"
    ase.io.write(tmp_path / "a.extxyz", given)
    reports, batches = [], []
    for workers in (1, 2):
        reports.append(ml.import_files(
            tmp_path / "a.extxyz", tmp_path / f"{workers}", batch_samples=13, workers=workers, root=root, columns=["step"]
        ))  # fmt: skip
        batches.append(ml.open(tmp_path / f"{workers}").snapshot().read())
    assert [(r.samples, r.keys, r.warnings) for r in reports[:1]] == [
        (r.samples, r.keys, r.warnings) for r in reports[1:]
    ]
    one, two = batches
    for name in ("content_hash", "root", "energy", "forces"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.columns["step"], two.columns["step"])


def test_an_error_of_a_process_names_the_frame(tmp_path: Path) -> None:
    given = metal_frames(60)
    given[40].positions[0] = np.nan
    ase.io.write(tmp_path / "b.extxyz", given)
    with pytest.raises(DataError, match=r"frame 40: expected finite positions"):
        ml.import_files(tmp_path / "b.extxyz", tmp_path / "t", batch_samples=13, workers=2)

"""Conversion between lists of ASE frames and flat columns.

An ASE frame is one Python object, so this module loops over frames; no other code of the core does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data import electrons
from mlffstore.data.electrons import lowest_multiplicity
from mlffstore.data.labels import choose_teacher
from mlffstore.data.masks import user_rows, without_mask
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import CODED, LABELS, Array
from mlffstore.data.vocabulary import UNKNOWN
from mlffstore.errors import DataError, TeacherError, problems_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from mlffstore.data.columns import SampleColumns
    from mlffstore.data.schema import Column


def gather(
    frames: Sequence[Atoms],
    *,
    teacher: str,
    labels: Sequence[Mapping[str, Any]] | None = None,
    states: Sequence[tuple[int | None, int | None]] | None = None,
) -> dict[str, Any]:
    """Return the keyword arguments of `SampleBatch` for these frames. See `SampleBatch.from_ase`.

    Parameters
    ----------
    frames : sequence of ase.Atoms
    teacher : str
        Name of the teacher that made the labels.
    labels : sequence of mapping, optional
        Labels of each frame by name, instead of the results of its calculator.
    states : sequence of (int or None, int or None), optional
        Charge and multiplicity of each frame, None for what is not known, instead of those in its `info`.

    Raises
    ------
    DataError
        If a frame is not an `ase.Atoms`, has no atoms, or has labels of the wrong shape; every problem is listed.
    """
    from ase import Atoms

    problems = [
        f"sample {i}: expected ase.Atoms with at least one atom, got {type(frame).__name__}"
        + (" without atoms" if isinstance(frame, Atoms) else "")
        for i, frame in enumerate(frames)
        if not (isinstance(frame, Atoms) and len(frame))
    ]
    if labels is not None and len(labels) != len(frames):
        problems.append(f"labels: expected one mapping per frame ({len(frames)}), got {len(labels)}")
    if problems or not frames:
        raise DataError(problems_message("these frames cannot be stored:", problems or ["expected frames, got none"]))
    n_atoms = np.array([len(frame) for frame in frames])
    results = labels if labels is not None else [getattr(f.calc, "results", None) or {} for f in frames]
    columns = {name: _label(name, results, n_atoms, problems) for name in LABELS}
    if states is None:
        states = _electrons(frames, problems)
    charge, multiplicity = zip(*states, strict=True)
    if problems:
        raise DataError(problems_message("these frames cannot be stored:", problems))
    arguments: dict[str, Any] = {
        "n_atoms": n_atoms,
        "numbers": np.concatenate([frame.numbers for frame in frames]),
        "positions": np.concatenate([frame.positions for frame in frames]),
        "cell": np.stack([np.asarray(frame.cell) for frame in frames]),
        "pbc": np.stack([frame.pbc for frame in frames]),
        "labels": {teacher: given} if (given := {k: v for k, v in columns.items() if v is not None}) else None,
    }
    known_charge = [value or 0 for value in charge]
    if any(value is not None for value in charge):
        arguments["charge"] = known_charge
    if any(value is not None for value in multiplicity):
        lowest = lowest_multiplicity(arguments["numbers"], np.array(known_charge), offsets(n_atoms)).tolist()
        arguments["multiplicity"] = [
            least if value is None else value for value, least in zip(multiplicity, lowest, strict=True)
        ]
    return arguments


def _label(name: str, results: Sequence[Mapping[str, Any]], n_atoms: Array, problems: list[str]) -> Array | None:
    """Return one label of all frames, NaN where a frame has none; None if no frame has it."""
    from ase.stress import full_3x3_to_voigt_6_stress

    if not any(result.get(name) is not None for result in results):
        return None
    spec = LABELS[name]
    parts = []
    for i, (result, n) in enumerate(zip(results, n_atoms, strict=True)):
        shape = (int(n), *spec.shape) if spec.axis == "atom" else (1, *spec.shape)
        value = result.get(name)
        if value is None:
            parts.append(np.full(shape, np.nan))
            continue
        array = np.asarray(value, dtype=np.float64)
        if name == "stress" and array.shape == (3, 3):
            array = full_3x3_to_voigt_6_stress(array)
        if array.size != np.prod(shape) or array.shape not in (shape, shape[1:]):
            wanted = shape if spec.axis == "atom" else shape[1:]
            problems.append(f"sample {i}: expected {name} of shape {wanted}, got {array.shape}")
            array = np.full(shape, np.nan)
        parts.append(array.reshape(shape))
    return np.concatenate(parts)


def _electrons(frames: Sequence[Atoms], problems: list[str]) -> list[tuple[int | None, int | None]]:
    """Return charge and multiplicity from every frame's `info`, None where it does not give them."""
    states: list[tuple[int | None, int | None]] = []
    for i, frame in enumerate(frames):
        named = [(name, value) for name, value in frame.info.items() if electrons.role(name)]
        try:
            states.append(electrons.resolve(named) if named else (None, None))
        except ValueError as error:
            problems.append(f"sample {i}, info: {error}")
            states.append((None, None))
    return states


def scatter(batch: SampleColumns, teacher: str | None) -> list[Atoms]:
    """Return a batch as ASE frames. See `SampleBatch.to_ase`."""
    from ase import Atoms
    from ase.calculators.singlepoint import SinglePointCalculator

    if teacher is not None:
        choose_teacher(batch.teachers, teacher)
    candidates = (teacher,) if teacher is not None else batch.teachers
    starts = batch.offsets.tolist()
    user = [(column, *user_rows(batch, column)) for column in batch.user.values()]
    frames = []
    for i in range(len(batch)):
        atoms_slice = slice(starts[i], starts[i + 1])
        atoms = Atoms(
            numbers=batch.numbers[atoms_slice],
            positions=batch.positions[atoms_slice].astype(np.float64),
            cell=batch.cell[i],
            pbc=batch.pbc[i],
            info={"charge": int(batch.charge[i]), "multiplicity": int(batch.multiplicity[i]), **_origin(batch, i)},
        )
        for column, values, mask in user:
            rows = atoms_slice if column.axis == "atom" else slice(i, i + 1)
            _put(atoms, column, values[rows], mask[rows])
        by_teacher = {}
        for name in candidates:
            results = _results(batch, name, i, atoms_slice)
            if results:
                by_teacher[name] = results
        if len(by_teacher) > 1:
            raise TeacherError(
                f"sample {i} has labels of several teachers ({', '.join(by_teacher)}), and their energies have different "
                "zeros: choose one with teacher=..."
            )
        for name, results in by_teacher.items():
            atoms.info["teacher"] = name
            atoms.calc = SinglePointCalculator(atoms, **results)
            atoms.calc.name = name
        frames.append(atoms)
    return frames


def _origin(batch: SampleColumns, i: int) -> dict[str, str]:
    """Return those of root, source and sampler of a sample that are known."""
    out = {name: batch.vocabulary[name][int(batch.columns[name][i])] for name in CODED if name in batch.columns}
    out = {name: word for name, word in out.items() if word != UNKNOWN}
    if "root" in batch.columns:  # with a letter in front: sixteen digits could pass for a number
        out["root"] = f"x{int(batch.columns['root'][i]):016x}"
    return out


def _put(atoms: Atoms, column: Column, values: Array, mask: Array) -> None:
    """Set a user column in a frame, unless the sample has no value there."""
    rows = without_mask(column.name, values, mask)
    if rows is None:
        return
    if column.axis == "atom":
        atoms.arrays[column.name] = rows.copy()
    else:
        atoms.info[column.name] = rows[0].copy() if rows.ndim > 1 else rows[0].item()


def _results(batch: SampleColumns, teacher: str, i: int, atoms_slice: slice) -> dict[str, Any]:
    """Return the labels that one sample has, as results of an ASE calculator."""
    out: dict[str, Any] = {}
    for name, array in batch.labels[teacher].items():
        value = array[atoms_slice] if LABELS[name].axis == "atom" else array[i]
        if not np.isnan(value).all():
            out[name] = float(value) if name == "energy" else value.astype(np.float64)
    return out

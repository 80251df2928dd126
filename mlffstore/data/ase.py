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
from mlffstore.data.properties import known_properties, ordered
from mlffstore.data.ragged import offsets
from mlffstore.data.schema import CODED, Array
from mlffstore.data.vocabulary import UNKNOWN
from mlffstore.data.voigt import symmetric
from mlffstore.errors import DataError, TeacherError, problems_message

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ase import Atoms

    from mlffstore.data.columns import SampleColumns
    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Column

#: Properties whose results ASE calls by other names.
_ASE_NAMES = {"atomic_energies": "energies"}
#: Results of ASE calculators that are properties, by the name of the property.
IN_RESULTS = {name: _ASE_NAMES.get(name, name)
              for name in ("energy", "forces", "stress", "atomic_energies", "charges", "magmoms", "dipole")}  # fmt: skip


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
        If a frame is not an `ase.Atoms`, has no atoms, has a calculator with results of another structure, or has labels of
        the wrong shape; every problem is listed.
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
    known = known_properties()
    for i, result in enumerate(labels or ()):
        if unknown := [str(name) for name in result if name not in known]:
            problems.append(f"sample {i}, labels: expected {', '.join(known)}, got {', '.join(unknown)}")
    if problems or not frames:
        raise DataError(problems_message("these frames cannot be stored:", problems or ["expected frames, got none"]))
    n_atoms = np.array([len(frame) for frame in frames])
    apart = {name: one for name, one in known.items() if name not in IN_RESULTS}
    if labels is None:
        _refuse_others_results(frames)
    results = labels if labels is not None else [_labels_of(frame, apart) for frame in frames]
    given = {name for result in results for name, value in result.items() if value is not None and name in known}
    columns = {name: _label(known[name], results, n_atoms, problems) for name in ordered(given)}
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
        "labels": {teacher: columns} if columns else None,
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


def _refuse_others_results(frames: Sequence[Atoms]) -> None:
    """Raise `DataError` if the calculator of a frame holds results of another structure.

    ASE compares structures before it computes, and not where results are read.
    """
    problems = [f"sample {i}: {text}" for i, frame in enumerate(frames) if (text := _difference(frame))]
    if problems:
        raise DataError(
            problems_message(
                "these frames cannot be stored, since their calculators hold results of other structures. A calculator that "
                "several frames share holds those of the last one: give each frame a SinglePointCalculator with its own "
                "results (ase.calculators.singlepoint). If frames were changed after the calculation, compute again:",
                problems,
            )
        )


def _difference(frame: Atoms) -> str:
    """Return how a frame differs from the structure of the results of its calculator, "" if it does not."""
    from ase import Atoms

    calc = frame.calc
    computed = getattr(calc, "atoms", None)
    # Not every object with results says which structure they are of.
    if computed is frame or not isinstance(computed, Atoms) or not getattr(calc, "results", None):
        return ""
    if len(computed) != len(frame):
        return f"expected results for its {len(frame)} atoms, got those of a structure of {len(computed)} atoms"
    pairs = {
        "numbers": (frame.numbers, computed.numbers),
        "positions": (frame.positions, computed.positions),
        "pbc": (frame.pbc, computed.pbc),
    }
    if frame.pbc.any():  # the cell of a molecule means nothing and is not stored
        pairs["cell"] = (frame.cell.array, computed.cell.array)
    # Equal bytes are the usual case, and take a tenth of the time.
    others = [name for name, (a, b) in pairs.items() if a.tobytes() != b.tobytes() and not np.array_equal(a, b)]
    return f"expected results for its structure, got those for other {', '.join(others)}" if others else ""


def _labels_of(frame: Atoms, apart: Mapping[str, Property]) -> dict[str, Any]:
    """Return the labels that a frame holds: results of its calculator, and `apart`, which ASE does not know, beside them."""
    results = getattr(frame.calc, "results", None) or {}
    out = {name: results[ase_name] for name, ase_name in IN_RESULTS.items() if ase_name in results}
    for name, spec in apart.items():
        place = frame.arrays if spec.axis == "atom" else frame.info
        if name in place or name in results:
            out[name] = place.get(name, results.get(name))
    return out


def _label(spec: Property, results: Sequence[Mapping[str, Any]], n_atoms: Array, problems: list[str]) -> Array:
    """Return one label of all frames, NaN where a frame has none."""
    from ase.stress import full_3x3_to_voigt_6_stress

    arrays: list[Array | None] = []
    for i, result in enumerate(results):
        value = result.get(spec.name)
        array = None if value is None else np.asarray(value)
        if array is not None and array.dtype != np.float16:
            array = array.astype(np.float64)
        if array is not None and spec.shape == ("voigt",) and array.shape == (3, 3):
            try:
                array = full_3x3_to_voigt_6_stress(symmetric(array, spec.name))
            except ValueError as error:
                problems.append(f"sample {i}: {error}")
                array = np.full(6, np.nan)
        arrays.append(array)
    rank = len(spec.sizes)
    # A width that the property leaves open is that of the first frame.
    first = next(array for array in arrays if array is not None)
    tail = first.shape[-rank:] if rank else ()
    inner = tuple(size or n for size, n in zip(spec.sizes, tail, strict=True)) if len(tail) == rank else ()
    parts = []
    for i, (array, n) in enumerate(zip(arrays, n_atoms, strict=True)):
        shape = (int(n), *inner) if spec.axis == "atom" else (1, *inner)
        if array is None:
            array = np.full(shape, np.nan, first.dtype)
        elif len(inner) != rank or array.size != np.prod(shape) or array.shape not in (shape, shape[1:]):
            wanted = shape if spec.axis == "atom" else shape[1:]
            problems.append(f"sample {i}: expected {spec.name} of shape {wanted}, got {array.shape}")
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
            _put(atoms, column, values[rows], mask[rows], batch.vocabulary.get(column.name, ()))
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
            atoms.calc = SinglePointCalculator(
                atoms, **{IN_RESULTS[key]: value for key, value in results.items() if key in IN_RESULTS}
            )
            atoms.calc.name = name
            for key in (key for key in results if key not in IN_RESULTS):
                place = atoms.arrays if batch.property_of(key).axis == "atom" else atoms.info
                place[key] = results[key]
        frames.append(atoms)
    return frames


def _origin(batch: SampleColumns, i: int) -> dict[str, str]:
    """Return those of root, source and sampler of a sample that are known."""
    out = {name: batch.vocabulary[name][int(batch.columns[name][i])] for name in CODED if name in batch.columns}
    out = {name: word for name, word in out.items() if word != UNKNOWN}
    if "root" in batch.columns:  # with a letter in front: sixteen digits could pass for a number
        out["root"] = f"x{int(batch.columns['root'][i]):016x}"
    return out


def _put(atoms: Atoms, column: Column, values: Array, mask: Array, words: Sequence[str]) -> None:
    """Set a user column in a frame, unless the sample has no value there; an atom without a string gets an empty one."""
    if column.coded:
        if mask.any():
            text = [words[code] if there else "" for code, there in zip(values.tolist(), mask.tolist(), strict=True)]
            if column.axis == "atom":
                atoms.arrays[column.name] = np.array(text)
            else:
                atoms.info[column.name] = text[0]
        return
    rows = without_mask(column.name, values, mask)
    if rows is None:
        return
    if column.axis == "atom":
        atoms.arrays[column.name] = rows.copy()
    else:
        atoms.info[column.name] = rows[0].copy() if rows.ndim > 1 else rows[0].item()


def _results(batch: SampleColumns, teacher: str, i: int, atoms_slice: slice) -> dict[str, Any]:
    """Return the labels that one sample has, by property."""
    out: dict[str, Any] = {}
    for name, array in batch.labels[teacher].items():
        value = array[atoms_slice] if batch.property_of(name).axis == "atom" else array[i]
        if not np.isnan(value).all():
            out[name] = (
                float(value) if value.ndim == 0 else value.astype(np.float64) if name in IN_RESULTS else value.copy()
            )
    return out

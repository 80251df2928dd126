"""Extended XYZ, as ASE reads it: train.extxyz, val.extxyz and test.extxyz in a folder.

ASE's own writer keeps eight decimals, 32 bits of integers and no backslash; this one writes what ASE's reader gives back
unchanged, and names what it cannot.
"""

from __future__ import annotations

import itertools
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.labels import choose_teacher
from mlffstore.release.selection import select
from mlffstore.runtime.paths import local_path
from mlffstore_exporters.folder import new_folder, parts, tell_left_out
from mlffstore_exporters.meanings import ase_frames

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ase import Atoms

    from mlffstore.data.schema import Array
    from mlffstore.store.samples import Samples

#: Names that the format, or ASE's reader of it, gives a meaning of its own.
_RESERVED = frozenset(
    (
        "Lattice", "Properties", "virial", "species", "pos", "symbols", "Z", "move_mask",
        *map("".join, itertools.product("uU", "iI", "dD")),
    )
)  # fmt: skip
#: Words that the reader takes for truth values.
_TRUTH = frozenset(["T", "F", "true", "false", "True", "False", "TRUE", "FALSE"])
#: Results with a row for each atom.
_PER_ATOM = frozenset(["forces", "energies", "charges", "magmoms"])
_INT32 = np.iinfo(np.int32)
#: Integers up to this are exact as float64.
_EXACT = 2**53


def export_extxyz(
    snapshot: Samples,
    path: str | os.PathLike[str],
    *,
    teacher: str | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write the samples that a teacher labelled as extended XYZ.

    Parameters
    ----------
    snapshot : Samples
    path : path
        A new folder for one file per split.
    teacher : str, optional
        Teacher whose labels are used. It is required if there are several.
    progress : callable, optional
        It is called with the number of samples written so far and the number of all samples.

    Returns
    -------
    Path

    Notes
    -----
    Units and signs are ASE's, which are ours. Numbers have as many digits as reading them back unchanged takes. Charge (e),
    multiplicity, root, source, sampler and user columns of samples are in the comment line, user columns of atoms beside the
    positions; a row of more than one dimension is written flat. A label that a sample lacks is not written. Columns that
    ASE's reader would change (integers beyond 2^53 for each atom) or take for something else (`Lattice`, `dipole`, `spin`)
    are left out with a warning.
    """
    teacher_name, target = choose_teacher(snapshot.teachers, teacher), local_path(path)
    left_out: dict[str, str] = {}
    with new_folder(target) as folder:
        for split, _, batch in parts(snapshot, select(snapshot, (teacher_name,)), teacher_name, progress):
            with (folder / f"{split}.extxyz").open("a", encoding="utf-8") as file:
                file.writelines(
                    frame_text(frame, left_out) for frame in ase_frames(batch, teacher_name, left_out, _RESERVED)
                )
    tell_left_out("extxyz", left_out)
    return target


def frame_text(frame: Atoms, left_out: dict[str, str]) -> str:
    """Return one frame as text.

    Parameters
    ----------
    frame : ase.Atoms
    left_out : dict of str to str
        What could not be written is added, name -> reason.
    """
    from ase.stress import voigt_6_to_full_3x3_stress

    results = {} if frame.calc is None else frame.calc.results
    info, arrays = {}, {"pos": frame.positions}
    for name, value in results.items():
        if name in _PER_ATOM:
            arrays[name] = value
        elif name == "stress":
            info[name] = voigt_6_to_full_3x3_stress(value).reshape(9)
        else:
            info[name] = value
    for source, target in ((frame.info, info), (frame.arrays, arrays)):
        for name in (name for name in source if name not in ("numbers", "positions")):
            reason = _unreadable(name, source[name], arrays) if target is arrays else ""
            if reason:
                left_out[name] = reason
            else:
                target[name] = source[name]
    properties, formats, columns = ["species:S:1"], ["%s"], [list(frame.symbols)]
    for name, array in arrays.items():
        flat = array.reshape(len(array), -1)
        kind, form, values = _column(flat)
        properties.append(f"{name}:{kind}:{flat.shape[1]}")
        formats += [form] * flat.shape[1]
        columns += values.T.tolist()
    comment = [f"Properties={':'.join(properties)}"]
    if frame.cell.array.any():
        comment.insert(0, f"Lattice={_quoted(' '.join(map(repr, frame.cell.array.ravel().tolist())))}")
    comment += [f"{name}={_value(value)}" for name, value in {**info, "pbc": frame.pbc}.items()]
    line = " ".join(formats) + "\n"
    rows = "".join(line % row for row in zip(*columns, strict=True))
    return f"{len(frame)}\n{' '.join(comment)}\n{rows}"


def _fields(name: str, array: Array) -> set[str]:
    """Return the names under which ASE's reader parses the columns of an array: it numbers several."""
    n_columns = array[:1].size
    return {name} if n_columns == 1 else {f"{name}{k}" for k in range(n_columns)}


def _unreadable(name: str, array: Array, others: Mapping[str, Array]) -> str:
    """Return why ASE's reader would not give back an array of the atoms beside others, or nothing."""
    for other, values in others.items():
        if (name.startswith(other) or other.startswith(name)) and _fields(name, array) & _fields(other, values):
            return f"ASE numbers the columns of {other!r}, which gives one of them the same name; rename it"
    if array.dtype.kind in "iu" and array.size and (array.max() > _EXACT or array.min() < -_EXACT):
        return "integers beyond 2^53"
    if array.dtype.kind == "U" and not all(re.fullmatch(r"[^\s\"\\]+", text) for text in np.unique(array)):
        return "strings that are empty or have blanks, for each atom"
    return "" if array.size else "rows without numbers"


def _column(array: Array) -> tuple[str, str, Array]:
    """Return the type letter of an array of the atoms, the format of a number, and what to format."""
    if array.dtype.kind == "U":
        return "S", "%s", array
    if array.dtype.kind == "b":
        return "L", "%s", np.where(array, "T", "F")
    if array.dtype.kind in "iu":  # the reader parses integers as 32 bits
        small = not array.size or (array.min() >= _INT32.min and array.max() <= _INT32.max)
        return ("I", "%d", array) if small else ("R", "%r", array.astype(np.float64))
    return "R", "%r", array.astype(np.float64)  # as few digits as give the same number back


def _value(value: Any) -> str:
    """Return a value of the comment line so that the reader gives it back with its type and shape."""
    if isinstance(value, str):
        if not value.isprintable() or _is_parsed(value):
            return _quoted(f"_JSON {json.dumps(value)}")
        return value if re.fullmatch(r"[\w.:+/-]+", value) else _quoted(value)
    array = np.asarray(value)
    fits = array.dtype.kind != "u" or not array.size or int(array.max()) <= np.iinfo(np.int64).max
    if fits and (array.ndim == 0 or (array.ndim == 1 and len(array) > 1)):
        if array.ndim and array.dtype.kind == "f":  # the reader makes float64 of several numbers
            array = array.astype(np.float64)
        text = " ".join(_scalar(value) for value in array.reshape(-1))
        return _quoted(text) if array.ndim else text
    return _quoted(f"_JSON {json.dumps(array.tolist())}")


def _is_parsed(text: str) -> bool:
    """Return whether ASE's reader would make numbers, truth values or JSON of a string."""
    words = re.findall(r"[^\s,]+", text)
    return text.startswith("_JSON ") or all(word in _TRUTH for word in words) or all(map(_is_number, words))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _scalar(value: Any) -> str:
    return ("T" if value else "F") if isinstance(value, np.bool_) else str(value)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

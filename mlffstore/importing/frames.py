"""Cuts an extended XYZ file into frames, and parses those of the common form several times faster than `ase.io`.

What is read is what ASE reads, but for comment lines, see `mlffstore.importing.comments`, and columns that no `Properties`
names, which ASE drops: the atoms of every frame that is not of the common form (an element and columns of real numbers for
each atom) are left to ASE itself.
"""

from __future__ import annotations

import functools
import io
import itertools
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from mlffstore.importing.comments import PROBLEM, read_comment

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ase import Atoms

#: Columns that ASE does more with than to keep them.
_SPECIAL = ("Z", "numbers", "tags", "move_mask", "initial_charges", "species", "born_effective_charges")
#: What ASE takes for results of a calculator: columns, keys, and those of the keys that are one number.
_RESULTS = frozenset(("energies", "forces", "stresses", "charges", "magmoms"))
_FRAME_RESULTS = frozenset(("energy", "free_energy", "stress", "dipole", "magmom", "polarization", "dielectric_tensor"))
_NUMBERS = frozenset(("energy", "free_energy", "magmom"))


def cut_frames(file: IO[bytes], size: int) -> Iterator[tuple[int, list[bytes]]]:
    """Yield the number of the first frame and the text of up to `size` frames, one after another.

    A frame begins with the number of its atoms; blank lines between frames are passed over. Where something else stands, the
    rest of the file is one piece, and `parse_frames` says what is wrong with it.
    """
    number, block = 0, list[bytes]()
    while head := file.readline():
        if _is_count(head.strip()):
            block.append(head + b"".join(itertools.islice(file, int(head) + 1)))
        elif head.strip():
            block.append(head + file.read())
        if len(block) == size:
            yield number, block
            number, block = number + len(block), []
    if block:
        yield number, block


def _is_count(word: bytes) -> bool:
    """Return whether this is a number of atoms: digits, and no more than a file could hold."""
    return word.isdigit() and len(word) < 13


def parse_frames(texts: Sequence[bytes]) -> Iterator[Atoms]:
    """Yield the structures of some frames; see `cut_frames`.

    Raises
    ------
    Exception
        Whatever a frame that is not extended XYZ in UTF-8 makes the parsers raise.
    """
    import ase.io

    for text in texts:
        head = text.partition(b"\n")[0].strip()
        if not _is_count(head):
            raise ValueError(
                f"expected the number of atoms in the first line, got {head[:40].decode(errors='replace')!r}"
            )
        atoms = _parse(text)
        if atoms is None:
            decoded = text.decode("utf-8")
            further, problem = _further_columns(decoded)
            atoms = ase.io.read(io.StringIO(decoded), index=0, format="extxyz", properties_parser=read_comment)
            for name, values in further.items():
                atoms.new_array(name, values)
            if problem:
                atoms.info[PROBLEM] = problem
        yield atoms


def _further_columns(text: str) -> tuple[dict[str, Any], str]:
    """Return what stands in the rows of a frame after the columns that ASE reads, and what is wrong with it.

    Of plain XYZ, the columns after the position as `column_5` and so on, or `remarks` if rows have different numbers of
    words.
    """
    head, *lines = text.split("\n")
    table = [row.split() for row in lines[1 : int(head) + 1]]
    properties = read_comment(lines[0]).get("Properties") if lines else None
    width = 4 if properties is None else sum(int(k) for k in str(properties).split(":")[2::3] if k.isdigit())
    longest = max(map(len, table), default=0)
    if longest <= width:
        return {}, ""
    if properties is not None:
        return {}, f"expected {width} values in each row, as Properties names, got {longest}; name them all there"
    if min(map(len, table)) < longest:
        return {"remarks": np.array([" ".join(row[width:]) for row in table])}, ""
    columns = {}
    for at in range(width, longest):
        words = [row[at] for row in table]
        try:
            columns[f"column_{at + 1}"] = np.array(list(map(float, words)))
        except ValueError:
            columns[f"column_{at + 1}"] = np.array(words)
    return columns, ""


def _parse(text: bytes) -> Atoms | None:
    """Return the structure of a frame of the common form, None for another."""
    from ase import Atoms

    head, _, rest = text.partition(b"\n")
    line, _, body = rest.partition(b"\n")
    info = read_comment(line.decode("utf-8"))
    form = _form(str(info.pop("Properties", "")))
    if form is None:
        return None
    width = 1 + sum(k for _, k in form)
    words, n = body.split(), int(head)
    if not n or len(words) != n * width:
        return None
    try:
        # A row that is too long or short puts a number in the place of an element.
        numbers = np.array([_number(word) for word in words[::width]])
        del words[::width]
        table = np.array(list(map(float, words))).reshape(n, width - 1)
    except (KeyError, ValueError):
        return None
    arrays: dict[str, Any] = {}
    at = 0
    for name, k in form:
        arrays[name] = np.ascontiguousarray(table[:, at] if k == 1 else table[:, at : at + k])
        at += k
    cell = info.pop("Lattice", None)
    pbc = info.pop("pbc", None if cell is None else True)
    atoms = Atoms(
        numbers=numbers, positions=arrays.pop("positions"), cell=None if cell is None else cell.T, pbc=pbc, info=info
    )
    _set_results(atoms, arrays)
    return atoms


class Results:
    """Results as ASE's calculators hold them. Theirs hold a copy of the atoms too, which takes as long as the parsing."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results


def _set_results(atoms: Atoms, arrays: dict[str, Any]) -> None:
    """Part columns and keys into results, arrays and info, as `ase.io.extxyz.set_calc_and_arrays` does."""
    results = {}
    for name, array in arrays.items():
        if name in _RESULTS:
            results[name] = array
        else:
            atoms.new_array(name, array)
    for key in _FRAME_RESULTS & atoms.info.keys():
        value = atoms.info.pop(key)
        if key == "stress" and np.shape(value) == (3, 3):
            value = np.array([value[i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))])
        results[key] = value if key in _NUMBERS else np.array(value, float)
    if results:
        atoms.calc = Results(results)


@functools.lru_cache(maxsize=256)
def _form(properties: str) -> tuple[tuple[str, int], ...] | None:
    """Return ASE's names and the widths of the columns after the element, None if some are not real numbers."""
    from ase.io.extxyz import REV_PROPERTY_NAME_MAP

    words = properties.split(":")
    if words[:3] != ["species", "S", "1"] or len(words) % 3 or len(words) == 3:
        return None
    out = []
    for name, kind, width in zip(words[3::3], words[4::3], words[5::3], strict=True):
        if kind != "R" or not width.isdigit() or int(width) < 1 or name in _SPECIAL:
            return None
        out.append((REV_PROPERTY_NAME_MAP.get(name, name), int(width)))
    names = [name for name, _ in out]
    return tuple(out) if ("positions", 3) in out and len(set(names)) == len(names) else None


@functools.lru_cache(maxsize=1024)
def _number(word: bytes) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[word.decode().capitalize()])

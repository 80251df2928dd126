"""Compiled loops over the records of the column cache. Import this module inside functions: numba takes a third of a second.

The interpreter's lock is not held in them, so that several threads gather batches side by side.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.core import cgutils, types
from numba.extending import intrinsic

from mlffstore.data.sample_row import first_number
from mlffstore.training.layout import ALIGN, extra_begin

#: Compiled once per machine: the result is kept beside this file.
_compiled: Any = numba.njit(nogil=True, cache=True)
#: Where the parts of rows and records begin. numba compiles them in, and discards its cache only when this file changes:
#: after a change of `mlffstore.data.sample_row` or `mlffstore.training.layout`, edit this file too.
_ENERGY, _CELL, _STRESS = first_number("energy"), first_number("cell"), first_number("stress")
_PBC, _CHARGE, _MULTIPLICITY = first_number("pbc"), first_number("charge"), first_number("multiplicity")
_extra_begin: Any = _compiled(extra_begin)


@intrinsic
def _copy_bytes(_context: Any, target: Any, to: Any, source: Any, at: Any, n: Any) -> Any:
    """Copy `n` bytes from byte `at` of an array to byte `to` of another, by the C library's memcpy.

    It moves rows of any width at the speed of memory; assigned slices reach half of that for float32, and a quarter for
    bytes.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target, to, source, at, n = arguments
        places = []
        for kind, array, offset in ((signature.args[0], target, to), (signature.args[2], source, at)):
            data = context.make_array(kind)(context, builder, array).data
            places.append(builder.gep(builder.bitcast(data, cgutils.voidptr_t), [offset]))
        cgutils.raw_memcpy(builder, *places, n, context.get_constant(types.int64, 1))
        return context.get_dummy_value()

    return types.void(target, types.int64, source, types.int64, types.int64), generate


@intrinsic
def _prefetch(_context: Any, source: Any, at: Any) -> Any:
    """Have the line of an array's memory with byte `at` loaded into the processor's cache, without waiting for it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, at = arguments
        data = context.make_array(signature.args[0])(context, builder, source).data
        place, ir = builder.gep(builder.bitcast(data, cgutils.voidptr_t), [at]), cgutils.ir
        i32 = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, i32, i32, i32])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [place.type], kind)
        builder.call(prefetch, [place, i32(0), i32(2), i32(1)])  # to read, from the second level on, data
        return context.get_dummy_value()

    return types.void(source, types.int64), generate


@_compiled
def _checksum(words: Any, start: int, stop: int) -> Any:
    """Return a checksum of 64-bit words: of their sum, and of their sum weighted by position, mixed.

    The loop has no chain of multiplications, so that it runs in vector registers, at the speed of memory. It finds
    accidents, not forgeries.
    """
    odd, half = np.uint64(0x9E3779B97F4A7C15), np.uint64(32)
    part, total, weighted = words[start:stop], np.uint64(0), np.uint64(0)
    for k in range(len(part)):
        total += part[k]
        weighted += part[k] * np.uint64(k)
    # The mix keeps a change of the highest bit, which both sums could show alike, from cancelling.
    total *= odd
    return ((total ^ (total >> half)) ^ weighted) * odd


@_compiled
def pack(begin: Any, starts: Any, positions: Any, forces: Any, numbers: Any, records: Any, as_bytes: Any) -> None:
    """Write samples as records: positions, forces if there are any, atomic numbers, one after another, then zeros.

    `records` and `as_bytes` are the same memory, as floats and as bytes; `begin` counts in floats and has one entry more
    than there are samples.
    """
    width = records.itemsize
    for s in range(len(starts) - 1):
        a, b = starts[s], starts[s + 1]
        at, n = begin[s], b - a
        records[at : at + 3 * n] = positions[3 * a : 3 * b]
        at += 3 * n
        if len(forces):
            records[at : at + 3 * n] = forces[3 * a : 3 * b]
            at += 3 * n
        as_bytes[at * width : at * width + n] = numbers[a:b]
        as_bytes[at * width + n : begin[s + 1] * width] = 0


@_compiled
def pack_extra(
    begin: Any, starts: Any, floats: int, width: int, offset: int, nbytes: int, values: Any, as_bytes: Any
) -> None:
    """Write a column with `nbytes` for each atom into the extra part of records, after `pack`.

    `values` and the records, `as_bytes`, are bytes; the rows of earlier columns take `offset` bytes for each atom. `begin`
    counts floats of `width` bytes.
    """
    for s in range(len(starts) - 1):
        n = starts[s + 1] - starts[s]
        to = begin[s] * width + _extra_begin(n, floats, width) + n * offset
        _copy_bytes(as_bytes, to, values, starts[s] * nbytes, n * nbytes)


@_compiled
def _sum_main(i: int, end: int, begin: Any, width: int, words: Any, rows: Any) -> Any:
    """Return the checksum of a record up to byte `end` of it and of its row."""
    first = begin[i] * width
    return _checksum(words, first // 8, (first + end) // 8) ^ _checksum(rows[i], 0, rows.shape[1])


@_compiled
def _sum_extra(i: int, end: int, begin: Any, width: int, words: Any, rows: Any) -> Any:
    """Return the checksum of a record from byte `end` of it on, and of its extra row."""
    first = begin[i] * width
    odd = np.uint64(0x9E3779B97F4A7C15)
    of_record = _checksum(words, (first + end) // 8, begin[i + 1] * width // 8)
    return (of_record * odd) ^ _checksum(rows[i], 0, rows.shape[1])


@_compiled
def sum_records(
    begin: Any, n_atoms: Any, floats: int, width: int, words: Any, rows: Any, extra_rows: Any, sums: Any, extra: Any
) -> None:
    """Write two checksums of each sample: to `sums` that of structure, energy, forces and stress, to `extra` of the rest.

    `words` is the memory of the records, `rows`, shape (S, 21), that of the rows (`mlffstore.data.sample_row`) and
    `extra_rows` that of the extra rows, all as uint64; `begin` counts floats of `width` bytes.
    """
    for s in range(len(sums)):
        end = _extra_begin(n_atoms[s], floats, width)
        sums[s] = _sum_main(s, end, begin, width, words, rows)
        extra[s] = _sum_extra(s, end, begin, width, words, extra_rows)


@_compiled
def _expect(at: int, end: int, low: int, high: int, as_bytes: Any, row: int, nbytes: int, rows: Any) -> None:
    """Have a record loaded: the first `end` bytes from byte `at` on, and bytes `low` to `high`; and its row of `nbytes`."""
    for c in range(at, at + end, ALIGN):
        _prefetch(as_bytes, c)
    for c in range(at + low, at + high, ALIGN):
        _prefetch(as_bytes, c)
    for c in range(row * nbytes, (row + 1) * nbytes, ALIGN):
        _prefetch(rows, c)


@_compiled
def gather(
    index: Any,
    batch_size: int,
    begin: Any,
    n_atoms: Any,
    records: Any,
    as_bytes: Any,
    rows: Any,
    numbers: Any,
    positions: Any,
    forces: Any,
    owner: Any,
    ptr: Any,
    counts: Any,
    energy: Any,
    cell: Any,
    stress: Any,
    pbc: Any,
    charge: Any,
    multiplicity: Any,
    words: Any,
    row_words: Any,
    sums: Any,
    checked: Any,
    floats: int,
    extra_rows: Any,
    extra_words: Any,
    extra_sums: Any,
    extra_checked: Any,
    flags: Any,
    of_atoms: Any,
    of_samples: Any,
    of_flags: Any,
    room: Any,
) -> Any:
    """Copy the records of samples to columns, in batches of `batch_size`: `owner` and `ptr` begin anew with each batch.

    Extra columns are copied to `room`, which is bytes: those of the atoms, of the samples, and the `flags`, shape (S, F).
    Each row of `of_atoms`, `of_samples` and `of_flags` is a column: its first byte in the extra part of a record for one
    atom (in the extra row, in the flags), its bytes for each row, and where it begins in `room`.

    Each sample is compared with its checksum when it is copied for the first time; `checked` marks those that are right,
    `extra_checked` those whose extra columns are right. The first one that is wrong is returned, or -1.
    """
    width, has_forces, has_stress = records.itemsize, len(forces) > 0, len(stress) > 0
    # A record is copied as it is unless batches have another floating dtype.
    same, extras = positions.itemsize == width, extra_rows.shape[1]
    a, first, which = 0, 0, 0
    # The bytes for each atom that the extra columns span in a record.
    span = of_atoms[:, 0].min() if len(of_atoms) else 0, (of_atoms[:, 0] + of_atoms[:, 1]).max() if len(of_atoms) else 0
    for k in range(len(index)):
        i, row = index[k], k % batch_size
        if row == 0:
            first, which = a, k // batch_size
            ptr[which, 0] = 0
        n, at = n_atoms[i], begin[i]
        if k + 1 < len(index):  # the next one, whose place no processor can guess
            j = index[k + 1]
            end = _extra_begin(n_atoms[j], floats, width)
            low, high = end + n_atoms[j] * span[0], end + n_atoms[j] * span[1]
            _expect(begin[j] * width, end, low, high, as_bytes, j, rows.shape[1] * rows.itemsize, rows)
        if same:
            _copy_bytes(positions, 3 * a * width, as_bytes, at * width, 3 * n * width)
        else:
            positions[3 * a : 3 * (a + n)] = records[at : at + 3 * n]
        at += 3 * n
        if has_forces:
            if same:
                _copy_bytes(forces, 3 * a * width, as_bytes, at * width, 3 * n * width)
            else:
                forces[3 * a : 3 * (a + n)] = records[at : at + 3 * n]
            at += 3 * n
        numbers[a : a + n] = as_bytes[at * width : at * width + n]
        owner[a : a + n] = row
        if len(of_atoms):
            start = begin[i] * width + _extra_begin(n, floats, width)
            for c in range(len(of_atoms)):
                nbytes = of_atoms[c, 1]
                _copy_bytes(room, of_atoms[c, 2] + a * nbytes, as_bytes, start + n * of_atoms[c, 0], n * nbytes)
        a += n
        counts[k] = n
        ptr[which, row + 1] = a - first
        energy[k] = rows[i, _ENERGY]
        for c in range(9):
            cell[k, c] = rows[i, _CELL + c]
        if has_stress:
            for c in range(6):
                stress[k, c] = rows[i, _STRESS + c]
        for c in range(3):
            pbc[k, c] = rows[i, _PBC + c] != 0
        charge[k] = int(rows[i, _CHARGE])
        multiplicity[k] = int(rows[i, _MULTIPLICITY])
        for c in range(len(of_samples)):
            nbytes = of_samples[c, 1]
            _copy_bytes(room, of_samples[c, 2] + k * nbytes, extra_rows, i * extras + of_samples[c, 0], nbytes)
        for c in range(len(of_flags)):
            room[of_flags[c, 2] + k] = flags[i, of_flags[c, 0]]
    # After the copies, in a loop of its own, which leaves the loop above as fast as without it.
    compare_extra = len(of_atoms) + len(of_samples) > 0
    for i in index:
        end = _extra_begin(n_atoms[i], floats, width)
        if not checked[i]:
            if _sum_main(i, end, begin, width, words, row_words) != sums[i]:
                return int(i)
            checked[i] = True
        if compare_extra and not extra_checked[i]:
            if _sum_extra(i, end, begin, width, words, extra_words) != extra_sums[i]:
                return int(i)
            extra_checked[i] = True
    return -1

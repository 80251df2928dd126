"""Vocabularies: the strings that a column of codes stands for, and codes of one vocabulary as codes of another.

A coded column (`mlffstore.data.schema.CODED`) holds small integers; its vocabulary is the tuple of strings that they
index. Segments, batches and files each have a vocabulary of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.casting import cast
from mlffstore.errors import DataError
from mlffstore.runtime.words import is_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.data.schema import Array

Words = tuple[str, ...]
#: The string for an origin that is not known.
UNKNOWN = "unknown"
#: Vocabulary of a coded column of which nothing is known.
UNKNOWN_ONLY: Words = (UNKNOWN,)
#: Largest vocabulary. The codes are uint32; the log entry of a commit, which holds the strings, ends long before.
MAX_WORDS = 1 << 24


def merge_words(vocabularies: Iterable[Sequence[str]]) -> Words:
    """Return all strings of several vocabularies, each once, in order of first appearance.

    Raises
    ------
    DataError
        If there are more than `MAX_WORDS`.

    Examples
    --------
    >>> merge_words([("md", "rattle"), ("relax", "md")])
    ('md', 'rattle', 'relax')
    """
    merged = tuple(dict.fromkeys(word for words in vocabularies for word in words))
    if len(merged) > MAX_WORDS:
        raise DataError(f"vocabulary: expected at most {MAX_WORDS} different strings, got {len(merged)}")
    return merged


def translate(codes: Array, words: Sequence[str], target: Sequence[str], where: str = "vocabulary") -> Array:
    """Return codes of one vocabulary as codes of another.

    Parameters
    ----------
    codes : ndarray, shape (rows,), uint32
        Indices into `words`.
    words : sequence of str
        The vocabulary of `codes`.
    target : sequence of str
        The vocabulary of the result; it contains every string of `words`.
    where : str, optional
        The place of the column, for the error message.

    Returns
    -------
    ndarray, shape (rows,), uint32
        `codes` itself if `target` begins with `words`.

    Raises
    ------
    DataError
        If a code has no string in `words`.

    Examples
    --------
    >>> translate(np.array([1, 0, 1], np.uint32), ("md", "rattle"), ("relax", "md", "rattle"))
    array([2, 1, 2], dtype=uint32)
    """
    if len(codes) and int(codes.max()) >= len(words):
        raise DataError(f"{where}: a code without a meaning; the store is damaged")
    if tuple(words) == tuple(target[: len(words)]):  # the usual case: the codes stay
        return codes
    index = {word: code for code, word in enumerate(target)}
    return np.array([index[word] for word in words] or [0], np.uint32)[codes]


def merge_codes(parts: Sequence[tuple[Array, Sequence[str]]]) -> tuple[Array, Words]:
    """Join coded columns whose vocabularies differ into one column with one vocabulary, in order of first appearance.

    Parameters
    ----------
    parts : sequence of (ndarray, sequence of str)
        For each part its codes, shape (rows,), uint32, and its vocabulary.

    Returns
    -------
    codes : ndarray, shape (all rows,), uint32
    words : tuple of str
    """
    merged = merge_words(dict.fromkeys(tuple(words) for _, words in parts))
    if all(tuple(words) == merged for _, words in parts):
        return np.concatenate([codes for codes, _ in parts]), merged
    return np.concatenate([translate(codes, words, merged) for codes, words in parts]), merged


def encode(words: Sequence[str]) -> tuple[Array, Words]:
    """Return one string per row as codes and their vocabulary, in order of first appearance.

    Examples
    --------
    >>> encode(["md", "rattle", "md"])
    (array([0, 1, 0], dtype=uint32), ('md', 'rattle'))
    """
    vocabulary = merge_words([words])
    index = {word: code for code, word in enumerate(vocabulary)}
    return np.array([index[word] for word in words], np.uint32), vocabulary


def coded_column(name: str, value: Any, n: int, problems: list[str]) -> tuple[Array, Words]:
    """Return a coded column from what a user may give for it.

    Parameters
    ----------
    name : str
        The column, for messages.
    value : str, sequence of str, or (codes, words)
        One string for all samples, one string per sample, or codes with their vocabulary.
    n : int
        Number of samples.
    problems : list of str
        What is wrong is added here; the column is then a placeholder.

    Returns
    -------
    codes : ndarray, shape (n,), uint32
    words : tuple of str
    """
    placeholder = np.zeros(n, np.uint32)
    if isinstance(value, str):
        return placeholder, (value,) if _texts(name, [value], problems) else UNKNOWN_ONLY
    if isinstance(value, tuple) and len(value) == 2 and not isinstance(value[0], str):
        codes, words = cast(name, value[0], "uint32", problems), tuple(str(word) for word in value[1])
        if codes.shape != (n,) or (n and int(codes.max()) >= len(words)):
            problems.append(f"{name}: expected {n} codes below {len(words)}, got shape {codes.shape}")
            return placeholder, UNKNOWN_ONLY
        return (codes, words) if _texts(name, words, problems) else (placeholder, UNKNOWN_ONLY)
    strings = list(value)
    if len(strings) != n or not all(isinstance(word, str) for word in strings):
        problems.append(f"{name}: expected one string per sample ({n}), got {len(strings)} entries")
        return placeholder, UNKNOWN_ONLY
    if not strings or not _texts(name, set(strings), problems):
        return placeholder, UNKNOWN_ONLY
    return encode(strings)


def _texts(name: str, words: Iterable[str], problems: list[str]) -> bool:
    """Return whether all strings of a column can be kept, and add a problem if not."""
    wrong = next((word for word in words if not is_text(word)), None)
    if wrong is not None:
        problems.append(f"{name}: expected text that is UTF-8 and has no NUL, got {wrong!r}")
    return wrong is None


def holds_strings(values: Any) -> bool:
    """Return whether what a user gives for a column are strings: any of them, None for what is missing.

    Where every row is missing they are strings too: numbers have NaN or a mask of their own dtype.
    """
    if isinstance(values, np.ma.MaskedArray):
        values = values.filled(None) if values.dtype.kind == "O" else values.data
    if isinstance(values, np.ndarray):
        return values.dtype.kind in "US" or (values.dtype.kind == "O" and _strings(values.flat))
    if isinstance(values, (str, bytes)) or not hasattr(values, "__len__"):
        return False
    return len(values) > 0 and _strings(values)


def _strings(values: Iterable[Any]) -> bool:
    """Return whether there is a string among some values, or nothing but None."""
    only_none = True
    for value in values:
        if isinstance(value, str):
            return True
        only_none = only_none and value is None
    return only_none


def encode_strings(name: str, values: Any, problems: list[str]) -> tuple[Array, Array | None, Words]:
    """Return a column of strings as codes, its mask, and its vocabulary.

    Parameters
    ----------
    name : str
        The column, for messages.
    values : sequence of str or None, or array of them
        None, or a masked value, stands for a row without a value.
    problems : list of str
        What is wrong is added here; the column is then a placeholder.

    Returns
    -------
    codes : ndarray, shape (rows,), uint32
        0 where there is no value.
    mask : ndarray, shape (rows,), bool, or None
        True where there is a value; None if all rows have one.
    words : tuple of str
    """
    hidden = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    array = np.asarray(values if hidden is None else values.data, dtype=object)
    if array.ndim != 1:
        problems.append(f"{name}: expected one string for each row, got shape {array.shape}")
        return np.zeros(len(array), np.uint32), None, ("",)
    # What is no UTF-8 gets lone surrogates, and is refused below.
    entries = [
        value.decode(errors="surrogateescape") if isinstance(value, bytes) else value for value in array.tolist()
    ]
    there = np.array([value is not None for value in entries], bool)
    if hidden is not None:
        there &= ~hidden
    wrong = [
        value for value, known in zip(entries, there.tolist(), strict=True) if known and not isinstance(value, str)
    ]
    if wrong:
        problems.append(f"{name}: expected strings, or None for a missing one, got {wrong[0]!r}")
        return np.zeros(len(array), np.uint32), None, ("",)
    words = merge_words([[value for value, known in zip(entries, there.tolist(), strict=True) if known]]) or ("",)
    if not _texts(name, words, problems):
        return np.zeros(len(array), np.uint32), None, ("",)
    index = {word: code for code, word in enumerate(words)}
    codes = np.array([index[v] if known else 0 for v, known in zip(entries, there.tolist(), strict=True)], np.uint32)
    return codes, None if there.all() else there, words


def flag_word(text: str) -> str:
    """Return a string as one word of CF `flag_meanings`, which are separated by blanks."""
    return "_".join(text.split()) or "_"

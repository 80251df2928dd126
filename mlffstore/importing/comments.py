"""Reads the comment line of an extended XYZ frame: keys and their values.

What is read is what `ase.io` reads, but for what that would change in silence: a key with an empty value keeps it and does
not swallow the next key, integers keep all their digits, ``1_000`` is a text, and `pbc` is truth values. A key that is given
twice with different values is an error.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np

from mlffstore.data.voigt import symmetric

#: A line without brackets, escapes and single quotes: keys with values, which are bare or in double quotes.
_PAIR = r"""[^\s="'\[\]{}\\]+=(?:"[^"\\]*"|[^\s="'\[\]{}\\,]+)"""
_PLAIN = re.compile(rf"\s*{_PAIR}(?:\s+{_PAIR})*\s*")
_PAIRS = re.compile(r"""([^\s="]+)=(?:"([^"]*)"|(\S+))""")
#: Blanks, an equals sign, and parts of words: an escaped character, what is in quotes or brackets, which may end with the
#: line, and other characters.
_PIECE = re.compile(
    r"""(?P<blanks>\s+)|(?P<equals>=)|\\(?P<escaped>.?)|"(?P<double>(?:\\.|[^"\\])*)"?|'(?P<single>(?:\\.|[^'\\])*)'?"""
    r"""|\{(?P<brace>(?:\\.|[^}\\])*)\}?|\[(?P<bracket>(?:\\.|[^]\\])*)\]?|(?P<plain>[^\s=\\"'{[]+)"""
)
_ESCAPED = re.compile(r"\\(.)")
_WORDS = re.compile(r"[^\s,]+")
_INTEGER = re.compile(r"[+-]?\d+")
_FLAGS = {
    "T": True, "F": False, "true": True, "false": False, "True": True, "False": False, "TRUE": True, "FALSE": False,
}  # fmt: skip
_PERIODIC = {**_FLAGS, "1": True, "0": False}
#: Key of what is wrong with a frame, which its reader takes out again.
PROBLEM = "mlffstore problem"
#: Keys whose nine numbers are a matrix, column after column.
_MATRICES = ("Lattice", "virial", "stress")


def read_comment(line: str) -> dict[str, Any]:
    """Return the keys of a comment line with their values.

    Raises
    ------
    ValueError
        If a key is given twice with different values, a matrix has not nine numbers, or `pbc` is not one truth value or
        three. What is wrong with other spellings of `pbc` stands under `PROBLEM`.

    Examples
    --------
    >>> read_comment('energy=-3.5 name="" charge=-1 pbc="T T F" converged')
    {'energy': np.float64(-3.5), 'name': '', 'charge': np.int64(-1), 'pbc': [True, True, False], 'converged': True}
    """
    line = line.strip()
    plain = _PLAIN.fullmatch(line) is not None
    pairs = [(key, quoted or bare) for key, quoted, bare in _PAIRS.findall(line)] if plain else _pairs(line)
    texts = dict(pairs)
    if len(texts) < len(pairs):
        for key, text in pairs:
            if text != texts[key]:
                raise ValueError(f"expected one value of {key!r}, got {text!r} and {texts[key]!r}")
    problem = "" if "pbc" in texts else _find_pbc(texts)
    return {key: _value(key, text) for key, text in texts.items()} | ({PROBLEM: problem} if problem else {})


def _find_pbc(texts: dict[str, str]) -> str:
    """Let a key that says which vectors are periodic under another spelling be `pbc`; return what is wrong with it."""
    for key in [key for key in texts if key.lower() in ("pbc", "periodic")]:
        text = " ".join(_WORDS.findall(texts.pop(key).strip("[]()")))
        try:
            if _value("pbc", text) != _value("pbc", texts.setdefault("pbc", text)):
                return f"{key!r}: expected one pbc, got {text!r} and {texts['pbc']!r}"
        except ValueError as error:
            texts.pop("pbc", None)
            return f"{key!r}: {error}"
    return ""


def _pairs(line: str) -> list[tuple[str, str]]:
    """Return keys and the texts of their values. A key alone is true; blanks may surround the equals sign."""
    pairs: list[list[str]] = []
    goes_on = False  # whether the next part belongs to the word before it, or is the value after an equals sign
    after_equals = False
    apart = False  # whether blanks part a value from its equals sign
    for match in _PIECE.finditer(line):
        kind = str(match.lastgroup)
        if kind == "blanks":
            goes_on, apart = after_equals, after_equals
        elif kind == "equals":
            if not pairs:
                raise ValueError("expected a key before the first equals sign")
            if apart and not after_equals:  # an empty value before another key, or a value with an equals sign
                raise ValueError(
                    f'{pairs[-1][0]}: expected a value, got {pairs[-1][-1]!r} and "="; put the value in quotes'
                )
            pairs[-1].append("")
            goes_on = after_equals = True
        else:
            text = match[kind] if kind in ("escaped", "plain") else _ESCAPED.sub(r"\1", match[kind])
            if goes_on:
                pairs[-1][-1] += text
            else:
                pairs.append([text])
            goes_on, after_equals = True, False
    return [(key, "=".join(values) if values else "T") for key, *values in pairs]


def _value(key: str, text: str) -> Any:
    words = _WORDS.findall(text)
    if key.lower() == "uid":
        return text
    if key == "pbc":
        if len(words) not in (1, 3) or not all(word in _PERIODIC for word in words):
            raise ValueError(f"pbc: expected T or F, or three of them such as 'T T F', got {text!r}")
        periodic = [_PERIODIC[word] for word in words]
        return periodic if len(words) == 3 else periodic[0]
    array = None if "_" in text else _numbers(words)  # float() takes 1_000 for a number
    if key in _MATRICES:
        if array is None or len(array) != 9:
            raise ValueError(f"{key}: expected nine numbers, got {text!r}")
        matrix = array.reshape((3, 3), order="F")
        return symmetric(matrix, key) if key == "stress" and (matrix != matrix.T).any() else matrix
    value: Any = text
    if array is not None:
        value = array if len(array) > 1 else array[0]
    elif words and all(word in _FLAGS for word in words):
        flags = [_FLAGS[word] for word in words]
        value = flags if len(flags) > 1 else flags[0]
    elif text.startswith("_JSON "):
        value = _json(text.removeprefix("_JSON "))
    return value


def _numbers(words: list[str]) -> Any:
    """Return words as integers or floats, None if one of them is neither or an integer has more than 64 bits."""
    if not words:
        return None
    if all(map(_INTEGER.fullmatch, words)):
        integers = list(map(int, words))
        if min(integers) < -(2**63) or max(integers) >= (2**63 if min(integers) < 0 else 2**64):
            return None
        return np.array(integers, np.int64 if max(integers) < 2**63 else np.uint64)
    try:
        return np.array(list(map(float, words)))
    except ValueError:
        return None


def _json(text: str) -> Any:
    value = json.loads(text)
    try:
        array = np.array(value)
    except ValueError:  # lists of different length
        return value
    return array if array.dtype.kind in "ifb" else value

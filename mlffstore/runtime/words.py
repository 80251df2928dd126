"""Words of messages: numbers with their nouns, the nearest known name, and text that is safe to print on a terminal."""

from __future__ import annotations

import difflib
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Unicode categories that move the cursor, turn text around or cannot be encoded: controls, formats, surrogates, breaks.
_UNPRINTABLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """Return a number with its noun in the singular or plural.

    Parameters
    ----------
    n : int
    noun : str
        The singular.
    plural : str, optional
        The plural; by default the singular with an s, or with "ies" in place of a "y" after a consonant.

    Examples
    --------
    >>> counted(1, "file"), counted(1200, "sample"), counted(0, "log entry")
    ('1 file', '1,200 samples', '0 log entries')
    """
    if n == 1:
        return f"1 {noun}"
    if plural is None:
        plural = noun[:-1] + "ies" if noun.endswith("y") and noun[-2:-1] not in "aeiou" else noun + "s"
    return f"{n:,} {plural}"


def printable(text: object, *, lines: bool = False) -> str:
    r"""Return text in which control characters are written as escapes, so that they do not act on a terminal.

    Parameters
    ----------
    text : object
        Anything that has a string.
    lines : bool, optional
        Whether line breaks and tabs are kept, as in a message of several lines; they are escaped by default.

    Examples
    --------
    >>> print(printable("key\x1b[31m\n"))
    key\x1b[31m\n
    """
    text = str(text)
    if text.isascii() and text.isprintable():
        return text
    keep = "\n\t" if lines else ""
    return "".join(
        c if c in keep or unicodedata.category(c) not in _UNPRINTABLE else c.encode("unicode_escape").decode("ascii")
        for c in text
    )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'NAME'?"`` with the known name that is spelled most like the given one, or nothing.

    Examples
    --------
    >>> nearest("sampels", ["samples", "seed"]), nearest("zzz", ["samples"])
    ("; did you mean 'samples'?", '')
    """
    names = {one.lower().replace("-", "_"): one for one in known}
    close = difflib.get_close_matches(name.lower().replace("-", "_"), names, n=1)
    return f"; did you mean {names[close[0]]!r}?" if close else ""


def is_text(word: str) -> bool:
    r"""Return whether a string can be kept by every format: it is Unicode, without NUL and without lone surrogates.

    Python makes lone surrogates of names of files that are not UTF-8, and HDF5 ends a string at a NUL.

    Examples
    --------
    >>> is_text("caf\u00e9"), is_text("a\0b"), is_text("caf\udce9")
    (True, False, False)
    """
    if "\0" in word:
        return False
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True

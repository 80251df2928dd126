"""`Verification` and `Problem`: what verifying a store reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a file.

    Attributes
    ----------
    path : str
        The file relative to the store, or its folder if the file cannot be told.
    text : str
        What is wrong, and what to do.
    """

    path: str
    text: str


@dataclass(frozen=True)
class Verification:
    """The result of `verify`.

    Attributes
    ----------
    url : str
    version : int
        The last version that could be read; -1 if none could.
    full : bool
        Whether every byte was read.
    n_entries, n_segments, n_files : int
        Log entries, segments and files that were checked.
    nbytes : int
        Size of these files; with ``full`` all of them were read.
    problems : tuple of Problem
        All problems in the order of the log; empty if there are none.
    """

    url: str
    version: int
    full: bool
    n_entries: int
    n_segments: int
    n_files: int
    nbytes: int
    problems: tuple[Problem, ...]

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems


def without_place(text: str, url: str, path: str) -> str:
    """Return a message without the place that it begins with, since a problem names the place by itself."""
    return text.removeprefix(f"{url}/{path}").removeprefix(": ")

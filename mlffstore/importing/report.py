"""`ImportReport`: what an import did, and what it left behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.importing.account import KeyUse


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What an import did.

    Attributes
    ----------
    files : tuple of str
        Files read, in order.
    samples, atoms : int
        Newly written.
    versions : tuple of int
        Commits made, one for each file that brought samples.
    skipped : int
        Samples that an earlier import of the same files had written already.
    duplicates : int
        Samples left out by `on_duplicate="skip"`.
    rejected : int
        Samples put into quarantine by `on_error="quarantine"`.
    unreadable : int
        Records without a structure that could be put anywhere, left out by `on_error="quarantine"`.
    reasons : tuple of str
        Why samples were rejected or unreadable, with the first frames of each reason.
    hydrogens_added : int
        Hydrogens that SDF records and SMILES left out, among the samples newly written.
    keys : tuple of KeyUse
        What became of every key that the files hold: kept, renamed, converted, obeyed or left out.
    warnings : tuple of str
        What a person should look at.
    joined : int
        Samples of the store that got labels by `match="structure"`.
    unmatched : tuple of str
        File and place of each sample that `match="structure"` found no structure for.
    """

    files: tuple[str, ...]
    samples: int
    atoms: int
    versions: tuple[int, ...]
    skipped: int
    duplicates: int
    rejected: int
    unreadable: int
    reasons: tuple[str, ...]
    hydrogens_added: int
    keys: tuple[KeyUse, ...]
    warnings: tuple[str, ...]
    joined: int = 0
    unmatched: tuple[str, ...] = ()

    def summary(self) -> list[tuple[str, str]]:
        """Return the report as names and texts, one for each line: what `mlffstore import` prints."""
        where = self.files[0] if len(self.files) == 1 else counted(len(self.files), "file")
        rows = [("imported", f"{counted(self.samples, 'sample')}, {counted(self.atoms, 'atom')} from {where}")]
        counts = {
            "joined": (self.joined, "sample", "of the store got labels"),
            "unmatched": (len(self.unmatched), "sample", "without a structure in the store, left out"),
            "skipped": (self.skipped, "sample", "written by an earlier import of these files"),
            "duplicates": (self.duplicates, "sample", "left out, the store has the structures already"),
            "quarantine": (self.rejected, "sample", "could not be stored"),
            "unreadable": (self.unreadable, "record", "without a structure"),
            "hydrogens": (self.hydrogens_added, "hydrogen", "added by RDKit"),
        }
        rows += [(name, f"{counted(n, noun)} {text}") for name, (n, noun, text) in counts.items() if n]
        for fate in ("kept", "renamed", "converted", "obeyed", "left out"):
            names: Counter[str] = Counter()
            for use in self.keys:
                if use.fate == fate:
                    names[use.name if use.column in ("", use.name) else f"{use.name} as {use.column}"] += use.samples
            if names:
                rows.append((fate, ", ".join(f"{name} ({n:,})" for name, n in names.items())))
        return rows

    def __str__(self) -> str:
        lines = [f"{name}: {text}" for name, text in self.summary()]
        return "\n".join([*lines, *(f"warning: {text}" for text in self.warnings)])

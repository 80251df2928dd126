"""`ImportReport`: what an import did, and what it left behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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

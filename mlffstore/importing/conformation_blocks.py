"""`ConformationBlocks`: conformations of some molecules become checked samples, as arrays and not one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from mlffstore.data.batch import SampleBatch
from mlffstore.data.properties import ordered, property_of
from mlffstore.data.ragged import offsets, reduce_rows
from mlffstore.importing.draft import CheckedBlock, Draft, settle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from mlffstore.data.ragged import Ints
    from mlffstore.data.schema import Array
    from mlffstore.importing.account import Account
    from mlffstore.importing.conformations import Conformations
    from mlffstore.importing.extra import ExtraColumns
    from mlffstore.importing.options import Options
    from mlffstore.importing.problems import Problems


class ConformationBlocks:
    """Makes blocks of the molecules of one file.

    Parameters
    ----------
    path : Path
    options : Options
    extra : ExtraColumns
    precision : str
        dtype of the stored positions.
    source : str
        Where the data came from.
    """

    def __init__(self, path: Path, options: Options, extra: ExtraColumns, precision: str, source: str) -> None:
        self.path, self.options, self.extra = path, options, extra
        self.precision, self.source = precision, source
        #: Molecule -> its root, the hash of its first conformation.
        self._roots: dict[str, np.uint64] = {}

    def make(self, molecules: Sequence[Conformations], problems: Problems, account: Account) -> CheckedBlock:
        """Return the samples of some molecules.

        Parameters
        ----------
        molecules : sequence of Conformations
        problems : Problems
            Reasons are added.
        account : Account
            What became of each key is added.
        """
        counts = np.array([len(molecule) for molecule in molecules])
        n_atoms = np.repeat([len(molecule.numbers) for molecule in molecules], counts)
        starts, atoms = offsets(counts), offsets(n_atoms)
        labels = self._labels(molecules, atoms)
        held = {name: _held(array, property_of(name).axis, atoms) for name, array in labels.items()}
        sample_problems = [list(molecule.problems) for molecule in molecules for _ in range(len(molecule))]
        n_lone = self._check_required(held, n_atoms, sample_problems)
        self._account(molecules, held, starts, account)
        charge, multiplicity = self._states(molecules, counts)
        batch = SampleBatch(
            n_atoms=n_atoms,
            numbers=np.concatenate([np.tile(molecule.numbers, len(molecule)) for molecule in molecules]),
            positions=np.concatenate([molecule.positions.reshape(-1, 3) for molecule in molecules]),
            labels={self.options.teacher: labels} if labels else None,
            source=self.source,
            sampler="imported",
            extra=self._columns(molecules, n_atoms, sample_problems, account),
            charge=charge,
            multiplicity=multiplicity,
        )
        draft = Draft(
            self._rooted(batch.astype(self.precision).hashed(), molecules, starts),
            [place for molecule in molecules for place in molecule.places()],
            sample_problems,
        )
        block, places = settle(draft, self.path, self.options, problems)
        return CheckedBlock(block, places, len(draft.batch), n_lone)

    @staticmethod
    def _labels(molecules: Sequence[Conformations], atoms: Ints) -> dict[str, Array]:
        """Return the labels that any molecule has, NaN where one has none."""
        out = {}
        for name in ordered({name for molecule in molecules for name in molecule.labels}):
            leading = 2 if property_of(name).axis == "atom" else 1
            shape = next(molecule.labels[name].shape[leading:] for molecule in molecules if name in molecule.labels)
            parts = []
            for molecule in molecules:
                values = molecule.labels.get(name)
                missing = (*molecule.positions.shape[:leading], *shape)
                parts.append(np.full(missing, np.nan) if values is None else values)
            out[name] = np.concatenate([part.reshape(-1, *shape) for part in parts])
        return out

    def _check_required(self, held: dict[str, Array], n_atoms: Array, problems: Sequence[list[str]]) -> int:
        """Note which samples lack labels that were asked for; return how many single atoms may lack forces."""
        nowhere = np.zeros(len(n_atoms), bool)
        lacking = {name: ~held.get(name, nowhere) for name in self.options.require}
        if not any(bad.any() for bad in lacking.values()):
            return 0
        lone = (n_atoms == 1) & lacking.get("forces", nowhere)  # zero by symmetry, and often left out of files
        for name, bad in lacking.items():
            if name != "forces":
                lone &= ~bad
        way = self.options.wording.option("require", ())
        for i in np.flatnonzero(np.logical_or.reduce(list(lacking.values())) & ~lone).tolist():
            missing = " and ".join(name for name, bad in lacking.items() if bad[i])
            problems[i].append(f"expected {missing}, got none; {way} imports structures without labels")
        return int(lone.sum())

    @staticmethod
    def _account(molecules: Sequence[Conformations], held: dict[str, Array], starts: Ints, account: Account) -> None:
        """Note what became of the keys."""
        for molecule, start, stop in zip(molecules, starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            uses = tuple(molecule.label_uses.values())
            if all(held[name][start:stop].all() for name in molecule.label_uses):
                account.add_all((*uses, *molecule.uses), len(molecule))
                continue
            for name, use in molecule.label_uses.items():
                account.add_all((use,), int(held[name][start:stop].sum()))
            account.add_all(molecule.uses, len(molecule))

    def _states(self, molecules: Sequence[Conformations], counts: Array) -> tuple[Array, Array | None]:
        """Return charges, and multiplicities or None where none is known, shape (S,)."""
        charges = [self.options.charge if one.charge is None else one.charge for one in molecules]
        multiplicities = [
            self.options.multiplicity if one.multiplicity is None else one.multiplicity for one in molecules
        ]
        charge = np.array([value or 0 for value in charges])
        if all(value is None for value in multiplicities):
            return np.repeat(charge, counts), None
        protons = np.array([int(molecule.numbers.sum()) for molecule in molecules])
        lowest = (1 + (protons - charge) % 2).tolist()
        known = [least if value is None else value for value, least in zip(multiplicities, lowest, strict=True)]
        return np.repeat(charge, counts), np.repeat(known, counts)

    def _columns(
        self, molecules: Sequence[Conformations], n_atoms: Array, problems: Sequence[list[str]], account: Account
    ) -> dict[str, Any]:
        """Return the user columns that were asked for."""
        if not self.extra:
            return {}
        samples = [
            {name: ("file", np.asarray(values[i])) for name, values in molecule.columns.items()}
            for molecule in molecules
            for i in range(len(molecule))
        ]
        return self.extra.gather(samples, n_atoms, problems, account)

    def _rooted(self, batch: SampleBatch, molecules: Sequence[Conformations], starts: Ints) -> SampleBatch:
        """Return a batch with the root of each molecule as the root of its conformations."""
        first = batch.content_hash[starts[:-1]]
        roots = [self._roots.setdefault(molecule.name, root) for molecule, root in zip(molecules, first, strict=True)]
        return batch.with_columns(root=np.repeat(np.array(roots, np.uint64), np.diff(starts)))


def _held(label: Array, axis: str, atoms: Ints) -> Array:
    """Return which samples have a label, shape (S,), bool: those that are not NaN everywhere."""
    if not np.isnan(label).any():
        return np.ones(len(atoms) - 1, bool)
    rows = np.asarray(~np.isnan(label.reshape(len(label), -1)).all(axis=1))
    return rows if axis == "sample" else np.asarray(reduce_rows(np.logical_or, rows, atoms))

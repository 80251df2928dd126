"""`statistics` and its result, `Statistics`."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from mlffstore.analysis.statistics.gather import COLUMNS, CUTOFFS, Gather, Part, TeacherPart
from mlffstore.analysis.statistics.properties import describe, property_pass
from mlffstore.analysis.statistics.references import N_ELEMENTS
from mlffstore.data.splits import SPLITS
from mlffstore.errors import DataError
from mlffstore.lazy.blocks import Pass, sample_pass
from mlffstore.lazy.inputs import altered_message, meanings, teachers_of
from mlffstore.lazy.labels import label_variables
from mlffstore.lazy.sources import as_dataset

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from mlffstore.analysis.statistics.properties import Key, PropertyPart
    from mlffstore.analysis.statistics.references import Rows
    from mlffstore.analysis.statistics.sketch import Moments, Sketch
    from mlffstore.data.properties import Property
    from mlffstore.data.schema import Array
    from mlffstore.store.facade import Store
    from mlffstore.store.samples import Samples

logger = logging.getLogger(__name__)

QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


class Statistics:
    """Statistics of a dataset. The first access to a result reads the whole dataset, once.

    Made by `statistics`. `to_dict` is the whole of it; `normalisation` is what trainers need.
    """

    def __init__(
        self,
        run: Pass[Part],
        teachers: Sequence[str],
        samplers: Sequence[str],
        neighbours: bool,
        split: bool,
        properties: tuple[Pass[dict[Key, PropertyPart]] | None, Mapping[str, Property]],
    ) -> None:
        self._pass, self.teachers, self.samplers, self._neighbours = run, tuple(teachers), tuple(samplers), neighbours
        self._property_pass, self._specs = properties
        #: Names of the splits; none if the dataset has no variable `split`, and then everything is counted as one.
        self.splits = SPLITS if split else ()

    def compute(self) -> Statistics:
        """Run the pass now and return self."""
        _ = self.part, self.properties
        return self

    @functools.cached_property
    def part(self) -> Part:
        """The sums, moments and sketches themselves."""
        part = self._pass.compute()
        n = int(part.samples.sum())
        if 2 * part.altered > n:
            raise DataError(altered_message(part.altered, n))
        if part.altered:
            logger.warning("statistics: %s", altered_message(part.altered, n))
        return part

    @functools.cached_property
    def properties(self) -> dict[Key, PropertyPart]:
        """The same of properties beside energy, forces and stress, by teacher and name."""
        return {} if self._property_pass is None else self._property_pass.compute()

    def to_dict(self) -> dict[str, Any]:
        """Return all statistics as plain types, for JSON and YAML. Units are in the names."""
        p = self.part
        total = int(p.samples.sum())
        present = np.flatnonzero(p.atoms_of)
        return {
            "samples": total,
            "atoms": int(p.atoms.sum()),
            "splits": {
                split: {"samples": int(p.samples[i]), "atoms": int(p.atoms[i])} for i, split in enumerate(self.splits)
            },
            "periodic": p.periodic + p.partly,
            "partly_periodic": p.partly,
            "samplers": {name: int(n) for name, n in zip(self.samplers, p.by_sampler, strict=False) if n},
            "n_atoms": _summary(p.size),
            "volume_angstrom3_per_atom": _summary(p.volume),
            "elements": {_symbol(z): {"atoms": int(p.atoms_of[z]), "samples": int(p.samples_with[z])} for z in present},
            "element_evenness": evenness(p.atoms_of),
            "neighbours": {
                f"within_{cutoff:g}_angstrom": float(p.neighbours[k] / p.atoms.sum())
                for k, cutoff in enumerate(CUTOFFS)
            }
            if self._neighbours
            else None,
            "teachers": {
                name: self._teacher(part) | {"properties": self._other(name)}
                for name, part in zip(self.teachers, p.teachers, strict=True)
            },
            "quantile_error": "exact up to 65,536 numbers, 0.1 % of the quantile beyond",
        }

    def _other(self, teacher: str) -> dict[str, Any]:
        return describe(self.properties, self._specs, teacher, self.splits, QUANTILES)

    def _teacher(self, t: TeacherPart) -> dict[str, Any]:
        present = np.flatnonzero(t.force_by_element.n)
        return {
            "samples": int(t.labelled.sum()),
            "samples_by_split": dict(zip(self.splits, t.labelled.tolist(), strict=False)),
            "samples_with_energy": int(t.with_energy.sum()),
            "samples_with_energy_by_split": dict(zip(self.splits, t.with_energy.tolist(), strict=False)),
            "energy_eV_per_atom": {
                **t.energy.total().row(),
                "quantiles": _quantiles(t.energy_sketch),
                "by_split": _rows(t.energy, self.splits),
                "by_sampler": _rows(t.energy_by_sampler, self.samplers),
            },
            "element_energies_eV": _fit(t.every, t.every_per_atom, t.isolated),
            "force_component_eV_per_angstrom": {
                **t.component.total().row(),
                "by_split": _rows(t.component, self.splits),
                "by_direction": _rows(t.axis, ("x", "y", "z")),
            },
            "force_eV_per_angstrom": {
                **t.force.total().row(),
                "quantiles": _quantiles(t.force_sketch),
                "by_split": _rows(t.force, self.splits),
                "by_sampler": _rows(t.force_by_sampler, self.samplers),
                "by_element": {_symbol(z): t.force_by_element.row(z) for z in present},
            },
            "stress_eV_per_angstrom3": _rows(t.stress, ("xx", "yy", "zz", "yz", "xz", "xy")),
            "pressure_eV_per_angstrom3": _summary(t.pressure),
        }

    def normalisation(self, teacher: str | None = None) -> dict[str, Any]:
        """Return what trainers need of the split train, or of a dataset without splits, under the names that they use.

        Parameters
        ----------
        teacher : str, optional
            Name of the teacher. It may be left out if there is only one.

        Returns
        -------
        dict
            ``element_energies_eV`` (isolated atoms where the data have them, least squares of the others, ridge regression
            where these cannot be told apart; with rank and condition number), ``elements_that_train_lacks`` (elements of
            the splits val and test with their samples there; their energies are those of isolated atoms or the mean energy
            per atom), energy per atom raw and referenced, forces, stress, neighbours, and these under the names of MACE,
            NequIP, SevenNet and SchNetPack.
        """
        from mlffstore.data.labels import choose_teacher

        name = choose_teacher(self.teachers, teacher)
        t = self.part.teachers[self.teachers.index(name)]
        if not t.train.n:
            where = "of the split train" if self.splits else "of the dataset"
            raise DataError(f"normalisation: teacher {name!r} gave no energy of any sample {where}")
        fit = _fit(t.train, t.train_per_atom, t.isolated)
        lacking = self._lacking(t, fit)
        e0, shift, scale = fit["values"], fit["residual_mean_eV_per_atom"], fit["residual_std_eV_per_atom"]
        raw = t.energy.row(0)
        component = t.train_component.row()
        rms = component.get("rms")
        by_element = {
            _symbol(z): t.train_force_by_element.row(z)["rms"] for z in np.flatnonzero(t.train_force_by_element.n)
        }
        atoms = int(t.train_atoms_of.sum())
        near = (
            {f"{c:g}": float(t.train_neighbours[k] / atoms) for k, c in enumerate(CUTOFFS)} if self._neighbours else {}
        )
        numbers = {str(_number(symbol)): value for symbol, value in e0.items()}
        average = near.get("5")
        return {
            "teacher": name,
            "split": "train" if self.splits else None,
            "samples": int(t.with_energy[0]),
            "atoms": atoms,
            "element_energies_eV": fit,
            "elements_that_train_lacks": lacking,
            "energy_eV_per_atom": raw,
            "referenced_energy_eV_per_atom": {"mean": shift, "std": scale},
            "force_component_eV_per_angstrom": component,
            "force_rms_by_element_eV_per_angstrom": by_element,
            "stress_rms_eV_per_angstrom3": t.train_stress.row().get("rms"),
            "neighbours": {f"within_{c}_angstrom": n for c, n in near.items()},
            "element_counts": {_symbol(z): int(t.train_atoms_of[z]) for z in np.flatnonzero(t.train_atoms_of)},
            "mace": {"E0s": numbers, "mean": shift, "std": rms, "avg_num_neighbors": average},
            "nequip": {
                "per_type_energy_shifts": e0, "per_type_energy_scales": rms, "avg_num_neighbors": average,
                "type_names": list(e0),
            },
            "sevennet": {"shift": e0, "scale": rms, "conv_denominator": average},
            "schnetpack": {"atomrefs": {"energy": numbers}, "mean": shift, "stddev": scale},
        }  # fmt: skip

    def _lacking(self, t: TeacherPart, fit: dict[str, Any]) -> dict[str, dict[str, int]]:
        """Return the elements that val or test need and train lacks, with their samples, and give `fit` values of them."""
        out = {}
        for z in np.flatnonzero((t.samples_with[0] == 0) & (t.samples_with[1:].sum(axis=0) > 0)):
            symbol = _symbol(z)
            out[symbol] = {name: int(t.samples_with[i, z]) for i, name in enumerate(SPLITS) if i}
            isolated = t.isolated.n[z] > 0
            fit["values"][symbol] = float(t.isolated.low[z]) if isolated else t.train.mean_energy
        return out

    def to_xarray(self) -> xr.Dataset:
        """Return the per-element statistics as a Dataset along ``element``."""
        p = self.part
        present = np.flatnonzero(p.atoms_of)
        variables: dict[str, Any] = {
            "n_atoms": ("element", p.atoms_of[present]), "n_samples": ("element", p.samples_with[present]),
        }  # fmt: skip
        if self.teachers:
            moments = [t.force_by_element for t in p.teachers]
            for name, attribute in (("force_mean", "mean"), ("force_rms", "rms"), ("force_max", "high")):
                values = np.stack([np.where(m.n > 0, getattr(m, attribute), np.nan)[present] for m in moments], axis=1)
                variables[name] = (("element", "teacher"), values, {"units": "eV/angstrom"})
        coordinates = {"element": [_symbol(z) for z in present], "teacher": list(self.teachers)}
        return xr.Dataset(variables, coordinates)

    def __repr__(self) -> str:
        if "part" not in self.__dict__:
            return f"<Statistics of {self._pass.n_blocks} blocks, not computed yet>"
        return f"<Statistics of {int(self.part.samples.sum()):,} samples, {', '.join(self.teachers) or 'no labels'}>"


def evenness(counts: Array) -> float:
    """Return Pielou's evenness of counts: their entropy over its largest value, 1 where all are equal."""
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum() / np.log(len(share))) if len(share) > 1 else 0.0


def _fit(rows: Rows, per_atom: Rows, isolated: Moments) -> dict[str, Any]:
    known = np.where(isolated.n > 0, isolated.low, np.nan)
    solution, rank, condition = rows.solve(known)
    mean, rms = per_atom.residual(solution)
    if np.array_equal(rows.columns, per_atom.columns) and rows.n:
        std = rms * max(1.0 - (mean / rms) ** 2, 0.0) ** 0.5 if rms else 0.0  # squares of huge energies are infinite
    else:
        std = float("nan")
    from_atoms = [_symbol(z) for z in rows.columns if isolated.n[z]]
    unknowns = len(solution) - len(from_atoms)
    fitted = "least squares of total energies on element counts"
    if rank < unknowns:
        fitted = "ridge regression of total energies on element counts, towards the mean energy per atom"
    return {
        "method": f"isolated atoms, and {fitted}" if from_atoms else fitted,
        "rank": rank, "unknowns": unknowns, "condition_number": condition,
        "isolated_atoms": from_atoms,
        "values": {_symbol(z): float(value) for z, value in zip(rows.columns, solution, strict=True)},
        "residual_mean_eV_per_atom": mean, "residual_std_eV_per_atom": std,
    }  # fmt: skip


def _summary(sketch: Sketch) -> dict[str, Any]:
    if not sketch.n:
        return {"n": 0}
    return {"n": sketch.n, "min": sketch.low, "max": sketch.high, "quantiles": _quantiles(sketch)}


def _quantiles(sketch: Sketch) -> dict[str, float]:
    return {f"{q:g}": sketch.quantile(q) for q in QUANTILES} if sketch.n else {}


def _rows(moments: Moments, names: Sequence[str]) -> dict[str, Any]:
    return {name: moments.row(i) for i, name in enumerate(names) if moments.n[i]}


def _symbol(z: Any) -> str:
    from ase.data import chemical_symbols

    return str(chemical_symbols[z])


def _number(symbol: str) -> int:
    from ase.data import atomic_numbers

    return int(atomic_numbers[symbol])


def statistics(data: xr.Dataset | Samples | Store | str | os.PathLike[str], *, neighbours: bool = True) -> Statistics:
    """Gather statistics of a dataset, lazily and in one pass.

    Parameters
    ----------
    data : Dataset, Samples, Store, path or URL
    neighbours : bool, optional
        Whether neighbours within 4, 5 and 6 angstrom are counted, over all periodic images. This takes most of the time.

    Returns
    -------
    Statistics
        The first access to a result reads the dataset. Dask decides where the pass runs.

    Notes
    -----
    Counts are whole numbers, moments merge without cancellation, least squares by triangular factors: the result is that of
    a single pass however the samples are divided. Quantiles of more than 65,536 numbers are within 0.1 %.
    """
    ds = as_dataset(data, ("n_atoms", "numbers", "cell", "pbc", *(("positions",) if neighbours else ())))
    samplers = meanings(ds["sampler"]) if "sampler" in ds else ["unknown"]
    run = sample_pass(ds, COLUMNS, Gather(len(samplers), neighbours), Part.merge)
    specs = {one.spec.name: one.spec for one in label_variables(ds).values()}
    return Statistics(run, teachers_of(ds), samplers, neighbours, "split" in ds, (property_pass(ds), specs))


__all__ = ["N_ELEMENTS", "Statistics", "evenness", "statistics"]

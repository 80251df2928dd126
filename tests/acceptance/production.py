"""Acceptance of a production dataset, independent of the package's own validation: only its reading interface is used.

    python -m tests.acceptance.production acceptance.zarr [--json]

Distances are found by brute force over periodic images in NumPy, bonds by RDKit from coordinates alone. Prints a table of
criteria and exits with 1 if one of them fails.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

import mlffstore as ml

BLOCK = 512
#: Distances are looked for up to here, angstrom, so that the table shows the smallest one even if it is harmless.
REACH = 1.2
#: Classes of sources, up to the colon, whose samples are organic if they have carbon.
ORGANIC = (
    "nci", "nci-radical", "nci-anion", "nci-cation", "nci-dication", "nci-dianion", "nci-cluster", "solvent-cluster",
    "ion-cluster", "liquid",
)  # fmt: skip
GROUPS = {
    "alkali": "Li Na K Rb Cs", "alkaline earth": "Be Mg Ca Sr Ba", "halogen": "F Cl Br I",
    "noble metal": "Ag Au Pd Pt Rh Ir", "transition metal": "Ti V Cr Mn Fe Co Ni Cu Zn Zr Nb Mo W",
}  # fmt: skip
#: Steps of RDKit's search for bond orders before it gives up.
SEARCH = 20_000


@dataclass
class Report:
    """What was found; a line is (criterion, target, reached, whether it holds)."""

    lines: list[tuple[str, str, str, bool | None]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return all(held is not False for _, _, _, held in self.lines)

    def add(self, criterion: str, target: str, reached: str, held: bool | None = None) -> None:
        self.lines.append((criterion, target, reached, None if held is None else bool(held)))

    def failed(self) -> list[str]:
        return [criterion for criterion, _, _, held in self.lines if held is False]

    def __str__(self) -> str:
        rows = [("", "criterion", "target", "reached")]
        rows += [({True: "ok", False: "FAIL", None: ""}[held], a, b, c) for a, b, c, held in self.lines]
        wide = [max(len(row[k]) for row in rows) for k in range(3)]
        return "\n".join("  ".join([*(row[k].ljust(wide[k]) for k in range(3)), row[3]]).rstrip() for row in rows)


def smallest_distance(positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray, reach: float = REACH) -> float:
    """Return the smallest distance of two atoms or images, infinite if there is none within `reach`.

    Every pair is compared under every lattice translation that can bring it within reach: with fractional coordinates in
    [0, 1), those of up to 1 + reach / height cells along each periodic vector; height is the distance of the cell's faces.
    """
    shifts = np.zeros((1, 3))
    if pbc.any():
        full = cell.copy()
        for k in np.flatnonzero(~pbc):  # a vector of its own for directions that do not repeat
            others = full[[i for i in range(3) if i != k]]
            normal = np.cross(*others) if np.linalg.norm(np.cross(*others)) > 1e-9 else np.eye(3)[k]
            full[k] = normal / np.linalg.norm(normal)
        fractions = positions @ np.linalg.inv(full)
        fractions[:, pbc] -= np.floor(fractions[:, pbc])
        positions = fractions @ full
        volume = abs(np.linalg.det(full))
        ranges = []
        for k in range(3):
            a, b = full[(k + 1) % 3], full[(k + 2) % 3]
            height = volume / np.linalg.norm(np.cross(a, b))
            n = int(np.floor(1 + reach / height)) if pbc[k] else 0
            ranges.append(range(-n, n + 1))
        shifts = np.array(list(itertools.product(*ranges)), float) @ full
    best = np.inf
    apart = positions[:, None] - positions[None]
    for shift in shifts:
        squares = ((apart + shift) ** 2).sum(axis=-1)
        if not shift.any():
            np.fill_diagonal(squares, np.inf)
        best = min(best, float(squares.min(initial=np.inf)))
    return float(np.sqrt(best)) if best <= reach**2 else np.inf


def perceived(numbers: np.ndarray, positions: np.ndarray, charge: int) -> tuple[bool, str]:
    """Return whether RDKit finds bonds and orders that make every valence right, and the SMILES or what went wrong.

    Molecules of a cluster are told apart by connectivity, and perceived one by one. The SMILES has no stereochemistry.
    """
    from rdkit import Chem, RDLogger
    from rdkit.Chem import rdDetermineBonds

    RDLogger.DisableLog("rdApp.*")
    lines = [str(len(numbers)), ""]
    lines += [f"{chemical_symbols[z]} {x:.6f} {y:.6f} {w:.6f}" for z, (x, y, w) in zip(numbers, positions, strict=True)]
    mol = Chem.MolFromXYZBlock("\n".join(lines) + "\n")
    rdDetermineBonds.DetermineConnectivity(mol, useVdw=True)
    parts = Chem.GetMolFrags(mol, asMols=True, sanitizeFrags=False)
    if len(parts) > 1 and any(part.GetNumAtoms() == 1 and part.GetAtomWithIdx(0).GetAtomicNum() == 1 for part in parts):
        return False, "a hydrogen without a bond"
    why = "charge left over"
    # Neutral molecules first, then ions whose charges add up.
    for charges in ([charge],) if len(parts) == 1 else ([0], [0, charge], [0, 1, -1], [0, 1, -1, 2, -2]):
        sums: dict[int, tuple[str, ...]] = {0: ()}
        for part in parts:
            fitting = {}
            for one in dict.fromkeys(charges):
                found = Chem.Mol(part)
                try:
                    rdDetermineBonds.DetermineBondOrders(found, charge=one, maxIterations=SEARCH)
                    Chem.SanitizeMol(found)
                except Exception as error:  # RDKit raises many kinds
                    why = str(error).split("\n")[0][:80]
                    continue
                fitting[one] = Chem.MolToSmiles(Chem.RemoveHs(found), isomericSmiles=False)
            more: dict[int, tuple[str, ...]] = {}
            for total, smiles in sums.items():
                for one, text in fitting.items():
                    more.setdefault(total + one, (*smiles, text))
            sums = more
        if charge in sums:
            return True, ".".join(sorted(sums[charge]))
    return False, why


def _perceive(job: tuple[np.ndarray, np.ndarray, int]) -> tuple[bool, str]:
    return perceived(*job)


def examine(url: str, workers: int = 2) -> Report:
    """Read a whole store, block by block, and judge it."""
    snap = ml.open(url).snapshot()
    elements: Counter[int] = Counter()
    sources: Counter[str] = Counter()
    samplers: Counter[str] = Counter()
    periodic = atoms = unlabelled = stripped = pulled = radicals = halogenated = 0
    sizes: list[Any] = []
    nets: list[float] = []
    forces: dict[str, list[Any]] = {}
    nearest = np.inf
    seen: Counter[bytes] = Counter()
    roots: dict[int, set[int]] = {}
    jobs, names, homes = [], [], []
    complete: set[int] = set()  # roots of perhalogenated compounds
    pulled_bare: list[int] = []  # roots of samples without hydrogen and with a bond that is pulled apart
    split = snap.split_codes()
    for start in range(0, len(snap), BLOCK):
        index = np.arange(start, min(start + BLOCK, len(snap)))
        batch = snap.read(index)
        for root, code in zip(batch.root.tolist(), split[index].tolist(), strict=True):
            roots.setdefault(root, set()).add(code)
        classes = [name.split(":")[0] for name in batch.source]
        sources.update(classes)
        samplers.update(batch.sampler)
        sizes.append(batch.n_atoms)
        atoms += len(batch.numbers)
        for i in range(len(batch)):
            rows = slice(batch.offsets[i], batch.offsets[i + 1])
            z, x, pbc = batch.numbers[rows], batch.positions[rows].astype(float), batch.pbc[i]
            elements.update(set(z.tolist()))
            periodic += bool(pbc.any())
            nearest = min(nearest, smallest_distance(x, batch.cell[i], pbc))
            seen[z.tobytes() + batch.positions[rows].tobytes() + batch.cell[i].tobytes() + pbc.tobytes()] += 1
            own = {
                who: one["forces"][rows].astype(float)
                for who, one in batch.labels.items()
                if np.isfinite(one["energy"][i])
            }
            if not own or not all(np.isfinite(f).all() for f in own.values()):
                unlabelled += 1
            else:
                for who, f in own.items():
                    forces.setdefault(who, []).append(np.linalg.norm(f, axis=1))
                if not pbc.any():
                    nets.append(max(float(np.linalg.norm(f.sum(axis=0))) / len(z) for f in own.values()))
            if 6 not in z or classes[i] not in ORGANIC:
                continue
            whole = not pbc.any()
            if 1 not in z:
                # Nothing is missing where every carbon has its four bonds without: perhalogenated compounds.
                if whole and perceived(z, x, int(batch.charge[i]))[0]:
                    halogenated += 1
                    complete.add(int(batch.root[i]))
                elif whole and batch.sampler[i].startswith("scan-bond"):
                    pulled_bare.append(int(batch.root[i]))
                else:
                    stripped += 1
            if whole and batch.sampler[i].startswith("scan-bond"):
                pulled += 1
            elif whole and batch.multiplicity[i] != 1:
                radicals += 1
            elif whole:
                jobs.append((z, x, int(batch.charge[i])))
                homes.append(int(split[index[i]]))
                names.append(f"sample {index[i]} {chemical_formula(z)} {batch.sampler[i]}")
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(_perceive, jobs, chunksize=16))
    good = sum(ok for ok, _ in found)
    # The same atoms with their bonds intact, another sample of the root, say whether hydrogen is missing.
    stripped += sum(root not in complete for root in pulled_bare)
    halogenated += sum(root in complete for root in pulled_bare)
    report = Report()
    n, size = len(snap), np.concatenate(sizes)
    known = {chemical_symbols[z] for z in elements}
    lacking = sorted({"C", "H", "O", "N", "S", "P"} - known)
    lacking += [name for name, members in GROUPS.items() if not known & set(members.split())]
    report.add("samples, atoms", "", f"{n:,}, {atoms:,}")
    rate = samples_an_hour(ml.open(url), n)
    report.add("samples an hour, from creation to last commit", "> 1,000", f"{rate:,.0f}", rate > 1000)
    report.add("elements", ">= 30", str(len(known)), len(known) >= 30)
    report.add("C H O N S P, every group of metals, halogens", "all", ", ".join(lacking) or "all", not lacking)
    report.add(
        "atoms of a sample", "10 to 500", f"{size.min()} to {size.max()}", size.min() >= 10 and size.max() <= 500
    )
    report.add("periodic", "> 50 %", f"{periodic / n:.1%}", periodic > n / 2)
    text = f"{nearest:.3f} A" if np.isfinite(nearest) else f"above {REACH} A"
    report.add("smallest distance, over all images", ">= 0.5 A", text, nearest >= 0.5)
    p99 = {who: float(np.percentile(np.concatenate(f), 99)) for who, f in sorted(forces.items())}
    text = ", ".join(f"{value:.2f} ({who})" for who, value in p99.items())
    report.add("99th percentile of |F|, of each teacher", "< 10 eV/A", text, max(p99.values(), default=0.0) < 10)
    report.add("samples without finite labels", "0", str(unlabelled), unlabelled == 0)
    net = max(nets, default=0.0)
    report.add("net force of a molecule, of an atom", "< 0.01 eV/A", f"{net:.1e} eV/A", net < 1e-2)
    report.add("organic samples without hydrogen", "0", str(stripped), stripped == 0)
    report.add("  complete without hydrogen (perhalogenated)", "", str(halogenated))
    share = good / max(len(jobs), 1)
    report.add("bonds perceived in organic molecules", ">= 95 %", f"{share:.1%} of {len(jobs):,}", share >= 0.95)
    report.add("  not judged: bonds that are pulled apart, radicals", "", f"{pulled}, {radicals}")
    straddling = sum(len(codes) > 1 for codes in roots.values())
    report.add("roots in more than one split", "0", str(straddling), straddling == 0)
    molecules: dict[str, set[int]] = {}
    for home, (ok, smiles) in zip(homes, found, strict=True):
        if ok:
            molecules.setdefault(smiles, set()).add(home)
    straddling = sum(len(codes) > 1 for codes in molecules.values())
    report.add("molecules in more than one split", "0", f"{straddling} of {len(molecules):,}", straddling == 0)
    counts = np.bincount(split, minlength=3)[:3]
    report.add("train / val / test", "none empty", " / ".join(map(str, counts)), counts.all())
    twice = sum(count - 1 for count in seen.values())
    report.add("repeated samples", "0", str(twice), twice == 0)
    report.add("classes of seeds", "", ", ".join(f"{name} {k}" for name, k in sources.most_common()))
    report.add("samplers", "", ", ".join(f"{name} {k}" for name, k in samplers.most_common()))
    for name, (ok, why) in zip(names, found, strict=True):
        if not ok:
            print(f"not perceived: {name}: {why}", file=sys.stderr)
    return report


def samples_an_hour(store: ml.Store, n: int) -> float:
    """Return the rate at which a store was filled, pauses included."""
    history = store.history()
    times = [datetime.fromisoformat(commit.time) for commit in history if commit.version == 0 or commit.n_samples]
    return n / max((times[-1] - times[0]).total_seconds() / 3600, 1e-9)


def chemical_formula(numbers: np.ndarray) -> str:
    counts = Counter(numbers.tolist())
    return "".join(
        f"{chemical_symbols[z]}{counts[z]}" for z in sorted(counts, key=lambda z: (z != atomic_numbers["C"], z))
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("store")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    report = examine(args.store, args.workers)
    rows: list[dict[str, Any]] = [
        dict(zip(("criterion", "target", "reached", "ok"), line, strict=True)) for line in report.lines
    ]
    print(json.dumps(rows, indent=1) if args.json else report)
    return 0 if report.ok else 1


if __name__ == "__main__":
    sys.exit(main())

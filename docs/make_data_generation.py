"""Write docs/data_generation.md from a store that a recipe made, with nothing filled in by hand.

    mlffstore run recipes/acceptance.yaml
    mlffstore distil-check acceptance.zarr --teacher gfn2-xtb --out proof/gfn2-xtb
    mlffstore distil-check acceptance.zarr --teacher chgnet --out proof/chgnet
    python docs/make_data_generation.py recipes/acceptance.yaml acceptance.zarr proof/*/result.json

benchmarks/dataset.sh does all of it, and makes the release of docs/dataset_v1.0.md. Validates with the production policy, runs the independent script of tests/acceptance, and counts: some
minutes for 3,000 samples.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase.units import GPa

sys.path.insert(0, str(Path(__file__).parent.parent))

import mlffstore as ml
from mlffstore.data.splits import SPLITS, assign
from mlffstore.pipeline.account import Account, account
from mlffstore.pipeline.plan import SIZES
from mlffstore.pipeline.recipe import load_recipe
from mlffstore.release.manifest import read_manifest
from mlffstore.store.describe import describe, human_bytes
from tests.acceptance.production import examine

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from mlffstore.store.snapshot import Snapshot

PAGE = Path(__file__).parent / "data_generation.md"
#: Seconds without a commit after which a run is taken to have been stopped; tasks of the recipes here take up to some minutes.
PAUSE = 900.0


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", r"\|") for cell in line) + " |" for line in lines)


def counted(figures: dict[str, int], most: int = 40) -> str:
    """Return names and figures as a sentence, the largest first."""
    shown = Counter(figures).most_common()
    more = f" and {len(shown) - most} more" if len(shown) > most else ""
    return ", ".join(f"{name} {n:,}" for name, n in shown[:most]) + more


def speed(store: ml.Store, n: int) -> str:
    """Return the rate at which a store was filled, without the pauses of a run that was stopped and resumed."""
    commits = [commit for commit in store.history() if commit.operation in ("create", "append")]
    while commits[-1].n_samples == 0 and len(commits) > 2:  # a run that found nothing to do
        commits.pop()
    times = np.array([datetime.fromisoformat(commit.time).timestamp() for commit in commits])
    gaps = np.diff(times)
    pauses = gaps[gaps > PAUSE]
    rate = 3600 * n / max(gaps[gaps <= PAUSE].sum(), 1e-3)
    text = f"From the creation of the store to the last commit: **{rate:,.0f} labelled samples an hour**"
    if len(pauses):
        text += (
            f", in {len(pauses) + 1} sittings; the times between them, in which there was no commit for more than "
            f"{PAUSE / 60:.0f} minutes, are left out, {pauses.sum() / 3600:.1f} hours"
        )
    return text


def acceptance(snapshot: Snapshot) -> str:
    """Return the table of the package's own validation and what it warns of."""
    result = ml.validate(snapshot, "production").compute()
    rows = [[line.quantity, line.target, line.figure, line.mark] for line in result.acceptance]
    findings = [[one.severity, one.check, f"{one.n_samples:,}"] for one in result.findings]
    text = table(["quantity", "target", "found", ""], rows)
    if result.problems:
        text += "\n\n" + "\n".join(f"- {one.severity}: {one.check}: {one.text}" for one in result.problems)
    return text + ("\n\n" + table(["severity", "check", "samples"], findings) if findings else "")


def independent(url: str, said: Path | None) -> str:
    """Return the table of the script that shares nothing with the validation, as it was printed with --json or made here."""
    marks = {True: "pass", False: "FAIL", None: ""}
    lines = (
        examine(url).lines
        if said is None
        else [(line["criterion"], line["target"], line["reached"], line["ok"]) for line in json.loads(said.read_text())]
    )
    rows = [[criterion, target, reached, marks[held]] for criterion, target, reached, held in lines]
    return table(["criterion", "target", "found", ""], rows)


def contents(found: Account, snapshot: Snapshot) -> str:
    """Return what the samples are."""
    sizes = [
        f"{low} to {high - 1} atoms {n:,}"
        for low, high, n in zip(SIZES, (*SIZES[1:], 1000), found.sizes, strict=True)
        if n
    ]
    diversity = ", ".join(f"{one.score:.2f} of {name}" for name, one in found.diversity_of.items())
    lines = [
        f"{found.samples:,} samples, {found.atoms:,} atoms, {found.periodic / found.samples:.1%} periodic. "
        f"Sizes: {', '.join(sizes)}.",
        f"Classes of seeds: {counted(found.classes)}.",
        f"Samplers: {counted(found.samplers)}.",
        f"{len(found.elements)} elements; samples with each: {counted(found.elements, 200)}.",
        f"Different: {counted(found.structures)}.",
        f"Labels: {counted(found.labelled)}; a sample may have labels of several teachers, whose zeros of the energy differ.",
    ]
    if diversity:
        lines.append(f"Diversity of environments (0 all alike, 1 all different), by domain: {diversity}.")
    about = describe(ml.open(snapshot.url))
    lines.append(
        f"The columns have {human_bytes(about['nbytes'])} in {len(snapshot.segments):,} segments, {human_bytes(about['nbytes_on_disk'])} on disk with metadata, rejected samples and log."
    )
    return "\n\n".join(lines)


def questions(snapshot: Snapshot) -> str:
    """Return what issues of the mix ask, each with the condition that `mlffstore select` counts."""
    compound = "source like 'aflow:%' and n_elements > 1"
    calm = f'abs("pressure.chgnet") < {5 * GPa:.6f}'  # 5 GPa in eV/angstrom^3
    asked = {
        "compounds within 5 GPa of CHGNet's equilibrium, not strained on purpose":
            (f"{compound} and sampler not like 'strain%' and sampler not like 'scan%'", calm),
        "the same, rattled about a relaxed cell": (f"{compound} and sampler = 'rattle'", calm),
        "the same, strained by 2 %": (f"{compound} and sampler = 'strain-rattle'", calm),
        "oxides of the prototypes": ("source like 'aflow:%'", "list_contains(elements, 'O')"),
        "oxides of all periodic samples": ("periodic", "list_contains(elements, 'O')"),
        "samples of 150 to 500 atoms": ("true", "n_atoms between 150 and 500"),
    }  # fmt: skip
    rows = []
    for name, (among, condition) in asked.items():
        all_of_them, chosen = len(snapshot.select(among)), len(snapshot.select(f"{among} and {condition}"))
        share = f"{chosen / all_of_them:.1%}" if all_of_them else ""
        rows.append([name, share, f"{chosen:,} of {all_of_them:,}", f"`{among} and {condition}`"])
    return table(["", "share", "samples", "condition of `mlffstore select`"], rows)


def splits(snapshot: Snapshot) -> str:
    """Return samples of each split, per teacher, and how uneven splits of these roots are."""
    labelled = {name: f"list_contains(teachers, '{name}')" for name in snapshot.teachers}
    rows = [
        [name, *(format(len(snapshot.select(f"split = '{split}' and {condition}")), ",") for split in SPLITS)]
        for name, condition in {"all": "true", **labelled}.items()
    ]
    roots, sizes = np.unique(snapshot.roots(), return_counts=True)
    shares = snapshot.settings["splits"]
    counts = np.array([np.bincount(assign(roots, shares, seed), sizes, len(SPLITS)) for seed in range(200)], int)
    full = (counts >= [100_000, 10_000, 10_000]).all(axis=1).mean()
    spread = ", ".join(f"{name} {n:,.0f}" for name, n in zip(SPLITS, counts.std(axis=0), strict=True))
    return table(["labels of", *SPLITS], rows) + (
        f"\n\nRoots are not split, and the largest has {sizes.max():,} samples, so splits are uneven: over 200 seeds of the splits the "
        f"standard deviations are {spread}; the smallest {', '.join(f'{n:,}' for n in counts.min(axis=0))}."
        + (
            f" {full:.0%} of these seeds leave enough for 100,000, 10,000 and 10,000."
            if len(snapshot) > 100_000
            else ""
        )
    )


def quarantine(found: Account) -> str:
    """Return what was rejected, and which draws gave no structure."""
    rejected = sum((Counter(part.reasons) for part in found.parts), Counter[str]())
    skipped = sum((Counter(part.skipped) for part in found.parts), Counter[str]())
    text = f"{rejected.total():,} samples went to quarantine; their parts made others. {skipped.total():,} draws gave no structure.\n\n"
    rows = [[f"{n:,}", "rejected", reason] for reason, n in rejected.most_common(10)]
    rows += [[f"{n:,}", "no structure", reason] for reason, n in skipped.most_common(15)]
    return text + table(["number", "", "reason"], rows)


def cost(found: Account) -> str:
    """Return what each part cost."""
    rows: list[list[object]] = [
        [part.part, f"{part.accepted:,}", f"{part.calls_per_sample:.1f}", f"{part.samples_per_hour:,.0f}",
         f"{part.cpu_seconds / 3600:.2f}", f"{part.rejected:,}", part.tasks]
        for part in found.parts
    ]  # fmt: skip
    hours = sum(part.cpu_seconds for part in found.parts) / 3600
    rows.append(["all parts", f"{sum(part.accepted for part in found.parts):,}", f"{found.calls_per_sample:.1f}",
                 f"{found.samples_per_hour:,.0f}", f"{hours:.2f}", f"{sum(part.rejected for part in found.parts):,}",
                 sum(part.tasks for part in found.parts)])  # fmt: skip
    headings = [
        "part",
        "samples",
        "teacher calls per kept sample",
        "samples per core-hour",
        "core-hours",
        "rejected",
        "tasks",
    ]
    return table(headings, rows)


def proof(paths: Sequence[Path], beside: Path | None) -> str:
    """Return the learning curves, and copy their plots to a folder beside the page."""
    out = []
    for path in paths:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        plot = ""
        if beside is not None:
            shutil.copy(path.with_name("curve.png"), beside / f"curve-{result['teacher']}.png")
            plot = f"\n\n![Error of the forces against the samples learned from]({beside.name}/curve-{result['teacher']}.png)"

        def figure(values: Sequence[float]) -> str:
            spread = f" ± {1e3 * float(np.ptp(values)) / 2:.0f}" if len(values) > 1 else ""
            return f"{1e3 * float(np.mean(values)):.0f}{spread}" if values else ""

        rows = [
            [f"{one['share']:.0%}" if one["what"] == "share" else "rattled only", f"{one['samples']:,}", f"{one['roots']:,}",
             figure(one["force_mae"]), figure(one["energy_mae"]), figure(one["trajectory_mae"])]
            for one in result["trained"]
        ]  # fmt: skip
        last = [one for one in result["trained"] if one["what"] == "share"][-1]
        groups = [
            [name, f"{n:,}", f"{1e3 * last['groups'][name]:.0f}", f"{1e3 * result['no_forces_groups'][name]:.0f}"]
            for name, n in list(result["sizes"].items())[:14]
        ]
        out.append(
            f"### {result['teacher']}\n\n{result['seeds']} student{'s' * (result['seeds'] > 1)} of each share, {result['steps']:,} steps each, tested on "
            f"{result['held_out']:,} samples of held-out roots ({result['unknown']:,} others hold elements that the smallest "
            f"share lacks). No forces at all: {1e3 * result['no_forces']:.0f} meV/Å.\n\n"
            + table(
                ["learned from", "samples", "roots", "forces, meV/Å", "energy, meV/atom", "forces, new dynamics"], rows
            )
            + "\n\n"
            + table(["held-out samples", "number", "forces, meV/Å, all samples learned", "no forces"], groups)
            + plot
        )
    return "\n\n".join(out)


def release(folder: Path, beside: Path) -> str:
    """Return what a release holds, and copy its documents, but not its samples, to a folder beside the page."""
    manifest = read_manifest(folder)
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    for path in sorted(folder.iterdir()):
        if path.suffix != ".h5" and path.is_file():
            shutil.copy(path, beside / path.name.replace("README", "card"))
    counts = [[split, f"{one['samples']:,}", f"{one['atoms']:,}"] for split, one in manifest["splits"].items()]
    files = [
        [f"`{name}`", human_bytes(one["bytes"]), f"`{one['sha256'][:16]}...`"]
        for name, one in manifest["files"].items()
    ]
    documents = ", ".join(f"[{path.name}]({beside.name}/{path.name})" for path in sorted(beside.iterdir()))
    return (
        f"`{manifest['name']}` {manifest['version']}. "
        + "The samples are not kept here: the commands make them again. "
        f"Its documents are: {documents}.\n\n"
        + table(["split", "samples", "atoms"], counts)
        + "\n\n"
        + table(["file", "size", "SHA-256"], files)
    )


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("store")
    parser.add_argument("proof", type=Path, nargs="*", help="result.json of mlffstore distil-check")
    parser.add_argument("--out", type=Path, default=PAGE)
    parser.add_argument("--release", type=Path, help="folder of a release of the store; its documents are kept")
    parser.add_argument("--independent", type=Path, help="what python -m tests.acceptance.production --json printed")
    args = parser.parse_args()
    recipe = load_recipe(args.recipe).model_copy(update={"store": args.store})
    store = ml.open(args.store)
    snapshot, found = store.snapshot(), account(recipe, n_environments=4000)
    production = load_recipe(Path(__file__).parent.parent / "recipes" / "production.yaml")
    wanted = sum(part.samples for part in production.parts)
    title = "The production mix, in figures"
    if args.release:
        manifest = read_manifest(args.release)
        title = f"{manifest['name']} {manifest['version']}, in figures"
    sections = [
        f"# {title}",
        f"`recipes/production.yaml` makes {wanted:,} samples; [what is sampled, and why](data_generation_strategy.md) gives the "
        f"reasons. This page says what came out of `recipes/{args.recipe.name}` in {found.samples:,} samples. It is written by "
        "`docs/make_data_generation.py`, which names the commands before it.",
        f"{speed(store, len(snapshot))}; {found.samples_per_hour:,.0f} for an hour of one core; "
        f"{found.calls_per_sample:.1f} teacher calls per kept sample.",
        "## The acceptance table", "By `mlffstore validate --policy production`, the package's own. It asks for the whole dataset.",
        acceptance(snapshot),
        "## By an independent script",
        "`tests/acceptance/production.py` shares nothing with the validation: distances by brute force over images, bonds found by "
        "RDKit from coordinates alone.",
        independent(args.store, args.independent),
        "## What there is", contents(found, snapshot), questions(snapshot), splits(snapshot),
        "## What was left out", quarantine(found),
        "## What each part costs",
        "Calls are all structures that teachers labelled, to make samples and to label them. Hours are of one core.", cost(found),
    ]  # fmt: skip
    if args.release:
        sections += ["## The release", release(args.release, args.out.with_suffix(""))]
    if args.proof:
        sections += [
            "## What students learn",
            "By `mlffstore distil-check`: small PaiNN models, briefly trained; their errors compare datasets "
            "([how](how_to/prove.md)).",
            proof(args.proof, args.out.with_suffix("") if args.release else None),
        ]
    args.out.write_text("\n\n".join(sections) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

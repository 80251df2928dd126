"""`mlffstore validate`, `stats` and `report`: what is in a store, and whether it is good."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.output import AsJson, StorePath, err, grid, out, pairs, print_json
from mlffstore.runtime.documents import json_text

Version = Annotated[int | None, typer.Option("--version", min=0, help="Version of the store.")]
Tag = Annotated[str | None, typer.Option("--tag", help="Tag of the store.")]
PolicyOption = Annotated[
    str | None,
    typer.Option("--policy", "-p", help="'default', 'production' or a YAML file; see docs/explanation/validation.md."),
]


def validate(
    store: StorePath,
    policy: PolicyOption = None,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", "-t", help="Also compare labels with those this teacher gives, on some samples."),
    ] = None,
    weights: Annotated[str | None, typer.Option("--weights", "-w", help="Weights of that teacher.")] = None,
    store_flags: Annotated[
        str | None,
        typer.Option("--store-flags", metavar="NAME", help="Keep the flags in the store as the column NAME."),
    ] = None,
    version: Version = None,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Check every sample of STORE against a policy. Exit code 1 if the dataset does not pass."""
    handle = ml.open(store, "a" if store_flags else "r")
    snapshot = handle.snapshot(version, tag=tag)
    model = None if teacher is None else ml.get_teacher(teacher, **({"weights": weights} if weights else {}))
    validation = ml.validate(snapshot, policy, teacher=model)
    with err.status(f"validating {len(snapshot):,} samples ..."):
        document = validation.to_json()
    if store_flags:
        document["version"] = handle.add_flags(validation, store_flags, snapshot=snapshot)
    if as_json:
        print_json(document)
    else:
        table = [[line.mark, line.quantity, line.target, line.figure] for line in validation.acceptance]
        out.print(grid(["", "acceptance", "target", "found"], table))
        for problem in validation.problems:
            out.print(f"{problem.severity}: {problem.check}: {problem.text}", soft_wrap=True)
        if validation.findings:
            rows = [
                [one.severity, one.check, f"{one.n_samples:,}", ", ".join(map(str, one.examples))]
                for one in validation.findings
            ]
            out.print()
            out.print(grid(["severity", "check", "samples", "such as"], rows))
        out.print()
        verdict = "passes" if validation.ok else "does NOT pass"
        out.print(f"{document['samples']:,} samples, {document['invalid']:,} invalid: the dataset {verdict}")
    if not validation.ok:
        raise typer.Exit(1)


def stats(
    store: StorePath,
    teacher: Annotated[
        str | None,
        typer.Option("--teacher", "-t", help="Whose normalisation to write with --out; the only one by default."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write statistics and normalisation to this YAML or JSON file.")
    ] = None,
    neighbours: Annotated[
        bool, typer.Option("--neighbours/--no-neighbours", help="Count neighbours, which takes most of the time.")
    ] = True,
    diversity: Annotated[
        bool, typer.Option("--diversity", help="Also the diversity score (extra 'diversity').")
    ] = False,
    version: Version = None,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Print statistics of STORE: sizes, elements, labels by split, energies of the elements, normalisation."""
    snapshot = ml.open(store).snapshot(version, tag=tag)
    result = ml.statistics(snapshot, neighbours=neighbours)
    with err.status(f"reading {len(snapshot):,} samples ..."):
        document = result.to_dict()
    if diversity:
        import dataclasses

        from mlffstore.analysis.statistics.diversity import diversity as measure

        with err.status("measuring the diversity ..."):
            document["diversity"] = dataclasses.asdict(measure(snapshot))
    teacher_names = (
        [teacher]
        if teacher
        else [
            teacher_name
            for teacher_name in result.teachers
            if document["teachers"][teacher_name]["samples_by_split"]["train"]
        ]
    )
    document["normalisation"] = {teacher_name: result.normalisation(teacher_name) for teacher_name in teacher_names}
    if output is not None:
        _write(output, document)
    if as_json:
        print_json(document)
        return
    out.print(pairs(_overview(document)))
    for teacher_name, one in document["teachers"].items():
        out.print()
        out.print(pairs(_labels(one, document["normalisation"].get(teacher_name)), title=teacher_name))
    if output is not None:
        out.print(f"\nwritten to {output}")


def report(
    store: StorePath,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html and report.pdf.")] = Path(
        "report"
    ),
    policy: PolicyOption = None,
    title: Annotated[str | None, typer.Option("--title", help="Title; the name of the store by default.")] = None,
    diversity: Annotated[bool, typer.Option("--diversity", help="Also the diversity score (about a minute).")] = False,
    version: Version = None,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Write a report of STORE that people want to read: one HTML file that works offline, and a PDF."""
    from mlffstore.analysis.report import write_report

    handle = ml.open(store)
    snapshot = handle.snapshot(version, tag=tag)
    with err.status(f"reading and drawing {len(snapshot):,} samples ..."):
        html, pdf = write_report(
            snapshot, output, title=title, policy=policy, provenance=handle.provenance(), diversity=diversity
        )
    if as_json:
        print_json({"html": str(html), "pdf": str(pdf)})
        return
    out.print(pairs([("html", str(html)), ("pdf", str(pdf))]))


def _write(path: Path, document: dict[str, Any]) -> None:
    import yaml

    if path.suffix == ".json":
        path.write_text(json_text(document, indent=1), encoding="utf-8")
    else:
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _overview(d: dict[str, Any]) -> list[tuple[str, str]]:
    size = d["n_atoms"]
    splits = ", ".join(f"{name} {one['samples']:,}" for name, one in d["splits"].items())
    lines = [
        ("samples", f"{d['samples']:,} ({splits})"),
        (
            "atoms",
            f"{d['atoms']:,}; a sample {size['min']:.0f} to {size['max']:.0f}, median {size['quantiles']['0.5']:.0f}",
        ),
        ("periodic", f"{d['periodic']:,} ({d['periodic'] / d['samples']:.0%})"),
        ("elements", f"{len(d['elements'])}, evenness {d['element_evenness']:.2f}"),
        ("samplers", ", ".join(f"{k} {v:,}" for k, v in d["samplers"].items())),
    ]
    if d["neighbours"]:
        text = ", ".join(f"{v:.1f} {k.replace('_', ' ')}" for k, v in d["neighbours"].items())
        lines.append(("neighbours", text))
    if "diversity" in d:
        one = d["diversity"]
        lines.append(("diversity", f"{one['score']:.3f} of {one['n_environments']:,} environments"))
    return lines


def _labels(one: dict[str, Any], normal: dict[str, Any] | None) -> list[tuple[str, str]]:
    energy, force, component = (
        one[k] for k in ("energy_eV_per_atom", "force_eV_per_angstrom", "force_component_eV_per_angstrom")
    )
    lines = [("samples", f"{one['samples']:,}")]
    if energy["n"]:
        text = f"{energy['mean']:.4f} +- {energy['std']:.4f}, {energy['min']:.3f} to {energy['max']:.3f}"
        lines.append(("energy, eV/atom", text))
    if force["n"]:
        q, rms = force["quantiles"], component["rms"]
        text = f"|F| median {q['0.5']:.3f}, 99 % {q['0.99']:.3f}, largest {force['max']:.3f}"
        lines.append(("forces, eV/A", f"rms of components {rms:.4f}; {text}"))
    if one["stress_eV_per_angstrom3"]:
        text = ", ".join(f"{k} {v['rms']:.4f}" for k, v in one["stress_eV_per_angstrom3"].items())
        lines.append(("stress rms, eV/A^3", text))
    if normal:
        fit = normal["element_energies_eV"]
        few = list(fit["values"].items())
        text = ", ".join(f"{k} {v:.3f}" for k, v in few[:8]) + (f" and {len(few) - 8} more" if len(few) > 8 else "")
        lines.append(("E0 (train), eV", f"{text}; rank {fit['rank']} of {fit['unknowns']}"))
        text = f"{fit['residual_mean_eV_per_atom']:.4f} +- {fit['residual_std_eV_per_atom']:.4f} eV/atom"
        lines.append(("referenced (train)", text))
    return lines

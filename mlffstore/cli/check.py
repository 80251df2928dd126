"""`mlffstore validate`, `stats` and `report`: what is in a store, and whether it is good."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import mlffstore as ml
from mlffstore.cli.output import (
    AsJson,
    ShowAll,
    Tag,
    Version,
    few,
    judged,
    print_grid,
    print_json,
    print_list,
    print_pairs,
    say,
    say_more,
    status,
)
from mlffstore.cli.plugins import TeacherOptions, make_teacher, teacher_options
from mlffstore.cli.sources import SourcePath, Where, check_teacher, not_empty, open_samples
from mlffstore.errors import MlffstoreError
from mlffstore.runtime.documents import json_text
from mlffstore.runtime.words import counted

if TYPE_CHECKING:
    from mlffstore.contracts.protocols import Teacher, TeacherInfo, TeacherLabels
    from mlffstore.data.batch import SampleBatch

PolicyOption = Annotated[
    str | None,
    typer.Option(
        "--policy",
        "-p",
        help="'default', 'production' or a YAML file; see docs/explanation/validation.md.",
        show_default=False,
    ),
]


def validate(
    store: SourcePath,
    where: Where = None,
    policy: PolicyOption = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher",
            "-t",
            metavar="NAME[=RECORDED]",
            help="Also compare the labels with those that this teacher gives, on some samples. RECORDED is the name of the "
            "labels in the store, if it is another one than that of the teacher.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "-w", help="File with the weights of the teacher.", show_default=False),
    ] = None,
    option: TeacherOptions = None,
    store_flags: Annotated[
        str | None,
        typer.Option(
            "--store-flags", metavar="NAME", help="Keep the flags in the store as the column NAME.", show_default=False
        ),
    ] = None,
    version: Version = None,
    tag: Tag = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Check every sample of STORE against a policy.

    The exit code is 1 if the dataset does not pass.
    """
    if teacher is None and (weights or option):
        raise typer.BadParameter("expected --teacher NAME beside it, got none", param_hint="--weights or --option")
    if store_flags == "":
        raise typer.BadParameter("expected the name of a column, got an empty one", param_hint="--store-flags")
    snapshot = not_empty(store, open_samples(store, version, tag, where))
    kept_in = snapshot if isinstance(snapshot, ml.Snapshot) else None
    if store_flags and kept_in is None:
        raise typer.BadParameter(
            "expected all samples of a store, got a selection or a release; leave out --where",
            param_hint="--store-flags",
        )
    model = None if teacher is None else _recorded(teacher, teacher_options(weights, option), snapshot.teachers)
    with judged("--policy"):
        found = ml.validate(snapshot, policy, teacher=model)
    with status(f"validating {counted(len(snapshot), 'sample')} ..."):
        document = found.to_json()
    refusal: Exception | None = None
    if store_flags:
        try:
            with judged("--store-flags"):
                document["version"] = ml.open(store, "a").add_flags(found, store_flags, snapshot=kept_in)
        except (typer.BadParameter, MlffstoreError) as error:  # what was found is shown nevertheless
            refusal = error
    if as_json:
        print_json(document)
    else:
        table = [[line.mark, line.quantity, line.target, line.figure] for line in found.acceptance]
        print_grid(["", "acceptance", "target", "found"], table)
        say()
        rows = [[one.mark, one.check, one.measured_on, one.figure] for one in found.checks if not one.problem]
        print_grid(["", "check of the dataset", "measured on", "found"], rows)
        print_list([f"{one.severity}: {one.check}: {one.text}" for one in found.problems], show_all, "problem")
        if found.findings:
            shown, more = few(found.findings, show_all)
            rows = [[one.severity, one.check, f"{one.n_samples:,}", ", ".join(map(str, one.examples))] for one in shown]
            say()
            print_grid(["severity", "check", "samples", "such as"], rows)
            say_more(more, "finding")
        say()
        verdict = "passes" if found.ok else "does NOT pass"
        say(f"{counted(document['samples'], 'sample')}, {document['invalid']:,} invalid: the dataset {verdict}")
    if refusal is not None:
        raise refusal
    if not found.ok:
        raise typer.Exit(1)


@dataclasses.dataclass(frozen=True)
class _Renamed:
    """A teacher under the name that its labels have in a store."""

    teacher: Teacher
    info: TeacherInfo

    def label(self, batch: SampleBatch) -> TeacherLabels:
        return self.teacher.label(batch)


def _recorded(text: str, options: dict[str, Any], recorded: tuple[str, ...]) -> Teacher:
    """Return the teacher of ``NAME`` or ``NAME=RECORDED``, under the name that its labels have in the store."""
    name, equals, label = text.rpartition("=")
    teacher = make_teacher(name, options) if equals else make_teacher(text, options)
    label = label if equals else teacher.info.name
    if label not in recorded:
        raise typer.BadParameter(
            f"expected a teacher whose labels are in the store ({', '.join(recorded) or 'there are none'}), got {label!r}; "
            f"write {name or text}=RECORDED if its labels have another name there",
            param_hint="--teacher",
        )
    return _Renamed(teacher, dataclasses.replace(teacher.info, name=label))


def stats(
    store: SourcePath,
    where: Where = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            "--teacher", "-t", help="Teacher of the normalisation; all of them by default.", show_default=False
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write all of it to this YAML or JSON file.", show_default=False),
    ] = None,
    neighbours: Annotated[
        bool, typer.Option("--neighbours/--no-neighbours", help="Count neighbours, which takes most of the time.")
    ] = True,
    diversity: Annotated[
        bool, typer.Option("--diversity", help="Also the diversity score (extra 'diversity').")
    ] = False,
    version: Version = None,
    tag: Tag = None,
    show_all: ShowAll = False,
    as_json: AsJson = False,
) -> None:
    """Print statistics of STORE.

    These are sizes, elements, labels by split, energies of the elements and the normalisation.
    """
    snapshot = not_empty(store, open_samples(store, version, tag, where))
    if teacher is not None:
        check_teacher(snapshot, teacher)
    if output is not None:
        _check_output(output)
    found = ml.statistics(snapshot, neighbours=neighbours)
    with status(f"reading {counted(len(snapshot), 'sample')} ..."):
        document = found.to_dict()
    if diversity:
        from mlffstore.analysis.statistics.diversity import diversity as measure

        with status("measuring the diversity ..."):
            document["diversity"] = dataclasses.asdict(measure(snapshot))
    chosen = (
        [teacher]
        if teacher
        else [name for name in found.teachers if document["teachers"][name]["samples_with_energy_by_split"]["train"]]
    )
    document["normalisation"] = {name: found.normalisation(name) for name in chosen}
    if output is not None:
        _write(output, document)
    if as_json:
        print_json(document)
        return
    print_pairs(_overview(document, show_all))
    for name, one in document["teachers"].items():
        say()
        print_pairs(_labels(one, document["normalisation"].get(name), show_all), title=name)
    if output is not None:
        say(f"\nwritten to {output}")


def _check_output(path: Path) -> None:
    """Raise now, and not after the pass over the data, if a file cannot be written there."""
    if path.is_dir() or not path.parent.is_dir():
        there = "a folder" if path.is_dir() else "a folder that does not exist"
        raise typer.BadParameter(f"expected a file in a folder that exists, got {there}: {path}", param_hint="--out")


def report(
    store: SourcePath,
    where: Where = None,
    output: Annotated[Path, typer.Option("--out", "-o", help="Folder for report.html and report.pdf.")] = Path(
        "report"
    ),
    policy: PolicyOption = None,
    title: Annotated[
        str | None, typer.Option("--title", help="Title; the name of the store by default.", show_default=False)
    ] = None,
    diversity: Annotated[bool, typer.Option("--diversity", help="Also the diversity score (about a minute).")] = False,
    version: Version = None,
    tag: Tag = None,
    as_json: AsJson = False,
) -> None:
    """Write a report of STORE as HTML and PDF.

    The HTML is one file that works offline.
    """
    from mlffstore.analysis.report import write_report
    from mlffstore.analysis.validation import load_policy

    snapshot = open_samples(store, version, tag, where)
    with judged("--policy"):
        load_policy(policy)
    if output.exists() and not output.is_dir():
        raise typer.BadParameter(f"expected a folder, got a file: {output}", param_hint="--out")
    with status(f"reading and drawing {counted(len(snapshot), 'sample')} ..."):
        html, pdf = write_report(
            snapshot, output, title=title, policy=policy, provenance=snapshot.provenance(), diversity=diversity
        )
    if as_json:
        print_json({"html": str(html), "pdf": str(pdf)})
        return
    print_pairs([("html", str(html)), ("pdf", str(pdf))])


def _write(path: Path, document: dict[str, Any]) -> None:
    import yaml

    if path.suffix == ".json":
        path.write_text(json_text(document, indent=1), encoding="utf-8")
    else:
        path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _overview(d: dict[str, Any], show_all: bool) -> list[tuple[str, str]]:
    size = d["n_atoms"]
    samplers, more = few(list(d["samplers"].items()), show_all)
    splits = ", ".join(f"{name} {one['samples']:,}" for name, one in d["splits"].items())
    partly = f", {d['partly_periodic']:,} of them in one or two directions" if d["partly_periodic"] else ""
    lines = [
        ("samples", f"{d['samples']:,} ({splits})"),
        (
            "atoms",
            f"{d['atoms']:,}; {size['min']:.0f} to {size['max']:.0f} per sample, median {size['quantiles']['0.5']:.0f}",
        ),
        ("periodic", f"{d['periodic']:,} ({d['periodic'] / d['samples']:.0%})" + partly),
        ("elements", f"{len(d['elements'])}, evenness {d['element_evenness']:.2f}"),
        ("samplers", ", ".join(f"{k} {v:,}" for k, v in samplers) + (f" and {more} more (--all)" if more else "")),
    ]
    if d["neighbours"]:
        text = ", ".join(f"{v:.1f} {k.replace('_', ' ')}" for k, v in d["neighbours"].items())
        lines.append(("neighbours", text))
    if "diversity" in d:
        one = d["diversity"]
        lines.append(("diversity", f"{one['score']:.3f} of {one['n_environments']:,} environments"))
    return lines


def _labels(one: dict[str, Any], normal: dict[str, Any] | None, show_all: bool) -> list[tuple[str, str]]:
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
    for name, other in one["properties"].items():
        least, largest = f"{other['min']:.4g}", f"{other['max']:.4g}"
        text = f"{other['mean']:.4g} +- {other['std']:.4g}, {least} to {largest}; {other['samples']:,} samples"
        by_element, hidden = few(list(other.get("by_element", {}).items()), show_all)
        if by_element:
            means = ", ".join(f"{symbol} {row['mean']:.3g}" for symbol, row in by_element)
            text += f"; mean of {means}" + (f" and {hidden} more (--all)" if hidden else "")
        lines.append((f"{name}, {other['unit']}" if other["unit"] != "1" else name, text))
    if normal:
        fit = normal["element_energies_eV"]
        energies = list(fit["values"].items())
        shown = energies if show_all else energies[:8]
        more = f" and {len(energies) - len(shown)} more (--all)" if len(energies) > len(shown) else ""
        text = ", ".join(f"{k} {v:.3f}" for k, v in shown) + more
        lines.append(("E0 (train), eV", f"{text}; rank {fit['rank']} of {fit['unknowns']}"))
        text = f"{fit['residual_mean_eV_per_atom']:.4f} +- {fit['residual_std_eV_per_atom']:.4f} eV/atom"
        lines.append(("referenced (train)", text))
    return lines

"""What a GPU does here: labelling, dynamics side by side with refill, and training, with how busy it is meanwhile.

    benchmarks/gpu.sh [FOLDER]              picks the device, and writes FOLDER/gpu.md and FOLDER/gpu.json
    python benchmarks/bench_gpu.py --device cuda --out FOLDER [--tiny]

- Labelling: `teacher.label` of crystals, by the size of its batches. Orb-v2 is the package's 25 million parameter
  architecture with a seeded state dict (its weights come from a network: the speed is real, the labels are not); CHGNet
  and SevenNet-0 have their weights in the wheel.
- Dynamics: Orb-v2's architecture with so many structures side by side, steps of a structure a second; and CHGNet through the
  generator `md`, which puts the next seed where a trajectory has ended.
- Training: the student of `mlffstore distil-check`. "Resident" repeats one batch that lies on the device, which is what
  reading costs nothing; "loader" reads shuffled batches from a store while the device computes, with an iterator for each
  epoch, and "endless" with one that begins an epoch while it ends the one before.

GPU use is the mean of what `nvidia-smi` reports every 0.2 s; memory is the peak that torch held.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import platform
import shutil
import subprocess
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import mlffstore as ml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Watch:
    """The use of the GPU while a block runs."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds = 0.0
        self.busy: list[float] = []

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Watch]:
        stop = threading.Event()
        thread = threading.Thread(target=self._sample, args=(stop,), daemon=True)
        if self.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
            thread.start()
        began = time.perf_counter()
        try:
            yield self
            if self.device != "cpu":
                torch.cuda.synchronize()
        finally:
            self.seconds = time.perf_counter() - began
            stop.set()
            if thread.is_alive():
                thread.join()

    def _sample(self, stop: threading.Event) -> None:
        command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while shutil.which("nvidia-smi") and not stop.wait(0.2):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            with contextlib.suppress(ValueError, IndexError):
                self.busy.append(float(done.stdout.split()[0]))

    def columns(self) -> dict[str, Any]:
        """Return use and memory of the GPU; nothing of a processor."""
        if self.device == "cpu":
            return {"GPU use": None, "GPU memory, GB": None}
        use = f"{np.mean(self.busy):.0f} %" if self.busy else None
        return {"GPU use": use, "GPU memory, GB": round(torch.cuda.max_memory_allocated() / 1e9, 2)}


def crystals(n: int, max_atoms: int) -> ml.SampleBatch:
    made = ml.get_generator("crystals", max_atoms=max_atoms).generate(np.random.default_rng(0), n)
    return made.batch.structures().astype("float32")


def orb(folder: Path, device: str, batch_atoms: int | None) -> Any:
    """Return the Orb-v2 teacher with seeded weights."""
    from orb_models.forcefield import pretrained

    weights = folder / "orb.ckpt"
    if not weights.exists():
        torch.manual_seed(0)
        torch.save(pretrained.orb_v2_architecture(device="cpu").state_dict(), weights)
    return ml.get_teacher("orb-v2", weights=weights, device=device, batch_atoms=batch_atoms)


def labelling(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    batch = crystals(4 if args.tiny else 1024, 16 if args.tiny else 60)
    makers: dict[str, Callable[[int | None], Any]] = {
        "Orb-v2 architecture": lambda atoms: orb(folder, args.device, atoms),
        "chgnet": lambda atoms: ml.get_teacher("chgnet", device=args.device, batch_atoms=atoms),
        "sevennet-0": lambda _: ml.get_teacher("sevennet-0", device=args.device),  # one structure at a time
    }
    rows = []
    for name, make in makers.items():
        sizes = (None,) if name == "sevennet-0" else (256,) if args.tiny else (256, 1024, 4096, 16384)
        for atoms in sizes:
            try:
                teacher = make(atoms)
                teacher.label(batch.take(np.arange(2)))
                with Watch(args.device)() as watch:
                    labels = teacher.label(batch)
            except (ml.errors.MlffstoreError, torch.OutOfMemoryError) as error:
                rows.append({"teacher": name, "atoms of a batch": atoms, "remark": str(error).split("\n")[0]})
                continue
            rows.append(
                {
                    "teacher": name, "atoms of a batch": atoms, "samples/s": round(len(batch) / watch.seconds, 1),
                    "atoms/s": round(len(batch.numbers) / watch.seconds), **watch.columns(),
                    "remark": f"{int(labels.ok.sum())} of {len(batch)} labelled",
                }
            )  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def dynamics(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from mlffstore_generators.samplers.langevin import Ensemble

    rows = []
    steps = 2 if args.tiny else 50
    frames = crystals(4 if args.tiny else 512, 16 if args.tiny else 40).to_ase()
    teacher = orb(folder, args.device, 256 if args.tiny else 16384)
    for parallel in (2, 4) if args.tiny else (16, 64, 256, 512):
        rngs = [np.random.default_rng([1, i]) for i in range(parallel)]
        ensemble = Ensemble(frames[:parallel], rngs, teacher, np.full(parallel, 300.0), np.full(parallel, 0.5))
        ensemble.step()
        with Watch(args.device)() as watch:
            for _ in range(steps):
                ensemble.step()
        rows.append({"dynamics": "Orb-v2 architecture", "side by side": parallel,
                     "steps of a structure/s": round(parallel * steps / watch.seconds, 1), **watch.columns()})  # fmt: skip
        print(rows[-1], flush=True)
    seeds = {"name": "crystals", "max_atoms": 16 if args.tiny else 40}
    # Shorter than dynamics that is to sample an ensemble: the rate of steps and the refilling are what is measured.
    lengths = (6, 6, 3) if args.tiny else (60, 30, 30)
    short = dict(zip(("equilibration_fs", "interval_fs", "ramp_fs"), lengths, strict=True), distance=0.0)
    for parallel in (2,) if args.tiny else (16, 64, 256):
        generator = ml.get_generator(
            "md", seeds=seeds, teacher="chgnet", teacher_options={"device": args.device}, temperatures=[300], frames=2,
            parallel=parallel, **short,
        )  # fmt: skip
        wanted = 4 if args.tiny else 4 * parallel
        with Watch(args.device)() as watch:
            made = generator.generate(np.random.default_rng(0), wanted)
        rows.append({"dynamics": "md, chgnet, refilled", "side by side": parallel,
                     "steps of a structure/s": round(sum(made.calls.values()) / watch.seconds, 1),
                     "frames/s": round(len(made.batch) / watch.seconds, 2), **watch.columns()})  # fmt: skip
        print(rows[-1], flush=True)
    return rows


def training(args: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from mlffstore.pipeline.distillation.student import CUTOFF, Student

    store = ml.create(str(folder / "train.zarr"), splits={"train": 1, "val": 0, "test": 0})
    batch = crystals(24 if args.tiny else 4096, 16 if args.tiny else 60)
    store.append(batch, require=())
    store.add_labels(ml.get_teacher("chgnet", device=args.device))
    data = ml.TorchDataset(store, require=("energy", "forces"), neighbours=CUTOFF)
    rows = []
    for width, size in ((16, 4),) if args.tiny else ((64, 64), (128, 256), (256, 256)):
        model = Student(torch.zeros(119, dtype=torch.float64), 1.0, width=width, layers=3).to(args.device)
        optimiser = torch.optim.Adam(model.parameters())

        def step(batch: dict[str, torch.Tensor], model: Any = model, optimiser: Any = optimiser) -> None:
            _, forces = model(batch, create_graph=True)
            optimiser.zero_grad()
            (forces - batch["forces"]).square().mean().backward()
            optimiser.step()

        resident = {name: tensor.to(args.device) for name, tensor in data.batch(np.arange(size)).items()}
        step(resident)
        n = 3 if args.tiny else 100
        loader = data.loader(batch_size=size, shuffle=True, device=args.device, drop_last=True)
        sources: dict[str, Callable[[], Iterator[dict[str, torch.Tensor]]]] = {
            "resident": lambda resident=resident: itertools.repeat(resident),  # type: ignore[misc]
            "loader": lambda loader=loader: itertools.chain.from_iterable(itertools.repeat(loader)),  # type: ignore[misc]
            "endless": loader.endless,
        }
        still = None
        for what, source in sources.items():
            atoms = 0  # the share of "resident" goes by atoms: its one batch has more or fewer than others
            with Watch(args.device)() as watch:
                for some in itertools.islice(source(), n):
                    step(some)
                    atoms += len(some["numbers"])
            rate, columns = n / watch.seconds, watch.columns()
            still = still or atoms / watch.seconds
            rows.append({"training": f"PaiNN, width {width}", "batch": size, "batches": what, "steps/s": round(rate, 2),
                         "samples/s": round(rate * size), "atoms/s": round(atoms / watch.seconds),
                         "of resident": round(atoms / watch.seconds / still, 3), **columns})  # fmt: skip
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---"] * len(names)]
    lines += [["" if row.get(name) is None else str(row[name]) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("gpu-results"))
    parser.add_argument("--tiny", action="store_true", help="sizes that a processor does in a minute")
    parser.add_argument("--only", default="labelling,dynamics,training")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    args.out.mkdir(parents=True, exist_ok=True)
    name = platform.processor() or platform.machine() if args.device == "cpu" else torch.cuda.get_device_name()
    document: dict[str, Any] = {
        "device": name,
        "torch": torch.__version__,
        "mlffstore": ml.__version__,
        "tiny": args.tiny,
    }
    text = [f"{name}, torch {torch.__version__}, mlffstore {ml.__version__}{', tiny sizes' if args.tiny else ''}"]
    with tempfile.TemporaryDirectory() as folder:
        for what in args.only.split(","):
            document[what] = {"labelling": labelling, "dynamics": dynamics, "training": training}[what](
                args, Path(folder)
            )
            text += [f"## {what.capitalize()}", table(document[what])]
            # After each section, so that a time limit costs only the rest.
            (args.out / "gpu.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
            (args.out / "gpu.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")
    print("\n\n".join(text))


if __name__ == "__main__":
    main()

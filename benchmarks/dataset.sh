#!/usr/bin/env bash
# The dataset of the production recipe, from nothing to its page: samples, release, proof by students, figures.
#   benchmarks/dataset.sh                                                          100,000 + 10,000 + 10,000, hours
#   benchmarks/dataset.sh recipes/acceptance.yaml 2000,200,200 docs/data_generation.md default 0.125,0.25,0.5,1    the same in small
# `make dataset` calls it with the interpreter of .venv; by itself it takes the python of PATH.
# Stop it whenever you like: the same command goes on where it was. It works in the folder $WORK, by default "dataset".
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=${1:-recipes/production.yaml} counts=${2:-100000,10000,10000} page=${3:-docs/dataset_v1.0.md} policy=${4:-production}
shares=${5:-0.01,0.04,0.16,1}  # of the roots of train, from which students learn: they see some 6,000 samples
work=${WORK:-dataset} name=mlffstore-distil version=1.0.0
mkdir -p "$work"
here=$PWD store=$work/$(basename "$recipe" .yaml).zarr
export OMP_NUM_THREADS=1  # a process of the run for each core

(cd "$work" && python -m mlffstore run "$here/$recipe")
# One release with the labels of both teachers: CHGNet labels all samples, GFN2-xTB the molecules and liquids.
if [ ! -e "$work/release/$name-$version" ]; then
  python -m mlffstore export "$store" --out "$work/release" --name "$name" --release "$version" --heads \
    --teacher chgnet --teacher gfn2-xtb --counts "$counts" --policy "$policy" --licence CC-BY-4.0
fi
python -m mlffstore verify "$work/release/$name-$version"
# Students of both teachers and the independent script do not wait for one another.
prove() {
  if [ ! -e "$work/proof/$1/result.json" ]; then
    # The exit code says that students learn nothing; the page then shows it.
    python -m mlffstore distil-check "$store" --teacher "$1" --shares "$shares" --seeds 1 --trajectory 40 --out "$work/proof/$1" || true
  fi
}
prove chgnet & prove gfn2-xtb & python -m tests.acceptance.production "$store" --json > "$work/independent.json" || true
wait
kept=()  # the documents of a release lie beside the page of the whole dataset
if [ "$policy" = production ]; then kept=(--release "$work/release/$name-$version"); fi
python docs/make_data_generation.py "$recipe" "$store" "$work"/proof/*/result.json --independent "$work/independent.json" \
  --out "$page" "${kept[@]}"

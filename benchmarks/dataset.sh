#!/usr/bin/env bash
# The dataset of the production recipe, from nothing to its page: samples, release, proof by students, figures.
#   benchmarks/dataset.sh                                                          100,000 + 10,000 + 10,000, hours
#   benchmarks/dataset.sh recipes/acceptance.yaml 2000,200,200 docs/data_generation.md default    the same in small
# `make dataset` calls it with the interpreter of .venv; by itself it takes the python of PATH.
# Stop it whenever you like: the same command goes on where it was. It works in the folder $WORK, by default "dataset".
set -euo pipefail
cd "$(dirname "$0")/.."
recipe=${1:-recipes/production.yaml} counts=${2:-100000,10000,10000} page=${3:-docs/dataset_v1.0.md} policy=${4:-production}
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
for teacher in chgnet gfn2-xtb; do
  if [ ! -e "$work/proof/$teacher/result.json" ]; then
    # The exit code says that students learn nothing; the page then shows it.
    python -m mlffstore distil-check "$store" --teacher "$teacher" --trajectory 40 --out "$work/proof/$teacher" || true
  fi
done
python docs/make_data_generation.py "$recipe" "$store" "$work"/proof/*/result.json --out "$page" --release "$work/release/$name-$version"

#!/usr/bin/env bash
# Measures labelling, dynamics and training on this machine's GPU, some minutes; on its processor at tiny sizes if there is none.
#   benchmarks/gpu.sh [FOLDER]      writes FOLDER/gpu.md and FOLDER/gpu.json (gpu-results by default)
# Needs pip install 'mlffstore[sampling,chgnet,sevennet,orb,torch]'. PYTHON names the interpreter, TINY=1 asks for tiny sizes.
set -euo pipefail
cd "$(dirname "$0")/.."
python="${PYTHON:-python}"
if "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  device=cuda
else
  device=cpu
  TINY=1
fi
export PYTHONPATH="$PWD:$PWD/generators:$PWD/teachers:$PWD/exporters${PYTHONPATH:+:$PYTHONPATH}"
exec "$python" benchmarks/bench_gpu.py --device "$device" --out "${1:-gpu-results}" ${TINY:+--tiny}

"""Start an adaptive Dask cluster in SLURM jobs and write its address to a file, for `mlffstore run --scheduler-file`.

    pip install dask-jobqueue                       # here, beside mlffstore[dask]
    python examples/slurm/cluster.py --file scheduler.json --jobs 0 20

It runs until it is stopped (Ctrl-C), best on a login node or in a small job of its own; the jobs end with it. Resources come
from the configuration of dask-jobqueue: see jobqueue.yaml beside this file.
"""

from __future__ import annotations

import argparse
import signal
from pathlib import Path


def main() -> None:
    """Start the cluster and wait."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--file", type=Path, default=Path("scheduler.json"))
    parser.add_argument("--jobs", type=int, nargs=2, default=(0, 10), metavar=("LEAST", "MOST"))
    args = parser.parse_args()
    from dask_jobqueue import SLURMCluster

    with SLURMCluster(scheduler_options={"scheduler_file": str(args.file)}) as cluster:
        print(cluster.job_script())
        cluster.adapt(minimum_jobs=args.jobs[0], maximum_jobs=args.jobs[1], target_duration="120s")
        print(
            f"scheduler at {cluster.scheduler_address}; mlffstore run RECIPE --scheduler-file {args.file}", flush=True
        )
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


if __name__ == "__main__":
    main()

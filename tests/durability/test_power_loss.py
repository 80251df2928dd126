"""Loss of power: every commit that was acknowledged before is there when the file system is mounted again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(3600)  # at nightly size, on a busy machine


def reason_not_to() -> str:
    """Return why no file system can be mounted here; empty if it can."""
    if os.geteuid() != 0:
        return "needs root, to mount file systems"
    needed = ("unshare", "mount", "mkfs.ext4", "mkfs.xfs")
    missing = [name for name in needed if shutil.which(name) is None]
    if missing:
        return f"needs {', '.join(missing)} (packages util-linux, e2fsprogs, xfsprogs)"
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder) / "image"
        image.write_bytes(b"")
        os.truncate(image, 64 << 20)
        trial = f"mkfs.ext4 -q -F {image} && mount -o loop {image} /mnt"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", trial], check=False, capture_output=True, text=True)
    return "" if done.returncode == 0 else f"cannot mount an image through a loop device: {done.stderr.strip()}"


@pytest.fixture
def scratch():
    """Return an empty folder, in memory if possible: the images are synced all the time."""
    if reason := reason_not_to():
        pytest.skip(reason)
    parent = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 2 << 30 else None
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        yield Path(folder)


def lose_power(kind: str, losses: int, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["unshare", "--mount", "--propagation", "private"]
    command += [sys.executable, "-m", "tests.durability.power", kind, str(losses), str(folder), *options]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("losses", [3, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_what_was_acknowledged_survives_a_loss_of_power(kind, losses, scratch):
    done = lose_power(kind, losses, scratch)
    assert done.returncode == 0, done.stderr[-5000:]
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["losses"] == losses
    assert outcome["looked for"] >= losses


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_the_check_notices_a_missing_fsync(kind, scratch):
    """The test above can fail: the same writers, whose fsync does nothing, lose commits."""
    done = lose_power(kind, 3, scratch, "--without-fsync")
    assert done.returncode != 0
    assert "Error" in done.stderr
    assert "are gone" in done.stderr or "NotFoundError" in done.stderr or "problems" in done.stderr, done.stderr

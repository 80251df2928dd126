"""Check the wheel in a folder: built from the sdist, complete, and importable with nothing else around.

Usage: python tests/check_wheel.py DIST
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGES = ("mlffstore", "mlffstore_generators", "mlffstore_teachers", "mlffstore_exporters")


def main(dist: Path) -> None:
    """Fail with a message unless the wheel is good."""
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    if tops != set(PACKAGES):
        sys.exit(f"{wheel.name}: expected the packages {sorted(PACKAGES)}, got {sorted(tops)}")
    for package in PACKAGES:
        if f"{package}/py.typed" not in names:
            sys.exit(f"{wheel.name}: {package}/py.typed is missing")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "site"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)],
            check=True,
        )
        code = (
            "import sys; sys.path.insert(0, 'site'); import importlib, pathlib\n"
            f"for name in {PACKAGES!r}:\n"
            "    module = importlib.import_module(name)\n"
            "    assert pathlib.Path(module.__file__).resolve().is_relative_to(pathlib.Path('site').resolve()), module\n"
            "import mlffstore as ml\n"
            "store = ml.create('d.zarr')\n"
            "assert ml.open('d.zarr').version == 0\n"
        )
        # -P: the working folder is put on the path by the code above only, so the checkout cannot stand in.
        subprocess.run([sys.executable, "-P", "-c", code], check=True, cwd=folder)
    print(f"{wheel.name}: {len(names)} files, all four packages import from an empty folder")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

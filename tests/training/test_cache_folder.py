"""Where caches lie, and caches that may not be removed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mlffstore as ml
from mlffstore.release import Release
from mlffstore.release.verify import verify_release
from mlffstore.runtime import folders
from tests.samples import metal_frames

#: Runs a call as another user, for whom the permissions of files mean something; root may do anything.
_AS_ANOTHER = (
    "import os, sys\n"
    "from mlffstore.cli.main import main\n"
    "def call(*words):\n"
    "    sys.argv = ['mlffstore', *words]\n"
    "    try:\n"
    "        main()\n"
    "    except SystemExit as end:\n"
    "        return end.code\n"
    "call('cache')\n"  # imports everything while it may
    "os.getuid() == 0 and os.setuid(65534)\n"
    "sys.exit(call('cache', '--clear'))\n"
)


def test_a_cache_that_cannot_be_removed_is_not_called_removed(tmp_path, caches):
    store = ml.create(tmp_path / "d.zarr")
    store.append(metal_frames(20))
    ml.TorchDataset(store, split=None)
    (one,) = folders.cached()
    folder = folders.cache_folder()
    for parent in (tmp_path, *tmp_path.parents):
        if parent == tmp_path or (
            parent.stat().st_uid == os.getuid() and ("pytest" in parent.name or "popen" in parent.name)
        ):
            parent.chmod(0o755)
    done = {}
    for mode in (0o300, 0o555):
        folder.chmod(mode)
        try:
            done[mode] = subprocess.run(
                [sys.executable, "-c", _AS_ANOTHER], capture_output=True, text=True, check=False
            )
        finally:
            folder.chmod(0o755)
    assert done[0o300].returncode == 3
    assert f"{folder}: the folder of caches cannot be read (Permission denied)" in done[0o300].stderr
    done = done[0o555]
    assert done.returncode == 1, done.stderr
    assert "0 caches, 0 B removed" in done.stdout
    assert f"{one.path}: cannot be removed (Permission denied); check its owner" in done.stdout
    assert len(ml.TorchDataset(store, split=None)) == 20
    assert folders.clear() == {}
    assert folders.cached() == []


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    """In Python, in recipes and in variables no shell expands it; without that a folder of that name is made."""
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MLFFSTORE_CACHE", "~/caches")
    store = ml.create("~/d.zarr")
    store.append(metal_frames(20))
    assert store.url == str(home / "d.zarr")
    assert len(ml.open(Path("~/d.zarr"))) == 20
    ml.export_release(store.snapshot(), "~/out", name="d", version="1.0.0", allow_failing=True)
    assert len(Release("~/out/d-1.0.0")) == 20
    assert verify_release("~/out/d-1.0.0").ok
    assert len(ml.TorchDataset("~/out/d-1.0.0", split=None)) == 20
    ml.get_exporter("extxyz")(store.snapshot(), "~/xyz")
    assert ml.import_files("~/out/d-1.0.0", "~/again.zarr").samples == 20
    assert {path.name for path in home.iterdir()} >= {"d.zarr", "out", "caches", "xyz", "again.zarr"}
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("user", ["~no-such-user/d", "a~", "./~"])
def test_other_tildes_are_names(tmp_path, monkeypatch, user):
    monkeypatch.chdir(tmp_path)
    assert ml.create(user).url == str(tmp_path / user)

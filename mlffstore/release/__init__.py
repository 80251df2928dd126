"""Releases: versioned, checksummed HDF5 files cut from a snapshot, and their folders, which describe them.

`reading` opens them, `manifest` lists what a folder holds, `verify` checks a folder, `changes` compares two.
`mlffstore_exporters` writes them.
"""

from mlffstore.release.reading import FORMAT, Release, holds_release, is_release

__all__ = ["FORMAT", "Release", "holds_release", "is_release"]

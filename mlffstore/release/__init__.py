"""Releases: versioned, checksummed HDF5 files cut from a snapshot, and the folder that says what they are.

`reading` opens them, `manifest` knows what a folder holds, `verify` checks a folder, `changes` compares two.
`mlffstore_exporters` writes them.
"""

from mlffstore.release.reading import FORMAT, Release, is_release

__all__ = ["FORMAT", "Release", "is_release"]

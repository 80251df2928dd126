"""Writing a ZIP archive of stored entries from front to back: the file of a segment or layer.

Nothing is compressed or sought, so that a file can be sent to an object store as it is made. Places, sizes and checksums
are those of the ZIP specification (PKWARE APPNOTE 6.3.10), with the ZIP64 fields where a number needs more than 32 bits.
It does not read archives: our own reader knows from the log where everything is, and others have readers of their own.
"""

from __future__ import annotations

import struct
import zlib

_MAX_32, _MAX_16 = 0xFFFFFFFF, 0xFFFF
#: The first moment that ZIP can express, 1980-01-01 00:00, so that equal content makes equal bytes.
_TIME, _DATE = 0, 0x21
_PLAIN, _ZIP64 = 20, 45
"""Versions of the specification that a reader must know, 2.0 and 4.5."""
_REGULAR_FILE = 0o100644 << 16


class ArchiveWriter:
    """Makes the headers of an archive; the caller writes them and the entries in the same order.

    Attributes
    ----------
    offset : int
        Bytes of the archive so far: headers that were returned, and the entries that they announced.

    Examples
    --------
    >>> archive = ArchiveWriter()
    >>> data = archive.header("a.txt", b"text") + b"text" + archive.directory()
    >>> import io, zipfile
    >>> zipfile.ZipFile(io.BytesIO(data)).read("a.txt")
    b'text'
    """

    def __init__(self) -> None:
        self.offset = 0
        self._directory: list[bytes] = []

    def header(self, name: str, data: bytes) -> bytes:
        """Return what stands before an entry."""
        return self.header_of(name, len(data), zlib.crc32(data))

    def header_of(self, name: str, nbytes: int, crc32: int) -> bytes:
        """Return what stands before an entry of a size and CRC-32."""
        path = name.encode("ascii")
        start = self.offset
        sizes = struct.pack("<QQ", nbytes, nbytes) if nbytes >= _MAX_32 else b""
        extra = struct.pack("<HH", 1, len(sizes)) + sizes if sizes else b""
        short = _MAX_32 if sizes else nbytes
        common = struct.pack("<HHHHHIII", _ZIP64 if sizes else _PLAIN, 0, 0, _TIME, _DATE, crc32, short, short)
        header = b"PK\3\4" + common + struct.pack("<HH", len(path), len(extra)) + path + extra

        place = struct.pack("<Q", start) if start >= _MAX_32 else b""
        extra = struct.pack("<HH", 1, len(sizes + place)) + sizes + place if sizes or place else b""
        needed = _ZIP64 if extra else _PLAIN
        common = struct.pack("<HHHHHIII", needed, 0, 0, _TIME, _DATE, crc32, short, short)
        self._directory.append(
            b"PK\1\2"
            + struct.pack("<H", 3 << 8 | needed)  # made on Unix
            + common
            + struct.pack("<HHHHHII", len(path), len(extra), 0, 0, 0, _REGULAR_FILE, min(start, _MAX_32))
            + path
            + extra
        )
        self.offset += len(header) + nbytes
        return header

    def directory(self) -> bytes:
        """Return what stands after the last entry, which ends the archive."""
        entries = b"".join(self._directory)
        count, start = len(self._directory), self.offset
        end = b""
        if count >= _MAX_16 or start >= _MAX_32 or len(entries) >= _MAX_32:
            end = b"PK\6\6" + struct.pack(
                "<QHHIIQQQQ", 44, 3 << 8 | _ZIP64, _ZIP64, 0, 0, count, count, len(entries), start
            )
            end += b"PK\6\7" + struct.pack("<IQI", 0, start + len(entries), 1)
        short = min(count, _MAX_16)
        end += b"PK\5\6" + struct.pack(
            "<HHHHIIH", 0, 0, short, short, min(len(entries), _MAX_32), min(start, _MAX_32), 0
        )
        self.offset += len(entries) + len(end)
        return entries + end

"""Which bytes of a file that is being fetched are on the disk, told in a way that outlives any end of the process.

The rule: a range stands in the journal only after its bytes were synced, so what the journal says is true after a kill
and after a power cut. It is append-only; a record that was being written when the end came is dropped, and a journal
that is damaged elsewhere, or of another file, says nothing at all.

A journal is a line of text (`qrun-journal 1 KEY SIZE`), then records of start, stop and a CRC-32 over the line and
both, little-endian.
"""

import os
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

__all__ = ["Journal", "Ranges", "journalled", "sync_data"]

_RECORD = struct.Struct("<QQI")
_BOUNDS = struct.Struct("<QQ")
_MOST_BYTES = 64 * 2**20  # over 3 million records; what is longer is none of ours


class Ranges:
    """A set of byte positions as half-open ranges: sorted, apart, none empty. Few at a time, so kept as a list."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._ranges: list[tuple[int, int]] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._ranges)

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def add(self, start: int, stop: int) -> None:
        """Add the bytes [start, stop), joined with what they touch."""
        if start >= stop:
            return
        apart = [(low, high) for low, high in self._ranges if high < start or low > stop]
        met = [(low, high) for low, high in self._ranges if high >= start and low <= stop]
        joined = (min([start, *(low for low, _ in met)]), max([stop, *(high for _, high in met)]))
        self._ranges = sorted([*apart, joined])

    @property
    def n_bytes(self) -> int:
        """How many positions there are."""
        return sum(stop - start for start, stop in self._ranges)

    @property
    def frontier(self) -> int:
        """The end of what is there without a gap from 0 on."""
        return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def first_gap(self, size_bytes: int) -> tuple[int, int] | None:
        """The first range of [0, size_bytes) that is not there."""
        start = self.frontier
        if start >= size_bytes:
            return None
        return start, next((low for low, _ in self._ranges if low > start), size_bytes)


class Journal:
    """The journal of one file, open for more. One thread writes to it."""

    def __init__(self, path: Path, line: bytes, ranges: Ranges, n_bytes: int) -> None:
        self.ranges = ranges
        self._seed = zlib.crc32(line)
        self._file = path.open("ab" if n_bytes else "wb", buffering=0)
        self._file.truncate(n_bytes)  # without the record that was never finished
        if not n_bytes:
            self._append(line)

    @classmethod
    def begin(cls, path: Path, *, key: str, size_bytes: int) -> Self:
        """A new journal that knows of no byte, in place of any that is there. Raises OSError."""
        return cls(path, _line(key, size_bytes), Ranges(), 0)

    @classmethod
    def resume(cls, path: Path, *, key: str, size_bytes: int) -> Self | None:
        """The journal at `path`; None where there is none, or none of that file that can be trusted."""
        found = _read(path, _line(key, size_bytes), size_bytes)
        return cls(path, _line(key, size_bytes), *found) if found else None

    def add(self, ranges: Ranges) -> None:
        """Write down that `ranges` are on the disk, which the caller has seen to. Raises OSError, then unchanged."""
        records = b"".join(_record(start, stop, self._seed) for start, stop in ranges)
        self._append(records)
        for start, stop in ranges:
            self.ranges.add(start, stop)

    def close(self) -> None:
        """Close the file, and leave it there."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        before = self._file.tell()
        try:
            while data:
                data = data[self._file.write(data) :]
            sync_data(self._file.fileno())
        except OSError:
            self._file.truncate(before)  # a full disk may have taken the half of a record
            raise


def journalled(path: Path, *, key: str, size_bytes: int) -> Ranges:
    """What the journal at `path` says of that file, nothing where it cannot be trusted. Changes nothing."""
    found = _read(path, _line(key, size_bytes), size_bytes)
    return found[0] if found else Ranges()


def sync_data(fd: int) -> None:
    """Bring a file's bytes to the disk. Raises OSError."""
    getattr(os, "fdatasync", os.fsync)(fd)  # macOS and Windows have fsync alone


def _line(key: str, size_bytes: int) -> bytes:
    return f"qrun-journal 1 {key} {size_bytes}\n".encode("ascii")


def _record(start: int, stop: int, seed: int) -> bytes:
    return _RECORD.pack(start, stop, zlib.crc32(_BOUNDS.pack(start, stop), seed))


def _read(path: Path, line: bytes, size_bytes: int) -> tuple[Ranges, int] | None:
    """The ranges, and how many bytes of the journal say so."""
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not data.startswith(line):
        return None
    seed = zlib.crc32(line)
    records = [data[at : at + _RECORD.size] for at in range(len(line), len(data), _RECORD.size)]
    good = [_bounds(record, seed, size_bytes) for record in records]
    n_good = next((n for n, bounds in enumerate(good) if bounds is None), len(good))
    if any(good[n_good:]):
        return None  # damaged before its end: that is no torn write
    return Ranges(bounds for bounds in good[:n_good] if bounds), len(line) + n_good * _RECORD.size


def _bounds(record: bytes, seed: int, size_bytes: int) -> tuple[int, int] | None:
    if len(record) < _RECORD.size:
        return None
    start, stop, crc = _RECORD.unpack(record)
    right = crc == zlib.crc32(_BOUNDS.pack(start, stop), seed)
    return (start, stop) if right and start < stop <= size_bytes else None

"""What the Hub has said before: answers on this disk, each in a file of its own, for a while or for good.

Any number of processes share the folder: an entry is written aside and renamed into place, and one that is damaged,
cut off or of another version is as good as none. Errors are never kept. It holds names and headers of models, so its
files are readable by this user alone.
"""

import hashlib
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qrun.whole_file import write_whole

__all__ = ["MOST_CACHE_BYTES", "Entry", "HubCache"]

MOST_CACHE_BYTES = 512 * 2**20  # some 40 headers of today's vocabularies (6 to 14 MB each), and all listings
_KEPT_SHARE = 0.8  # of it after the oldest were removed
_PRUNE_EVERY_BYTES = 32 * 2**20  # the folder is measured at the first write and after every so many bytes
_MAGIC = b"qrun-hub-cache 1"


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer and when it was given, in seconds of the epoch."""

    payload: bytes
    saved_at: float

    def is_fresh(self, lifetime_s: float) -> bool:
        """Whether it is younger than `lifetime_s`; one from the future (a clock that was set back) is not."""
        return 0 <= time.time() - self.saved_at < lifetime_s


class HubCache:
    """The entries under one folder, by text keys. What cannot be written is not kept, and costs a request more."""

    def __init__(self, folder: Path, *, most_bytes: int = MOST_CACHE_BYTES) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._unmeasured_bytes: int | None = None  # written since the folder was measured; None: never measured

    def get(self, key: str) -> Entry | None:
        """The entry of `key`, whatever its age; None where there is none that is whole."""
        path = self._path(key)
        try:
            content = path.read_bytes()
        except OSError:  # not there, or not readable: the Hub is asked instead
            return None
        entry = _parsed(content, key)
        if entry is not None:
            with suppress(OSError):  # removed by another process meanwhile, or a read-only folder
                os.utime(path)  # used now: pruned later than what is not
        return entry

    def put(self, key: str, payload: bytes) -> None:
        """Keep `payload` as the answer to `key`, from now."""
        path = self._path(key)
        content = _head(key, payload, time.time()) + payload
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError:  # a full or read-only disk: the answer itself is in hand, the next run asks again
            return
        self._prune_sometimes(len(content))

    def prune(self) -> None:
        """Remove the entries that were used longest ago until the folder is below its bound."""
        entries = sorted(_measured(self._folder))
        total = sum(size for _, size, _ in entries)
        if total <= self._most_bytes:
            return
        for _, size, path in entries:
            if total <= self._most_bytes * _KEPT_SHARE:
                return
            with suppress(OSError):  # another process prunes too, or (on Windows) reads it just now
                path.unlink()
            total -= size

    def _path(self, key: str) -> Path:
        digest = hashlib.sha256(key.encode()).hexdigest()
        return self._folder / digest[:2] / digest[2:]

    def _prune_sometimes(self, n_written: int) -> None:
        # Several threads may count at once; a lost count prunes a little later.
        written = self._unmeasured_bytes
        self._unmeasured_bytes = n_written if written is None else written + n_written
        if written is None or self._unmeasured_bytes >= _PRUNE_EVERY_BYTES:
            self._unmeasured_bytes = 0
            self.prune()


def _head(key: str, payload: bytes, saved_at: float) -> bytes:
    return b"%b %b %.6f\n" % (_MAGIC, _digest(key, payload), saved_at)


def _parsed(content: bytes, key: str) -> Entry | None:
    head, _, payload = content.partition(b"\n")
    magic, _, rest = head.rpartition(b" ")[0].rpartition(b" ")
    if magic != _MAGIC or rest != _digest(key, payload):
        return None
    try:
        return Entry(payload, float(head.rpartition(b" ")[2]))
    except ValueError:
        return None


def _digest(key: str, payload: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + payload).hexdigest().encode()


def _measured(folder: Path) -> list[tuple[float, int, Path]]:
    """Time of last use, size and path of every file there, those left behind by killed writers too."""
    found = []
    for path in folder.glob("*/*"):
        try:
            status = path.stat()
        except OSError:  # another process removed it
            continue
        found.append((status.st_mtime, status.st_size, path))
    return found

"""One file on its way: its bytes so far at their places, the journal over them, and the checksum as far as it got.

Many threads write pieces of it; one thread settles them (sync, then journal), hashes and ends it. The checksum follows
the end of what is there without a gap and reads the bytes back from the file, which the system still has in memory: a
file is read from the disk once more only as far as an earlier run had fetched it.
"""

import hashlib
import os
import threading
import time
from pathlib import Path

from qrun.errors import FileDamaged
from qrun.store_disk import sync_folder
from qrun.store_journal import Journal, Ranges, sync_data
from qrun.store_layout import RepoLayout
from qrun.units import MIB

__all__ = ["Partial", "PartialClosed", "hash_of"]

_SETTLE_BYTES = 2 * MIB  # fewer are worth no sync while more are coming
_SETTLE_S = 0.5  # or after so long
_HASH_BYTES = 4 * MIB  # hashed before new pieces are looked at again
_SHA256_DIGITS = 64


class PartialClosed(Exception):
    """A piece came for a file that nobody waits for any more."""


class Partial:
    """The bytes of the blob `key` so far. Goes on where an earlier run stopped. Raises OSError where the disk does."""

    def __init__(self, layout: RepoLayout, key: str, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.is_wrong = False  # what came is not what the Hub said: no use to go on
        self._layout, self._key = layout, key
        self._path = layout.partial(key)
        self._lock = threading.Lock()  # over the file's position and all that follows
        self._journal = self._resumed() or self._begun()
        self._written = Ranges(self._journal.ranges)
        self._claimed = Ranges(self._journal.ranges)
        self._pending = Ranges()  # written, not yet in the journal
        self._settled_bytes = self._journal.ranges.n_bytes
        self._whole_only = False  # the server sends this file whole or not at all
        self._urgent = False  # somebody waits for their pieces to be settled
        self._settled_at = time.monotonic()
        self._news = threading.Event()
        self._file = self._path.open("r+b", buffering=0)
        self._reader = self._path.open("rb", buffering=0)
        self._hash = hash_of(key, size_bytes)
        self._hashed_bytes = 0
        self._closed = False

    @property
    def done_bytes(self) -> int:
        """How many bytes are there."""
        with self._lock:
            return self._written.n_bytes

    @property
    def is_complete(self) -> bool:
        """Whether every byte is there, in the journal and in the checksum."""
        return self._hashed_bytes == self.size_bytes == self._journal.ranges.n_bytes

    @property
    def unsettled_bytes(self) -> int:
        """How many bytes are asked for, or came, and do not stand in the journal."""
        with self._lock:
            return 0 if self._whole_only else self._claimed.n_bytes - self._settled_bytes

    def claim(self, most_bytes: int, left_bytes: int) -> tuple[int, int] | None:
        """The next range that nobody has asked for, of `most_bytes` at most; None if it is over `left_bytes`."""
        with self._lock:
            gap = self._claimed.first_gap(self.size_bytes)
            if gap is None or self._whole_only or self._closed:
                return None
            start, stop = gap[0], min(gap[1], gap[0] + most_bytes)
            if stop - start > left_bytes:
                return None
            self._claimed.add(start, stop)
            return start, stop

    def claim_whole(self) -> bool:
        """Claim all of it, for a server that sends no ranges; False where somebody did before."""
        with self._lock:
            was_claimed, self._whole_only = self._whole_only, True
        return not was_claimed

    def write(self, at: int, piece: bytes) -> None:
        """Put `piece` at byte `at`. Raises OSError, and PartialClosed after `close`."""
        with self._lock:
            if self._closed:
                raise PartialClosed
            self._file.seek(at)
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]
            self._written.add(at, at + len(piece))
            self._pending.add(at, at + len(piece))
            is_news = self._pending.n_bytes >= _SETTLE_BYTES
        if is_news:
            self._news.set()

    def settle_soon(self) -> None:
        """Let what was written be settled now, however little: somebody waits for that."""
        self._urgent = True
        self._news.set()

    def settle(self) -> int:
        """Sync and journal what was written, where that is worth it: how many bytes. Raises OSError."""
        with self._lock:
            n_bytes = self._pending.n_bytes
            is_time = self._urgent or n_bytes >= _SETTLE_BYTES or time.monotonic() > self._settled_at + _SETTLE_S
            if not n_bytes or not is_time:
                return 0
            pending, self._pending, self._urgent = self._pending, Ranges(), False
        sync_data(self._file.fileno())
        self._journal.add(pending)
        self._settled_at = time.monotonic()
        with self._lock:
            self._settled_bytes = self._journal.ranges.n_bytes
        return n_bytes

    def hash_on(self) -> bool:
        """Take the next few bytes into the checksum; False where none are there. Raises OSError, FileDamaged."""
        with self._lock:
            stop = min(self._written.frontier, self._hashed_bytes + _HASH_BYTES)
        if stop == self._hashed_bytes:
            return False
        self._reader.seek(self._hashed_bytes)
        while self._hashed_bytes < stop:
            piece = self._reader.read(min(MIB, stop - self._hashed_bytes))
            if not piece:
                raise FileDamaged(str(self._path), "another program cut it while it was fetched")
            self._hash.update(piece)
            self._hashed_bytes += len(piece)
        return True

    def wait(self, seconds: float) -> None:
        """Wait until there is something to settle, `seconds` at most."""
        if self._news.wait(seconds):
            self._news.clear()

    @property
    def checksum(self) -> str:
        """Of the bytes so far, of the key's own kind."""
        return self._hash.hexdigest()

    def put_in_place(self) -> Path:
        """Make it the blob: synced, closed, renamed, its journal gone. Raises OSError."""
        os.fsync(self._file.fileno())
        self.close()
        blob = self._layout.blob(self._key)
        self._path.replace(blob)
        sync_folder(blob.parent)
        self._layout.journal(self._key).unlink(missing_ok=True)
        self._layout.set_aside(self._key).unlink(missing_ok=True)
        return blob

    def set_aside(self) -> Path:
        """Keep the bytes under a name that nobody takes for the blob; the next try begins anew. Raises OSError."""
        self.close()
        self._layout.journal(self._key).unlink(missing_ok=True)
        return self._path.replace(self._layout.set_aside(self._key))

    def close(self) -> None:
        """Close it and leave what is there for the next run; what is not settled will be fetched again."""
        with self._lock:
            self._closed = True
            self._file.close()
            self._reader.close()
            self._journal.close()

    def _resumed(self) -> Journal | None:
        try:
            is_ours = self._path.stat().st_size == self.size_bytes
        except FileNotFoundError:
            return None
        if not is_ours:
            return None
        return Journal.resume(self._layout.journal(self._key), key=self._key, size_bytes=self.size_bytes)

    def _begun(self) -> Journal:
        # In this order a journal never speaks of bytes that are not there, wherever the process ends.
        journal = self._layout.journal(self._key)
        journal.unlink(missing_ok=True)
        with self._path.open("wb") as file:
            file.truncate(self.size_bytes)  # sparse: takes room as the bytes come
        return Journal.begin(journal, key=self._key, size_bytes=self.size_bytes)


def hash_of(key: str, size_bytes: int) -> "hashlib._Hash":
    """The checksum that `key` is one of, begun for a file of that size: sha256, or git's id."""
    if len(key) == _SHA256_DIGITS:
        return hashlib.sha256()
    # git's own id of a file (git-scm.com, "Git Internals - Git Objects"); a checksum here, no defence
    return hashlib.sha1(f"blob {size_bytes}\0".encode("ascii"), usedforsecurity=False)

"""Files as the emulated Hub stores them: what their bytes are, and the ids that git and LFS give them.

A blob knows its size and ids without holding its bytes: they lie in memory, in a file of this disk, or are zeros.
"""

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

__all__ = ["Blob", "blob_of", "is_lfs"]

PIECE_BYTES = 1 << 20
_ZEROS = memoryview(bytes(PIECE_BYTES))

# What the .gitattributes of the Hub's new repos sends to LFS, and the size above which git refuses a file there.
_LFS_SUFFIX = re.compile(
    r"\.(7z|arrow|bin|bz2|ckpt|ftz|gguf|gz|h5|joblib|mlmodel|model|msgpack|npy|npz|onnx|ot|parquet|pb|pickle|pkl|pt|pth"
    r"|rar|safetensors|tar|tflite|tgz|wasm|xz|zip|zst)$|tfevents",
    re.IGNORECASE,
)
_MOST_BYTES_IN_GIT = 10_000_000


def is_lfs(path: str, size_bytes: int) -> bool:
    """Whether the Hub keeps a file of this name and size in LFS."""
    return size_bytes > _MOST_BYTES_IN_GIT or _LFS_SUFFIX.search(path) is not None


@dataclass(frozen=True)
class Blob:
    """The bytes of one file: those of the file `source`, or `head` and then zeros up to `size_bytes`.

    `claimed_sha256` is the id of bytes that were never made (a name and a size out of a listing): a download of them
    does not verify, and is not meant to.
    """

    size_bytes: int
    lfs: bool
    head: bytes = b""
    source: Path | None = None
    claimed_sha256: str | None = None
    make_head: Callable[[], bytes] | None = None

    @cached_property
    def start(self) -> bytes:
        """What stands before the zeros; made when it is first read, where `make_head` makes it."""
        return self.make_head() if self.make_head else self.head

    @cached_property
    def sha256(self) -> str:
        """Of the bytes, or the one that is claimed for them."""
        if self.claimed_sha256 is not None:
            return self.claimed_sha256
        if self.source is not None:
            stat = self.source.stat()
            return _sha256_of_file(self.source, stat.st_size, stat.st_mtime_ns)
        return self._hashed(hashlib.sha256())

    @cached_property
    def git_id(self) -> str:
        """What git calls the file: of an LFS file it is the id of its pointer."""
        if self.lfs:
            return _git_id(self.pointer)
        return self._hashed(hashlib.sha1(f"blob {self.size_bytes}\0".encode(), usedforsecurity=False))

    @property
    def pointer(self) -> bytes:
        """The few lines that stand in git for an LFS file."""
        lines = ("version https://git-lfs.github.com/spec/v1", f"oid sha256:{self.sha256}", f"size {self.size_bytes}")
        return "".join(f"{line}\n" for line in lines).encode()

    @property
    def cache_key(self) -> str:
        """The name of the blob in the Hub's cache: the sha256 of an LFS file, git's id of any other."""
        return self.sha256 if self.lfs else self.git_id

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """The bytes from `start` to `stop`, in pieces of at most 1 MiB."""
        while start < stop:
            piece = self._piece(start, min(stop, start + PIECE_BYTES))
            yield piece
            start += len(piece)

    def read(self) -> bytes:
        """All bytes at once: for small files."""
        return b"".join(self.pieces(0, self.size_bytes))

    def _piece(self, start: int, stop: int) -> memoryview:
        if self.source is None and start < len(self.start):
            return memoryview(self.start)[start:stop]
        if self.source is None:
            return _ZEROS[: stop - start]
        with self.source.open("rb", buffering=0) as file:
            piece = os.pread(file.fileno(), stop - start, start)
        if not piece:
            raise OSError(f"{self.source} became shorter than {self.size_bytes:,} bytes")
        return memoryview(piece)

    def _hashed(self, digest: "hashlib._Hash") -> str:
        for piece in self.pieces(0, self.size_bytes):
            digest.update(piece)
        return digest.hexdigest()


def blob_of(path: str, content: "bytes | Path | int | Blob", *, salt: str) -> Blob:
    """The blob of a file at `path` of a repo. A number is a size only: `salt` and the path then make its sha256."""
    if isinstance(content, Blob):
        return content
    if isinstance(content, bytes):
        return Blob(len(content), is_lfs(path, len(content)), head=content)
    if isinstance(content, Path):
        size_bytes = content.stat().st_size
        return Blob(size_bytes, is_lfs(path, size_bytes), source=content)
    lfs = is_lfs(path, content)
    claimed = hashlib.sha256(f"{salt}\0{path}\0{content}".encode()).hexdigest() if lfs else None
    return Blob(content, lfs, claimed_sha256=claimed)


@lru_cache(maxsize=256)
def _sha256_of_file(path: Path, size_bytes: int, mtime_ns: int) -> str:
    """Kept for the process by name, size and age: the same demo models are served by many tests."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data, usedforsecurity=False).hexdigest()

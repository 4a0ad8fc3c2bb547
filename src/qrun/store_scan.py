"""What lies in the Hub's cache, whoever put it there: repos, their snapshots, files, and what is not finished.

Read from the folders alone (`store_layout` draws them): no network, and no huggingface_hub, whose own scan looks at
every file of every repo first. What a tool has left half-made is told as it is and hides nothing else.
"""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from qrun.store_layout import OWN_SUFFIXES, PARTIAL_SUFFIX, SET_ASIDE_SUFFIX, is_key

__all__ = ["Leftover", "LeftoverKind", "Snapshot", "StoredFile", "StoredRepo", "files_of", "leftovers", "stored_repos"]

_PREFIX = "models--"
_INCOMPLETE = ".incomplete"  # how the partial files of huggingface_hub, and ours, end
_SHA256_DIGITS = 64
_WEIGHTS = (".gguf", ".safetensors", ".bin", ".pt", ".pth", ".ckpt")
_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})  # where a link may lead
_BLOCK_BYTES = 512  # the unit of st_blocks (POSIX, sys/stat.h)

LeftoverKind = Literal["partial", "set_aside", "other"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit of a repo, as far as its files were fetched. `refs`: the branches that were last seen at it."""

    commit: str
    folder: Path
    refs: tuple[str, ...]
    modified_at_s: float  # since the epoch: when a file was last added at its top


@dataclass(frozen=True, slots=True)
class StoredRepo:
    """A model repo in the cache. `snapshots`: main's first, then those of other branches, then the newest first."""

    repo_id: str
    folder: Path
    snapshots: tuple[Snapshot, ...]

    @property
    def card_folder(self) -> Path:
        """The first snapshot that has a README.md; where none has, the first of all, or the repo's own folder."""
        folders = [snapshot.folder for snapshot in self.snapshots] or [self.folder]
        return next((folder for folder in folders if (folder / "README.md").is_file()), folders[0])


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a snapshot. `size_bytes` None: a link that leads nowhere. `key`: its checksum, where its blob bears it.

    `blob` is where the bytes are, as far as the snapshot's own link leads; without links (Windows) the file itself.
    """

    path: str
    disk: Path
    blob: Path
    size_bytes: int | None
    key: str | None

    @property
    def sha256(self) -> str | None:
        """The sha256 that the Hub names for it; None for a file that is not LFS's."""
        return self.key if self.key and len(self.key) == _SHA256_DIGITS else None

    @property
    def is_weights(self) -> bool:
        """Whether a model's weights can be in it, by its name."""
        return self.path.lower().endswith(_WEIGHTS)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file beside the blobs that no snapshot can name yet. `size_bytes` is what it takes of the disk."""

    path: Path
    kind: LeftoverKind
    is_ours: bool
    size_bytes: int
    modified_at_s: float


def stored_repos(cache_dir: Path) -> tuple[StoredRepo, ...]:
    """Every model repo in the cache, by repo_id. Raises PermissionError where the cache may not be listed."""
    try:
        with os.scandir(cache_dir) as entries:
            folders = [Path(entry.path) for entry in entries if entry.name.startswith(_PREFIX) and _is_folder(entry)]
    except (FileNotFoundError, NotADirectoryError):
        return ()
    repos = [StoredRepo(_repo_id(folder), folder, _snapshots(folder)) for folder in folders]
    return tuple(sorted(repos, key=lambda repo: (repo.repo_id.casefold(), repo.repo_id)))


def files_of(snapshot: Snapshot) -> tuple[StoredFile, ...]:
    """The files of one snapshot, by path."""
    return tuple(sorted(_walk(snapshot.folder, ""), key=lambda file: file.path))


def leftovers(repo: StoredRepo) -> tuple[Leftover, ...]:
    """What is unfinished or set aside in a repo, ours and other tools', by path."""
    found = [Path(entry.path) for entry in _scan(repo.folder / "blobs") if entry.name.endswith(_INCOMPLETE)]
    return tuple(left for path in sorted(found) if (left := _leftover(path)) is not None)


def _repo_id(folder: Path) -> str:
    # The Hub allows no "--" in a name, so only the one between organisation and name can be meant.
    return folder.name.removeprefix(_PREFIX).replace("--", "/", 1)


def _snapshots(folder: Path) -> tuple[Snapshot, ...]:
    refs: dict[str, list[str]] = {}
    for ref, commit in _refs(folder / "refs", "").items():
        refs.setdefault(commit, []).append(ref)
    found = [
        Snapshot(entry.name, Path(entry.path), tuple(sorted(refs.get(entry.name, ()))), entry.stat().st_mtime)
        for entry in _scan(folder / "snapshots")
        if _is_folder(entry)
    ]
    return tuple(sorted(found, key=_rank))


def _rank(snapshot: Snapshot) -> tuple[bool, bool, Sequence[str], float, str]:
    refs = snapshot.refs
    return "main" not in refs, not refs, refs, -snapshot.modified_at_s, snapshot.commit


def _refs(folder: Path, prefix: str) -> Mapping[str, str]:
    """Each branch (`refs/pr/1` too) and its commit."""
    found: dict[str, str] = {}
    for entry in _scan(folder):
        if _is_folder(entry):
            found |= _refs(Path(entry.path), f"{prefix}{entry.name}/")
        elif (commit := _commit_in(Path(entry.path))) is not None:
            found[f"{prefix}{entry.name}"] = commit
    return found


def _commit_in(ref: Path) -> str | None:
    try:
        return ref.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):  # gone in between, or no ref
        return None


def _walk(folder: Path, prefix: str) -> Iterator[StoredFile]:
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), f"{prefix}{entry.name}/")
        else:
            yield _stored_file(Path(entry.path), f"{prefix}{entry.name}")


def _stored_file(disk: Path, path: str) -> StoredFile:
    # The first hop alone: a blob may itself be a link, into huggingface_hub's store for all repos.
    blob = Path(os.path.normpath(disk.parent / disk.readlink())) if disk.is_symlink() else disk
    key = blob.name if blob is not disk and blob.parent.name == "blobs" and is_key(blob.name) else None
    return StoredFile(path, disk, blob, _size(disk), key)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno not in _NOWHERE:
            raise
        return False


def _leftover(path: Path) -> Leftover | None:
    try:
        status = path.lstat()
    except FileNotFoundError:  # finished or removed in between
        return None
    blocks = getattr(status, "st_blocks", None)  # Windows has none; a partial file is sparse elsewhere
    taken = status.st_size if blocks is None else min(status.st_size, blocks * _BLOCK_BYTES)
    return Leftover(path, _kind(path.name), path.name.endswith(OWN_SUFFIXES), taken, status.st_mtime)


def _kind(name: str) -> LeftoverKind:
    if name.endswith(SET_ASIDE_SUFFIX):
        return "set_aside"
    if name.endswith(PARTIAL_SUFFIX) or not name.endswith(OWN_SUFFIXES):
        return "partial"
    return "other"  # a journal, or what was staged


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []
